"""What a run spends: known before each call, held to a cap, reported after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from evals.errors import CostCapReached
from registry.entities import Price

CHARACTERS_A_TOKEN = 3
"""For prompts that nobody has counted yet; English has about four, so that this errs on the dear side."""
ASSUMED_COMPLETION_TOKENS = 512
"""Held for a call whose `max_tokens` is not known."""
_PICO = 10**12


@dataclass(slots=True)
class Hold:
    """Money set aside for one call under way; `settle` says what it came to."""

    price: Price | None
    held: int
    """Pico-USD."""
    spent: int | None = None

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The call used so many tokens."""
        self.spent = cost_pico(self.price, prompt_tokens, completion_tokens)


@dataclass(slots=True)
class Purse:
    """Money for one run. Within one event loop."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    """By model, as `provider/model` or a pattern such as `ollama/*`."""
    cap_usd: float | None = None
    spent: int = 0
    """Pico-USD."""
    held: int = 0
    """Pico-USD set aside for calls under way."""
    unpriced: int = 0
    """Calls whose model has no known price: they count as free, and are told."""

    _waiting: list[asyncio.Future[None]] = field(default_factory=list, repr=False)

    @property
    def spent_usd(self) -> float:
        """Dollars spent so far."""
        return self.spent / _PICO

    @asynccontextmanager
    async def hold(self, model: str, characters: int, max_tokens: int | None) -> AsyncIterator[Hold]:
        """
        Set aside what a call may cost at most; what was not settled is given back.

        Where it does not fit, it waits until the calls under way have settled: none of those is lost.

        Raises:
            CostCapReached: it does not fit under the cap any more.
        """
        price = price_of(model, self.prices)
        if price is None:
            self.unpriced += 1
        most = cost_pico(price, characters // CHARACTERS_A_TOKEN + 1, max_tokens or ASSUMED_COMPLETION_TOKENS)
        while self._is_over(most) and self.held:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        if self.cap_usd is not None and self._is_over(most):
            raise CostCapReached(
                f"the run spent ${self.spent_usd:.4f} of at most ${self.cap_usd:g}, and another does not "
                "fit; what was paid for is kept: raise --max-cost and run again"
            )
        one = Hold(price, most)
        self.held += most
        try:
            yield one
        finally:
            self.held -= most
            self.spent += one.spent or 0
            waiting, self._waiting = self._waiting, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)

    def _is_over(self, most: int) -> bool:
        """Whether another call of at most so much does not fit beside those under way."""
        return self.cap_usd is not None and self.spent + self.held + most > self.cap_usd * _PICO


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of *model*: its own, else that of the longest pattern that fits; None where there is none."""
    fitting = [name for name in prices if name == model or ("*" in name and fnmatchcase(model, name))]
    for name in sorted(fitting, key=lambda name: (name != model, -len(name))):
        if not prices[name].withdrawn:
            return prices[name]
    return None


def cost_pico(price: Price | None, prompt_tokens: int, completion_tokens: int) -> int:
    """Pico-USD of a call; 0 where the price is not known."""
    if price is None:
        return 0
    return price.input_picousd * prompt_tokens + price.output_picousd * completion_tokens
