"""Credentials by their shape: API keys, tokens, private keys, passwords inside URLs."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.guardrails.base import Finder, Finders, Finding, Guardrail, occurrences, selected

_TOKEN = frozenset(string.ascii_letters + string.digits + "_-")
_ARMOUR = frozenset(string.ascii_letters + string.digits + "+/=-\r\n\\")

# Name → (what must stand in front, the pattern, what may follow and still belongs to it).
# Each pattern proves the shape on few code points; the tail takes the rest, however long.
_SHAPES: Mapping[str, tuple[str, str, frozenset[str]]] = {
    "openai_key": ("sk-", r"(?<![\w-])sk-(?:[a-z0-9]{2,8}-){0,2}[A-Za-z0-9_-]{20}", _TOKEN),
    "aws_access_key": ("A", r"(?<![A-Za-z0-9])A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])", frozenset()),
    "aws_secret_key": (
        "=:",
        r"(?i:aws.{0,20}secret.{0,12}key).{0,4}[=:]\s{0,3}['\"]?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
        frozenset(),
    ),
    "github_token": ("_", r"(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{22})", _TOKEN),
    "google_key": ("AIza", r"(?<!\w)AIza[A-Za-z0-9_-]{35}", _TOKEN),
    "jwt": ("eyJ", r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,160}\.eyJ[A-Za-z0-9_-]{8}", _TOKEN | {"."}),
    "private_key": ("-----", r"-----BEGIN (?:[A-Z0-9]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----", _ARMOUR),
    "slack_token": ("xox", r"(?<!\w)xox[abeprs]-[A-Za-z0-9-]{10}", _TOKEN),
    "stripe_key": ("_live_", r"(?<!\w)[rs]k_live_[A-Za-z0-9]{16}", _TOKEN),
    "url_password": ("://", r"(?<!\w)[a-z][a-z0-9+.-]{1,15}://[^\s:/@]{1,64}:[^\s:/@]{3,64}@", frozenset()),
}
_REACH = 192


def build(options: Mapping[str, Any]) -> Guardrail:
    """
    The detector of credentials.

    Args:
        options: `types`, some of `openai_key`, `aws_access_key`, `aws_secret_key`, `github_token`,
            `google_key`, `jwt`, `private_key`, `slack_token`, `stripe_key`, `url_password`; all of
            them by default.

    Raises:
        BadInput: another option or type.
    """
    chosen = selected("secrets", "types", options, _SHAPES)
    return Finders(tuple(_finder(name) for name in chosen), _REACH)


def _finder(name: str) -> Finder:
    hint, shape, tail = _SHAPES[name]
    pattern = re.compile(shape)
    hints = tuple(hint) if name == "aws_secret_key" else (hint,)

    def find(text: str) -> Iterator[Finding]:
        if not any(part in text for part in hints):
            return
        for match in occurrences(pattern, text):
            if name != "openai_key" or _is_random(match[0][-20:]):
                yield Finding(name, match.start(), match.end(), tail)

    return find


def _is_random(text: str) -> bool:
    """Whether *text* has digits and capitals or few hyphens, unlike `sk-` before plain words."""
    digits = sum(character.isdigit() for character in text)
    return digits >= 2 and text.count("-") < 3
