"""
Which of several equal engines answers a prompt, so that its beginning is still in that engine's cache.

Engines keep the keys and values of prompts they have read. A conversation whose every turn goes to the same
engine is read once; spread over n engines it is read n times. So a prompt's beginning chooses its engine,
and the choice is dropped for whoever comes next in the same order while the engine is too busy:

    score(i)    = -w_i / ln u_i        u_i in (0, 1), mixed from the beginning's key and the name of i
    capacity(i) = max(slack, ceil(factor · (m + 1) · w_i / W))        m requests run, W = Σ w
    choice      = the highest score among those with fewer than capacity(i) running

The order of others does not change when an engine comes or goes: only its own prompts move.

Sources: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 6(1),
1998 (highest random weight). C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables", SPAA 2005
(the logarithmic method). V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads",
SODA 2018. Deviation: *slack*, without which two requests at once would already part.

The usual factor, 1.5, is measured: it hits nearly as often as no bound, and a beginning that everybody sends
loads one engine by half too much, not by all there is (`python -m tests.bench.gateway.affinity`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

from registry.errors import BadInput

_BLOCK_BYTES = 64
"""About the sixteen tokens that engines cache as one block."""
_MOST_BLOCKS = 512
_WORD = (1 << 64) - 1
_USER = b'"user"'


def chat_beginning(messages: Sequence[Mapping[str, msgspec.Raw]]) -> bytes:
    """
    What stays the same in every turn of a chat: its messages up to the first of the user, as they came.

    >>> raw = lambda text: msgspec.Raw(text.encode())
    >>> chat_beginning([{"role": raw('"user"'), "content": raw('"Hi"')}, {"role": raw('"assistant"')}])
    b'"user""Hi"'
    """
    pieces = []
    for message in messages:
        role = bytes(message.get("role", b""))
        pieces += [role, bytes(message.get("content", b""))]
        if role == _USER:
            break
    return b"".join(pieces)


def key_of(beginning: bytes, *, most_blocks: int = _MOST_BLOCKS) -> int | None:
    """
    What chooses the engine: a hash over the whole leading blocks of 64 bytes, at most *most_blocks*.

    None where not one block is whole: so short a beginning is not worth a choice. The same in every
    process and on every machine.
    """
    end = min(len(beginning) // _BLOCK_BYTES, most_blocks) * _BLOCK_BYTES
    return int.from_bytes(blake2b(beginning[:end], digest_size=8).digest()) if end else None


class Affinity:
    """The order in which equal engines are chosen. Holds no state between choices; thread-safe."""

    __slots__ = ("_equal", "_factor", "_names", "_seeds", "_slack", "_weights")

    def __init__(
        self,
        names: Sequence[str],
        weights: Sequence[float] | None = None,
        *,
        factor: float = 1.5,
        slack: int = 2,
    ) -> None:
        """
        Order engines by *names*: an engine keeps its prompts for as long as it keeps its name.

        Args:
            weights: share of the prompts of each, above 0; None: equal.
            factor: how far above its share of the running requests an engine may be, at least 1. Smaller
                spreads better, greater hits more.
            slack: so many requests are never too many.

        Raises:
            BadInput: no names or equal ones, a weight that is not above 0, a factor below 1.
        """
        weights = [1.0] * len(names) if weights is None else list(weights)
        if not names or len(set(names)) < len(names) or len(weights) != len(names):
            message = "affinity: name at least one engine, each once, and weigh all or none"
            raise BadInput(message)
        if not all(0 < weight < math.inf for weight in weights) or not 1 <= factor < math.inf or slack < 0:
            message = "affinity: weights are above 0, factor is at least 1, slack at least 0"
            raise BadInput(message)
        self._names = tuple(names)
        self._seeds = tuple(int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) for name in names)
        self._weights = tuple(weights)
        self._equal = len(set(weights)) == 1
        self._factor = factor
        self._slack = slack

    def choose(self, key: int, loads: Sequence[float], allowed: Sequence[bool] | None = None) -> int | None:
        """
        The position of the engine for *key*; None when none is allowed.

        Args:
            loads: requests that each runs or keeps waiting, at least 0.
            allowed: which may be asked at all; None: every one. The load of others does not count.
        """
        best, highest = -1, -1.0
        total, weight = 1.0, 0.0
        for i, own in enumerate(self._weights):
            if allowed is None or allowed[i]:
                total += loads[i]
                weight += own
        if not weight:
            return None
        share = self._factor * total / weight
        for i, own in enumerate(self._weights):
            if allowed is not None and not allowed[i]:
                continue
            capacity = share * own
            if loads[i] >= self._slack and loads[i] >= math.ceil(capacity):
                continue
            score = self._score(key, i)
            if score > highest:
                best, highest = i, score
        if best >= 0:
            return best
        # Only rounding can make every capacity too small by one.
        able = [i for i in range(len(loads)) if allowed is None or allowed[i]]
        return min(able, key=lambda i: loads[i] / self._weights[i])

    def capacity(self, position: int, loads: Sequence[float]) -> int:
        """How many requests that engine may have before it is passed over, were all allowed."""
        share = self._factor * (sum(loads) + 1) / sum(self._weights)
        return max(self._slack, math.ceil(share * self._weights[position]))

    def order(self, key: int) -> tuple[str, ...]:
        """Names from first to last choice for *key*, were nobody busy."""
        positions = sorted(range(len(self._names)), key=lambda i: -self._score(key, i))
        return tuple(self._names[i] for i in positions)

    def _score(self, key: int, position: int) -> float:
        mixed = _mix(key ^ self._seeds[position])
        if self._equal:
            return float(mixed)
        return -self._weights[position] / math.log((mixed + 0.5) / (_WORD + 1.0))


def _mix(word: int) -> int:
    """
    Every bit of *word* in every bit of the result.

    Source: S. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
