"""References to versions: `name`, `name:3`, `name@alias`, `name@sha256:…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import BadInput, BadRef
from registry.ids import PREFIX, is_digest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def check_name(name: str, what: str = "name") -> str:
    """
    *name* itself when it may name a version.

    Raises:
        BadInput: anything but 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        message = f"{what} {name!r} is not 1 to 64 of a-z, 0-9, '.', '_', '-'"
        raise BadInput(message)
    return name


def check_alias(alias: str) -> str:
    """
    *alias* itself when it may name an alias.

    Raises:
        BadInput: anything but 1 to 32 of a-z 0-9 _ - beginning with a letter.
    """
    if not _ALIAS.fullmatch(alias):
        message = f"alias {alias!r} is not 1 to 32 of a-z, 0-9, '_', '-', beginning with a letter"
        raise BadInput(message)
    return alias


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference; at most one of *number*, *alias* and *digest* is set."""

    name: str
    number: int | None = None
    alias: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        """The text that parses back to this reference."""
        if self.number is not None:
            return f"{self.name}:{self.number}"
        if self.alias or self.digest:
            return f"{self.name}@{self.alias or self.digest}"
        return self.name


def parse_ref(text: str) -> Ref:
    """
    Read a reference.

    Raises:
        BadRef: *text* has none of the four shapes.

    >>> parse_ref("support@candidate")
    Ref(name='support', number=None, alias='candidate', digest=None)
    >>> str(parse_ref("support:3"))
    'support:3'
    """
    name, at, selector = text.partition("@")
    number = None
    try:
        if not at and ":" in name:
            name, _, digits = name.partition(":")
            if not digits.isascii() or not digits.isdecimal() or int(digits) < 1:
                raise BadRef(f"{text!r}: a version number is 1, 2, 3 …")
            number = int(digits)
        check_name(name)
        if not at:
            return Ref(name, number=number)
        if selector.startswith(PREFIX):
            if not is_digest(selector):
                raise BadRef(f"{text!r}: a digest is sha256: and 64 hex digits")
            return Ref(name, digest=selector)
        return Ref(name, alias=check_alias(selector))
    except BadRef:
        raise
    except BadInput as error:
        raise BadRef(f"{text!r} is not a reference: {error.message}") from error
