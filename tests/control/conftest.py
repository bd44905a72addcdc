"""A whole gateway over an empty workspace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.app import Gateway
from gateway.settings import GatewaySettings
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.server import serving


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("control")
    with (
        open_workspace(RegistrySettings(home=home)) as workspace,
        serving(Gateway(GatewaySettings(), workspace)) as running,
    ):
        yield running
