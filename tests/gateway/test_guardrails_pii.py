"""Personal data: what is found, what is not, and how long it takes."""

import time

import pytest

from gateway.guardrails import pii
from gateway.guardrails.numbers import IBAN_LENGTHS, is_card, is_iban
from registry.errors import BadInput

DETECT = pii.build({})


def found(text: str) -> list[tuple[str, str]]:
    """Rule and text of each finding that lies in no other."""
    findings = set(DETECT(text))
    outer = [
        f for f in findings if not any(g != f and g.start <= f.start and f.end <= g.end for g in findings)
    ]
    return [(f.rule, text[f.start : f.end]) for f in sorted(outer, key=lambda f: f.start)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to anna.b+x@mail.example.org, please.", [("email", "anna.b+x@mail.example.org")]),
        ("<jp.lefevre@société.fr>", [("email", "jp.lefevre@société.fr")]),
        ("anna [at] example [dot] org", [("email", "anna [at] example [dot] org")]),
        ("anna at example dot com", [("email", "anna at example dot com")]),
        ("Ring +44 20 7946 0958 now", [("phone", "+44 20 7946 0958")]),
        ("(212) 555-0199", [("phone", "(212) 555-0199")]),
        ("916.972.1680x22008", [("phone", "916.972.1680x22008")]),
        ("my mobile is 06-24312407.", [("phone", "06-24312407")]),
        ("card 4111 1111 1111 1111.", [("credit_card", "4111 1111 1111 1111")]),
        ("3782-822463-10005", [("credit_card", "3782-822463-10005")]),
        ("card 501864667909", [("credit_card", "501864667909")]),
        ("to DE44 5001 0517 5407 3249 31 by", [("iban", "DE44 5001 0517 5407 3249 31")]),
        ("GB33BUKB20201555555555", [("iban", "GB33BUKB20201555555555")]),
        ("SSN: 219-09-9999", [("us_ssn", "219-09-9999")]),
        ("social security 219099999", [("us_ssn", "219099999")]),
        ("from 10.0.0.255, port 80", [("ip_address", "10.0.0.255")]),
        ("at 2001:db8::8a2e:370:7334", [("ip_address", "2001:db8::8a2e:370:7334")]),
    ],
)
def test_what_is_personal_is_found_whole(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # wrong check digit
        "9999999999999995",  # no card scheme
        "1 6 7 4 6 6 7 5 6 0 0 7 3 4 5 7 5",  # a list of digits
        "x16b686067375182573e2aa1",  # a hash
        "DE45 5001 0517 5407 3249 31",
        "XX44 5001 0517 5407 3249 31",
        "666-12-3456",
        "order 219099999",
        "2026-11-22",
        "on 2026-11-22 the phone rang",
        "version 1.2.3.4",
        "256.1.1.1",
        "1.2.3.4.5",
        "12:30:45",
        "std::vector",
        "a :: b",
        "user@localhost",
        "@anna",
        "£12,345,678",
        "NPI: 2327700458",
        "look at example.com",
    ],
)
def test_what_only_looks_personal_is_left(text: str) -> None:
    assert found(text) == []


def test_a_card_is_found_behind_a_stray_digit() -> None:
    assert ("credit_card", "4111 1111 1111 1111") in found("room 5 4111 1111 1111 1111")


def test_types_select_what_is_looked_for() -> None:
    only = pii.build({"types": ["email"]})
    assert [f.rule for f in only("a@b.co from 10.0.0.1")] == ["email"]


def test_an_unknown_option_or_type_offers_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown option 'type'; did you mean 'types'"):
        pii.build({"type": ["email"]})
    with pytest.raises(BadInput, match="did you mean 'credit_card'"):
        pii.build({"types": ["credit-card"]})
    with pytest.raises(BadInput, match="must be a list"):
        pii.build({"types": "email"})


SEEDS = [
    "1",
    "1 ",
    "1-",
    "(",
    "+1",
    "a@",
    "a.a@",
    "a@a.",
    "@",
    "A1 ",
    "DE44 ",
    "1.",
    "f:",
    "::",
    "555-",
    "x at a dot ",
]


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_text_takes_linear_time(seed: str) -> None:
    text = (seed * 40_000)[:40_000]
    started = time.process_time()
    DETECT(text)
    assert time.process_time() - started < 2


def test_every_card_prefix_needs_its_check_digit() -> None:
    assert [is_card(number) for number in ("5555555555554444", "5555555555554443")] == [True, False]
    assert [is_card(number) for number in ("6011111111111117", "3530111333300000")] == [True, True]
    assert not is_card("0000000000000000")
    assert not is_card("350000000000006")


def test_iban_lengths_are_by_country() -> None:
    assert (IBAN_LENGTHS["NO"], IBAN_LENGTHS["LC"]) == (15, 32)
    assert is_iban("NO9386011117947")
    assert not is_iban("NO938601111794")
