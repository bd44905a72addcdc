"""One engine process: started in a session of its own, read, and ended with all that it started."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.engines import leash
from gateway.engines.errors import EngineFailed
from gateway.engines.log import BoundedLog

_NAMES = frozenset({
    "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "NO_PROXY", "OMP_NUM_THREADS",
    "PATH", "PYTHONPATH", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME",
})  # fmt: skip
_PREFIXES = ("CUDA_", "HF_", "NCCL_", "NVIDIA_", "TORCH", "TRITON_", "VLLM_")
_KILL_S = 5.0
_DRAIN_S = 2.0


@dataclass(slots=True)
class Running:
    """A process that runs, or did."""

    process: asyncio.subprocess.Process
    reading: asyncio.Task[None]


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine sees of *environment*: paths and settings of its own libraries; no other key."""
    return {
        name: value
        for name, value in environment.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and name != "VLLM_API_KEY"
    }


async def spawn(argv: Sequence[str], environment: Mapping[str, str], log: BoundedLog) -> Running:
    """
    Start *argv* with exactly *environment*; all it prints goes to *log*.

    Raises:
        EngineFailed: there is no such program, or no process to be had.
    """
    if shutil.which(argv[0], path=environment.get("PATH")) is None:
        message = f"{argv[0]} is not a program on the path; install vLLM where the engine shall run"
        raise EngineFailed(message)
    ours, theirs = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(Path(leash.__file__)),
            str(os.getpid()),
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the gateway; and one signal reaches all workers
        )
    except BaseException as error:
        os.close(ours)
        if not isinstance(error, OSError):
            raise
        message = f"no process for {argv[0]} could be started: {error.strerror}"
        raise EngineFailed(message) from error
    finally:
        os.close(theirs)
    return Running(process, asyncio.create_task(_read(ours, log)))


async def end(running: Running, patience_s: float) -> None:
    """
    End the process: SIGTERM, after *patience_s* SIGKILL, in the end to all of its session.

    Takes at most *patience_s* and seven seconds.
    """
    process = running.process
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await process.wait()
    # Workers that outlived their leader hold its memory; the group exists for as long as one of them does.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_KILL_S):
            await process.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await running.reading


async def _read(descriptor: int, log: BoundedLog) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while chunk := await reader.read(65_536):
            log.write(chunk)
    finally:
        transport.close()
