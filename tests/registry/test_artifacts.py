from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.artifacts import BLOCK, Artifacts, Blob
from registry.clock import utc_now
from registry.errors import (
    BadInput,
    BadSettings,
    NotFound,
    PlatformError,
    StoreUnavailable,
    VersionTampered,
)
from registry.ids import PREFIX, digest_bytes
from registry.objectstore import RemoteArtifacts, open_artifacts
from tests.fakes.s3 import S3, s3

ABSENT = PREFIX + "0" * 64
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Stand:
    """A store, and what breaks it behind its back."""

    open: Callable[[str], Artifacts]
    """Another client of the same store, with a cache of that name."""
    overwrite: Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3() as running:
        yield running


@pytest.fixture
def bucket(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"b-{digest_bytes(str(tmp_path).encode())[7:47]}"
    server.make_bucket(name)
    return name


@pytest.fixture(params=["folder", "s3", "memory"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    opened: list[Artifacts] = []
    if request.param == "folder":
        location = str(tmp_path / "blobs")
    elif request.param == "memory":
        pytest.importorskip("fsspec")
        location = f"memory://{tmp_path}"
    else:
        location = f"s3://{request.getfixturevalue('bucket')}/deep/down"

    def open_one(cache: str) -> Artifacts:
        opened.append(open_artifacts(location, tmp_path / cache))
        return opened[-1]

    def overwrite(digest: str, data: bytes) -> None:
        name = digest.removeprefix(PREFIX)
        if request.param == "folder":
            (tmp_path / "blobs" / name[:2] / name).write_bytes(data)
            return
        import fsspec

        with fsspec.open(f"{location}/{name[:2]}/{name}", "wb") as file:
            file.write(data)

    yield Stand(open_one, overwrite)
    for artifacts in opened:
        artifacts.close()


def test_what_was_put_is_found_again_by_its_digest(stand: Stand) -> None:
    artifacts = stand.open("one")
    digest = artifacts.put(b"hello")
    assert digest == digest_bytes(b"hello") == artifacts.put(b"hello")
    other = stand.open("two")
    assert (other.get(digest), other.has(digest), other.size(digest), other.check(digest)) == (
        b"hello", True, 5, 5,
    )  # fmt: skip
    assert other.path(digest).read_bytes() == b"hello"
    (blob,) = other.blobs()
    assert blob[:2] == (digest, 5)
    assert abs(utc_now() - blob.at) < timedelta(minutes=1)
    assert list(other.digests()) == [digest]


def test_an_empty_blob_is_a_blob(stand: Stand) -> None:
    artifacts = stand.open("one")
    digest = artifacts.put(b"")
    assert (stand.open("two").get(digest), artifacts.size(digest)) == (b"", 0)


def test_large_files_pass_through_in_blocks(stand: Stand, tmp_path: Path) -> None:
    data = os.urandom(3 * BLOCK + 7)
    (tmp_path / "large").write_bytes(data)
    digest = stand.open("one").put_file(tmp_path / "large")
    assert digest == digest_bytes(data)
    blocks = list(stand.open("two").blocks(digest))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= BLOCK


def test_what_is_not_there_is_not_found(stand: Stand) -> None:
    artifacts = stand.open("one")
    assert (artifacts.has(ABSENT), list(artifacts.blobs()), artifacts.delete(ABSENT)) == (False, [], False)
    for ask in (artifacts.get, artifacts.size, artifacts.check):
        with pytest.raises(NotFound, match=ABSENT):
            ask(ABSENT)


def test_what_is_no_digest_is_refused(stand: Stand) -> None:
    artifacts = stand.open("one")
    for text in ("../../etc/passwd", "sha256:" + "A" * 64, ""):
        with pytest.raises(BadInput, match="not a digest"):
            artifacts.get(text)


@pytest.mark.parametrize("changed", [b"Hello", b"hel", b"hello, world", b""])
def test_changed_or_cut_blobs_are_never_returned(stand: Stand, changed: bytes) -> None:
    digest = stand.open("one").put(b"hello")
    stand.overwrite(digest, changed)
    other = stand.open("two")
    for ask in (other.get, other.check):
        with pytest.raises(VersionTampered, match=digest):
            ask(digest)


def test_putting_again_heals_a_cut_blob(stand: Stand) -> None:
    digest = stand.open("one").put(b"hello")
    stand.overwrite(digest, b"hel")
    stand.open("two").put(b"hello")
    assert stand.open("three").get(digest) == b"hello"


def test_bytes_of_another_digest_are_not_stored(stand: Stand) -> None:
    artifacts = stand.open("one")
    with pytest.raises(VersionTampered, match="what was to be stored"):
        artifacts.put_blocks(digest_bytes(b"hello"), (b"hel", b"l"))
    assert list(artifacts.blobs()) == []


def test_an_interrupted_upload_leaves_nothing_to_see(stand: Stand) -> None:
    artifacts = stand.open("one")

    def breaking() -> Iterator[bytes]:
        yield b"hel"
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable, match="gone"):
        artifacts.put_blocks(digest_bytes(b"hello"), breaking())
    assert (list(artifacts.blobs()), artifacts.has(digest_bytes(b"hello"))) == ([], False)


def test_only_blobs_older_than_asked_are_deleted(stand: Stand) -> None:
    artifacts = stand.open("one")
    digest = artifacts.put(b"hello")
    assert not artifacts.delete(digest, before=utc_now() - timedelta(hours=1))
    assert artifacts.get(digest) == b"hello"
    assert artifacts.delete(digest, before=utc_now() + timedelta(hours=1))
    assert (artifacts.has(digest), artifacts.delete(digest)) == (False, False)
    with pytest.raises(NotFound):
        artifacts.get(digest)


def test_many_writers_of_one_blob_agree(stand: Stand) -> None:
    clients = [stand.open(f"cache-{number}") for number in range(4)]
    threads = [threading.Thread(target=client.put, args=(b"hello" * 1000,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [blob.size for blob in clients[0].blobs()] == [5000]


# A folder


def test_putting_again_makes_a_blob_young(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    digest = artifacts.put(b"hello")
    os.utime(artifacts.path(digest), (0, 0))
    assert list(artifacts.blobs()) == [Blob(digest, 5, datetime(1970, 1, 1, tzinfo=UTC))]
    artifacts.put(b"hello")
    assert not artifacts.delete(digest, before=utc_now() - timedelta(hours=1))


def test_nothing_is_removed_while_it_is_put_again(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    digest = artifacts.put(b"hello")
    os.utime(artifacts.path(digest), (0, 0))
    with (tmp_path / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        removing = threading.Thread(target=artifacts.delete, args=(digest,), kwargs={"before": LONG_AGO})
        removing.start()
        artifacts.put(b"hello")
        fcntl.flock(lock, fcntl.LOCK_UN)
        removing.join()
    assert artifacts.get(digest) == b"hello"


def test_a_writer_that_is_killed_leaves_nothing_but_what_is_swept(tmp_path: Path) -> None:
    code = """
import itertools, os, signal, sys
from pathlib import Path
from registry.artifacts import Artifacts
from registry.ids import digest_bytes
def blocks():
    yield b"x" * (4 << 20)
    os.kill(os.getpid(), signal.SIGKILL)
Artifacts(Path(sys.argv[1])).put_blocks(digest_bytes(b"x"), blocks())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    artifacts = Artifacts(tmp_path)
    assert list(artifacts.blobs()) == []
    left = [path.name for path in tmp_path.glob("*/*")]
    assert [name.startswith(".new-") for name in left] == [True]
    assert (artifacts.sweep(LONG_AGO), artifacts.sweep(utc_now() + timedelta(hours=1))) == (0, 1)
    assert list(tmp_path.glob("*/*")) == []


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    artifacts = Artifacts(tmp_path / "file" / "blobs")
    with pytest.raises(StoreUnavailable, match=r"artifact folder .* cannot be written: Not a directory"):
        artifacts.put(b"hello")
    with pytest.raises(StoreUnavailable, match="cannot be read: Not a directory"):
        artifacts.get(ABSENT)


def test_a_file_that_cannot_be_read_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing: cannot be read"):
        Artifacts(tmp_path).put_file(tmp_path / "nothing")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_path_and_a_file_url_name_a_folder(tmp_path: Path, form: str) -> None:
    opened = open_artifacts(form.format(tmp_path / "blobs"), tmp_path / "cache")
    assert (type(opened), opened.folder) == (Artifacts, tmp_path / "blobs")


# A remote store


def remote(location: str, cache: Path, cache_bytes: int = 1 << 30) -> RemoteArtifacts:
    opened = open_artifacts(location, cache, cache_bytes=cache_bytes)
    assert isinstance(opened, RemoteArtifacts)
    return opened


def test_a_copy_answers_while_the_store_is_gone_and_a_changed_copy_does_not(tmp_path: Path) -> None:
    with s3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("blobs")
        artifacts = remote("s3://blobs", tmp_path / "cache")
        kept, other = artifacts.put(b"kept"), artifacts.put(b"other")
        artifacts.path(other).write_bytes(b"changed")
        assert artifacts.get(other) == b"other"
        server.kill()
        assert (artifacts.get(kept), artifacts.path(kept).read_bytes()) == (b"kept", b"kept")
        artifacts.path(kept).write_bytes(b"changed")
        asks: list[Callable[[], object]] = [
            lambda: artifacts.get(kept),
            lambda: artifacts.path(kept),
            lambda: artifacts.check(other),
            lambda: artifacts.has(other),
            lambda: list(artifacts.blobs()),
            lambda: artifacts.put(b"new"),
            lambda: artifacts.delete(other),
        ]
        for ask in asks:
            with pytest.raises(StoreUnavailable, match="s3://blobs did not answer"):
                ask()
        artifacts.close()


def test_a_store_that_goes_away_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    with s3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("blobs")
        artifacts = remote("s3://blobs", tmp_path / "cache")
        digest = artifacts.put(os.urandom(20 * BLOCK))
        blocks = artifacts.blocks(digest)
        next(blocks)
        server.kill()
        with pytest.raises(StoreUnavailable, match="did not answer"):
            list(blocks)
        artifacts.close()


def test_a_caller_without_rights_is_told_so(bucket: str, server: S3, tmp_path: Path) -> None:
    artifacts = remote(f"s3://{bucket}", tmp_path / "cache")
    digest = artifacts.put(b"hello")
    server.check_rights(on=True)
    try:
        for ask in (artifacts.check, artifacts.has, artifacts.delete):
            with pytest.raises(StoreUnavailable, match="permission denied; check the credentials"):
                ask(digest)
        with pytest.raises(StoreUnavailable, match="permission denied"):
            artifacts.put(b"more")
    finally:
        server.check_rights(on=False)
    artifacts.close()


def test_a_bucket_that_does_not_exist_is_an_error_and_not_an_empty_store(bucket: str, tmp_path: Path) -> None:
    artifacts = remote(f"s3://{bucket}-not", tmp_path / "cache")
    with pytest.raises(PlatformError):
        artifacts.put(b"hello")
    artifacts.close()


def test_copies_stay_within_their_bound_and_the_least_recently_used_go(tmp_path: Path) -> None:
    location = f"memory://{tmp_path}"
    writer = remote(location, tmp_path / "writer")
    first, second, third = (writer.put(bytes([number]) * 1000) for number in range(3))
    reader = remote(location, tmp_path / "reader", 2000)
    for age, digest in enumerate((first, second)):
        os.utime(reader.path(digest), (age, age))
    copies = Artifacts(tmp_path / "reader")
    os.utime(copies.path(second), (0, 0))
    os.utime(copies.path(first), (1, 1))
    reader.get(third)
    assert set(copies.digests()) == {first, third}
    assert set(reader.digests()) == {first, second, third}


def test_copies_in_use_stay_even_when_there_are_too_many(tmp_path: Path) -> None:
    location = f"memory://{tmp_path}"
    writer = remote(location, tmp_path / "writer")
    digests = [writer.put(bytes([number]) * 1000) for number in range(3)]
    reader = remote(location, tmp_path / "reader", 10)
    paths = [reader.path(digest) for digest in digests]
    assert [path.exists() for path in paths] == [True, True, True]


def test_passwords_in_a_url_are_never_shown(tmp_path: Path) -> None:
    artifacts = open_artifacts("memory://ann:secret@host/path?token=secret", tmp_path)
    with pytest.raises(NotFound) as raised:
        artifacts.get(ABSENT)
    assert "memory://host/path" in raised.value.message
    assert "secret" not in raised.value.message


def test_an_unknown_kind_of_store_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"registry\.artifacts: ftpx://host: fsspec knows no ftpx://"):
        open_artifacts("ftpx://ann:secret@host", tmp_path)


def test_a_missing_client_names_the_extra(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from registry.objectstore import open_artifacts
from registry.errors import MissingExtra
sys.modules["s3fs"] = None
artifacts = open_artifacts("s3://bucket", Path(sys.argv[1]))
try:
    artifacts.put(b"hello")
except MissingExtra as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "module 's3fs' is not installed: pip install 'sluicegate[s3]'\n"


def test_closing_leaves_no_connection_open(bucket: str, tmp_path: Path) -> None:
    artifacts = remote(f"s3://{bucket}", tmp_path / "cache")
    artifacts.put(b"hello")
    artifacts.close()
    del artifacts
    gc.collect()
