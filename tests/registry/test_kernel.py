from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import parse, settings
from registry.artifacts import Artifacts
from registry.entities import PromptContent, PromptMessage
from registry.errors import BadInput, BadRef, BadSettings, BadTemplate, NotFound, VersionTampered
from registry.ids import SortableIds, digest, digest_bytes, is_digest, sortable_id
from registry.prompts import parse_file, write_file
from registry.refs import Ref, parse_ref
from registry.settings import RegistrySettings
from registry.templates import compile_prompt

from .conftest import NOW

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_a_digest_does_not_depend_on_key_order(value: object) -> None:
    def reordered(item: object) -> object:
        if isinstance(item, dict):
            return {key: reordered(item[key]) for key in reversed(item)}
        return [reordered(one) for one in item] if isinstance(item, list) else item

    assert digest(reordered(value)) == digest(value)
    assert is_digest(digest(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, object(), {1: 2}, "\ud800"])
def test_what_json_lacks_has_no_digest(value: object) -> None:
    with pytest.raises(BadInput):
        digest(value)


@given(NAMES, st.none() | st.integers(1, 10**6))
def test_a_reference_survives_its_own_text(name: str, number: int | None) -> None:
    assert parse_ref(str(Ref(name, number=number))) == Ref(name, number=number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "a b",
        "a:0",
        "a:x",
        "a:1:2",
        "a@",
        "a@B",
        "a@sha256:12",
        "a@sha256:" + "g" * 64,
        "../x",
        "a:١",
    ],
)
def test_a_malformed_reference_is_named(text: str) -> None:
    with pytest.raises(BadRef):
        parse_ref(text)


def test_ids_sort_by_time() -> None:
    from datetime import timedelta

    assert sortable_id("x", NOW) < sortable_id("x", NOW + timedelta(milliseconds=1))


def test_ids_made_many_at_a_time_are_the_same_kind_and_never_the_same() -> None:
    ids = SortableIds("x")
    seconds = NOW.timestamp()
    made = [ids.next(seconds + number // 50 / 1000) for number in range(1000)]
    assert len(set(made)) == 1000
    assert {(len(one), one[:12]) for one in made[:50]} == {(28, sortable_id("x", NOW)[:12])}
    assert all(set(one[2:]) <= set("0123456789abcdefghjkmnpqrstvwxyz") for one in made)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)
    assert len({one[12:] for one in made}) == 1000


@dataclass(frozen=True)
class Inner:
    size: int
    ratio: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    tags: tuple[str, ...] = ()
    more: dict[str, Inner] = field(default_factory=dict)


def test_strict_parsing_reads_what_fits() -> None:
    text = "name: a\ninner: {size: 2, ratio: 1}\ntags: [x]\nmore:\n  k: {size: 3}\n"
    assert parse.loads(text, Outer) == Outer("a", Inner(2, 1.0), ("x",), {"k": Inner(3)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ninner:\n  sise: 2\n", "f:3: inner.sise: unknown key; did you mean 'size'?"),
        ("name: a\n", "f:1: the whole document: key 'inner' is missing"),
        ("name: 1\ninner: {size: 2}\n", "f:1: name: expected text, got int 1"),
        ("name: a\ninner: {size: true}\n", "f:2: inner.size: expected a whole number, got true/false True"),
        ("name: a\nname: b\n", "f:2: name is given twice"),
        ("name: [\n", "f:2: not valid YAML: did not find expected node content"),
    ],
)
def test_strict_parsing_names_line_key_and_remedy(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse.loads(text, Outer, source="f")
    assert caught.value.message == message


@given(st.text())
def test_strict_parsing_never_fails_otherwise(text: str) -> None:
    try:
        parse.loads(text, Outer)
    except BadInput as error:
        assert error.message


def test_settings_come_from_file_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluicegate.yaml").write_text("registry:\n  home: here\n  evidence_hours: 5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_REGISTRY__EVIDENCE_HOURS", "7")
    assert settings.load("registry", RegistrySettings) == RegistrySettings(Path("here"), evidence_hours=7.0)
    assert settings.registry_settings().home == tmp_path / "here"


def test_an_unknown_setting_names_its_line_and_the_nearest_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sluicegate.yaml").write_text("gateway: {}\nregistry:\n  hom: here\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSettings, match=r":3: hom: unknown key; did you mean 'home'\?"):
        settings.load("registry", RegistrySettings)
    (tmp_path / "sluicegate.yaml").write_text("registri: {}\n")
    with pytest.raises(BadSettings, match=r":1: registri: unknown key; did you mean 'registry'\?"):
        settings.load("registry", RegistrySettings)


def test_an_unknown_override_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSettings, match="did you mean 'SLUICEGATE_REGISTRY__HOME'"):
        settings.load("registry", RegistrySettings, {"SLUICEGATE_REGISTRY__HOMES": "x"})


def test_a_prompt_renders_with_exactly_its_variables() -> None:
    render = compile_prompt(PromptContent((PromptMessage("user", "Q: {{ q }}"),), {"q": "text"}))
    assert render({"q": "why?"}) == [{"role": "user", "content": "Q: why?"}]
    for values in ({}, {"q": "x", "r": "y"}, {"q": 1}):
        with pytest.raises(BadTemplate):
            render(values)


def test_a_template_cannot_reach_into_python() -> None:
    render = compile_prompt(
        PromptContent((PromptMessage("user", "{{ q.__class__.__mro__ }}"),), {"q": "text"})
    )
    with pytest.raises(BadTemplate):
        render({"q": "x"})


@pytest.mark.parametrize("body", ["{{ other }}", "{% if %}", "no variable"])
def test_a_prompt_whose_variables_differ_is_refused(body: str) -> None:
    with pytest.raises(BadTemplate):
        compile_prompt(PromptContent((PromptMessage("user", body),), {"q": "text"}))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]),
            st.text(st.characters(categories=["L", "N"]), min_size=1),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_prompt_file_round_trips(messages: list[tuple[str, str]]) -> None:
    content = PromptContent(tuple(PromptMessage(role, text.strip()) for role, text in messages))  # type: ignore[arg-type]
    text = write_file("name", content)
    assert parse_file(text) == ("name", content)
    assert write_file(*parse_file(text)) == text


def test_blobs_are_verified_when_read(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    name = artifacts.put(b"hello")
    assert (name, artifacts.get(name), artifacts.put(b"hello")) == (digest_bytes(b"hello"), b"hello", name)
    artifacts.path(name).write_bytes(b"other")
    with pytest.raises(VersionTampered):
        artifacts.get(name)
    artifacts.path(name).unlink()
    with pytest.raises(NotFound):
        artifacts.get(name)
