"""
Whose trace a request belongs to: W3C Trace Context, level 1.

The ids of a request's own span come from its request id, so that nothing needs to be kept, drawn or passed
along: whoever knows the request id can find the span.

Source: https://www.w3.org/TR/trace-context-1/, sections 3.2 and 4.3.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ALL = 2**64
HEADER = b"traceparent"


class Span(NamedTuple):
    """Where one request stands in a trace; ids in lower-case hex."""

    trace: str
    """32 digits."""
    span: str
    """16 digits, of this request."""
    parent: str
    """16 digits, of who called; empty where the trace begins here."""
    sampled: bool


def parent_of(value: bytes) -> str:
    """
    What a `traceparent` header says, as version 00 writes it; empty where it says nothing valid.

    >>> parent_of(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    >>> parent_of(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01")
    ''
    """
    found = _PARENT.fullmatch(value.strip()[:256])
    if found is None:
        return ""
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return ""
    if not (trace.strip(b"0") and span.strip(b"0")):
        return ""
    return f"00-{trace.decode()}-{span.decode()}-{flags.decode()}"


def span_of(request_id: str, parent: str, ratio: float = 1.0) -> Span:
    """
    The span of a request, under *parent* (as `parent_of` returns it) or at the beginning of a trace.

    Args:
        ratio: the share of traces that begin here to keep, 0 to 1; what began elsewhere is kept as its
            caller decided.
    """
    digest = sha256(request_id.encode()).hexdigest()
    if parent:
        _, trace, caller, flags = parent.split("-")
        return Span(trace, digest[:16], caller, bool(int(flags, 16) & 1))
    trace = digest[16:48]
    return Span(trace, digest[:16], "", int(trace[16:], 16) < ratio * _ALL)


def onward(span: Span) -> bytes:
    """The `traceparent` for what this request calls."""
    return f"00-{span.trace}-{span.span}-{'01' if span.sampled else '00'}".encode()
