"""
A chat completion as a request to OpenAI's Responses API, kept nowhere there (`store` is false).

What that API has no place for is refused where it would change the answer (`stop`, several choices,
penalties), and left out where it would not. Source: "Responses" of OpenAI's API reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRequest
from gateway.providers.chunks import Json, text_of
from registry.parse import nearest

_SAME = (
    "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "service_tier", "metadata", "top_logprobs",
)  # fmt: skip
_READ = frozenset(
    {
        *_SAME, "model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options",
        "tools", "tool_choice", "response_format", "reasoning_effort", "verbosity", "logprobs",
    }
)  # fmt: skip
_LEFT_OUT = frozenset({"seed", "store"})
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,), "stop": ([],), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},),
    "modalities": (["text"],),
}  # fmt: skip
"""Fields that are refused but for values that ask for nothing."""
_MODES = ("auto", "none", "required")


def to_responses(chat: Mapping[str, Any]) -> Json:
    """
    The body of `POST /v1/responses` for the chat request *chat*.

    Raises:
        InvalidRequest: malformed, an unknown field, or something that the API cannot carry.
    """
    _check_fields(chat)
    asked: Json = {"model": chat.get("model"), "input": _items(chat.get("messages")), "store": False}
    asked |= {name: chat[name] for name in _SAME if chat.get(name) is not None}
    bound = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if bound:
        asked["max_output_tokens"] = bound
    if chat.get("stream"):
        asked["stream"] = True
    if chat.get("logprobs"):
        asked["include"] = ["message.output_text.logprobs"]
    if chat.get("tools"):
        asked["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(chat["tools"])]
    if chat.get("tool_choice") is not None:
        asked["tool_choice"] = _choice(chat["tool_choice"])
    if chat.get("reasoning_effort") is not None:
        asked["reasoning"] = {"effort": chat["reasoning_effort"]}
    text = _format(chat.get("response_format"))
    if chat.get("verbosity") is not None:
        text["verbosity"] = chat["verbosity"]
    if text:
        asked["text"] = text
    return asked


def _check_fields(chat: Mapping[str, Any]) -> None:
    for name, value in chat.items():
        if name in _READ or name in _LEFT_OUT or value is None or value in _NEUTRAL.get(name, ()):
            continue
        if name in _NEUTRAL:
            raise _wrong(name, "is not done by the Responses API; leave it out")
        raise _wrong(name, f"is not a field that this provider passes on{nearest(name, _READ)}")


def _items(messages: object) -> list[Json]:
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of at least one message")
    items: list[Json] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            text = text_of(message.get("content"), where, InvalidRequest)
            items.append({"type": "message", "role": role, "content": text})
        elif role == "user":
            items.append({"type": "message", "role": "user", "content": _user(message.get("content"), where)})
        elif role == "assistant":
            items += _assistant(message, where)
        elif role == "tool":
            output = text_of(message.get("content"), where, InvalidRequest)
            call = {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
            items.append(call)
        else:
            raise _wrong(f"{where}.role", "must be system, developer, user, assistant or tool")
    return items


def _user(content: object, where: str) -> str | list[Json]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(f"{where}.content", "must be text or a list of parts")
    return [_part(part, f"{where}.content[{at}]") for at, part in enumerate(content)]


def _part(part: object, where: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    inner = part.get(str(kind)) if isinstance(part, dict) else None
    if kind == "text" and isinstance(inner, str):
        return {"type": "input_text", "text": inner}
    if kind == "image_url" and isinstance(inner, dict) and isinstance(inner.get("url"), str):
        detail = {"detail": inner["detail"]} if inner.get("detail") else {}
        return {"type": "input_image", "image_url": inner["url"], **detail}
    if kind == "file" and isinstance(inner, dict) and isinstance(inner.get("file_data"), str):
        name = inner.get("filename") or "file"
        return {"type": "input_file", "filename": name, "file_data": inner["file_data"]}
    if kind == "input_audio" and isinstance(inner, dict):
        return {"type": "input_audio", "input_audio": inner}
    raise _wrong(where, f"parts of type {str(kind)[:64]!r} cannot be sent to the Responses API")


def _assistant(message: Json, where: str) -> list[Json]:
    """Thoughts are left out: the API takes back those alone that it keeps."""
    items: list[Json] = []
    text = text_of(message.get("content"), where, InvalidRequest)
    calls = message.get("tool_calls") or []
    if text or not calls:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        items.append({"type": "message", "role": "assistant", "content": content})
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _wrong(f"{where}.tool_calls[{at}]", "must be a call of a function")
        told = {"name": function.get("name"), "arguments": function.get("arguments") or "{}"}
        items.append({"type": "function_call", "call_id": call.get("id"), **told})
    return items


def _tool(tool: object, where: str) -> Json:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(function, dict):
        raise _wrong(where, "must be a function")
    # Without the word the API takes a function to be strict, where chat completions take it not to be.
    return {"type": "function", "parameters": None, "strict": False, **function}


def _choice(choice: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(choice, str) and choice in _MODES:
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict):
        raise _wrong("tool_choice", f"must be {', '.join(_MODES)} or a function")
    return {"type": "function", "name": function.get("name")}


def _format(form: object) -> Json:
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return {}
    if kind == "json_object":
        return {"format": {"type": "json_object"}}
    schema = form.get("json_schema") if isinstance(form, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise _wrong("response_format", "must be text, json_object or json_schema")
    return {"format": {"type": "json_schema", "name": "answer", **schema}}


def _wrong(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {why}", param=where)
