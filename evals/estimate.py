"""What a run would ask, and about what it may cost, before anything is sent."""

from __future__ import annotations

from typing import Any

from evals import dataset as data
from evals.cost import ASSUMED_COMPLETION_TOKENS, CHARACTERS_A_TOKEN, Purse, cost_pico, price_of
from evals.judging.panel import members_of
from evals.plan import make_plan
from evals.subjects import Subjects
from evals.suite import EvalSuite, metrics_of, samples_of
from registry import judges, prices
from registry.clock import utc_now
from registry.entities import Price
from registry.errors import BadInput
from registry.refs import parse_ref
from registry.terminal import table
from registry.workspace import Workspace

_RUBRIC_CHARACTERS = 1500
"""What a judge reads besides the sample: its rubric and the form of the verdict."""
_ANSWER_CHARACTERS = 800
_PICO = 10**12


def purse(workspace: Workspace, cap_usd: float | None) -> Purse:
    """
    What a run may spend, with the prices in force.

    Raises:
        BadInput: the cap is not above 0.
    """
    if cap_usd is not None and not cap_usd > 0:
        raise BadInput(f"max_cost is {cap_usd:g}; it must be above 0")
    return Purse(_prices(workspace), cap_usd)


def estimate(
    workspace: Workspace,
    suite: EvalSuite,
    dataset: data.Dataset,
    subjects: Subjects,
    *,
    limit: int | None = None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """
    The calls of a run, most of all, and about what judges and releases may cost: plain JSON.

    Nothing that is cached is taken off. Tokens are guessed from characters, three each; answers that nobody
    knows yet count as 800 characters.
    """
    metrics = metrics_of(suite)
    samples = dataset.samples[:limit]
    plan = make_plan(suite, metrics, samples, subjects)
    times = epochs or suite.epochs
    known = _prices(workspace)
    size = sum(len(sample.query) for sample in samples[:1000]) / max(len(samples[:1000]), 1)
    rows: list[dict[str, Any]] = []
    for (role, system), job in plan.jobs.items():
        release = job.subject.release
        model = release.content.model if release else None
        calls = -(-len(job.samples) // job.system.batch) * times
        rows.append(_row(role, system, model, calls, size, known))
        for check in job.scored:
            metric = metrics[check.title]
            if metric.rate is None:
                continue
            with workspace.reading() as connection:
                _, content = judges.get(connection, parse_ref(str(suite.judge_of(check))))
            asked = len(samples_of(check, job.samples)) * times * metric.calls
            read = size + _RUBRIC_CHARACTERS + _ANSWER_CHARACTERS
            rows += [
                _row(f"judge for {role}", check.title, member, asked, read, known)
                for member in members_of(content)
            ]
    return {
        "ok": True,
        "suite": suite.name,
        "samples": len(samples),
        "epochs": times,
        "calls": sum(row["calls"] for row in rows),
        "cost_usd": round(sum(row["cost_usd"] or 0.0 for row in rows), 6),
        "unpriced": sorted({str(row["model"]) for row in rows if row["model"] and row["cost_usd"] is None}),
        "rows": rows,
        "skipped": plan.skipped,
    }


def render(found: dict[str, Any]) -> str:
    """The estimate for people."""
    rows = [
        (row["what"], row["of"], row["model"] or "-", row["calls"], _dollars(row["cost_usd"]))
        for row in found["rows"]
    ]
    lines = [table(("WHO", "WHAT", "MODEL", "CALLS", "ABOUT"), rows), ""]
    lines.append(f"{found['samples']} samples, {found['epochs']} epochs: {found['calls']} calls at most")
    lines.append(f"about ${found['cost_usd']:.4f} without the cache; nothing was asked")
    if found["unpriced"]:
        lines.append(f"no price is known for {', '.join(found['unpriced'])}: `gateway prices set` stores one")
    lines += [f"not made: {title}: {why}" for title, why in found["skipped"].items()]
    return "\n".join(lines)


def _row(
    what: str, of: str, model: str | None, calls: int, characters: float, known: dict[str, Price]
) -> dict[str, Any]:
    price = price_of(model or "", known)
    cost = None
    if price is not None:
        tokens = int(characters / CHARACTERS_A_TOKEN) + 1
        cost = round(calls * cost_pico(price, tokens, ASSUMED_COMPLETION_TOKENS) / _PICO, 6)
    return {"what": what, "of": of, "model": model, "calls": calls, "cost_usd": cost}


def _dollars(cost: float | None) -> str:
    return "?" if cost is None else f"${cost:.4f}"


def _prices(workspace: Workspace) -> dict[str, Price]:
    with workspace.reading() as connection:
        return {price.model: price for price in prices.current(prices.list_prices(connection), utc_now())}
