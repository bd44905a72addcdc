"""What every command line of Sluicegate shares: output for people or machines, errors, progress."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer

from registry.errors import PlatformError, PromotionRefused

EXIT_OK, EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_CONFIG = 0, 1, 2, 3
"""0 done or passed; 1 refused or failed; 2 inconclusive; 3 wrong input, settings or environment."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def command_group(help_text: str) -> typer.Typer:
    """An empty group of commands that shows its help when called without one."""
    return typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False)


def run(application: typer.Typer) -> NoReturn:
    """Run a command line; a PlatformError becomes one clear line and an exit code."""
    try:
        application(standalone_mode=True)
    except PlatformError as error:
        report(error, as_json="--json" in sys.argv)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_OK)
    sys.exit(EXIT_OK)


def report(error: PlatformError, *, as_json: bool) -> None:
    """Write *error* to standard error, or as a JSON object to standard output."""
    if as_json:
        print(json.dumps({"ok": False, "error": {"code": error.code, "message": error.message}}))
    else:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)


def exit_code(error: PlatformError) -> int:
    """1 where a promotion was refused, 3 where input, settings or environment is wrong."""
    return EXIT_FAIL if isinstance(error, PromotionRefused) else EXIT_CONFIG


def show(value: Mapping[str, Any], text: str | Callable[[], str], *, as_json: bool) -> None:
    """Print *value* as one JSON object, or *text* for people."""
    if as_json:
        print(json.dumps(value, default=str))
    else:
        print(text if isinstance(text, str) else text())


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain aligned columns, readable in any terminal and by `cut`."""
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@contextlib.contextmanager
def progress(label: str, total: int, note: Callable[[], str] = lambda: "") -> Iterator[Callable[[int], None]]:
    """
    A progress bar on standard error; call what it yields with how many more are done.

    Silent when standard error is no terminal; standard output is never touched.

    Args:
        note: what stands behind the bar, asked twice a second.
    """
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Note(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:  # noqa: ARG002 - as rich calls it
            return Text(note())

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, Note(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)


def actor() -> str:
    """Who acts: SLUICEGATE_ACTOR, or the user of the operating system."""
    named = os.environ.get("SLUICEGATE_ACTOR")
    if named:
        return named[:128]
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
