"""`evals run`: judge a release; the verdict is the exit code."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from evals import settings, suite
from evals.cli.suites import SuiteFile
from evals.report import terminal as text
from evals.serving import Serving, gateway_for
from registry.clock import utc_now
from registry.errors import BadInput
from registry.terminal import Json, show
from registry.workspace import Workspace, open_workspace

EPILOG = (
    "Example: evals run suites/support.yaml   |   evals run suites/support.yaml --release support@candidate "
    "--html report.html   |   evals run suites/qa.yaml --release http://127.0.0.1:8000/v1#llama --baseline "
    "recorded:before.jsonl   Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 wrong input, settings or gateway."
)
_MOST_HOURS = 24 * 366


@dataclass(frozen=True, slots=True)
class Files:
    """Where reports go besides the terminal."""

    output: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    mlflow: str | None = None


def run_suite(  # noqa: PLR0913 - each is an option of the command
    file: SuiteFile,
    *,
    release: Annotated[
        str | None,
        typer.Option(
            help="By default <name>@candidate; also http://host/v1#model, python:module:function or "
            "recorded:FILE."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="By default <name>@production, if another; or as --release.")
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            help="URL; also evals.gateway, SLUICEGATE_BASE_URL. Where none is running, one is started."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key; better in SLUICEGATE_API_KEY.")] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="Ask every judge here, not at its provider; also SLUICEGATE_JUDGE_URL.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="A trial on the first so many samples.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=suite.MOST_EPOCHS, help="Repetitions, not the suite's: a trial.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Requests under way at once, at most; 429 halves it for a while.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Reuse outputs of equal requests.")
    ] = True,
    submit: Annotated[bool, typer.Option("--submit/--no-submit", help="File signed evidence.")] = True,
    max_cost: Annotated[
        float | None, typer.Option(metavar="USD", help="Stop before judges cost more than this.")
    ] = None,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Look ten times, with intervals that hold at every look.")
    ] = False,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where metrics that need much CPU are computed.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes of --executor ray; by default all cores.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, and about what it may cost.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for report, outputs, evidence.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report here.")] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="Log the run to this MLflow tracking server.")
    ] = None,
    valid_hours: Annotated[float | None, typer.Option(help="How long the evidence is valid.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a release through the running gateway; the verdict is the exit code."""
    from evals import aa, estimate
    from evals import submit as submission
    from evals.client import Patience
    from evals.report import machine
    from evals.run import Asking, Effort, evaluate
    from evals.subjects import resolve

    chosen = settings.evals_settings()
    url = settings.gateway_url(gateway, chosen)
    named = bool(gateway or chosen.gateway or os.environ.get(settings.URL_VARIABLE))
    secret = settings.api_key(key, required=False)
    loaded = suite.read(file)
    with open_workspace() as workspace:
        hours = _hours(valid_hours, workspace)
        dataset = suite.load_dataset(loaded, file.parent, workspace)
        subjects = resolve(workspace, loaded, release, baseline)
        if dry_run:
            planned = estimate.estimate(workspace, loaded, dataset, subjects, limit=limit, epochs=epochs)
            show(planned, lambda: estimate.render(planned), as_json=as_json)
            return
        purse = estimate.purse(workspace, max_cost)
        gc.freeze()  # what lives on is not looked at again and again
        with _room() as folder, _scorer(executor, workers) as scorer:
            effort = Effort(
                limit, epochs, stop_early, scorer, folder / "lines.jsonl" if output or html else None
            )
            needs_gateway = subjects.candidate.release or (subjects.baseline and subjects.baseline.release)
            with serving(url, secret, loaded.release, named=named, needed=bool(needs_gateway)) as at:
                asking = Asking(
                    gateway=at.url,
                    key=at.key,
                    concurrency=_concurrency(concurrency, chosen),
                    patience=Patience(chosen.timeout_s, chosen.retries, chosen.ready_timeout_s),
                    use_cache=cache,
                    judge_url=judge_url,
                    judge_concurrency=chosen.judge_concurrency,
                )
                done = evaluate(
                    workspace, loaded, dataset, subjects, asking, clock=utc_now, effort=effort, purse=purse
                )
            report = machine.report(done) | {"aa": aa.kept(workspace, loaded, dataset)}
            filed = None
            if submit and not done.trial and subjects.are_releases:
                filed = submission.file(
                    workspace,
                    done,
                    report["checks"],
                    report,
                    folder=file.resolve().parent,
                    valid_hours=hours,
                    now=utc_now(),
                )
            report = machine.report(done, filed) | {"aa": report["aa"]}
            _write(Files(output, junit, markdown, html, mlflow), report, effort.lines, filed)
    show(report, lambda: text.render(report), as_json=as_json)
    raise typer.Exit(report["exit_code"])


def _write(files: Files, report: dict[str, Any], lines: Path | None, filed: Any) -> None:  # noqa: ANN401
    from evals.report import annotations, folder

    envelope = filed.envelope if filed else None
    if files.output:
        folder.write(files.output, report, folder.read_lines(lines), envelope)
    if files.junit:
        from evals.report import junit as junit_report

        folder.write_text(files.junit, junit_report.render(report))
    if files.markdown:
        from evals.report import markdown as markdown_report

        folder.write_text(files.markdown, markdown_report.render(report))
    if files.html:
        from evals.report import html as html_report

        folder.write_text(files.html, html_report.render(report, folder.read_lines(lines)))
    if files.mlflow:
        from evals.report.mlflow import log_run

        log_run(report, files.mlflow, report["suite"]["name"])
    annotations.tell(report, os.environ)


@contextmanager
def _room() -> Iterator[Path]:
    with TemporaryDirectory(prefix="sluicegate-evals-") as folder:
        yield Path(folder)


@contextmanager
def serving(url: str, key: str, release: str, *, named: bool, needed: bool) -> Iterator[Serving]:
    """The gateway for a run; nothing is started where none is needed."""
    if not needed:
        yield Serving(url, key)
        return
    with gateway_for(url, key, named=named, release=release) as found:
        yield found


@contextmanager
def _scorer(executor: str, workers: int | None) -> Iterator[Any]:
    from evals.executors.local import LocalScorer

    if executor == "local":
        yield LocalScorer()
        return
    from evals.executors.ray import connect

    scorer = connect(workers or os.cpu_count() or 1)
    try:
        yield scorer
    finally:
        scorer.close()


def _hours(named: float | None, workspace: Workspace) -> float:
    hours = workspace.settings.evidence_hours if named is None else named
    if not 0 < hours <= _MOST_HOURS:
        raise BadInput(f"valid_hours is {hours:g}; it must be above 0 and at most 8784, one year")
    return hours


def _concurrency(named: int | None, chosen: settings.EvalsSettings) -> int:
    if named is not None and not 1 <= named <= 256:
        raise BadInput(f"concurrency is {named}; it must be 1 to 256")
    return named or chosen.concurrency
