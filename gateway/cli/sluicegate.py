"""The `sluicegate` command line: the five packages under one name, and `demo`, `init`, `doctor`."""

from __future__ import annotations

import importlib
import sys

import typer

from gateway.cli import demo, doctor, init
from registry import terminal

_PACKAGES = {
    "registry": "Versions, releases, evidence and the aliases they move.",
    "rag": "Build and search retrieval indexes.",
    "classical": "Train and register classical models.",
    "evals": "Judge a release and file signed evidence.",
    "gateway": "Serve every model behind one OpenAI-compatible API.",
}
_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}

application = terminal.command_group(
    "One gate for every model a team runs: live traffic moves only on signed evidence."
)
application.command("demo", epilog="Example: sluicegate demo --exit --json")(demo.demo)
application.command("init", epilog="Example: sluicegate init my-assistant")(init.init)
application.command("doctor", epilog="Example: sluicegate doctor --json")(doctor.doctor)


def _add(package: str, summary: str) -> None:
    @application.command(package, help=summary, context_settings=_PASS_THROUGH, add_help_option=False)
    def forward(context: typer.Context) -> None:
        sys.argv = [f"sluicegate {package}", *context.args]
        # By name, not by import: the storeys of the house stay as they are.
        importlib.import_module(f"{package}.cli").main()


for _package, _summary in _PACKAGES.items():
    _add(_package, _summary)


def main() -> None:
    """Entry point of the `sluicegate` console script."""
    terminal.run(application)
