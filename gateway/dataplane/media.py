"""What kind of body a request has, and bodies that were compressed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from gateway.errors import BodyTooLarge, InvalidRequest, UnsupportedMedia

_WINDOWS: Mapping[bytes, int] = {b"gzip": 31, b"deflate": 15}
"""Encoding → `wbits` of zlib; HTTP's deflate has zlib's frame (RFC 9110, section 8.4.1.2)."""


def is_of(kind: bytes | None, name: bytes) -> bool:
    """
    Whether the `Content-Type` *kind* is *name*, whatever its parameters.

    >>> is_of(b"Application/JSON; charset=utf-8", b"application/json")
    True
    """
    return kind is not None and kind.partition(b";")[0].strip().lower() == name


def require(kind: bytes | None, *names: bytes) -> None:
    """Raise UnsupportedMedia where *kind* is none of *names*; a request that says nothing is taken."""
    if kind is None or any(is_of(kind, name) for name in names):
        return
    shown = kind.partition(b";")[0].strip().decode("latin-1")[:64]
    message = f"content-type: {shown!r} is not {b' or '.join(names).decode()}"
    raise UnsupportedMedia(message, param="content-type")


def inflated(data: bytes, encoding: bytes, limit: int) -> bytes:
    """
    A body as it was before it was compressed. Blocking; memory stays near *limit*.

    Raises:
        UnsupportedMedia: *encoding* is none of gzip, deflate and identity.
        InvalidRequest: *data* is not of that encoding, or not whole.
        BodyTooLarge: it would have more than *limit* bytes.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return data
    window = _WINDOWS.get(name)
    if window is None:
        shown = name.decode("latin-1")[:32]
        message = f"content-encoding: {shown!r} is not gzip, deflate or identity"
        raise UnsupportedMedia(message, param="content-encoding")
    unpacker = zlib.decompressobj(window)
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        message = f"content-encoding: the body is not {name.decode()}"
        raise InvalidRequest(message, param="content-encoding") from error
    if len(found) > limit:
        message = f"the body has more than {limit} bytes when it is unpacked"
        raise BodyTooLarge(message)
    if not unpacker.eof or unpacker.unused_data:
        message = f"content-encoding: the body is not one whole {name.decode()} stream"
        raise InvalidRequest(message, param="content-encoding")
    return found
