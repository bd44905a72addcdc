"""
Suites as tests: `pytest` collects `*.evals.yaml`, one test a check, and has the fixture `evals_run`.

Each suite runs once, as `evals run` in a process of its own, without filing evidence. Where no such file is
collected and the fixture is not used, nothing of evals is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

Report = dict[str, Any]
Run = Callable[..., Report]
_ENDS = (".evals.yaml", ".evals.yml")
_TIMEOUT_S = 3600.0
_COMMAND = "import sys; from evals.cli import main; sys.argv[0] = 'evals'; main()"
_OPTIONS = ("release", "baseline", "gateway", "limit")


class SuiteFailed(Exception):
    """A check did not hold, or the suite could not be run; the text is for people."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that hold for every suite collected."""
    group = parser.getgroup("evals", "suites of evals (*.evals.yaml)")
    group.addoption("--evals-release", help="judge this release, by default <name>@candidate")
    group.addoption("--evals-baseline", help="compare with this release, by default <name>@production")
    group.addoption("--evals-gateway", help="URL of the gateway")
    group.addoption("--evals-limit", type=int, help="a trial on the first so many samples")
    group.addoption(
        "--evals-timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="S",
        help="end a suite after so many seconds",
    )
    group.addoption(
        "--evals-allow-inconclusive", action="store_true", help="a check that cannot be told does not fail"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite for each `*.evals.yaml`."""
    if file_path.name.endswith(_ENDS):
        return SuiteFile.from_parent(parent, path=file_path)
    return None


@pytest.fixture
def evals_run(pytestconfig: pytest.Config) -> Run:
    """
    Run a suite and get its report, whatever the verdict.

        def test_support(evals_run):
            report = evals_run("suites/support.yaml", release="support@candidate")
            assert report["verdict"] == "pass", report["reason"]

    Takes the file and, by keyword, release, baseline, gateway, limit and timeout_s; by default those of the
    command line. A wrong suite, or no gateway, fails the test with evals' own message.
    """

    def run(file: str | Path, **named: Any) -> Report:  # noqa: ANN401 - passed on to the command line
        unknown = set(named) - {*_OPTIONS, "timeout_s"}
        if unknown:
            raise TypeError(f"evals_run has no {', '.join(sorted(unknown))}; it takes {', '.join(_OPTIONS)}")
        try:
            return _run(Path(file), pytestconfig, named)
        except SuiteFailed as error:
            pytest.fail(str(error), pytrace=False)

    return run


class SuiteFile(pytest.File):
    """One suite; it runs when its first check is asked for."""

    _answer: Report | SuiteFailed | None = None

    def collect(self) -> Iterable[pytest.Item]:
        """One item a check, and one for what no single check tells, such as failed requests."""
        from evals.suite import read
        from registry.errors import PlatformError

        try:
            suite = read(self.path)
        except PlatformError as error:
            raise self.CollectError(error.message) from error
        yield from self._items([check.title for check in suite.checks])

    def report(self) -> Report:
        """The suite's report, made once. Raises SuiteFailed, each time, where it cannot be run."""
        if self._answer is None:
            try:
                self._answer = _run(self.path, self.config, {})
            except SuiteFailed as error:
                self._answer = error
        if isinstance(self._answer, SuiteFailed):
            raise self._answer
        return self._answer

    def _items(self, titles: list[str]) -> Iterator[pytest.Item]:
        for at, title in enumerate(titles):
            item = CheckItem.from_parent(self, name=title)
            item.at = at
            yield item
        yield VerdictItem.from_parent(self, name="verdict")


class _Item(pytest.Item):
    @property
    def tolerant(self) -> bool:
        """Whether what cannot be told is let through."""
        return bool(self.config.getoption("--evals-allow-inconclusive"))

    def answered(self) -> Report:
        """The report of the suite this item belongs to."""
        assert isinstance(self.parent, SuiteFile)  # noqa: S101 - made by it
        return self.parent.report()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ANN401
        """The check's own words instead of a traceback."""
        if isinstance(excinfo.value, SuiteFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where pytest says it failed."""
        return self.path, None, f"{self.path.name}: {self.name}"


class CheckItem(_Item):
    """One check of a suite."""

    at = 0
    """Its place in the suite."""

    def runtest(self) -> None:
        """Fail with the check's reason and the cases that got worse; skip what was not made."""
        report = self.answered()
        check = report["checks"][self.at]
        verdict = check["verdict"]
        if verdict == "skipped" or (verdict != "pass" and check["tier"] == "advisory"):
            pytest.skip(f"{verdict}: {check['reason']}")
        if verdict == "pass" or (verdict == "inconclusive" and self.tolerant):
            return
        raise SuiteFailed(_told(check, report))


class VerdictItem(_Item):
    """What decides besides single checks: failed requests, critical cases, slices."""

    def runtest(self) -> None:
        """Fail where the run did not pass and no check of it failed for that."""
        report = self.answered()
        verdict = report["verdict"]
        if verdict == "pass" or (verdict == "inconclusive" and self.tolerant):
            return
        if any(check["verdict"] == verdict and check["tier"] != "advisory" for check in report["checks"]):
            return
        raise SuiteFailed(f"{verdict.upper()}: {report['reason']}")


def _told(check: Report, report: Report) -> str:
    from evals.report.terminal import value_text, worse_cases

    found = f"{check['verdict'].upper()}: {value_text(check)}, wanted {check['threshold']}, n={check['n']}"
    worse = [
        f"  {flip['id']}: {flip['before']:.3g} -> {flip['after']:.3g}"
        for flip in worse_cases(report)
        if flip["check"] == check["name"]
    ]
    return "\n".join([found, check["reason"], *worse[:20]])


def _run(file: Path, config: pytest.Config, named: dict[str, Any]) -> Report:
    words = ["run", str(file), "--json", "--no-submit"]
    for name in _OPTIONS:
        value = named.get(name)
        value = config.getoption(f"--evals-{name}") if value is None else value
        words += [f"--{name}={value}"] if value is not None else []
    timeout_s = named.get("timeout_s") or config.getoption("--evals-timeout")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *words], capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SuiteFailed(f"{file}: not done after {timeout_s:g} s; see --evals-timeout") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SuiteFailed(f"{file}: evals run ended with {done.returncode}: {''.join(last)}") from error
    if "error" in answer:
        raise SuiteFailed(f"{file}: {answer['error']['code']}: {answer['error']['message']}")
    return dict(answer)
