"""Metrics of releases that share an alias's traffic, side by side: arms that answer, and shadows."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from gateway.dataplane.usage import UsageRecord
from gateway.series import MAX_SERIES, SECONDS, Histogram, counter_of, histogram_of


class Arms:
    """Counts by release, alias and arm."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._sums: dict[tuple[str, ...], list[int]] = {}
        """(release, alias, arm, outcome) → requests, prompt tokens, completion tokens, micro-USD."""
        self._seconds: dict[tuple[str, ...], Histogram] = {}
        self._agreed: dict[tuple[str, ...], int] = {}

    def note(self, record: UsageRecord, outcome: str) -> None:
        """Count one request of an arm."""
        key = (record.release, record.alias, record.arm)
        sums = self._sums.get((*key, outcome))
        if sums is None:
            if len(self._sums) >= MAX_SERIES:
                return
            sums = self._sums[*key, outcome] = [0, 0, 0, 0]
        sums[0] += 1
        sums[1] += record.prompt_tokens
        sums[2] += record.completion_tokens
        sums[3] += record.cost_microusd or 0
        if outcome != "dropped":
            seconds = self._seconds.get(key)
            if seconds is None:
                seconds = self._seconds[key] = Histogram(SECONDS)
            seconds.observe(record.duration_s)

    def agreed(self, release: str, alias: str, *, same: int, different: int) -> None:
        """Count predictions of a shadow that were, and were not, what the user got."""
        for outcome, count in (("same", same), ("different", different)):
            key = (release, alias, outcome)
            if key in self._agreed or len(self._agreed) < MAX_SERIES:
                self._agreed[key] = self._agreed.get(key, 0) + count

    def series(self) -> Iterator[Metric]:
        """All of them."""
        for place, (name, text) in enumerate(_COUNTERS):
            yield counter_of(name, text, ("release", "alias", "arm", "outcome"),
                             {key: sums[place] for key, sums in self._sums.items()})  # fmt: skip
        yield histogram_of(
            "sluicegate_arm_duration_seconds", "Time of a request, by arm.", ("release", "alias", "arm"),
            list(self._seconds.items()),
        )  # fmt: skip
        yield counter_of(
            "sluicegate_shadow_predictions", "Rows that a shadow predicted too, by whether it said the same.",
            ("release", "alias", "outcome"), self._agreed,
        )  # fmt: skip


_COUNTERS = (
    ("sluicegate_arm_requests", "Requests of an alias whose traffic is shared, by who answered."),
    ("sluicegate_arm_prompt_tokens", "Tokens that they read."),
    ("sluicegate_arm_completion_tokens", "Tokens that they wrote."),
    ("sluicegate_arm_cost_microusd", "What they cost, in millionths of a dollar."),
)
