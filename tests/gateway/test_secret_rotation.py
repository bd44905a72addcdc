"""A key by reference is followed when its keeper changes it, and kept when its keeper is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.providers.rotating import RotatingKey
from gateway.settings import GatewaySettings, ReplicaSettings, UpstreamSettings
from registry import parse
from registry.errors import BadInput, SecretUnavailable
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.keepers import NAMESPACE, TOKEN, Keepers, keepers
from tests.fakes.stand import until
from tests.fakes.upstream import KEY, Upstream
from tests.fakes.whole import Whole, whole

REFERENCE = "vault:secret/data/vllm#key"


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keepers]:
    with keepers() as running:
        running.secrets["secret/data/vllm"] = {"key": KEY}
        monkeypatch.setenv("VAULT_ADDR", running.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        monkeypatch.setenv("VAULT_NAMESPACE", NAMESPACE)
        yield running


@pytest.fixture(params=["native", "aiohttp"])
def gate(keeper: Keepers, up: Upstream, tmp_path: Path, request: Any) -> Iterator[Whole]:
    place = UpstreamSettings(base_url=up.url, api_key=REFERENCE, http_client=request.param)
    settings = RegistrySettings(home=tmp_path / "home")
    with (
        open_workspace(settings) as workspace,
        whole(workspace, up, tmp_path, vllm=place, breaker_failures=1000) as running,
    ):
        yield running


def rotating(gate: Whole) -> RotatingKey:
    return gate.gateway.live._compiler.load._keys[REFERENCE]


def test_a_key_comes_from_its_keeper_once_and_is_then_kept(gate: Whole, keeper: Keepers) -> None:
    assert [gate.chat().status for _ in range(5)] == [200] * 5
    assert keeper.asked == ["/v1/secret/data/vllm"]
    keeper.down = True
    assert gate.chat().status == 200


def test_a_key_that_is_refused_is_read_anew_and_the_request_sent_again(gate: Whole, keeper: Keepers) -> None:
    assert gate.chat().status == 200
    key = rotating(gate)
    key._value = "sk-that-was-revoked"
    key._asked_s -= 10
    answers = [gate.chat(), gate.chat(stream=True)]
    assert [answer.status for answer in answers] == [200, 200]
    assert (key.known, len(keeper.asked)) == (KEY, 2)


def test_while_the_keeper_is_away_the_refusal_is_the_upstreams_and_the_last_value_stays(
    gate: Whole, keeper: Keepers, caplog: pytest.LogCaptureFixture
) -> None:
    assert gate.chat().status == 200
    key = rotating(gate)
    key._value = "sk-that-was-revoked"
    key._asked_s -= 10
    keeper.down = True
    refused = gate.chat()
    assert (refused.status, refused.body["error"]["code"]) == (502, "upstream_error")
    assert "its operator must correct them" in refused.body["error"]["message"]
    gate.chat()
    assert len(keeper.asked) == 2  # not more than every five seconds
    assert f"the last known value of {REFERENCE} is used" in caplog.text
    assert "revoked" not in caplog.text + str(refused.body)
    keeper.down = False
    key._asked_s -= 10
    assert gate.chat().status == 200


def test_an_old_key_is_renewed_in_the_background(gate: Whole, keeper: Keepers) -> None:
    assert gate.chat().status == 200
    rotating(gate)._asked_s -= 301
    keeper.secrets["secret/data/vllm"] = {"key": "sk-newer"}
    assert gate.chat().status == 200  # with the old one: nobody waits
    until(lambda: rotating(gate).known == "sk-newer")


def test_a_keeper_that_is_away_at_first_is_waited_for(keeper: Keepers, up: Upstream, tmp_path: Path) -> None:
    keeper.down = True
    place = UpstreamSettings(base_url=up.url, api_key=REFERENCE)
    with (
        open_workspace(RegistrySettings(home=tmp_path / "home")) as workspace,
        whole(workspace, up, tmp_path, vllm=place) as gate,
    ):
        waiting = gate.chat()
        assert (waiting.status, waiting.body["error"]["code"]) == (503, "release_not_ready")
        assert KEY not in str(waiting.body)
        keeper.down = False
        until(lambda: gate.chat().status == 200)


def test_many_refusals_at_once_ask_once() -> None:
    asked: list[int] = []

    def fetch() -> str:
        asked.append(1)
        return "new"

    async def run() -> list[bool]:
        key = RotatingKey("x:y", "old", fetch, least_s=0)
        found = await asyncio.gather(*(key.refused("old") for _ in range(50)))
        assert await key.refused("old")
        return found

    assert asyncio.run(run()) == [True] * 50
    assert len(asked) == 1


@pytest.mark.parametrize("error", [SecretUnavailable("away"), RuntimeError("sk-in-the-message")])
def test_whatever_a_keeper_raises_the_last_value_stays(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def fetch() -> str:
        raise error

    async def run() -> RotatingKey:
        key = RotatingKey("x:y", "old", fetch, least_s=0, fresh_s=0)
        assert not await key.refused("old")
        assert not await key.refused("old")
        return key

    assert asyncio.run(run()).known == "old"
    assert len([one for one in caplog.records if one.name == "gateway.providers.rotating"]) == 1
    assert "sk-in-the-message" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        "upstreams: {openai: {api_key: sk-literal-4711}}",
        "upstreams: {openai: {api_key: 4711471147114711}}",
        "upstreams: {openai: {api_key: 'env:A', api_key_env: sk-literal-4711}}",
        "upstreams: {vllm: {replicas: [{base_url: 'http://a', api_key: sk-literal-4711}]}}",
    ],
)
def test_a_secret_in_settings_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse.loads(wrong, GatewaySettings, source="sluicegate.yaml")
    assert "api_key" in refused.value.message
    assert "4711" not in refused.value.message


def test_a_replica_may_have_a_reference_of_its_own(tmp_path: Path) -> None:
    from gateway.controlplane.upstreams import options_for, reference_of

    replica = ReplicaSettings("http://b/v1", api_key="env:ITS_OWN")
    upstream = UpstreamSettings("http://a/v1", api_key="env:OF_ALL", replicas=(replica,))
    settings = GatewaySettings(upstreams={"vllm": upstream})
    environ = {"OF_ALL": "of-all", "ITS_OWN": "its-own"}
    keys = [options_for("vllm", settings, environ, home=tmp_path, replica=r).api_key for r in (None, replica)]
    assert keys == ["of-all", "its-own"]
    assert [reference_of("vllm", settings, r) for r in (None, replica)] == ["env:OF_ALL", "env:ITS_OWN"]
