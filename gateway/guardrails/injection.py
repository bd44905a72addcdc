"""
Attempts to take a model over, by what they say: a first line of rules, not a classifier.

Rules look at the text as a reader would see it (`normalise.py`). They are written for precision:
paraphrases, most other languages and encoded attacks pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.guardrails.base import Finding, Guardrail, selected
from gateway.guardrails.injection_rules import patterns
from gateway.guardrails.normalise import fold

_REACH = 320
"""Code points that one finding may span, invisible ones included."""

_FAMILIES = ("override", "prompt_extraction", "role_hijack", "delimiter", "exfiltration", "encoded")
_TAGS = re.compile(r"(?<![\U000e0020-\U000e007e])[\U000e0020-\U000e007e]{10}")
_HIDDEN = "hidden_text"


def build(options: Mapping[str, Any]) -> Guardrail:
    """
    The detector of prompt injection.

    Args:
        options: `families`, some of `override`, `prompt_extraction`, `role_hijack`, `delimiter`,
            `exfiltration`, `encoded`, `hidden_text`; all of them by default.

    Raises:
        BadInput: another option or family.
    """
    chosen = selected("injection", "families", options, (*_FAMILIES, _HIDDEN))
    compiled = {name: pattern for name, pattern in patterns().items() if name in chosen}
    return _Injection(compiled, hidden=_HIDDEN in chosen)


class _Injection:
    """Runs every family's pattern over the folded text."""

    def __init__(self, patterns: Mapping[str, re.Pattern[str]], *, hidden: bool) -> None:
        self.reach = _REACH
        self._patterns = patterns
        self._hidden = hidden

    def __call__(self, text: str) -> Sequence[Finding]:
        return list(self._find(text))

    def _find(self, text: str) -> Iterator[Finding]:
        folded = fold(text)
        for name, pattern in self._patterns.items():
            place = 0
            while (candidate := pattern.search(folded.text, place)) is not None:
                place = candidate.start() + 1
                start = folded.origin(candidate.start())
                # A finding is what can be seen from its start within the reach, and no more.
                match = pattern.match(folded.text, candidate.start(), folded.place(start + _REACH))
                if match is not None:
                    yield Finding(name, start, folded.origin(match.end() - 1) + 1)
        if self._hidden:
            for match in _TAGS.finditer(text):
                yield Finding(_HIDDEN, match.start(), match.end())
