"""Where each provider is: settings first, then its usual environment variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from gateway.providers.openai import NEEDED_KEYS
from gateway.providers.options import Embed, ProviderOptions
from gateway.settings import GatewaySettings, ReplicaSettings, UpstreamSettings
from registry import secrets
from registry.errors import BadSettings

URL_VARIABLES = {
    "openai": "OPENAI_BASE_URL",
    "responses": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "azure": "AZURE_OPENAI_ENDPOINT",
    "ollama": "OLLAMA_HOST",
    "sglang": "SGLANG_BASE_URL",
    "tgi": "TGI_BASE_URL",
    "vllm": "VLLM_BASE_URL",
}
KEY_VARIABLES = {
    **NEEDED_KEYS,
    "responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    "sglang": "SGLANG_API_KEY",
    "tgi": "TGI_API_KEY",
    "vllm": "VLLM_API_KEY",
}
"""Provider → the environment variable its own tools read the key from; likewise the address above."""
CLOUD_VARIABLES = {
    "bedrock": (
        "AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_REGION", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ),
    "vertex_ai": ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_LOCATION", "VERTEXAI_PROJECT"),
}  # fmt: skip
"""Provider → variables that litellm and the cloud's own SDK read by themselves."""


def options_for(
    name: str,
    settings: GatewaySettings,
    environ: Mapping[str, str],
    *,
    home: Path,
    model_digest: str | None = None,
    embed: Embed | None = None,
    replica: ReplicaSettings | None = None,
    resolve: Callable[[str, Mapping[str, str]], str] = secrets.resolve,
) -> ProviderOptions:
    """
    What the provider *name* is built with, at its own place or at that of *replica*. Blocks while a keeper of
    secrets is asked.

    Raises:
        BadSettings: a named key variable is not set, a named key file cannot be read, or a reference leads
            nowhere.
        SecretUnavailable: the keeper of the key does not answer, or refuses.
    """
    upstream = settings.upstreams.get(name, UpstreamSettings())
    return ProviderOptions(
        name=name,
        home=home,
        base_url=replica.base_url if replica else upstream.base_url or _url(name, environ),
        api_key=_key(name, _at(upstream, replica), environ, resolve),
        threads=settings.threads,
        model_digest=model_digest,
        embed=embed,
        connect_timeout_s=settings.connect_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        max_response_bytes=settings.max_response_bytes,
        http_client=upstream.http_client,
        proxy=upstream.proxy,
        ca_file=upstream.ca_file,
        client_certificate=upstream.client_certificate,
    )


def _at(upstream: UpstreamSettings, replica: ReplicaSettings | None) -> UpstreamSettings:
    """Where the key comes from: a replica may have its own."""
    if replica is None or (replica.api_key_env is None and replica.api_key is None):
        return upstream
    return replace(upstream, api_key_env=replica.api_key_env, api_key_file=None, api_key=replica.api_key)


def reference_of(name: str, settings: GatewaySettings, replica: ReplicaSettings | None = None) -> str | None:
    """The reference to the key of the provider *name*, where its settings give one."""
    return _at(settings.upstreams.get(name, UpstreamSettings()), replica).api_key


def _url(name: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(URL_VARIABLES.get(name, ""), "").strip()
    if not value:
        return None
    if name == "anthropic":  # its own tools add the version
        return value if value.rstrip("/").endswith("/v1") else f"{value.rstrip('/')}/v1"
    if name != "ollama":
        return value
    # OLLAMA_HOST is often host:port, and 0.0.0.0 where the server itself listens everywhere.
    url = (value if "//" in value else f"http://{value}").rstrip("/").replace("//0.0.0.0", "//127.0.0.1")
    return url if url.endswith("/v1") else f"{url}/v1"


def _key(
    name: str,
    upstream: UpstreamSettings,
    environ: Mapping[str, str],
    resolve: Callable[[str, Mapping[str, str]], str],
) -> str | None:
    if upstream.api_key is not None:
        return resolve(upstream.api_key, environ)
    if upstream.api_key_file is not None:
        try:
            return upstream.api_key_file.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            message = f"gateway.upstreams.{name}.api_key_file: {upstream.api_key_file} cannot be read"
            raise BadSettings(message) from error
    if upstream.api_key_env is not None:
        if upstream.api_key_env not in environ:
            message = f"gateway.upstreams.{name}.api_key_env: {upstream.api_key_env} is not set"
            raise BadSettings(message)
        return environ[upstream.api_key_env].strip() or None
    return environ.get(KEY_VARIABLES.get(name, ""), "").strip() or None
