"""`evals aa`: how often a suite's verdict flips although nothing changed."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from evals import settings, suite
from evals.cli.suites import SuiteFile
from registry.clock import utc_now
from registry.terminal import EXIT_OK, Json, show, table
from registry.workspace import open_workspace

EPILOG = "Example: evals aa suites/support.yaml --epochs 4 --rounds 500"


def aa(
    file: SuiteFile,
    *,
    release: Annotated[str | None, typer.Option(help="By default <name>@candidate; or as in run.")] = None,
    epochs: Annotated[
        int, typer.Option(min=2, max=suite.MOST_EPOCHS, help="How often to ask each sample.")
    ] = 2,
    rounds: Annotated[int, typer.Option(min=10, max=100_000, help="Pairs of runs dealt from them.")] = 200,
    limit: Annotated[int | None, typer.Option(help="Ask only the first so many samples.")] = None,
    gateway: Annotated[str | None, typer.Option(help="URL, as in run.")] = None,
    key: Annotated[str | None, typer.Option(help="API key; better in SLUICEGATE_API_KEY.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="Ask every judge here.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once, at most.")] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="As in run.")] = None,
    as_json: Json = False,
) -> None:
    """
    Ask a release several times and hold it against itself: how often does the verdict flip?

    The newest result is printed beside the verdicts of the same suite and data on this machine.
    """
    from evals import aa as flipping
    from evals import estimate
    from evals.cli.run import serving
    from evals.client import Patience
    from evals.run import Asking, Effort, evaluate
    from evals.subjects import Subjects, resolve

    chosen = settings.evals_settings()
    url = settings.gateway_url(gateway, chosen)
    named = bool(gateway or chosen.gateway or os.environ.get(settings.URL_VARIABLE))
    loaded = suite.read(file)
    with open_workspace() as workspace:
        dataset = suite.load_dataset(loaded, file.parent, workspace)
        candidate = resolve(workspace, loaded, release).candidate
        subjects = Subjects(candidate, candidate)
        needed = candidate.release is not None
        secret = settings.api_key(key, required=False)
        with serving(url, secret, loaded.release, named=named, needed=needed) as at:
            asking = Asking(
                gateway=at.url,
                key=at.key,
                concurrency=concurrency or chosen.concurrency,
                patience=Patience(chosen.timeout_s, chosen.retries, chosen.ready_timeout_s),
                judge_url=judge_url,
                judge_concurrency=chosen.judge_concurrency,
            )
            done = evaluate(
                workspace,
                loaded,
                dataset,
                subjects,
                asking,
                clock=utc_now,
                effort=Effort(limit, epochs),
                purse=estimate.purse(workspace, max_cost),
            )
        found = flipping.report(flipping.flips(done, rounds=rounds), utc_now())
        flipping.keep(workspace, loaded, dataset, found)
    answer: dict[str, Any] = {
        "ok": True,
        "suite": loaded.name,
        "samples": done.samples,
        "epochs": epochs,
        **found,
    }
    show(answer, lambda: _text(answer), as_json=as_json)
    raise typer.Exit(EXIT_OK)


def _text(answer: dict[str, Any]) -> str:
    asked = f"{answer['samples']} samples, asked {answer['epochs']} times, {answer['rounds']} rounds"
    interval = f"[{answer['low']:.1%}, {answer['high']:.1%}]"
    lines = [
        f"{answer['suite']}: {asked}",
        f"the verdict flips in {answer['flip_rate']:.1%} of pairs of runs {interval}",
        table(("VERDICT", "ROUNDS"), sorted(answer["verdicts"].items())),
    ]
    if answer["wrong"]:
        rows = [(title, f"{share:.1%}") for title, share in answer["wrong"].items()]
        lines.append(table(("CHECK", "WRONG OF EQUALS"), rows))
    return "\n".join(lines)
