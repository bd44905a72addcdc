"""The life of one llama.cpp child process: started, greeted, drained, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UpstreamError

_ENVIRONMENT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
)
"""What the child sees of our environment: no key of any provider."""
_MODULE = "gateway.providers.llamacpp_child"


@dataclass(slots=True)
class Child:
    """A child that listens; `headers` are what a request to it needs."""

    process: asyncio.subprocess.Process
    drain: asyncio.Task[None]
    url: str
    headers: tuple[tuple[bytes, bytes], ...]


def arguments(path: Path, *, alias: str, threads: int, context: int, parallel: int) -> Sequence[str]:
    """The command line of a child that serves *path*, for `spawn`."""
    values = {"gguf": path, "alias": alias, "threads": threads, "context": context, "parallel": parallel}
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


async def spawn(path: Path, command: Sequence[str], *, timeout_s: float, patience_s: float) -> Child:
    """
    A child that listens.

    Raises:
        UpstreamError: llama.cpp refuses the file, and the message has its reason; or there is no
            process to be had.
        TimeoutError: it did not listen within *timeout_s*; it was stopped.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # keeps the working directory off the child's import path
            "-m",
            _MODULE,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C in a terminal is for the gateway, which then drains
        )
    except OSError as error:
        message = f"no process for llama.cpp could be started: {error.strerror}"
        raise UpstreamError(message) from error
    said: deque[bytes] = deque(maxlen=20)
    drain = asyncio.create_task(_drain(process, said))
    try:
        async with asyncio.timeout(timeout_s):
            child = await _greet(process, drain, said, path)
    except BaseException:
        await asyncio.shield(stop(process, patience_s))
        await drain
        raise
    said.clear()
    return child


async def _greet(
    process: asyncio.subprocess.Process, drain: asyncio.Task[None], said: deque[bytes], path: Path
) -> Child:
    assert process.stdout is not None  # noqa: S101 - it was asked for above
    line = await process.stdout.readline()
    if not line:
        await drain
        reason = b" ".join(said).decode(errors="replace")[-500:]
        message = f"llama.cpp could not serve {path}: {reason}"
        raise UpstreamError(message)
    hello = json.loads(line)
    headers = (
        (b"authorization", b"Bearer " + hello["key"].encode()),
        (b"content-type", b"application/json"),
    )
    return Child(process, drain, hello["url"], headers)


async def _drain(process: asyncio.subprocess.Process, said: deque[bytes]) -> None:
    """Read the child's standard error to its end, so that it never blocks; *said* keeps the last lines."""
    assert process.stderr is not None  # noqa: S101 - it was asked for above
    while chunk := await process.stderr.read(4096):
        said.append(chunk)


async def stop(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """End the child: close its input, then SIGTERM, then SIGKILL."""
    if process.stdin is not None:
        process.stdin.close()
    for insist in (process.terminate, process.kill):
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await process.wait()
                return
        with suppress(ProcessLookupError):
            insist()
    await process.wait()
