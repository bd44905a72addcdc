"""Answers taken apart into claims, each held against passages by a judge and by its quote."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.judging.base import Bench
from evals.judging.verdict import ask_json, present, question, struct

MOST_CLAIMS = 40
"""Most claims one judgement may list: a reply with more is malformed."""
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-"})  # noqa: RUF001
_TEXT = {"type": "string"}
_CLAIM = struct(
    claim={**_TEXT, "minLength": 1, "maxLength": 2_000},
    quote=_TEXT,
    supported={"type": "boolean"},
)
_SCHEMA = struct(
    states_facts={"type": "boolean"},
    claims={"type": "array", "items": _CLAIM, "maxItems": MOST_CLAIMS},
)
_TASK = """\
{role}

List every atomic factual claim of the block `{of}`: one fact each, complete in itself, with pronouns \
resolved. Leave out questions, opinions, courtesies, and statements that something is unknown or cannot be \
answered. At most {most} claims; join the least important ones if there are more.

For each claim give, in this order:
- claim: the claim.
- quote: one contiguous span, copied verbatim from one passage, that states or directly entails the claim; \
empty if there is none.
- supported: true only if that span alone makes the claim true. What you know from elsewhere does not count.

Set states_facts to false, with an empty list, if and only if the block `{of}` makes no factual claim, as a \
refusal does."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One atomic claim and whether passages bear it out."""

    claim: str
    supported: bool
    quote: str = ""
    """What in the passages supports it; verified to stand there."""
    note: str = ""
    """Why a claim that the judge called supported does not count: `no_quote` or `quote_not_found`."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a judge found in a text."""

    claims: tuple[Claim, ...]
    cut: Mapping[str, int]
    """How many characters the judge was not shown, by block."""

    @property
    def share(self) -> float | None:
        """The share of supported claims in [0, 1]; None where there is no claim."""
        if not self.claims:
            return None
        return sum(claim.supported for claim in self.claims) / len(self.claims)

    @property
    def details(self) -> dict[str, Any]:
        """Plain JSON: each claim, and what was cut."""
        found: dict[str, Any] = {"claims": [asdict(claim) for claim in self.claims]}
        return {**found, "cut": dict(self.cut)} if self.cut else found

    @property
    def reason(self) -> str:
        """How many claims are supported, and the first that is not."""
        if not self.claims:
            return "no factual claims"
        lost = [claim.claim for claim in self.claims if not claim.supported]
        text = f"{len(self.claims) - len(lost)} of {len(self.claims)} claims supported"
        return f"{text}; not: {lost[0]}" if lost else text


async def support(
    bench: Bench, role: str, of: str, blocks: Mapping[str, str], passages: Sequence[str]
) -> Claims:
    """
    The claims of the block named *of*, each held against *passages*, in one call.

    A claim counts as supported where the judge says so and its quote really stands in a passage (see
    `occurs`).

    Args:
        role: the task's opening, such as what the block is.
        blocks: what the judge reads besides the passages, by label.

    Raises:
        ScoreFailed: see `ask_json`; also a reply that says there are facts and lists none, or the reverse.
    """
    shown = present({**blocks, **numbered(passages)})
    task = _TASK.format(role=role, of=of, most=MOST_CLAIMS)
    reply = await ask_json(bench, question(task, shown, _SCHEMA), _SCHEMA, check=_consistent)
    found = tuple(
        verified(item["claim"], item["quote"], passages, said=item["supported"]) for item in reply["claims"]
    )
    return Claims(found, shown.cut)


def verified(claim: str, quote: str, passages: Sequence[str], *, said: bool) -> Claim:
    """The claim with the judge's word (*said*) held against its quote."""
    if not said:
        return Claim(claim, supported=False)
    if not any(map(str.isalnum, quote)):
        return Claim(claim, supported=False, note="no_quote")
    if not any(occurs(quote, passage) for passage in passages):
        return Claim(claim, supported=False, note="quote_not_found")
    return Claim(claim, supported=True, quote=" ".join(quote.split()))


def occurs(quote: str, passage: str) -> bool:
    r"""
    Whether *quote* stands in *passage*, whatever the white space, case, and form of quotes and dashes.

    >>> occurs("the  “old”\nbridge", 'Over the "old" bridge.')
    True
    >>> occurs("the new bridge", 'Over the "old" bridge.')
    False
    """
    return _plain(quote) in _plain(passage)


def numbered(passages: Sequence[str]) -> dict[str, str]:
    """Blocks `passage 1`, `passage 2` …; where there is none, one block says so."""
    if not passages:
        return {"passages": "(none)"}
    return {f"passage {number}": text for number, text in enumerate(passages, 1)}


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).translate(_STRAIGHT).casefold().split())


def _consistent(reply: Any) -> str | None:  # noqa: ANN401
    if bool(reply["claims"]) != reply["states_facts"]:
        return "claims must be empty if states_facts is false, and only then"
    return None
