from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.entities import PromptContent, PromptMessage, Role, VariableType
from registry.errors import BadInput, BadTemplate
from registry.promptfile import parse_file, write_file

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
FULL = """---
# reviewed by Ann
name: support
variables:
  question: text
  user: object
partials: {tone: house-tone:3}
tools:
  - type: function
    function: {name: look_up, parameters: {type: object, properties: {key: {type: string}}}}
response_schema:
  type: object
  required: [answer]
---
# system
{% include "tone" %}
---
\\# user
# User

# user
{{ question }} from {{ user.name }}
"""


def test_a_file_holds_all_of_a_prompt() -> None:
    messages = (
        PromptMessage("system", '{% include "tone" %}\n---\n# user\n# User'),
        PromptMessage("user", "{{ question }} from {{ user.name }}"),
    )
    assert parse_file(FULL) == (
        "support",
        PromptContent(
            messages,
            {"question": "text", "user": "object"},
            None,
            {"tone": "house-tone:3"},
            (TOOL,),
            {"type": "object", "required": ["answer"]},
        ),
    )


def test_a_text_prompt_has_no_headings() -> None:
    text = "---\nname: tone\nkind: text\n---\n# user\nBe kind.\n---\n"
    content = PromptContent((PromptMessage("user", "# user\nBe kind.\n---"),), kind="text")
    assert parse_file(text) == ("tone", content)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: "\ufeff" + t,
        lambda t: t + "\n\n",
        lambda t: t.rstrip(),
        lambda t: t.replace("# user\n{{", "# user \t\n\n{{"),
        lambda t: t.replace("---\n# reviewed", "--- \n# reviewed"),
    ],
)
def test_what_editors_change_is_the_same_prompt(change: Any) -> None:
    assert parse_file(change(FULL)) == parse_file(FULL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# user\nhi", "p.md: begin with a line ---"),
        ("---\nname: a\n---\nhi", "p.md: after --- comes a heading"),
        ("---\nname: a\nvars: {}\n---\n# user\nhi", "p.md:3: vars: unknown key; did you mean 'variables'?"),
        ("---\nvariables: {}\n---\n# user\nhi", "key 'name' is missing"),
        ("---\nname: A\n---\n# user\nhi", "p.md: name 'A' is not"),
        (
            "---\nname: a\nvariables: {q: string}\n---\n# user\n{{ q }}",
            "p.md:3: variables.q: 'string' is not one of",
        ),
        (
            "---\nname: a\nkind: text\ntools: [{type: function, function: {name: f}}]\n---\nhi",
            "neither tools nor",
        ),
        (
            "---\nname: a\nresponse_schema: {type: text}\n---\n# user\nhi",
            "p.md: response_schema.type: expected one",
        ),
        ("---\nname: a\ntools: [{type: web}]\n---\n# user\nhi", "p.md: tools: each is {type: function"),
        (
            "---\nname: a\npartials: {x: 'B!'}\n---\n# user\n{% include 'x' %}",
            "p.md: partials.x: 'B!' is not a",
        ),
        ("---\nname: a\npartials: {x: b}\n---\n# user\nhi", "partials differ"),
        ("---\nname: a\nvariables: {q: text}\n---\n# user\nhi", "p.md: variables differ"),
        ("---\nname: a\n---\n# user\n{% if %}", "p.md: message 1 (user), line 1"),
        ("---\nname: [\n---\n# user\nhi", "p.md:3: not valid YAML"),
    ],
)
def test_a_malformed_file_is_refused_by_line_or_key(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_file(text, source="p.md")
    assert message in caught.value.message


def test_a_template_error_keeps_its_kind() -> None:
    with pytest.raises(BadTemplate):
        parse_file("---\nname: a\n---\n# user\n{{ q }}")


NASTY = st.sampled_from(
    ["# user", "\\# user", "\\\\# system\t", "# assistant ", "---", "\n", "\r\n", "\r", " ", "\u2028", "\x85",
     "é", "😀", "#", "name: x", "```", "\ufeff", "\x1f"]
)  # fmt: skip
TEXTS = st.lists(NASTY, max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="{}\0"), max_size=40
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
    | st.sampled_from(["on", "null", "2026-01-01", "1e3", "0x1F", "1_000", "=", "<<", "~", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def contents(draw: st.DrawFn) -> PromptContent:
    name = st.from_regex(r"[a-z_]{1,8}|on|yes|null_|é", fullmatch=True)
    kinds = st.sampled_from(["text", "number", "integer", "boolean", "list", "object"])
    declared = draw(
        st.dictionaries(name.filter(lambda n: n.isidentifier() and n not in RESERVED), kinds, max_size=3)
    )
    uses = "".join(f"{{{{ {name} }}}}" for name in declared)
    kind = draw(st.sampled_from(["text", None]))
    roles = st.just("user") if kind else st.sampled_from(["system", "user", "assistant"])
    some = draw(st.lists(st.tuples(roles, TEXTS), min_size=1, max_size=1 if kind else 4))
    messages = [PromptMessage(cast("Role", role), text) for role, text in some]
    messages[0] = PromptMessage(messages[0].role, messages[0].content + uses)
    extra = draw(st.dictionaries(st.just("examples"), st.lists(JSON, max_size=2)))
    schema = None if kind else draw(st.none() | st.just({"type": "object", "default": draw(JSON), **extra}))
    return PromptContent(
        tuple(messages), cast("dict[str, VariableType]", declared), "text" if kind else None, None,
        (TOOL,) if not kind and draw(st.booleans()) else None, schema,
    )  # fmt: skip


RESERVED = {
    "if",
    "in",
    "is",
    "or",
    "not",
    "and",
    "else",
    "none",
    "true",
    "false",
    "self",
    "dict",
    "range",
    "namespace",
}


@given(contents())
def test_a_written_prompt_reads_back_as_it_was(content: PromptContent) -> None:
    text = write_file("name", content)
    assert parse_file(text) == ("name", content)
    assert write_file(*parse_file(text)) == text
