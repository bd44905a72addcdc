"""
Which clients work, feature by feature: `python -m tests.clients.matrix` tries all and writes the page.

A row is a real client over a real socket. `docs/reference/compatibility.md` is what this prints.
"""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from registry import terminal
from tests.clients.plane import plane
from tests.fakes.stand import Stand

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "compatibility.md"
Trial = Callable[[Stand], None]
"""Raises where the client does not get what it should."""
ROWS = (
    "openai_python", "openai_node", "langchain_openai", "llama_index", "instructor_openai",
    "pydantic_ai_openai", "litellm_sdk", "curl",
)  # fmt: skip
"""Modules of `rows`, each with NAME, PACKAGE (None: no Python package) and TRIALS by feature."""


@dataclass(frozen=True, slots=True)
class Row:
    """A client, and what it is said to do."""

    name: str
    version: str
    trials: Mapping[str, Trial]


def row(module: str) -> Row:
    """The row that *module* of `rows` describes."""
    loaded = importlib.import_module(f"tests.clients.rows.{module}")
    own = getattr(loaded, "version", None)
    return Row(loaded.NAME, own() if own else _version(loaded.PACKAGE), loaded.TRIALS)


def rows() -> dict[str, Row]:
    """Every row, by module."""
    return {module: row(module) for module in ROWS}


def render(found: Mapping[str, Mapping[str, bool]]) -> str:
    """The page: a table for each client with what passed and what failed."""
    lines = [
        "# Compatibility",
        "",
        "Clients that were tried over a socket against a gateway; only their base URL and key were changed.",
        "Written by `python -m tests.clients.matrix`; the tests hold this page against what they find.",
        "",
        "| Client | Version | Works |",
        "|---|---|---|",
    ]
    for module, one in rows().items():
        says = [f"{'' if passed else '**fails:** '}{feature}" for feature, passed in found[module].items()]
        lines.append(f"| {one.name} | {one.version} | {', '.join(says)} |")
    return "\n".join(lines) + "\n"


def _version(package: str | None) -> str:
    return ".".join(version(package).split(".")[:2]) if package else "any"


def try_all(stand: Stand, on_fail: Callable[[str, str], None]) -> dict[str, dict[str, bool]]:
    """Every trial of every row: whether it passed."""
    found: dict[str, dict[str, bool]] = {}
    for module, one in rows().items():
        for feature, trial in one.trials.items():
            with cleared(stand):
                try:
                    trial(stand)
                    passed = True
                except Exception:
                    on_fail(f"{one.name}: {feature}", traceback.format_exc())
                    passed = False
            found.setdefault(module, {})[feature] = passed
    return found


@contextlib.contextmanager
def cleared(stand: Stand) -> Iterator[None]:
    """The upstream as it was at first, before and after."""
    up = stand.up
    up.seen.clear()
    up.faults.clear()
    up.answer, up.message, up.chunk_bytes = "forty two", {}, None
    try:
        yield
    finally:
        up.answer, up.message, up.chunk_bytes = "forty two", {}, None


def main(*, write: Annotated[bool, typer.Option(help="Write the page.")] = True) -> None:
    """Try every client; exit code 1 where a feature fails."""
    failed: list[str] = []

    def on_fail(name: str, why: str) -> None:
        failed.append(name)
        print(f"FAIL {name}\n{why}")

    with plane() as stand:
        found = try_all(stand, on_fail)
    page = render(found)
    if write:
        PAGE.write_text(page)
    print(page)
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    application = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
    application.command()(main)
    terminal.run(application)
