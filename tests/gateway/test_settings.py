"""The gateway's settings: defaults that serve, values that are checked."""

from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings, UpstreamSettings
from registry import settings
from registry.errors import BadSettings


def load(**environ: str) -> GatewaySettings:
    return settings.load(
        "gateway", GatewaySettings, {f"SLUICEGATE_GATEWAY__{name}": value for name, value in environ.items()}
    )


def test_nothing_needs_to_be_set() -> None:
    loaded = load()
    assert (loaded.host, loaded.port, loaded.max_body_bytes) == ("127.0.0.1", 8080, 10_000_000)
    assert loaded.threads >= 1


def test_upstreams_come_from_one_variable() -> None:
    loaded = load(UPSTREAMS='{"vllm": {"base_url": "http://v/v1", "api_key_env": "K"}}', PORT="0")
    assert loaded.upstreams == {"vllm": UpstreamSettings("http://v/v1", "K")}
    assert loaded.port == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "70000", "port 70000"),
        ("PORT", "'80'", "port"),
        ("THREADS", "0", "threads must be above 0"),
        ("SHUTDOWN_GRACE_S", "-1", "must not be negative"),
        ("PROT", "1", "did you mean"),
        ("UPSTREAMS", "{vllm: {url: x}}", "unknown key"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        load(**{name: value})
