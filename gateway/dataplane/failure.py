"""What an upstream says is wrong, in whichever way it writes errors."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.wire import Failure


def failure_of(body: bytes) -> Failure:
    """
    The reason in an upstream's error; empty where none is found.

    OpenAI and most others write `{"error": {message, type, param, code}}`, Google a list of one such, TGI
    `{"error": "…", "error_type": "…"}`, vLLM and SGLang the inner object alone, and Mistral, as all that
    FastAPI serves, a list of what is wrong with which field.

    >>> failure_of(b'{"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]}')
    Failure(message='top_k: Extra inputs are not permitted', type=None, param='top_k', code=None)
    """
    try:
        told = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Failure()
    if isinstance(told, list) and told:
        told = told[0]
    if not isinstance(told, dict):
        return Failure()
    error = told.get("error")
    if isinstance(error, str):
        return Failure(error, _text(told.get("error_type")))
    source = error if isinstance(error, dict) else told
    code = source.get("status") if isinstance(source.get("code"), int) else None
    if not isinstance(code, str):
        code = source.get("code")
    said = source.get("message", source.get("detail"))
    if isinstance(said, dict):
        said = said.get("detail")
    param = source.get("param")
    if isinstance(said, list):
        param = param or next((_place(one) for one in said if _place(one)), None)
        said = "; ".join(filter(None, (_complaint(one) for one in said)))
    return Failure(
        said if isinstance(said, str) else "",
        _text(source.get("type")),
        _text(param),
        code if isinstance(code, str | int) and not isinstance(code, bool) else None,
    )


def _complaint(one: object) -> str:
    """`field: what is wrong with it`."""
    if not isinstance(one, dict) or not isinstance(one.get("msg"), str):
        return ""
    return f"{_place(one)}: {one['msg']}" if _place(one) else str(one["msg"])


def _place(one: Any) -> str:  # noqa: ANN401 - JSON of any shape
    """The field that a complaint is about, as a path; empty where it does not say."""
    steps = one.get("loc") if isinstance(one, dict) else None
    if not isinstance(steps, list):
        return ""
    return ".".join(str(step) for step in steps[1:] if isinstance(step, str | int))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
