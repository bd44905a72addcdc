"""Content-addressed blobs in a folder: written whole or not at all, verified when read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from registry.errors import BadInput, NotFound, StoreUnavailable, VersionTampered
from registry.ids import PREFIX, digest_bytes, is_digest


class Artifacts:
    """A folder of blobs named by their digest. Safe for many processes at once."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*; it is made at the first `put`."""
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the blob of *digest* lies, whether or not it is there."""
        if not is_digest(digest):
            message = f"{digest!r} is not a digest"
            raise BadInput(message)
        name = digest.removeprefix(PREFIX)
        return self.folder / name[:2] / name

    def put(self, data: bytes) -> str:
        """
        Store *data* and return its digest. Idempotent; on disk when this returns.

        Raises:
            StoreUnavailable: the folder cannot be written, for example a full disk.
        """
        digest = digest_bytes(data)
        target = self.path(digest)
        if target.exists() and target.stat().st_size == len(data):
            return digest
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            message = f"artifact folder {self.folder} cannot be written: {error.strerror}"
            raise StoreUnavailable(message) from error
        return digest

    def get(self, digest: str) -> bytes:
        """
        The verified bytes of *digest*.

        Raises:
            NotFound: no such blob here.
            VersionTampered: the file no longer has this digest.
        """
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            message = f"artifact {digest} is not in {self.folder}"
            raise NotFound(message) from error
        if digest_bytes(data) != digest:
            message = f"artifact {digest} in {self.folder} was changed; restore it"
            raise VersionTampered(message)
        return data

    def has(self, digest: str) -> bool:
        """Whether the blob is here; its bytes are not verified."""
        return self.path(digest).exists()
