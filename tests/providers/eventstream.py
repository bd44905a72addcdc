"""
Amazon's binary event streams, as far as Bedrock sends them.

Source: AWS, "Event stream encoding", in the developer guide of Amazon Transcribe: total length, length of the
headers, CRC-32 of both, headers, payload, CRC-32 of all.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

_STRING = 7


def framed(kind: str, payload: dict[str, Any]) -> bytes:
    """One message: an event, or where *kind* begins with `!` an exception."""
    exception = kind.startswith("!")
    headers = _header(":exception-type" if exception else ":event-type", kind.removeprefix("!"))
    headers += _header(":content-type", "application/json")
    headers += _header(":message-type", "exception" if exception else "event")
    body = json.dumps(payload, separators=(",", ":")).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    return (
        bytes([len(name)]) + name.encode() + bytes([_STRING]) + struct.pack("!H", len(value)) + value.encode()
    )
