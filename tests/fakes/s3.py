"""A real S3 server on a free loopback port, from `moto`."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3:
    """Keeps its objects in memory; `kill` ends it as a crash would."""

    def __init__(self) -> None:
        pytest.importorskip("s3fs", reason="the client is not installed: pip install 'sluicegate[s3]'")
        pytest.importorskip("moto", reason="no S3 server: pip install 'moto[s3,server]'")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = "moto did not start"
                raise RuntimeError(message)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        assert self.ask("PUT", f"/{name}")[0] == 200

    def check_rights(self, *, on: bool) -> None:
        """Refuse callers that no policy allows from now on, or stop refusing."""
        assert self.ask("POST", "/moto-api/reset-auth", b"0" if on else b"inf")[0] == 200

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of one unsigned request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Authorization": _UNSIGNED})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/moto-api/data.json")[0] == 200
        except OSError:
            return False


_UNSIGNED = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)


@contextmanager
def s3() -> Iterator[S3]:
    """A server that runs; it is killed at the end."""
    server = S3()
    server.start()
    try:
        yield server
    finally:
        server.kill()
