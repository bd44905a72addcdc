"""One line of JSON for each request, for those who collect logs. Never text of prompts or answers."""

from __future__ import annotations

import queue
import sys
import threading
from typing import TextIO

import msgspec

from gateway.dataplane.usage import UsageRecord

_MAX_WAITING = 10_000


class RequestLog:
    """Writes in a thread of its own, so that a slow reader of the log holds up no request."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to *stream*, by default standard error."""
        self._stream = stream or sys.stderr
        self._lines: queue.Queue[UsageRecord | None] = queue.Queue(_MAX_WAITING)
        self.dropped = 0
        """Records that were not written, because too many waited or the stream took none."""
        self._thread = threading.Thread(target=self._write, name="gateway-request-log", daemon=True)
        self._thread.start()

    def add(self, record: UsageRecord) -> None:
        """Write *record* soon."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, for up to five seconds."""
        try:
            self._lines.put(None, timeout=5)
        except queue.Full:
            return
        self._thread.join(5)

    def _write(self) -> None:
        encode = msgspec.json.Encoder().encode
        while (record := self._lines.get()) is not None:
            try:
                self._stream.write(encode(record).decode() + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except OSError:  # its reader is gone; there is nowhere else to say so than in the count
                self.dropped += 1
