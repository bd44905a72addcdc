"""What goes out: URLs that mean one thing, heads that nobody can add to."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamUnreachable
from gateway.transport.outgoing import Origin, checked, head_of, locate


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h", (Origin("h", 80, secure=False), "h", "/")),
        ("HTTPS://A.Example/v1/x?a=b#c", (Origin("a.example", 443, secure=True), "a.example", "/v1/x?a=b")),
        ("http://h:80/", (Origin("h", 80, secure=False), "h", "/")),
        ("https://h:80/", (Origin("h", 80, secure=True), "h:80", "/")),
        ("http://[::1]:8000/a%20b", (Origin("::1", 8000, secure=False), "[::1]:8000", "/a%20b")),
        ("http://bücher.example/ü", (Origin("xn--bcher-kva.example", 80, secure=False),
                                     "xn--bcher-kva.example", "/%C3%BC")),
        ("http://h?q=1", (Origin("h", 80, secure=False), "h", "/?q=1")),
    ],
)  # fmt: skip
def test_a_url_names_an_origin_a_host_and_a_target(url: str, found: tuple[Origin, str, str]) -> None:
    assert locate(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/", "file:///etc/passwd", "h/v1", "//h/v1", "", "http://user@h/", "http://user:pass@h/",
        "http://@h/", "http://h/a b", "http://h/a\r\nx: y", "http://h\x00/", "http://h:port/",
        "http://h:99999/", "http://" + "é" * 80 + "/", "http://[::1/",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_a_value_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each has its message
        locate(url)
    assert "pass" not in str(caught.value).replace("passwd", "").replace("a user or password", "")


def test_a_url_without_a_host_is_unreachable() -> None:
    with pytest.raises(UpstreamUnreachable, match="names no host"):
        locate("http://")


def test_a_head_has_the_clients_fields_first_and_the_callers_as_they_are() -> None:
    assert head_of("POST", "h:81", "/v1", ((b"Content-Type", b"text/plain"), (b"x", b"\xff\t1"))) == (
        b"POST /v1 HTTP/1.1\r\nhost: h:81\r\naccept-encoding: identity\r\nuser-agent: sluicegate\r\n"
        b"Content-Type: text/plain\r\nx: \xff\t1\r\n"
    )
    own = ((b"Host", b"a"), (b"User-Agent", b"b"), (b"Accept-Encoding", b"identity"))
    assert head_of("GET", "h", "/", own) == (
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept-Encoding: identity\r\n"
    )


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\x00b", b"\x7f", b"\x1b"])
def test_a_header_value_with_a_control_character_is_refused_and_not_shown(value: bytes) -> None:
    with pytest.raises(ValueError, match="the header authorization has a control character") as caught:
        head_of("POST", "h", "/", ((b"authorization", value),))
    assert repr(value) not in str(caught.value)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xc3\xa9", b"a\x00"])
def test_a_header_name_that_is_no_token_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="is not the name of a header"):
        checked(((name, b"1"),))


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"transfer-encoding",
        b"connection",
        b"te",
        b"upgrade",
        b"trailer",
        b"expect",
        b"keep-alive",
    ],
)
def test_a_header_that_would_choose_the_framing_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="is the client's to send"):
        checked(((name, b"1"),))


@pytest.mark.parametrize("method", ["", "GET /", "G\r\nT", "CONNECT"])
def test_a_method_that_cannot_be_sent_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="is not a method"):
        head_of(method, "h", "/", ())
