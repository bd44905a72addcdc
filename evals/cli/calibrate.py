"""`evals calibrate`: hold a judge to people's labels, and let it decide where it agrees with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.clock import utc_now
from registry.terminal import EXIT_FAIL, EXIT_OK, Json, progress, show, table
from registry.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from evals.agreement.asking import Rating
    from evals.agreement.labelled import Labelled, Scale
    from evals.calibrate import Report
    from evals.cost import Purse
    from evals.metrics.base import Metric
    from evals.stats import Estimate
    from registry.entities import JudgeContent

EPILOG = (
    "Example: evals calibrate judges/helpful.yaml labels.jsonl --push   "
    "Exit codes: 0 calibrated, 1 not, 3 wrong input or environment."
)
_SHOWN = 10


def calibrate(  # noqa: PLR0913 - the options of a command
    judge: Annotated[
        str, typer.Argument(help="A judge file, or a judge of the registry.", show_default=False)
    ],
    labels: Annotated[
        str,
        typer.Argument(
            help="Answers with people's labels: a file, or a registered dataset.", show_default=False
        ),
    ],
    *,
    metric: Annotated[str, typer.Option(help="The judged metric that asks it.")] = "judge",
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The score from which a verdict is good.")
    ] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, max=10, help="How often to ask about each row.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows, a fixed choice.")] = None,
    min_labels: Annotated[int, typer.Option(help="Least labels to be calibrated.")] = 50,
    min_kappa: Annotated[float, typer.Option(help="Least kappa to be calibrated.")] = 0.4,
    max_errors: Annotated[float, typer.Option(help="Largest share of failed ratings.")] = 0.05,
    expires_days: Annotated[int, typer.Option(help="How long it holds.")] = 90,
    judge_url: Annotated[str | None, typer.Option(help="Ask the judge here.")] = None,
    judge_key: Annotated[
        str | None, typer.Option(help="Its server's key; better in SLUICEGATE_JUDGE_KEY.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="Calls under way at once, at most.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="Stop before it costs more.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask again what was answered before.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Store the judge with this calibration.")] = False,
    as_json: Json = False,
) -> None:
    """
    Ask a judge about answers that people have judged, and report how far both agree.

    LABELS has one JSON object a row: id, query, answer, label (good or bad, a number of the judge's scale, or
    first, second or tie beside a second answer `rival`); `labels` where several people judged.
    """
    from evals import calibrate as calibration
    from evals.agreement.labelled import labelled, scale_of_labels
    from evals.checks import Check
    from evals.curate.sources import open_dataset
    from evals.estimate import purse
    from evals.metrics.judge import scale_of
    from evals.suite import metric_of

    rules = calibration.Rules(min_labels, min_kappa, max_errors, expires_days)
    with open_workspace() as workspace:
        name, content = judge_of(workspace, judge)
        data = open_dataset(workspace, labels)
        samples = data.samples[:limit]
        scale = scale_of_labels(samples[0], scale_of(content) if metric == "judge" else "binary")
        rows = labelled(samples, scale)
        made = metric_of(Check("chat", metric, at_least=threshold))
        spent = purse(workspace, max_cost)
        ratings = asyncio.run(
            _ask(
                workspace,
                content,
                rows,
                scale,
                made,
                spent,
                (judge_url, judge_key),
                repeats=repeats,
                threshold=threshold,
                concurrency=concurrency,
                use_cache=not no_cache,
            )
        )
        found = calibration.report(rows, ratings, scale)
        record = calibration.record(
            found,
            content,
            dataset=data.version.digest if data.version else data.digest,
            metric="win_rate" if scale == "pairwise" else metric,
            rules=rules,
            now=utc_now(),
        )
        answer: dict[str, Any] = {"ok": record["calibrated"], "judge": name, "calibration": record}
        answer |= {"report": asdict(found), "cost_usd": spent.spent_usd}
        if push:
            answer["version"] = _pushed(workspace, name, content, record)
    show(answer, lambda: _text(name, found, record, answer.get("version")), as_json=as_json)
    raise typer.Exit(EXIT_OK if record["calibrated"] else EXIT_FAIL)


def judge_of(workspace: Workspace, place: str) -> tuple[str, JudgeContent]:
    """
    The name and content of the judge in a file, or of that in the registry.

    Raises:
        BadInput, BadRef, NotFound: neither.
    """
    from registry import judges
    from registry.refs import parse_ref

    path = Path(place)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        file = judges.read_file(path)
        return file.name, file.judge
    with workspace.viewing("versions.show") as connection:
        version, content = judges.get(connection, parse_ref(place))
    return version.name, content


async def _ask(
    workspace: Workspace,
    content: JudgeContent,
    rows: Sequence[Labelled],
    scale: Scale,
    metric: Metric,
    spent: Purse,
    server: tuple[str | None, str | None],
    *,
    repeats: int,
    threshold: float,
    concurrency: int | None,
    use_cache: bool,
) -> list[list[Rating]]:
    from contextlib import nullcontext

    from evals import settings
    from evals.agreement.asking import ask
    from evals.cache import CACHE_FOLDER, open_cache
    from evals.client import Patience
    from evals.judging.seats import Servers, open_judge

    chosen = settings.evals_settings()
    most = concurrency or chosen.judge_concurrency or chosen.concurrency
    patience = Patience(chosen.timeout_s, chosen.retries, chosen.ready_timeout_s)
    kept = open_cache(workspace.settings.home / CACHE_FOLDER) if use_cache else nullcontext()
    servers = Servers(os.environ, most, patience, *server)
    with kept as cache, progress("ratings", len(rows) * repeats) as done:
        async with open_judge(content, servers, cache, spent) as seats:
            return await ask(
                rows,
                scale,
                metric,
                seats.bench,
                repeats=repeats,
                threshold=threshold,
                concurrency=most,
                on_done=done,
            )


def _pushed(
    workspace: Workspace, name: str, content: JudgeContent, record: Mapping[str, Any]
) -> dict[str, Any]:
    from registry import judges

    with workspace.acting("judges.push") as (connection, who):
        version = judges.push(
            connection, name, replace(content, calibration=record), actor=who, now=utc_now()
        )
    return {"name": version.name, "number": version.number, "digest": version.digest}


def _text(name: str, found: Report, record: Mapping[str, Any], version: Mapping[str, Any] | None) -> str:
    rows: list[tuple[str, str]] = [
        ("rows", f"{found.rows}, of which {found.table.n} have a label and a verdict")
    ]
    if found.split:
        rows.append(("people split", f"{found.split} rows, left out"))
    rows += [("base rate " + key, _share(one)) for key, one in found.base_rates.items() if one.value]
    rows.append(("kappa", _number(found.kappa)))
    rows.append(("AC1, PABAK", f"{found.ac1:.2f}, {found.pabak:.2f}"))
    rows += [("kappa " + key, _number(one)) for key, one in found.people.items()]
    rows += [] if found.alpha is None else [("alpha of people", f"{found.alpha:.2f}")]
    rows += [("wrong on " + key, _share(one)) for key, one in found.errors_by_class.items() if one.n]
    more: list[tuple[str, Estimate | None, Callable[[Estimate], str]]] = [
        ("self-consistency", found.self_consistency, _share),
        ("order consistency", found.position.consistent if found.position else None, _share),
        ("length and error", found.verbosity, _number),
        ("longer among ties", found.longer_among_ties, _share),
    ]
    rows += [(title, say(one)) for title, one, say in more if one is not None]
    kinds = ", ".join(f"{kind} {count}" for kind, count in found.error_kinds.items())
    rows.append(("failed ratings", f"{found.errors:.1%}" + (f" ({kinds})" if kinds else "")))
    if found.disagreed:
        shown = ", ".join(found.disagreed[:_SHOWN])
        rows.append(("disagreed on", shown + (", …" if len(found.disagreed) > _SHOWN else "")))
    verdict = f"calibrated until {str(record['expires'])[:10]}" if record["calibrated"] else "not calibrated"
    lines = [f"judge {name}: {verdict}", *(f"  because {why}" for why in record["reasons"])]
    lines.append(table(("", ""), rows).partition("\n")[2])
    if version is not None:
        lines.append(f"judge {version['name']}:{version['number']}  {version['digest']}")
    return "\n".join(lines)


def _number(one: Estimate) -> str:
    return f"{one.value:.2f} [{one.interval.low:.2f}, {one.interval.high:.2f}] (n {one.n})"


def _share(one: Estimate) -> str:
    return f"{one.value:.0%} [{one.interval.low:.0%}, {one.interval.high:.0%}] (n {one.n})"
