from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from evals.pace import Pace


def test_no_more_calls_run_at_once_than_are_allowed_and_all_of_them_end() -> None:
    async def go() -> tuple[int, int]:
        pace, most, done = Pace(3), 0, 0

        async def call() -> None:
            nonlocal most, done
            async with pace.slot():
                most = max(most, pace.running)
                await asyncio.sleep(0)
                done += 1

        await asyncio.gather(*(call() for _ in range(50)))
        return most, done

    assert asyncio.run(go()) == (3, 50)


def test_a_429_halves_the_allowance_once_for_the_calls_that_ran_together() -> None:
    async def go() -> list[int]:
        pace = Pace(16)
        seen = []
        async with pace.slot() as first, pace.slot() as second:
            pace.slow(first)
            seen.append(pace.allowed)
            pace.slow(second)
            seen.append(pace.allowed)
        async with pace.slot() as later:
            pace.slow(later)
            seen.append(pace.allowed)
        return seen

    assert asyncio.run(go()) == [8, 8, 4]


def test_successes_raise_the_allowance_one_by_one_up_to_the_most() -> None:
    pace = Pace(4)
    pace.slow(1)
    assert pace.allowed == 2
    for _ in range(2):
        pace.good()
    assert pace.allowed == 3
    for _ in range(100):
        pace.good()
    assert pace.allowed == 4


def test_a_call_that_is_cancelled_while_it_waits_leaves_its_turn_to_others() -> None:
    async def go() -> bool:
        pace = Pace(1)
        async with pace.slot():
            waiting = asyncio.create_task(_take(pace))
            behind = asyncio.create_task(_take(pace))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return await asyncio.wait_for(behind, 5)

    assert asyncio.run(go())


def test_a_call_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    async def go() -> bool:
        pace = Pace(1)
        async with pace.slot():
            waiting = asyncio.create_task(_take(pace))
            behind = asyncio.create_task(_take(pace))
            await asyncio.sleep(0)
        waiting.cancel()  # woken, and not yet run
        await asyncio.gather(waiting, return_exceptions=True)
        return await asyncio.wait_for(behind, 5)

    assert asyncio.run(go())


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=200))
def test_the_allowance_stays_between_one_and_the_most(most: int, told: list[bool]) -> None:
    async def go() -> None:
        pace = Pace(most)
        for good in told:
            async with pace.slot() as ticket:
                if good:
                    pace.good()
                else:
                    pace.slow(ticket)
            assert 1 <= pace.allowed <= most

    asyncio.run(go())


async def _take(pace: Pace) -> bool:
    async with pace.slot():
        return True
