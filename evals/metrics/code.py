"""Whether a program that a model wrote passes its tests: run in a sandbox, only where people ask for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.sandbox import run_python
from evals.systems.base import Output
from registry import parse
from registry.errors import BadInput

SWITCH = "SLUICEGATE_EXECUTE_CODE"
"""The environment variable that must be 1 where programs of models may run."""
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """Options of `humaneval`."""

    execute: bool = False
    """Must be true: what a model wrote is run."""
    seconds: float = 5.0
    """Of wall time for one program, at most 600."""
    memory_mb: int = 512
    """Of address space for one program, at least 64."""


def program(answer: str, prompt: str, entry_point: str) -> str:
    r"""
    The program that *answer* makes of *prompt*, whose last function is named *entry_point*.

    The first fenced block that defines the function counts, else the first of all, else the whole answer.
    What defines the function follows what the prompt says before it; other code continues the prompt.

    >>> program("Sure:\n```python\ndef one():\n    return 1\n```", "import re\ndef one():\n", "one")
    'import re\n\ndef one():\n    return 1\n'
    >>> program("    return 1", "def one():\n", "one")
    'def one():\n    return 1'
    """
    head = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    blocks = _FENCE.findall(answer)
    code = next((block for block in blocks if head.search(block)), blocks[0] if blocks else answer)
    if not head.search(code):
        return prompt + code
    places = [found.start() for found in head.finditer(prompt)]
    return f"{prompt[: places[-1]]}\n{code}" if places else f"{prompt}\n{code}"


def humaneval(options: Mapping[str, Any]) -> Metric:
    """
    1 where the answer's program passes the row's tests, else 0: for rows in the form of HumanEval.

    A row holds `prompt` (imports, signature, docstring), `entry_point` (the function's name) and `test`
    (which defines `check(candidate)`). With `any_of` a check measures pass@k. Programs have no network,
    files, processes or threads: see `evals.sandbox`.

    Source: Chen et al. 2021, arXiv 2107.03374.

    Raises:
        BadInput: nobody allowed programs to run, or they cannot be run safely here.
    """
    chosen = parse.build(options, CodeOptions, source="options of humaneval")
    if not chosen.execute or os.environ.get(SWITCH) != "1":
        raise BadInput(
            "humaneval runs programs that a model wrote, in a sandbox; to allow it set "
            f"`options: {{execute: true}}` in the check and {SWITCH}=1 in the environment"
        )
    run_python("", memory_mb=chosen.memory_mb, seconds=chosen.seconds)

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        prompt, test, entry_point = (sample.get(key) for key in ("prompt", "test", "entry_point"))
        if not (isinstance(prompt, str) and isinstance(test, str) and isinstance(entry_point, str)):
            raise ScoreFailed("bad_task")
        if not entry_point.isidentifier():
            raise ScoreFailed("bad_task")
        written = program(output.text, prompt, entry_point)
        try:
            source = f"{written}\n{test}\ncheck({entry_point})\n"
            ran = run_python(source, seconds=chosen.seconds, memory_mb=chosen.memory_mb)
        except BadInput as error:
            raise ScoreFailed("not_run") from error
        return float(ran.outcome == "passed")

    return Metric("humaneval", ("chat",), ("prompt", "test", "entry_point"), score=score, cpu_heavy=True)
