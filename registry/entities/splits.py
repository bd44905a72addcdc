"""How the traffic of an alias is shared between releases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from registry.errors import BadInput

Sticky = Literal["user", "session", "key", "request"]
WHOLE = 10_000
"""A share that is everything: shares are hundredths of a percent."""
_MOST_ARMS = 9


@dataclass(frozen=True, slots=True)
class Arm:
    """A release that answers a share of an alias's traffic."""

    name: str
    """How answers, records and metrics call it."""
    digest: str
    share: int
    """Hundredths of a percent, 1 to 9,999."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A release that is asked beside the others, and answers nobody."""

    digest: str
    share: int
    """Of the requests, in hundredths of a percent, 1 to 10,000."""
    microusd_per_day: int | None = None
    """What it may spend on a day of UTC; None: any amount."""


@dataclass(frozen=True, slots=True)
class Split:
    """
    What an alias's traffic is shared between, beside the release it points at.

    Ended by every move of the alias: it was set for the release that the alias pointed at.
    """

    id: str
    name: str
    alias: str
    base: str
    """Digest that the alias pointed at when this was set; it has what the arms leave."""
    arms: tuple[Arm, ...] = ()
    shadow: Shadow | None = None
    sticky: Sticky = "user"
    """By what requests stay with an arm."""
    reason: str = ""
    evidence: tuple[str, ...] = ()
    """Digests of the envelopes that let the arms answer."""
    set_at: str = ""
    set_by: str = ""

    def __post_init__(self) -> None:
        """Refuse shares that are more than all of the traffic, and arms that could not be told apart."""
        if not self.arms and self.shadow is None:
            message = f"split of {self.name}@{self.alias}: give at least one arm or a shadow"
            raise BadInput(message)
        if len(self.arms) > _MOST_ARMS:
            message = f"split of {self.name}@{self.alias}: {len(self.arms)} arms are more than {_MOST_ARMS}"
            raise BadInput(message)
        names = [self.alias, *(arm.name for arm in self.arms)]
        digests = [self.base, *(arm.digest for arm in self.arms)]
        if len(set(names)) < len(names) or len(set(digests)) < len(digests):
            message = f"split of {self.name}@{self.alias}: {', '.join(names)} are not different releases"
            raise BadInput(message)
        for arm in self.arms:
            _check_share(arm.share, arm.name, WHOLE - 1)
        if sum(arm.share for arm in self.arms) >= WHOLE:
            taken = percent(sum(arm.share for arm in self.arms))
            message = (
                f"split of {self.name}@{self.alias}: the arms take {taken} percent; "
                "leave some to the alias, or promote"
            )
            raise BadInput(message)
        if self.shadow is not None:
            _check_share(self.shadow.share, "shadow", WHOLE)
            cap = self.shadow.microusd_per_day
            if cap is not None and not 1 <= cap <= 10**15:
                message = f"shadow: {cap} micro-USD a day is not 1 to 10^15"
                raise BadInput(message)

    @property
    def rest(self) -> int:
        """The share of the alias's own release, in hundredths of a percent."""
        return WHOLE - sum(arm.share for arm in self.arms)


def percent(share: int) -> str:
    """
    A share as people write it.

    >>> percent(1000), percent(5), percent(3333)
    ('10', '0.05', '33.33')
    """
    return f"{share / 100:.2f}".rstrip("0").rstrip(".")


def share_of(text: str, what: str) -> int:
    """
    Percent as people write it, as a share.

    Raises:
        BadInput: not a number of percent with at most two digits behind the point.

    >>> share_of("12.5", "arm"), share_of("10%", "arm")
    (1250, 1000)
    """
    whole, _, rest = text.strip().removesuffix("%").strip().partition(".")
    if not (whole + rest).isdecimal() or not (whole + rest).isascii() or len(rest) > 2 or len(whole) > 3:
        message = f"{what}: {text!r} is not a number of percent, such as 10 or 0.5"
        raise BadInput(message)
    return int(whole or "0") * 100 + int(rest.ljust(2, "0"))


def _check_share(share: int, name: str, most: int) -> None:
    if not 1 <= share <= most:
        message = f"{name}: {percent(share)} percent is not 0.01 to {percent(most)}"
        raise BadInput(message)
