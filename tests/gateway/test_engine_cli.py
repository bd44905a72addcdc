"""`gateway engine`, as people run it; the engine it runs is a fake one that is as strict as vLLM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.gateway.engines.test_supervisor import FAKE

GATEWAY = (sys.executable, "-c", "from gateway.cli import main; main()", "engine")
ENGINE = {"model": "/models/tiny", "device": "cpu", "served_names": ["tiny"], "kv_cache_gib": 1}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "tiny.yaml"
    made.write_text(yaml.safe_dump(ENGINE))
    return made


def say(*words: str) -> tuple[int, str]:
    done = subprocess.run([*GATEWAY, *words], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_engine_is_checked_before_it_is_started(file: Path) -> None:
    code, said = say("check", str(file), "--json")
    assert code == 0
    assert json.loads(said)["engine"]["served_names"] == ["tiny"]
    file.write_text(yaml.safe_dump({**ENGINE, "gpu_memory_utilization": 0.9}))
    code, said = say("check", str(file))
    assert code == 3
    assert "kv_cache_gib and gpu_memory_utilization" in said


def test_the_command_is_shown_without_a_key(file: Path) -> None:
    code, said = say("command", str(file), "--port", "8123", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["argv"][:3] == ["vllm", "serve", "/models/tiny"]
    assert told["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_API_KEY" not in told["environment"]


def test_a_manifest_is_three_objects(file: Path) -> None:
    file.write_text(yaml.safe_dump({"model": "Qwen/Qwen3-8B", "revision": "b9"}))
    code, said = say(
        "manifest", str(file), "--name", "qwen", "--image", "vllm/vllm-openai:v0.32.0", "--secret", "key"
    )
    assert code == 0, said
    assert [one["kind"] for one in yaml.safe_load_all(said)] == [
        "Deployment",
        "Service",
        "PodDisruptionBudget",
    ]


def test_an_engine_is_kept_until_told_to_stop(file: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    program.chmod(0o755)
    words = ["run", str(file), "--port", str(port), "--program", str(program), "--json"]
    environment = {**os.environ, "VLLM_API_KEY": "sk-engine-0123456789"}
    with subprocess.Popen([*GATEWAY, *words], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        states = []
        for line in process.stdout:
            states.append(json.loads(line)["state"])
            if states[-1] == "ready":
                process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert states == ["starting", "ready", "stopped"]


def test_a_release_may_say_how_its_model_is_run(tmp_path: Path) -> None:
    environment = {**os.environ, "SLUICEGATE_REGISTRY__HOME": str(tmp_path / "home")}
    release = {"name": "support", "kind": "chat", "model": "vllm/tiny", "serving": ENGINE}
    file = tmp_path / "support.yaml"

    def create() -> subprocess.CompletedProcess[str]:
        file.write_text(yaml.safe_dump(release))
        program = "from registry.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, "releases", "create", str(file)],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert create().returncode == 0
    done = subprocess.run(
        [*GATEWAY, "command", "support@candidate", "--json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["argv"][:3] == ["vllm", "serve", "/models/tiny"]
    release["serving"] = {**ENGINE, "served_names": ["other"]}
    refused = create()
    assert refused.returncode == 3
    assert "it serves other, and the release asks for tiny" in refused.stderr


def test_without_a_key_nothing_is_run(file: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
    done = subprocess.run(
        [*GATEWAY, "run", str(file)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "VLLM_API_KEY" in done.stderr
