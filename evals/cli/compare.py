"""`evals compare`: two runs, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.cli.view import report_of
from registry.errors import BadInput
from registry.terminal import EXIT_FAIL, EXIT_OK, Json, show
from registry.workspace import open_workspace

if TYPE_CHECKING:
    from evals.report import compare as comparing

EPILOG = "Example: evals compare before/ after/   |   evals compare run_01k… after/ --fail-on-worse"
Run = Annotated[
    str,
    typer.Argument(help="A folder of `run --output`, its outputs.jsonl, or a run's id.", show_default=False),
]


def compare(
    a: Run,
    b: Run,
    *,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page here.")] = None,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit 1 where a metric of B is surely worse.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two runs case by case: gains with intervals, p-values, and the cases that changed."""
    from evals.report import compare as comparing
    from evals.report import compare_text as text
    from evals.report import folder

    if not 0.5 <= confidence < 1:
        raise BadInput(f"confidence is {confidence:g}; it must be at least 0.5 and below 1")
    found = comparing.compare(side_of(a), side_of(b), confidence=confidence)
    if markdown:
        folder.write_text(markdown, text.render_markdown(found))
    if html:
        from evals.report.html_compare import render

        folder.write_text(html, render(found))
    show(found, lambda: text.render(found), as_json=as_json)
    raise typer.Exit(EXIT_FAIL if fail_on_worse and found["worse"] else EXIT_OK)


def side_of(name: str) -> comparing.Side:
    """
    The run that *name* means: a path if there is one, else a run of the registry.

    Raises:
        BadInput: the path holds no run.
        NotFound: no run, or more than one, begins with *name*.
    """
    from evals.report import compare as comparing
    from evals.report import folder

    path = Path(name)
    if path.exists():
        kept = folder.read(path)
        lines = folder.read_lines(kept.lines) if kept.lines else None
        return comparing.side(name, kept.report, lines)
    with open_workspace() as workspace:
        return comparing.side(name, report_of(workspace, name), None)
