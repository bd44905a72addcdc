"""TensorZero's Rust gateway embedded in a FastAPI application that speaks OpenAI's dialect."""

from __future__ import annotations

from pathlib import Path

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders.base import CLIENT_KEY, Contender, Door, Launch, Place, bearer, free_port

_VERSION = "2026.6.0"
_CONFIG = """
[gateway]
observability.enabled = false

[models.mock]
routing = ["mock"]

[models.mock.providers.mock]
type = "openai"
model_name = "mock"
api_base = "{url}/"
api_key_location = "env::BENCH_UPSTREAM_KEY"
"""


def _install(cache: Path) -> str:
    install.venv(
        cache / "tensorzero", [f"tensorzero=={_VERSION}", "fastapi", "uvicorn", "uvloop", "httptools"]
    )
    return f"{_VERSION} embedded in FastAPI"


def _launch(place: Place) -> Launch:
    config = place.folder / "tensorzero.toml"
    config.write_text(_CONFIG.format(url=place.upstream_url))
    port = free_port()
    command = [
        str(place.cache / "tensorzero/bin/python"), "-m", "uvicorn", "--factory", "tensorzero_app:build",
        "--app-dir", str(Path(__file__).parent.parent / "apps"), "--host", "127.0.0.1", "--port", str(port),
        "--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools",
    ]  # fmt: skip
    env = {
        "BENCH_UPSTREAM_KEY": upstream.KEY, "BENCH_CLIENT_KEY": CLIENT_KEY, "BENCH_CONFIG": str(config),
        "TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1",
    }  # fmt: skip
    return Launch(command, Door(port, upstream.MODEL, bearer(CLIENT_KEY)), env)


TENSORZERO = Contender(
    "tensorzero", _install, _launch, "key check in the application, no database, no observability"
)
