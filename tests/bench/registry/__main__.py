"""`python -m tests.bench.registry`: the timings, the chain and the writers, on SQLite or on PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from registry import terminal
from registry.errors import BadInput
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.bench.gateway import machine
from tests.bench.registry import build, chain, report, timings, writers
from tests.bench.registry.build import SCALES, Scale
from tests.bench.registry.report import Outcome
from tests.fakes.postgres import Postgres, postgres

PARTS = ("timings", "chain", "writers")
application = typer.Typer(
    help="Measure the registry with 100,000 versions and 1,000,000 audit records.",
    pretty_exceptions_enable=False,
)


@application.command(epilog="Example: python -m tests.bench.registry --scale small --only chain")
def main(
    *,
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = "full",
    only: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "",
    case: Annotated[str, typer.Option(help="Only timings whose name contains this.")] = "",
    repetitions: Annotated[int, typer.Option(min=1, help="Of each timing.")] = 200,
    processes: Annotated[int, typer.Option(min=1, help="Of writers, each with ten threads.")] = 10,
    commits: Annotated[int, typer.Option(min=1, help="Of each writer.")] = 20,
    on_postgres: Annotated[bool, typer.Option("--postgres", help="On PostgreSQL instead.")] = False,
    cache: Annotated[Path, typer.Option(help="Folder that keeps the SQLite database.")] = Path(
        tempfile.gettempdir(), "sluicegate-bench"
    ),
    as_json: terminal.Json = False,
) -> None:
    """Print how long everything takes; exit code 1 when something was lost or is too slow on SQLite."""
    if scale not in SCALES:
        message = f"--scale {scale!r}: must be one of {', '.join(SCALES)}"
        raise BadInput(message)
    if only and only not in PARTS:
        message = f"--only {only!r}: must be one of {', '.join(PARTS)}"
        raise BadInput(message)
    facts = machine.facts() | {"command": f"python -m tests.bench.registry --scale {scale}"}
    outcome = Outcome("PostgreSQL" if on_postgres else "SQLite")
    with _registries(SCALES[scale], cache, on_postgres=on_postgres) as made:
        if only != "writers":
            settings = made.full()
            if only != "chain":
                _time(outcome, settings, SCALES[scale], repetitions, case)
            if only != "timings":
                _say("audit verify")
                outcome.chain = chain.check(settings)
        if only in ("", "writers"):
            _say("writers")
            outcome.writers = writers.run(made.empty(), processes=processes, threads=10, each=commits)
    terminal.show(report.plain([outcome], facts), report.text([outcome], facts), as_json=as_json)
    wrong = [*(outcome.writers.lost if outcome.writers else ())]
    wrong += ["the audit chain does not verify"] if outcome.chain and not outcome.chain.ok else []
    wrong += [] if on_postgres else report.slow([outcome])
    for problem in wrong:
        _say(problem)
    if wrong:
        raise typer.Exit(1)


def _time(outcome: Outcome, settings: RegistrySettings, scale: Scale, repetitions: int, case: str) -> None:
    with open_workspace(settings) as workspace:
        stand = build.begin(workspace, scale)
        outcome.rows = build.counts(workspace)
        outcome.timings = timings.measure(stand, repetitions, case, _say)


class _Registries:
    """Where the registry with everything in it is, and an empty one; made when they are asked for."""

    def __init__(self, folder: Path, scale: Scale, cache: Path, server: Postgres | None) -> None:
        self._folder, self._scale, self._cache, self._server = folder, scale, cache, server

    def full(self) -> RegistrySettings:
        """With everything in it; on SQLite a copy of what the cache keeps."""
        home = self._folder / "full"
        if self._server is not None:
            settings = RegistrySettings(home=home, database_url=self._server.url(self._server.create()))
            build.fill(settings, self._scale, _say)
            return settings
        self._cache.mkdir(parents=True, exist_ok=True)
        shutil.copytree(build.cached(self._cache, self._scale, _say), home)
        return RegistrySettings(home=home)

    def empty(self) -> RegistrySettings:
        """With nothing in it."""
        url = self._server.url(self._server.create()) if self._server is not None else ""
        return RegistrySettings(home=self._folder / "empty", database_url=url)


@contextmanager
def _registries(scale: Scale, cache: Path, *, on_postgres: bool) -> Iterator[_Registries]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="registry-bench-"))
        server = stack.enter_context(postgres(durable=True)) if on_postgres else None
        yield _Registries(Path(folder), scale, cache, server)


def _say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    terminal.run(application)
