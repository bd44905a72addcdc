from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import imports, labels, prompts
from registry.entities import PromptContent, PromptMessage
from registry.errors import BadInput
from registry.imports import Source
from registry.imports.base import Piece, double_braces, jinja
from registry.refs import Ref
from registry.templates import compile_prompt
from registry.workspace import Workspace

from .conftest import NOW

EXPORTS = Path(__file__).parent / "exports"


def store(workspace: Workspace, source: Source, file: Path | None = None) -> Any:
    found = imports.read_file(file or EXPORTS / f"{source}.json", source)
    with workspace.writing() as connection:
        return imports.store(connection, found, source, actor="ann", now=NOW)["prompts"]


def read(tmp_path: Path, source: Source, data: object, name: str | None = None) -> list[imports.Imported]:
    (tmp_path / "export.json").write_text(json.dumps(data))
    return imports.read_file(tmp_path / "export.json", source, name)


def content(workspace: Workspace, name: str, number: int) -> PromptContent:
    with workspace.reading() as connection:
        return prompts.get(connection, Ref(name, number=number))[1]


def told(entry: dict[str, Any]) -> tuple[Any, ...]:
    left = [one["label"] for one in entry["labels_left"]]
    return entry["source"], entry["number"], entry["labels"], left, entry["dropped"]


def test_langfuse_prompts_come_in_their_order_with_their_labels(workspace: Workspace) -> None:
    [prompt] = store(workspace, "langfuse")
    assert (prompt["name"], prompt["source_name"]) == ("movie-critic", "Movie/Critic")
    assert [told(entry) for entry in prompt["versions"]] == [
        ("1", 1, ["first"], ["Old One"], ["tags"]),
        ("2", 2, ["staging"], ["production"], ["config.model", "config.temperature", "tags"]),
    ]
    text = PromptMessage("user", "As a {{ level }} movie critic, do you like {{ movie }}?")
    assert content(workspace, "movie-critic", 1) == PromptContent(
        (text,), {"level": "text", "movie": "text"}, kind="text"
    )
    chat = content(workspace, "movie-critic", 2)
    assert compile_prompt(chat)({"level": "kind", "movie": "Up"}) == [
        {"role": "system", "content": 'You are a kind critic. JSON looks like {"a": {}}.'},
        {"role": "user", "content": "Is Up good? {% not jinja %}"},
    ]
    assert [tool["function"]["name"] for tool in chat.tools or ()] == ["rate"]
    assert chat.response_schema == {"type": "object", "required": ["stars"]}
    with workspace.reading() as connection:
        version = labels.resolve(connection, Ref("movie-critic", alias="staging"))
    assert (version.number, version.meta["source_version"]) == (2, "2")
    assert store(workspace, "langfuse") == [prompt]


def test_mlflow_prompts_come_with_aliases_and_schema(workspace: Workspace) -> None:
    [prompt] = store(workspace, "mlflow")
    assert prompt["name"] == "support_answer"
    assert [told(entry) for entry in prompt["versions"]] == [
        ("1", 1, [], ["champion"], []),
        ("2", 2, ["staging"], [], ["model_config", "tag team"]),
    ]
    first = content(workspace, "support_answer", 1)
    assert first.variables == {"question": "text", "user": "object"}
    rendered = compile_prompt(first)({"question": "all", "user": {"name": "Ann"}})
    assert rendered[0]["content"] == 'Answer all for Ann as {"json": {{}}}.'
    second = content(workspace, "support_answer", 2)
    assert second.variables == {"docs": "list", "question": "text"}
    assert second.response_schema == {"type": "object", "properties": {"answer": {"type": "string"}}}
    values = {"docs": [{"text": "a"}, {"text": "b"}], "question": "q"}
    assert compile_prompt(second)(values)[0] == {"role": "system", "content": "a\nb"}


def test_langsmith_commits_come_from_old_to_new(workspace: Workspace) -> None:
    [prompt] = store(workspace, "langsmith")
    assert prompt["name"] == "support-answer"
    assert [told(entry) for entry in prompt["versions"]] == [
        ("aaaa1111", 1, [], ["production"], []),
        ("bbbb2222", 2, ["staging"], [], ["model", "model.tool_choice"]),
    ]
    first, second = (content(workspace, "support-answer", number) for number in (1, 2))
    assert compile_prompt(first)({"question": "me"}) == [
        {"role": "system", "content": "Use {{ and }} as they are."},
        {"role": "user", "content": 'Say {"a": 1} to me'},
    ]
    assert compile_prompt(second)({"question": "<why>", "user": {"name": "Ann"}}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<why> Ann"},
    ]
    assert [tool["function"]["name"] for tool in second.tools or ()] == ["look_up"]


def lc(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", kind], "kwargs": kwargs}


def human(template: str, form: str = "f-string", **more: Any) -> dict[str, Any]:
    return lc(
        "HumanMessagePromptTemplate",
        prompt=lc("PromptTemplate", template=template, template_format=form, **more),
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lc("MessagesPlaceholder", variable_name="history"), "placeholder for messages ('history')"),
        (lc("FewShotChatMessagePromptTemplate"), "message 1: FewShotChatMessagePromptTemplate, which has no"),
        (human("{{#each}}x{{/each}}", "mustache"), "message 1: a mustache section ({{#each}})"),
        (human("{{^no}}x{{/no}}", "mustache"), "a mustache inverted section"),
        (human("{{> other}}", "mustache"), "a mustache partial"),
        (human("{{=<% %>=}}", "mustache"), "a mustache change of delimiters"),
        (human("{{.}}", "mustache"), "variable '.'"),
        (human("{x:>10}"), "message 1: {x} with a format"),
        (human("{x!r}"), "message 1: {x} with a format"),
        (human("{x.y}"), "message 1: {x.y} with a format"),
        (human("{x"), "message 1: no f-string"),
        (human("{if}"), "variable 'if'"),
        (human("x", "twig"), "message 1: the template format 'twig'"),
        (human("{% import 'os' as x %}", "jinja2"), "import is not for prompts"),
        (human("{x}", partial_variables={"x": "1"}), "message 1: values given ahead"),
        (lc("HumanMessagePromptTemplate", prompt=[lc("PromptTemplate"), lc("ImagePromptTemplate")]),
         "message 1: 2 parts"),
        (lc("ChatMessage", role="tool", content="x"), "a message of role 'tool'"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_in_langsmith_is_refused_by_name(
    tmp_path: Path, message: dict[str, Any], reason: str
) -> None:
    found = read(
        tmp_path, "langsmith", {"repo": "p", "manifest": lc("ChatPromptTemplate", messages=[message])}
    )
    [refusal] = imports.refusals(found)
    assert refusal.startswith("p 1: ")
    assert reason in refusal


def test_a_structured_and_a_text_prompt_of_langsmith_are_read(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    both = [
        {"repo": "p", **lc("StructuredPrompt", messages=[human("{{ q }}", "jinja2")], schema_=schema)},
        lc("PromptTemplate", template="Hi {name}", template_format="f-string"),
    ]
    structured, text = (read(tmp_path, "langsmith", one, "p")[0].versions[0].content for one in both)
    assert structured == PromptContent(
        (PromptMessage("user", "{{ q }}"),), {"q": "text"}, response_schema=schema
    )
    assert text == PromptContent((PromptMessage("user", "Hi {{ name }}"),), {"name": "text"}, kind="text")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([{"type": "placeholder", "name": "history"}], "message 1: a placeholder for messages ('history')"),
        ([{"role": "tool", "content": "x"}], "a message of role 'tool'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1: expected text, got list"),
        ([{"role": "user", "content": "{{user name}}"}], "variable 'user name'"),
        (
            [{"role": "user", "content": "@@@langfusePrompt:name=x|version=1@@@"}],
            "a reference to another prompt",
        ),
    ],
)
def test_what_has_no_counterpart_in_langfuse_is_refused_by_name(
    tmp_path: Path, prompt: Any, reason: str
) -> None:
    found = read(tmp_path, "langfuse", {"name": "p", "version": 3, "type": "chat", "prompt": prompt})
    [refusal] = imports.refusals(found)
    assert refusal.startswith("p 3: ")
    assert reason in refusal


@pytest.mark.parametrize(
    ("source", "data", "reason"),
    [
        ("langfuse", {"name": "p"}, "prompt 1: no prompt and version"),
        ("langfuse", [1], "prompt 1: expected an object, got int"),
        ("langfuse", {"data": {}}, "the export: expected a list"),
        ("mlflow", {"prompts": []}, "neither registered_models nor model_versions"),
        ("mlflow", {"model_versions": []}, "no prompt version in the export"),
        ("mlflow", [{"name": "a", "version": "x", "tags": {"mlflow.prompt.is_prompt": "true"}}],
         "version 'x' is no number"),
        ("langsmith", {"manifest": lc("ChatPromptTemplate")}, "commit 1: no repo; give the prompt a --name"),
        ("langsmith", {"x": 1}, "neither a commit with a manifest nor"),
        ("langfuse", [{"name": n, "version": 1, "prompt": "x"} for n in ("a b", "a-b")], "named 'a-b'"),
        ("langfuse", {"name": "ß", "version": 1, "prompt": "x"}, "give it another name"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(tmp_path: Path, source: Source, data: object, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, source, data)
    assert caught.value.message.startswith(f"{tmp_path / 'export.json'}: ")
    assert reason in caught.value.message


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"{")
    for path, reason in ((tmp_path / "bad.json", "not JSON"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(BadInput, match=reason):
            imports.read_file(path, "mlflow")


def test_refused_versions_are_left_out_of_what_is_stored(workspace: Workspace, tmp_path: Path) -> None:
    data = [
        {"name": "p", "version": 1, "type": "chat", "prompt": [{"type": "placeholder", "name": "h"}]},
        {"name": "p", "version": 2, "type": "text", "prompt": "hi"},
    ]
    (tmp_path / "export.json").write_text(json.dumps(data))
    [prompt] = store(workspace, "langfuse", tmp_path / "export.json")
    assert [(entry.get("number"), "refused" in entry) for entry in prompt["versions"]] == [
        (None, True),
        (1, False),
    ]


BRACES = st.text(st.sampled_from(list("ab {}%#-\"'\n!")), max_size=40)


@given(BRACES)
def test_text_renders_to_itself_whatever_it_looks_like(text: str) -> None:
    template = jinja([Piece("text", text)])
    rendered = compile_prompt(PromptContent((PromptMessage("user", template),)))({})
    assert rendered[0]["content"] == text.strip()


@given(BRACES, BRACES)
def test_only_double_braces_around_a_name_are_a_variable(before: str, after: str) -> None:
    before, after = before.replace("{{", "{"), after.replace("{{", "{")
    template = double_braces(before.rstrip("{") + "{{name}}" + after.lstrip("}"))
    rendered = compile_prompt(PromptContent((PromptMessage("user", template),), {"name": "text"}))(
        {"name": "X"}
    )
    assert rendered[0]["content"] == (before.rstrip("{") + "X" + after.lstrip("}")).strip()
