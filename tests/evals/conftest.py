from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry import indexes, models, policies, promotion, prompts, releases
from registry.clock import utc_now
from registry.entities import (
    Chunker,
    Embedder,
    Feature,
    GatePolicy,
    IndexContent,
    ModelContent,
    PromptContent,
    PromptMessage,
    Version,
)
from registry.ids import digest
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.evals.fake_gateway import KEY, FakeGateway, serve

PROMPT = PromptContent(
    (PromptMessage("user", "{{ passages | length }} {{ question }}"),),
    {"question": "text", "passages": "list"},
)


@dataclass
class Project:
    """A folder with a registry, and a fake gateway that serves its releases."""

    folder: Path
    workspace: Workspace
    gateway: FakeGateway

    def suite(self, text: str, name: str = "suite.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def questions(self, count: int) -> Path:
        rows = [
            {"id": f"q{i}", "query": f"question {i}", "relevant": [f"d{i}"], "answers": [f"answer {i}"]}
            for i in range(count)
        ]
        return self.rows(rows)

    def rows(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def chat_release(self, model: str = "openai/one") -> Version:
        file = releases.ReleaseFile(
            name="support", kind="chat", model=model, prompt="support", index="handbook"
        )
        return self._create(file)

    def bare_release(self) -> Version:
        """A chat release without an index."""
        return self._create(releases.ReleaseFile(name="support", kind="chat", model="openai/bare"))

    def model_release(self, artifact: bytes = b"onnx", *, name: str = "churn") -> Version:
        now = utc_now()
        content = ModelContent(
            format="onnx",
            artifact=self.workspace.artifacts.put(artifact),
            features=(Feature("plan", "text"), Feature("months", "number")),
            classes=("No", "Yes"),
            training={},
        )
        with self.workspace.writing() as connection:
            models.push(connection, name, content, actor="ann", now=now)
        return self._create(releases.ReleaseFile(name=name, kind="prediction", model=f"models/{name}"))

    def _create(self, file: releases.ReleaseFile) -> Version:
        now = utc_now()
        with self.workspace.writing() as connection:
            version = releases.create(connection, file, actor="ann", now=now)
            promotion.nominate(connection, version, actor="ann", now=now)
        return version

    def promote(self, name: str = "support") -> None:
        with self.workspace.writing() as connection:
            promotion.promote(
                connection,
                self.workspace.artifacts,
                parse_ref(f"{name}@candidate"),
                "production",
                actor="ann",
                reason="test",
                now=utc_now(),
            )

    def gate(self, name: str, **gate: Any) -> Version:
        file = policies.PolicyFile("gate", name, gate=GatePolicy(**gate))
        with self.workspace.writing() as connection:
            return policies.push(connection, file, actor="ann", now=utc_now())


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with serve() as fake:
        yield fake


@pytest.fixture
def project(tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_EVALS__GATEWAY", gateway.url)
    monkeypatch.setenv("SLUICEGATE_API_KEY", KEY)
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    with open_workspace(RegistrySettings(home=tmp_path / ".sluicegate")) as workspace:
        blob = workspace.artifacts.put(b"passages")
        content = IndexContent(
            corpus_digest=digest("corpus"),
            chunker=Chunker(),
            embedder=Embedder("hashing", digest("embedder"), 8),
            documents=1,
            passages=1,
            passages_digest=blob,
        )
        with workspace.writing() as connection:
            prompts.push(connection, "support", PROMPT, actor="ann", now=utc_now())
            indexes.push(connection, "handbook", content, actor="ann", now=utc_now())
        yield Project(tmp_path, workspace, gateway)
