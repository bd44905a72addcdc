"""Sluicegate itself, started as users start it: `gateway keys create`, then `gateway serve`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders.base import (
    Contender,
    Door,
    Launch,
    Place,
    bearer,
    environment,
    free_port,
)

MODEL, FAULTY = f"vllm/{upstream.MODEL}", f"openai/{upstream.MODEL}"
"""The same mock behind two providers: faults sent to one leave the circuit of the other alone."""
_LIMITS = {
    "--rpm": "1000000000", "--tpm": "1000000000000", "--concurrency": "100000", "--budget-usd": "1000000",
}  # fmt: skip


def contender(
    python: Path,
    *,
    serve: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    name: str = "sluicegate",
) -> Contender:
    """Sluicegate of the environment of *python*, with *serve* after `gateway serve` and *env* on top."""
    script = python.parent / "gateway"
    extra = dict(env or {})

    def version(cache: Path) -> str:
        if not script.exists():
            raise install.NotInstalled(f"no `gateway` beside {python}; give --python of an environment")
        asked = [str(python), "-c", "from importlib.metadata import version; print(version('sluicegate'))"]
        return " ".join([install.run(asked).strip(), *serve])

    def launch(place: Place) -> Launch:
        provider = {"base_url": place.upstream_url, "api_key_env": "BENCH_UPSTREAM_KEY"}
        own = {
            "SLUICEGATE_REGISTRY__HOME": str(place.folder / "home"),
            "SLUICEGATE_GATEWAY__UPSTREAMS": json.dumps({"vllm": provider, "openai": provider}),
            "BENCH_UPSTREAM_KEY": upstream.KEY,
            **extra,
        }
        environ = environment(place.cache, own)
        port = free_port()
        command = [str(script), "serve", "--port", str(port), *serve]
        key = _key(script, environ, place.folder)
        return Launch(command, Door(port, MODEL, bearer(key)), own)

    return Contender(name, version, launch, "hashed virtual key, four limits, price, metrics, usage journal")


def has_option(
    beside: Path, command: Sequence[str], option: str, environ: Mapping[str, str] | None = None
) -> bool:
    """Whether `gateway <command> --help` names *option*; the script lies beside the program *beside*."""
    done = subprocess.run(
        [str(beside.parent / "gateway"), *command, "--help"],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return re.search(rf"(?<!\S){re.escape(option)}(?!\S)", done.stdout) is not None


def _key(script: Path, environ: Mapping[str, str], folder: Path) -> str:
    """A fresh key with limits that nobody reaches, and a price, so that money is counted too."""
    for model in (MODEL, FAULTY):
        said(script, environ, folder, "prices", "set", model, "--input", "0.15", "--output", "0.60")
    limits = [word for pair in _LIMITS.items() for word in pair]
    return str(said(script, environ, folder, "keys", "create", "--name", "bench", *limits)["key"])


def said(script: Path, environ: Mapping[str, str], folder: Path, *command: str) -> dict[str, Any]:
    """What `gateway <command> --json` answers. Raises NotInstalled with its last words when it fails."""
    done = subprocess.run(
        [str(script), *command, "--json"],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout)[-400:]
        raise install.NotInstalled(f"`gateway {' '.join(command[:2])}` failed: {said}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
