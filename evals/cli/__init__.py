"""`evals`: judge releases through the running gateway, and read what was judged before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evals import settings, suite
from evals.report import terminal as text
from registry import evaluations, evidence, terminal
from registry.clock import to_text, utc_now
from registry.errors import BadInput, EvidenceExpired, NotFound
from registry.ids import digest, short
from registry.terminal import Json, command_group, show, table
from registry.workspace import open_workspace

application = command_group("Judge a release on what users get, with intervals, and file signed evidence.")
SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite in YAML.", show_default=False)]


def main() -> None:
    """The console script `evals`."""
    terminal.run(application)


@application.command(
    "run",
    epilog="Example: evals run suites/support.yaml --release support@candidate   "
    "Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 wrong input, settings or gateway.",
)
def run_suite(
    file: SuiteFile,
    *,
    release: Annotated[str | None, typer.Option(help="By default <name>@candidate.")] = None,
    baseline: Annotated[str | None, typer.Option(help="By default <name>@production, if another.")] = None,
    gateway: Annotated[str | None, typer.Option(help="URL; also evals.gateway, SLUICEGATE_BASE_URL.")] = None,
    key: Annotated[str | None, typer.Option(help="API key; better in SLUICEGATE_API_KEY.")] = None,
    limit: Annotated[int | None, typer.Option(help="A trial on the first so many samples.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Reuse outputs of equal requests.")
    ] = True,
    submit: Annotated[bool, typer.Option("--submit/--no-submit", help="File signed evidence.")] = True,
    output: Annotated[Path | None, typer.Option(help="Folder for report, outputs, evidence.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
    valid_hours: Annotated[float | None, typer.Option(help="How long the evidence is valid.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a release through the running gateway; the verdict is the exit code."""
    from evals import submit as submission
    from evals.client import Patience
    from evals.plan import resolve
    from evals.report import folder, machine
    from evals.report import junit as junit_report
    from evals.report import markdown as markdown_report
    from evals.run import Asking, evaluate

    chosen = settings.evals_settings()
    asking = Asking(
        gateway=settings.gateway_url(gateway, chosen),
        key=settings.api_key(key),
        concurrency=_concurrency(concurrency, chosen),
        patience=Patience(chosen.timeout_s, chosen.retries, chosen.ready_timeout_s),
        use_cache=cache,
    )
    loaded = suite.read(file)
    with open_workspace() as workspace:
        hours = workspace.settings.evidence_hours if valid_hours is None else valid_hours
        if not 0 < hours <= 24 * 366:
            raise BadInput(f"valid_hours is {hours:g}; it must be above 0 and at most 8784, one year")
        dataset = suite.load_dataset(loaded, file.parent, workspace)
        subjects = resolve(workspace, loaded, release, baseline)
        done = evaluate(workspace, loaded, dataset, subjects, asking, clock=utc_now, limit=limit)
        filed = None
        if submit and not done.trial:
            checks = [machine.check_report(result) for result in done.decision.results]
            filed = submission.file(
                workspace,
                done,
                checks,
                machine.report(done),
                folder=file.resolve().parent,
                valid_hours=hours,
                now=utc_now(),
            )
    report = machine.report(done, filed)
    if output:
        folder.write(output, done, report, filed)
    if junit:
        folder.write_text(junit, junit_report.render(report))
    if markdown:
        folder.write_text(markdown, markdown_report.render(report))
    show(report, lambda: text.render(report), as_json=as_json)
    raise typer.Exit(report["exit_code"])


@application.command(epilog="Example: evals validate suites/support.yaml")
def validate(file: SuiteFile, *, as_json: Json = False) -> None:
    """Check a suite and its dataset without asking anybody anything."""
    loaded = suite.read(file)
    with open_workspace() as workspace:
        dataset = suite.load_dataset(loaded, file.parent, workspace)
    answer = {
        "ok": True,
        "suite": loaded.name,
        "release": loaded.release,
        "checks": [check.title for check in loaded.checks],
        "samples": len(dataset.samples),
    }
    line = f"suite {loaded.name} is valid: {len(loaded.checks)} checks, {len(dataset.samples)} samples"
    show(answer, line, as_json=as_json)


@application.command(epilog="Example: evals push suites/support.yaml")
def push(file: SuiteFile, *, as_json: Json = False) -> None:
    """Register a suite and its dataset without running it; equal content is the same version."""
    from evals.submit import register

    loaded = suite.read(file)
    with open_workspace() as workspace:
        dataset = suite.load_dataset(loaded, file.parent, workspace)
        kept, data = register(workspace, loaded, dataset, now=utc_now())
    versions = {"suite": kept, "dataset": data}
    answer: dict[str, Any] = {"ok": True}
    for kind, version in versions.items():
        answer[kind] = {"name": version.name, "number": version.number, "digest": version.digest}
    rows = [(kind, f"{v.name}:{v.number}", v.digest) for kind, v in versions.items()]
    show(answer, "\n".join("  ".join(row) for row in rows), as_json=as_json)


@application.command("list", epilog="Example: evals list --limit 5")
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


@application.command("show", epilog="Example: evals show run_01k…")
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


@application.command(epilog="Example: evals verify out/evidence.json")
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


def _concurrency(named: int | None, chosen: settings.EvalsSettings) -> int:
    if named is not None and not 1 <= named <= 256:
        raise BadInput(f"concurrency is {named}; it must be 1 to 256")
    return named or chosen.concurrency


def _named(run: dict[str, Any]) -> str:
    release = run["summary"].get("release", {})
    return f"{release.get('ref', '')} {short(run['release_digest'])}".strip()


def _suite(run: dict[str, Any]) -> str:
    return str(run["summary"].get("suite", {}).get("name") or short(run["suite_digest"]))
