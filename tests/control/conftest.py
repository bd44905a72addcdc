"""A whole gateway over an empty workspace, and one over a registry with users and a release."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.settings import GatewaySettings
from registry import (
    access,
    accounts,
    audit,
    datasets,
    evaluations,
    evidence,
    promotion,
    prompts,
    releases,
    signing,
    suites,
)
from registry.clock import utc_now
from registry.entities import PromptContent, PromptMessage, UserRole, Version
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.fakes.server import serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROLES: tuple[UserRole, ...] = ("viewer", "editor", "promoter", "admin")


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("control")
    with (
        open_workspace(RegistrySettings(home=home)) as workspace,
        serving(Gateway(GatewaySettings(), workspace)) as running,
    ):
        yield running


@dataclass
class House:
    """A gateway that serves, the registry behind it, and a token for each role."""

    url: str
    workspace: Workspace
    tokens: dict[str, str]
    api_key: str

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, decoded body and headers."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", data, method=method, headers=headers)
        if token is not None:
            request.add_header("authorization", f"Bearer {token}")
        if data is not None:
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                raw, status, got = response.read(), response.status, dict(response.headers)
        except urllib.error.HTTPError as error:
            raw, status, got = error.read(), error.code, dict(error.headers)
        is_json = got.get("content-type", "").startswith("application/json")
        return status, json.loads(raw) if is_json and raw else raw, {k.lower(): v for k, v in got.items()}

    def head(self) -> int:
        with self.workspace.reading() as connection:
            found = audit.head(connection)
        return found.seq if found else 0

    def release(self, model: str, prompt: str = "support") -> Version:
        with self.workspace.writing() as connection:
            file = ReleaseFile(name="support", kind="chat", model=model, prompt=prompt)
            version = releases.create(connection, file, actor="eddy", now=NOW)
            promotion.nominate(connection, version, actor="eddy", now=NOW)
        return version

    def evidence(self, release: Version, baseline: Version | None = None) -> dict[str, Any]:
        """Passing evidence, filed."""
        now = utc_now() - timedelta(seconds=5)
        with self.workspace.writing() as connection:
            key = signing.load_or_create_key(self.workspace.settings.signing_key)
            statement = evidence.statement(
                release=release,
                suite=next(iter(_versions(connection, "suite"))),
                dataset=next(iter(_versions(connection, "dataset"))),
                baseline=baseline,
                gate_policy=None,
                verdict="pass",
                checks=[{"metric": "exact", "value": 0.5}],
                samples=40,
                started=now,
                now=now,
                valid_hours=24.0,
                evaluator={"name": "tests"},
            )
            envelope = evidence.sign(statement, key)
            evaluations.submit(connection, envelope, actor="eddy", now=now)
        return envelope


def _versions(connection: Any, kind: Any) -> list[Version]:
    from registry import versions

    return versions.listing(connection, kind)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with opened(tmp_path) as made:
        yield made


@contextlib.contextmanager
def opened(folder: Path, model: str = "openai/one", **settings: Any) -> Iterator[House]:
    """A house in *folder*, with one release of *model*; the gateway's further *settings*."""
    with open_workspace(RegistrySettings(home=folder / "home")) as workspace:
        key = signing.load_or_create_key(workspace.settings.signing_key)
        tokens: dict[str, str] = {}
        with workspace.writing() as connection:
            evidence.trust(connection, key.public_key(), actor="ann", now=NOW)
            content = PromptContent((PromptMessage("user", "{{ question }}"),), {"question": "text"})
            prompts.push(connection, "support", content, actor="eddy", now=NOW)
            rows = b'{"id":"1"}\n{"id":"2"}\n'
            dataset = datasets.push(connection, workspace.artifacts, "q", rows, actor="eddy", now=NOW)
            suites.push(connection, "quality", {"dataset": dataset.digest}, actor="eddy", now=NOW)
            names = {"admin": "ann", "promoter": "pia", "editor": "eddy", "viewer": "vera"}
            for role in reversed(ROLES):
                tokens[role] = access.add_user(connection, names[role], role, actor="ann", now=NOW)[1]
            tokens["revoked"] = access.add_user(connection, "rita", "admin", actor="ann", now=NOW)[1]
            access.revoke_user(connection, "rita", actor="ann", now=NOW)
            api_key = accounts.create_key(connection, "app", models=("support",), actor="ann", now=NOW)[1]
        made = House("", workspace, tokens, api_key)
        made.release(model)
        gateway = Gateway(GatewaySettings(refresh_interval_s=0.05, **settings), workspace)
        with serving(gateway) as made.url:
            yield made
