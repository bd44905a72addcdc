"""Options that several commands share, and the contenders they name."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from registry.errors import BadInput
from tests.bench.gateway.contenders import litellm, nginx, portkey, sluicegate, tensorzero
from tests.bench.gateway.contenders.base import Contender

Cache = Annotated[Path, typer.Option(help="Folder that keeps what is installed.")]
Python = Annotated[Path, typer.Option(help="Interpreter of the environment that Sluicegate runs in.")]
Compiled = Annotated[
    Path | None,
    typer.Option(help="Interpreter of one that holds a wheel of `make wheel`; measured beside the other."),
]
Serve = Annotated[str, typer.Option(help="Words after `gateway serve`, such as '--workers 2'.")]
Env = Annotated[list[str] | None, typer.Option(help="NAME=VALUE for Sluicegate; may be repeated.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write every figure of every round here.")]
MarkdownFile = Annotated[Path | None, typer.Option("--markdown", help="Write the tables here, too.")]

DEFAULT_CACHE = Path("~/.cache/sluicegate-bench")
DEFAULT_PYTHON = Path(sys.executable)


def sluicegate_contender(python: Path, serve: str, env: Sequence[str] | None) -> Contender:
    """Sluicegate as the options describe it."""
    pairs = dict(pair.partition("=")[::2] for pair in env or ())
    return sluicegate.contender(python.absolute(), serve=shlex.split(serve), env=pairs)


def compiled_contender(python: Path | None) -> list[Contender]:
    """The same gateway from a compiled wheel, where there is one."""
    return [] if python is None else [sluicegate.contender(python.absolute(), name="sluicegate-compiled")]


def chosen(only: str, own: Contender, *more: Contender) -> list[Contender]:
    """
    The contenders named in *only*, all when it is empty.

    Raises:
        BadInput: a name is none of theirs.
    """
    known = {
        contender.name: contender
        for contender in (nginx.NGINX, own, *more, tensorzero.TENSORZERO, portkey.PORTKEY, litellm.LITELLM)
    }
    names = [name.strip() for name in only.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise BadInput(f"--only {name!r}: must be one of {', '.join(known)}")
    return [known[name] for name in names]
