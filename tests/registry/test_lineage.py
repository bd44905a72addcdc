"""Lineage from the data to the requests, as JSON, as text and as a picture."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from registry import lineage, lineage_draw, models, prompts, releases, traffic
from registry.cli import lineage as commands
from registry.clock import to_text
from registry.entities import Kind, ModelContent, PromptContent, PromptMessage, UsageEntry, Version
from registry.errors import BadInput, NotFound
from registry.ids import digest_bytes
from registry.refs import Ref
from registry.releases import ReleaseFile
from registry.terminal import command_group

from .conftest import NOW, House

SVG = "{http://www.w3.org/2000/svg}"


def graph(house: House, kind: Kind, ref: str, **more: Any) -> dict[str, Any]:
    with house.workspace.reading() as connection:
        return lineage.graph(connection, kind, ref, **more)


def edges(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(kind and label of the start, of the end, label) of every edge."""
    names = {node["id"]: f"{node['kind']} {node['label']}" for node in found["nodes"]}
    return {(names[one["from"]], names[one["to"]], one["label"]) for one in found["edges"]}


def use(house: House, release: Version, requests: int) -> None:
    entries = [
        UsageEntry(
            f"req_{release.number}_{number}",
            to_text(NOW + timedelta(seconds=number)),
            "account",
            release=release.name,
            digest=release.digest,
            status=500 if number == 0 else 200,
            prompt_tokens=5,
            cost_microusd=None if number == 1 else 1000,
        )
        for number in range(requests)
    ]
    with house.workspace.writing() as connection:
        traffic.record(connection, entries)


def train(house: House, data: str, name: str = "churn") -> Version:
    training = {"data_digest": data, "params_digest": digest_bytes(b"params"), "metrics": {"accuracy": 0.9}}
    content = ModelContent("onnx", digest_bytes(b"model"), (), ("no", "yes"), training)
    with house.workspace.writing() as connection:
        return models.push(connection, name, content, actor="ann", now=NOW, meta={"mlflow_run_id": "run-7"})


def test_a_release_leads_back_to_its_parts_and_on_to_what_it_answered(house: House) -> None:
    release = house.release()
    house.evidence(release)
    house.promote()
    use(house, release, 3)
    found = graph(house, "release", "support@production")
    assert found["root"] == f"release:{release.digest}"
    assert edges(found) == {
        ("provider-model openai/one", "release support:1", "model"),
        ("prompt support:1", "release support:1", "prompt"),
        ("release support:1", "evidence pass: quality", "measured"),
        ("suite quality:1", "evidence pass: quality", "suite"),
        ("dataset q:1", "evidence pass: quality", "dataset"),
        ("evidence pass: quality", "alias support@production", "justified 2026-03-01T12:01:00"),
        ("release support:1", "alias support@candidate", "create 2026-03-01T12:00:00 by ann"),
        ("release support:1", "alias support@production", "promote 2026-03-01T12:01:00 by ann"),
        ("release support:1", "requests 3 requests", "answered"),
    }
    details = {node["kind"]: node["details"] for node in found["nodes"]}
    assert details["requests"] == {
        "requests": 3,
        "failed": 1,
        "unpriced": 1,
        "first_at": to_text(NOW),
        "last_at": to_text(NOW + timedelta(seconds=2)),
        "cost_microusd": 2000,
    }
    assert (details["evidence"]["verdict"], details["evidence"]["samples"]) == ("pass", 40)
    promoted = {
        "digest": release.digest,
        "moves": 1,
        "since": to_text(NOW + timedelta(minutes=1)),
        "by": "ann",
    }
    (alias,) = (node for node in found["nodes"] if node["label"] == "support@production")
    assert alias["details"] == promoted
    assert found["cut"] is False
    assert json.loads(json.dumps(found)) == found


def test_up_and_down_are_the_two_halves(house: House) -> None:
    release = house.release()
    house.evidence(release)
    up = graph(house, "release", "support", direction="up")
    assert {node["kind"] for node in up["nodes"]} == {"release", "prompt", "provider-model"}
    down = graph(house, "release", "support", direction="down")
    assert {node["kind"] for node in down["nodes"]} == {"release", "evidence", "alias"}


def test_an_alias_that_moved_on_says_until_when(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    house.promote(now=NOW + timedelta(hours=1))
    found = graph(house, "release", "support:1")
    said = {one["label"]: one["details"] for one in found["edges"] if one["details"]}
    assert said["promote 2026-03-01T12:01:00 by ann until 2026-03-01T13:00:00"] == {
        "action": "promote",
        "since": to_text(NOW + timedelta(minutes=1)),
        "until": to_text(NOW + timedelta(hours=1)),
        "by": "ann",
    }
    assert {node["label"] for node in found["nodes"] if node["kind"] == "release"} == {"support:1"}


def test_a_prompt_leads_to_every_release_that_shows_it(house: House) -> None:
    house.release("openai/one")
    house.release("openai/two")
    house.release("openai/one", name="other")
    found = graph(house, "prompt", "support", direction="down")
    assert {node["label"] for node in found["nodes"] if node["kind"] == "release"} == {
        "support:1", "support:2", "other:1",
    }  # fmt: skip


def test_a_partial_leads_through_its_prompt(house: House) -> None:
    tone = PromptContent((PromptMessage("user", "Be kind."),), {}, kind="text")
    with house.workspace.writing() as connection:
        part = prompts.push(connection, "tone", tone, actor="ann", now=NOW)
        own = PromptContent(
            (PromptMessage("user", '{% include "tone" %} {{ question }}'),),
            {"question": "text"},
            partials={"tone": part.digest},
        )
        prompts.push(connection, "support", own, actor="ann", now=NOW)
    house.release()
    found = graph(house, "prompt", "tone")
    assert ("prompt tone:1", "prompt support:2", "partial tone") in edges(found)
    assert ("prompt support:2", "release support:1", "prompt") in edges(found)


def test_a_model_leads_back_to_the_dataset_it_was_trained_on(house: House) -> None:
    version = train(house, house.dataset.digest)
    with house.workspace.writing() as connection:
        releases.create(connection, ReleaseFile("churn", "prediction", "models/churn"), actor="ann", now=NOW)
    whole = graph(house, "model", f"churn@{version.digest}")
    assert edges(whole) == {
        ("dataset q:1", "model churn:1", "trained on"),
        (f"parameters parameters {digest_bytes(b'params')[7:19]}", "model churn:1", "parameters"),
        ("mlflow-run run-7", "model churn:1", "tracked as"),
        ("model churn:1", "release churn:1", "model"),
    }
    back = edges(graph(house, "dataset", "q", direction="down"))
    assert back >= {
        ("dataset q:1", "model churn:1", "trained on"),
        ("model churn:1", "release churn:1", "model"),
        ("dataset q:1", "suite quality:1", "dataset"),
    }


def test_data_that_was_never_pushed_is_a_node_all_the_same(house: House) -> None:
    unknown = digest_bytes(b"elsewhere")
    train(house, unknown)
    (node,) = (node for node in graph(house, "model", "churn")["nodes"] if node["kind"] == "data")
    assert (node["label"], node["details"]) == (f"trained on {unknown[7:19]}", {"key": unknown})


def test_a_suite_and_its_dataset_lead_to_evidence_and_alias(house: House) -> None:
    release = house.release()
    house.evidence(release)
    house.promote()
    found = edges(graph(house, "dataset", "q", direction="down"))
    assert found == {
        ("dataset q:1", "suite quality:1", "dataset"),
        ("suite quality:1", "evidence pass: quality", "checked with"),
        ("evidence pass: quality", "alias support@production", "justified 2026-03-01T12:01:00"),
    }


def test_beyond_its_bound_the_graph_is_cut_and_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        house.release(f"openai/m{number}")
    monkeypatch.setattr(lineage, "MOST_NODES", 5)
    found = graph(house, "prompt", "support")
    assert (len(found["nodes"]), found["cut"]) == (5, True)
    known = {node["id"] for node in found["nodes"]}
    assert all({one["from"], one["to"]} <= known for one in found["edges"])
    assert "There is more than is shown here." in lineage_draw.text(found)
    assert "There is more than is shown here." in lineage_draw.svg(found)


def test_what_does_not_exist_is_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        graph(house, "model", "nothing")
    with pytest.raises(BadInput, match="none of prompts"):
        lineage.parse("things/churn")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("support@production", ("release", Ref("support", alias="production"))),
        ("models/churn:2", ("model", Ref("churn", number=2))),
        ("model/churn", ("model", Ref("churn"))),
        ("gates/support", ("gate-policy", Ref("support"))),
    ],
)
def test_a_reference_may_name_its_group(text: str, expected: tuple[Kind, Ref]) -> None:
    assert lineage.parse(text) == expected


def busy(house: House) -> dict[str, Any]:
    release = house.release()
    house.evidence(release)
    house.promote()
    house.evidence(release, verdict="fail", valid_hours=30.0)
    use(house, release, 3)
    return graph(house, "release", "support@production")


def test_the_tree_fits_a_hundred_columns_and_names_everything_once(house: House) -> None:
    found = busy(house)
    drawn = lineage_draw.text(found)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("release support:1  ")
    assert lines[1] == "made of"
    assert "led to" in lines
    for words in ("openai/one", "prompt support:1", "fail: quality", "pass: quality", "3 requests"):
        assert words in drawn
    assert lineage_draw.text(found, width=40).count("…") > 0


def test_the_picture_is_valid_alone_and_says_what_it_shows(house: House) -> None:
    found = busy(house)
    drawn = lineage_draw.svg(found)
    root = ET.fromstring(drawn)  # noqa: S314 - our own text
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert root.findtext(f"{SVG}title") == "Lineage of release support:1"
    assert len(root.findall(f"{SVG}g")) == len(found["nodes"])
    assert len(root.findall(f"{SVG}path")) == len(found["edges"])
    assert "href" not in drawn
    assert "<script" not in drawn


def test_a_picture_flows_from_left_to_right_and_boxes_do_not_overlap(house: House) -> None:
    found = busy(house)
    root = ET.fromstring(lineage_draw.svg(found))  # noqa: S314 - our own text
    places = {}
    for node, group in zip(found["nodes"], root.findall(f"{SVG}g"), strict=True):
        box = group.find(f"{SVG}rect")
        assert box is not None
        places[node["id"]] = float(box.get("x", "")), float(box.get("y", ""))
    assert len(set(places.values())) == len(found["nodes"])
    assert all(places[one["from"]][0] < places[one["to"]][0] for one in found["edges"])
    for x in {place[0] for place in places.values()}:
        column = sorted(y for other, y in places.values() if other == x)
        assert all(below - above >= 46 for above, below in pairwise(column))


def test_texts_in_a_picture_are_escaped() -> None:
    evil = "<script>alert('&')</script>"
    node = {"id": "release:x", "kind": "release", "label": evil, "details": {"digest": "sha256:00"}}
    drawn = lineage_draw.svg(
        {"root": "release:x", "direction": "both", "nodes": [node], "edges": [], "cut": False}
    )
    assert ET.fromstring(drawn).findtext(f"{SVG}title") == f"Lineage of release {evil}"  # noqa: S314
    assert "<script" not in drawn


def test_a_shared_part_has_its_branches_once() -> None:
    names = ("root", "left", "right", "shared", "deep")
    nodes = [{"id": n, "kind": "prompt", "label": n, "details": {"digest": n}} for n in names]
    pairs = (("left", "root"), ("right", "root"), ("shared", "left"), ("shared", "right"), ("deep", "shared"))
    lines = lineage_draw.text(
        {
            "root": "root",
            "direction": "up",
            "nodes": nodes,
            "edges": [{"from": a, "to": b, "label": "part", "details": {}} for a, b in pairs],
            "cut": False,
        }
    )
    assert lines.splitlines() == [
        "prompt root  root",
        "made of",
        "├─ prompt left [part]",
        "│  └─ prompt shared [part]",
        "│     └─ prompt deep [part]",
        "└─ prompt right [part]",
        "   └─ prompt shared [part] (see above)",
    ]


def test_the_command_line_prints_and_writes(
    house: House, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(house.workspace.settings.home))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)
    application = command_group("Tests.")
    commands.add_to(application)
    found = busy(house)

    def run(*words: str) -> str:
        done = CliRunner().invoke(application, ["lineage", "support@production", *words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    assert json.loads(run("--json")) == found
    assert json.loads(run("--format", "json")) == found
    assert run() == lineage_draw.text(found) + "\n"
    assert json.loads(run("--up", "--json"))["direction"] == "up"
    file = tmp_path / "l.svg"
    assert json.loads(run("--format", "svg", "-o", str(file), "--json")) == {
        "ok": True, "output": str(file), "nodes": len(found["nodes"]), "cut": False,
    }  # fmt: skip
    assert file.read_text() == lineage_draw.svg(found)
