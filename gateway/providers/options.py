"""What a provider is built with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.providers.rotating import RotatingKey

Embed = Callable[[Sequence[str]], Any]
"""Texts → float32 array (n, d), rows of unit length; thread-safe."""


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """Plain values for `build(model, options)`: no settings, files or environment behind them."""

    name: str
    """The name the plug-in was loaded under, such as `vllm`."""
    home: Path
    """Folder for whatever the provider keeps: caches, logs of a child."""
    base_url: str | None = None
    """Root of an OpenAI-compatible API, ending in `/v1`; None where the provider needs none."""
    api_key: str | None = field(default=None, repr=False)
    rotating: RotatingKey | None = field(default=None, repr=False)
    """Where the key may change while the gateway runs; *api_key* is then what it was at first."""
    threads: int = 1
    model_digest: str | None = None
    """`sha256:…` of the weights that the release pins; None where it pins none."""
    embed: Embed | None = field(default=None, repr=False)
    """The embedder of the release's index; None where the release does not retrieve."""
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 120.0
    """From the request sent to the head of the answer."""
    idle_timeout_s: float = 60.0
    """Between two pieces of the body."""
    total_timeout_s: float = 600.0
    """From the request sent to the end of the body."""
    max_response_bytes: int = 64_000_000
    http_client: Literal["native", "aiohttp"] = "native"
    proxy: str | None = None
    ca_file: Path | None = None
    client_certificate: Path | None = None
