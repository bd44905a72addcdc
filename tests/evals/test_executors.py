from __future__ import annotations

import asyncio

import pytest

from evals.executors.local import run_all


@pytest.mark.parametrize(("items", "concurrency"), [(0, 3), (2, 5), (20, 3), (20, 1)])
def test_every_item_is_done_once_and_never_too_many_at_once(items: int, concurrency: int) -> None:
    done: list[int] = []
    active = most = 0

    async def work(item: int) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        done.append(item)

    asyncio.run(run_all(range(items), work, concurrency=concurrency))
    assert (sorted(done), most) == (list(range(items)), min(items, concurrency))


def test_the_first_exception_ends_everything() -> None:
    started: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        if item == 1:
            raise RuntimeError
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError):
        asyncio.run(run_all(range(10), work, concurrency=3))
    assert started == [0, 1, 2]
