"""
The last snapshot that was read, on disk: what is served when the registry cannot be reached at a start.

It holds releases, prompts, policies, limits, prices and the digests of keys, and is its owner's alone to
read. What happened in the registry since, such as the revocation of a key, cannot be known from it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import datetime
from pathlib import Path

import msgspec

from registry.entities import ApiKey, LimitRule, Price, ServedRelease, Snapshot, Split
from registry.errors import BadInput

_FORMAT = 1
_log = logging.getLogger(__name__)


class _Body(msgspec.Struct):
    revision: int
    releases: tuple[ServedRelease, ...]
    aliases: list[tuple[str, str, str]]
    keys: tuple[ApiKey, ...]
    broken: dict[str, str]
    limits: tuple[LimitRule, ...]
    prices: tuple[Price, ...]
    unproven: list[tuple[str, str]] = []
    splits: tuple[Split, ...] = ()


class _File(msgspec.Struct):
    format: int
    written_at: datetime
    sha256: str
    body: msgspec.Raw


class LastGood:
    """One file. Its methods block; call them from a thread."""

    def __init__(self, path: Path) -> None:
        """Keep the snapshot at *path*."""
        self._path = path

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return self._path.exists()

    def write(self, snapshot: Snapshot, now: datetime) -> None:
        """
        Keep *snapshot* in the place of the one before, all or nothing.

        Raises:
            OSError: the disk did not take it; the one before is still there.
        """
        body = msgspec.json.encode(
            _Body(
                snapshot.revision,
                snapshot.releases,
                [(name, alias, digest) for (name, alias), digest in sorted(snapshot.aliases.items())],
                snapshot.keys,
                dict(snapshot.broken),
                snapshot.limits,
                snapshot.prices,
                sorted(snapshot.unproven),
                snapshot.splits,
            )
        )
        digest = hashlib.sha256(body).hexdigest()
        data = msgspec.json.encode(_File(_FORMAT, now, digest, msgspec.Raw(body)))
        replace_file(self._path, data)

    def read(self) -> tuple[Snapshot, datetime] | None:
        """What was kept and when; None when there is nothing that can be trusted, which is logged."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("the last known good state cannot be read: %s", error)
            return None
        try:
            file = msgspec.json.decode(data, type=_File)
            body = bytes(file.body)
            if file.format != _FORMAT or hashlib.sha256(body).hexdigest() != file.sha256:
                _log.error("%s is damaged or of another version, so it is not served", self._path)
                return None
            found = msgspec.json.decode(body, type=_Body)
        except (msgspec.MsgspecError, UnicodeDecodeError, BadInput) as error:
            _log.error("%s cannot be read, so it is not served: %s", self._path, error)
            return None
        aliases = {(name, alias): digest for name, alias, digest in found.aliases}
        snapshot = Snapshot(
            found.revision, found.releases, aliases, found.keys, found.broken, found.limits, found.prices,
            frozenset(found.unproven), found.splits,
        )  # fmt: skip
        return snapshot, file.written_at


def replace_file(path: Path, data: bytes) -> None:
    """
    Put *data* at *path*, for its owner alone to read: whole, or not at all if the machine stops meanwhile.

    Raises:
        OSError: the disk did not take it; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor with its own mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
