"""`evals validate` and `evals push`: suites and datasets without asking anybody anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evals import suite
from registry.clock import utc_now
from registry.terminal import Json, show
from registry.workspace import open_workspace

SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite in YAML.", show_default=False)]


def validate(file: SuiteFile, *, as_json: Json = False) -> None:
    """Check a suite and its dataset without asking anybody anything."""
    loaded = suite.read(file)
    with open_workspace() as workspace:
        dataset = suite.load_dataset(loaded, file.parent, workspace)
    answer = {
        "ok": True,
        "suite": loaded.name,
        "release": loaded.release,
        "checks": [check.title for check in loaded.checks],
        "samples": len(dataset.samples),
    }
    line = f"suite {loaded.name} is valid: {len(loaded.checks)} checks, {len(dataset.samples)} samples"
    show(answer, line, as_json=as_json)


def push(file: SuiteFile, *, as_json: Json = False) -> None:
    """Register a suite and its dataset without running it; equal content is the same version."""
    from evals.submit import register

    loaded = suite.read(file)
    with open_workspace() as workspace:
        dataset = suite.load_dataset(loaded, file.parent, workspace)
        kept, data = register(workspace, loaded, dataset, now=utc_now())
    versions = {"suite": kept, "dataset": data}
    answer: dict[str, Any] = {"ok": True}
    for kind, version in versions.items():
        answer[kind] = {"name": version.name, "number": version.number, "digest": version.digest}
    rows = [(kind, f"{v.name}:{v.number}", v.digest) for kind, v in versions.items()]
    show(answer, "\n".join("  ".join(row) for row in rows), as_json=as_json)
