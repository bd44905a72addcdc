"""A run as files: the report, the evidence, and every output with its scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evals.client import Failure
from evals.run import EvalRun
from evals.submit import Filed
from evals.suite import metrics_of
from registry.errors import BadInput


def write(folder: Path, run: EvalRun, report: Mapping[str, Any], filed: Filed | None) -> None:
    """
    Write `report.json`, `outputs.jsonl` and, where evidence was filed, `evidence.json`.

    Raises:
        BadInput: the folder cannot be written.
    """
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _outputs(run))
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "outputs.jsonl", lines)
    if filed:
        write_text(folder / "evidence.json", json.dumps(filed.envelope, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write *text* to *path*, making its folder. Raises BadInput when that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def _outputs(run: EvalRun) -> list[dict[str, Any]]:
    metrics = metrics_of(run.suite)
    lines: list[dict[str, Any]] = []
    for (role, system), outputs in run.outputs.items():
        for rank, sample in enumerate(run.dataset.samples):
            output = outputs.get(sample.id)
            if output is None:
                continue
            line: dict[str, Any] = {"id": sample.id, "role": role, "system": system}
            if isinstance(output, Failure):
                lines.append({**line, "error": output.kind})
                continue
            judged = [check for check in run.suite.checks if check.system == system]
            scores = {
                f"{check.metric}@{check.k}" if check.k else check.metric: metric.score(
                    sample, output, check.k
                )
                for check in judged
                if (metric := metrics[check.metric]).score and rank < (check.limit or rank + 1)
            }
            lines.append({**line, "scores": scores, "output": asdict(output)})
    return lines
