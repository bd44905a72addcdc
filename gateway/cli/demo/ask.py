"""The checks of the last step: what a user of the gateway sends, and what must come back."""

from __future__ import annotations

import csv
import gzip
import json
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

import yaml

from gateway.cli.demo.shell import StepFailed
from gateway.cli.demo.story import Story

TIMEOUT_S = 60


def digest(story: Story) -> str:
    """The digest of the release that answers for `support` now."""
    _, headers, _ = call(story, "/v1/vector_stores/support/search", {"query": "ready?", "max_num_results": 1})
    return str(headers.get("x-sluicegate-digest", ""))


def everything(story: Story) -> None:
    """
    Ask every surface, and check every answer.

    Raises:
        StepFailed: an answer is not what it must be.
    """
    story.question = _question(story)
    _openai(story)
    _classical(story)
    _errors(story)


def call(
    story: Story, path: str, body: object | None = None, *, key: str | None = None, raw: bytes | None = None
) -> tuple[int, Message[str, str], Any]:
    """One HTTP call to the gateway: status, headers, decoded JSON body."""
    data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
    headers = {"Content-Type": "application/json"}
    if key != "":
        headers["Authorization"] = f"Bearer {key or story.key}"
    request = urllib.request.Request(story.url + path, data, headers)  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
            return reply.status, reply.headers, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def _question(story: Story) -> str:
    """A question of the evaluation set that a person can check: the first in the file."""
    with (story.shell.folder / "data" / "questions.jsonl").open() as lines:
        return str(json.loads(next(lines))["query"])


def _openai(story: Story) -> None:
    from openai import OpenAI

    say = story.shell.say
    with OpenAI(base_url=f"{story.url}/v1", api_key=story.key, timeout=TIMEOUT_S, max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": story.question}]
        raw = client.chat.completions.with_raw_response.create(model="support", messages=messages)
        answer = raw.parse().choices[0].message.content or ""
        said = raw.headers.get("x-sluicegate-digest")
        _check(bool(answer), "the assistant's answer is empty")
        _check(said == story.releases["support"]["digest"], f"x-sluicegate-digest is {said}")
        story.answer = answer
        say(f"  question: {story.question}\n  answer:   {answer}\n  from:     {said}")
        stream = client.chat.completions.create(model="support", messages=messages, stream=True)
        pieces = [c.choices[0].delta.content or "" for c in stream if c.choices]
        _check(bool("".join(pieces)), "the streamed answer is empty")
        say(f"  streamed: {''.join(pieces)}  ({len(pieces)} chunks)")
        vectors = client.embeddings.create(model="support", input=["a sluice gate", "a weir"])
        _check(len(vectors.data) == 2 and len(vectors.data[0].embedding) > 100, "embeddings are wrong")
        say(f"  embeddings: {len(vectors.data)} of dimension {len(vectors.data[0].embedding)}")
        names = [model.id for model in client.models.list()]
        _check({"support", "churn"} <= set(names), f"models list is {names}")
        say(f"  models: {', '.join(names)}")


def _classical(story: Story) -> None:
    say, features = story.shell.say, _customer(story)
    tensors = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in features.items()
    ]
    status, headers, answer = call(story, "/v2/models/churn/infer", {"inputs": tensors})
    _check(status == 200, f"/v2/models/churn/infer answered {status}: {answer}")
    _check(headers["x-sluicegate-digest"] == story.releases["churn"]["digest"], "/v2 names another release")
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    say(f"  POST /v2/models/churn/infer → {outputs}")
    status, _, answer = call(story, "/predict", {"features": features})
    _check(status == 200 and "prediction" in answer, f"/predict answered {status}: {answer}")
    say(f"  POST /predict → {answer}")
    status, _, answer = call(story, "/predict/batch", [{"features": features}] * 2)
    _check(status == 200 and len(answer) == 2, f"/predict/batch answered {status}: {answer}")
    status, _, answer = call(story, "/health", key="")
    _check(status == 200 and answer["model_loaded"] is True, f"/health answered {status}: {answer}")
    say(f"  GET /health → {answer}")


def _errors(story: Story) -> None:
    body = {"model": "support", "messages": [{"role": "user", "content": "hello"}]}
    chat = "/v1/chat/completions"
    answers = (
        ("a wrong key", 401, call(story, chat, body, key="sk-sg-wrong")),
        ("an unknown model", 404, call(story, chat, {**body, "model": "nobody"})),
        ("a malformed body", 400, call(story, chat, raw=b'{"model": ')),
    )
    for what, status, (got, _, answer) in answers:
        error = answer.get("error", {})
        shaped = {"message", "type", "param", "code"} <= error.keys()
        _check(got == status and shaped, f"{what}: {got} {answer}, expected {status}")
        story.shell.say(f"  {what}: {got} {error['code']}: {error['message']}")


def _customer(story: Story) -> dict[str, object]:
    """A customer of the table as JSON: text stays text, numbers become numbers."""
    with gzip.open(story.shell.folder / "data" / "churn.csv.gz", "rt", newline="") as file:
        row = next(csv.DictReader(file))
    columns = yaml.safe_load((story.shell.folder / "params.yaml").read_text())["features"]
    text = {name: row[name] for name in columns["categorical_features"]}
    return text | {name: float(row[name]) for name in columns["numerical_features"]}


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise StepFailed(otherwise)
