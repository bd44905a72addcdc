"""
A request to OpenAI's Responses API as a chat completion.

What runs at OpenAI is refused by name: its own tools, conversations, stored prompts and files, work in the
background, truncation. `service_tier` and how long a prompt is cached change nothing here, and of `include`
only log probabilities do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane.dialects.responses_wire import Item, Request
from gateway.dataplane.request import decode
from gateway.errors import InvalidRequest

_REQUEST = msgspec.json.Decoder(Request)
_ELSEWHERE = ("conversation", "prompt", "context_management", "moderation")
_SAME = ("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key")
_LOGPROBS = "message.output_text.logprobs"
_ROLES: Mapping[str, str] = {
    "user": "user", "assistant": "assistant", "system": "system", "developer": "system",
}  # fmt: skip


def read(data: bytes) -> Request:
    """
    The body of `POST /v1/responses`.

    Raises:
        InvalidRequest: malformed, an unknown field, or one that asks for what runs at OpenAI alone.
    """
    asked = decode(data, _REQUEST)
    for name in _ELSEWHERE:
        if getattr(asked, name) is not None:
            raise _wrong(name, "runs at OpenAI alone; leave it out")
    if asked.background:
        raise _wrong("background", "runs at OpenAI alone; leave it out, or ask with stream")
    if asked.truncation not in (None, "disabled"):
        raise _wrong("truncation", f"{asked.truncation!r} is not done here; shorten the input")
    return asked


def to_chat(asked: Request, items: Sequence[Item]) -> dict[str, Any]:
    """
    The chat request for *asked* with *items* as its whole input; see `items_of`.

    Raises:
        InvalidRequest: an item, tool or format that chat completions cannot carry.
    """
    messages = _messages(items)
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    if not messages:
        raise _wrong("input", "is empty")
    chat: dict[str, Any] = {"model": asked.model, "messages": messages}
    chat |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
    if asked.max_output_tokens is not None:
        chat["max_tokens"] = asked.max_output_tokens
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        chat |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        _choose(chat, asked.tool_choice)
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        chat["reasoning_effort"] = asked.reasoning.effort
    if asked.text is not None:
        if asked.text.verbosity is not None:
            chat["verbosity"] = asked.text.verbosity
        chat |= _format(asked.text.format)
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def items_of(asked: Request) -> list[Item]:
    """The request's own input as items."""
    if isinstance(asked.input, str):
        return [{"type": "message", "role": "user", "content": asked.input}] if asked.input else []
    return list(asked.input)


def _messages(items: Iterable[Item]) -> list[dict[str, Any]]:
    """
    One after the other. What an assistant thought, said and called until someone else speaks is one message
    as soon as it has called something: the results must follow the message with the calls.
    """
    messages: list[dict[str, Any]] = []
    thought = ""
    for at, item in enumerate(items):
        where, kind = f"input.{at}", item.get("type", "message")
        if kind == "reasoning":
            thought += _thought(item, where)
            continue
        if kind == "message":
            message = _message(item, where)
        elif kind == "function_call":
            message = {"role": "assistant", "content": None, "tool_calls": [_call(item, where)]}
        elif kind == "function_call_output":
            output = _output(item.get("output"), where)
            message = {"role": "tool", "tool_call_id": _text(item, "call_id", where), "content": output}
        else:
            raise _wrong(where, f"items of type {str(kind)[:64]!r} stay at OpenAI")
        if thought and message["role"] == "assistant":
            message["reasoning_content"] = thought
        thought = ""  # where another spoke next, it belongs to nothing that was said
        last = messages[-1] if messages else message
        if last["role"] == message["role"] == "assistant" and last is not message and _calls(last, message):
            _join(last, message)
        else:
            messages.append(message)
    return messages


def _calls(*messages: Mapping[str, Any]) -> bool:
    return any("tool_calls" in message for message in messages)


def _join(last: dict[str, Any], message: Mapping[str, Any]) -> None:
    for key in ("content", "reasoning_content"):
        if message.get(key):
            last[key] = (last.get(key) or "") + message[key]
    if "tool_calls" in message:
        last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]


def _thought(item: Item, where: str) -> str:
    parts = item.get("content") or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _wrong(f"{where}.content", "must be a list of parts")
    return "".join(_text(part, "text", f"{where}.content.{at}") for at, part in enumerate(parts))


def _message(item: Item, where: str) -> dict[str, Any]:
    role = _ROLES.get(str(item.get("role")))
    content = item.get("content")
    if role is None:
        raise _wrong(f"{where}.role", "must be user, assistant, system or developer")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        raise _wrong(f"{where}.content", "must be text or a list of parts")
    parts = [_part(part, f"{where}.content.{at}") for at, part in enumerate(content)]
    if role != "user" or (len(parts) == 1 and parts[0]["type"] == "text"):
        if any(part["type"] != "text" for part in parts):
            raise _wrong(f"{where}.content", f"takes text alone from the role {item['role']}")
        return {"role": role, "content": "".join(part["text"] for part in parts)}
    return {"role": role, "content": parts}


def _part(part: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - a client's JSON
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", where)}
    if kind == "input_image" and part.get("image_url"):
        image = {"url": _text(part, "image_url", where)}
        image |= {"detail": str(part["detail"])} if part.get("detail") else {}
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and part.get("file_data"):
        name = _text(part, "filename", where) if part.get("filename") else "file"
        file = {"filename": name, "file_data": _text(part, "file_data", where)}
        return {"type": "file", "file": file}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise _wrong(where, f"parts of type {str(kind)[:64]!r} without their data stay at OpenAI")


def _call(item: Item, where: str) -> dict[str, Any]:
    function = {"name": _text(item, "name", where), "arguments": _text(item, "arguments", where)}
    return {"id": _text(item, "call_id", where), "type": "function", "function": function}


def _output(output: Any, where: str) -> str:  # noqa: ANN401 - a client's JSON
    if isinstance(output, str):
        return output
    if not isinstance(output, list):
        raise _wrong(f"{where}.output", "must be text or a list of parts")
    parts = [_part(part, f"{where}.output.{at}") for at, part in enumerate(output)]
    if any(part["type"] != "text" for part in parts):
        raise _wrong(f"{where}.output", "takes text alone")
    return "".join(part["text"] for part in parts)


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise _wrong(f"{where}.type", f"{str(tool.get('type'))[:64]!r} is not done here; only functions pass")
    function = {"name": _text(tool, "name", where)}
    for name in ("description", "parameters", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    if not isinstance(function.get("parameters", {}), dict):
        raise _wrong(f"{where}.parameters", "must be a JSON schema")
    return {"type": "function", "function": function}


def _choose(chat: dict[str, Any], choice: str | dict[str, Any]) -> None:
    """Set `tool_choice`; where only some tools are allowed, the model is told of those alone."""
    if isinstance(choice, str):
        chat["tool_choice"] = _mode(choice, "tool_choice", ("auto", "none", "required"))
        return
    kind = choice.get("type")
    if kind == "function":
        name = _text(choice, "name", "tool_choice")
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind == "allowed_tools":
        chat["tool_choice"] = _mode(choice.get("mode"), "tool_choice.mode", ("auto", "required"))
        allowed = choice.get("tools")
        if not isinstance(allowed, list) or not all(isinstance(tool, dict) for tool in allowed):
            raise _wrong("tool_choice.tools", "must be a list of functions")
        names = {_tool(tool, "tool_choice.tools")["function"]["name"] for tool in allowed}
        tools = [tool for tool in chat.get("tools", ()) if tool["function"]["name"] in names]
        if len(tools) < len(names) or not tools:
            raise _wrong("tool_choice.tools", "names a function that is not in tools")
        chat["tools"] = tools
    else:
        raise _wrong("tool_choice.type", f"{str(kind)[:64]!r} is not done here; only functions pass")


def _mode(mode: Any, where: str, modes: tuple[str, ...]) -> Any:  # noqa: ANN401 - a client's JSON
    if mode not in modes:
        raise _wrong(where, f"must be {', '.join(modes)} or a function")
    return mode


def _format(chosen: dict[str, Any] | None) -> dict[str, Any]:
    kind = (chosen or {}).get("type", "text")
    if chosen is None or kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind != "json_schema" or not isinstance(chosen.get("schema"), dict):
        raise _wrong("text.format", "must be text, json_object, or json_schema with a schema")
    schema = {name: chosen[name] for name in ("name", "schema", "strict", "description") if name in chosen}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer"} | schema}}


def _text(holder: Mapping[str, Any], name: str, where: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", "must be text")
    return value


def _wrong(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {why}", param=where)
