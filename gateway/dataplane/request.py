"""The request body: bytes stay bytes, and only the fields that are needed are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from gateway.dataplane.wire import HasRole
from gateway.errors import InvalidRequest, UnsafeField

T = TypeVar("T")
Body = dict[str, msgspec.Raw]
"""The top level of a JSON object; every value is its own untouched bytes."""
Content = str | list[dict[str, msgspec.Raw]] | None
"""Of a chat message: text, a list of parts, or nothing."""
UNSAFE = frozenset(
    {
        "api_base", "api_key", "api_version", "aws_access_key_id", "aws_bedrock_runtime_endpoint",
        "aws_region_name", "aws_role_name", "aws_secret_access_key", "aws_session_token", "aws_sts_endpoint",
        "aws_web_identity_token", "azure_ad_token", "azure_ad_token_provider", "azure_endpoint", "base_url",
        "client", "custom_llm_provider", "deployment_id", "extra_body", "extra_headers", "extra_query",
        "fallbacks", "headers", "http_client", "litellm_params", "mock_response", "mock_timeout",
        "mock_tool_calls", "model_list", "organization", "proxy", "ssl_verify", "use_litellm_proxy",
        "user_config", "vertex_credentials", "vertex_location", "vertex_project",
    }
)  # fmt: skip
"""Fields of client libraries that choose where, as whom or how to connect; never a client's choice here."""
_BODY = msgspec.json.Decoder(Body)
_OPTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_TEXT = msgspec.json.Decoder(str)
_FLAG = msgspec.json.Decoder(bool | None)
_MESSAGES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ROLES = msgspec.json.Decoder(list[HasRole])
_CONTENT = msgspec.json.Decoder(Content)


def parse(data: bytes) -> Body:
    """
    The top level of a JSON object.

    Raises:
        InvalidRequest: not UTF-8, not JSON, not an object, or nested too deeply.
        UnsafeField: it names a field that would choose the upstream.
    """
    body = decode(data, _BODY)
    if not UNSAFE.isdisjoint(body):
        name = min(UNSAFE.intersection(body))
        message = f"{name}: this gateway chooses where and as whom it calls a model; leave the field out"
        raise UnsafeField(message, param=name)
    return body


def decode(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """
    A whole body by *decoder*.

    Raises:
        InvalidRequest: as `parse`, or a field of another type; the message names the field.
    """
    try:
        if not data.isascii():
            data.decode()
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        message = f"the request body is not UTF-8 at byte {error.start}"
        raise InvalidRequest(message) from error
    except msgspec.ValidationError as error:
        message = f"the request body does not fit: {error}"
        raise InvalidRequest(message) from error
    except msgspec.DecodeError as error:
        message = f"the request body is not valid JSON: {error}"
        raise InvalidRequest(message) from error
    except RecursionError as error:
        message = "the request body is nested too deeply"
        raise InvalidRequest(message) from error


def field(body: Body, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:  # noqa: ANN401 - *decoder* types it
    """
    One field by *decoder*; None where it is absent.

    Raises:
        InvalidRequest: it has another type.
    """
    raw = body.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{name}: {error}"
        raise InvalidRequest(message, param=name) from error


def model_of(body: Body) -> str:
    """
    The model the body asks for.

    Raises:
        InvalidRequest: it is missing, empty or not text.
    """
    try:
        model = _TEXT.decode(body["model"])
    except (KeyError, msgspec.MsgspecError) as error:
        message = "model: name a release or provider/model, as text"
        raise InvalidRequest(message, param="model") from error
    if not model:
        message = "model: is empty; name a release or provider/model"
        raise InvalidRequest(message, param="model")
    return model


def wants_stream(body: Body) -> bool:
    """Whether `stream` is true. Raises InvalidRequest when it is neither true, false nor null."""
    raw = body.get("stream")
    if raw is None:
        return False
    try:
        return bool(_FLAG.decode(raw))
    except msgspec.MsgspecError as error:
        message = "stream: must be true or false"
        raise InvalidRequest(message, param="stream") from error


def wants_usage(body: Body) -> bool:
    """Whether `stream_options.include_usage` is true. Raises InvalidRequest when it cannot be read."""
    options = field(body, "stream_options", _OPTIONS)
    return options is not None and bytes(options.get("include_usage", b"")) == b"true"


def asking_usage(body: Body) -> Body:
    """*body* with `stream_options.include_usage` true; its other stream options stay."""
    options = field(body, "stream_options", _OPTIONS) or {}
    return {**body, "stream_options": raw({**options, "include_usage": True})}


def require_messages(body: Body) -> None:
    """Raise InvalidRequest where `messages_of` would."""
    try:
        if _ROLES.decode(body["messages"]):
            return
    except (KeyError, msgspec.MsgspecError, RecursionError):
        pass  # which of them is wrong is found below
    messages_of(body)


def messages_of(body: Body) -> list[dict[str, msgspec.Raw]]:
    """
    The chat messages, each with its fields as untouched bytes.

    Raises:
        InvalidRequest: there are none, or one has no `role`.
    """
    try:
        messages = _MESSAGES.decode(body["messages"])
    except (KeyError, msgspec.MsgspecError, RecursionError) as error:
        message = "messages: must be a list of objects with role and content"
        raise InvalidRequest(message, param="messages") from error
    if not messages:
        message = "messages: is empty; send at least one"
        raise InvalidRequest(message, param="messages")
    for index, item in enumerate(messages):
        if role_of(item) is None:
            message = f"messages[{index}].role: is missing or not text"
            raise InvalidRequest(message, param=f"messages[{index}].role")
    return messages


def role_of(message: Mapping[str, msgspec.Raw]) -> str | None:
    """The role of a chat message, or None when it has none."""
    try:
        return _TEXT.decode(message["role"])
    except (KeyError, msgspec.MsgspecError):
        return None


def content_of(message: Mapping[str, msgspec.Raw], index: int) -> Content:
    """
    The content of chat message number *index*: text, a list of parts, or None.

    Raises:
        InvalidRequest: it is anything else.
    """
    raw = message.get("content")
    if raw is None:
        return None
    try:
        content: Content = _CONTENT.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        name = f"messages[{index}].content"
        text = f"{name}: must be text or a list of parts"
        raise InvalidRequest(text, param=name) from error
    return content


def part_text(part: Mapping[str, msgspec.Raw]) -> str | None:
    """The text of a content part; None for an image, sound or file."""
    try:
        return _TEXT.decode(part["text"])
    except (KeyError, msgspec.MsgspecError):
        return None


def raw(value: object) -> msgspec.Raw:
    """*value* as JSON bytes that can stand in a body."""
    return msgspec.Raw(msgspec.json.encode(value))


def encode(body: Body) -> bytes:
    """The body as JSON; fields that were not replaced keep their bytes."""
    return msgspec.json.encode(body)
