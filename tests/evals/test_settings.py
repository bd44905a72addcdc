from __future__ import annotations

import pytest

from evals.errors import KeyMissing
from evals.settings import EvalsSettings, api_key, evals_settings, gateway_url
from registry.errors import BadSettings


@pytest.mark.parametrize(
    ("named", "setting", "variable", "url"),
    [
        (None, "", None, "http://127.0.0.1:8080"),
        (None, "", "http://a:1/v1", "http://a:1"),
        (None, "http://b:2", "http://a:1", "http://b:2"),
        ("https://c/gate/v1/", "http://b:2", "http://a:1", "https://c/gate"),
    ],
)
def test_the_nearest_word_on_the_gateway_counts(
    named: str | None, setting: str, variable: str | None, url: str
) -> None:
    environ = {"SLUICEGATE_BASE_URL": variable} if variable else {}
    assert gateway_url(named, EvalsSettings(gateway=setting), environ) == url


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "file:///x", "http://", "http://u:secret@h", "http://h/?a=b"]
)
def test_what_is_no_gateway_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        gateway_url(url, EvalsSettings(), {})
    assert "secret" not in caught.value.message


def test_a_key_comes_from_the_option_or_the_environment() -> None:
    environ = {"SLUICEGATE_API_KEY": " sk-sg-1\n"}
    assert (api_key(None, environ), api_key("sk-sg-2", environ)) == ("sk-sg-1", "sk-sg-2")
    with pytest.raises(KeyMissing):
        api_key(None, {})
    with pytest.raises(BadSettings):
        api_key("a\r\nb", {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CONCURRENCY", "0"), ("RETRIES", "21"), ("TIMEOUT_S", "0"), ("READY_TIMEOUT_S", "1e9"), ("GATE", "x")],
)
def test_a_setting_out_of_range_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"SLUICEGATE_EVALS__{variable}", value)
    with pytest.raises(BadSettings):
        evals_settings()
