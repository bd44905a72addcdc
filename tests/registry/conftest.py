from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import (
    datasets,
    db,
    evaluations,
    evidence,
    policies,
    promotion,
    prompts,
    releases,
    signing,
    suites,
)
from registry.entities import AliasMove, PromptContent, PromptMessage, Verdict, Version
from registry.refs import parse_ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.fakes.postgres import Postgres, postgres

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMPT = PromptContent((PromptMessage("user", "{{ question }}"),), {"question": "text"})


@dataclass
class House:
    """A registry with a suite, a dataset and a trusted key, and short words for what tests do."""

    workspace: Workspace
    key: Ed25519PrivateKey
    suite: Version
    dataset: Version
    now: datetime = NOW

    def release(self, model: str = "openai/one", name: str = "support") -> Version:
        file = ReleaseFile(name=name, kind="chat", model=model, prompt="support")
        with self.workspace.writing() as connection:
            version = releases.create(connection, file, actor="ann", now=self.now)
            promotion.nominate(connection, version, actor="ann", now=self.now)
        return version

    def evidence(
        self,
        release: Version,
        *,
        baseline: Version | None = None,
        verdict: Verdict = "pass",
        key: Ed25519PrivateKey | None = None,
        file: bool = True,
        valid_hours: float = 24.0,
    ) -> dict[str, Any]:
        with self.workspace.writing() as connection:
            gate, _ = policies.gate_for(connection, release.name)
            statement = evidence.statement(
                release=release,
                suite=self.suite,
                dataset=self.dataset,
                baseline=baseline,
                gate_policy=gate,
                verdict=verdict,
                checks=[{"metric": "exact", "value": 0.5}],
                samples=40,
                started=self.now,
                now=self.now,
                valid_hours=valid_hours,
                evaluator={"name": "tests"},
            )
            envelope = evidence.sign(statement, key or self.key)
            if file:
                evaluations.submit(connection, envelope, actor="ci", now=self.now)
        return envelope

    def promote(
        self, ref: str = "support@candidate", *, to: str = "production", **more: Any
    ) -> AliasMove | None:
        more.setdefault("now", self.now + timedelta(minutes=1))
        with self.workspace.writing() as connection:
            return promotion.promote(
                connection, self.workspace.artifacts, parse_ref(ref), to, actor="ann", reason="test", **more
            )

    def rollback(self, name: str = "support") -> AliasMove:
        with self.workspace.writing() as connection:
            return promotion.rollback(
                connection,
                self.workspace.artifacts,
                name,
                "production",
                actor="bob",
                reason="bad",
                now=self.now,
            )

    def production(self, name: str = "support") -> str | None:
        with self.workspace.reading() as connection:
            state = releases.alias_state(connection, name, "production")
        return state.digest if state else None

    def problems(self) -> list[str]:
        with self.workspace.reading() as connection:
            return promotion.problems(connection, self.workspace.artifacts)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[Postgres, str]]:
    """A PostgreSQL, and the name of a database with our tables."""
    with postgres() as running:
        template = running.create()
        db.connect(running.url(template)).dispose()
        yield running, template


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty registry on each of the two databases."""
    if request.param == "sqlite":
        yield ""
        return
    running, template = request.getfixturevalue("server")
    name = running.create(template)
    yield running.url(name)
    running.drop(name)


@pytest.fixture
def workspace(tmp_path: Path, database_url: str) -> Iterator[Workspace]:
    settings = RegistrySettings(home=tmp_path / "home", database_url=database_url)
    with open_workspace(settings) as opened:
        yield opened


@pytest.fixture
def house(workspace: Workspace) -> House:
    key = signing.load_or_create_key(workspace.settings.signing_key)
    with workspace.writing() as connection:
        evidence.trust(connection, key.public_key(), actor="ann", now=NOW)
        prompts.push(connection, "support", PROMPT, actor="ann", now=NOW)
        rows = b'{"id":"1"}\n{"id":"2"}\n'
        dataset = datasets.push(connection, workspace.artifacts, "q", rows, actor="ann", now=NOW)
        suite = suites.push(connection, "quality", {"dataset": dataset.digest}, actor="ann", now=NOW)
    return House(workspace, key, suite, dataset)
