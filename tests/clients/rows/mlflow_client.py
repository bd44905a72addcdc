"""MLflow's scoring client, which can send no header of its own: the key is a password in a `.netrc`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "MLflow scoring client", "mlflow"
_PROGRAM = """
import json, sys
import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
client = ScoringServerClient(sys.argv[1], int(sys.argv[2]))
client.wait_server_ready(timeout=10)
rows = pd.DataFrame({"plan": ["basic", "pro"], "months": [3, 30]})
table = np.array([["basic", 3], ["pro", 30]], dtype=object)
try:
    client.invoke(pd.DataFrame({"plan": ["basic"]}))
    refused = ""
except Exception as error:
    refused = str(error)
print(json.dumps({
    "frame": client.invoke(rows).get_predictions(predictions_format="ndarray").tolist(),
    "table": client.invoke(table).get_predictions(predictions_format="ndarray").tolist(),
    "version": client.get_version(),
    "refused": refused,
}))
"""


def _say(stand: Stand) -> Any:
    place = urlsplit(stand.url)
    with tempfile.TemporaryDirectory() as folder:
        netrc = Path(folder) / "netrc"
        netrc.write_text(f"machine {place.hostname} login key password {CLIENT_KEY}\n")
        netrc.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(place.hostname), str(place.port)],
            env={**os.environ, "NETRC": str(netrc)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def frame(stand: Stand) -> None:
    assert _say(stand)["frame"] == ["Yes", "No"]


def array(stand: Stand) -> None:
    assert _say(stand)["table"] == ["Yes", "No"]


def refused(stand: Stand) -> None:
    told = _say(stand)
    assert "months" in told["refused"]
    assert told["version"]


TRIALS = {"data frame": frame, "array": array, "errors and version": refused}
