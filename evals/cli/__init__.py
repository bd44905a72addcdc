"""`evals`: judge releases through the running gateway, and read what was judged before."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from registry import terminal
from registry.terminal import command_group

_COMMANDS = {
    "run": ("run", "run_suite", ""),
    "aa": ("aa", "aa", ""),
    "power": ("power", "plan", ""),
    "validate": ("suites", "validate", "Example: evals validate suites/support.yaml"),
    "push": ("suites", "push", "Example: evals push suites/support.yaml"),
    "list": ("runs", "list_runs", "Example: evals list --limit 5"),
    "show": ("runs", "show_run", "Example: evals show run_01k…"),
    "compare": ("compare", "compare", ""),
    "view": ("view", "view", ""),
    "verify": ("runs", "verify", "Example: evals verify out/evidence.json"),
    "calibrate": ("calibrate", "calibrate", ""),
}
"""Command → module of this package, function there, and how its help ends; empty: the module's EPILOG."""
_HELP = "Judge a release on what users get, with intervals, and file signed evidence."
_GROUPS = ("datasets", "review")
"""Modules that add a group of commands of their name."""


def build(words: Sequence[str]) -> typer.Typer:
    """
    The command line that *words*, the arguments, ask for.

    Where they begin with the name of a command nothing else is imported: other commands need most of what
    there is. Otherwise it is complete, as help and completion need it.
    """
    named = words[0] if words else ""
    application = command_group(
        "Judge a release on what users get, with intervals, and file signed evidence."
    )
    application.callback()(_application)
    for name, (module, function, epilog) in _COMMANDS.items():
        if named == name or named not in (*_COMMANDS, *_GROUPS):
            loaded = import_module(f"{__name__}.{module}")
            application.command(name, epilog=epilog or loaded.EPILOG)(getattr(loaded, function))
    for name in _GROUPS:
        if named == name or named not in (*_COMMANDS, *_GROUPS):
            import_module(f"{__name__}.{name}").add_to(application)
    return application


def main() -> None:
    """The console script `evals`."""
    gc.set_threshold(50_000, 20, 20)  # a run makes many small things and no cycles
    terminal.run(build(sys.argv[1:]))


def _application() -> None:
    """Stand at the root, so that one command alone stays a command."""
