"""Gateways of two workers each on one registry: they follow it together, and outlive it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection

from registry import accounts, promotion, releases
from registry.clock import utc_now
from registry.entities import Version
from registry.refs import Ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.fakes.postgres import postgres
from tests.fakes.stand import USER, until
from tests.fakes.upstream import KEY, MODEL, upstream
from tests.gateway.test_workers import fetch, gateway, states
from tests.registry.conftest import House, house

__all__ = ["house"]
pytestmark = pytest.mark.e2e
LINES = 16
"""Kept connections to each gateway: that all of them meet one of two workers happens once in 2¹⁵."""
MOVES = 5
OUTAGE_S = 3.0
BODY = json.dumps({"model": "support", "messages": USER})


@dataclass
class Registry:
    """The database that gateways follow, and how it goes away and comes back."""

    settings: RegistrySettings
    replicas: int
    lose: Callable[[], None]
    restore: Callable[[], None]


@dataclass
class Fleet:
    """Gateways on one registry, and a key that all of them accept."""

    house: House
    urls: list[str]
    key: str
    made: int = 0

    def digest(self, line: http.client.HTTPConnection) -> str | None:
        """The release that answers on this connection; None when none does."""
        line.request("POST", "/v1/chat/completions", BODY, {"authorization": f"Bearer {self.key}"})
        response = line.getresponse()
        response.read()
        return response.getheader("x-sluicegate-digest") if response.status == 200 else None

    def everywhere(self) -> set[str | None]:
        """What answers on many fresh connections to every gateway."""
        found: set[str | None] = set()
        for url in self.urls * LINES:
            with contextlib.closing(_connect(url)) as line:
                found.add(self.digest(line))
        return found

    def move(self) -> tuple[str, float]:
        """Promote a release nobody has seen; its digest and the time at which that was committed."""
        house, self.made = self.house, self.made + 1
        house.now = utc_now()
        file = ReleaseFile("support", "chat", f"vllm/{MODEL}", parameters={"seed": self.made})
        with house.workspace.writing() as connection:
            before = _production(connection)
            version = releases.create(connection, file, actor="ann", now=house.now)
            promotion.nominate(connection, version, actor="ann", now=house.now)
        house.evidence(version, baseline=before)
        house.promote(now=utc_now())
        return version.digest, time.monotonic()

    def follow(self) -> float:
        """Milliseconds from the commit of a move until the last worker of the last gateway serves it."""
        with ExitStack() as stack:
            pending = [stack.enter_context(contextlib.closing(_connect(url))) for url in self.urls * LINES]
            for line in pending:
                self.digest(line)
            digest, committed = self.move()
            last = committed
            while pending:
                assert last < committed + 20, "a worker does not follow"
                pending = [line for line in pending if self.digest(line) != digest]
                last = time.monotonic()
        assert self.everywhere() == {digest}
        return (last - committed) * 1000

    def reachable(self) -> list[bool]:
        """What each gateway says of the registry."""
        return [json.loads(fetch(url, "/health/ready")[1])["registry"]["reachable"] for url in self.urls]

    def pids(self) -> list[int]:
        """Every worker."""
        return [state["pid"] for url in self.urls for state in states(url)]

    def chatted(self) -> list[int]:
        """For each gateway, how many of its workers have answered chats."""
        texts = [fetch(url, "/metrics")[1].decode() for url in self.urls]
        return [
            len({line.partition('worker="')[2][:1] for line in text.splitlines()
                 if line.startswith("sluicegate_requests_total{")
                 and 'route="/v1/chat/completions"' in line and 'status="200"' in line})
            for text in texts
        ]  # fmt: skip


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)


def _production(connection: Connection) -> Version | None:
    state = releases.alias_state(connection, "support", "production")
    return releases.resolve(connection, Ref("support", digest=state.digest)) if state else None


@pytest.fixture(params=["postgresql", "sqlite"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    home = tmp_path / "home"
    if request.param == "sqlite":
        database, away = home / "registry.db", tmp_path / "away"

        def lose() -> None:
            away.mkdir()
            for file in home.glob("registry.db*"):
                file.rename(away / file.name)

        def restore() -> None:
            for file in away.iterdir():
                file.rename(database.with_name(file.name))

        yield Registry(RegistrySettings(home=home), 1, lose, restore)
        return
    with postgres(durable=True) as server:
        settings = RegistrySettings(
            home=home, database_url=server.url(server.create()), artifacts=str(tmp_path / "artifacts")
        )
        yield Registry(settings, 2, server.kill, server.start)


@pytest.fixture
def workspace(registry: Registry) -> Iterator[Workspace]:
    with open_workspace(registry.settings) as opened:
        yield opened


@pytest.fixture
def fleet(registry: Registry, house: House, tmp_path: Path) -> Iterator[Fleet]:
    with house.workspace.writing() as connection:
        _, key = accounts.create_key(connection, "app", now=utc_now())
    fleet = Fleet(house, [], key)
    fleet.move()
    with ExitStack() as stack:
        up = stack.enter_context(upstream())
        shared = {
            "SLUICEGATE_REGISTRY__DATABASE_URL": registry.settings.url,
            "SLUICEGATE_REGISTRY__ARTIFACTS": registry.settings.artifact_store,
            "SLUICEGATE_GATEWAY__UPSTREAMS": json.dumps({"vllm": {"base_url": up.url, "api_key_env": "UP"}}),
            "UP": KEY,
        }
        for number in range(registry.replicas):
            home = tmp_path / f"replica-{number}" / "home"
            _, ready = stack.enter_context(gateway(home, **shared))
            fleet.urls.append(ready["url"])
        for url in fleet.urls:
            until(lambda url=url: fetch(url, "/health/ready")[0] == 200, 20)  # type: ignore[misc]
        yield fleet


def test_every_worker_follows_every_move_within_a_second_and_outlives_the_registry(
    fleet: Fleet, registry: Registry, record_property: Callable[[str, object], None]
) -> None:
    pids = fleet.pids()
    assert len(set(pids)) == 2 * registry.replicas
    followed_ms = [fleet.follow() for _ in range(MOVES)]
    print("followed within", " ".join(f"{ms:.0f}" for ms in followed_ms), "ms")
    record_property("followed_ms", followed_ms)
    assert max(followed_ms) < 1000
    assert fleet.chatted() == [2] * registry.replicas
    served = fleet.everywhere()

    registry.lose()
    until(lambda: not any(fleet.reachable()))
    over = time.monotonic() + OUTAGE_S
    while time.monotonic() < over:
        assert fleet.everywhere() == served
        threading.Event().wait(0.2)

    registry.restore()
    until(lambda: all(fleet.reachable()), 20)
    again_ms = fleet.follow()
    print(f"after the outage within {again_ms:.0f} ms")
    assert again_ms < 1000
    assert sorted(fleet.pids()) == sorted(pids)
    assert fleet.house.problems() == []
