"""Rules for every test: no network but loopback, no settings from outside."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import pytest
from hypothesis import settings

# The first example of a law may import what it is about; how long that takes says nothing of the law.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = address[0]
        loopback = host == "localhost" or _is_loopback(host)
        if not loopback:
            message = f"a test wanted to connect to {host}: only loopback is allowed"
            raise OSError(message)
    _connect(self, address)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture
def database_url() -> str:
    """Where a test's registry is kept: in a file of its own; the registry's tests have PostgreSQL too."""
    return ""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLUICEGATE_"):
            monkeypatch.delenv(name)
