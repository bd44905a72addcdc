"""NVIDIA's `tritonclient[http]`, in a process of its own: gevent changes the one it is in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "tritonclient (HTTP)", "tritonclient"
_PROGRAM = """
import json, sys
import numpy as np
import tritonclient.http as http
place, key, binary = sys.argv[1], sys.argv[2], sys.argv[3] == "binary"
headers = {"authorization": "Bearer " + key}
client = http.InferenceServerClient(place)
plan = http.InferInput("plan", [2], "BYTES")
plan.set_data_from_numpy(np.array(["basic", "pro"], dtype=np.object_), binary_data=binary)
months = http.InferInput("months", [2], "FP32")
months.set_data_from_numpy(np.array([3, 30], dtype=np.float32), binary_data=binary)
names = ("label", "probability")
outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in names]
found = client.infer("churn", [plan, months], outputs=outputs, headers=headers, request_id="r7")
labels = [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy("label").tolist()]
metadata = client.get_model_metadata("churn", headers=headers)
print(json.dumps({
    "labels": labels,
    "probabilities": found.as_numpy("probability").tolist(),
    "id": found.get_response()["id"],
    "live": client.is_server_live(),
    "ready": client.is_model_ready("churn", headers=headers),
    "inputs": [one["name"] for one in metadata["inputs"]],
    "index": [one["name"] for one in client.get_model_repository_index(headers=headers)],
}))
"""


def _say(stand: Stand, how: str) -> Any:
    place = urlsplit(stand.url).netloc
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, place, CLIENT_KEY, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def tensors(stand: Stand) -> None:
    told = _say(stand, "json")
    assert told["labels"] == ["Yes", "No"]
    assert told["probabilities"] == [[0.25, 0.75], [0.75, 0.25]]
    assert told["id"] == "r7"


def binary(stand: Stand) -> None:
    told = _say(stand, "binary")
    assert told["labels"] == ["Yes", "No"]
    assert told["probabilities"] == [[0.25, 0.75], [0.75, 0.25]]


def about(stand: Stand) -> None:
    told = _say(stand, "json")
    assert (told["live"], told["ready"]) == (True, True)
    assert told["inputs"] == ["plan", "months"]
    assert "churn" in told["index"]


TRIALS = {"JSON tensors": tensors, "binary tensors": binary, "metadata and repository": about}
