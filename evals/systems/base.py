"""What a system under test is: two pure functions around one HTTP request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evals.dataset import Sample
from evals.errors import BadAnswer
from registry.entities import ReleaseContent


@dataclass(frozen=True, slots=True)
class Options:
    """What a suite and a release ask of a system."""

    depth: int = 10
    """Distinct documents that metrics will look at, 1 to 50."""
    features: Mapping[str, str] = field(default_factory=dict)
    """Each input column's type, `text` or `number`; empty where rows do not matter."""
    classes: tuple[str, ...] = ()
    """A classical model's classes, in its order."""
    passages: int = 5
    """How many passages the release puts before its model."""
    alone: bool = False
    """Ask for one sample a request, so that its latency is its own."""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST to the gateway."""

    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function that a model wants called."""

    name: str
    arguments: str
    """JSON as the model wrote it; it may not parse."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a release answered for one sample; fields of other systems stay empty."""

    latency_ms: float
    text: str = ""
    documents: tuple[str, ...] = ()
    """Distinct documents, best first."""
    label: str | None = None
    probabilities: tuple[float, ...] = ()
    """One for each class, in the model's order."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    passages: tuple[str, ...] = ()
    """The texts behind the answer, best first."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    """OpenAI's finish_reason; `refusal` where the model or a guardrail declined."""
    ttft_ms: float | None = None
    """Milliseconds to the first token; None where the answer was not streamed."""
    cost_usd: float | None = None
    """None where the price is not known."""
    risk: float | None = None
    """What a guard says of the text, 0 (harmless) to 1; None where no guard was asked."""
    flagged: bool | None = None
    """Whether a guard stops the text."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What else a target told: plain JSON."""


class System(Protocol):
    """Pure and thread-safe; made as `factory(options)` from a plug-in of `sluicegate.systems`."""

    @property
    def batch(self) -> int:
        """Most samples one call may carry, at least 1."""

    def suits(self, release: ReleaseContent) -> str | None:
        """None, or why this system cannot judge that release."""

    def call(self, model: str, samples: Sequence[Sample]) -> Call | tuple[Call, ...]:
        """The request for *samples* (at most `batch`) to the release *model* names, or several in order."""

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401
        """
        One output for each sample, in order, from the decoded JSON *body*; a list of them for several calls.

        Raises:
            BadAnswer: the body has not the promised shape.
        """


def pick(body: Any, *path: str | int, kind: type = object) -> Any:  # noqa: ANN401
    """
    The value at *path* in decoded JSON.

    Raises:
        BadAnswer: nothing is there, or it is not of *kind*.

    >>> pick({"a": [{"b": 1}]}, "a", 0, "b", kind=int)
    1
    """
    value = body
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError) as error:
            raise BadAnswer(f"the answer has no {'.'.join(map(str, path))}") from error
    if not isinstance(value, kind):
        raise BadAnswer(
            f"the answer's {'.'.join(map(str, path))} is {type(value).__name__}, not {kind.__name__}"
        )
    return value
