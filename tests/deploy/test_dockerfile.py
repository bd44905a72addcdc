from __future__ import annotations

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deploy.validators import DEPLOY, ROOT, complaints, read

DOCKERFILE = DEPLOY / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(stage: str | None = None) -> list[tuple[str, str]]:
    """The (instruction, arguments) pairs of the file, or of one stage, comments and line breaks removed."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]
    found: list[tuple[str, str]] = []
    current = ""
    for name, arguments in pairs:
        current = arguments.rpartition(" AS ")[2] if name == "FROM" else current
        if stage in (None, current):
            found.append((name, arguments.strip()))
    return found


def arguments_of(name: str, stage: str | None = None) -> list[str]:
    return [arguments for instruction, arguments in instructions(stage) if instruction == name]


def health_command(port: int) -> list[str]:
    """The image's own check, run by this interpreter against *port*."""
    (healthcheck,) = arguments_of("HEALTHCHECK", "run")
    command: list[str] = json.loads(healthcheck[healthcheck.index("CMD ") + 4 :])
    assert command[0] == "python"
    return [sys.executable, *(part.replace(":8080/", f":{port}/") for part in command[1:])]


def exit_code(port: int, **environment: str) -> int:
    return subprocess.run(
        health_command(port), env=os.environ | environment, capture_output=True, timeout=30, check=False
    ).returncode


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server on a free loopback port that answers every GET with *status*, and the paths it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def test_hadolint_accepts_the_file() -> None:
    assert complaints("hadolint", DOCKERFILE) == ""


def test_the_health_check_passes_while_the_gateway_lives() -> None:
    with answering(200) as (port, asked):
        assert exit_code(port) == 0
    assert asked == ["/health/live"]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_the_health_check_fails_on_a_bad_status(status: int) -> None:
    with answering(status) as (port, _):
        assert exit_code(port) == 1


def test_the_health_check_fails_when_nothing_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert exit_code(bound.getsockname()[1]) == 1


def test_the_health_check_gives_up_on_a_gateway_that_hangs() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert exit_code(listening.getsockname()[1]) == 1


def test_the_health_check_does_not_ask_a_proxy() -> None:
    with answering(200) as (port, _), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert exit_code(port, http_proxy=proxy, HTTP_PROXY=proxy, no_proxy="", NO_PROXY="") == 0


def test_compose_repeats_the_same_health_check() -> None:
    (healthcheck,) = arguments_of("HEALTHCHECK", "run")
    compose = read(DEPLOY / "compose.yaml")["services"]["gateway"]["healthcheck"]
    assert ["CMD", *json.loads(healthcheck[healthcheck.index("CMD ") + 4 :])] == compose["test"]


def test_both_stages_stand_on_one_pinned_supported_python() -> None:
    assert arguments_of("ARG")[0] == "PYTHON_IMAGE=python:3.12-slim-bookworm"
    assert arguments_of("FROM") == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE} AS run"]


def test_the_final_stage_takes_the_environment_and_no_compiler() -> None:
    assert arguments_of("COPY", "run") == ["--from=build /opt/sluicegate /opt/sluicegate"]
    commands = " ".join(arguments_of("RUN"))
    assert re.findall(r"install --yes --no-install-recommends (.+?) +&&", commands) == ["libgomp1"]
    assert re.search(r"gcc|g\+\+|build-essential|-dev\b(?<!--no-dev)|curl", commands) is None


def test_dependencies_come_from_the_lock_with_their_hashes_and_nothing_is_compiled() -> None:
    tools, dependencies, project = arguments_of("RUN", "build")
    assert "--require-hashes --requirement deploy/build-requirements.txt" in tools
    assert "uv sync --frozen --no-dev --group weights --no-install-project --no-build" in dependencies
    assert "--no-deps --no-index" in project


def test_build_tools_are_exact_and_hashed() -> None:
    text = (DEPLOY / "build-requirements.txt").read_text()
    pinned = re.findall(r"^([\w-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
    named = re.findall(r"^([\w-]+)", text, re.MULTILINE)
    assert {"hatchling", "uv"} <= set(pinned)
    assert pinned == named


def test_the_extras_exist_in_the_project() -> None:
    build, run = (stage.removeprefix("EXTRAS=").strip('"') for stage in arguments_of("ARG")[1:])
    assert build == run
    assert set(build.split()) <= PROJECT["project"]["optional-dependencies"].keys()


def test_what_is_copied_exists_and_passes_dockerignore() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = [source for line in arguments_of("COPY", "build") for source in line.split()[:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert set(copied) == allowed
    assert next(rule for rule in rules if rule and not rule.startswith("#")) == "*"


def test_every_package_of_the_wheel_is_copied() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {source for line in arguments_of("COPY", "build") for source in line.split()[:-1]}
    assert set(packages) | {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied


def test_the_state_folder_is_the_volume_the_home_and_the_mounts() -> None:
    environment = dict(pair.split("=", 1) for pair in " ".join(arguments_of("ENV", "run")).split())
    (volume,) = arguments_of("VOLUME", "run")
    (folder,) = arguments_of("WORKDIR", "run")
    assert {environment["SLUICEGATE_REGISTRY__HOME"], volume, folder} == {"/var/lib/sluicegate"}
    assert f"state:{volume}" in read(DEPLOY / "compose.yaml")["services"]["gateway"]["volumes"]


def test_the_gateway_runs_as_nobody_in_particular() -> None:
    assert arguments_of("USER", "run") == ["10001:10001"]
    assert [json.loads(command) for command in arguments_of("CMD", "run")] == [
        ["gateway", "serve", "--host", "0.0.0.0", "--port", "8080"]  # noqa: S104
    ]
    assert arguments_of("EXPOSE", "run") == ["8080"]
