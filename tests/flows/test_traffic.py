"""Canary, A/B, shadow and blue-green through a whole gateway, by the registry's API alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import UpstreamSettings
from registry import prompts
from registry.client import RegistryClient
from registry.entities import PromptContent, PromptMessage, Version
from registry.errors import PromotionRefused
from tests.control.conftest import NOW, House, opened
from tests.fakes.stand import until
from tests.fakes.upstream import KEY, MODEL, Upstream, upstream


@pytest.fixture
def backend() -> Iterator[Upstream]:
    with upstream() as fake:
        yield fake


@pytest.fixture
def house(tmp_path: Path, backend: Upstream) -> Iterator[House]:
    key = tmp_path / "key"
    key.write_text(KEY)
    place = UpstreamSettings(base_url=backend.url, api_key_file=key)
    with opened(tmp_path, f"vllm/{MODEL}", upstreams={"vllm": place}) as made:
        with made.workspace.writing() as connection:
            kind = PromptContent((PromptMessage("user", "KINDLY {{ question }}"),), {"question": "text"})
            prompts.push(connection, "kind", kind, actor="eddy", now=NOW)
        yield made


@pytest.fixture
def registry(house: House) -> RegistryClient:
    return RegistryClient(house.url, house.tokens["promoter"])


@pytest.fixture
def base(house: House, registry: RegistryClient) -> Version:
    """The release in production, which answers."""
    from registry import versions
    from registry.refs import Ref

    with house.workspace.reading() as connection:
        version = versions.get(connection, "release", Ref("support", number=1))
    house.evidence(version)
    registry.promote("support:1")
    until(lambda: ask(house, "ann")[0] == 200)
    return version


def ask(house: House, user: str) -> tuple[int, dict[str, str]]:
    body = {"model": "support", "messages": [{"role": "user", "content": "why?"}], "user": user}
    status, _, headers = house.ask("POST", "/v1/chat/completions", body, house.api_key)
    return status, headers


def arms(house: House, users: int = 40) -> dict[str, str]:
    """User → arm."""
    found = {}
    for user in map(str, range(users)):
        status, headers = ask(house, user)
        assert status == 200
        found[user] = headers.get("x-sluicegate-arm", "")
    return found


def serves(house: House, arm: str) -> bool:
    return arm in Counter(arms(house).values())


def test_a_canary_is_let_in_on_evidence_grows_and_becomes_production(
    house: House, registry: RegistryClient, base: Version, backend: Upstream
) -> None:
    second = house.release(f"vllm/{MODEL}", "kind")
    with pytest.raises(PromotionRefused):
        registry.split("support", arms={"support@candidate": 30})
    assert set(arms(house).values()) == {""}
    house.evidence(second, base)
    registry.split("support", arms={"support@candidate": 30}, reason="first users")
    until(lambda: serves(house, "candidate"))
    before = arms(house)
    assert 2 <= Counter(before.values())["candidate"] <= 25
    backend.seen.clear()
    arms(house)
    kindly = sum(seen.body["messages"][0]["content"].startswith("KINDLY") for seen in backend.seen)
    assert kindly == Counter(before.values())["candidate"]

    registry.split("support", arms={"support@candidate": 80}, reason="no complaints")
    until(lambda: Counter(arms(house).values())["candidate"] > Counter(before.values())["candidate"])
    after = arms(house)
    assert all(after[user] == "candidate" for user, arm in before.items() if arm == "candidate")

    registry.promote("support@candidate", reason="all of it")
    until(lambda: set(arms(house).values()) == {""})
    assert {ask(house, "x")[1]["x-sluicegate-digest"]} == {second.digest}
    assert registry.splits("support") == {"splits": []}
    registry.rollback("support", reason="the way back")
    until(lambda: ask(house, "x")[1]["x-sluicegate-digest"] == base.digest)


def test_ending_a_split_gives_everything_back(house: House, registry: RegistryClient, base: Version) -> None:
    house.evidence(house.release(f"vllm/{MODEL}", "kind"), base)
    registry.split("support", arms={"support@candidate": 50})
    until(lambda: serves(house, "candidate"))
    assert registry.end_split("support", reason="bad answers")["ended"] is True
    until(lambda: not serves(house, "candidate"))
    assert registry.end_split("support")["ended"] is False


def test_a_shadow_needs_no_evidence_and_answers_nobody(
    house: House, registry: RegistryClient, base: Version, backend: Upstream
) -> None:
    house.release(f"vllm/{MODEL}", "kind")  # without evidence: it answers nobody
    registry.split("support", shadow={"ref": "support@candidate", "percent": 100.0})
    until(lambda: serves(house, "production"))
    shadows = "sluicegate_arm_requests_total{" + 'alias="production",arm="shadow",outcome="ok"'
    until(lambda: arms(house, 1) and shadows in metrics(house))
    kindly = [seen for seen in backend.seen if str(seen.body["messages"][0]["content"]).startswith("KINDLY")]
    assert kindly
    assert all("user" not in seen.body for seen in kindly)
    usage = house.ask("GET", "/metrics")[1].decode()
    assert 'arm="production",outcome="error"' not in usage


def metrics(house: House) -> str:
    found: Any = house.ask("GET", "/metrics")[1]
    return str(found.decode())
