from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from registry import (
    archive,
    bundle,
    evaluations,
    evidence,
    indexes,
    pack,
    policies,
    promotion,
    prompts,
    releases,
    signing,
    tables,
    unpack,
    versions,
)
from registry.entities import Chunker, Embedder, GatePolicy, IndexContent, PromptContent, PromptMessage
from registry.errors import BadInput, EvidenceTampered, NotFound, PlatformError, VersionTampered
from registry.ids import canonical, digest_bytes
from registry.refs import Ref
from registry.releases import ReleaseFile, VariantFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.registry.conftest import NOW, PROMPT, House

LATER = NOW + timedelta(hours=1)


def export(workspace: Workspace, path: Path, ref: str = "support") -> bytes:
    pack.export(partial(workspace.viewing, "releases.export"), workspace.artifacts, ref, path)
    return path.read_bytes()


def take(workspace: Workspace, path: Path, **more: Any) -> dict[str, Any]:
    verb = "gates.push" if more.get("gates") else "releases.import"
    return unpack.take(
        partial(workspace.viewing, verb), partial(workspace.acting, verb), workspace.artifacts, path,
        now=LATER, **more,
    )  # fmt: skip


def other(folder: Path) -> AbstractContextManager[Workspace]:
    return open_workspace(RegistrySettings(home=folder))


def trust(workspace: Workspace, key: Ed25519PrivateKey) -> None:
    with workspace.writing() as connection:
        evidence.trust(connection, key.public_key(), actor="bob", now=NOW)


def dump(workspace: Workspace) -> dict[str, list[Any]]:
    with workspace.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in tables.metadata.sorted_tables
        }


@pytest.fixture
def released(house: House, tmp_path: Path) -> Path:
    """An archive of a release with an index, a gate policy and two pieces of evidence."""
    with house.workspace.writing() as connection:
        blob = house.workspace.artifacts.put(b'{"id":"p1"}\n')
        content = IndexContent(
            digest_bytes(b"c"), Chunker(), Embedder("hashing", digest_bytes(b"e"), 8), 1, 1, blob
        )
        indexes.push(connection, "faq", content, actor="ann", now=NOW)
        gate = policies.PolicyFile("gate", "support", gate=GatePolicy(suites=("quality",)))
        policies.push(connection, gate, actor="ann", now=NOW)
        file = ReleaseFile("support", "chat", "openai/one", prompt="support", index="faq")
        made = releases.create(connection, file, actor="ann", now=NOW)
    house.evidence(made)
    house.evidence(made, valid_hours=48)
    export(house.workspace, tmp_path / "support.tar")
    return tmp_path / "support.tar"


def test_members_are_plain_sorted_files_with_zero_times_and_owners(released: Path) -> None:
    with tarfile.open(released, "r:") as file:
        members = file.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.type, m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (tarfile.REGTYPE, 0, 0, 0, "", "", 0o644)
    }
    groups = [member.name.rpartition("/")[0] for member in members]
    assert groups == [
        "blobs", "blobs", "evidence", "evidence", "keys", "", "versions/dataset", "versions/gate-policy",
        "versions/index", "versions/prompt", "versions/release", "versions/suite",
    ]  # fmt: skip
    assert released.stat().st_mode & 0o777 == 0o600


def test_everything_arrives_under_the_same_digests(house: House, released: Path, tmp_path: Path) -> None:
    with other(tmp_path / "there") as there:
        answer = take(there, released, candidate=True, gates=True)
        trust(there, house.key)
        with there.reading() as connection:
            version = versions.get(connection, "release", Ref("support"))
            state = releases.alias_state(connection, "support", "candidate")
            served = releases.assemble(connection, version)
        assert answer["digest"] == version.digest == (state and state.digest)
        assert (served.prompt, served.version.created_at) == (PROMPT, NOW)
        assert {item["outcome"] for item in answer["versions"]} == {"new"}
        assert (answer["blobs"], answer["evidence"]) == (2, 2)
        assert House(there, house.key, house.suite, house.dataset).promote().to_digest == version.digest  # type: ignore[union-attr]
        with there.reading() as connection:
            assert promotion.problems(connection, there.artifacts) == []


def test_importing_again_changes_nothing(house: House, released: Path, tmp_path: Path) -> None:
    with other(tmp_path / "there") as there:
        take(there, released, candidate=True)
        before = dump(there)
        again = take(there, released, candidate=True)
        assert dump(there) == before
    assert {item["outcome"] for item in again["versions"]} == {"known", "left out"}
    assert again["evidence"] == 0
    answer = take(house.workspace, released)
    assert {item["outcome"] for item in answer["versions"]} == {"known"}


def test_keys_are_reported_and_never_trusted(house: House, released: Path, tmp_path: Path) -> None:
    identity = signing.key_id(house.key.public_key())
    with other(tmp_path / "there") as there:
        assert take(there, released)["keys"] == [{"id": identity, "trusted": False}]
        with there.reading() as connection:
            assert evidence.trusted(connection) == []
        trust(there, house.key)
        assert take(there, released)["keys"] == [{"id": identity, "trusted": True}]


def test_gate_policies_are_left_out_unless_asked_for(released: Path, tmp_path: Path) -> None:
    with other(tmp_path / "there") as there:
        outcomes = {item["kind"]: item["outcome"] for item in take(there, released)["versions"]}
        with there.reading() as connection:
            assert policies.gate_for(connection, "support")[0] is None
        assert outcomes.pop("gate-policy") == "left out"
        assert set(outcomes.values()) == {"new"}
        take(there, released, gates=True)
        with there.reading() as connection:
            assert policies.gate_for(connection, "support")[0] is not None


def test_who_imports_is_the_author_here(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICEGATE_ACTOR", "mallory")
    with other(tmp_path / "there") as there:
        take(there, released)
        with there.reading() as connection:
            assert versions.get(connection, "release", Ref("support")).created_by == "mallory"


def test_a_dry_run_tells_what_would_be_and_writes_nothing(released: Path, tmp_path: Path) -> None:
    with other(tmp_path / "there") as there:
        before = dump(there)
        would = take(there, released, dry_run=True, candidate=True)
        assert (dump(there), list(there.artifacts.blobs())) == (before, [])
        assert {**take(there, released), "dry_run": True} == would


def test_taken_names_get_the_next_number_and_keep_their_order(house: House, tmp_path: Path) -> None:
    texts = [
        PromptContent((PromptMessage("user", f"{{{{ question }}}} {n}"),), {"question": "text"})
        for n in range(3)
    ]
    with house.workspace.writing() as connection:
        for text in texts:
            prompts.push(connection, "greeting", text, actor="ann", now=NOW)
        variants = (VariantFile("other", "greeting:3", 10),)
        file = ReleaseFile("hello", "chat", "openai/one", prompt="greeting:1", variants=variants)
        releases.create(connection, file, actor="ann", now=NOW)
    export(house.workspace, tmp_path / "hello.tar", "hello")
    with other(tmp_path / "free") as free:
        take(free, tmp_path / "hello.tar")
        with free.reading() as connection:
            assert [v.number for v in versions.listing(connection, "prompt", "greeting")] in ([3, 1], [1, 3])
    with other(tmp_path / "taken") as taken:
        with taken.writing() as connection:
            prompts.push(connection, "greeting", PROMPT, actor="bob", now=NOW)
        take(taken, tmp_path / "hello.tar")
        with taken.reading() as connection:
            numbers = {
                v.number: v.content["messages"] for v in versions.listing(connection, "prompt", "greeting")
            }
    assert sorted(numbers) == [1, 2, 3]
    assert [numbers[n][0]["content"][-1] for n in (2, 3)] == ["0", "2"]


def test_withdrawn_evidence_stays_behind(house: House, released: Path, tmp_path: Path) -> None:
    with house.workspace.writing() as connection:
        release = versions.get(connection, "release", Ref("support"))
        (first, _), (second, _) = evaluations.envelopes(connection, "support")
        evaluations.withdraw(connection, first, reason="wrong", actor="ann", now=NOW)
    export(house.workspace, tmp_path / "after.tar", f"support@{release.digest}")
    assert list(archive.inspect(tmp_path / "after.tar").envelopes) == [second]


def test_what_is_damaged_is_not_exported(house: House, released: Path, tmp_path: Path) -> None:
    held = archive.inspect(released)
    blob = held.blobs[0]
    data = house.workspace.artifacts.get(blob)
    for change, error in ((b"x" * len(data), VersionTampered), (data + b"x", VersionTampered)):
        house.workspace.artifacts.path(blob).write_bytes(change)
        with pytest.raises(error):
            export(house.workspace, tmp_path / "no.tar")
    house.workspace.artifacts.path(blob).unlink()
    with pytest.raises(NotFound, match=blob):
        export(house.workspace, tmp_path / "no.tar")
    with pytest.raises(NotFound, match="no release nothing"):
        export(house.workspace, tmp_path / "no.tar", "nothing")
    assert [path.name for path in tmp_path.iterdir() if "no.tar" in path.name] == []


# Offline


def test_verifying_says_who_signed_and_whether_that_counts(
    house: House, released: Path, tmp_path: Path
) -> None:
    own, stranger = house.key.public_key(), Ed25519PrivateKey.generate().public_key()
    for name, key in (("own", own), ("stranger", stranger)):
        (tmp_path / name).write_text(signing.pem(key))
    asked: list[tuple[dict[str, Any], bool, bool]] = [
        ({}, True, False),
        ({"keys": [tmp_path / "own"]}, True, True),
        ({"trust": [signing.key_id(own)]}, True, True),
        ({"keys": [tmp_path / "stranger"]}, False, False),
        ({"keys": [tmp_path / "stranger", tmp_path / "own"]}, True, True),
        ({"trust": [signing.key_id(stranger)]}, False, False),
    ]
    for more, ok, trusted in asked:
        answer = archive.verify(released, now=LATER, **more)
        assert (answer["ok"], {item["trusted"] for item in answer["evidence"]}) == (ok, {trusted})
    assert [item["in_force"] for item in answer["evidence"]] == [True, True]
    assert {
        item["in_force"] for item in archive.verify(released, now=NOW + timedelta(days=3))["evidence"]
    } == {False}
    assert (answer["missing"], answer["blobs"]) == ([], 2)


def test_a_release_without_evidence_is_no_proof(house: House, tmp_path: Path) -> None:
    house.release()
    export(house.workspace, tmp_path / "bare.tar")
    assert archive.verify(tmp_path / "bare.tar", now=NOW)["ok"]
    assert not archive.verify(tmp_path / "bare.tar", trust=["sha256:" + "0" * 64], now=NOW)["ok"]


# Hostile files

Files = dict[str, bytes]


def unpacked(path: Path) -> Files:
    with tarfile.open(path, "r:") as file:
        return {name: file.extractfile(name).read() for name in file.getnames()}  # type: ignore[union-attr]


def packed(files: Files, *, listed: bool = True, order: Callable[[list[str]], list[str]] = sorted) -> bytes:
    if listed:
        release = json.loads(files["manifest.json"])["release"]
        members = [
            bundle.Member(name, len(data), digest_bytes(data))
            for name, data in files.items()
            if name != "manifest.json"
        ]
        files = files | {"manifest.json": bundle.manifest_of(archive.FORMAT, members, release=release)}
    held = io.BytesIO()
    writer = bundle.Writer(held)
    for name in order(list(files)):
        writer.add(name, (files[name],))
    writer.finish()
    return held.getvalue()


def only(files: Files, start: str) -> str:
    return next(name for name in sorted(files) if name.startswith(start))


def edited(files: Files, start: str, **changes: Any) -> Files:
    name = only(files, start)
    return files | {name: canonical(json.loads(files[name]) | changes)}


def without(files: Files, start: str) -> Files:
    return {name: data for name, data in files.items() if name != only(files, start)}


def signed_by_another(files: Files) -> Files:
    """Evidence whose signature does not fit the key it names."""
    name = only(files, "evidence/")
    envelope = json.loads(files[name])
    forged = evidence.sign(json.loads(evidence.open_envelope(envelope)[0]), Ed25519PrivateKey.generate())
    forged["signatures"][0]["keyid"] = envelope["signatures"][0]["keyid"]
    text = canonical(forged)
    return without(files, "evidence/") | {f"evidence/{hashlib.sha256(text).hexdigest()}.json": text}


def of_another_release(files: Files) -> Files:
    name = only(files, "evidence/")
    statement = json.loads(evidence.open_envelope(json.loads(files[name]))[0])
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    text = canonical(evidence.sign(statement, Ed25519PrivateKey.generate()))
    return without(files, "evidence/") | {f"evidence/{hashlib.sha256(text).hexdigest()}.json": text}


def with_another_prompt(files: Files) -> Files:
    name = only(files, "versions/prompt")
    value = json.loads(files[name])
    value["content"] = value["content"].replace("question", "answer")
    return files | {name: canonical(value)}


def with_a_prompt_nobody_pins(files: Files) -> Files:
    value = json.loads(files[only(files, "versions/prompt")])
    value["content"] = value["content"].replace("question", "answer")
    value["digest"] = digest_bytes(value["content"].encode())
    return files | {f"versions/prompt/{value['digest'][7:]}.json": canonical(value)}


def name(called: str = "x", number: int = 1) -> dict[str, Any]:
    return {"name": called, "number": number, "meta": "{}", "created_at": ""}


CHANGES: dict[str, tuple[Callable[[Files], Files], type[PlatformError]]] = {
    "a changed blob": (lambda f: f | {only(f, "blobs/"): b"changed"}, VersionTampered),
    "a missing blob": (lambda f: without(f, "blobs/"), BadInput),
    "a blob too many": (lambda f: f | {f"blobs/{hashlib.sha256(b'more').hexdigest()}": b"more"}, BadInput),
    "a member of no kind": (lambda f: f | {"readme.txt": b"more"}, BadInput),
    "a changed version": (with_another_prompt, VersionTampered),
    "a version nobody pins": (with_a_prompt_nobody_pins, BadInput),
    "a missing version": (lambda f: without(f, "versions/prompt"), BadInput),
    "no release": (lambda f: without(f, "versions/release"), BadInput),
    "no key": (lambda f: without(f, "keys/") | {"keys/" + "0" * 64 + ".pem": f[only(f, "keys/")]}, BadInput),
    "a key that is none": (lambda f: f | {only(f, "keys/"): b"none"}, BadInput),
    "a forged signature": (signed_by_another, EvidenceTampered),
    "evidence about another release": (of_another_release, EvidenceTampered),
    "evidence that is none": (lambda f: edited(f, "evidence/", payload="e30="), VersionTampered),
    "an unknown kind": (lambda f: edited(f, "versions/prompt", kind="program"), BadInput),
    "a kind that is no text": (lambda f: edited(f, "versions/prompt", kind=[]), BadInput),
    "no names": (lambda f: edited(f, "versions/prompt", names=[]), BadInput),
    "names of another shape": (lambda f: edited(f, "versions/prompt", names=[{"name": "x"}]), BadInput),
    "a name that is a path": (
        lambda f: edited(f, "versions/prompt", names=[name("../x")]),
        BadInput,
    ),
    "a number that is none": (
        lambda f: edited(f, "versions/prompt", names=[name(number=True)]),
        BadInput,
    ),
    "a time that is none": (
        lambda f: edited(f, "versions/prompt", names=[name()]),
        BadInput,
    ),
    "a key too many": (lambda f: edited(f, "versions/prompt", more=1), BadInput),
    "a member that is no JSON": (lambda f: f | {only(f, "versions/prompt"): b"[" * 100_000}, BadInput),
    "a member not in canonical form": (
        lambda f: f | {only(f, "versions/prompt"): f[only(f, "versions/prompt")] + b" "}, BadInput,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_refused_and_nothing_is_written(
    released: Path, tmp_path: Path, change: str
) -> None:
    alter, error = CHANGES[change]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed(alter(unpacked(released))))
    with other(tmp_path / "there") as there:
        before = dump(there)
        with pytest.raises(error, match=r"bad\.tar|signature|edited after it was signed"):
            take(there, bad, gates=True)
        assert (dump(there), list(there.artifacts.blobs())) == (before, [])
    with pytest.raises(error):
        archive.verify(bad, now=NOW)


def test_members_unlike_the_manifest_are_refused(released: Path, tmp_path: Path) -> None:
    files = unpacked(released)
    bad = tmp_path / "bad.tar"
    cases: list[tuple[bytes, type[PlatformError], str]] = [
        (
            packed(files | {only(files, "blobs/"): b"changed"}, listed=False),
            VersionTampered,
            "not what its manifest",
        ),
        (packed(files | {"more": b""}, listed=False), BadInput, "other members than its manifest says: more"),
        (packed(without(files, "blobs/"), listed=False), BadInput, "other members"),
        (packed(without(files, "manifest"), listed=False), BadInput, "manifest.json is missing"),
        (packed(files | {"manifest.json": b"{}"}, listed=False), BadInput, "its format is None"),
        (packed(files, order=lambda names: sorted(names, reverse=True)), BadInput, "not in order"),
        (packed(files, order=lambda names: [*names, names[0]]), BadInput, "twice"),
    ]
    for data, error, message in cases:
        bad.write_bytes(data)
        with pytest.raises(error, match=message):
            archive.inspect(bad)


def hostile(change: Callable[[tarfile.TarInfo], None], **more: Any) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", **more) as file:
        info = tarfile.TarInfo("manifest.json")
        info.size = 2
        change(info)
        file.addfile(info, io.BytesIO(b"{}") if info.size == 2 else None)
    return held.getvalue()


def setting(**values: Any) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in values.items():
            setattr(info, name, value)

    return change


HOSTILE = {
    "climbing": hostile(setting(name="../evil")),
    "absolute": hostile(setting(name="/etc/passwd")),
    "climbing inside": hostile(setting(name="blobs/../../evil")),
    "symbolic link": hostile(setting(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0)),
    "hard link": hostile(setting(type=tarfile.LNKTYPE, linkname="manifest.json", size=0)),
    "device": hostile(setting(type=tarfile.BLKTYPE, devmajor=8, size=0)),
    "pipe": hostile(setting(type=tarfile.FIFOTYPE, size=0)),
    "folder": hostile(setting(type=tarfile.DIRTYPE, size=0)),
    "sparse": hostile(setting(type=tarfile.GNUTYPE_SPARSE, size=0)),
    "owner": hostile(setting(uid=1000, uname="ann")),
    "time": hostile(setting(mtime=1)),
    "executable": hostile(setting(mode=0o755)),
    "long name": hostile(setting(name="x" * 300), format=tarfile.GNU_FORMAT),
    "pax header": hostile(setting(name="ä" * 200), format=tarfile.PAX_FORMAT),
    "a terabyte": hostile(setting(size=1 << 40), format=tarfile.GNU_FORMAT),
    "negative": hostile(setting(size=-1024), format=tarfile.GNU_FORMAT),
    "compressed": b"\x1f\x8b" + os.urandom(2000),
    "text": b"not a tar file at all" * 100,
    "empty": b"",
    "nothing but an end": bytes(10240),
    "a hole": bytes(512) + hostile(setting()),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_this_program_never_writes_are_refused(tmp_path: Path, case: str) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(HOSTILE[case])
    with pytest.raises(BadInput, match=r"bad\.tar: "):
        archive.verify(bad, now=NOW)


def test_every_truncation_is_noticed(released: Path, tmp_path: Path) -> None:
    data = released.read_bytes()
    cut = tmp_path / "cut.tar"
    for size in {*range(0, len(data), 509), len(data) - 1, len(data) - 512, 511, 512, 513}:
        cut.write_bytes(data[:size])
        with pytest.raises(BadInput, match=r"cut\.tar"):
            archive.inspect(cut)
    cut.write_bytes(data + b"\0")
    with pytest.raises(BadInput, match="does not end where its last member does"):
        archive.inspect(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_goes_unnoticed(released: Path, tmp_path: Path, data: st.DataObject) -> None:
    good = bytearray(released.read_bytes())
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "bad.tar").write_bytes(good)
    with pytest.raises(PlatformError):
        archive.inspect(tmp_path / "bad.tar")
