"""
Tar files of a narrow kind: plain files with zero times and owners, and nothing else.

One content has one file: what `Writer` would not have written, `Bundle` refuses to read. So there are no
links, no devices, no paths that lead elsewhere, and no header that asks for memory. Any tar program lists
and unpacks such a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from registry.errors import BadInput, StoreUnavailable, VersionTampered
from registry.ids import PREFIX, canonical

BLOCK = 1 << 20
MOST_BYTES = 10 * 10**9
MOST_MEMBERS = 100_000
MOST_TEXT = 64 * 10**6
"""Bytes of a member that is read into memory."""
MANIFEST = "manifest.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*(\.[a-z]+)?")
_HEADER, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A progress bar as `terminal.progress`: label and total give what is called with how many more are done."""


@contextmanager
def silent(_label: str, _total: int) -> Iterator[Callable[[int], None]]:
    """The progress bar that shows nothing."""
    yield lambda _done: None


class Member(NamedTuple):
    """One file in a bundle."""

    name: str
    size: int
    """In bytes."""
    digest: str


class Writer:
    """Writes a bundle front to back and remembers what it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        """*file* is empty and seekable."""
        self._file = file
        self.written: list[Member] = []

    def add(self, name: str, blocks: Iterable[bytes]) -> Member:
        """Write a member of any size; nothing of it is held in memory but a block."""
        start = self._file.tell()
        self._file.write(bytes(_HEADER))
        hashed, size = hashlib.sha256(), 0
        for block in blocks:
            hashed.update(block)
            size += len(block)
            self._file.write(block)
        self._file.write(bytes(-size % _HEADER))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(name, size))
        self._file.seek(end)
        made = Member(name, size, PREFIX + hashed.hexdigest())
        self.written.append(made)
        return made

    def finish(self) -> int:
        """Write the end of the file; returns its size in bytes."""
        self._file.write(bytes(2 * _HEADER))
        self._file.write(bytes(-self._file.tell() % _RECORD))
        return self._file.tell()


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """
    A writer whose file appears at *path*, readable by its owner alone, once everything is in it and on disk.

    Raises:
        StoreUnavailable: the file cannot be written; what was at *path* stays.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file:
            writer = Writer(file)
            yield writer
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


class Bundle:
    """An opened bundle whose every header was checked, and no content yet."""

    def __init__(self, file: BinaryIO, source: str, *, most_bytes: int, most_members: int) -> None:
        """
        Read the headers.

        Raises:
            BadInput: it is no bundle, is cut short, or is larger than allowed.
        """
        self._file, self.source = file, source
        self._offsets: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.size = file.seek(0, io.SEEK_END)
        if self.size > most_bytes:
            raise BadInput(f"{source}: has {self.size} bytes; at most {most_bytes} are read, see --max-gb")
        position = 0
        while (header := self._at(position, _HEADER)) != bytes(_HEADER):
            name, size = self._entry(header)
            if name in self.sizes or len(self.sizes) >= most_members:
                raise BadInput(f"{source}: has {name} twice, or more than {most_members} members")
            self._offsets[name], self.sizes[name] = position + _HEADER, size
            position += _HEADER + size
            if position > self.size:
                raise BadInput(f"{source}: is cut short in {name}; fetch it again")
            gap = -size % _HEADER
            if self._at(position, gap) != bytes(gap):
                raise BadInput(f"{source}: has something behind {name}")
            position += gap
        self._check_padding(position)

    def read(self, name: str) -> bytes:
        """
        A member as a whole.

        Raises:
            BadInput: it is not there, or too large for what it should be.
        """
        if self.sizes.get(name, MOST_TEXT + 1) > MOST_TEXT:
            raise BadInput(f"{self.source}: {name} is missing, or larger than {MOST_TEXT} bytes")
        return self._at(self._offsets[name], self.sizes[name])

    def blocks(self, name: str) -> Iterator[bytes]:
        """A member, at most 1 MiB at a time."""
        position, left = self._offsets[name], self.sizes[name]
        while left:
            block = self._at(position, min(BLOCK, left))
            yield block
            position, left = position + len(block), left - len(block)

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, without their ends; each is held in memory."""
        rest = b""
        for block in self.blocks(name):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
            if len(rest) > MOST_TEXT:
                raise BadInput(f"{self.source}: a line of {name} is larger than {MOST_TEXT} bytes")
        if rest:
            yield rest

    def manifest(self, kind: str, bar: Bar = silent, *, unlisted: str = "") -> dict[str, Any]:
        """
        The manifest, once every member was read and is what it says.

        Args:
            unlisted: members whose names begin so need not be in it, since their names are their digests.

        Raises:
            BadInput: there is none, it is of another *kind*, or names other members than there are.
            VersionTampered: a member has other bytes than it says, or a blob another digest than its name.
        """
        value = as_object(self.read(MANIFEST), f"{self.source}: {MANIFEST}")
        if value.get("format") != kind:
            raise BadInput(f"{self.source}: its format is {value.get('format')!r}, not {kind!r}")
        listed = value.get("members")
        if not isinstance(listed, list) or not all(_is_member(item) for item in listed):
            raise BadInput(f"{self.source}: {MANIFEST} lists no members")
        digests = {item["name"]: item["digest"] for item in listed}
        held = self.sizes.keys() - {MANIFEST}
        if unlisted:
            held = {name for name in held if not name.startswith(unlisted)}
        if digests.keys() != held or len(digests) < len(listed):
            odd = sorted(digests.keys() ^ held)[:3]
            raise BadInput(f"{self.source}: has other members than its manifest says: {', '.join(odd)}")
        sizes = {item["name"]: item["size"] for item in listed}
        with bar("verifying", len(self.sizes)) as advance:
            for name in self.sizes.keys() - {MANIFEST}:
                hashed = hashlib.sha256()
                for block in self.blocks(name):
                    hashed.update(block)
                found = hashed.hexdigest()
                if (sizes.get(name, self.sizes[name]), digests.get(name, PREFIX + found)) != (
                    self.sizes[name], PREFIX + found,
                ):  # fmt: skip
                    raise VersionTampered(f"{self.source}: {name} is not what its manifest says")
                if name.startswith("blobs/") and name != f"blobs/{found}":
                    raise VersionTampered(f"{self.source}: {name} has digest {found}")
                advance(1)
        return value

    def _entry(self, header: bytes) -> tuple[str, int]:
        try:
            found = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeError) as error:
            raise BadInput(f"{self.source}: is not a tar file, or is cut short") from error
        if found.size < 0 or not _NAME.fullmatch(found.name) or header != _header(found.name, found.size):
            message = f"{self.source}: {found.name[:100]!r} is not a plain file as this program writes them"
            raise BadInput(message)
        return found.name, found.size

    def _check_padding(self, position: int) -> None:
        end = position + 2 * _HEADER
        end += -end % _RECORD
        if self.size != end or self._at(position, end - position) != bytes(end - position):
            raise BadInput(f"{self.source}: does not end where its last member does")

    def _at(self, position: int, size: int) -> bytes:
        try:
            self._file.seek(position)
            data = self._file.read(size)
        except OSError as error:
            raise StoreUnavailable(f"{self.source}: cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise BadInput(f"{self.source}: is cut short; fetch it again")
        return data


@contextmanager
def reading(
    path: Path, *, most_bytes: int = MOST_BYTES, most_members: int = MOST_MEMBERS
) -> Iterator[Bundle]:
    """
    The bundle at *path*.

    Raises:
        BadInput: there is none, or it is no bundle.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        yield Bundle(file, str(path), most_bytes=most_bytes, most_members=most_members)


def manifest_of(kind: str, members: Iterable[Member], **more: Any) -> bytes:  # noqa: ANN401
    """The text of a manifest; *more* are its own keys."""
    listed = [member._asdict() for member in sorted(members)]
    return canonical({"format": kind, **more, "members": listed})


def as_object(text: bytes, source: str) -> dict[str, Any]:
    """
    The JSON object in *text*.

    Raises:
        BadInput: it is something else, or not in canonical form.
    """
    try:
        value = json.loads(text)
        same = isinstance(value, dict) and canonical(value) == text
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source}: is not JSON") from error
    if not same:
        raise BadInput(f"{source}: is not a JSON object in canonical form")
    found: dict[str, Any] = value
    return found


def _header(name: str, size: int) -> bytes:
    made = tarfile.TarInfo(name)
    made.size = size
    return made.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _is_member(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"name", "size", "digest"}
        and isinstance(item["name"], str)
        and isinstance(item["digest"], str)
        and type(item["size"]) is int
    )
