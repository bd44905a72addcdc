from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.engines.errors import EngineFailed, EngineNotReady
from gateway.engines.launch import Launch, Patience, local
from gateway.engines.supervisor import Supervisor
from registry.entities.engines import VLLMEngine
from registry.errors import BadInput

Run = Callable[[Coroutine[Any, Any, Any]], Any]
loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
FAKE = Path(__file__).with_name("fake_engine.py")
ENGINE = VLLMEngine(model="/models/tiny", served_names=("tiny",), device="cpu", kv_cache_gib=1)
QUICK = Patience(
    start_s=10, probe_s=2, probe_pause_s=0.02, check_every_s=0.02, stop_s=5, first_pause_s=0.02,
    most_pause_s=0.1, steady_s=60, most_restarts=3,
)  # fmt: skip
KEY = "sk-engine-0123456789abcdef"


def launch(tmp_path: Path, **mode: Any) -> Launch:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = local(ENGINE, port, log=tmp_path / "logs" / "engine.log", api_key=KEY)
    mode.setdefault("starts", str(tmp_path / "starts"))
    return replace(
        made,
        argv=(sys.executable, str(FAKE), *made.argv[1:]),
        environment={**made.environment, "FAKE_ENGINE": json.dumps(mode)},
    )


def starts(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "starts").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


@loops
def test_an_engine_is_ready_when_it_has_answered_with_a_token(tmp_path: Path, run: Run) -> None:
    async def scene() -> None:
        supervisor = Supervisor(launch(tmp_path, load_s=0.3), QUICK)
        assert supervisor.status().state == "stopped"
        await supervisor.start()
        await supervisor.start()
        assert supervisor.status().state == "starting"
        await supervisor.wait_ready(10)
        status = supervisor.status()
        assert (status.state, status.restarts, status.reason) == ("ready", 0, None)
        assert [status.pid] == starts(tmp_path)
        assert status.ready_s is not None and status.ready_s >= 0
        await supervisor.stop()
        await supervisor.stop()
        stopped = supervisor.status()
        assert (stopped.state, stopped.pid, stopped.ready_s) == ("stopped", None, None)
        assert not is_running(starts(tmp_path)[0])

    run(scene())


def test_health_alone_is_not_ready(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path, no_token=True), QUICK) as supervisor:
            with pytest.raises(EngineNotReady, match=r"the engine of tiny is starting after 0\.5 s"):
                await supervisor.wait_ready(0.5)

    asyncio.run(scene())


def test_an_engine_without_a_token_in_time_is_started_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        patience = replace(QUICK, start_s=0.5, most_restarts=1)
        async with Supervisor(launch(tmp_path, no_token=True), patience) as supervisor:
            with pytest.raises(EngineFailed, match=r"no token within 0\.5 s of its start: .*status 503"):
                await supervisor.wait_ready(10)
        assert len(starts(tmp_path)) == 2
        assert not any(map(is_running, starts(tmp_path)))

    asyncio.run(scene())


def test_an_engine_that_exits_at_once_fails_with_its_last_words_and_without_its_key(tmp_path: Path) -> None:
    async def scene() -> None:
        supervisor = Supervisor(launch(tmp_path, crash=True), replace(QUICK, most_restarts=2))
        await supervisor.start()
        with pytest.raises(EngineFailed) as caught:
            await supervisor.wait_ready(10)
        assert caught.value.message == (
            "the engine of tiny failed: it exited with status 1;"
            " its last words: CUDA out of memory, and my key is ***"
        )
        assert (supervisor.status().restarts, len(starts(tmp_path))) == (2, 3)
        await supervisor.stop()
        log = tmp_path / "logs" / "engine.log"
        assert KEY not in log.read_text() and log.stat().st_mode & 0o777 == 0o600

    asyncio.run(scene())


def test_an_engine_that_crashes_under_work_comes_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path, crash_after=1), QUICK) as supervisor:
            # Its first answer is the probe's, and it dies of it.
            await until(lambda: supervisor.status().restarts >= 1)
            assert (supervisor.status().reason or "").startswith("it exited with status 9")

    asyncio.run(scene())


@loops
def test_a_killed_engine_comes_back(tmp_path: Path, run: Run) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path), QUICK) as supervisor:
            await supervisor.wait_ready(10)
            first = supervisor.status().pid
            assert first is not None
            os.kill(first, 9)
            await until(lambda: supervisor.status().pid not in (first, None))
            await supervisor.wait_ready(10)
            status = supervisor.status()
            assert (status.restarts, status.reason) == (1, "it was ended by signal 9")

    run(scene())


def test_an_engine_that_went_deaf_is_restarted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path, deaf_after=2), QUICK) as supervisor:
            await supervisor.wait_ready(10)
            await until(lambda: supervisor.status().restarts == 1)
            assert supervisor.status().reason == "/health went unanswered 3 times in a row"

    asyncio.run(scene())


def test_an_engine_that_serves_another_model_fails_without_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path, serves="other"), QUICK) as supervisor:
            with pytest.raises(EngineFailed, match="one token of tiny with status 404"):
                await supervisor.wait_ready(10)
            assert (supervisor.status().restarts, supervisor.status().pid) == (0, None)

    asyncio.run(scene())


@loops
def test_an_engine_that_ignores_sigterm_is_killed_in_time(tmp_path: Path, run: Run) -> None:
    async def scene() -> float:
        loop = asyncio.get_running_loop()
        async with Supervisor(
            launch(tmp_path, ignore_sigterm=True), replace(QUICK, stop_s=0.3)
        ) as supervisor:
            await supervisor.wait_ready(10)
            began = loop.time()
        return loop.time() - began

    assert 0.3 <= run(scene()) < 3
    assert not is_running(starts(tmp_path)[0])


def test_workers_do_not_outlive_their_engine(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Supervisor(launch(tmp_path, worker=str(tmp_path / "worker")), QUICK) as supervisor:
            await supervisor.wait_ready(10)
            assert is_running(int((tmp_path / "worker").read_text()))
        await until(lambda: not is_running(int((tmp_path / "worker").read_text())))

    asyncio.run(scene())


def test_stopping_while_it_loads_leaves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        supervisor = Supervisor(launch(tmp_path, load_s=60), QUICK)
        await supervisor.start()
        await until((tmp_path / "starts").exists)
        waiting = asyncio.create_task(supervisor.wait_ready(30))
        await asyncio.sleep(0)
        await supervisor.stop()
        with pytest.raises(EngineNotReady, match="is stopped"):
            await waiting
        assert not any(map(is_running, starts(tmp_path)))

    asyncio.run(scene())


def test_whoever_gives_up_a_stop_leaves_no_engine_behind(tmp_path: Path) -> None:
    async def scene() -> None:
        patience = replace(QUICK, stop_s=0.3)
        supervisor = Supervisor(launch(tmp_path, ignore_sigterm=True), patience)
        await supervisor.start()
        await supervisor.wait_ready(10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await supervisor.stop()
        await supervisor.stop()
        assert (supervisor.status().state, supervisor.status().pid) == ("stopped", None)
        assert not is_running(starts(tmp_path)[0])

    asyncio.run(scene())


def test_two_engines_may_not_share_a_port_unnoticed(tmp_path: Path) -> None:
    async def scene() -> None:
        first = launch(tmp_path / "a", starts=str(tmp_path / "starts"))
        async with Supervisor(first, QUICK) as holder:
            await holder.wait_ready(10)
            environment = {**first.environment, "VLLM_API_KEY": "sk-another-0123456789"}
            second = replace(
                first, environment=environment, api_key="sk-another-0123456789", log=tmp_path / "b" / "log"
            )
            async with Supervisor(second, replace(QUICK, most_restarts=0)) as late:
                with pytest.raises(EngineFailed, match=r"Address already in use|with status 401"):
                    await late.wait_ready(10)
            assert holder.status().state == "ready"

    asyncio.run(scene())


def test_a_failed_engine_may_be_started_again(tmp_path: Path) -> None:
    async def scene() -> None:
        supervisor = Supervisor(launch(tmp_path, serves="other"), QUICK)
        for _ in range(2):
            await supervisor.start()
            with pytest.raises(EngineFailed):
                await supervisor.wait_ready(10)
        assert len(starts(tmp_path)) == 2
        await supervisor.stop()

    asyncio.run(scene())


def test_a_missing_program_is_named_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        made = replace(launch(tmp_path), argv=("/nowhere/vllm", "serve"))
        async with Supervisor(made, QUICK) as supervisor:
            with pytest.raises(EngineFailed, match="/nowhere/vllm is not a program on the path"):
                await supervisor.wait_ready(5)

    asyncio.run(scene())


def test_a_log_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")

    async def scene() -> None:
        with pytest.raises(EngineFailed, match=r"engine\.log cannot be written"):
            await Supervisor(launch(tmp_path), QUICK).start()

    asyncio.run(scene())


def test_a_talkative_engine_is_read_and_its_log_stays_small(tmp_path: Path) -> None:
    async def scene() -> None:
        patience = replace(QUICK, log_bytes=20_000)
        async with Supervisor(launch(tmp_path, chatter=3_000_000), patience) as supervisor:
            await supervisor.wait_ready(10)

    asyncio.run(scene())
    assert sum(file.stat().st_size for file in (tmp_path / "logs").iterdir()) <= 20_000


def test_an_engine_does_not_outlive_a_killed_gateway(tmp_path: Path) -> None:
    made = launch(tmp_path)
    script = (
        "import asyncio, json, sys; from pathlib import Path\n"
        "from gateway.engines.launch import Launch; from gateway.engines.supervisor import Supervisor\n"
        "values = json.loads(sys.argv[1])\n"
        "made = Launch(tuple(values['argv']), values['environment'], values['url'], 'tiny',"
        " Path(values['log']), values['key'])\n"
        "async def main():\n"
        "    async with Supervisor(made) as supervisor:\n"
        "        await supervisor.wait_ready(20)\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    values = {
        "argv": made.argv, "environment": dict(made.environment), "url": made.url, "log": str(made.log),
        "key": KEY,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(values)], stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "ready\n"
        gateway.kill()
    asyncio.run(until(lambda: not is_running(starts(tmp_path)[0])))


def test_an_engine_sees_no_key_of_another_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-foreign")
    monkeypatch.setenv("VLLM_API_KEY", "sk-older")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    made = local(ENGINE, 8000, log=tmp_path / "log")
    assert "OPENAI_API_KEY" not in made.environment
    assert made.environment["VLLM_LOGGING_LEVEL"] == "ERROR"
    assert made.api_key is not None and made.environment["VLLM_API_KEY"] == made.api_key
    assert made.api_key not in repr(made)


@pytest.mark.parametrize(
    "change", [{"start_s": 0}, {"stop_s": -1}, {"probe_s": float("nan")}, {"most_restarts": -1}]
)
def test_impossible_patience_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Patience(**change)
