"""`kill -9` of the real gateway process in mid-stream while promotions run: what is there afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from registry import accounts
from registry.clock import utc_now
from tests.fakes.stand import USER, until
from tests.fakes.upstream import KEY, MODEL, Fault, Upstream, upstream
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as fake:
        yield fake


@contextmanager
def gateway(house: House, up: Upstream) -> Iterator[tuple[str, int]]:
    """A `gateway serve` process on this registry: its URL and process id."""
    upstreams = {"openai": {"base_url": up.url, "api_key_env": "UPSTREAM_KEY"}}
    environment = {
        **os.environ,
        "SLUICEGATE_REGISTRY__HOME": str(house.workspace.settings.home),
        "SLUICEGATE_GATEWAY__UPSTREAMS": json.dumps(upstreams),
        "UPSTREAM_KEY": KEY,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", "from gateway.cli import main; main()", "serve", "--port", "0", "--json"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            started = json.loads(child.stdout.readline())
            yield started["url"], started["pid"]
        finally:
            child.kill()


def test_a_gateway_killed_in_mid_stream_and_mid_promotion_comes_back_whole(
    house: House, up: Upstream
) -> None:
    house.now = utc_now()
    first = house.release(f"openai/{MODEL}")
    house.evidence(first)
    house.promote()
    with house.workspace.writing() as connection:
        _, key = accounts.create_key(connection, "app", now=house.now)
    other = house.release("openai/other")
    house.evidence(other, baseline=first)
    home = house.workspace.settings.home
    promoter = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/faults/promoter.py"), str(home), f"support@{other.digest}"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with promoter, gateway(house, up) as (url, pid):
        assert promoter.stdout is not None
        model = f"support@{first.digest}"
        with _client(url, key) as client:
            until(lambda: _answers(client, model), 10)
            up.faults.append(Fault(stall_after=500))
            stream = client.chat.completions.create(model=model, messages=USER, stream=True)
            assert next(iter(stream)).choices
            assert promoter.stdout.readline()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
                list(stream)
        promoter.kill()
    assert up.noticed_a_disconnect()
    assert house.problems() == []
    assert house.production() in {first.digest, other.digest}
    house.now = utc_now()
    house.evidence(other, baseline=first)
    house.promote(f"support@{other.digest}", now=utc_now())
    house.rollback()
    with gateway(house, up) as (url, _), _client(url, key) as client:
        until(lambda: _answers(client, "support"), 10)
        raw = client.chat.completions.with_raw_response.create(model="support", messages=USER)
        assert raw.headers["x-sluicegate-digest"] == house.production() == first.digest
        assert raw.parse().choices[0].message.content == up.answer


def _client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


def _answers(client: openai.OpenAI, model: str) -> bool:
    """Whether the release is loaded; while it is not, the gateway says 503."""
    try:
        client.chat.completions.create(model=model, messages=USER)
    except openai.InternalServerError as error:
        assert error.status_code == 503
        return False
    return True
