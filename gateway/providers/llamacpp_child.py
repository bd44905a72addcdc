"""
The child process that holds llama.cpp: `python -m gateway.providers.llamacpp_child --gguf FILE …`.

It says once, on one line of standard output, where it listens and with which key:

    {"url": "http://127.0.0.1:40123", "key": "…"}

and lives for as long as its standard input stays open. When the parent dies, however it dies,
the kernel closes that pipe and the child leaves: no orphan keeps the memory. SIGTERM keeps its
default action, so it ends the child even while native code holds the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> None:
    """
    Serve one GGUF file on a free loopback port until standard input ends.

    Exits with 1, and a reason on standard error, when llama.cpp refuses the file.
    """
    arguments = _arguments(argv)
    # Only the line below may reach the parent's pipe; whatever native code prints goes to stderr.
    to_parent = os.dup(1)
    os.dup2(2, 1)
    key = secrets.token_urlsafe(24)
    try:
        server = serve(arguments, key)
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot serve {arguments.gguf}: {error}")
    os.write(to_parent, json.dumps({"url": server.listening_address, "key": key}).encode() + b"\n")
    os.close(to_parent)
    while os.read(0, 4096):
        pass
    os._exit(0)


def serve(arguments: argparse.Namespace, key: str) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """A running `xllamacpp.Server` that answers only to *key*, logs no prompt and downloads nothing."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = arguments.gguf
    params.model_alias = {arguments.alias}
    params.n_ctx = arguments.context
    params.n_parallel = arguments.parallel
    params.n_threads_http = arguments.parallel + 2
    params.cpuparams.n_threads = arguments.threads
    params.cpuparams_batch.n_threads = arguments.threads
    params.api_keys = [key]
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    # The default keeps up to 8 GiB of old prompts in memory.
    params.cache_ram_mib = 0
    # 1 is errors only: why a file cannot be loaded. Requests are logged from 3 on.
    params.verbosity = 1
    return xllamacpp.Server(params)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamacpp_child", description=__doc__.split("\n")[1])
    parser.add_argument("--gguf", required=True, help="path of the weights")
    parser.add_argument("--alias", required=True, help="what answers call the model")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads, 1 or more")
    parser.add_argument("--context", type=int, required=True, help="tokens, shared by all slots")
    parser.add_argument("--parallel", type=int, required=True, help="slots, 1 or more")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
