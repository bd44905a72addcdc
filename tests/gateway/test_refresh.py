"""The gateway follows a real registry: promotions, rollbacks, keys, outages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.controlplane.compile import LOADING, Compiler
from gateway.controlplane.parts import Parts
from gateway.dataplane.table import RouteTable
from gateway.settings import GatewaySettings, UpstreamSettings
from registry import accounts, snapshot
from registry.clock import utc_now
from registry.entities import Version
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import KEY, MODEL, Upstream
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]


@dataclass
class Running:
    """A whole gateway on a real registry."""

    house: House
    stand: Stand
    client: openai.OpenAI
    key_id: str

    def get(self, path: str) -> tuple[int, Any]:
        status, _, body = self.stand.post(path, b"", method="GET")
        return status, body

    def digest(self, model: str = "support") -> str | None:
        """What answers *model* now."""
        try:
            raw = self.client.chat.completions.with_raw_response.create(model=model, messages=USER)
        except openai.APIStatusError as error:
            return error.code
        return raw.headers["x-sluicegate-digest"]


def settings(up: Upstream) -> GatewaySettings:
    there = UpstreamSettings(base_url=up.url, api_key_env="UPSTREAM_KEY")
    return GatewaySettings(refresh_interval_s=0.02, upstreams={"vllm": there}, unused_grace_s=0)


@pytest.fixture
def running(house: House, up: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with house.workspace.writing() as connection:
        key, secret = accounts.create_key(connection, "app", now=utc_now())
    with serving(Gateway(settings(up), house.workspace)) as url:
        client = openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0, timeout=10)
        yield Running(house, Stand(url, up), client, key.id)
        client.close()


def promoted(house: House, model: str, baseline: Version | None = None) -> Version:
    version = house.release(model)
    house.evidence(version, baseline=baseline)
    house.promote()
    return version


def test_a_promotion_and_a_rollback_are_followed_without_restart(running: Running) -> None:
    house = running.house
    assert running.digest() == "model_not_found"
    first = house.release(f"vllm/{MODEL}")
    until(lambda: running.digest("support@candidate") == first.digest, 1)
    assert running.digest() == "model_not_found"
    house.evidence(first)
    house.promote()
    until(lambda: running.digest() == first.digest, 1)
    second = promoted(house, "vllm/other", first)
    until(lambda: running.digest() == "model_not_found", 1)  # the upstream does not know `other`
    assert running.digest(f"support@{first.digest}") == first.digest
    house.rollback()
    until(lambda: running.digest() == first.digest, 1)
    assert running.get("/health/ready")[1]["releases"] == [
        {"name": "support", "alias": alias, "digest": digest, "ready": True, "reason": None}
        for alias, digest in (("candidate", second.digest), ("production", first.digest))
    ]


def test_a_revoked_key_ends_within_a_second(running: Running) -> None:
    assert running.client.models.list().data == []
    with running.house.workspace.writing() as connection:
        accounts.revoke_key(connection, running.key_id, now=utc_now())

    def refused() -> bool:
        try:
            running.client.models.list()
        except openai.AuthenticationError:
            return True
        return False

    until(refused, 1)


def test_a_registry_that_cannot_be_read_changes_nothing_that_is_served(running: Running) -> None:
    first = promoted(running.house, f"vllm/{MODEL}")
    until(lambda: running.digest() == first.digest)
    _sql(running.house, "ALTER TABLE state RENAME TO away")
    until(lambda: running.get("/health/ready")[1]["registry"]["reachable"] is False)
    assert running.get("/health/ready")[0] == 200
    assert running.digest() == first.digest
    assert "sluicegate_registry_up 0.0" in _metrics(running)
    _sql(running.house, "ALTER TABLE away RENAME TO state")
    until(lambda: running.get("/health/ready")[1]["registry"]["reachable"] is True)
    assert "sluicegate_registry_up 1.0" in _metrics(running)


def test_a_release_that_cannot_be_loaded_is_a_503_and_says_why_to_the_operator(running: Running) -> None:
    promoted(running.house, "openai/gpt-4o")
    until(lambda: running.digest() == "release_not_ready")
    until(lambda: "set OPENAI_API_KEY" in running.get("/health/ready")[1]["releases"][0]["reason"])
    status, report = running.get("/health/ready")
    assert (status, report["ready"]) == (503, False)
    assert running.get("/health")[1]["status"] == "unhealthy"
    assert running.get("/v2/health/ready") == (503, {"live": True, "ready": False})
    with pytest.raises(openai.InternalServerError) as caught:
        running.client.chat.completions.create(model="support", messages=USER)
    assert "OPENAI_API_KEY" not in str(caught.value)


def test_models_called_directly_are_made_at_their_first_use(running: Running) -> None:
    answer = running.client.chat.completions.create(model=f"vllm/{MODEL}", messages=USER)
    assert answer.choices[0].message.content
    for model, status in (
        ("vllm/../etc", 404), ("llamacpp//etc/passwd", 404), ("llamacpp/models/x.gguf", 404),
        ("extractive/x", 404), ("nope/x", 404), ("hashing/x", 404), ("openai/gpt-4o", 503),
    ):  # fmt: skip
        with pytest.raises(openai.APIStatusError) as caught:
            running.client.chat.completions.create(model=model, messages=USER)
        assert (model, caught.value.status_code) == (model, status)


def test_a_local_embedder_answers_by_name(running: Running) -> None:
    answer = running.client.embeddings.create(model="hashing/ngrams", input=["a b", "a b"])
    assert answer.data[0].embedding == answer.data[1].embedding


def test_health_and_metrics_need_no_key_and_name_what_serves(running: Running) -> None:
    first = promoted(running.house, f"vllm/{MODEL}")
    until(lambda: running.digest() == first.digest)
    assert running.get("/health/live") == (200, {"live": True})
    status, body = running.get("/health")
    assert (status, body["status"], body["model_loaded"]) == (200, "healthy", False)
    metrics = _metrics(running)
    info = f'sluicegate_release_info{{alias="production",digest="{first.digest}",release="support"}} 1.0'
    assert info in metrics
    labels = 'error="",release="support",route="/v1/chat/completions",status="200"'
    assert f"sluicegate_requests_total{{{labels}}}" in metrics
    assert 'sluicegate_tokens_total{direction="prompt",release="support"} 7.0' in metrics
    status, headers, body = running.stand.post("/nothing", b"", method="GET")
    assert (status, body["error"]["code"]) == (404, "unknown_url")
    assert headers["x-request-id"].startswith("req_")


def test_an_alias_keeps_its_route_until_the_new_one_is_loaded(
    house: House, up: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    first = promoted(house, f"vllm/{MODEL}")

    async def scenario() -> None:
        parts = Parts(lambda: None, 60)
        compiler = Compiler(settings(up), house.workspace, parts)

        async def compiled(previous: RouteTable) -> RouteTable:
            with house.workspace.reading() as connection:
                found = snapshot.read(connection)
            return compiler.compile(found, previous).table

        empty = await compiled(RouteTable())
        assert empty.targets["support"].route.problem == LOADING
        await asyncio.gather(*(part.settled() for part in parts._parts.values()))
        table = await compiled(empty)
        assert table.targets["support"].route.problem is None
        second = promoted(house, "vllm/other", first)
        kept = await compiled(table)
        assert kept.targets["support"].route.digest == first.digest
        assert kept.targets[f"support@{second.digest}"].route.problem == LOADING
        await asyncio.gather(*(part.settled() for part in parts._parts.values()))
        assert (await compiled(kept)).targets["support"].route.digest == second.digest
        broken = promoted(house, "openai/gpt-4o", second)
        await compiled(kept)
        await asyncio.gather(*(part.settled() for part in parts._parts.values()))
        moved = (await compiled(kept)).targets["support"].route
        assert (moved.digest, moved.problem) == (
            broken.digest,
            "its provider cannot be loaded (bad_settings)",
        )
        await parts.close()
        compiler.close()

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asyncio.run(scenario())


def _metrics(running: Running) -> str:
    import urllib.request

    with urllib.request.urlopen(running.stand.url + "/metrics", timeout=5) as response:
        body: str = response.read().decode()
    return body


def _sql(house: House, statement: str) -> None:
    with house.workspace.writing() as connection:
        connection.execute(text(statement))
