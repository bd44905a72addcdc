"""NVIDIA's `tritonclient[http]`, in a process of its own: gevent changes the one it is in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.parts import CLIENT_KEY, DIGEST
from tests.fakes.stand import Stand

NAME, PACKAGE = "tritonclient (HTTP)", "tritonclient"
_PROGRAM = """
import json, sys
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException
place, key, how = sys.argv[1:4]
binary, packed = how in ("binary", "gzip", "deflate"), how if how in ("gzip", "deflate") else None
headers = {"authorization": "Bearer " + key}
client = http.InferenceServerClient(place)
plan = http.InferInput("plan", [2], "BYTES")
plan.set_data_from_numpy(np.array(["basic", "pro"], dtype=np.object_), binary_data=binary)
months = http.InferInput("months", [2], "FP32")
months.set_data_from_numpy(np.array([3, 30], dtype=np.float32), binary_data=binary)
names = ("label", "probability")
outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in names]
found = client.infer(
    "churn", [plan, months], outputs=outputs, headers=dict(headers), request_id="r7",
    request_compression_algorithm=packed, response_compression_algorithm=packed,
)
labels = [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy("label").tolist()]
metadata = client.get_model_metadata("churn", headers=headers)
by_version = {}
for version in metadata["versions"]:
    assert client.is_model_ready("churn", version, headers=headers)
    assert client.get_model_metadata("churn", version, headers=headers)["inputs"] == metadata["inputs"]
    again = client.infer("churn", [plan, months], version, outputs=outputs, headers=dict(headers))
    by_version[version] = again.get_response()["model_version"]

def refused(call, *arguments):
    try:
        call(*arguments, headers=dict(headers))
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None

short = http.InferInput("months", [1], "FP32")
short.set_data_from_numpy(np.array([3], dtype=np.float32), binary_data=binary)
bare = http.InferInput("months", [2], "FP64")
bare.set_data_from_numpy(np.array([3, 30], dtype=np.float64), binary_data=binary)
print(json.dumps({
    "labels": labels,
    "probabilities": found.as_numpy("probability").tolist(),
    "id": found.get_response()["id"],
    "live": client.is_server_live(),
    "ready": client.is_model_ready("churn", headers=headers),
    "inputs": [one["name"] for one in metadata["inputs"]],
    "server": client.get_server_metadata(headers=headers),
    "server_ready": client.is_server_ready(),
    "index": [[one["name"], one["version"]] for one in client.get_model_repository_index(headers=headers)],
    "versions": by_version,
    "refused": {
        "shape": refused(client.infer, "churn", [plan, short]),
        "feature": refused(client.infer, "churn", [bare]),
        "model": refused(client.infer, "nonesuch", [plan, months]),
        "version": refused(client.infer, "churn", [plan, months], "99"),
        "load": refused(client.load_model, "churn"),
    },
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
    assert (told["live"], told["server_ready"], told["ready"]) == (True, True, True)
    assert told["server"]["name"] == "sluicegate"
    assert told["inputs"] == ["plan", "months"]
    assert ["churn", "production"] in told["index"]


def versions(stand: Stand) -> None:
    told = _say(stand, "binary")
    assert told["versions"] == {"1": DIGEST, "production": DIGEST, DIGEST: DIGEST}


def compressed(stand: Stand) -> None:
    for how in ("gzip", "deflate"):
        assert _say(stand, how)["labels"] == ["Yes", "No"]


def refusals(stand: Stand) -> None:
    for how in ("json", "binary"):
        refused = _say(stand, how)["refused"]
        found = {what: status for what, (status, _) in refused.items()}
        assert found == {"shape": "400", "feature": "400", "model": "404", "version": "404", "load": "403"}
        assert "months" in refused["shape"][1]
        assert "plan" in refused["feature"][1]


TRIALS = {
    "JSON tensors": tensors,
    "binary tensors": binary,
    "compressed bodies": compressed,
    "metadata and repository": about,
    "versions": versions,
    "errors": refusals,
}
