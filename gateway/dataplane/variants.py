"""Which of a release's prompts answers whom: the same user or session always gets the same one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from registry.templates import Render

DEFAULT = "default"
"""What the release's own prompt is called beside its variants."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One variant's prompt, and the share of users that gets it."""

    name: str
    weight: int
    """Percent."""
    render: Render
    variables: frozenset[str]


def choose(branches: tuple[Branch, ...], release: str, who: str) -> Branch | None:
    """
    The branch for *who* (a user, a session or a key), or None for the release's own prompt.

    Shares are those of SHA-256 over release digest and name, so they hold over all processes and differ from
    release to release.

    >>> choose((), "sha256:0", "ann") is None
    True
    """
    point = int.from_bytes(hashlib.sha256(f"{release}\0{who}".encode()).digest()[:8]) % 10_000
    below = 0
    for branch in branches:
        below += branch.weight * 100
        if point < below:
            return branch
    return None
