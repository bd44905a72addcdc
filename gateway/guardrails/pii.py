"""
Personal data with a form of its own: e-mail, phone, payment card, IBAN, US SSN, IP address.

Patterns propose, check digits and number plans decide. Names and addresses have no such form and
are not found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.guardrails.base import Finder, Finders, Finding, Guardrail, occurrences, selected
from gateway.guardrails.numbers import is_card, is_iban, is_ip, is_luhn, is_ssn

_CONTEXT = 40
"""Code points before a number in which a word may say what it is."""


def build(options: Mapping[str, Any]) -> Guardrail:
    """
    The detector of personal data.

    Args:
        options: `types`, some of `email`, `phone`, `credit_card`, `iban`, `us_ssn`, `ip_address`;
            all of them by default.

    Raises:
        BadInput: another option or type.
    """
    finders = _finders()
    chosen = selected("pii", "types", options, finders)
    return Finders(
        tuple(finders[name][0] for name in chosen), max(_CONTEXT, *(finders[name][1] for name in chosen))
    )


def _finders() -> dict[str, tuple[Finder, int]]:
    """Each type's finder, and the most code points that its pattern can look at."""
    return {
        "email": (_email(), 240),
        "phone": (_phone(), 72),
        "credit_card": (_credit_card(), 40),
        "iban": (_iban(), 72),
        "us_ssn": (_us_ssn(), 24),
        "ip_address": (_ip_address(), 48),
    }


def _email() -> Finder:
    """Addresses with `@`, and the two usual disguises of it."""
    plain = re.compile(
        r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[^\W_](?:[\w-]{0,30}[^\W_])?\.){1,4}[^\W\d_]{2,24}(?![\w-])"
    )
    disguised = re.compile(
        r"""(?<![\w.+-])[\w.+-]{1,64}
            (?:\ ?[\[({]\ ?at\ ?[\])}]\ ?|\ at\ (?=[\w-]{1,32}\ dot\ ))[\w-]{1,32}
            (?:\ ?[\[({]\ ?dot\ ?[\])}]\ ?|\ dot\ |\.)
            (?:com|org|net|edu|gov|io|co|info|biz|de|fr|es|it|nl|uk|ca|au|in|cn|jp|ch|at|be|se|eu)
            (?!\w)""",
        re.VERBOSE | re.IGNORECASE,
    )

    def find(text: str) -> Iterator[Finding]:
        for pattern in (plain, disguised) if "@" in text else (disguised,):
            for match in occurrences(pattern, text):
                yield Finding("email", match.start(), match.end())

    return find


def _phone() -> Finder:
    """International and North American forms; other digits where a word before them says so."""
    extension = r"(?:[ ,]{0,2}(?:x|ext\.?|extension)[ ]?\d{1,6})?(?!\w)"
    free = [
        re.compile(r"(?<![\w+])\+[1-9](?:[ .()/-]{0,2}\d){7,14}" + extension),
        re.compile(
            r"(?<![\w+.$€£#-])(?:1[ .-])?(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}"
            + extension
            + r"(?![.-]\d)"
        ),
        re.compile(r"(?<![\w+.$€£#-])\(\d{3}\) ?\d{7}" + extension),
        re.compile(r"(?<![\w+.$€£#-])00[1-9](?:[ .()/-]{0,2}\d){8,13}" + extension),
    ]
    named = re.compile(r"(?<![\w+.$€£#/-])\(?\d(?:[ .()/-]{0,2}\d){6,13}" + extension)
    cue = re.compile(
        r"\b(?:phones?|telephone|tel|mobile|cell(?:phone)?|fax|whats ?app|call(?: me| us)?|text me|ring|"
        r"dial|sms|contact number|handy|tlf)\b|"
        r"\b(?:answering|reach(?:ed)?|contact|support|desk)\b.{0,20}\b(?:at|on)\W*$",
        re.IGNORECASE,
    )
    dated = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")

    def find(text: str) -> Iterator[Finding]:
        for pattern in free:
            for match in occurrences(pattern, text):
                yield Finding("phone", match.start(), match.end())
        for match in occurrences(named, text):
            before = text[max(0, match.start() - _CONTEXT) : match.start()].rpartition("\n")[2]
            if cue.search(before) and not dated.match(match[0]):
                yield Finding("phone", match.start(), match.end())

    return find


def _credit_card() -> Finder:
    """12 to 19 digits in groups that a card scheme could have issued, or that a word before calls a card."""
    pattern = re.compile(r"(?<!\w)(?<!\d[.,])(?<![A-Z]{2}\d\d[ ])\d(?:[ -]?\d){11,18}", re.ASCII)
    cue = re.compile(r"\bcards?\b", re.IGNORECASE)

    def find(text: str) -> Iterator[Finding]:
        for match in occurrences(pattern, text):
            places = [place for place in range(match.start(), match.end()) if text[place].isdigit()]
            for count in range(len(places), 11, -1):
                end = places[count - 1] + 1
                gaps = end - match.start() - count
                if gaps > 4 or text[end : end + 1].isalnum():
                    continue
                digits = "".join(text[place] for place in places[:count])
                before = text[max(0, match.start() - _CONTEXT) : match.start()]
                if is_card(digits) or (is_luhn(digits) and cue.search(before)):
                    yield Finding("credit_card", match.start(), end)
                    break

    return find


def _iban() -> Finder:
    """Account numbers, compact or with single spaces."""
    pattern = re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,29}")

    def find(text: str) -> Iterator[Finding]:
        for match in occurrences(pattern, text):
            places = [place for place in range(match.start(), match.end()) if text[place] != " "]
            for count in range(len(places), 14, -1):
                end = places[count - 1] + 1
                if not text[end : end + 1].isalnum() and is_iban("".join(text[p] for p in places[:count])):
                    yield Finding("iban", match.start(), end)
                    break

    return find


def _us_ssn() -> Finder:
    """Grouped by hyphens; grouped by spaces or not at all where a word before says so."""
    grouped = re.compile(r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])", re.ASCII)
    named = re.compile(r"(?<![\w.-])\d{3}[ .]?\d{2}[ .]?\d{4}(?![\w-])", re.ASCII)
    cue = re.compile(r"\b(?:ssn|social(?: security)?|social-security)\b", re.IGNORECASE)

    def find(text: str) -> Iterator[Finding]:
        for pattern in (grouped, named):
            for match in occurrences(pattern, text):
                if not is_ssn(re.sub(r"\D", "", match[0])):
                    continue
                before = text[max(0, match.start() - _CONTEXT) : match.start()]
                if pattern is grouped or cue.search(before):
                    yield Finding("us_ssn", match.start(), match.end())

    return find


def _ip_address() -> Finder:
    """IPv4 unless it reads like a version number, and IPv6."""
    four = re.compile(r"(?<![\w.:-])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)", re.ASCII)
    six = re.compile(r"(?<![\w:.])[0-9a-f:]{3,39}(?![\w:])", re.ASCII | re.IGNORECASE)
    version = re.compile(r"\b(?:v|ver|version|release|section|build)[. ]{0,2}$", re.IGNORECASE)

    def find(text: str) -> Iterator[Finding]:
        for match in occurrences(four, text):
            before = text[max(0, match.start() - _CONTEXT) : match.start()]
            if is_ip(match[0]) and not version.search(before):
                yield Finding("ip_address", match.start(), match.end())
        for match in occurrences(six, text) if "::" in text or text.count(":") > 6 else ():
            if match[0].count(":") > 1 and is_ip(match[0]):
                yield Finding("ip_address", match.start(), match.end())

    return find
