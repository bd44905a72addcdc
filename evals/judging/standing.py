"""Whether a judge's scores may decide: what it showed on human labels, for how long, and of whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evals.judging.panel import members_of
from registry.entities import JudgeContent
from registry.judges import subject_of, uncalibrated

__all__ = ["Standing", "family", "standing", "subject_of"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a judge decides, and if not, why it only advises."""

    deciding: bool
    why: str = ""


def standing(
    content: JudgeContent,
    now: datetime,
    *,
    candidate_model: str | None,
    min_kappa: float,
    min_labels: int,
) -> Standing:
    """
    Whether the judge may decide about what *candidate_model* (`provider/model`) answers.

    It advises where it was never calibrated, was calibrated with another rubric, model or parameters, agreed
    too little or on too few labels, where its calibration is over, or where it is of the candidate's family.
    """
    record = content.calibration
    if not record:
        return Standing(False, "not calibrated: run `evals calibrate`")
    if record.get("of") == subject_of(content) and record.get("calibrated") is False:
        return Standing(False, "its calibration failed" + _first_reason(record))
    if (why := uncalibrated(content, now)) is not None:
        return Standing(False, f"it {why}: run `evals calibrate`")
    try:
        labels, kappa, low = int(record["labels"]), float(record["kappa"]), float(record["kappa_low"])
    except (KeyError, TypeError, ValueError):
        return Standing(False, "its calibration is malformed: run `evals calibrate`")
    if labels < min_labels:
        return Standing(False, f"it was calibrated on {labels} labels; {min_labels} are the least")
    if not (kappa >= min_kappa and low > 0):
        return Standing(
            False, f"it agreed with people by kappa {kappa:.2f}, at least {low:.2f}; {min_kappa:g} is asked"
        )
    for member in members_of(content) if candidate_model is not None else ():
        if family(str(candidate_model)) == family(member):
            return Standing(False, f"{member} is of the family of {candidate_model}, which it judges")
    return Standing(True)


def family(model: str) -> str:
    """
    What models of one maker share: the first word of their name, behind the names of region and maker.

    OpenAI's o-series counts as gpt, a model tuned from another as that other.

    >>> [family(name) for name in ("openai/gpt-4o-mini", "ollama/llama3.2:3b", "vllm/meta-llama/Llama-3-8B")]
    ['gpt', 'llama', 'llama']
    >>> [family(name) for name in ("bedrock/us.anthropic.claude-4-v1:0", "openai/o3", "openai/ft:gpt-4o::1")]
    ['claude', 'gpt', 'gpt']
    """
    name = model.rpartition("/")[2].lower().removeprefix("ft:")
    while (behind := re.fullmatch(r"[a-z]+[.](?=[a-z])(.+)|meta-(?=llama)(.+)", name)) is not None:
        name = behind[1] or behind[2]
    found = re.match(r"[a-z]+", name)
    first = found[0] if found else name
    return "gpt" if first == "chatgpt" or re.match(r"o\d", name) else first


def _first_reason(record: Mapping[str, Any]) -> str:
    reasons = record.get("reasons") or [""]
    return f": {reasons[0]}" if reasons[0] else ""
