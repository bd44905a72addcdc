"""
A process that serves like vLLM, as strictly, and misbehaves as FAKE_ENGINE says: `fake_engine.py serve …`.

FAKE_ENGINE is JSON with any of
    starts          file that gets one line for each start
    load_s          seconds before the port is opened
    crash           exit at once, with the key in the last words
    crash_after     exit after so many completions
    no_token        healthy, but every completion gets 503
    deaf_after      /health gets 503 after so many looks
    ignore_sigterm  only SIGKILL ends it
    worker          file for the pid of a child that ignores SIGTERM
    serves          model name, instead of those on the command line
    chatter         bytes to print before anything else
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.gateway.engines import strict

_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
)
_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{model}"}} 2.0
vllm:num_requests_waiting{{engine="0",model_name="{model}"}} 1.0
vllm:kv_cache_usage_perc{{engine="0",model_name="{model}"}} 0.25
vllm:prefix_cache_queries_total{{engine="0",model_name="{model}"}} {done}.0
vllm:prefix_cache_hits_total{{engine="0",model_name="{model}"}} 0.0
"""


class _State:
    def __init__(self, names: list[str], key: str | None, mode: dict[str, Any]) -> None:
        self.names = names
        self.key = key
        self.mode = mode
        self.completions = 0
        self.looks = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: _State

    def log_message(self, *arguments: Any) -> None:
        """Say nothing of requests."""

    def do_GET(self) -> None:
        state = self.state
        if self.path == "/health":
            with state.lock:
                state.looks += 1
            self._answer(503 if state.looks > state.mode.get("deaf_after", 10**9) else 200, b"")
        elif self.path == "/metrics":
            self._answer(200, _METRICS.format(model=state.names[0], done=state.completions).encode())
        else:
            self._answer(404, b'{"detail":"Not Found"}')

    def do_POST(self) -> None:
        state = self.state
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path != "/v1/completions":
            return self._answer(404, b'{"detail":"Not Found"}')
        if state.key and self.headers.get("authorization") != f"Bearer {state.key}":
            return self._answer(401, b'{"error":"Unauthorized"}')
        if self.headers.get_content_type() != "application/json":
            return self._answer(415, b'{"error":"Unsupported Media Type"}')
        request = json.loads(body)
        if set(request) - {"model", "prompt", "max_tokens", "temperature"} or not request.get("prompt"):
            return self._answer(400, b'{"error":{"message":"bad request","code":400}}')
        if request["model"] not in state.names:
            return self._answer(404, b'{"error":{"message":"The model does not exist.","code":404}}')
        if state.mode.get("no_token"):
            return self._answer(503, b"")
        with state.lock:
            state.completions += 1
            done = state.completions
        choice = {"index": 0, "text": " there", "finish_reason": "length"}
        usage = {"prompt_tokens": 1, "completion_tokens": request["max_tokens"], "total_tokens": 2}
        self._answer(
            200, json.dumps({"model": request["model"], "choices": [choice], "usage": usage}).encode()
        )
        if done >= state.mode.get("crash_after", 10**9):
            self.wfile.flush()
            os._exit(9)
        return None

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    mode = json.loads(os.environ.get("FAKE_ENGINE", "{}"))
    if "starts" in mode:
        with Path(mode["starts"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if mode.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stderr.write("x" * mode.get("chatter", 0) + "\n")
    try:
        model, values = strict.parse(sys.argv[1:])
    except strict.Refused as error:
        sys.exit(f"vllm: error: {error}")
    if mode.get("crash"):
        sys.exit(f"CUDA out of memory, and my key is {os.environ.get('VLLM_API_KEY')}")
    if "worker" in mode:
        worker = subprocess.Popen([sys.executable, "-c", _STUBBORN], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        Path(mode["worker"]).write_text(str(worker.pid))
    time.sleep(mode.get("load_s", 0))
    names = [mode["serves"]] if "serves" in mode else values.get("--served-model-name", [model])
    _Handler.state = _State(names, os.environ.get("VLLM_API_KEY"), mode)
    address = (values["--host"][0], int(values["--port"][0]))
    ThreadingHTTPServer(address, _Handler).serve_forever()


if __name__ == "__main__":
    main()
