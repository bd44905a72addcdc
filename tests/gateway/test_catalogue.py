"""What `/v1/models` says of each model beyond OpenAI's own fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.dataplane.table import Prices, Route
from registry.clock import from_text
from registry.entities import Price
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, Scripted, Threshold, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import Upstream

OLD, NEW, LATER = (from_text(f"{year}-01-01T00:00:00.000000Z") for year in (2020, 2021, 2999))


@dataclass
class Sized(Scripted):
    """A provider that knows how long a conversation may be."""

    def status(self) -> dict[str, Any]:
        return {"ready": True, "context_tokens": 2048}


@pytest.fixture(scope="module")
def shop() -> Iterator[Stand]:
    routes = {
        "priced": Route(name="priced", digest=DIGEST, model="tiny", provider=Scripted(None)),
        "matched": Route(name="matched", digest=DIGEST, model="other", provider=Scripted(None)),
        "sized": Route(name="sized", digest=DIGEST, model="unpriced", provider=Sized(None)),
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
    }
    prices = (
        Price("vllm/tiny", LATER, 9, 9),
        Price("vllm/tiny", NEW, 150_000, 600_000, 75_000),
        Price("vllm/tiny", OLD, 1, 1),
    )
    table = table_of(
        routes,
        prices=Prices({"vllm/tiny": prices}, (("vllm/o*", (Price("vllm/o*", OLD, 7, 8),)),)),
    )
    with serving(DataPlane(FixedSources(table), list[object]().append)) as url:
        stand = Stand(url, Upstream())
        yield stand
        stand.client.close()


def entry(stand: Stand, name: str) -> dict[str, Any]:
    """The entry of *name*, which must be the same in the list and by itself."""
    one = stand.client.models.retrieve(name).to_dict()
    assert one in [model.to_dict() for model in stand.client.models.list()]
    return one


OPENAIS = {"object": "model", "created": 1_700_000_000, "owned_by": "sluicegate"}


def test_a_chat_release_tells_its_digest_and_what_its_model_costs_now(shop: Stand) -> None:
    assert entry(shop, "priced") == OPENAIS | {
        "id": "priced",
        "kind": "chat",
        "digest": DIGEST,
        "ready": True,
        "price": {"input_picousd": 150_000, "output_picousd": 600_000, "cached_input_picousd": 75_000},
    }


def test_a_price_may_come_from_a_pattern_or_be_unknown(shop: Stand) -> None:
    assert entry(shop, "matched")["price"] == {
        "input_picousd": 7,
        "output_picousd": 8,
        "cached_input_picousd": None,
    }
    assert entry(shop, "sized")["price"] is None


def test_the_context_is_told_where_the_provider_knows_it(shop: Stand) -> None:
    assert entry(shop, "sized")["context_tokens"] == 2048
    assert "context_tokens" not in entry(shop, "priced")


def test_a_prediction_release_has_neither(shop: Stand) -> None:
    assert entry(shop, "churn") == OPENAIS | {
        "id": "churn",
        "kind": "prediction",
        "digest": DIGEST,
        "ready": True,
    }
