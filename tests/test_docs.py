"""Documents say what is there: what they name exists, and what exists they name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from evals.checks import Check, Margins
from evals.settings import EvalsSettings
from evals.suite import DatasetSource, EvalSuite, Judging, read
from gateway.controlplane.upstreams import CLOUD_VARIABLES, KEY_VARIABLES, URL_VARIABLES
from gateway.providers.openai import BASE_URLS
from gateway.settings import GatewaySettings
from rag.settings import RagSettings
from registry import errors
from registry.plugins import names
from registry.settings import RegistrySettings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SECTIONS = {
    "registry": RegistrySettings,
    "gateway": GatewaySettings,
    "rag": RagSettings,
    "evals": EvalsSettings,
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_request_path_names_files_and_functions_that_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "request-path.md").read_text()
    named = re.findall(r"`((?:\w+/)+\w+\.py)`(?:\s+`(\w+(?:\.\w+)?)`)?", text)
    assert len(named) > 20
    for path, symbol in named:
        file = next((ROOT / base / path for base in ("", "gateway") if (ROOT / base / path).exists()), None)
        assert file is not None, path
        for part in filter(None, symbol.split(".")):
            assert re.search(rf"(def|class) {part}\b", file.read_text()), f"{path}: {symbol}"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_documented(section: str) -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    _, _, rest = text.partition(f"\n## {section}\n")
    part = rest.partition("\n## ")[0]
    missing = [field.name for field in fields(SECTIONS[section]) if f"| `{field.name}`" not in part]
    assert missing == []


def commands(group: typer.Typer, prefix: str) -> list[str]:
    """The full names of every command below *group*."""
    found = [
        f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}"  # type: ignore[union-attr]
        for command in group.registered_commands
    ]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += commands(inner.typer_instance, f"{prefix} {inner.name}")
    return found


@pytest.mark.parametrize("package", ["registry", "rag", "classical", "evals", "gateway", "sluicegate"])
def test_every_command_is_documented(package: str) -> None:
    module = "gateway.cli.sluicegate" if package == "sluicegate" else f"{package}.cli"
    loaded = import_module(module)
    application = loaded.build([]) if package == "evals" else loaded.application
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert [name for name in commands(application, package) if f"`{name}" not in text] == []


def test_every_plug_in_group_is_documented() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    assert [group for group in groups if f"`{group}`" not in text] == []


def test_exactly_the_metrics_there_are_are_documented() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == sorted(declared["sluicegate.metrics"])


def test_every_path_of_the_registry_is_documented_with_its_verb_and_role() -> None:
    from fastapi import FastAPI

    from gateway.controlplane.registry_api import mount
    from registry.access import VERBS
    from registry.versions import GROUPS

    application: Any = FastAPI()
    mount(application, None, None, None)  # type: ignore[arg-type]
    text = (ROOT / "docs" / "reference" / "registry-api.md").read_text()
    for path, operations in application.openapi()["paths"].items():
        for method, operation in operations.items():
            verb = operation.get("x-verb", "")
            shown = path
            if path.removesuffix("/{ref}").removeprefix("/api/v1/") in GROUPS.values() and "versions" in verb:
                shown = "/api/v1/{group}/{ref}" if path.endswith("/{ref}") else "/api/v1/{group}"
            line = next((one for one in text.splitlines() if f"| `{method.upper()} {shown}` |" in one), "")
            assert line.endswith(f"| `{verb}` | {VERBS[verb]} |" if verb else "| an API key |"), (path, line)


def test_every_provider_is_documented_with_its_address_and_variables() -> None:
    text = (ROOT / "docs" / "reference" / "providers.md").read_text().partition("\n\n`gateway.upstreams")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert sorted(rows) == names("providers")
    for known in (BASE_URLS, URL_VARIABLES, KEY_VARIABLES):
        assert {name for name, value in known.items() if value not in rows[name]} == set()
    for name, variables in CLOUD_VARIABLES.items():
        assert set(variables) <= set(re.findall(r"\w+", rows[name]))


def test_every_refusal_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text()
    refusals = errors.PromotionRefused.__subclasses__()
    assert [refusal.code for refusal in refusals if f"`{refusal.code}`" not in text] == []


@pytest.mark.parametrize("script", ["registry", "rag", "classical", "evals", "gateway", "sluicegate"])
def test_every_console_script_shows_its_help(script: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / script), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Usage:" in done.stdout) == (0, True), done.stderr


def documented_keys(heading: str) -> list[str]:
    """The keys in the first column of the table under *heading* in the reference of suite files."""
    text = (ROOT / "docs" / "reference" / "suite-files.md").read_text()
    table = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [key for line in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])]


def test_exactly_the_keys_of_suites_there_are_are_documented() -> None:
    text = (ROOT / "docs" / "reference" / "suite-files.md").read_text()
    suite, check = (
        re.findall(r"^\| `(\w+)` \|", part.partition("\n\n|")[2].partition("\n\n")[0], re.MULTILINE)
        for part in re.split(r"^## A (?:suite|check)$", text, flags=re.MULTILINE)[1:]
    )
    assert sorted(suite) == sorted(field.name for field in fields(EvalSuite))
    assert sorted(check) == sorted(field.name for field in fields(Check))
    assert documented_keys("Key of `dataset`") == [field.name for field in fields(DatasetSource)]
    assert documented_keys("Key of `judging`") == [field.name for field in fields(Judging)]
    assert [f"`{field.name}` `{field.default}`" for field in fields(Margins)] == re.findall(
        r"`\w+` `[\d.]+`", text
    )


@pytest.mark.parametrize("shape", [EvalSuite, Check, Judging], ids=lambda shape: shape.__name__)
def test_the_defaults_of_suites_are_documented_as_they_are(shape: type) -> None:
    text = (ROOT / "docs" / "reference" / "suite-files.md").read_text()
    named = {field.name: field.default for field in fields(shape) if isinstance(field.default, int | float)}
    named = {name: default for name, default in named.items() if not isinstance(default, bool)}
    lines = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert named.items() <= {
        (name, float(found[1]) if "." in found[1] else int(found[1]))
        for name, told in lines
        if (found := re.search(r"`([\d.]+)`$", told.strip()))
    }


def test_the_suite_of_the_reference_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reference" / "suite-files.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "suite.yaml").write_text(shown)
    assert [check.title for check in read(tmp_path / "suite.yaml").checks] == re.findall(
        r"{name: ([^,]+),", shown
    )


def test_every_field_of_rows_that_a_metric_needs_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "suite-files.md").read_text().partition("\n## Rows\n")[2]
    metrics = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    needs = [line.split("|")[5] for line in metrics.splitlines() if line.startswith("| `")]
    needed = set(re.findall(r"`(\w+)`", " ".join(needs))) - {"k"}
    named = {key for line in text.splitlines() for key in re.findall(r"`(\w+)`", line.partition(" | ")[0])}
    assert sorted(needed - named) == []
