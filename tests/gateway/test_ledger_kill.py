"""A gateway that is killed forgets nothing that a client saw answered."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest

from registry import traffic
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.stand import USER, until
from tests.fakes.upstream import KEY, MODEL, Upstream
from tests.gateway.test_serve import gateway, process

SINCE = datetime(2020, 1, 1, tzinfo=UTC)
PRICED = f"vllm/{MODEL}"


@contextlib.contextmanager
def serving(home: Path, up: Upstream) -> Iterator[tuple[subprocess.Popen[str], str]]:
    upstreams = {"vllm": {"base_url": up.url, "api_key_env": "UP"}}
    with process(home, SLUICEGATE_GATEWAY__UPSTREAMS=json.dumps(upstreams), UP=KEY) as (child, ready):
        yield child, ready["url"] + "/v1"


def client_of(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=10)


def ask(client: openai.OpenAI) -> str:
    """The id of a request that was answered."""
    made = client.chat.completions.with_raw_response.create(model=PRICED, messages=USER)
    assert made.parse().choices
    return made.headers["x-request-id"]


def stored(home: Path, ids: list[str]) -> tuple[set[str], int, int]:
    """Those of *ids* that are stored; how many requests are, and what they cost."""
    with open_workspace(RegistrySettings(home=home)) as workspace, workspace.reading() as connection:
        (row,) = traffic.usage(connection, by="model", since=SINCE) or [{"requests": 0, "cost_microusd": 0}]
        return traffic.stored(connection, ids), row["requests"], row["cost_microusd"]


def test_every_request_that_was_answered_before_a_kill_9_is_stored_once(tmp_path: Path, up: Upstream) -> None:
    key = gateway(tmp_path, "keys", "create", "--name", "app")["key"]
    gateway(tmp_path, "prices", "set", PRICED, "--input", "1", "--output", "2")
    answered: list[str] = []
    sent = [0]
    with serving(tmp_path, up) as (child, url):

        def work() -> None:
            with client_of(url, key) as client, contextlib.suppress(openai.APIConnectionError):
                while True:
                    sent[0] += 1
                    answered.append(ask(client))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) >= 60, 20)
        child.kill()
        for thread in threads:
            thread.join(10)
    with serving(tmp_path, up) as (child, url):
        until(lambda: not list((tmp_path / "usage").glob("*-*")))
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    known, requests, cost = stored(tmp_path, answered)
    assert known == set(answered)
    assert len(answered) <= requests <= sent[0]
    spent = gateway(tmp_path, "usage", "--by", "key")
    assert json.dumps(spent).count(f'"cost_microusd": {cost}') >= 1


def test_what_was_spent_before_a_kill_9_still_counts_against_the_budget(tmp_path: Path, up: Upstream) -> None:
    gateway(tmp_path, "prices", "set", PRICED, "--input", "1000", "--output", "0")
    key = gateway(tmp_path, "keys", "create", "--name", "app", "--budget-usd", "0.1")["key"]
    for _ in range(2):  # the second process goes on where the first one was killed
        with serving(tmp_path, up) as (child, url), client_of(url, key) as client:
            for _ in range(6):
                ask(client)
            child.kill()
    with serving(tmp_path, up) as (child, url):
        refused = pytest.raises(openai.RateLimitError, match=r"0\.084 USD are spent or reserved")
        with client_of(url, key) as client, refused:
            ask(client)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert stored(tmp_path, []) == (set(), 12, 84_000)
