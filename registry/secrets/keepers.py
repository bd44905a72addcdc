"""One question to a keeper of secrets over HTTP; nothing beyond the standard library."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from registry.errors import BadSettings, SecretUnavailable

_TIMEOUT_S = 5.0
_MOST_BYTES = 1_000_000


def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    who: str,
    data: bytes | None = None,
    ca_file: str | None = None,
) -> tuple[int, dict[str, Any]]:
    """
    Status and JSON object of one answer, `{}` where it is none; redirects are not followed.

    Args:
        who: what messages call the keeper.
        data: a body to POST; None asks with GET.
        ca_file: certificates to trust instead of the system's, PEM.

    Raises:
        BadSettings: *url* is no http or https URL, or *ca_file* cannot be used.
        SecretUnavailable: nobody answers within five seconds for each wait.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings(f"{who}: its address is not an http or https URL")
    try:
        connection = _connection(parts.scheme, parts.hostname, parts.port, ca_file)
    except (OSError, ValueError) as error:
        raise BadSettings(f"{who}: its address or certificates cannot be used: {error}") from error
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    try:
        connection.request("GET" if data is None else "POST", target, data, dict(headers))
        with connection.getresponse() as answer:
            raw, status = answer.read(_MOST_BYTES + 1), answer.status
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The text of a ValueError quotes the header that could not be sent.
        why = type(error).__name__ if isinstance(error, ValueError) else f"{error or type(error).__name__}"
        raise SecretUnavailable(f"{who} does not answer: {why}") from None
    finally:
        connection.close()
    try:
        found = json.loads(raw) if len(raw) <= _MOST_BYTES else None
    except ValueError:
        found = None
    return status, found if isinstance(found, dict) else {}


def refused(who: str, reference: str, status: int) -> SecretUnavailable:
    """The error for an answer that is not the secret."""
    meanings = {
        400: "does not understand it",
        401: "does not know who asks",
        403: "does not allow it",
        404: "has no such secret",
        429: "is asked too often",
    }
    meaning = meanings.get(status, "cannot answer now" if status >= 500 else "refuses")
    return SecretUnavailable(f"{reference}: {who} {meaning} (status {status})")


def _connection(scheme: str, host: str, port: int | None, ca_file: str | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context(cafile=ca_file)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
