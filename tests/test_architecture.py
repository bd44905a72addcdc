"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("registry", "rag", "classical", "evals", "gateway")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {
    "anthropic", "chromadb", "deepeval", "litellm", "mlflow", "numpy", "onnxruntime", "openai", "pandas",
    "presidio_analyzer", "ragas", "ray", "sklearn", "spacy", "torch", "xllamacpp",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "misc"}


@pytest.mark.parametrize(
    "path", [*SOURCES, *(ROOT / "tests").rglob("*.py")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_file_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_no_module_is_a_drawer() -> None:
    assert [path for path in SOURCES if path.stem in FORBIDDEN_NAMES] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_object_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    undocumented = [] if ast.get_docstring(tree) or path.match("migrations/**") else ["the module"]
    for node in _public(tree.body):
        undocumented += [] if ast.get_docstring(node) else [node.name]
        members = _public(node.body) if isinstance(node, ast.ClassDef) else []
        undocumented += [f"{node.name}.{member.name}" for member in members if not ast.get_docstring(member)]
    assert undocumented == []


def _public(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.mark.parametrize(
    "module", ["gateway.app", "gateway.cli", *(f"{package}.cli" for package in PACKAGES[:4])]
)
def test_starting_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert HEAVY & set(done.stdout.split()) == set()


def test_every_plug_in_can_be_found() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for target in (target for group in declared.values() for target in group.values()):
        module, _, name = target.partition(":")
        tree = ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text())
        defined = {getattr(node, "name", None) or _assigned(node) for node in tree.body}
        assert not name or name in defined, target


def _assigned(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return target.id if isinstance(target, ast.Name) else None
    return None
