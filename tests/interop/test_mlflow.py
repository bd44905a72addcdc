from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from classical import data
from classical.predict import load_predictor
from registry import (
    access,
    datasets,
    evaluations,
    evidence,
    models,
    promotion,
    prompts,
    releases,
    suites,
    versions,
)
from registry.cli import mlflow as command_line
from registry.entities import PromptContent, PromptMessage, Version
from registry.errors import BadInput, Conflict, Forbidden, MissingExtra, NotFound, Unauthorized
from registry.interop.errors import MlflowFailed
from registry.interop.mlflow_export import export
from registry.interop.mlflow_import import import_model
from registry.refs import parse_ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.terminal import command_group
from registry.workspace import Workspace, open_workspace
from tests.classical.conftest import Model
from tests.interop.conftest import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",  # at the import of mlflow.pyfunc
)
TEXT = "Be kind.\n{% if passages %}{{ passages }}{% endif %}\nQ: {{ question }}"


@dataclass(frozen=True)
class Filled:
    """A registry with a model, a prompt, a release of each and an evaluation run."""

    workspace: Workspace
    model: Version
    prompt: Version
    evidence: str


@pytest.fixture
def filled(workspace: Workspace, forest: Model, request: pytest.FixtureRequest) -> Filled:
    return fill(
        workspace, forest, "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[5:45]
    )


def fill(workspace: Workspace, forest: Model, name: str) -> Filled:
    """Names are the test's own, since all share one server."""
    content = forest.trained.content
    workspace.artifacts.put(forest.artifacts.get(content.artifact))
    chat = PromptContent(
        (PromptMessage("system", TEXT), PromptMessage("user", "{{ question }}")),
        {"question": "text", "passages": "text"},
    )
    with workspace.writing() as connection:
        model = models.push(connection, name, content, actor="ann", now=NOW)
        prompt = prompts.push(connection, f"{name}-chat", chat, actor="ann", now=NOW)
        file = ReleaseFile(name=name, kind="prediction", model=f"models/{name}")
        release = releases.create(connection, file, actor="ann", now=NOW)
        promotion.nominate(connection, release, actor="ann", now=NOW)
        rows = b'{"id":"1"}\n{"id":"2"}\n'
        dataset = datasets.push(connection, workspace.artifacts, "q", rows, actor="ann", now=NOW)
        suite = suites.push(connection, "quality", {"dataset": dataset.digest}, actor="ann", now=NOW)
        key = workspace.evidence_signer
        evidence.trust(connection, key.public_key(), actor="ann", now=NOW)
        statement = evidence.statement(
            release=release,
            suite=suite,
            dataset=dataset,
            baseline=None,
            gate_policy=None,
            verdict="pass",
            checks=[
                {"name": "accuracy ≥ 0.5", "metric": "accuracy", "value": 0.75, "low": 0.7, "high": 0.8,
                 "n": 40, "verdict": "pass"},
                {"name": "accuracy ≤ 0.5", "metric": "accuracy", "value": None, "verdict": "skipped"},
            ],
            samples=40,
            started=NOW - timedelta(seconds=9),
            now=NOW,
            valid_hours=24,
            evaluator={"name": "tests"},
        )  # fmt: skip
        digest = evaluations.submit(
            connection, evidence.sign(statement, key), actor="ci", now=NOW, summary={"reason": "good"}
        )
    return Filled(workspace, model, prompt, digest)


def outcomes(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["kind"], item["outcome"]) for item in answer["items"]]


def test_a_model_predicts_in_mlflow_what_it_predicts_here_and_comes_back_the_same(
    filled: Filled,
    forest: Model,
    server: str,
    tmp_path: Path,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    answer = export(filled.workspace, [f"model/{filled.model.name}"], uri=server)
    (item,) = answer["items"]
    assert item == {
        "kind": "model",
        "ref": f"{filled.model.name}:1",
        "digest": filled.model.digest,
        "outcome": "created",
        "mlflow": f"models:/{filled.model.name}/1",
        "aliases": ["candidate"],
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    loaded = mlflow.pyfunc.load_model(f"models:/{filled.model.name}@candidate")
    raw = mlflow.onnx.load_model(item["mlflow"])
    frame = forest.prepared.split.holdout
    predictor = load_predictor(forest.trained.content, forest.artifacts)
    ours = predictor.predict(data.plain_rows(frame, forest.params))
    columns = [feature.name for feature in forest.trained.content.features]
    theirs = loaded.predict(frame[columns])
    probabilities = [f"probability_{name}" for name in forest.trained.content.classes]
    assert list(theirs["label"]) == list(ours.labels)
    assert [tuple(row) for row in theirs[probabilities].to_numpy()] == list(ours.probabilities)
    assert raw.SerializeToString(deterministic=True) == forest.artifacts.get(forest.trained.content.artifact)
    kept = client.get_model_version(filled.model.name, "1")
    assert kept.tags == {
        "sluicegate.digest": filled.model.digest,
        "sluicegate.ref": f"{filled.model.name}:1",
    }
    with open_workspace(RegistrySettings(home=tmp_path / "other")) as other:
        back = import_model(other, f"models:/{filled.model.name}@candidate", uri=server, name="churn")
        again = import_model(other, f"models:/{filled.model.name}/1", uri=server, name="churn")
        with other.reading() as connection:
            version = versions.by_digest(connection, "model", back["digest"])
        assert other.artifacts.get(back["artifact"]) == forest.artifacts.get(forest.trained.content.artifact)
    assert (back["digest"], back["adapted"]) == (filled.model.digest, False)
    assert (again["number"], again["digest"]) == (1, back["digest"])
    assert version.meta == {
        "mlflow": {
            "uri": server,
            "name": filled.model.name,
            "version": "1",
            "run_id": None,
            "source": kept.source,
            "artifact": forest.trained.content.artifact,
        }
    }


def test_a_second_export_changes_nothing(filled: Filled, server: str, client: MlflowClient) -> None:
    place: dict[str, Any] = {"uri": server, "experiment": filled.model.name}
    tried = export(filled.workspace, None, **place, dry_run=True)
    assert (tried["changed"], client.get_experiment_by_name(filled.model.name)) == (3, None)
    first = export(filled.workspace, None, **place)
    second = export(filled.workspace, None, **place)
    assert (
        outcomes(tried)
        == outcomes(first)
        == [("model", "created"), ("prompt", "created"), ("run", "created")]
    )
    assert outcomes(second) == [("model", "present"), ("prompt", "present"), ("run", "present")]
    assert [item["mlflow"] for item in second["items"]] == [item["mlflow"] for item in first["items"]]
    assert (second["ok"], second["changed"]) == (True, 0)
    assert len(client.search_model_versions(f"name = '{filled.model.name}'")) == 1


def test_a_prompt_has_the_same_text_in_mlflow(
    filled: Filled, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    export(filled.workspace, [f"prompt/{filled.prompt.name}"], uri=server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    loaded = mlflow.genai.load_prompt(f"prompts:/{filled.prompt.name}/1")
    assert loaded.template == [
        {"role": "system", "content": TEXT},
        {"role": "user", "content": "{{ question }}"},
    ]
    assert loaded.tags["sluicegate.digest"] == filled.prompt.digest


def test_a_prompt_that_was_altered_in_mlflow_is_told(
    filled: Filled, server: str, client: MlflowClient
) -> None:
    name = filled.prompt.name
    export(filled.workspace, [name], uri=server)
    client.set_prompt_version_tag(
        name, "1", "mlflow.prompt.text", json.dumps([{"role": "user", "content": "!"}])
    )
    answer = export(filled.workspace, [name], uri=server)
    assert (answer["ok"], outcomes(answer)) == (False, [("prompt", "altered")])


def test_prompts_carry_what_they_include_their_tools_and_their_schema(
    workspace: Workspace, server: str, client: MlflowClient
) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    with workspace.writing() as connection:
        tone = PromptContent((PromptMessage("user", "Be kind."),), kind="text")
        first = versions.push(connection, "prompt", "tone", tone, actor="ann", now=NOW)
        brief = replace(tone, messages=(PromptMessage("user", "Be brief."),))
        versions.push(connection, "prompt", "tone", brief, actor="ann", now=NOW)
        asking = PromptContent(
            (PromptMessage("user", '{% include "tone" %}\n{{ q }}'),),
            {"q": "text"},
            partials={"tone": first.digest},
            tools=(tool,),
            response_schema=schema,
        )
        versions.push(connection, "prompt", "asking", asking, actor="ann", now=NOW)
    answer = export(workspace, None, uri=server, prompt_prefix="prompt.")
    assert [item["mlflow"] for item in answer["items"]] == [
        "prompts:/prompt.asking/1",
        "prompts:/prompt.tone/1",
        "prompts:/prompt.tone/2",
    ]
    kept = client.get_prompt_version("prompt.asking", "1")
    text = client.get_prompt_version("prompt.tone", "2")
    assert kept is not None
    assert text is not None
    assert text.template == "Be brief."
    assert kept.template == [{"role": "user", "content": "Be kind.\n{{ q }}"}]
    assert kept.format(q="Why?") == [{"role": "user", "content": "Be kind.\nWhy?"}]
    assert kept.response_format == schema
    assert kept.model_config == {"extra_params": {"tools": [tool]}}


def test_an_evaluation_run_shows_its_checks_and_its_evidence(
    filled: Filled, server: str, client: MlflowClient, tmp_path: Path
) -> None:
    answer = export(filled.workspace, [f"{filled.model.name}@candidate"], uri=server, experiment="judged")
    assert outcomes(answer) == [("model", "created"), ("run", "created")]
    run = client.get_run(answer["items"][1]["mlflow"].removeprefix("runs:/"))
    assert run.data.metrics == {
        "accuracy _ 0.5": 0.75,
        "accuracy _ 0.5.low": 0.7,
        "accuracy _ 0.5.high": 0.8,
        "accuracy _ 0.5.n": 40.0,
    }
    own = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    assert (
        own.items()
        >= {
            "sluicegate.run": answer["items"][1]["ref"],
            "sluicegate.verdict": "pass",
            "sluicegate.evidence": filled.evidence,
            "sluicegate.signature": "verified",
            "sluicegate.samples": "40",
            "check.accuracy _ 0.5": "pass",
            "check.accuracy _ 0.5_2": "skipped",
        }.items()
    )
    assert (run.info.status, run.info.end_time) == ("FINISHED", int(NOW.timestamp() * 1000))
    envelope = client.download_artifacts(run.info.run_id, "evidence.json", str(tmp_path))
    with filled.workspace.reading() as connection, open(envelope) as file:  # noqa: PTH123 - MLflow's path
        assert json.load(file) == evaluations.get_envelope(connection, filled.evidence)


def test_evidence_that_is_withdrawn_is_so_in_mlflow_after_the_next_export(
    filled: Filled, server: str, client: MlflowClient
) -> None:
    place: dict[str, Any] = {"uri": server, "experiment": "withdrawn"}
    export(filled.workspace, [f"release/{filled.model.name}"], **place)
    with filled.workspace.writing() as connection:
        evaluations.withdraw(connection, filled.evidence, reason="wrong data", actor="ann", now=NOW)
    later = export(filled.workspace, [f"release/{filled.model.name}"], **place)
    again = export(filled.workspace, [f"release/{filled.model.name}"], **place)
    assert outcomes(later) == [("model", "present"), ("run", "updated")]
    assert outcomes(again) == [("model", "present"), ("run", "present")]
    run = client.get_run(later["items"][1]["mlflow"].removeprefix("runs:/"))
    assert run.data.tags["sluicegate.signature"] == "withdrawn"


def test_names_that_mlflow_cannot_tell_apart_are_refused_before_anything_is_sent(
    filled: Filled, server: str, client: MlflowClient
) -> None:
    name = filled.model.name
    with filled.workspace.writing() as connection:
        content = PromptContent((PromptMessage("user", "Hi"),))
        prompts.push(connection, name, content, actor="ann", now=NOW)
    with pytest.raises(Conflict, match="--prompt-prefix"):
        export(filled.workspace, None, uri=server)
    with pytest.raises(BadInput, match="is not models:/name@alias"):
        import_model(filled.workspace, name, uri=server)
    with pytest.raises(NotFound):
        export(filled.workspace, ["nothing-here"], uri=server)
    assert client.search_model_versions(f"name = '{name}'") == []


def test_a_name_that_mlflow_uses_for_the_other_kind_is_refused(
    filled: Filled, server: str, client: MlflowClient
) -> None:
    client.register_prompt(filled.model.name, "taken")
    with pytest.raises(Conflict, match="MLflow holds a prompt"):
        export(filled.workspace, [f"model/{filled.model.name}"], uri=server)


def test_mlflow_aliases_follow_ours_and_are_told_apart_by_release(
    filled: Filled, server: str, client: MlflowClient
) -> None:
    name = filled.model.name
    export(filled.workspace, [f"model/{name}"], uri=server)
    with filled.workspace.writing() as connection:
        _, content = models.get(connection, parse_ref(name))
        other = replace(content, classes=tuple(f"{label}!" for label in content.classes))
        models.push(connection, name, other, actor="ann", now=NOW)
        file = ReleaseFile(name=f"{name}-2", kind="prediction", model=f"models/{name}:2")
        release = releases.create(connection, file, actor="ann", now=NOW)
        promotion.nominate(connection, release, actor="ann", now=NOW)
    answer = export(filled.workspace, [f"model/{name}:1", f"model/{name}:2"], uri=server)
    assert outcomes(answer) == [("model", "aliased"), ("model", "created")]
    assert {alias: str(at) for alias, at in client.get_registered_model(name).aliases.items()} == {
        "candidate": "1",
        f"{name}-candidate": "1",
        f"{name}-2-candidate": "2",
    }


def test_who_may_not_import_asks_mlflow_nothing(workspace: Workspace, server: str) -> None:
    with workspace.writing() as connection:
        access.add_user(connection, "ann", "admin", actor="ann", now=NOW)
        _, token = access.add_user(connection, "vic", "viewer", actor="ann", now=NOW)
    assert export(workspace, None, uri=server, token=token)["items"] == []
    with pytest.raises(Forbidden):
        import_model(workspace, "models:/nowhere/1", uri=server, token=token)
    with pytest.raises(Unauthorized):
        export(workspace, None, uri=server)


def test_the_command_line_prints_one_json_object_and_nothing_else(
    filled: Filled, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(filled.workspace.settings.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    application = command_group("The registry.")
    command_line.add_to(application)
    export_all = ["mlflow", "export", "--all", "--experiment", "by-command", "--json"]
    application(export_all, standalone_mode=False)
    assert json.loads(capfd.readouterr().out)["changed"] == 3
    application(["mlflow", "import", f"models:/{filled.model.name}/1"], standalone_mode=False)
    name = filled.model.name
    assert capfd.readouterr().out == f"model {name}:1  {filled.model.digest}  from {name}/1\n"
    with pytest.raises(BadInput, match="or give --all"):
        application(["mlflow", "export"], standalone_mode=False)


def test_without_mlflow_the_missing_extra_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[classical\]'"):
        export(workspace, None, uri="http://127.0.0.1:9")


def test_a_server_that_is_not_there_is_told_without_its_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowFailed) as caught:
        export(workspace, None, uri="http://ada:secret@127.0.0.1:9")
    assert caught.value.message.startswith("experiment sluicegate: MLflow at http://127.0.0.1:9: ")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "./folder"])
def test_a_tracking_uri_must_be_one(workspace: Workspace, uri: str) -> None:
    with pytest.raises(BadInput, match=r"tracking-uri|tracking URI"):
        export(workspace, None, uri=uri)
