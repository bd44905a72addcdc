from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag.cli import application
from rag.documents import Document
from registry.errors import BadInput, NotFound
from registry.refs import parse_ref
from registry.workspace import open_workspace


@pytest.fixture(autouse=True)
def project(tmp_path: Path, articles: list[Document], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_RAG__EMBEDDER", "hashing")
    monkeypatch.setenv("SLUICEGATE_RAG__STORE", "memory")
    monkeypatch.setenv("SLUICEGATE_ACTOR", "tester")
    lines = [json.dumps({"id": one.id, "text": one.text, "title": one.title}) for one in articles]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    return tmp_path


def text(*arguments: str) -> str:
    result = CliRunner().invoke(application, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run(*arguments: str) -> Any:
    return json.loads(text(*arguments, "--json"))


def test_build_registers_a_version_and_prints_what_it_did(project: Path) -> None:
    result = run("build", "corpus.jsonl", "--name", "handbook", "--max-chars", "60")
    folder = project / ".sluicegate" / "indexes" / result["digest"][7:31] / "memory"
    assert result == {
        "ref": "handbook:1",
        "name": "handbook",
        "number": 1,
        "digest": result["digest"],
        "documents": 3,
        "passages": result["passages"],
        "embedded": result["passages"],
        "reused": 0,
        "seconds": result["seconds"],
        "folder": str(folder),
    }
    assert folder.is_dir()
    with open_workspace() as workspace, workspace.reading() as connection:
        from registry import indexes

        version, content = indexes.get(connection, parse_ref("handbook"))
    assert (version.digest, version.created_by, content.documents) == (result["digest"], "tester", 3)


def test_building_again_is_the_same_version_with_nothing_embedded() -> None:
    first = run("build", "corpus.jsonl", "--name", "handbook")
    again = run("build", "corpus.jsonl", "--name", "handbook")
    assert (again["ref"], again["digest"]) == (first["ref"], first["digest"])
    assert (again["embedded"], again["reused"]) == (0, first["passages"])


def test_a_changed_corpus_is_a_new_version_beside_the_old(project: Path) -> None:
    run("build", "corpus.jsonl", "--name", "handbook")
    with (project / "corpus.jsonl").open("a") as file:
        file.write('\n{"id": "new", "text": "One more."}')
    second = run("build", "corpus.jsonl", "--name", "handbook")
    assert (second["ref"], second["embedded"]) == ("handbook:2", 1)
    listed = run("list")["indexes"]
    assert [(row["ref"], row["documents"], row["built"]) for row in listed] == [
        ("handbook:2", 4, True),
        ("handbook:1", 3, True),
    ]
    assert run("search", "handbook:1", "One more.", "-k", "1")["passages"][0]["id"] != "new#0"
    assert run("search", "handbook", "One more.", "-k", "1")["passages"][0]["id"] == "new#0"


def test_a_dry_run_tells_the_digest_and_writes_nothing(project: Path) -> None:
    planned = run("build", "corpus.jsonl", "--name", "handbook", "--dry-run")
    assert [path.name for path in project.iterdir()] == ["corpus.jsonl"]
    done = run("build", "corpus.jsonl", "--name", "handbook")
    assert (planned["digest"], planned["embedded"], planned["dry_run"]) == (
        done["digest"],
        done["embedded"],
        True,
    )


def test_search_prints_passages_best_first() -> None:
    run("build", "corpus.jsonl", "--name", "handbook", "--max-chars", "60")
    found = run("search", "handbook", "how do I rotate a key?", "-k", "2")
    assert [passage["id"] for passage in found["passages"]] == ["keys#1", "keys#0"]
    assert found["passages"][0].keys() == {"id", "document_id", "title", "text", "score"}
    assert "keys#1  API keys\nTo rotate a key, make a new one." in text("search", "handbook", "rotate a key")


def test_a_lost_folder_is_rebuilt_under_the_same_version(project: Path) -> None:
    import shutil

    first = run("build", "corpus.jsonl", "--name", "handbook")
    shutil.rmtree(project / ".sluicegate" / "indexes")
    assert run("list")["indexes"][0]["built"] is False
    again = run("build", "corpus.jsonl", "--name", "handbook")
    assert (again["ref"], again["embedded"]) == (first["ref"], 0)
    assert run("list")["indexes"][0]["built"] is True


def test_wrong_input_changes_nothing(project: Path) -> None:
    for arguments in (
        ("build", "corpus.jsonl", "--name", "Hand Book"),
        ("build", "absent.jsonl", "--name", "handbook"),
        ("build", "corpus.jsonl", "--name", "handbook", "--max-chars", "0"),
        ("build", "corpus.jsonl", "--name", "handbook", "--overlap", "9"),
    ):
        with pytest.raises(BadInput):
            CliRunner().invoke(application, arguments, catch_exceptions=False)
    with pytest.raises(NotFound):
        CliRunner().invoke(application, ("search", "absent", "query"), catch_exceptions=False)
    assert run("list") == {"indexes": []}


def test_an_error_is_one_json_object_and_exit_code_3() -> None:
    command = [sys.executable, "-m", "rag.cli", "search", "absent", "query", "--json"]
    script = [sys.executable, "-c", "import sys; from rag.cli import main; main()", *command[3:]]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["error"]["code"]) == (False, "not_found")


@pytest.mark.parametrize("command", ["build", "search", "list"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: rag {command}" in text(command, "--help")


def test_asking_for_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom rag.cli import application\n"
        "CliRunner().invoke(application, ['--help'])\n"
        "print(sorted({'numpy', 'chromadb', 'onnxruntime', 'sqlalchemy', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
