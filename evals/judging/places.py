"""Where a judge's model is asked: by its provider, as the tools of that provider find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from evals.errors import JudgeUnavailable

URL_VARIABLE = "SLUICEGATE_JUDGE_URL"
KEY_VARIABLE = "SLUICEGATE_JUDGE_KEY"


class Place(NamedTuple):
    """A server, a key for it, and what it calls the model."""

    url: str
    key: str
    name: str


@dataclass(frozen=True, slots=True)
class _Provider:
    url_variable: str
    default: str
    key_variable: str = ""
    tail: str = ""
    """What its address lacks."""


_PROVIDERS: Mapping[str, _Provider] = {
    "openai": _Provider("OPENAI_BASE_URL", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "vllm": _Provider("VLLM_BASE_URL", "http://127.0.0.1:8000/v1"),
    "ollama": _Provider("OLLAMA_HOST", "http://127.0.0.1:11434/v1"),
    "gateway": _Provider("SLUICEGATE_BASE_URL", "http://127.0.0.1:8080", "SLUICEGATE_API_KEY", "/v1"),
}


def place_of(model: str, environ: Mapping[str, str], url: str | None = None, key: str | None = None) -> Place:
    """
    The server, key and name of a judge's *model* (`provider/model`).

    `openai/…` is asked at OPENAI_BASE_URL with OPENAI_API_KEY, `vllm/…` at VLLM_BASE_URL, `ollama/…` at
    OLLAMA_HOST, `gateway/<release>` at SLUICEGATE_BASE_URL with SLUICEGATE_API_KEY. SLUICEGATE_JUDGE_URL and
    SLUICEGATE_JUDGE_KEY stand above those, and *url* and *key* above all.

    Raises:
        JudgeUnavailable: no address is known for this provider, or it asks for a key and there is none.

    >>> place_of("ollama/llama3.2", {}).url
    'http://127.0.0.1:11434/v1'
    """
    provider, _, name = model.partition("/")
    named = url or environ.get(URL_VARIABLE)
    secret = key or environ.get(KEY_VARIABLE, "")
    if named:
        return Place(_checked(named, model), secret, name)
    known = _PROVIDERS.get(provider)
    if known is None:
        raise JudgeUnavailable(
            f"judge {model}: no server is known for {provider!r}; set {URL_VARIABLE} and {KEY_VARIABLE}, or "
            f"name a model of {', '.join(_PROVIDERS)}"
        )
    secret = secret or environ.get(known.key_variable, "")
    if known.key_variable and not secret:
        raise JudgeUnavailable(f"judge {model}: set {known.key_variable}, its server's key")
    address = environ.get(known.url_variable) or known.default
    if known.tail and not address.rstrip("/").endswith(known.tail):
        address = address.rstrip("/") + known.tail
    return Place(_checked(address, model), secret, name)


def _checked(url: str, model: str) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise JudgeUnavailable(
            f"judge {model}: the address of its server holds credentials; put the key in {KEY_VARIABLE}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeUnavailable(f"judge {model}: {url!r} is no address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")
