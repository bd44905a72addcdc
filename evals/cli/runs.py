"""`evals list`, `evals show` and `evals verify`: what was judged before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evals.report import terminal as text
from registry import evaluations, evidence
from registry.clock import to_text, utc_now
from registry.errors import BadInput, EvidenceExpired, NotFound
from registry.ids import digest, short
from registry.terminal import Json, show, table
from registry.workspace import open_workspace


def list_runs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the runs that filed evidence, newest first."""
    with open_workspace() as workspace, workspace.viewing("runs.list") as connection:
        runs = evaluations.runs(connection, limit=limit)
    rows = [
        (run["id"], run["at"][:19], _named(run), _suite(run), run["verdict"], short(run["evidence"] or "-"))
        for run in runs
    ]
    headings = ("RUN", "AT", "RELEASE", "SUITE", "VERDICT", "EVIDENCE")
    answer = [{key: run[key] for key in run if key != "summary"} for run in runs]
    show({"runs": answer}, lambda: table(headings, rows), as_json=as_json)


def show_run(
    run: Annotated[str, typer.Argument(help="A run's id, or how it begins.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Print the report of an earlier run."""
    with open_workspace() as workspace, workspace.viewing("runs.list") as connection:
        known = evaluations.runs(connection, limit=10_000)
    found = [row for row in known if row["id"].startswith(run)]
    if len(found) != 1:
        problem = f"{len(found)} runs begin" if found else "no run begins"
        raise NotFound(f"{problem} with {run!r}; `evals list` shows them")
    (row,) = found
    report = {**row["summary"], "evidence": row["evidence"], "run": row["id"], "at": row["at"]}
    if "checks" not in report:
        raise NotFound(f"run {row['id']} was filed without a report; `registry evidence show` has its claim")
    report["suite"] = {**report["suite"], "digest": row["suite_digest"]}
    show(report, lambda: text.render(report), as_json=as_json)


def verify(
    envelope: Annotated[
        Path, typer.Argument(help="Evidence as a DSSE envelope in JSON.", show_default=False)
    ],
    *,
    as_json: Json = False,
) -> None:
    """Check evidence against the keys this registry trusts; 1 when it is tampered, foreign or expired."""
    try:
        content = json.loads(envelope.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{envelope}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{envelope}: an envelope is one JSON object")
    with open_workspace() as workspace, workspace.viewing("runs.list") as connection:
        claim = evidence.verify(connection, content)
    now = utc_now()
    if not claim.valid_from <= now < claim.valid_until:
        raise EvidenceExpired(
            f"the evidence is valid from {to_text(claim.valid_from)} to {to_text(claim.valid_until)}; "
            "run `evals run` again"
        )
    answer = {
        "ok": True,
        "evidence": digest(content),
        "verdict": claim.verdict,
        "release": {"name": claim.release_name, "digest": claim.release},
        "suite": {"name": claim.suite_name, "digest": claim.suite},
        "dataset": {"digest": claim.dataset},
        "baseline": {"digest": claim.baseline} if claim.baseline else None,
        "samples": claim.samples,
        "valid_until": to_text(claim.valid_until),
    }
    line = (
        f"genuine: suite {claim.suite_name} says {claim.verdict} for release {claim.release_name} "
        f"{short(claim.release)}, valid until {to_text(claim.valid_until)[:19]}Z"
    )
    show(answer, line, as_json=as_json)


def _named(run: dict[str, Any]) -> str:
    release = run["summary"].get("release", {})
    return f"{release.get('ref', '')} {short(run['release_digest'])}".strip()


def _suite(run: dict[str, Any]) -> str:
    return str(run["summary"].get("suite", {}).get("name") or short(run["suite_digest"]))
