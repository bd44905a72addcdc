"""A whole gateway before upstreams that fail: retries, replicas, fallbacks, and what it says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from gateway.app import Gateway
from gateway.settings import GatewaySettings, ReplicaSettings, UpstreamSettings
from registry import accounts, promotion, releases
from registry.clock import utc_now
from registry.entities import Version
from registry.errors import BadInput, BadSettings
from registry.releases import ReleaseFile
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import KEY, MODEL, Fault, Upstream, upstream
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]

FIRST, SECOND = f"vllm/{MODEL}", f"ollama/{MODEL}"
DOWN = Fault(status=503)


@dataclass
class Running:
    """A gateway whose `vllm` is at *one* (and, where asked, at *two*), and `ollama` at *two*."""

    house: House
    stand: Stand
    client: openai.OpenAI
    one: Upstream
    two: Upstream
    replicas: int

    def create(self, fallbacks: tuple[str, ...] = (), name: str = "support") -> Version:
        """A release of the first model, served under its alias candidate."""
        file = ReleaseFile(name=name, kind="chat", model=FIRST, prompt="support", fallbacks=fallbacks)
        with self.house.workspace.writing() as connection:
            version = releases.create(connection, file, actor="ann", now=self.house.now)
            promotion.nominate(connection, version, actor="ann", now=self.house.now)
        places = 1 + len(fallbacks) + self.replicas
        until(lambda: self.is_loaded(version) and len(self.states()) == places)
        return version

    def is_loaded(self, version: Version) -> bool:
        return any(
            entry["digest"] == version.digest and not (entry["reason"] or "").startswith("loading")
            for entry in self.health()["releases"]
        )

    def ask(self, model: str = "support@candidate") -> int | str:
        """200, or the error's code."""
        try:
            self.client.chat.completions.create(model=model, messages=USER)
        except openai.APIStatusError as error:
            return str(error.code)
        return 200

    def health(self) -> Any:
        return self.stand.post("/health/ready", b"", method="GET")[2]

    def states(self) -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in self.health()["upstreams"]}

    def seen(self) -> tuple[int, int]:
        return len(self.one.seen), len(self.two.seen)


Start = Callable[..., Running]


@pytest.fixture
def start(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    with ExitStack() as stack:
        one, two = stack.enter_context(upstream()), stack.enter_context(upstream())

        def run(*, replica: float | None = None, **changes: Any) -> Running:
            replicas = (ReplicaSettings(two.url, replica),) if replica is not None else ()
            settings = GatewaySettings(
                refresh_interval_s=0.02,
                breaker_failures=2,
                breaker_open_s=1e6,
                upstreams={
                    "vllm": UpstreamSettings(one.url, "UPSTREAM_KEY", replicas=replicas),
                    "ollama": UpstreamSettings(two.url, "UPSTREAM_KEY"),
                },
                **{"max_retries": 0, **changes},
            )
            with house.workspace.writing() as connection:
                _key, secret = accounts.create_key(connection, "app", now=utc_now())
            url = stack.enter_context(serving(Gateway(settings, house.workspace)))
            client = openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0, timeout=10)
            stack.callback(client.close)
            return Running(house, Stand(url, one), client, one, two, len(replicas))

        yield run


def test_the_fallback_answers_and_the_first_is_left_alone_once_it_failed_often(start: Start) -> None:
    running = start()
    version = running.create((SECOND,))
    running.one.faults.extend([DOWN] * 10)
    assert [running.ask() for _ in range(5)] == [200] * 5
    assert running.seen() == (2, 5)
    assert running.states() == {"vllm": "open", "ollama": "closed"}
    assert running.health()["releases"] == [
        {"name": "support", "alias": "candidate", "digest": version.digest, "ready": True, "reason": None}
    ]


def test_without_a_fallback_it_is_refused_at_once_and_shown_as_not_ready(start: Start) -> None:
    running = start()
    running.create()
    running.one.faults.extend([DOWN] * 10)
    assert [running.ask() for _ in range(4)] == ["upstream_error"] * 2 + ["circuit_open"] * 2
    assert running.seen() == (2, 0)
    health = running.health()
    assert [(r["ready"], r["reason"]) for r in health["releases"]] == [
        (False, "left alone after failures; one request will try it again")
    ]
    assert health["ready"] is True, "a gateway that serves other releases stays in service"
    assert [u for u in health["upstreams"] if u["name"] == "vllm"] == [
        {"name": "vllm", "model": FIRST, "state": "open", "in_flight": 0}
    ]


def test_one_failure_is_retried_and_nobody_notices(start: Start) -> None:
    running = start(max_retries=1)
    running.create()
    running.one.faults.append(DOWN)
    assert running.ask() == 200
    assert running.seen() == (2, 0)


def test_what_the_client_did_wrong_is_neither_retried_nor_answered_by_a_fallback(start: Start) -> None:
    running = start(max_retries=2)
    running.create((SECOND,))
    running.one.faults.extend([Fault(status=400, body=b'{"error":{"message":"no"}}')] * 4)
    assert [running.ask() for _ in range(4)] == ["upstream_error"] * 4
    assert running.seen() == (4, 0)
    assert running.states()["vllm"] == "closed"


@pytest.mark.parametrize(("weight", "seen"), [(1.0, (6, 6)), (3.0, (3, 9)), (0.0, (12, 0))])
def test_replicas_share_the_requests_by_weight(start: Start, weight: float, seen: tuple[int, int]) -> None:
    running = start(replica=weight)
    running.create()
    assert {running.ask() for _ in range(12)} == {200}
    assert running.seen() == seen


def test_a_replica_answers_while_the_other_place_is_down(start: Start) -> None:
    running = start(replica=1.0, max_retries=1)
    running.create()
    running.one.faults.extend([DOWN] * 20)
    assert {running.ask() for _ in range(10)} == {200}
    assert running.states() == {"vllm": "open", "vllm#2": "closed"}
    assert running.seen() == (2, 10)


def test_a_model_called_directly_falls_back_as_the_settings_say(start: Start) -> None:
    running = start(fallbacks={FIRST: (SECOND,)})
    running.one.faults.extend([DOWN] * 10)
    assert [running.ask(FIRST) for _ in range(5)] == [200] * 5
    assert running.seen() == (2, 5)
    assert running.states() == {"vllm": "open", "ollama": "closed"}


def test_a_new_release_does_not_make_a_broken_upstream_well(start: Start) -> None:
    running = start()
    running.create()
    running.one.faults.extend([DOWN] * 2)
    assert [running.ask() for _ in range(2)] == ["upstream_error"] * 2
    running.create(name="other")
    assert running.states() == {"vllm": "open"}
    assert running.ask("other@candidate") == "circuit_open"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"upstreams": {"llamacpp": UpstreamSettings(replicas=(ReplicaSettings("http://x"),))}},
            "remove them",
        ),
        ({"fallbacks": {FIRST: ("nonesuch/x",)}}, "'nonesuch/x' is not a provider/model"),
        ({"fallbacks": {"vllm": (FIRST,)}}, "'vllm' is not a provider/model"),
        ({"fallbacks": {FIRST: ("extractive/best-sentence",)}}, "is not a provider/model"),
        ({"fallbacks": {FIRST: (FIRST,)}}, "falls back to itself"),
        ({"fallbacks": {FIRST: (SECOND, SECOND)}}, "names a model twice"),
    ],
)
def test_settings_that_could_never_be_followed_are_refused_at_the_start(
    house: House, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadSettings, match=told):
        Gateway(GatewaySettings(**settings), house.workspace)


@pytest.mark.parametrize(
    ("fallbacks", "told"),
    [
        (("gpt",), "'gpt' is not another provider/model"),
        ((FIRST,), "is not another provider/model"),
        (("models/churn",), "is not another provider/model"),
        ((SECOND, SECOND), "names a model twice"),
    ],
)
def test_fallbacks_of_a_release_must_be_other_models(
    house: House, fallbacks: tuple[str, ...], told: str
) -> None:
    file = ReleaseFile(name="support", kind="chat", model=FIRST, prompt="support", fallbacks=fallbacks)
    with house.workspace.writing() as connection, pytest.raises(BadInput, match=told):
        releases.create(connection, file, actor="ann", now=house.now)


def test_a_prediction_release_has_no_fallbacks(house: House) -> None:
    file = ReleaseFile(name="churn", kind="prediction", model="models/churn", fallbacks=(FIRST,))
    with house.workspace.writing() as connection, pytest.raises(BadInput, match="fallbacks: a prediction"):
        releases.create(connection, file, actor="ann", now=house.now)


def test_what_may_answer_is_part_of_what_was_measured(house: House) -> None:
    digests = set()
    for fallbacks in ((), (SECOND,), (SECOND, "openai/x"), ("openai/x", SECOND)):
        file = ReleaseFile(name="support", kind="chat", model=FIRST, prompt="support", fallbacks=fallbacks)
        with house.workspace.writing() as connection:
            digests.add(releases.create(connection, file, actor="ann", now=house.now).digest)
    assert len(digests) == 4
