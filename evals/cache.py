"""
Outputs kept between runs, so that a run that stopped goes on where it was.

The key covers everything an output depends on: the release's digest, the system, the sample, the
request, the code of evals, and which repetition it is. Failures are never kept. A run without a cache
keeps its outputs in a temporary one: they are never all in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from evals.errors import CacheUnavailable
from evals.systems.base import Output
from registry.ids import digest

FILE = "outputs.sqlite"
CACHE_FOLDER = "evals-cache"
"""Where a registry's home keeps it."""
_BUSY_TIMEOUT_S = 30
_INSERT = {
    "outputs": "INSERT OR REPLACE INTO outputs VALUES (?, ?)",
    "calls": "INSERT OR REPLACE INTO calls VALUES (?, ?)",
}
_SELECT = {
    ("outputs", "output"): "SELECT output FROM outputs WHERE key = ?",
    ("calls", "answer"): "SELECT answer FROM calls WHERE key = ?",
}


class CallAnswer(msgspec.Struct, frozen=True):
    """What one call of a judge's model brought: text, or a vector for each text."""

    text: str = ""
    vectors: list[list[float]] = []
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    """As the server named it."""


class Cache:
    """
    Outputs and judges' answers by key. Safe for many processes at once; one thread each.

    Inside of an event loop what is put is written at the end of the loop's turn, in one transaction;
    elsewhere at once. What is written survives the end of this process, however it ends.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use an open database; see `open_cache`."""
        self._connection = connection
        self._pending: dict[str, dict[str, bytes]] = {"outputs": {}, "calls": {}}
        self._is_due = False

    def get(self, key: str) -> Output | None:
        """The output kept under *key*, or None. Raises CacheUnavailable."""
        data = self._read("outputs", "output", key)
        try:
            return None if data is None else msgspec.json.decode(data, type=Output)
        except msgspec.MsgspecError:
            return None

    def put(self, outputs: Mapping[str, Output]) -> None:
        """Keep *outputs* by key. Raises CacheUnavailable."""
        self._write("outputs", {key: msgspec.json.encode(output) for key, output in outputs.items()})

    def get_call(self, key: str) -> CallAnswer | None:
        """The answer of a judge kept under *key*, or None. Raises CacheUnavailable."""
        data = self._read("calls", "answer", key)
        try:
            return None if data is None else msgspec.json.decode(data, type=CallAnswer)
        except msgspec.MsgspecError:
            return None

    def put_call(self, key: str, answer: CallAnswer) -> None:
        """Keep a judge's answer. Raises CacheUnavailable."""
        self._write("calls", {key: msgspec.json.encode(answer)})

    def flush(self) -> None:
        """Write what was put. Raises CacheUnavailable."""
        self._is_due = False
        with _told(), self._connection:
            for table, rows in self._pending.items():
                if rows:
                    self._connection.executemany(_INSERT[table], list(rows.items()))
        for rows in self._pending.values():
            rows.clear()

    def _read(self, table: str, column: str, key: str) -> bytes | str | None:
        waiting = self._pending[table].get(key)
        if waiting is not None:
            return waiting
        with _told():
            row = self._connection.execute(_SELECT[table, column], (key,)).fetchone()
        return None if row is None else row[0]

    def _write(self, table: str, rows: Mapping[str, bytes]) -> None:
        self._pending[table].update(rows)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self.flush)


@contextmanager
def temporary_cache() -> Iterator[Cache]:
    """A cache that is gone when the run ends."""
    with TemporaryDirectory(prefix="sluicegate-evals-") as folder, open_cache(Path(folder)) as cache:
        yield cache


@contextmanager
def open_cache(folder: Path) -> Iterator[Cache]:
    """
    The cache in *folder*, made on first use.

    Raises:
        CacheUnavailable: the folder cannot be written, or holds no cache.
    """
    with _told():
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / FILE, timeout=_BUSY_TIMEOUT_S)
    try:
        with _told(), connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS outputs (key TEXT PRIMARY KEY, output BLOB NOT NULL)"
            )
            connection.execute(
                "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer BLOB NOT NULL)"
            )
        cache = Cache(connection)
        try:
            yield cache
        finally:
            cache.flush()
    finally:
        connection.close()


def base_key(identity: str, system: str, code: str) -> str:
    """
    What all outputs of one subject through one system share.

    Args:
        identity: digest of the release, or of whatever answers.
        code: `code_digest` of the judging code.
    """
    return digest({"identity": identity, "system": system, "code": code})


def sample_key(base: str, sample: str, request: Mapping[str, Any]) -> str:
    """
    The key of one sample's outputs, before the repetition is added.

    Args:
        base: of `base_key`.
        sample: digest of the sample.
        request: what is sent, without the alias it is sent to.
    """
    return hashlib.sha256(f"{base}\0{sample}\0".encode() + _bytes(request)).hexdigest()


def _bytes(request: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(request, order="deterministic")


def key_of_epoch(key: str, epoch: int) -> str:
    """The key of one output: that of its sample in repetition *epoch*."""
    return hashlib.sha256(f"{key}\0{epoch}".encode()).hexdigest()


def code_digest(*plug_ins: Path) -> str:
    """The digest of every source file of evals, and of the files of systems from elsewhere."""
    root = Path(__file__).parent
    state = hashlib.sha256()
    for path in (*sorted(root.rglob("*.py")), *sorted(plug_ins)):
        name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
        state.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return "sha256:" + state.hexdigest()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise CacheUnavailable(
            f"the cache of outputs cannot be used: {error}; delete it or run with --no-cache"
        ) from error
