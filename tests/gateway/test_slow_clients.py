"""Clients that take their time: given up within the bounds, and nobody waits for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from gateway.dataplane.services import Limits
from gateway.dataplane.usage import UsageRecord
from gateway.transport.server import Bounds
from tests.fakes.parts import DataPlane, FixedSources, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import Upstream
from tests.fakes.wire import answers, exchange, heard, models, unframed


@pytest.fixture(scope="module")
def impatient() -> Iterator[Stand]:
    """A gateway that gives clients half a second."""
    bounds = Bounds(head_timeout_s=0.4, keep_alive_s=0.4, write_timeout_s=0.4)
    limits = Limits(max_body_bytes=100_000, body_timeout_s=0.4, max_batch_rows=4)
    records: list[UsageRecord] = []
    with serving(DataPlane(FixedSources(table_of({})), records.append, limits, bounds)) as url:
        yield Stand(url, Upstream(), records)


def drip(stand: Stand, data: bytes, at_once: int = 0) -> tuple[bytes, float]:
    """What comes back when *data* is sent a byte at a time, and how long that took."""
    began = time.monotonic()
    got = b""
    with stand.connect() as client:
        client.sendall(data[:at_once])
        client.settimeout(0.02)
        for byte in data[at_once:] + b" " * 500:
            try:
                client.sendall(bytes([byte]))
                piece = client.recv(65_536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            got += piece
            if not piece:
                break
        else:
            pytest.fail("still listening")
    return got, time.monotonic() - began


def test_a_head_that_drips_in_is_given_up(impatient: Stand) -> None:
    data, took_s = drip(impatient, unframed(b"x-a: " + b"b" * 500 + b"\r\n"))
    assert 0.3 < took_s < 3
    assert [status for status, _ in answers(data)] in ([], [408])


def test_a_body_that_drips_in_is_given_up(impatient: Stand) -> None:
    head = unframed(b"content-length: 5000\r\n")
    data, took_s = drip(impatient, head, len(head))
    assert 0.3 < took_s < 3
    assert [status for status, _ in answers(data)] == [408]


def test_chunks_that_drip_in_are_given_up(impatient: Stand) -> None:
    head = unframed(b"transfer-encoding: chunked\r\n")
    data, took_s = drip(impatient, head + b"1\r\n \r\n" * 100, len(head))
    assert 0.3 < took_s < 3
    assert [status for status, _ in answers(data)] == [408]


def test_a_chunk_that_never_ends_is_given_up(impatient: Stand) -> None:
    data, closed = exchange(impatient, unframed(b"transfer-encoding: chunked\r\n", b"FFFFFFFFFFFFFFFF\r\nx"))
    assert closed
    assert [status for status, _ in answers(data)] in ([400], [408], [413])


def test_connections_that_say_nothing_are_given_up(impatient: Stand) -> None:
    began = time.monotonic()
    for before in (b"", models(b"nonesuch")):
        data, closed = exchange(impatient, before)
        assert closed
        assert [status for status, _ in answers(data)] in ([], [404], [408])
    assert time.monotonic() - began < 4


def test_a_hundred_dripping_clients_hold_up_nobody(impatient: Stand) -> None:
    parts = urlsplit(impatient.url)
    clients = [socket.create_connection((parts.hostname or "", parts.port or 0), 5) for _ in range(100)]
    try:
        for client in clients:
            client.sendall(b"POST / HTT")
        began = time.monotonic()
        data, _ = exchange(impatient, models(b"nonesuch", b"connection: close\r\n"))
        assert [status for status, _ in answers(data)] == [404]
        assert time.monotonic() - began < 1
        for client in clients:
            assert heard(client, (), 3)[1]
    finally:
        for client in clients:
            client.close()
