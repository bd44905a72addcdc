"""One relay and one upstream for all tests that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.dataplane.table import Route, Target
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, ListRetriever, Threshold, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Upstream, upstream


@pytest.fixture(scope="session")
def up() -> Iterator[Upstream]:
    with upstream() as fake:
        yield fake


@pytest.fixture(scope="session")
def running_stand(up: Upstream) -> Iterator[Stand]:
    provider = provider_at(up.url, idle_timeout_s=0.5, first_byte_timeout_s=0.5)
    routes = {
        "support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider),
        "wrong": Route(name="wrong", digest=DIGEST, model="nonesuch", provider=provider),
        "down": Route(name="down", digest=DIGEST, model=MODEL, provider=provider_at("http://127.0.0.1:9/v1")),
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
        "indexed": Route(
            name="indexed", digest=DIGEST, model=MODEL, provider=provider, retriever=ListRetriever(())
        ),
        "loading": Route(name="loading", digest=DIGEST, problem="its parts are loading"),
    }
    direct = Target(Route(name="vllm/*", model=MODEL, provider=provider))
    sources = FixedSources(table_of(routes), directs={"vllm/tiny": direct})
    stand = Stand("", up)
    with serving(DataPlane(sources, stand.records.append)) as url:
        stand.url = url
        stand.routes = [target.route for target in sources.table.targets.values()]
        yield stand
        stand.client.close()


@pytest.fixture
def stand(running_stand: Stand) -> Stand:
    running_stand.up.faults.clear()
    running_stand.up.seen.clear()
    running_stand.up.chunk_bytes = None
    running_stand.up.answer = "forty two"
    running_stand.records.clear()
    running_stand.heal()
    return running_stand
