"""Values of tensors as bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.tensors import FORMATS, pack, split, unpack
from gateway.errors import InvalidRequest

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP16": st.floats(width=16, allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    **{
        f"{sign}INT{bits}": st.integers(
            0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1
        )
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}


def test_every_datatype_is_tried() -> None:
    assert set(VALUES) == {*FORMATS, "BYTES"}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind]))))
def test_what_is_packed_is_unpacked(tensor: tuple[str, list[Any]]) -> None:
    datatype, values = tensor
    assert unpack("x", datatype, pack(datatype, values)) == values


@given(st.binary(max_size=60), st.sampled_from([*FORMATS, "BYTES"]))
def test_any_bytes_are_values_or_a_refusal(data: bytes, datatype: str) -> None:
    try:
        values = unpack("x", datatype, data)
    except InvalidRequest:
        return
    if datatype not in ("BOOL", "FP16", "FP32", "FP64"):
        assert pack(datatype, values) == data


@given(st.binary(max_size=20), st.binary(max_size=4))
def test_any_length_splits_or_is_refused(body: bytes, length: bytes) -> None:
    try:
        head, rest = split(body, length)
    except InvalidRequest:
        return
    assert head + rest == body
