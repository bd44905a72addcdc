"""The gateway before a strict upstream, for official clients to talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.stand import Stand
from tests.gateway.conftest import running_stand, stand, up

__all__ = ["clean", "running_stand", "stand", "up"]


@pytest.fixture(autouse=True)
def clean(stand: Stand) -> Iterator[None]:
    """No test hears of the answers that another one ordered."""
    yield
    stand.up.message = {}
