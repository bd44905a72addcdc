"""
The processes that serve one port, as one: whichever answers a scrape or a probe asks the others.

Each listens on a socket in a folder that is its owner's alone, and answers one question per connection:
its metrics as text, or its state as JSON. A process that does not answer in time is shown as down; nothing
waits for it any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

_TIMEOUT_S = 1.0
_MAX_BYTES = 32_000_000
_PIECE = 65_536
_METRICS, _STATE = b"metrics\n", b"state\n"
_MAX_SOCKET_PATH = 100
"""Linux takes 107 bytes, macOS 103."""
_SAMPLE = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{[ \t]*(\}?))?")
_SUFFIXES = (b"_bucket", b"_count", b"_sum")
_log = logging.getLogger(__name__)

State = dict[str, Any]
"""One process: `index`, `pid`, `revision`, `ready`; pid and revision are None where it does not answer."""


class Siblings:
    """The *count* processes of one port, seen by the one called *index*. Owned by one event loop."""

    def __init__(self, folder: Path, index: int, count: int) -> None:
        """Meet the others in *folder*, which `make_folder` made. Nothing runs before `start`."""
        self._folder = folder
        self._index = index
        self._count = count
        self._server: asyncio.Server | None = None
        self._render: Callable[[], bytes] = bytes
        self._state: Callable[[], State] = dict

    async def start(self, render: Callable[[], bytes], state: Callable[[], State]) -> None:
        """
        Answer the others with what *render* and *state* say of this process when they are called.

        Raises:
            OSError: the folder is somebody else's, or no socket can be made in it.
        """
        self._render, self._state = render, state
        path = self._path(self._index)
        self._folder.mkdir(mode=0o700, exist_ok=True)  # gone if all others have just stopped
        if self._folder.stat().st_uid != os.geteuid():
            message = f"{self._folder} belongs to another user"
            raise PermissionError(message)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, path, limit=_PIECE)

    async def stop(self) -> None:
        """Answer no more. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._path(self._index).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: others still use it
            self._folder.rmdir()

    async def metrics(self, own: bytes) -> bytes:
        """
        The metrics of all processes in Prometheus' text format, *own* being this one's.

        Every sample has the label `worker`; `sluicegate_worker_up` says which processes answered within a
        second.
        """
        texts = await self._ask(_METRICS)
        texts[self._index] = own
        up = b"# HELP sluicegate_worker_up Whether this process of the gateway answers.\n"
        up += b"# TYPE sluicegate_worker_up gauge\n"
        for index in range(self._count):
            up += b'sluicegate_worker_up{worker="%d"} %d\n' % (index, index in texts)
        return await asyncio.to_thread(merge, texts) + up

    async def states(self) -> list[State]:
        """The state of every process, by index."""
        found: list[State] = []
        answers = await self._ask(_STATE)
        for index in range(self._count):
            if index == self._index:
                found.append({"index": index, **self._state()})
            else:
                found.append({"index": index, **_state_of(answers.get(index, b""))})
        return found

    def _path(self, index: int) -> Path:
        return self._folder / f"worker-{index}.sock"

    async def _ask(self, question: bytes) -> dict[int, bytes]:
        """What the other processes answer, without those that do not."""
        others = [index for index in range(self._count) if index != self._index]
        answers = await asyncio.gather(*(_asked(self._path(index), question) for index in others))
        return {index: answer for index, answer in zip(others, answers, strict=True) if answer}

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                question = await reader.readline()
                if question in (_METRICS, _STATE):
                    body = self._render() if question == _METRICS else msgspec.json.encode(self._state())
                    writer.write(b"%d\n" % len(body))
                    writer.write(body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, ValueError, TimeoutError) as error:
            _log.warning("another process of this gateway could not be answered: %r", error)
        finally:
            writer.transport.abort()


async def _asked(path: Path, question: bytes) -> bytes:
    """The answer of the process behind *path*; empty when there is none in time, or one too large."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=_PIECE)
            try:
                writer.write(question)
                length = int(await reader.readline())
                if length > _MAX_BYTES:
                    _log.warning("%s wants to answer with %d bytes", path.name, length)
                    return b""
                return await reader.readexactly(length)
            finally:
                writer.transport.abort()
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        _log.debug("%s does not answer: %r", path.name, error)
        return b""


def _state_of(answer: bytes) -> State:
    try:
        state = msgspec.json.decode(answer, type=State)
    except msgspec.DecodeError:
        return {"pid": None, "revision": None, "ready": False}
    return state


def make_folder(home: Path) -> Path:
    """
    A new folder for the sockets of one gateway, its owner's alone; whoever made it removes it.

    Lies in `<home>/run`, or in `/tmp` where that path is too long for a socket's.
    """
    run = home / "run"
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    longest = len(os.fsencode(run / "workers-12345678" / "worker-12345.sock"))
    return Path(tempfile.mkdtemp(prefix="workers-", dir=run if longest <= _MAX_SOCKET_PATH else "/tmp"))  # noqa: S108 - mkdtemp makes it safe


@dataclass(slots=True)
class _Family:
    head: dict[bytes, bytes] = field(default_factory=dict)
    """`HELP` and `TYPE`, as the first process that has them says."""
    samples: list[bytes] = field(default_factory=list)

    @property
    def has_parts(self) -> bool:
        """Whether its samples are called after it with a suffix each."""
        return self.head.get(b"TYPE", b"").endswith((b" histogram", b" summary"))


def merge(texts: Mapping[int, bytes]) -> bytes:
    r"""
    The samples of all *texts* (Prometheus' text format 0.0.4), each with its key as the label `worker`.

    No sample may have a label `worker` before. Families stay together, in the order in which they are first
    seen, with one `HELP` and one `TYPE`.

    >>> print(merge({0: b"up 1\n", 1: b'up{a="b"} 0\n'}).decode(), end="")
    up{worker="0"} 1
    up{worker="1",a="b"} 0
    """
    families: dict[bytes, _Family] = {}
    for worker, text in sorted(texts.items()):
        label = b'{worker="%d"' % worker
        name = b""
        family = _Family()
        for line in text.split(b"\n"):
            if line.startswith((b"# HELP ", b"# TYPE ")):
                _, keyword, named, *_ = (*line.split(maxsplit=3), b"")
                if named != name:
                    name, family = named, families.setdefault(named, _Family())
                family.head.setdefault(keyword, line)
                continue
            found = _SAMPLE.match(line)
            if found is None:
                continue  # another comment, or nothing
            of = found[1]
            if of != name and not (family.has_parts and of.startswith(name) and of[len(name) :] in _SUFFIXES):
                name, family = of, families.setdefault(of, _Family())
            if found[2] is None:
                family.samples.append(of + label + b"}" + line[found.end(1) :])
            else:
                family.samples.append(of + label + (b"}" if found[2] else b",") + line[found.end() :])
    lines = [line for family in families.values() for line in (*family.head.values(), *family.samples)]
    return b"".join(line + b"\n" for line in lines)
