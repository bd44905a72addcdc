"""
Binary tensors of the Open Inference Protocol: values one after the other, little-endian, after the JSON.

Source: Open Inference Protocol, "Binary Tensor Data Extension", kserve/open-inference-protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRequest

FORMATS: Mapping[str, str] = {
    "BOOL": "?", "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I",
    "INT64": "q", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
"""Datatype → its letter in `struct`; BYTES have a length of four bytes before each."""
RANGES: Mapping[str, tuple[int, int]] = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
"""Whole numbers: datatype → least and greatest."""
_LENGTH = struct.Struct("<I")


def split(body: bytes, header_length: bytes) -> tuple[bytes, bytes]:
    """
    The JSON and what follows it, where `Inference-Header-Content-Length` is *header_length*.

    Raises:
        InvalidRequest: it is no number, or larger than the body.
    """
    length = int(header_length) if header_length.isdigit() and len(header_length) < 12 else -1
    if not 0 <= length <= len(body):
        message = f"Inference-Header-Content-Length: must be 0 to {len(body)}, the length of the body"
        raise InvalidRequest(message)
    return body[:length], body[length:]


def unpack(name: str, datatype: str, data: bytes) -> list[Any]:
    r"""
    The values in *data* of the tensor *name*.

    Raises:
        InvalidRequest: an unknown datatype, or a size that is no whole number of values.

    >>> unpack("x", "INT16", b"\x01\x00\xff\xff"), unpack("x", "BYTES", b"\x02\x00\x00\x00hi")
    ([1, -1], ['hi'])
    """
    if datatype == "BYTES":
        return _texts(name, data)
    letter = FORMATS.get(datatype)
    if letter is None:
        raise _wrong(name, f"datatype {datatype[:16]!r} is none of {', '.join(FORMATS)}, BYTES")
    size = struct.calcsize(f"<{letter}")
    count, rest = divmod(len(data), size)
    if rest:
        raise _wrong(name, f"{len(data)} bytes are no whole number of {datatype}, {size} bytes each")
    return list(struct.unpack(f"<{count}{letter}", data))


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    r"""
    *values* as bytes; `unpack` turns them back.

    >>> pack("FP64", [0.5]), pack("BYTES", ["é"])
    (b'\x00\x00\x00\x00\x00\x00\xe0?', b'\x02\x00\x00\x00\xc3\xa9')
    """
    if datatype != "BYTES":
        return struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values)
    encoded = [str(value).encode() for value in values]
    return b"".join(_LENGTH.pack(len(one)) + one for one in encoded)


def _texts(name: str, data: bytes) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise _wrong(name, f"ends in the middle of a length, at byte {at}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise _wrong(name, f"an element of {length} bytes begins at byte {at} of {len(data)}")
        try:
            found.append(data[at : at + length].decode())
        except UnicodeDecodeError as error:
            raise _wrong(name, f"an element is not UTF-8 at byte {at + error.start}") from error
        at += length
    return found


def _wrong(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"inputs: feature {name[:64]!r}: {problem}", param=name[:64])
