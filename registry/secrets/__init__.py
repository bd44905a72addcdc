"""
Secrets by reference: settings name where a secret is, never the secret itself.

    env:NAME                                         an environment variable
    file:/path                                       a file that holds it and nothing else
    vault:secret/data/path#field                     HashiCorp Vault or OpenBao, key-value engine 1 or 2
    aws:name-or-arn#field                            AWS Secrets Manager
    gcp:projects/P/secrets/S/versions/latest#field   Google Secret Manager

Others are plug-ins of the group `sluicegate.secrets`: functions `(rest, environ) → secret`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import cast

from registry import plugins
from registry.errors import BadSettings

Resolver = Callable[[str, Mapping[str, str]], str]
"""What comes behind the colon, and the environment → the secret. Blocks for a bounded time."""
GROUP = "secrets"
_SCHEME = re.compile(r"([a-z][a-z0-9_-]{0,31}):(.+)", re.DOTALL)
_MOST_CHARACTERS = 65_536


def check(reference: str) -> None:
    """
    Refuse what is no reference, as a secret in plain text; nothing is read yet.

    Raises:
        BadSettings: it begins with none of the known schemes. What was given is not repeated.
    """
    found = _SCHEME.fullmatch(reference)
    known = plugins.names(GROUP)
    if found is None or found[1] not in known or "\n" in reference:
        schemes = ", ".join(f"{name}:…" for name in known)
        message = (
            f"is no reference to a secret ({schemes}), and a secret itself must not stand in settings: put it"
            " into an environment variable and write env:NAME, or into a file and write file:/path"
        )
        raise BadSettings(message)


def resolve(reference: str, environ: Mapping[str, str]) -> str:
    """
    The secret that *reference* names, without white space around it. Blocks, at most for some seconds.

    Raises:
        BadSettings: no reference, or one to something that is not there, is empty or no header's value.
        SecretUnavailable: its keeper does not answer, or refuses.
        MissingExtra: the keeper's library is not installed.
    """
    check(reference)
    scheme, _, rest = reference.partition(":")
    resolver = cast("Resolver", plugins.load(GROUP, scheme))
    secret = resolver(rest, environ).strip()
    if not secret:
        raise BadSettings(f"{reference} is empty")
    if len(secret) > _MOST_CHARACTERS or not secret.isascii() or not secret.isprintable():
        raise BadSettings(f"{reference} holds something else than one line of printable ASCII characters")
    return secret


def split_field(rest: str) -> tuple[str, str]:
    """What stands before and behind the last `#`; the second is empty where there is none."""
    place, mark, field = rest.rpartition("#")
    return (place, field) if mark else (rest, "")


def field_of(text: str, field: str, where: str) -> str:
    """
    *text* itself, or where *field* is not empty that text of the JSON object that *text* is.

    Raises:
        BadSettings: it is no JSON object, or has no such text.
    """
    if not field:
        return text
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    value = found.get(field) if isinstance(found, dict) else None
    if not isinstance(value, str):
        raise BadSettings(f"{where} is no JSON object with a text {field!r}") from None
    return value
