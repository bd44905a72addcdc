from __future__ import annotations

from typing import Any

from registry.entities import PromptContent, PromptMessage
from registry.ids import digest
from registry.promptdiff import Side, describe, diff
from registry.versions import plain

DIGEST = "sha256:" + "a" * 64


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


OLD = PromptContent(
    (PromptMessage("system", "Be brief."), PromptMessage("user", "{{ q }}")),
    {"q": "text"},
    tools=(tool("a"), tool("b")),
    response_schema={"type": "object"},
)
NEW = PromptContent(
    (PromptMessage("system", "Be brief."), PromptMessage("user", "{{ q }} for {{ n }}{% include 'x' %}")),
    {"q": "text", "n": "integer"},
    None,
    {"x": DIGEST},
    (tool("b", type="object"), tool("c")),
    {"type": "array"},
)


def test_a_diff_says_what_changed_and_shows_both() -> None:
    answer = diff(Side("p:1", OLD), Side("p:2", NEW, {DIGEST: "!"}), {"q": "tea", "n": 2})
    assert answer == {
        "same": False,
        "a": {"title": "p:1", "digest": digest(plain(OLD))},
        "b": {"title": "p:2", "digest": digest(plain(NEW))},
        "templates": "--- p:1\n+++ p:2\n@@ -2,5 +2,5 @@\n Be brief.\n \n # user\n-{{ q }}\n"
        "+{{ q }} for {{ n }}{% include 'x' %}\n ",
        "variables": {"added": {"n": "integer"}, "removed": {}, "changed": {}},
        "partials": {"added": {"x": DIGEST}, "removed": {}, "changed": {}},
        "tools": {
            "added": {"c": tool("c")},
            "removed": {"a": tool("a")},
            "changed": {"b": [tool("b"), tool("b", type="object")]},
        },
        "response_schema": "--- p:1\n+++ p:2\n@@ -1,3 +1,3 @@\n {\n"
        '-  "type": "object"\n+  "type": "array"\n }',
        "rendered": {
            "same": False,
            "a": {"messages": messages("tea"), "error": None},
            "b": {"messages": messages("tea for 2!"), "error": None},
        },
    }
    lines = describe(answer).split("\n")
    assert "+ variables.n: integer" in lines
    assert "- tools.a: " + '{"function": {"name": "a", "parameters": {}}, "type": "function"}' in lines
    assert f"{'tea':<58} | tea for 2!" in lines


def messages(user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": user}]


def test_the_same_prompt_has_no_diff() -> None:
    answer = diff(Side("a", OLD), Side("b", OLD))
    assert (answer["same"], answer["templates"], answer["rendered"]["same"]) == (True, "", True)
    assert describe(answer) == "a and b are the same"


def test_where_no_value_is_given_an_example_stands() -> None:
    content = PromptContent(
        (PromptMessage("user", "{{ t }} {{ i }} {{ b }} {{ l }}"),),
        {"t": "text", "i": "integer", "b": "boolean", "l": "list"},
    )
    rendered = diff(Side("a", content), Side("b", content), {"i": 7})["rendered"]["a"]
    assert rendered == {"messages": [{"role": "user", "content": "<t> 7 True ['<l>']"}], "error": None}


def test_a_prompt_that_cannot_be_rendered_says_why() -> None:
    content = PromptContent((PromptMessage("user", "{{ o.a }}"),), {"o": "object"})
    answer = diff(Side("a", OLD), Side("b", content))
    assert answer["rendered"]["b"]["messages"] is None
    assert "it uses an attribute" in answer["rendered"]["b"]["error"]
    assert "cannot be rendered" in describe(answer)
