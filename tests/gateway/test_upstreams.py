"""Where providers are: settings win over the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.controlplane.upstreams import options_for
from gateway.providers.openai import NEEDED_KEYS, build
from gateway.settings import GatewaySettings, ReplicaSettings, UpstreamSettings
from registry.errors import BadSettings

HOME = Path("home")


@pytest.mark.parametrize(
    ("name", "environ", "expected"),
    [
        ("openai", {}, (None, None)),
        ("openai", {"OPENAI_API_KEY": " k ", "OPENAI_BASE_URL": "https://e/v1"}, ("https://e/v1", "k")),
        ("vllm", {"VLLM_BASE_URL": "http://v:8000/v1"}, ("http://v:8000/v1", None)),
        ("ollama", {"OLLAMA_HOST": "127.0.0.1:11434"}, ("http://127.0.0.1:11434/v1", None)),
        ("ollama", {"OLLAMA_HOST": "0.0.0.0:1"}, ("http://127.0.0.1:1/v1", None)),
        ("ollama", {"OLLAMA_HOST": "https://o/v1/"}, ("https://o/v1", None)),
        ("anthropic", {"ANTHROPIC_API_KEY": "a"}, (None, "a")),
        ("anthropic", {"ANTHROPIC_BASE_URL": "https://a.example/"}, ("https://a.example/v1", None)),
        ("anthropic", {"ANTHROPIC_BASE_URL": "https://a.example/v1"}, ("https://a.example/v1", None)),
        ("responses", {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://e/v1"}, ("https://e/v1", "k")),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "https://r", "AZURE_OPENAI_API_KEY": "a"}, ("https://r", "a")),
        ("gemini", {"GEMINI_API_KEY": "g"}, (None, "g")),
        ("sglang", {"SGLANG_BASE_URL": "http://s/v1", "SGLANG_API_KEY": "s"}, ("http://s/v1", "s")),
        ("tgi", {"TGI_BASE_URL": "http://t/v1", "TGI_API_KEY": "t"}, ("http://t/v1", "t")),
        ("elsewhere", {"OPENAI_API_KEY": "k"}, (None, None)),
    ],
)
def test_the_usual_variables_are_read(
    name: str, environ: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    options = options_for(name, GatewaySettings(), environ, home=HOME)
    assert (options.base_url, options.api_key) == expected
    assert "api_key" not in repr(options)


def test_settings_win_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    environ = {"VLLM_BASE_URL": "http://env/v1", "VLLM_API_KEY": "env", "MINE": "named"}
    for upstream, key in (
        (UpstreamSettings("http://set/v1", api_key_env="MINE"), "named"),
        (UpstreamSettings("http://set/v1", api_key_env="MINE", api_key_file=file), "from-file"),
    ):
        settings = GatewaySettings(upstreams={"vllm": upstream}, threads=3)
        options = options_for("vllm", settings, environ, home=HOME)
        assert (options.base_url, options.api_key, options.threads) == ("http://set/v1", key, 3)


@pytest.mark.parametrize(
    ("replica", "expected"),
    [
        (ReplicaSettings("http://b/v1"), ("http://b/v1", "of-all")),
        (ReplicaSettings("http://b/v1", api_key_env="ITS_OWN"), ("http://b/v1", "its-own")),
    ],
)
def test_a_replica_has_its_own_place_and_may_have_its_own_key(
    tmp_path: Path, replica: ReplicaSettings, expected: tuple[str, str]
) -> None:
    file = tmp_path / "key"
    file.write_text("of-all")
    upstream = UpstreamSettings("http://a/v1", api_key_file=file, replicas=(replica,))
    settings = GatewaySettings(upstreams={"vllm": upstream})
    options = options_for("vllm", settings, {"ITS_OWN": "its-own"}, home=HOME, replica=replica)
    assert (options.base_url, options.api_key) == expected


def test_how_to_connect_is_passed_on() -> None:
    upstream = UpstreamSettings(
        "https://a/v1",
        proxy="http://proxy:3128",
        http_client="aiohttp",
        ca_file=Path("ca.pem"),
        client_certificate=Path("own.pem"),
    )
    options = options_for("vllm", GatewaySettings(upstreams={"vllm": upstream}), {}, home=HOME)
    assert (options.proxy, options.http_client, options.ca_file, options.client_certificate) == (
        "http://proxy:3128",
        "aiohttp",
        Path("ca.pem"),
        Path("own.pem"),
    )


def test_a_key_that_cannot_be_had_is_an_error_that_names_it(tmp_path: Path) -> None:
    for upstream, told in (
        (UpstreamSettings(api_key_env="ABSENT"), "ABSENT is not set"),
        (UpstreamSettings(api_key_file=tmp_path / "absent"), "absent cannot be read"),
    ):
        with pytest.raises(BadSettings, match=told):
            options_for("vllm", GatewaySettings(upstreams={"vllm": upstream}), {}, home=HOME)


@pytest.mark.parametrize(("name", "variable"), NEEDED_KEYS.items())
def test_without_a_key_what_to_set_is_said(name: str, variable: str) -> None:
    environ = {"AZURE_OPENAI_ENDPOINT": "https://resource.openai.azure.com"}
    with pytest.raises(BadSettings, match=f"{name}/some-model needs a key: set {variable} for"):
        build("some-model", options_for(name, GatewaySettings(), environ, home=HOME))


@pytest.mark.parametrize("name", ["openai", "mistral"])
def test_a_server_of_ones_own_needs_no_key(name: str) -> None:
    settings = GatewaySettings(upstreams={name: UpstreamSettings(base_url="http://proxy/v1")})
    assert build("m", options_for(name, settings, {}, home=HOME)).status() == {"ready": True, "host": "proxy"}


def test_azure_without_an_address_says_what_to_set() -> None:
    with pytest.raises(BadSettings, match="azure/gpt-4o needs an address: set AZURE_OPENAI_ENDPOINT"):
        build("gpt-4o", options_for("azure", GatewaySettings(), {"AZURE_OPENAI_API_KEY": "a"}, home=HOME))


@pytest.mark.parametrize("url", ["ftp://x/v1", "not a url", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    settings = GatewaySettings(upstreams={"vllm": UpstreamSettings(base_url=url)})
    with pytest.raises(BadSettings, match="is not an http or https URL"):
        build("m", options_for("vllm", settings, {}, home=HOME))
