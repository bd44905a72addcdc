from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from classical import cli
from classical.errors import QualityFailed
from classical.params import plain
from registry.errors import PlatformError
from tests.classical.conftest import people, rows, write_table

TEMPLATE = Path(__file__).parents[2] / "gateway" / "template"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table and its params.yaml; the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path)
    document = plain(people()) | {"mlflow": {"experiment_name": "people"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def classical(*arguments: str, text: str | None = None) -> dict[str, Any]:
    """Run a command with --json in this process and return its object."""
    result = CliRunner().invoke(cli.application, [*arguments, "--json"], input=text, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def script(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Run the console script and return what it wrote to standard output and error."""
    command: Sequence[str] = [str(Path(sys.executable).parent / "classical"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_training_twice_gives_one_version_and_one_hold_out(project: Path) -> None:
    first = classical("train", "--no-track", "--holdout", "out/holdout.jsonl")
    lines = (project / "out" / "holdout.jsonl").read_bytes()
    second = classical("train", "--no-track", "--holdout", "out/holdout.jsonl", "--jobs", "2")
    assert (first["ref"], second["ref"]) == ("people:1", "people:1")
    assert first["digest"] == second["digest"]
    assert lines == (project / "out" / "holdout.jsonl").read_bytes()
    assert len(lines.splitlines()) == first["rows"]["holdout"]
    assert first["run_id"] is None
    assert json.loads((project / ".sluicegate/reports/people-quality.json").read_text())["ok"] is True


def test_the_registered_model_predicts_its_own_hold_out(project: Path) -> None:
    trained = classical("train", "--no-track", "--name", "renamed", "--holdout", "holdout.jsonl")
    told = classical("predict", "renamed:1", "--input", "holdout.jsonl")
    assert (told["model"], told["digest"]) == ("renamed:1", trained["digest"])
    expected = [json.loads(line) for line in (project / "holdout.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in told["predictions"]] == [line["id"] for line in expected]
    right = sum(
        answer["label"] == line["expected"]
        for answer, line in zip(told["predictions"], expected, strict=True)
    )
    assert round(right / len(expected), 6) == trained["metrics"]["accuracy"]
    assert sorted(told["predictions"][0]["probabilities"]) == ["no", "yes"]

    bare = "\n".join(json.dumps(line["features"]) for line in expected[:2]) + "\n\n"
    piped = classical("predict", "renamed", text=bare)["predictions"]
    assert [answer["id"] for answer in piped] == [1, 2]
    assert [answer["label"] for answer in piped] == [a["label"] for a in told["predictions"][:2]]

    (listed,) = classical("list")["models"]
    assert (listed["name"], listed["number"], listed["digest"]) == ("renamed", 1, trained["digest"])


def test_validate_shows_the_split_and_trains_nothing(project: Path) -> None:
    told = classical("validate", "params.yaml", "--report", "quality.json")
    assert sum(told["rows"].values()) == 240
    assert set(told["shares"]) == {"train", "holdout"}
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "people.csv", "quality.json"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "expected an object of features"),
        ("{", "rows.jsonl:1: not JSON"),
        ('{"age": 1}', "row 0: feature 'colour': missing"),
    ],
)
def test_rows_that_are_none_are_refused(project: Path, line: str, told: str) -> None:
    classical("train", "--no-track")
    (project / "rows.jsonl").write_text(line)
    with pytest.raises(PlatformError, match=told):
        classical("predict", "people", "--input", "rows.jsonl")


def test_bad_data_ends_with_its_code_and_one_json_object(project: Path) -> None:
    write_table(project, [*rows(), "c999,red,basic,150,1,no"])
    out, err = script("train", "--no-track", "--json", code=3)
    error = json.loads(out)["error"]
    assert error["code"] == "quality_failed"
    assert error["message"].startswith("column 'age' breaks 'max' in 1 rows (such as c999); full report:")
    assert "Traceback" not in err
    with pytest.raises(QualityFailed):
        classical("validate")


def test_a_tracked_run_is_linked_from_the_version(project: Path) -> None:
    result = CliRunner().invoke(
        cli.application, ["train", "--holdout", "holdout.jsonl"], catch_exceptions=False
    )
    out, err = result.stdout, result.stderr
    assert out.splitlines()[0].split() == ["METRIC", "HOLD-OUT", "CROSS-VALIDATION"]
    assert out.splitlines()[-1].startswith("people:1  sha256:")
    steps = [line.split()[0] for line in err.splitlines()]
    assert steps == ["read", "checked", "split", "fitted", "packaged", "wrote", "tracked"]
    with sqlite3.connect(project / ".sluicegate" / "registry.db") as registry:
        ((digest, meta),) = registry.execute("SELECT digest, meta FROM versions WHERE kind = 'model'")
    registry.close()
    with sqlite3.connect(project / ".sluicegate" / "mlflow.db") as mlflow:
        tags = dict(mlflow.execute("SELECT key, value FROM tags"))
        ((run_id, status),) = mlflow.execute("SELECT run_uuid, status FROM runs")
    mlflow.close()
    assert (tags["model.digest"], tags["model.name"], status) == (digest, "people", "FINISHED")
    assert json.loads(meta)["mlflow_run_id"] == run_id
    assert {"git_commit", "git_dirty", "seconds", "hardware"} <= json.loads(meta).keys()


def test_the_digest_is_the_same_in_another_process_with_another_hash_seed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = classical("train", "--no-track")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    there = json.loads(script("train", "--no-track", "--json")[0])
    assert (there["digest"], there["number"]) == (here["digest"], 1)


def test_the_shipped_template_trains_a_model_that_beats_the_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = classical("train", str(TEMPLATE / "params.yaml"), "--no-track")
    metrics = told["metrics"]
    assert (told["name"], told["classes"]) == ("churn", ["No", "Yes"])
    assert metrics["accuracy"] > metrics["baseline_accuracy"] + 0.04
    assert metrics["cv_accuracy_mean"] - metrics["cv_accuracy_std"] > metrics["baseline_accuracy"]
    assert told["parity"]["max_delta"] < 1e-5


@pytest.mark.parametrize("command", ["validate", "train", "predict", "list"])
def test_every_command_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(cli.application, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: classical {command}" in result.stdout


def test_showing_help_imports_nothing_heavy() -> None:
    line = "import sys, classical.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"numpy", "pandas", "sklearn", "mlflow", "onnxruntime", "skl2onnx", "pandera", "sqlalchemy"}
    assert heavy & set(done.stdout.split()) == set()
