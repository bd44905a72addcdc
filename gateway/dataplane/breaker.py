"""
The circuit breaker of one upstream or model.

    closed     everything passes; so many failures in a row open it
    open       nothing passes, for a while
    half open  exactly one request passes, the probe: its success closes, its failure opens again

| what happened | counts as |
|---|---|
| no connection, a timeout, a broken answer, 5xx | failure: another request would fare no better |
| 401 | failure: the gateway's own key is refused, whoever asks |
| 429 | no failure; left alone for as long as `Retry-After` says (`cool`) |
| 400, 403, 404, 408, 413, 422 and the like | success: the place is well, this request is not |
| the caller left | nothing |

Were refused requests failures, one client could shut out all others.
Results of requests that began before the last change of state do not count, and a probe that is given
up frees its place. Time is monotonic and comes from the caller; nothing needs traffic to move on.
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half_open"]
REFUSED = -1


class Breaker:
    """Lets requests through while what is behind it is well. Not thread-safe."""

    __slots__ = ("_cool_until", "_epoch", "_failures", "_open_s", "_probing", "_threshold", "_until")

    def __init__(self, failures: int = 5, open_s: float = 60.0) -> None:
        """Open after *failures* in a row, for *open_s*."""
        self._threshold = failures
        self._open_s = open_s
        self._failures = 0
        self._epoch = 0
        self._until: float | None = None
        self._probing = False
        self._cool_until = 0.0

    def allow(self, now_s: float) -> int:
        """
        A ticket for one request, to be handed back with its result; `REFUSED` when none may pass.

        >>> breaker = Breaker(failures=1, open_s=60)
        >>> breaker.failed(breaker.allow(0.0), 0.0)
        >>> breaker.allow(59.0), breaker.state(60.0), breaker.allow(60.0), breaker.allow(60.0)
        (-1, 'half_open', 1, -1)
        """
        if self._until is None:
            return self._epoch if now_s >= self._cool_until else REFUSED
        if now_s < self._until or self._probing:
            return REFUSED
        self._probing = True
        return self._epoch

    def would_allow(self, now_s: float) -> bool:
        """Whether `allow` would give a ticket now."""
        if self._until is None:
            return now_s >= self._cool_until
        return now_s >= self._until and not self._probing

    def succeeded(self, ticket: int) -> None:
        """The request was answered."""
        if ticket == self._epoch:
            self._failures = 0
            if self._until is not None:
                self._until = None
                self._probing = False
                self._epoch += 1

    def failed(self, ticket: int, now_s: float) -> None:
        """The request failed for a reason that is the upstream's."""
        if ticket != self._epoch:
            return
        self._failures += 1
        if self._until is not None or self._failures >= self._threshold:
            self._until = now_s + self._open_s
            self._probing = False
            self._failures = 0
            self._epoch += 1

    def released(self, ticket: int) -> None:
        """The request was given up before anything was known."""
        if ticket == self._epoch and self._until is not None:
            self._probing = False

    def cool(self, until_s: float) -> None:
        """Let nothing through until then: the upstream asked for a pause."""
        self._cool_until = max(self._cool_until, until_s)

    def wait_s(self, now_s: float) -> float:
        """Seconds until something may pass again; 0 when it may now, or when a probe is under way."""
        until_s = self._cool_until if self._until is None else self._until
        return max(0.0, until_s - now_s)

    def state(self, now_s: float) -> State:
        """Where it stands at *now_s*, with or without traffic; one that is left to cool is open too."""
        if self._until is None:
            return "closed" if now_s >= self._cool_until else "open"
        return "open" if now_s < self._until else "half_open"
