"""Blobs in a remote store, through fsspec; what was read lately is kept in a folder on this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from registry import plugins
from registry.artifacts import BLOCK, CACHE_BYTES, Artifacts, Blob, is_name, place
from registry.clock import from_text, utc_now
from registry.errors import BadSettings, NotFound, PlatformError, StoreUnavailable, VersionTampered
from registry.ids import PREFIX

_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
"""Stores where an object appears whole or not at all; in others it is written aside and then renamed."""
_EXTRAS = {"s3fs": "s3"}
_S3: dict[str, Any] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 2}}
}
"""With s3fs trying twice as well, a store that says nothing is given up after a minute."""
_ATTEMPTS = 2
_FRESH = timedelta(minutes=30)
"""A blob put this recently need not be written again to count as put now."""
_IN_USE = timedelta(minutes=1)
"""Copies used this recently stay, even when there are too many."""
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class RemoteArtifacts(Artifacts):
    """As `Artifacts`, in a store that fsspec speaks to. Thread-safe; connected at the first use."""

    def __init__(self, location: str, cache: Path, cache_bytes: int) -> None:
        """See `open_artifacts`."""
        super().__init__(cache)
        self._copies = Artifacts(cache)
        self._location = location.rstrip("/")
        self._bytes = cache_bytes
        self._lock = threading.Lock()
        self._opened: list[tuple[Any, str]] = []
        parts = urlsplit(location)
        self._atomic = parts.scheme in _ATOMIC
        self._where = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        from fsspec.registry import available_protocols

        if parts.scheme.split("::")[0] not in available_protocols():
            message = f"registry.artifacts: {self._where}: fsspec knows no {parts.scheme}://"
            raise BadSettings(message)

    @property
    def where(self) -> str:
        """The URL of the store, without a password."""
        return self._where

    def path(self, digest: str) -> Path:
        """
        A verified copy of the blob on this machine.

        Raises:
            NotFound, VersionTampered, StoreUnavailable: as `blocks`.
        """
        self._fetch(digest)
        return self._copies.path(digest)

    def get(self, digest: str) -> bytes:
        """The verified bytes of *digest*, from the copy on this machine where there is one."""
        try:
            data = self._copies.get(digest)
        except (NotFound, VersionTampered):
            self._copies.delete(digest)
            self._fetch(digest)
            data = self._copies.get(digest)
        self._used(digest)
        return data

    def blobs(self) -> Iterator[Blob]:
        """Every blob in the store; what is still being written is none."""
        for folder in sorted(entry["name"] for entry in self._list("")):
            for entry in self._list(folder.rstrip("/").rpartition("/")[2]):
                name = entry["name"].rpartition("/")[2]
                if is_name(name):
                    yield _blob(PREFIX + name, entry)

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        """
        Remove a blob, here and in the store.

        The store offers no lock: its age is looked at just before it is removed.
        """
        found = self._stat(digest)
        if found is None or (before is not None and found.at >= before):
            return False
        with self._reaching(digest):
            store, root = self._store()
            store.rm_file(f"{root}/{place(digest)}")
        self._copies.delete(digest)
        return True

    def close(self) -> None:
        """Close the connections to the store."""
        with self._lock:
            for store, _ in self._opened:
                session, loop = getattr(store, "_s3", None), getattr(store, "loop", None)
                if session is not None and loop is not None:
                    store.close_session(loop, session)
            self._opened.clear()

    def _fetch(self, digest: str) -> None:
        """Have a verified copy of the blob on this machine."""
        try:
            self._copies.check(digest)
        except (NotFound, VersionTampered):
            self._copies.delete(digest)
            self._copies.put_blocks(digest, self.blocks(digest))
            self._evict(digest)
        self._used(digest)

    def _used(self, digest: str) -> None:
        with contextlib.suppress(OSError):  # another process may have removed the copy
            os.utime(self._copies.path(digest))

    def _evict(self, keep: str) -> None:
        """Remove the least recently used copies until the rest fits."""
        held = sorted(self._copies.blobs(), key=lambda blob: blob.at)
        total = sum(blob.size for blob in held)
        for blob in held:
            if total <= self._bytes:
                return
            if blob.digest != keep and self._copies.delete(blob.digest, before=utc_now() - _IN_USE):
                total -= blob.size

    def _stat(self, digest: str) -> Blob | None:
        try:
            with self._reaching(digest):
                store, root = self._store()
                return _blob(digest, store.info(f"{root}/{place(digest)}"))
        except NotFound:
            return None

    def _renewed(self, digest: str, size: int) -> bool:
        found = self._stat(digest)
        return found is not None and found.size == size and found.at > utc_now() - _FRESH

    def _write(self, digest: str, blocks: Iterable[bytes]) -> None:
        self._copies.put_blocks(digest, blocks)
        copy = self._copies.path(digest)
        size = copy.stat().st_size
        if not self._renewed(digest, size):
            self._upload(digest, copy, size)
        self._evict(digest)

    def _upload(self, digest: str, copy: Path, size: int) -> None:
        with self._reaching(digest):
            store, root = self._store()
            target = f"{root}/{place(digest)}"
            if self._atomic:
                store.put_file(str(copy), target)
            else:
                aside = f"{target}.{os.urandom(4).hex()}.new"
                store.makedirs(target.rpartition("/")[0], exist_ok=True)
                store.put_file(str(copy), aside)
                store.mv(aside, target)
        found = self._stat(digest)
        if found is None or found.size != size:
            message = f"artifact {digest} did not arrive in {self.where}; try again"
            raise StoreUnavailable(message)

    def _read(self, digest: str) -> Iterator[bytes]:
        with self._reaching(digest):
            store, root = self._store()
            with store.open(f"{root}/{place(digest)}", "rb", block_size=8 * BLOCK) as file:
                while block := file.read(BLOCK):
                    yield block

    def _list(self, folder: str) -> list[dict[str, Any]]:
        with self._reaching(folder):
            store, root = self._store()
            try:
                found: list[dict[str, Any]] = store.ls(f"{root}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []  # nothing was ever put
        return found

    def _store(self) -> tuple[Any, str]:
        """The file system and the path of the root in it."""
        with self._lock:
            if not self._opened:
                import fsspec

                options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
                if self._location.startswith(("s3://", "s3a://")):
                    options |= _S3
                try:
                    store, root = fsspec.core.url_to_fs(self._location, **options)
                except ModuleNotFoundError as error:
                    raise plugins.missing(error, _EXTRAS.get(str(error.name))) from error
                except ImportError as error:  # what fsspec says in place of the above
                    cause = error.__cause__ or error.__context__
                    if isinstance(cause, ModuleNotFoundError):
                        raise plugins.missing(cause, _EXTRAS.get(str(cause.name))) from error
                    raise
                if hasattr(store, "retries"):
                    store.retries = _ATTEMPTS
                self._opened.append((store, root.rstrip("/")))
            return self._opened[0]

    @contextlib.contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Say clearly what a store answered, whatever library speaks to it."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._missing(what) from error
        except PermissionError as error:
            message = f"{self.where}: permission denied; check the credentials and their rights"
            raise StoreUnavailable(message) from error
        except PlatformError:
            raise
        except Exception as error:
            message = f"{self.where} did not answer: {type(error).__name__}: {str(error)[:200]}"
            raise StoreUnavailable(message) from error


def _blob(digest: str, entry: dict[str, Any]) -> Blob:
    value = next((entry[key] for key in _TIMES if entry.get(key) is not None), None)
    if isinstance(value, str):
        value = from_text(value)
    elif isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        value = value.replace(tzinfo=value.tzinfo or UTC)
    return Blob(digest, int(entry["size"]), value if isinstance(value, datetime) else utc_now())


def open_artifacts(location: str, cache: Path, *, cache_bytes: int = CACHE_BYTES) -> Artifacts:
    """
    The store at *location*: a folder, or a URL that fsspec understands such as `s3://bucket/prefix`.

    Nothing is connected before the first use. Credentials and endpoint come from the environment (`AWS_*`) or
    from fsspec's own configuration.

    Args:
        cache: folder for copies of what a remote store holds.
        cache_bytes: how large they may grow; the least recently used go first.

    Raises:
        BadSettings: the URL is of a kind that fsspec does not know.
    """
    if "://" not in location:
        return Artifacts(Path(location))
    if location.startswith("file://"):
        return Artifacts(Path(unquote(urlsplit(location).path)))
    return RemoteArtifacts(location, cache, cache_bytes)
