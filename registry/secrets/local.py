"""`env:NAME` and `file:/path`: secrets of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from registry.errors import BadSettings, SecretUnavailable


def from_env(rest: str, environ: Mapping[str, str]) -> str:
    """`env:NAME`. Raises BadSettings when it is not set."""
    if rest not in environ:
        raise BadSettings(f"env:{rest} is not set")
    return environ[rest]


def from_file(rest: str, environ: Mapping[str, str]) -> str:
    """`file:/path`. Raises SecretUnavailable when it cannot be read: it may be mounted a moment later."""
    del environ
    try:
        return Path(rest).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SecretUnavailable(f"file:{rest} cannot be read: {why}") from error
