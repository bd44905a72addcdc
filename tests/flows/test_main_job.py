"""The six steps, through the console scripts and the official client, on a real socket."""

from __future__ import annotations

import csv
import gzip
import json
import time
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
import yaml

from .conftest import Project

pytestmark = pytest.mark.e2e
RUN_AGAIN = "evals run suites/support.yaml --release support@candidate --baseline support@production"
QUESTION: list[Any] = [{"role": "user", "content": "Who was the first modern geologist?"}]


def post(project: Project, path: str, body: object, *, key: str | None = None) -> tuple[int, Any, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key or project.key}"}
    request = urllib.request.Request(project.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def served(project: Project) -> str:
    body = {"query": "geology", "max_num_results": 1}
    return str(post(project, "/v1/vector_stores/support/search", body)[1]["x-sluicegate-digest"])


def customer(project: Project) -> dict[str, Any]:
    columns = yaml.safe_load((project.folder / "params.yaml").read_text())["features"]
    with gzip.open(project.folder / "data" / "churn.csv.gz", "rt", newline="") as file:
        row = next(csv.DictReader(file))
    text = {name: row[name] for name in columns["categorical_features"]}
    return text | {name: float(row[name]) for name in columns["numerical_features"]}


def test_rag_is_incremental_and_its_digest_is_its_content(project: Project) -> None:
    built = project.run("rag build data/corpus.jsonl.gz --name handbook")
    assert (built["embedded"], built["reused"]) == (0, built["passages"])
    assert built["passages"] >= 300
    listed = project.run("registry indexes list handbook")["versions"]
    assert [version["digest"] for version in listed] == [built["digest"]]


def test_training_again_gives_the_same_version(project: Project) -> None:
    before = project.run("registry models show churn")
    trained = project.run("classical train params.yaml --holdout data/churn-holdout.jsonl")
    assert (trained["digest"], trained["number"]) == (before["digest"], before["number"])
    assert {"data_digest", "environment_digest", "params_digest"} <= before["content"]["training"].keys()
    assert {"git_commit", "git_dirty"} <= before["meta"].keys()


def test_promotion_was_refused_before_there_was_evidence(project: Project) -> None:
    assert "evidence_missing" in project.output
    assert "refused, as it should be" in project.output


def test_evidence_is_bound_to_release_suite_and_dataset(project: Project) -> None:
    release = project.run("registry releases show support@production")
    suite = project.run("registry suites show support-quality")
    (newest, *_) = project.run("registry evidence list support")["evidence"]
    statement = project.run(f"registry evidence show {newest['digest']} --statement")
    assert newest["release"] == release["digest"]
    assert "sha256:" + statement["subject"][0]["digest"]["sha256"] == release["digest"]
    predicate = statement["predicate"]
    assert "sha256:" + predicate["suite"]["digest"]["sha256"] == suite["digest"]
    assert "sha256:" + predicate["dataset"]["digest"]["sha256"] == suite["content"]["dataset"]
    assert predicate["verdict"] == "pass"
    assert predicate["samples"] >= 60


def test_history_says_who_moved_what_when_and_why(project: Project) -> None:
    moves = project.run("registry history support")["moves"]
    production = [(move["action"], move["reason"]) for move in moves if move["alias"] == "production"]
    assert production[:4] == [
        ("promote", "honest baseline"),
        ("promote", "closer to the gold answers"),
        ("rollback", "to see it work"),
        ("promote", "and forward again"),
    ]
    assert all(move["actor"] and move["at"] for move in moves)
    assert project.run("registry verify") == {"ok": True, "problems": []}


def test_the_running_gateway_follows_within_a_second(project: Project) -> None:
    before = served(project)
    moves = (
        "registry rollback support --reason test",
        "registry promote support@candidate --reason test",
    )
    for line in moves:
        if "promote" in line:
            assert project.run(line, code=1)["error"]["code"] == "evidence_replayed"
            project.run(RUN_AGAIN, env={"SLUICEGATE_EVALS__GATEWAY": project.url})
        moved = project.run(line)["to"]
        began = time.monotonic()
        while served(project) != moved:
            assert time.monotonic() - began < 1.0
    assert served(project) == before


def test_the_official_client_gets_plain_and_streamed_answers(project: Project) -> None:
    release = project.run("registry releases show support@production")
    with project.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="support", messages=QUESTION)
        plain = raw.parse()
        assert plain.choices[0].message.content
        assert plain.usage is not None
        assert plain.usage.prompt_tokens > 0
        assert raw.headers["x-sluicegate-release"] == "support"
        assert raw.headers["x-sluicegate-digest"] == release["digest"]
        options: Any = {"include_usage": True}
        chunks = list(
            client.chat.completions.create(
                model="support", messages=QUESTION, stream=True, stream_options=options
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1]
    assert chunks[-1].usage is not None


def test_the_official_client_gets_embeddings_and_models(project: Project) -> None:
    with project.client() as client:
        vectors = client.embeddings.create(model="support", input=["a", "b"]).data
        assert [len(vector.embedding) for vector in vectors] == [384, 384]
        assert {"support", "churn"} <= {model.id for model in client.models.list()}
        assert client.models.retrieve("support").id == "support"


def test_the_open_inference_protocol_and_the_classic_endpoints_agree(project: Project) -> None:
    release = project.run("registry releases show churn@production")
    features = customer(project)
    inputs = [
        {"name": k, "shape": [1], "datatype": "BYTES" if isinstance(v, str) else "FP64", "data": [v]}
        for k, v in features.items()
    ]
    status, headers, answer = post(project, "/v2/models/churn/infer", {"id": "7", "inputs": inputs})
    assert (status, headers["x-sluicegate-digest"]) == (200, release["digest"])
    assert (answer["model_name"], answer["id"]) == ("churn", "7")
    outputs = {output["name"]: output for output in answer["outputs"]}
    for version in (str(release["number"]), "production", release["digest"]):
        _, _, again = post(project, f"/v2/models/churn/versions/{version}/infer", {"inputs": inputs})
        assert (again["model_name"], again["outputs"]) == ("churn", answer["outputs"])
    status, headers, single = post(project, "/predict", {"features": features})
    assert (status, headers["x-sluicegate-digest"]) == (200, release["digest"])
    assert {"prediction", "probability", "model_version", "processing_time"} <= single.keys()
    assert [single["label"]] == outputs["label"]["data"]
    assert single["probability"] == pytest.approx(outputs["probability"]["data"])
    status, _, batch = post(project, "/predict/batch", [{"features": features}] * 3)
    assert [item["id"] for item in batch] == [0, 1, 2]
    assert {item["prediction"] for item in batch} == {single["prediction"]}
    with urllib.request.urlopen(f"{project.url}/health", timeout=10) as reply:
        health = json.loads(reply.read())
    assert (health["status"], health["model_loaded"]) == ("healthy", True)


def test_wrong_requests_get_errors_as_openai_shapes_them(project: Project) -> None:
    stranger = openai.OpenAI(base_url=f"{project.url}/v1", api_key="sk-sg-no", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="support", messages=QUESTION)
    with project.client() as client, pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    status, _, answer = post(project, "/v1/chat/completions", b'{"model": "support", "messages": [')
    assert status == 400
    assert {"message", "type", "param", "code"} == answer["error"].keys()
    status, _, answer = post(project, "/predict", {"features": {"nonsense": 1}})
    assert (status, answer["error"]["code"]) == (400, "bad_features")
