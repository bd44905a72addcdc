"""
Errors as the Open Inference Protocol tells them.

Source: Open Inference Protocol, "Inference Response JSON Object": `{"error": TEXT}`.
"""

from __future__ import annotations

import msgspec


class InferenceErrors:
    """A `Dialect` for what is below `/v2`; the code is in the header `x-sluicegate-error`."""

    def __init__(self, request_id: str) -> None:
        """*request_id* stands in the answer's header already."""
        del request_id

    def whole(self, status: int, body: bytes) -> bytes:
        """`{"error"}` for an error; all else as it is."""
        if status < 400:
            return body
        try:
            message = str(msgspec.json.decode(body)["error"]["message"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            return body
        return msgspec.json.encode({"error": message})

    def events(self, data: bytes) -> bytes:
        """As they are: there are no streams."""
        return data

    def end(self) -> bytes:
        """Nothing."""
        return b""
