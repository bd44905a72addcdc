"""Parts: made once, retried when they fail, closed when nothing needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.controlplane.parts import Parts
from gateway.dataplane.table import InFlight
from registry.errors import NotFound


class Log:
    """What was made and closed, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails = 0

    def maker(self, name: str) -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            await asyncio.sleep(0)
            if self.fails:
                self.fails -= 1
                raise NotFound(f"{name} is not at /secret/path")
            self.events.append(f"make {name}")
            return name

        return make

    async def close(self, value: Any) -> None:
        self.events.append(f"close {value}")

    def changed(self) -> None:
        self.events.append("changed")


def test_equal_keys_share_one_part() -> None:
    async def scenario() -> list[str]:
        log = Log()
        parts = Parts(log.changed, 60)
        first = parts.get(("index", "a"), log.maker("a"), log.close)
        second = parts.get(("index", "a"), log.maker("other"), log.close)
        assert first is second
        assert not first.loaded
        assert await first.wait() == "a"
        await parts.close()
        return log.events

    assert asyncio.run(scenario()) == ["make a", "changed", "close a"]


def test_an_unwanted_part_closes_after_its_grace_and_its_last_request() -> None:
    async def scenario() -> list[str]:
        log = Log()
        parts = Parts(log.changed, 0)
        part = parts.get(("index", "a"), log.maker("a"), log.close)
        user = InFlight()
        part.users.add(user)
        await part.wait()
        user.count = 1
        await parts.sweep(())
        await parts.sweep(())
        log.events.append("still open")
        user.count = 0
        await parts.sweep(())
        return log.events

    assert asyncio.run(scenario()) == ["make a", "changed", "still open", "close a"]


def test_a_part_wanted_again_stays() -> None:
    async def scenario() -> list[str]:
        log = Log()
        parts = Parts(log.changed, 0)
        part = parts.get(("index", "a"), log.maker("a"), log.close)
        await part.wait()
        await parts.sweep(())
        await parts.sweep([part.key])
        await parts.sweep(())
        assert parts.get(part.key, log.maker("again")) is part
        return log.events

    assert asyncio.run(scenario()) == ["make a", "changed"]


def test_a_failure_is_told_in_short_to_clients_and_in_full_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> tuple[str | None, str, str]:
        log = Log()
        log.fails = 1
        parts = Parts(log.changed, 60)
        part = parts.get(("index", "a"), log.maker("a"))
        await part.settled()
        problem, detail = part.problem, part.detail
        part.retry_at = 0
        await parts.sweep([part.key])
        assert part.task is not None
        await part.task
        return problem, detail, await part.wait()

    assert asyncio.run(scenario()) == (
        "its index cannot be loaded (not_found)",
        "index: not_found: a is not at /secret/path",
        "a",
    )
    assert "secret" in caplog.text
