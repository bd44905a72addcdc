"""Marks on a pull request: what GitHub Actions shows beside the checks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from evals.report.terminal import critical_lines, slice_lines, value_text, worse_cases

_MOST = 10
"""GitHub shows ten errors and ten warnings a step."""
_MOST_NAMED = 10


def tell(report: Mapping[str, Any], environment: Mapping[str, str], stream: TextIO | None = None) -> None:
    """
    Write annotations where GITHUB_ACTIONS is `true`; nothing anywhere else.

    They go to standard error, which GitHub reads as well: standard output is for the result.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return
    for line in lines(report):
        print(line, file=stream or sys.stderr)


def lines(report: Mapping[str, Any], file: str = "") -> list[str]:
    """
    One workflow command for each check that failed (`::error`) or cannot be told (`::warning`).

    Args:
        file: the suite's path inside the repository, so that the mark stands there.
    """
    suite = report["suite"]["name"]
    errors: list[str] = []
    warnings: list[str] = []
    for check in report["checks"]:
        if check["verdict"] not in ("fail", "inconclusive") or check["tier"] == "advisory":
            continue
        worse = [str(flip["id"]) for flip in worse_cases(report) if flip["check"] == check["name"]]
        named = ", ".join(worse[:_MOST_NAMED]) + (
            f" and {len(worse) - _MOST_NAMED} more" if len(worse) > _MOST_NAMED else ""
        )
        text = f"{value_text(check)}, wanted {check['threshold']}: {check['reason']}"
        text += f"\nworse than before: {named}" if named else ""
        is_error = check["verdict"] == "fail"
        (errors if is_error else warnings).append(
            _command("error" if is_error else "warning", f"{suite}: {check['name']}", text, file)
        )
    other = [*critical_lines(report), *slice_lines(report)]
    if report["verdict"] != "pass" and (other or not errors + warnings):
        kind = "error" if report["verdict"] == "fail" else "warning"
        text = "\n".join([report["reason"], *other])
        (errors if kind == "error" else warnings).insert(
            0, _command(kind, f"{suite}: {report['verdict']}", text, file)
        )
    return errors[:_MOST] + warnings[:_MOST]


def _command(kind: str, title: str, message: str, file: str) -> str:
    r"""
    A workflow command whose text can neither end it nor begin another.

    >>> _command("error", "a: b, c", "first%\nsecond", "")
    '::error title=a%3A b%2C c::first%25%0Asecond'
    """
    pairs = [("file", file)] if file else []
    shown = ",".join(f"{name}={_property(value)}" for name, value in [*pairs, ("title", title)])
    return f"::{kind} {shown}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
