"""A report that CI servers show as tests: one test case a check, and one for failed requests."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from evals.report.terminal import check_notes, errors_line, notes, value_text, worse_cases

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Mapping[str, Any]) -> str:
    """
    JUnit XML: failed gate checks are failures, undecided ones errors, advisory ones skipped.

    A run that did not pass always shows at least one failure or error. A check that failed names the cases
    that got worse; what else explains the verdict is the suite's `system-out`.
    """
    suite = report["suite"]["name"]
    bodies = [_case(report, check) for check in report["checks"]]
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
    told = "\n".join(notes(report))
    bodies += [f"<system-out>{_text(told)}</system-out>"] if told else []
    inner = "".join(f"\n  {body}" for body in bodies)
    body = f"<testsuites><testsuite {counts}>{inner}\n</testsuite></testsuites>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _case(report: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    found = f"{value_text(check)}, wanted {check['threshold']}, n={check['n']}: {check['reason']}"
    found = "; ".join([found, *check_notes(check)])
    verdict = check["verdict"]
    if verdict == "skipped" or (verdict != "pass" and check["tier"] == "advisory"):
        inner = _element("skipped", f"{verdict}: {found}")
    elif verdict == "fail":
        worse = [flip for flip in worse_cases(report) if flip["check"] == check["name"]]
        lines = (f"{flip['id']}: {flip['before']:.3g} -> {flip['after']:.3g}" for flip in worse)
        inner = _element("failure", found, "\n".join(lines))
    elif verdict == "inconclusive":
        inner = _element("error", found)
    else:
        inner = f"<system-out>{_text(found)}</system-out>"
    return f"<testcase {_pairs(classname=report['suite']['name'], name=check['name'])}>{inner}</testcase>"


def _element(kind: str, message: str, body: str = "") -> str:
    return (
        f"<{kind} {_pairs(message=message)}>{_text(body)}</{kind}>"
        if body
        else f"<{kind} {_pairs(message=message)}/>"
    )


def _pairs(**values: object) -> str:
    return " ".join(f'{name}="{_text(str(value))}"' for name, value in values.items())


def _text(value: str) -> str:
    return html.escape(_NOT_XML.sub("?", value))
