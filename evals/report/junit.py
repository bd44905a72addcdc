"""A report that CI servers show as tests: one test case a check, and one for failed requests."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from evals.report.terminal import errors_line, value_text

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Mapping[str, Any]) -> str:
    """
    JUnit XML: failed gate checks are failures, undecided ones errors, advisory ones skipped.

    A run that did not pass always shows at least one failure or error.
    """
    suite = report["suite"]["name"]
    cases = [_case(suite, check) for check in report["checks"]]
    bodies = [body for _, body in cases]
    if report["verdict"] != "pass" and not any("<failure" in b or "<error" in b for b in bodies):
        kind = "failure" if report["verdict"] == "fail" else "error"
        told = "; ".join([report["reason"], *map(errors_line, report["error_kinds"])])
        bodies.append(
            f"<testcase {_pairs(classname=suite, name='requests')}>{_element(kind, told)}</testcase>"
        )
    counts = _pairs(
        name=suite,
        tests=len(bodies),
        failures=sum("<failure" in body for body in bodies),
        errors=sum("<error" in body for body in bodies),
        skipped=sum("<skipped" in body for body in bodies),
        time=report["seconds"],
    )
    inner = "".join(f"\n  {body}" for body in bodies)
    body = f"<testsuites><testsuite {counts}>{inner}\n</testsuite></testsuites>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _case(suite: str, check: Mapping[str, Any]) -> tuple[str, str]:
    found = f"{value_text(check)}, wanted {check['threshold']}, n={check['n']}: {check['reason']}"
    verdict = check["verdict"]
    if verdict == "skipped" or (verdict != "pass" and check["tier"] == "advisory"):
        inner = _element("skipped", f"{verdict}: {found}")
    elif verdict == "fail":
        inner = _element("failure", found)
    elif verdict == "inconclusive":
        inner = _element("error", found)
    else:
        inner = f"<system-out>{_text(found)}</system-out>"
    return verdict, f"<testcase {_pairs(classname=suite, name=check['name'])}>{inner}</testcase>"


def _element(kind: str, message: str) -> str:
    return f"<{kind} {_pairs(message=message)}/>"


def _pairs(**values: object) -> str:
    return " ".join(f'{name}="{_text(str(value))}"' for name, value in values.items())


def _text(value: str) -> str:
    return html.escape(_NOT_XML.sub("?", value))
