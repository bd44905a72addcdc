"""What an engine prints, in files of bounded size and without secrets."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_MASK = b"***"
_BEARER = re.compile(rb"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_LONGEST_LINE = 16_384


class BoundedLog:
    """
    Appends to *path*; when half of *most_bytes* is reached, that becomes `<name>.1` and a new file begins.

    Secrets are masked, whatever pieces they arrive in. A disk that takes no more costs log lines, not the
    engine. Not thread-safe.
    """

    def __init__(self, path: Path, most_bytes: int, secrets: Sequence[str] = ()) -> None:
        """
        Open *path* for appending, readable by its owner alone.

        Raises:
            OSError: the folder or file cannot be made.
        """
        self.path = path
        self.lost_bytes = 0
        """What the disk did not take."""
        self._half = max(1024, most_bytes // 2)
        words = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._secrets = re.compile(b"|".join(re.escape(word.encode()) for word in words)) if words else None
        self._held = max((len(word.encode()) for word in words), default=1) - 1
        self._rest = b""
        self._last: deque[bytes] = deque(maxlen=20)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Take *data*; what follows its last line end is kept until the line is whole."""
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._put(self._masked(line) + b"\n")
        if len(self._rest) > _LONGEST_LINE:
            masked = self._masked(self._rest)
            cut = len(masked) - self._held
            self._put(masked[:cut])
            self._rest = masked[cut:]

    def tail(self) -> str:
        """The last lines since `begin`, masked, at most 2,000 characters: why an engine ended."""
        return b"".join(self._last).decode(errors="replace").strip()[-2000:]

    def begin(self) -> None:
        """Forget the last lines: another process begins to print."""
        self._last.clear()

    def close(self) -> None:
        """Write what is left and close the file. Idempotent."""
        if self._rest:
            self._put(self._masked(self._rest) + b"\n")
            self._rest = b""
        self._file.close()

    def _masked(self, line: bytes) -> bytes:
        if self._secrets is not None:
            line = self._secrets.sub(_MASK, line)
        return _BEARER.sub(rb"\1" + _MASK, line)

    def _put(self, text: bytes) -> None:
        self._last.append(text[-1000:])
        for start in range(0, len(text), self._half):
            self._append(text[start : start + self._half])

    def _append(self, piece: bytes) -> None:
        try:
            if self._file.tell() and self._file.tell() + len(piece) > self._half:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file = self._open()
            self._file.write(piece)
        except (OSError, ValueError):
            self.lost_bytes += len(piece)

    def _open(self) -> BinaryIO:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)
