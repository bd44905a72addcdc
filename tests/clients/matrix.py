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
    "openai_python", "openai_node", "anthropic_python", "langchain_openai", "llama_index",
    "instructor_openai", "pydantic_ai_openai", "litellm_sdk", "triton", "mlflow_client",
    "mcp_sdk", "curl",
)  # fmt: skip
"""Modules of `rows`, each with NAME, PACKAGE (None: no Python package) and TRIALS by feature."""


@dataclass(frozen=True, slots=True)
class Row:
    """A client, and what it is said to do."""

    name: str
    version: str
    trials: Mapping[str, Trial]
    missing: str | None = None
    """Why it cannot be tried on this machine."""


def row(module: str) -> Row:
    """The row that *module* of `rows` describes."""
    loaded = importlib.import_module(f"tests.clients.rows.{module}")
    own = getattr(loaded, "version", None)
    why = getattr(loaded, "missing", lambda: None)()
    return Row(loaded.NAME, own() if own else _version(loaded.PACKAGE), loaded.TRIALS, why)


def rows() -> dict[str, Row]:
    """Every row, by module."""
    return {module: row(module) for module in ROWS}


def render(found: Mapping[str, Mapping[str, str | None]]) -> str:
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
        says = [f"{'**fails:** ' if why else ''}{feature}" for feature, why in found[module].items()]
        lines.append(f"| {one.name} | {one.version} | {', '.join(says)} |")
    return "\n".join(lines) + "\n"


def _version(package: str | None) -> str:
    return ".".join(version(package).split(".")[:2]) if package else "any"


def try_all(stand: Stand) -> dict[str, dict[str, str | None]]:
    """Every trial of every row that can be tried here: why it failed, or None."""
    found: dict[str, dict[str, str | None]] = {}
    for module, one in rows().items():
        for feature, trial in one.trials.items():
            why = one.missing
            if why is None:
                with cleared(stand):
                    try:
                        trial(stand)
                    except Exception:
                        why = traceback.format_exc()
            found.setdefault(module, {})[feature] = why
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


def main(
    *,
    write: Annotated[bool, typer.Option(help="Write the page.")] = True,
    as_json: terminal.Json = False,
) -> None:
    """Try every client; exit code 1 where a feature fails."""
    with plane() as stand:
        found = try_all(stand)
    if write:
        PAGE.write_text(render(found))
    whys = [why for features in found.values() for why in features.values() if why]
    told = {"found": found, "page": render({module: dict.fromkeys(of) for module, of in found.items()})}
    terminal.show(told, lambda: "\n".join([render(found), *whys]), as_json=as_json)
    raise typer.Exit(1 if whys else 0)


if __name__ == "__main__":
    application = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
    application.command()(main)
    terminal.run(application)
