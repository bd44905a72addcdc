"""A Python function under test: `module:function`, called in this process."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from evals.client import Failure
from evals.dataset import Sample
from evals.errors import TargetUnavailable
from evals.systems.base import Output
from registry.errors import BadInput
from registry.ids import digest, digest_bytes

_ANSWERS = frozenset(field.name for field in fields(Output)) - {"latency_ms"}


@dataclass(frozen=True, slots=True)
class CallableTarget:
    """
    A function that takes a row (a mapping) and returns text, a label, or a mapping of an Output's fields.

    What it raises is a failure of that sample. It may be `async`; else it runs in a thread.
    """

    function: Callable[[Mapping[str, Any]], Any]
    identity: str
    """Digest of its name and of the file it stands in."""
    labels: bool
    """Whether bare text is a label rather than an answer."""
    timeout_s: float
    threads: ThreadPoolExecutor
    batch: int = 1

    def question(self, sample: Sample) -> Mapping[str, Any]:
        """The whole row, by its digest."""
        return {"row": sample.digest}

    async def answer(
        self, samples: Sequence[Sample], *, epoch: int, first: bool = False
    ) -> Sequence[Output] | Failure:
        """See `Target.answer`."""
        del first
        (sample,) = samples
        row = {**_row(sample), "epoch": epoch}
        begun = time.perf_counter()
        try:
            said = await asyncio.wait_for(self._call(row), self.timeout_s)
        except TimeoutError:
            return Failure("timeout")
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is its answer
            return Failure(f"raised_{type(error).__name__}")
        if isinstance(said, Failure):
            return said
        latency_ms = (time.perf_counter() - begun) * 1000
        try:
            return [_output(said, latency_ms, labels=self.labels)]
        except BadInput:
            return Failure("bad_answer")

    async def _call(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(row)
            loop = asyncio.get_running_loop()
            said = await loop.run_in_executor(self.threads, self.function, row)
            return await said if inspect.isawaitable(said) else said
        except SystemExit:  # it must not end the run with an exit code of its own
            return Failure("raised_SystemExit")


def load(reference: str, *, labels: bool, timeout_s: float, threads: ThreadPoolExecutor) -> CallableTarget:
    """
    The function that *reference*, `module:function`, names; modules of the working directory count.

    Raises:
        TargetUnavailable: no such module or function, or the module fails as it is imported.
    """
    name, _, attribute = reference.partition(":")
    if not name or not attribute:
        raise TargetUnavailable(f"python:{reference}: write python:module:function")
    here = os.getcwd()  # noqa: PTH109 - compared with the entries of sys.path
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
        function = getattr(module, attribute)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        raise TargetUnavailable(f"python:{reference}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise TargetUnavailable(f"python:{reference}: {attribute} is not a function")
    source = getattr(module, "__file__", None)
    code = digest_bytes(Path(source).read_bytes()) if source else ""
    return CallableTarget(function, digest({"python": reference, "code": code}), labels, timeout_s, threads)


def _row(sample: Sample) -> dict[str, Any]:
    """What the function may know: the question, never the answer."""
    row: dict[str, Any] = {"id": sample.id, **(sample.extra or {})}
    if sample.query:
        row["query"] = sample.query
    if sample.features is not None:
        row["features"] = dict(sample.features)
    return row


def _output(said: Any, latency_ms: float, *, labels: bool) -> Output:  # noqa: ANN401
    if isinstance(said, str):
        return Output(latency_ms, label=said) if labels else Output(latency_ms, text=said)
    if isinstance(said, Output):
        return said
    if not isinstance(said, Mapping) or not _ANSWERS & set(said):
        raise BadInput("neither text nor a mapping of an Output's fields")
    try:
        return msgspec.convert({"latency_ms": latency_ms, **said}, Output)
    except msgspec.ValidationError as error:
        raise BadInput("not an Output") from error
