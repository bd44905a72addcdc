from __future__ import annotations

import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from classical import track
from classical.errors import TrackingFailed
from classical.track import Run
from registry.errors import MissingExtra

RUN = Run(
    "people",
    {f"model.p{number}": str(number) for number in range(150)} | {"data.random_state": "7"},
    {"accuracy": 0.75, "f1": 0.5},
    {"data.digest": "sha256:1", "git.dirty": "true"},
)


def test_a_run_is_recorded_whole_and_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    uri = track.default_uri(home)
    with track.recorder(uri) as record:
        recorded = record(RUN, {"model.onnx": b"bytes"})
    with sqlite3.connect(home / "mlflow.db") as database:
        where = (recorded.run_id,)
        params = dict(database.execute("SELECT key, value FROM params WHERE run_uuid=?", where))
        metrics = dict(database.execute("SELECT key, value FROM metrics WHERE run_uuid=?", where))
        tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid=?", where))
        status = database.execute("SELECT status FROM runs WHERE run_uuid=?", where).fetchall()
        names = [name for (name,) in database.execute("SELECT name FROM experiments ORDER BY 1")]
    database.close()
    assert params == RUN.params
    assert metrics == RUN.metrics
    assert RUN.tags.items() <= tags.items()
    assert status == [("FINISHED",)]
    assert names == ["Default", "people"]
    (stored,) = (home / "mlartifacts" / "people").rglob("model.onnx")
    assert (stored.read_bytes(), stored.parts[-3]) == (b"bytes", recorded.run_id)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert capfd.readouterr() == ("", "")


class Refusing(BaseHTTPRequestHandler):
    """A tracking server that answers every request with an error."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def test_a_server_that_refuses_is_told_without_its_password() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with (
                track.recorder(f"http://ada:secret@127.0.0.1:{server.server_port}") as record,
                pytest.raises(TrackingFailed) as caught,
            ):
                record(RUN, {})
        finally:
            server.shutdown()
            thread.join()
    assert caught.value.message.startswith(f"MLflow at http://127.0.0.1:{server.server_port}: ")
    assert "not yours" in caught.value.message
    assert "secret" not in caught.value.message


def test_without_mlflow_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[classical\]'"), track.recorder("x"):
        pass


def test_a_training_that_fails_touches_nothing_and_leaves_no_child(tmp_path: Path) -> None:
    before = _children()
    during: set[str] = set()

    def train() -> None:
        with track.recorder(track.default_uri(tmp_path)):
            during.update(_children() - before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert during
    assert list(tmp_path.iterdir()) == []
    assert _children() <= before


def _children() -> set[str]:
    """The process ids of this process's children."""
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for file in lists for pid in file.read_text().split()}


def test_telemetry_is_off_for_the_child() -> None:
    assert track.SWITCHES["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert track.SWITCHES["MLFLOW_MODEL_CATALOG_URI"] == ""
