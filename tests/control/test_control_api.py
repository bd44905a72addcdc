"""Every path of the control API against methods, queries, headers and bodies that nobody promised."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
QUERIES = ("", "?", "?a=%ff%00", "?a[]=1&a=2", "?" + "a=b&" * 500, "?%", "?x=../../etc/passwd")
BODIES = (b"", b"{", b"\xff\x00", b"[" * 50_000, b'{"a": NaN}')
PATHS = (
    "/", "/HEALTH", "/health/nothing", "/metrics%00", "/nothing", "/%ff", "/.env", "/health/../metrics",
    "/docs", "/redoc", "//health", "/health/live/../../etc/passwd", "/" + "x" * 4000,
)  # fmt: skip


def ask(
    url: str, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request(method, target, body, headers or {})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, answer


def described(url: str) -> dict[str, Any]:
    status, _, body = ask(url, "GET", "/openapi.json")
    assert status == 200
    paths: dict[str, Any] = json.loads(body)["paths"]
    return paths


def check(method: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """No fault, and where it is a refusal, one in OpenAI's shape."""
    assert status < 500, body
    if status >= 400 and method != "HEAD":
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("method", METHODS)
def test_no_method_query_or_body_trips_a_described_path(url: str, method: str) -> None:
    paths = described(url)
    assert len(paths) >= 4
    for path in paths:
        for query in QUERIES:
            check(method, *ask(url, method, path + query))
        for body in BODIES:
            check(method, *ask(url, method, path, body, {"content-type": "application/json"}))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_paths_that_are_not_described_are_not_found(url: str, method: str, path: str) -> None:
    status, headers, body = ask(url, method, path)
    check(method, status, headers, body)
    assert status in (400, 404, 405)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept", "application/xml"), ("accept-encoding", "gzip;q=x"), ("range", "bytes=5-1"),
        ("cookie", "\xff=;;"),
        ("authorization", "Bearer " + "x" * 8000), ("content-type", "x" * 300), ("upgrade", "websocket"),
        ("x-forwarded-for", "' OR 1=1"), ("origin", "null"), ("if-modified-since", "yesterday"),
    ],
)  # fmt: skip
def test_no_header_trips_a_described_path(url: str, name: str, value: str) -> None:
    for path in described(url):
        check("GET", *ask(url, "GET", path, headers={name: value}))


def test_what_is_described_is_what_is_served(url: str) -> None:
    for path, operations in described(url).items():
        for method in operations:
            status = ask(url, method.upper(), path.replace("{", "").replace("}", ""))[0]
            assert status == (401 if path.startswith("/api/v1/") else 200), (method, path)
