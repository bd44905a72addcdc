"""A release behind the running gateway, or a model behind any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.client import Client, Failure, Reply
from evals.dataset import Sample
from evals.errors import BadAnswer, TargetUnavailable
from evals.systems.base import Call, Output, System
from evals.upstream import Refused, Upstream

_SAME_FOR_ALL = frozenset(("connection", "http_401", "http_403", "http_404"))
"""What the first call says of all that would follow."""


@dataclass(frozen=True, slots=True)
class GatewayTarget:
    """A release by its digest; an answer of another release ends the run."""

    system: System
    client: Client
    model: str
    """What the gateway knows the release by."""
    identity: str
    """The release's digest."""

    @property
    def batch(self) -> int:
        """As many as the system puts into one call."""
        return self.system.batch

    def question(self, sample: Sample) -> Mapping[str, Any]:
        """The bodies of the calls, without the model's name."""
        return _question(self.system, sample)

    async def answer(
        self, samples: Sequence[Sample], *, epoch: int, first: bool = False
    ) -> Sequence[Output] | Failure:
        """See `Target.answer`; calls of one sample follow each other, and the first one's time counts."""
        del epoch  # every request is answered anew: the gateway keeps no answers
        bodies: list[Any] = []
        latency_ms, cost_usd = 0.0, None
        for call in _calls(self.system.call(self.model, samples)):
            reply = await self.client.ask(call, self.identity, first=first)
            if not isinstance(reply, Reply):
                return reply
            if not bodies:
                latency_ms, cost_usd = reply.latency_ms, _cost(reply.headers)
            bodies.append(reply.body)
        return _read(self.system, bodies, samples, latency_ms, cost_usd)


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """A model of a server that is not ours: its bytes are unknown, so that it is never evidence."""

    system: System
    upstream: Upstream
    model: str
    identity: str
    """Digest of address and model."""

    @property
    def batch(self) -> int:
        """As many as the system puts into one call."""
        return self.system.batch

    def question(self, sample: Sample) -> Mapping[str, Any]:
        """The bodies of the calls, without the model's name."""
        return _question(self.system, sample)

    async def answer(
        self, samples: Sequence[Sample], *, epoch: int, first: bool = False
    ) -> Sequence[Output] | Failure:
        """See `Target.answer`."""
        del epoch
        bodies: list[Any] = []
        latency_ms = 0.0
        for call in _calls(self.system.call(self.model, samples)):
            reply = await self.upstream.post(call.path.removeprefix("/v1"), call.body)
            if isinstance(reply, Refused):
                if first and reply.kind in _SAME_FOR_ALL:
                    raise TargetUnavailable(
                        f"{self.upstream.url} does not answer as an OpenAI-compatible server would "
                        f"({reply.kind}); is the address right, and SLUICEGATE_TARGET_KEY?"
                    )
                return Failure(reply.kind)
            latency_ms = latency_ms or reply.latency_ms
            bodies.append(reply.body)
        return _read(self.system, bodies, samples, latency_ms, None)


def _calls(calls: Call | tuple[Call, ...]) -> tuple[Call, ...]:
    return calls if isinstance(calls, tuple) else (calls,)


def _question(system: System, sample: Sample) -> Mapping[str, Any]:
    bodies = [dict(call.body) for call in _calls(system.call("", [sample]))]
    for body in bodies:
        body.pop("model", None)
    only = bodies[0] if len(bodies) == 1 else {"calls": bodies}
    return only | {"batch": system.batch}


def _read(
    system: System,
    bodies: Sequence[Any],
    samples: Sequence[Sample],
    latency_ms: float,
    cost_usd: float | None,
) -> Sequence[Output] | Failure:
    try:
        outputs = system.read(bodies[0] if len(bodies) == 1 else bodies, samples, latency_ms)
    except BadAnswer:
        return Failure(BadAnswer.code)
    if cost_usd is None or len(outputs) != 1:
        return outputs
    from dataclasses import replace

    return [replace(outputs[0], cost_usd=cost_usd)]


def _cost(headers: Mapping[str, str]) -> float | None:
    """The dollars that the gateway says an answer cost; None where it does not know."""
    text = headers.get("x-sluicegate-cost-usd", "")
    try:
        return float(text)
    except ValueError:
        return None
