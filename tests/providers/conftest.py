"""One gateway before each provider's fake, for all tests that ask it things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.controlplane.upstreams import options_for
from gateway.dataplane.balance import Balance
from gateway.dataplane.balance import Upstream as Place
from gateway.dataplane.table import Route
from gateway.providers.base import Provider
from gateway.settings import GatewaySettings, UpstreamSettings
from registry import plugins
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.providers.server import TOKEN_PATH, Fake, serving_fake
from tests.providers.wires import KEY, WIRES


@dataclass
class Contract:
    """
    A gateway before a fake: `once` asks once, `twice` again at another place where that makes sense, and
    `stranger` has a key that the provider does not know.
    """

    fake: Fake
    stand: Stand


@pytest.fixture(scope="module", params=sorted(WIRES))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    name = request.param
    with ExitStack() as stack:
        fake = stack.enter_context(serving_fake(name))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, value in fake.wire.environment.items():
            patch.setenv(variable, value)
        if name == "vertex_ai":
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account(fake.root, tmp_path_factory)))
        routes = {
            "once": route(fake, [made(fake, KEY)], max_retries=0),
            "twice": route(fake, [made(fake, KEY)] * 2, max_retries=1),
            "stranger": route(fake, [made(fake, "kB0wrongwrongwrongwrong")], max_retries=0),
        }
        stand = Stand("", cast("Any", fake))
        plane = DataPlane(FixedSources(table_of(routes)), stand.records.append)
        stand.routes = list(routes.values())
        stand.url = stack.enter_context(serving(plane))
        yield Contract(fake, stand)
        stand.client.close()


@pytest.fixture
def contract(running: Contract) -> Contract:
    running.fake.seen.clear()
    running.fake.refused.clear()
    running.fake.scripts.clear()
    running.fake.piece = None
    running.stand.records.clear()
    running.stand.heal()
    return running


def made(fake: Fake, key: str) -> Provider:
    """The provider as settings and environment make it."""
    name = fake.provider
    settings = GatewaySettings(
        upstreams={name: UpstreamSettings(base_url=fake.root + fake.wire.base, api_key_env="THE_KEY")},
        first_byte_timeout_s=20,
        idle_timeout_s=5,
    )
    in_cloud = bool(fake.wire.environment)
    environ = {"THE_KEY": "" if in_cloud else key}
    build = cast("Any", plugins.load("providers", name))
    provider: Provider = build(fake.wire.model, options_for(name, settings, environ, home=Path("unused")))
    asyncio.run(provider.start())
    return provider


def route(fake: Fake, providers: list[Provider], max_retries: int) -> Route:
    """A release on *providers*, of which one is asked after the other."""
    named = f"{fake.provider}/{fake.wire.model}"
    places = [Place(f"place {n}", one, fake.wire.model, named) for n, one in enumerate(providers)]
    balance = Balance([places], max_retries=max_retries)
    return Route(name="r", digest=DIGEST, model=fake.wire.model, provider=providers[0], balance=balance)


def account(root: str, folder: pytest.TempPathFactory) -> Path:
    """A service account of Google's whose tokens the fake hands out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder.mktemp("google") / "account.json"
    facts = {
        "type": "service_account",
        "project_id": "some-project",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "gateway@some-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": root + TOKEN_PATH,
    }
    path.write_text(json.dumps(facts))
    return path
