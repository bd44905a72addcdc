"""LiteLLM proxy with a master key and a model list, without database."""

from __future__ import annotations

from pathlib import Path

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders.base import CLIENT_KEY, Contender, Door, Launch, Place, bearer, free_port

_VERSION = "1.106.2"
"""Pinned: releases 1.82.7 and 1.82.8 stole credentials, so nothing unknown is taken."""
_CONFIG = """
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_base: {url}
      api_key: os.environ/BENCH_UPSTREAM_KEY
general_settings:
  master_key: {key}
"""


def _install(cache: Path) -> str:
    install.venv(cache / "litellm", [f"litellm[proxy]=={_VERSION}"])
    return _VERSION


def _launch(place: Place) -> Launch:
    config = place.folder / "config.yaml"
    config.write_text(_CONFIG.format(url=place.upstream_url, key=CLIENT_KEY))
    port = free_port()
    command = [
        str(place.cache / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1",
        "--port", str(port), "--num_workers", "1", "--telemetry", "False",
    ]  # fmt: skip
    env = {
        "BENCH_UPSTREAM_KEY": upstream.KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True", "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_LOG": "ERROR", "NO_DOCS": "True",
    }  # fmt: skip
    return Launch(command, Door(port, "mock", bearer(CLIENT_KEY)), env)


LITELLM = Contender("litellm", _install, _launch, "master key, model list, no database, no callbacks")
