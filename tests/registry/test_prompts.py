from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from registry import labels, prompts, tables
from registry.entities import PromptContent, PromptMessage, ReleaseContent, Version
from registry.errors import BadInput, BadTemplate, NotFound
from registry.ids import digest_bytes
from registry.refs import Ref, parse_ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace

from .conftest import NOW, House

TONE = "---\nname: house-tone\nkind: text\n---\nBe kind.\n"
SUPPORT = """---
name: support   # reviewed
variables: {question: text}
partials: {tone: house-tone}
---
# system
{% include "tone" %}

# user
{{ question }}
"""


def push(workspace: Workspace, *texts: str) -> list[Version]:
    files = [prompts.read(text, f"{number}.md") for number, text in enumerate(texts)]
    with workspace.writing() as connection:
        return [version for _, version, _ in prompts.push_files(connection, files, actor="ann", now=NOW)]


def pulled(workspace: Workspace, ref: str) -> tuple[str, bool]:
    with workspace.reading() as connection:
        answer = prompts.pull(connection, parse_ref(ref))
    return answer["file"], answer["as_pushed"]


def test_a_file_comes_back_byte_for_byte(workspace: Workspace) -> None:
    texts = [TONE, SUPPORT, SUPPORT.replace("\n", "\r\n").replace("support", "crlf")]
    push(workspace, *texts)
    names = ("house-tone", "support", "crlf")
    assert [pulled(workspace, name) for name in names] == [(text, True) for text in texts]


def test_the_newest_text_of_a_version_is_kept_and_recorded(workspace: Workspace) -> None:
    [first] = push(workspace, TONE)
    changed = TONE.replace("kind: text", "kind: text  # short")
    assert push(workspace, changed) == [first]
    assert pulled(workspace, "house-tone:1") == (changed, True)
    with workspace.reading() as connection:
        query = select(tables.audit.c.target).where(tables.audit.c.action == "prompt.file")
        assert connection.execute(query).scalars().all() == ["prompt-file/house-tone:1"]


@pytest.mark.parametrize(
    "text", ["nonsense", TONE.replace("kind.", "rude."), TONE.replace("house-tone", "other")]
)
def test_a_kept_text_that_says_something_else_is_not_given_back(workspace: Workspace, text: str) -> None:
    push(workspace, TONE)
    with workspace.writing() as connection:
        connection.execute(update(tables.prompt_files).values(text=text))
    assert pulled(workspace, "house-tone") == (TONE, False)


WORDS = st.lists(
    st.sampled_from(
        ["Hi", " ", "\n", "\r\n", "\t", "---", "# user", "\\# user", "é😀", "{{ q }}", "{# note #}", "%"]
    ),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=tmp_path_factory.mktemp("shared"))) as opened:
        yield opened


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=WORDS, comment=WORDS, end=st.sampled_from(["", "\n", "\r\n", "\n\n", " \n"]), bom=st.booleans())
def test_pull_gives_back_the_bytes_that_were_pushed(
    shared: Workspace, body: str, comment: str, end: str, bom: bool
) -> None:
    note = "".join(f"# {line}\n" for line in comment.split("\n")).replace("\r", "")
    uses = "{{ q }}" if "{{ q }}" not in body else ""
    start = "\ufeff" if bom else ""
    text = f"{start}---\n{note}name: p\nvariables: {{q: text}}\n---\n# user\n{uses}{body}{end}"
    push(shared, text)
    assert pulled(shared, "p@" + push(shared, text)[0].digest) == (text, True)


def test_a_partial_is_pinned_when_the_prompt_is_pushed(workspace: Workspace) -> None:
    tone, first = push(workspace, SUPPORT, TONE)[::1]
    assert (tone.name, first.content["partials"]) == ("house-tone", {"tone": tone.digest})
    push(workspace, TONE.replace("kind.", "very kind."))
    with workspace.reading() as connection:
        answer = prompts.render(connection, Ref("support"), {"question": "Why?"})
    assert answer["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]
    [second] = push(workspace, SUPPORT)
    assert second.number == 2
    assert pulled(workspace, "support:1") == (SUPPORT, True)


def test_partials_are_pinned_by_number_label_and_digest(workspace: Workspace) -> None:
    [tone] = push(workspace, TONE)
    with workspace.writing() as connection:
        labels.move(connection, tone, "approved", actor="ann", now=NOW)
    push(workspace, TONE.replace("kind.", "rude."))
    for ref in ("house-tone:1", "house-tone@approved", f"house-tone@{tone.digest}", f"'{tone.digest}'"):
        [version] = push(workspace, SUPPORT.replace("tone: house-tone", f"tone: {ref}"))
        assert version.content["partials"] == {"tone": tone.digest}


def test_partials_nest_and_each_names_its_own(workspace: Workspace) -> None:
    push(
        workspace,
        "---\nname: outer\npartials: {a: middle}\nvariables: {q: text}\n---\n# user\n<{% include 'a' %}>",
        "---\nname: middle\nkind: text\npartials: {a: inner}\nvariables: {q: text}\n---\n[{% include 'a' %}]",
        "---\nname: inner\nkind: text\nvariables: {q: text}\n---\n{{ q }}",
    )
    with workspace.reading() as connection:
        answer = prompts.render(connection, Ref("outer"), {"q": "x"})
        assert answer["messages"] == [{"role": "user", "content": "<[x]>"}]
        assert prompts.render(connection, Ref("middle"), {"q": "x"})["text"] == "[x]"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (SUPPORT, NotFound, "0.md: no prompt house-tone in the registry"),
        (
            SUPPORT.replace("house-tone", "chatty"),
            BadInput,
            "0.md: partials.tone: prompt chatty:1 is no prompt of",
        ),
        (SUPPORT.replace("house-tone", "support"), NotFound, "0.md: no prompt support in the registry"),
        (
            SUPPORT.replace("house-tone", "asks"),
            BadTemplate,
            "0.md: variables differ: used but not declared ['x']",
        ),
    ],
)
def test_a_partial_that_cannot_be_is_refused(
    workspace: Workspace, text: str, error: type[Exception], message: str
) -> None:
    push(workspace, "---\nname: chatty\n---\n# user\nhi")
    push(workspace, "---\nname: asks\nkind: text\nvariables: {x: text}\n---\n{{ x }}")
    with pytest.raises(error) as caught:
        push(workspace, text)
    assert message in str(caught.value)


def test_files_are_pushed_all_or_none(workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        push(workspace, TONE.replace("house-tone", "first"), SUPPORT)
    with workspace.reading() as connection:
        assert prompts.names(connection) == []


def test_files_that_include_each_other_or_share_a_name_are_refused(workspace: Workspace) -> None:
    one = "---\nname: one\nkind: text\npartials: {x: two}\n---\n{% include 'x' %}"
    two = "---\nname: two\nkind: text\npartials: {x: one}\n---\n{% include 'x' %}"
    with pytest.raises(BadInput, match="include each other in a circle"):
        push(workspace, one, two)
    with pytest.raises(BadInput, match=r"1\.md: 0\.md has the name 'house-tone' too"):
        push(workspace, TONE, TONE)


def test_the_log_says_who_pushed_what_and_where_it_runs(house: House) -> None:
    release = house.release()
    [second] = push(
        house.workspace, "---\nname: support\nvariables: {question: text}\n---\n# user\nQ: {{ question }}"
    )
    with house.workspace.writing() as connection:
        labels.move(connection, second, "staging", actor="ann", now=NOW)
    with house.workspace.reading() as connection:
        log = prompts.log(connection, "support")
        page = prompts.log(connection, "support", limit=1)
        rest = prompts.log(connection, "support", limit=1, before=page["next"])
        with pytest.raises(NotFound):
            prompts.log(connection, "other")
    at = "2026-03-01T12:00:00.000000Z"
    entries = [
        {"number": 2, "digest": second.digest, "created_at": at, "created_by": "ann", "labels": ["staging"],
         "releases": []},
        {"number": 1, "digest": release.content["prompt"], "created_at": at, "created_by": "ann",
         "labels": [], "releases": [{"release": "support:1", "aliases": ["candidate"]}]},
    ]  # fmt: skip
    assert log == {"name": "support", "versions": entries, "next": None}
    assert (page["versions"], page["next"]) == (entries[:1], 2)
    assert (rest["versions"], rest["next"]) == (entries[1:], None)


def test_tools_and_schema_come_with_a_rendering(workspace: Workspace) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    content = PromptContent(
        (PromptMessage("user", "hi"),), {}, tools=(tool,), response_schema={"type": "object"}
    )
    with workspace.writing() as connection:
        prompts.push(connection, "p", content, actor="ann", now=NOW)
        answer = prompts.render(connection, Ref("p"), {})
    assert (answer["tools"], answer["response_schema"]) == ([tool], {"type": "object"})
    assert prompts.parse_file(pulled(workspace, "p")[0]) == ("p", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PromptContent((PromptMessage("user", "x"),), response_schema={"type": "text"}),
            "response_schema.type",
        ),
        (PromptContent((PromptMessage("user", "x"),), tools=({"type": "web"},)), "tools: each is"),
        (PromptContent((PromptMessage("system", "x"),), kind="text"), "has the role user, not system"),
    ],
)
def test_what_no_file_could_say_is_not_pushed(
    workspace: Workspace, content: PromptContent, message: str
) -> None:
    with workspace.writing() as connection, pytest.raises(BadInput) as caught:
        prompts.push(connection, "p", content, actor="ann", now=NOW)
    assert message in caught.value.message


def test_a_release_offers_what_its_prompt_wants(workspace: Workspace) -> None:
    [version] = push(workspace, "---\nname: p\nvariables: {other: text}\n---\n# user\n{{ other }}")
    release = ReleaseContent(kind="chat", name="p", model="openai/one", prompt=version.digest)
    with pytest.raises(BadInput, match=r"wants \['other'\], but this release offers \['question'\]"):
        prompts.check_for_release(version, release)


def test_an_old_prompt_without_a_file_still_comes_back(house: House, tmp_path: Path) -> None:
    text, as_pushed = pulled(house.workspace, "support")
    assert not as_pushed
    [again] = push(house.workspace, text)
    assert again.number == 1
    assert digest_bytes(text.encode()) == digest_bytes(pulled(house.workspace, "support")[0].encode())
