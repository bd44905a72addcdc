"""The litellm SDK, in a process of its own: it reaches for the network and for warnings as it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.clients.rows.expected import ARGUMENTS, TOOLS
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand

NAME, PACKAGE = "litellm (SDK)", "litellm"
_PROGRAM = """
import json, sys
import litellm
asked = json.loads(sys.argv[1])
kind = asked.pop("kind")
if kind == "embedding":
    print(json.dumps([item["embedding"] for item in litellm.embedding(**asked).data]))
elif asked.get("stream"):
    print(json.dumps("".join(part.choices[0].delta.content or "" for part in litellm.completion(**asked))))
else:
    print(litellm.completion(**asked).choices[0].message.model_dump_json())
"""


def _say(stand: Stand, kind: str = "completion", model: str = "support", **more: object) -> object:
    asked = {"kind": kind, "model": f"openai/{model}", "api_base": f"{stand.url}/v1", "api_key": CLIENT_KEY}
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps({**asked, **more})],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def plain(stand: Stand) -> None:
    answer = _say(stand, messages=USER)
    assert isinstance(answer, dict)
    assert answer["content"] == "forty two"


def stream(stand: Stand) -> None:
    assert _say(stand, messages=USER, stream=True) == "forty two"


def tools(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    answer = _say(stand, messages=USER, tools=TOOLS)
    assert isinstance(answer, dict)
    assert [call["function"]["arguments"] for call in answer["tool_calls"]] == [ARGUMENTS]


def embeddings(stand: Stand) -> None:
    found = _say(stand, "embedding", "vllm/tiny", input=["a", "b"], encoding_format="float")
    assert found == [[0.25, -0.5]] * 2


TRIALS = {"plain": plain, "stream": stream, "tools": tools, "embeddings": embeddings}
