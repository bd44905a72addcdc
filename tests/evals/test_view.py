from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals import cli
from evals.cli import view as command
from evals.cli.compare import side_of
from evals.report import folder
from evals.report.compare import compare
from registry import evaluations
from registry.errors import BadInput, NotFound
from registry.terminal import command_group
from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release
from tests.evals.report_sample import case, full_report


def run(*words: str | Path) -> tuple[int, str]:
    application = command_group("evals")
    application.callback()(lambda: None)
    application.command("view", epilog=command.EPILOG)(command.view)
    result = CliRunner().invoke(application, ["view", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder.write(tmp_path / "out", full_report(), [case("q1", 0.0, "the answer")], None)
    return tmp_path / "out"


def test_a_folder_becomes_one_page_with_its_cases(kept: Path, tmp_path: Path) -> None:
    code, text = run(kept, "--output", tmp_path / "pages" / "r.html", "--json")
    assert (code, json.loads(text)["cases"]) == (0, True)
    assert "the answer" in (tmp_path / "pages" / "r.html").read_text()


def test_a_folder_without_cases_has_no_answers(kept: Path, tmp_path: Path) -> None:
    (kept / "outputs.jsonl").unlink()
    page, has_cases = command.page_of(str(kept))
    assert (has_cases, "its output was not kept" in page) == (False, True)


def test_what_is_not_there_is_refused(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no run begins with 'run_nothing'"):
        run("run_nothing")
    (kept / "report.json").unlink()
    with pytest.raises(BadInput, match=r"report\.json is missing"):
        run(kept)


def test_a_real_run_can_be_viewed_and_compared_by_folder_and_by_id(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.questions(20)
    project.suite(
        "name: support-quality\nrelease: support\ndataset: {path: rows.jsonl}\n"
        "checks: [{system: chat, metric: token_f1, at_least: 0.5}]\n"
    )
    version = project.chat_release()
    served = Release(version.digest, lambda question: question.replace("question", "answer"))
    project.gateway.releases["support@candidate"] = served

    def judge(folder: str) -> int | str | None:
        line = f"evals run suite.yaml --no-cache --output {folder} --html {folder}.html --json"
        monkeypatch.setattr(sys, "argv", line.split())
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code

    assert judge("before") == 0
    served.chat = lambda _question: "I do not know"
    assert judge("after") == 1
    capsys.readouterr()
    assert "I do not know" in Path("after.html").read_text()
    found = compare(side_of("before"), side_of("after"))
    assert [(metric["verdict"], metric["worse"]) for metric in found["metrics"]] == [("worse", 20)]
    with project.workspace.reading() as connection:
        newest = evaluations.runs(connection)[0]["id"]
    page, has_cases = command.page_of(newest)
    assert (has_cases, newest in page) == (False, True)
    (metric,) = compare(side_of("before"), side_of(newest))["metrics"]
    assert (metric["paired"], metric["verdict"]) == (False, "worse")


@contextmanager
def serving(page: str) -> Iterator[int]:
    with command.server(page, 0) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield http_server.server_port
        finally:
            http_server.shutdown()
            thread.join()


def ask(port: int, path: str = "/", host: str = "127.0.0.1") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers.get("Content-Security-Policy", "")
    finally:
        connection.close()


def test_the_page_is_served_on_this_machine_and_nothing_else_is() -> None:
    with serving("<p>page</p>") as port:
        status, page, policy = ask(port)
        assert (status, page) == (200, "<p>page</p>")
        assert policy.startswith("default-src 'none'")
        assert ask(port, "/../../etc/passwd")[0] == 404
        assert ask(port, host="rebound.example")[0] == 404
        with pytest.raises(BadInput, match="cannot be used"):
            command.server("x", port)
