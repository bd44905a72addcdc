"""
The head of a request as bytes, and where it goes.

Only what cannot be read two ways is sent: no control character, no framing but this client's own.

Source: RFC 9110, sections 5.5, 5.6.2 and 7.2; RFC 9112, sections 3.2.1 and 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from gateway.errors import UpstreamUnreachable
from gateway.transport.base import HOP_BY_HOP, Headers

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FORBIDDEN_IN_URLS = re.compile(r"[\x00-\x20\x7f]")
_SAFE_IN_TARGETS = "/?:@!$&'()*+,;=-._~%[]"
_PORTS = {"http": 80, "https": 443}
_FRAMING = HOP_BY_HOP | {b"content-length", b"expect"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a connection is to."""

    host: str
    """ASCII, lower-case, without the brackets of an IPv6 address."""
    port: int
    secure: bool


def locate(url: str) -> tuple[Origin, str, str]:
    """
    Origin, `Host` value and target of *url*; its fragment is left out.

    Raises:
        ValueError: it is not an http or https URL, has a user or password, or a character no URL has.
        UpstreamUnreachable: it names no host.

    >>> locate("https://API.example:8443/v1?q=é#top")
    (Origin(host='api.example', port=8443, secure=True), 'api.example:8443', '/v1?q=%C3%A9')
    """
    if _FORBIDDEN_IN_URLS.search(url):
        message = f"the URL {url[:100]!r} has a space or control character; percent-encode it"
        raise ValueError(message)
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        message = f"the URL's scheme {parts.scheme[:20]!r} is not http or https"
        raise ValueError(message)
    if "@" in parts.netloc:
        message = "the URL has a user or password; send credentials in a header"
        raise ValueError(message)
    if not parts.hostname:
        message = f"the URL {url[:100]!r} names no host"
        raise UpstreamUnreachable(message)
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    except UnicodeError as error:
        message = f"{parts.hostname[:100]!r} is not the name of a host"
        raise ValueError(message) from error
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        shown = f"{shown}:{port}"
    target = quote(parts.path or "/", safe=_SAFE_IN_TARGETS)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE_IN_TARGETS)
    return Origin(host, port, parts.scheme == "https"), shown, target


def checked(headers: Headers) -> dict[bytes, bytes]:
    """
    The values of *headers* by lower-case name, of a repeated one the last.

    Raises:
        ValueError: a name is not a token, a value has CR, LF, NUL or another control character, or a
            field would choose the framing, which is this client's to choose.
    """
    found = {}
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            message = f"{name[:40]!r} is not the name of a header"
            raise ValueError(message)
        if _FORBIDDEN_IN_VALUES.search(value):
            message = f"the header {name.decode()} has a control character, such as CR, LF or NUL"
            raise ValueError(message)
        if name.lower() in _FRAMING:
            message = f"the header {name.decode()} is the client's to send; leave it out"
            raise ValueError(message)
        found[name.lower()] = value
    return found


def head_of(method: str, host: str, target: str, headers: Headers) -> bytes:
    """
    A request's head up to, not including, `content-length` and the blank line.

    Raises:
        ValueError: see `checked`; or *method* is not one this client sends.
    """
    given = checked(headers)
    verb = method.encode()
    if not _TOKEN.fullmatch(verb) or verb == b"CONNECT":
        message = f"{method[:20]!r} is not a method that can be sent"
        raise ValueError(message)
    lines = [b"%b %b HTTP/1.1" % (verb, target.encode())]
    if b"host" not in given:
        lines.append(b"host: " + host.encode())
    if b"accept-encoding" not in given:
        lines.append(b"accept-encoding: identity")
    if b"user-agent" not in given:
        lines.append(b"user-agent: sluicegate")
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n"
