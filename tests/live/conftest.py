"""A gateway in front of a real vLLM, both started as people start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from registry.ids import digest_bytes
from tests.gateway.test_serve import environment

MODEL_VARIABLE = "SLUICEGATE_TINY_MODEL"
ENGINE_KEY = "sk-engine-0123456789"
GATEWAY = (sys.executable, "-c", "from gateway.cli import main; main()")
START_S = 300


@dataclass
class Engine:
    """`gateway engine run` in front of vLLM."""

    process: subprocess.Popen[str]
    url: str

    def state(self) -> dict[str, Any]:
        """The next change of its state; waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the engine's keeper ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def until(self, state: str) -> dict[str, Any]:
        """The change to *state*."""
        told = self.state()
        while told["state"] != state:
            assert told["state"] != "failed", told
            told = self.state()
        return told


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """vLLM with the tiny model and its adapter, once it has answered with a token."""
    model, program = os.environ.get(MODEL_VARIABLE), shutil.which("vllm")
    if model is None or program is None:
        pytest.skip("needs vllm on the path and a model: `make vllm`")
    folder = tmp_path_factory.mktemp("engine")
    pinned = digest_bytes((Path(model) / "model.safetensors").read_bytes())
    spec = {
        "model": model, "model_digest": pinned, "served_names": ["tiny"], "device": "cpu", "kv_cache_gib": 1,
        "max_model_len": 1024, "max_num_seqs": 8, "dtype": "float32", "tool_call_parser": "hermes",
        "enable_auto_tool_choice": True, "structured_output_backend": "xgrammar",
        "structured_output_compact": True, "max_lora_rank": 8,
        "loras": {"keeper": {"source": f"{model}/lora", "base_digest": pinned, "rank": 8}},
        "extra": {"enforce-eager": True},
    }  # fmt: skip
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(spec))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["engine", "run", str(file), "--port", str(port), "--program", program, "--json"]
    more = {"VLLM_API_KEY": ENGINE_KEY, "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
    with subprocess.Popen(
        [*GATEWAY, *words, "--start-s", str(START_S)],
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        made = Engine(process, f"http://127.0.0.1:{port}/v1")
        try:
            made.until("ready")
            yield made
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="session")
def client(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The official client before a real gateway before *engine*."""
    home = tmp_path_factory.mktemp("gateway") / "home"
    settings = environment(
        home,
        VLLM_BASE_URL=engine.url,
        VLLM_API_KEY=ENGINE_KEY,
        SLUICEGATE_GATEWAY__BREAKER_FAILURES="2",
        SLUICEGATE_GATEWAY__BREAKER_OPEN_S="3",
    )
    create = [*GATEWAY, "keys", "create", "--name", "live", "--json"]
    made = subprocess.run(create, env=settings, capture_output=True, text=True, timeout=60, check=True)
    with subprocess.Popen(
        [*GATEWAY, "serve", "--port", "0", "--json"], env=settings, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        key = json.loads(made.stdout)["key"]
        try:
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as found:
                yield found
        finally:
            process.terminate()
            process.wait(20)
