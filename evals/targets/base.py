"""What a target is: it answers samples, and says what its answers depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from evals.client import Failure
from evals.dataset import Sample
from evals.systems.base import Output


class Target(Protocol):
    """One release, model or function under test, asked through one system."""

    @property
    def batch(self) -> int:
        """Most samples one call may carry, at least 1."""

    @property
    def identity(self) -> str:
        """The digest of what answers, as far as it is known: part of every cache key."""

    def question(self, sample: Sample) -> Mapping[str, Any]:
        """What is sent for *sample*, without the name it is sent to: part of its cache key."""

    async def answer(
        self, samples: Sequence[Sample], *, epoch: int, first: bool = False
    ) -> Sequence[Output] | Failure:
        """
        One output for each of at most `batch` *samples*, in order, or why there are none.

        Args:
            epoch: which repetition this is, from 0.
            first: nothing was asked yet: a release may still be loading.

        Raises:
            EvalsError: what would be the same for every sample.
        """
