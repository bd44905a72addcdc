"""What somebody says of one answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from registry.errors import BadInput

Sign = Literal["positive", "negative", "neutral", "none"]
MOST_COMMENT, MOST_LABEL, MOST_ROW = 2_000, 1_000, 1_000_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A score, a true answer or class, a comment, or several of them; None is what was not said."""

    name: str = "user"
    """What is judged or by which means, such as `thumbs`."""
    row: int | None = None
    """Which prediction of the request, from 0; None is the answer as a whole."""
    user: str = ""
    """Pseudonym of who says it; empty where nobody is named."""
    score: float | None = None
    """-1 for bad, or from 0 (bad) to 1 (good)."""
    label: str | None = None
    """The true answer or class; may come later than the score."""
    comment: str | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing, or nothing sensible."""
        if not _NAME.fullmatch(self.name):
            raise BadInput(
                f"name: {self.name[:80]!r} is not 1 to 64 of a-z, 0-9, '_', '.', '-', such as thumbs"
            )
        if self.row is not None and not 0 <= self.row < MOST_ROW:
            raise BadInput(f"row: {self.row} is not 0 to {MOST_ROW - 1}")
        score = self.score
        if score is not None and not (isfinite(score) and (score == -1 or 0 <= score <= 1)):
            raise BadInput(f"score: {score} is neither -1 nor from 0 to 1")
        for field, most in (("label", MOST_LABEL), ("comment", MOST_COMMENT)):
            text: str | None = getattr(self, field)
            if text is not None and not 1 <= len(text) <= most:
                raise BadInput(f"{field}: has {len(text)} characters, not 1 to {most}")
            if text is not None and "\0" in text:
                raise BadInput(f"{field}: has a character U+0000, which cannot be stored")
        if score is None and self.label is None and self.comment is None:
            raise BadInput("score: give a score, a label or a comment")

    @property
    def sign(self) -> Sign:
        """
        What the score says.

        >>> Feedback(score=-1).sign, Feedback(score=0.5).sign, Feedback(label="churned").sign
        ('negative', 'neutral', 'none')
        """
        if self.score is None:
            return "none"
        if self.score == 0.5:
            return "neutral"
        return "positive" if self.score > 0.5 else "negative"
