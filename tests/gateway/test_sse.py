"""Events do not depend on how the bytes that carry them were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataplane.sse import Splitter, data_of, event_of
from gateway.errors import UpstreamTooLarge

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
LINES = st.sampled_from(["data: x", "data:", ": ping", "event: e", "data: [DONE]", "id: 1", "data: é"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    end = draw(LINE_ENDS)
    events = draw(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5))
    text = "".join(end.join(lines) + end + end for lines in events)
    return (text + draw(st.sampled_from(["", "data: unfinished"]))).encode()


def rechunk(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


def events(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = Splitter()
    found = [event for chunk in chunks for event in splitter.push(chunk)]
    return found, splitter.rest()


@settings(deadline=None)
@given(streams(), st.lists(st.integers(0, 200)))
def test_events_do_not_depend_on_chunk_boundaries(stream: bytes, cuts: list[int]) -> None:
    once, once_rest = events([stream])
    pieces, pieces_rest = events(rechunk(stream, cuts))
    assert [data_of(event) for event in once] == [data_of(event) for event in pieces]
    assert b"".join(once) + once_rest == b"".join(pieces) + pieces_rest == stream


@settings(deadline=None)
@given(streams())
def test_byte_by_byte_is_the_same(stream: bytes) -> None:
    assert events([stream[i : i + 1] for i in range(len(stream))]) == events([stream])


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"event: a\ndata: 1\ndata: 2\n\n", b"1\n2"),
        (b": ping\n\n", None),
        (b"data\n\n", None),
        (event_of(b"{}"), b"{}"),
    ],
)
def test_data_is_what_the_standard_says(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


def test_an_event_without_end_is_refused() -> None:
    splitter = Splitter(max_event_bytes=10)
    with pytest.raises(UpstreamTooLarge):
        splitter.push(b"data: 123456")
