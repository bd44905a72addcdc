"""`evals power`: how many samples a check needs, and how small a difference so many can show."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from evals import power
from registry.errors import BadInput
from registry.terminal import Json, show, table

EPILOG = (
    "Examples: evals power --kind share --expect 0.85 --threshold 0.8   |   evals power --kind paired "
    "--discordant 0.15 --gain 0.04   |   evals power --kind mean --spread 0.3 --gap 0.05"
)
_SIZES = (50, 100, 200, 400, 1000, 2000, 5000)


def plan(
    *,
    kind: Annotated[
        Literal["share", "paired", "mean"],
        typer.Option(help="share: at_least of 0/1 scores. paired: against a baseline. mean: other scores."),
    ],
    expect: Annotated[float, typer.Option(help="share: the share you expect.")] = 0.8,
    threshold: Annotated[float | None, typer.Option(help="share: what the check asks for.")] = None,
    discordant: Annotated[
        float, typer.Option(help="paired: share of samples that only one of the two has right.")
    ] = 0.15,
    gain: Annotated[float | None, typer.Option(help="paired: the gain you expect, 0 for none.")] = None,
    margin: Annotated[
        float, typer.Option(help="paired: the gain that must be exceeded; below 0 for a loss.")
    ] = 0.0,
    spread: Annotated[float, typer.Option(help="mean: standard deviation of scores or differences.")] = 0.3,
    gap: Annotated[
        float | None, typer.Option(help="mean: distance of the expected mean to the threshold.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="As in the check.")] = 0.95,
    chance: Annotated[float, typer.Option(help="How sure a decision shall be.")] = power.POWER,
    as_json: Json = False,
) -> None:
    """Say how many samples decide a check, and the least difference that 50 to 5,000 samples can show."""
    _check(confidence=confidence, chance=chance, expect=expect, discordant=discordant)
    needed: int | None = None
    asked = True
    if kind == "share":
        asked = threshold is not None
        needed = power.needed_share(expect, threshold, confidence, chance) if threshold is not None else None
        least = [power.detectable_share(n, expect, confidence, chance) for n in _SIZES]
    elif kind == "paired":
        asked = gain is not None
        if gain is not None:
            if abs(gain) > discordant:
                raise BadInput(f"gain is {gain:g}; it cannot exceed the discordant share {discordant:g}")
            shares = (discordant + gain) / 2, (discordant - gain) / 2
            needed = power.needed_paired(*shares, margin, confidence, chance)
        least = [power.detectable_paired(n, discordant, margin, confidence, chance) for n in _SIZES]
    else:
        asked = gap is not None
        needed = power.needed_mean(spread, gap, confidence, chance) if gap is not None else None
        least = [power.detectable_mean(n, spread, confidence, chance) for n in _SIZES]
    answer: dict[str, Any] = {
        "ok": True,
        "kind": kind,
        "confidence": confidence,
        "chance": chance,
        "needed": needed,
        "detectable": [{"n": n, "difference": round(d, 5)} for n, d in zip(_SIZES, least, strict=True)],
    }
    show(answer, lambda: _text(answer, asked=asked), as_json=as_json)


def _check(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise BadInput(f"{name} is {value:g}; it must be above 0 and below 1")


def _text(answer: dict[str, Any], *, asked: bool) -> str:
    lines = []
    if asked:
        needed = answer["needed"]
        lines.append(
            f"{needed} samples decide it with a chance of {answer['chance']:.0%}"
            if needed
            else "no number of samples decides it: what you expect is what is asked for"
        )
    rows = [(one["n"], f"{one['difference']:.3f}") for one in answer["detectable"]]
    return "\n".join([*lines, table(("SAMPLES", "LEAST DIFFERENCE"), rows)])
