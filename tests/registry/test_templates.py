from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.entities import PromptContent, PromptMessage, VariableType
from registry.errors import BadTemplate
from registry.sandbox import MAX_OUTPUT, MAX_TEMPLATE
from registry.templates import compile_prompt, includes, parse_values, pin_includes, variables

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GROW = "{% set ns = namespace(x=@) %}{% for i in range(60) %}{% set ns.x = # %}{% endfor %}{{ ns.x|length }}"


def prompt(text: str, names: dict[str, str] | None = None, **declared: VariableType) -> PromptContent:
    return PromptContent((PromptMessage("user", text),), declared, partials=names)


def rendered(text: str, **values: Any) -> str:
    kinds: dict[type, VariableType] = {str: "text", float: "number", int: "integer", bool: "boolean",
                                       list: "list", dict: "object"}  # fmt: skip
    declared = {name: kinds[type(value)] for name, value in values.items()}
    return compile_prompt(prompt(text, None, **declared))(values)[0]["content"]


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{{ a }} + {{ b }}", {"a": 1, "b": 2.5}, "1 + 2.5"),
        ("{% if yes %}y{% else %}n{% endif %}", {"yes": True}, "y"),
        ("{{ o.a }}{{ o['b'] }}", {"o": {"a": 1, "b": "z"}}, "1z"),
        ("{% for p in l %}{{ loop.index }}/{{ loop.length }}{{ p }}{% endfor %}", {"l": ["x"]}, "1/1x"),
        ("{{ l | map(attribute='t') | join(', ') | upper }}", {"l": [{"t": "x"}, {"t": "y"}]}, "X, Y"),
        ("{{ o | tojson(indent=2) }}", {"o": {"a": [1]}}, '{\n  "a": [\n    1\n  ]\n}'),
        ("{% for k, v in o.items() %}{{ k }}={{ v }}{% endfor %}", {"o": {"a": 1}}, "a=1"),
        ("{{ 'a' ~ n }} {{ n % 3 }} {{ [3, 1] | sort }} {{ t.strip().title() }}", {"n": 4, "t": " x y "},
         "a4 1 [1, 3] X Y"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(t) }}{% filter upper %}{{ t }}{% endfilter %}",
         {"t": "q"}, "<q>Q"),
    ],
)  # fmt: skip
def test_templates_do_what_prompts_need(text: str, values: dict[str, Any], expected: str) -> None:
    assert rendered(text, **values) == expected


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("text", "x", 1), ("number", 1, True), ("number", 1.5, "1"), ("integer", 3, 3.0),
        ("integer", 0, False), ("boolean", False, 0), ("list", [1], "a"), ("object", {"a": 1}, [1]),
    ],
)  # fmt: skip
def test_values_have_exactly_the_declared_type(kind: VariableType, good: object, bad: object) -> None:
    render = compile_prompt(prompt("{{ hidden }}", hidden=kind))
    assert render({"hidden": good})[0]["content"] == str(good)
    with pytest.raises(BadTemplate) as caught:
        render({"hidden": bad})
    assert caught.value.message == f"variable 'hidden' must be {kind}, got {type(bad).__name__}"


def test_a_missing_and_an_unknown_variable_are_both_named() -> None:
    with pytest.raises(BadTemplate, match=r"missing variables \['q'\], unknown variables \['r'\]"):
        compile_prompt(prompt("{{ q }}", q="text"))({"r": "hush"})


def test_an_error_names_message_and_line_but_no_value() -> None:
    render = compile_prompt(prompt("one\n{{ o[key] }}", o="object", key="text"))
    with pytest.raises(BadTemplate) as caught:
        render({"o": {"a": 1}, "key": "hush"})
    assert caught.value.message == (
        "message 1 (user), line 2 cannot be rendered: "
        "it uses an attribute or element that its variable does not have"
    )


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 2 ** (10 ** 9) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a\n' | indent(1000000000) }}",
        "{{ ['x'] | map('center', 1000000000) | list }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a'.expandtabs(1000000000) }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ [1] | slice(1000000000) | list }}",
        "{{ 1.5 | round(1000000000) }}",
        "{{ [[1]] | tojson(indent=1000000000) }}",
        "{{ range(1000000000) }}",
        "{{ range(99999) | join('a' * 10000) }}",
        "{{ ',' .join(['a' * 100000] * 100000) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% set x %}{% for i in range(99999) %}" + "y" * 1000 + "{% endfor %}{% endset %}{{ x | length }}",
        "{% for i in range(99999) %}{% set y = ('a' * 50000)[:] %}{% endfor %}",
        "{% for i in range(99999) %}" + "{% if 1 %}{% endif %}" * 900 + "{% endfor %}",
        GROW.replace("@", "'a'").replace("#", "ns.x ~ ns.x"),
        GROW.replace("@", "'a'").replace("#", "ns.x + ns.x"),
        GROW.replace("@", "[1]").replace("#", "ns.x + ns.x"),
        GROW.replace("@", "[1]").replace("#", "[ns.x, ns.x]") + "{{ ns.x }}",
        GROW.replace("@", "[1]").replace("#", "[ns.x, ns.x]") + "{{ ns.x | tojson }}",
        GROW.replace("@", "[1]").replace("#", "[ns.x, ns.x]") + "{{ ns.x == ns.x }}",
        GROW.replace("@", "3").replace("#", "ns.x * ns.x"),
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ 1" + " + 1" * 15000 + " }}",
        "{% for i in [1] %}" * 30 + "x" + "{% endfor %}" * 30,
        "a" * (MAX_TEMPLATE + 1),
    ],
)
def test_a_bomb_is_refused_quickly(bomb: str) -> None:
    started = time.process_time()
    with pytest.raises(BadTemplate):
        compile_prompt(prompt(bomb))({})
    assert time.process_time() - started < 5


def test_more_output_than_anybody_needs_is_refused() -> None:
    assert len(rendered("{% for i in range(40) %}{{ t }}{% endfor %}", t="a" * 100_000)) == MAX_OUTPUT
    with pytest.raises(BadTemplate, match=f"produces more than {MAX_OUTPUT} characters"):
        rendered("{% for i in range(41) %}{{ t }}{% endfor %}", t="a" * 100_000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ ''.__class__ }}", "it reaches for what is unsafe"),
        ("{{ 'x'['__class__'] }}", "it reaches for what is unsafe"),
        ("{{ self._TemplateReference__context }}", "it reaches for what is unsafe"),
        ("{{ ''|attr('__class__') }}", "no filter 'attr' here"),
        ("{{ [].append(1) }}", "it reaches for what is unsafe"),
        ("{% extends 'x' %}", "extends is not for prompts"),
        ("{% import 'x' as y %}", "import is not for prompts"),
        ("{% from 'x' import y %}", "fromimport is not for prompts"),
        ("{% block a %}{% endblock %}", "block is not for prompts"),
        ("{% include name %}", "with a name and nothing else"),
        ("{% include 'a' ignore missing %}", "with a name and nothing else"),
        ("{% include 'a' without context %}", "with a name and nothing else"),
        ("{{ 1 / 0 }}", "it computes what cannot be (ZeroDivisionError)"),
        ("{% if %}", "line 1: Expected an expression"),
    ],
)
def test_what_no_prompt_needs_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        compile_prompt(prompt(text))({})
    assert reason in caught.value.message


def test_partials_include_partials_and_see_the_variables() -> None:
    content = prompt("A{% include 'tone' %}B", {"tone": A}, q="text")
    partials = {A: pin_includes("[{% include 'mark' %}]", {"mark": B}), B: "<{{ q }}>"}
    assert compile_prompt(content, partials)({"q": "x"}) == [{"role": "user", "content": "A[<x>]B"}]


@pytest.mark.parametrize(
    ("text", "names", "partials", "reason"),
    [
        ("{% include 'tone' %}", {"tone": A}, {}, "partial 'tone' (aaaaaaaaaaaa) is not given"),
        ("{% include 'tone' %}", None, {}, "partials differ: used but not declared ['tone']"),
        (
            "hi",
            {"tone": A},
            {A: "x"},
            "partials differ: used but not declared [], declared but not used ['tone']",
        ),
        (
            "{% include 'tone' %}",
            {"tone": A},
            {A: "{{ q }}"},
            "variables differ: used but not declared ['q']",
        ),
        ("{% include 'tone' %}", {"tone": A}, {A: "{% if %}"}, "partial 'tone', line 1"),
        (
            "{% include 'tone' %}",
            {"tone": A},
            {A: f'{{% include "{A}" %}}'},
            "include each other more than 16 deep",
        ),
    ],
)
def test_partials_that_do_not_fit_are_refused(
    text: str, names: dict[str, str] | None, partials: dict[str, str], reason: str
) -> None:
    with pytest.raises(BadTemplate) as caught:
        compile_prompt(prompt(text, names), partials)
    assert reason in caught.value.message


def test_partials_that_multiply_are_paid_for() -> None:
    digests = [f"sha256:{number:064}" for number in range(12)]
    partials = {one: f'{{% include "{more}" %}}' * 40 for one, more in pairwise(digests)}
    partials[digests[-1]] = ""
    with pytest.raises(BadTemplate, match="takes more than"):
        compile_prompt(prompt("{% include 'a' %}", {"a": digests[0]}), partials)({})


def test_threads_render_with_a_budget_each() -> None:
    render = compile_prompt(prompt("{% for i in range(n) %}{{ i }},{% endfor %}", n="integer"))
    expected = "".join(f"{i}," for i in range(20_000))
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(render({"n": 20_000})[0]["content"] == expected))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_values_are_read_by_their_type() -> None:
    declared = {"q": "text", "n": "integer", "l": "list", "b": "boolean"}
    words = ["q=a=b", "n=3", 'l=["x"]', "b=true"]
    assert parse_values(declared, words) == {"q": "a=b", "n": 3, "l": ["x"], "b": True}
    for word in ("q", "other=1", "n=hush", "n=1.5", "b=1"):
        with pytest.raises(BadTemplate) as caught:
            parse_values(declared, [word])
        assert "hush" not in caught.value.message


def test_the_types_of_variables_are_guessed_from_their_use() -> None:
    text = "{{ a }}{% for x in items %}{{ x.t }}{% endfor %}{{ user.name }}{{ d['k'] }}"
    assert variables(text) == {"a": "text", "items": "list", "user": "object", "d": "object"}
    assert includes("{% include 'a' %}{% if 1 %}{% include 'b' %}{% endif %}") == {"a", "b"}


@given(st.text(alphabet=st.sampled_from(list("ab {}%#-'\"\\\n\tincludexyz")), max_size=60))
def test_pinning_includes_changes_nothing_else(text: str) -> None:
    try:
        before = compile_prompt(prompt(text))({})
    except BadTemplate:
        return
    assert compile_prompt(prompt(pin_includes(text, {"other": A})))({}) == before
