"""A sample that keeps the shares of its strata, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from registry.errors import BadInput

Stratum = tuple[str, ...]


def allocate(sizes: Mapping[Stratum, int], n: int) -> dict[Stratum, int]:
    """
    How many of *n* each stratum gives: its share, rounded by largest remainders, and at least one where *n*
    allows, at the cost of the largest.

    Never more than a stratum has; all of it when *n* is at least the total.

    Source: proportional allocation, Cochran 1977, Sampling Techniques, 5.5; Hamilton's method for the rest.

    >>> allocate({("a",): 90, ("b",): 9, ("c",): 1}, 10)
    {('a',): 8, ('b',): 1, ('c',): 1}
    """
    total = sum(sizes.values())
    if n >= total:
        return dict(sizes)
    shares = {name: divmod(n * size, total) for name, size in sizes.items()}
    given = {name: whole for name, (whole, _) in shares.items()}
    order = sorted(sizes, key=lambda name: (-shares[name][1], name))
    for name in order[: n - sum(given.values())]:
        given[name] += 1
    if n >= len(sizes):
        for name in sorted(name for name, count in given.items() if not count):
            giver = max(given, key=lambda other: (given[other], sizes[other], other))
            given[giver] -= 1
            given[name] = 1
    return given


def choose(ids: Sequence[str], strata: Sequence[Stratum], n: int, *, seed: str = "") -> list[int]:
    """
    The places of *n* rows, in their order; the same for the same ids, strata and *seed*.

    Within a stratum those with the smallest keyed hash of their id are taken, so that a row's place in the
    file does not matter, and a larger sample of the same stratum holds the smaller one.

    Raises:
        BadInput: *n* is below 1.
    """
    if n < 1:
        raise BadInput(f"sample is {n}; it must be 1 or more")
    key = hashlib.sha256(seed.encode()).digest()
    members: dict[Stratum, list[tuple[bytes, int]]] = {}
    for place, (identity, stratum) in enumerate(zip(ids, strata, strict=True)):
        rank = hashlib.blake2b(identity.encode("utf-8", "replace"), key=key, digest_size=16).digest()
        members.setdefault(stratum, []).append((rank, place))
    given = allocate({name: len(members[name]) for name in sorted(members)}, n)
    return sorted(place for name, count in given.items() for _, place in sorted(members[name])[:count])
