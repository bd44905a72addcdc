"""Several real processes on one port: they share it, outlive each other, and end together."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.stand import USER, until
from tests.gateway.test_serve import COMMAND, environment
from tests.gateway.test_serve import gateway as one_command

TWO = ("serve", "--port", "0", "--workers", "2", "--limits-per-worker", "--json")
ANSWER = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,"finish_reason":'
    b'"stop","message":{"role":"assistant","content":"yes"}}],"usage":{"prompt_tokens":3,"completion_tokens":1,'
    b'"total_tokens":4}}'
)
KEEPER = """
import os, signal, sys, threading
from gateway.cli.workers import supervise
from registry import terminal
from registry.errors import PlatformError

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def serve(index, ready):
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ready()
    say("serves", index, os.getpid())
    while not stopped.wait(0.05):
        pass
    say("ends", index)

def stubborn(index, ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    while True:
        threading.Event().wait(60)

def broken(index, ready):
    if index:
        raise ValueError("as it is wanted here")
    serve(index, ready)

try:
    supervise(2, {work}, ready=lambda: say("ready", os.getpid()), grace_s={grace_s})
except PlatformError as error:
    terminal.report(error, as_json=False)
    sys.exit(3)
"""


@contextmanager
def child_of(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()


def keeper(work: str, grace_s: float = 5.0) -> list[str]:
    return [sys.executable, "-c", KEEPER.replace("{work}", work).replace("{grace_s}", str(grace_s))]


@contextmanager
def gateway(home: Path, *words: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    with child_of([*COMMAND, *TWO, *words], env=environment(home, **more)) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.stderr.read() if child.stderr else ""
        yield child, json.loads(line)


def lines(child: subprocess.Popen[str], count: int) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().strip() for _ in range(count)]


def is_alive(pid: int) -> bool:
    """Whether it runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def fetch(url: str, path: str) -> tuple[int, bytes]:
    """An answer over a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def states(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fetch(url, "/health/ready")[1])["workers"]
    return found


def ready_pids(url: str) -> set[int]:
    return {state["pid"] for state in states(url) if state["ready"]}


def test_they_are_announced_once_and_end_together() -> None:
    with child_of(keeper("serve")) as child:
        said = lines(child, 3)
        assert sorted(line.split()[0] for line in said) == ["ready", "serves", "serves"]
        assert [line for line in said if line.startswith("ready")] == [f"ready {child.pid}"]
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert (child.returncode, sorted(out.split("\n")), err) == (0, ["", "ends 0", "ends 1"], "")


def test_one_that_dies_is_started_again_and_not_announced() -> None:
    with child_of(keeper("serve")) as child:
        served = dict(line.split()[1:] for line in lines(child, 3) if line.startswith("serves"))
        for _ in range(2):
            os.kill(int(served["1"]), signal.SIGKILL)
            word, index, pid = lines(child, 1)[0].split()
            assert (word, index) == ("serves", "1")
            assert pid != served["1"]
            served["1"] = pid
        assert is_alive(int(served["0"]))
        child.terminate()
        out, err = child.communicate(timeout=10)
        assert (child.returncode, sorted(out.split())) == (0, ["0", "1", "ends", "ends"])
        assert [line.rpartition("ended ")[2] for line in err.splitlines()] == [
            "by signal 9; it is started again in 0.1 s",
            "by signal 9; it is started again in 0.2 s",
        ]


def test_they_end_when_their_parent_is_killed() -> None:
    with child_of(keeper("serve")) as child:
        pids = [int(line.split()[2]) for line in lines(child, 3) if line.startswith("serves")]
        child.kill()
        assert sorted(lines(child, 2)) == ["ends 0", "ends 1"]
        until(lambda: not any(map(is_alive, pids)))


def test_those_that_do_not_end_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = "import gateway.cli.workers as w; w._KILL_AFTER_S = 0.1\n"
    command = keeper("stubborn", grace_s=0.2)
    with child_of([*command[:-1], impatient + command[-1]]) as child:
        assert lines(child, 1) == [f"ready {child.pid}"]
        child.terminate()
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out, err) == (0, "", "processes that did not end in time are killed\n")


def test_one_that_cannot_start_stops_all() -> None:
    with child_of(keeper("broken")) as child:
        out, err = child.communicate(timeout=20)
    assert child.returncode == 3
    assert "ready" not in out
    assert "ValueError: as it is wanted here" in err
    assert err.endswith("error: bad_settings: the gateway could not start; the lines above say why\n")


def test_two_serve_one_port_and_show_both_counters(tmp_path: Path) -> None:
    with gateway(tmp_path) as (child, ready):
        assert ready == {"url": ready["url"], "pid": child.pid, "workers": 2}
        url = ready["url"]
        for _ in range(40):
            assert fetch(url, "/v2/health/live")[0] == 200
        both = states(url)
        assert [(state["index"], state["ready"]) for state in both] == [(0, True), (1, True)]
        assert len({child.pid, *(state["pid"] for state in both)}) == 3
        assert len({state["revision"] for state in both}) == 1
        found = [fetch(url, "/metrics")[1].decode() for _ in range(6)]
        for text in found:
            counts = [
                float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith("sluicegate_requests_total{") and 'route="/v2/health/live"' in line
            ]
            assert sum(counts) == 40
            assert len(counts) == 2, "all forty connections went to one worker"
            assert text.count("# TYPE sluicegate_requests_total counter") == 1
            assert text.endswith('sluicegate_worker_up{worker="0"} 1\nsluicegate_worker_up{worker="1"} 1\n')
        folders = list((tmp_path / "run").glob("workers-*"))
        assert len(folders) <= 1
        child.terminate()
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (0, "")
        assert err == f"gateway: serving {url} with 2 workers (OpenAI base URL {url}/v1; stop with Ctrl-C)\n"
        assert not any(folder.exists() for folder in folders)
        assert not any(is_alive(state["pid"]) for state in both)


def test_a_killed_worker_comes_back_while_the_other_serves(tmp_path: Path) -> None:
    with gateway(tmp_path) as (_, ready):
        url = ready["url"]
        before = ready_pids(url)
        victim = states(url)[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{victim}").exists())
        for _ in range(20):
            assert fetch(url, "/health/live") == (200, b'{"live":true}')
        until(lambda: len(ready_pids(url)) == 2, timeout_s=10)
        assert len(ready_pids(url) & before) == 1
        assert victim not in ready_pids(url)


def test_workers_end_when_the_gateway_is_killed(tmp_path: Path) -> None:
    with gateway(tmp_path) as (child, ready):
        pids = ready_pids(ready["url"])
        assert len(pids) == 2
        child.kill()
        until(lambda: not any(map(is_alive, pids)), timeout_s=10)
        assert not list((tmp_path / "run").glob("workers-*"))


def test_running_requests_may_end_first(tmp_path: Path) -> None:
    key = one_command(tmp_path, "keys", "create", "--name", "app")["key"]
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        base_url = f"http://127.0.0.1:{upstream.getsockname()[1]}/v1"
        environ = {
            "SLUICEGATE_GATEWAY__UPSTREAMS": json.dumps(
                {"vllm": {"base_url": base_url, "api_key_env": "UP"}}
            ),
            "UP": "sk-upstream",
        }
        with gateway(tmp_path, **environ) as (child, ready):
            address = (urlsplit(ready["url"]).hostname or "", urlsplit(ready["url"]).port or 0)
            with contextlib.closing(http.client.HTTPConnection(*address, timeout=10)) as client:
                body = json.dumps({"model": "vllm/tiny", "messages": USER})
                client.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}"})
                upstream.settimeout(10)
                asked, _ = upstream.accept()
                with asked:
                    assert asked.recv(65_536).startswith(b"POST /v1/chat/completions")
                    child.terminate()
                    until(lambda: is_refused(address))
                    asked.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
                    response = client.getresponse()
                    answer = json.loads(response.read())
                assert (response.status, answer["choices"]) == (200, json.loads(ANSWER)["choices"])
            assert child.wait(20) == 0


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionError:
        return True
    return False


def test_limits_need_a_store_or_a_word(tmp_path: Path) -> None:
    def refused(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*COMMAND, "serve", "--port", "0", *words],
            env=environment(tmp_path, SLUICEGATE_GATEWAY__WORKERS="2"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    code, said = refused()
    assert code == 3
    assert "error: bad_settings: 2 workers need gateway.limits_store" in said
    assert "--limits-per-worker" in said
    assert "4 workers" in refused("--workers", "4")[1]
    assert not (tmp_path / "run").exists()


def test_no_workers_cannot_serve(tmp_path: Path) -> None:
    for words, environ in ((("--workers", "0"), {}), ((), {"SLUICEGATE_GATEWAY__WORKERS": "0"})):
        done = subprocess.run(
            [*COMMAND, "serve", *words],
            env=environment(tmp_path, **environ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (2, 3)
        assert "workers" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_is_not_shared_with_another_gateway(tmp_path: Path) -> None:
    with gateway(tmp_path) as (_, ready):
        port = str(urlsplit(ready["url"]).port)
        for words in (("--workers", "2", "--limits-per-worker"), ("--workers", "1")):
            done = subprocess.run(
                [*COMMAND, "serve", "--port", port, *words],
                env=environment(tmp_path),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 3
            assert "give another --port" in done.stderr
