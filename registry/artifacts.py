"""Content-addressed blobs: written whole or not at all, verified when read."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from registry.errors import BadInput, NotFound, StoreUnavailable, VersionTampered
from registry.ids import PREFIX, digest_bytes, is_digest

BLOCK = 1 << 20
"""Bytes handled at a time where a blob is streamed."""
CACHE_BYTES = 20 << 30
"""How much of a remote store is kept on this machine by default."""
_ASIDE = ".new-"


class Blob(NamedTuple):
    """A stored blob, unverified."""

    digest: str
    size: int
    """In bytes."""
    at: datetime
    """When it was last put: writing it again counts."""


class Artifacts:
    """A folder of blobs named by their digest. Safe for many processes at once."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*; it is made at the first `put`."""
        self.folder = folder

    @property
    def where(self) -> str:
        """What to call this store in a message."""
        return str(self.folder)

    def path(self, digest: str) -> Path:
        """
        The file of the blob *digest* on this machine.

        In a folder: where it lies, whether or not it is there. From a remote store: a verified copy.
        """
        return self.folder / place(digest)

    def put(self, data: bytes) -> str:
        """
        Store *data* and return its digest. Idempotent; on disk when this returns.

        Raises:
            StoreUnavailable: the store cannot be written, for example a full disk.
        """
        digest = digest_bytes(data)
        if not self._renewed(digest, len(data)):
            self._write(digest, (data,))
        return digest

    def put_file(self, path: Path) -> str:
        """
        Store the bytes of a file of any size and return their digest; otherwise as `put`.

        Raises:
            BadInput: the file cannot be read.
            VersionTampered: it was changed while it was read.
        """
        hashed = hashlib.sha256()
        size = 0
        for block in _file_blocks(path):
            hashed.update(block)
            size += len(block)
        digest = PREFIX + hashed.hexdigest()
        if not self._renewed(digest, size):
            self._write(digest, _file_blocks(path))
        return digest

    def put_blocks(self, digest: str, blocks: Iterable[bytes]) -> None:
        """
        Store what *blocks* make up under the digest it is known by.

        Raises:
            VersionTampered: it has another digest; nothing is stored.
            StoreUnavailable: the store cannot be written.
        """
        self._write(digest, blocks)

    def get(self, digest: str) -> bytes:
        """
        The verified bytes of *digest*.

        Raises:
            NotFound: no such blob here.
            VersionTampered: the stored bytes no longer have this digest.
        """
        return b"".join(self.blocks(digest))

    def blocks(self, digest: str) -> Iterator[bytes]:
        """
        The bytes of *digest* as they are stored, at most 1 MiB at a time; verified once all were taken.

        Raises:
            NotFound: no such blob here.
            VersionTampered: after the last block: the bytes no longer have this digest.
            StoreUnavailable: the store cannot be read.
        """
        yield from verified(digest, self._read(digest), self.where)

    def check(self, digest: str) -> int:
        """The size of a blob in bytes once all of it was read and verified. Raises as `blocks`."""
        return sum(map(len, self.blocks(digest)))

    def has(self, digest: str) -> bool:
        """Whether the blob is here; its bytes are not verified."""
        return self._stat(digest) is not None

    def size(self, digest: str) -> int:
        """The size of a blob in bytes, unverified. Raises NotFound."""
        found = self._stat(digest)
        if found is None:
            raise self._missing(digest)
        return found.size

    def blobs(self) -> Iterator[Blob]:
        """Every blob in the store, in no particular order; what is still being written is none."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            found = self._stat(PREFIX + path.name) if is_name(path.name) else None
            if found is not None:
                yield found

    def digests(self) -> Iterator[str]:
        """The digest of every blob in the store."""
        return (blob.digest for blob in self.blobs())

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        """
        Remove a blob; whether it is gone now that was here. Idempotent.

        Args:
            before: leave it when it was put, for the first time or again, at or after this.

        Raises:
            StoreUnavailable: the store cannot be written.
        """
        with self._writing(fcntl.LOCK_EX):
            found = self._stat(digest)
            if found is None or (before is not None and found.at >= before):
                return False
            (self.folder / place(digest)).unlink(missing_ok=True)
            return True

    def sweep(self, before: datetime) -> int:
        """Remove what writers left unfinished before then; how many files that were."""
        count = 0
        for path in self.folder.glob(f"[0-9a-f][0-9a-f]/{_ASIDE}*"):
            if _written(path) < before.timestamp():
                path.unlink(missing_ok=True)
                count += 1
        return count

    def close(self) -> None:
        """Give back what the store holds open. It must not be used afterwards."""

    def _stat(self, digest: str) -> Blob | None:
        try:
            found = (self.folder / place(digest)).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        return Blob(digest, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _renewed(self, digest: str, size: int) -> bool:
        """Whether a blob of this size is here already; it then counts as put now."""
        target = self.folder / place(digest)
        with self._writing(fcntl.LOCK_SH):
            if not target.exists() or target.stat().st_size != size:
                return False
            os.utime(target)
            return True

    def _write(self, digest: str, blocks: Iterable[bytes]) -> None:
        target = self.folder / place(digest)
        with self._writing(fcntl.LOCK_SH):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=_ASIDE)
        try:
            with self._writing(), os.fdopen(handle, "wb") as file:
                for block in verified(digest, blocks, "what was to be stored"):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            with self._writing(fcntl.LOCK_SH):
                Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self, digest: str) -> Iterator[bytes]:
        try:
            with (self.folder / place(digest)).open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
        except FileNotFoundError as error:
            raise self._missing(digest) from error
        except OSError as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _writing(self, lock: int | None = None) -> Iterator[None]:
        """Writers hold a lock together; who removes holds it alone, so that nothing put now is removed."""
        try:
            if lock is None:
                yield
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("ab") as file:
                fcntl.flock(file, lock)
                yield
        except OSError as error:
            message = f"artifact folder {self.folder} cannot be written: {error.strerror}"
            raise StoreUnavailable(message) from error

    def _missing(self, digest: str) -> NotFound:
        return NotFound(f"artifact {digest} is not in {self.where}")

    def _unreadable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"artifact folder {self.folder} cannot be read: {error.strerror}")


def verified(digest: str, blocks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """*blocks* passed on; after the last, VersionTampered unless they have that digest."""
    hashed = hashlib.sha256()
    for block in blocks:
        hashed.update(block)
        yield block
    if PREFIX + hashed.hexdigest() != digest:
        message = f"artifact {digest} in {where} was changed or cut short; restore it"
        raise VersionTampered(message)


def _file_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def is_name(text: str) -> bool:
    """Whether *text* is what a blob's file is called: its digest without `sha256:`."""
    return is_digest(PREFIX + text)


def place(digest: str) -> str:
    """Where a blob lies below the root of its store. Raises BadInput for what is no digest."""
    if not is_digest(digest):
        message = f"{digest!r} is not a digest"
        raise BadInput(message)
    name = digest.removeprefix(PREFIX)
    return f"{name[:2]}/{name}"


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
