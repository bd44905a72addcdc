"""curl, as people first try things."""

from __future__ import annotations

import json
import subprocess

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand

NAME, PACKAGE = "curl", None


def _say(stand: Stand, path: str, body: object, *more: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "10", *more, f"{stand.url}{path}"]
    command += ["-H", f"authorization: Bearer {CLIENT_KEY}", "-H", "content-type: application/json"]
    command += ["--data-binary", "@-"]
    done = subprocess.run(
        command, input=json.dumps(body), capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def plain(stand: Stand) -> None:
    said = json.loads(_say(stand, "/v1/chat/completions", {"model": "support", "messages": USER}))
    assert said["choices"][0]["message"]["content"] == "forty two"


def stream(stand: Stand) -> None:
    said = _say(
        stand, "/v1/chat/completions", {"model": "support", "messages": USER, "stream": True}, "--no-buffer"
    )
    assert said.rstrip().endswith("data: [DONE]")


def compressed(stand: Stand) -> None:
    said = _say(stand, "/v1/chat/completions", {"model": "support", "messages": USER}, "--compressed")
    assert json.loads(said)["usage"]["total_tokens"] == 9


def predict(stand: Stand) -> None:
    said = json.loads(_say(stand, "/predict", {"features": {"plan": "basic", "months": 3}}))
    assert (said["label"], said["probability"]) == ("Yes", [0.25, 0.75])


def invocations(stand: Stand) -> None:
    rows = {"dataframe_records": [{"plan": "basic", "months": 3}]}
    assert json.loads(_say(stand, "/invocations", rows)) == {"predictions": ["Yes"]}


TRIALS = {
    "plain": plain,
    "stream": stream,
    "`--compressed`": compressed,
    "`/predict`": predict,
    "MLflow's `/invocations`": invocations,
}
