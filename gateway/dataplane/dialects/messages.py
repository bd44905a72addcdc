"""
A request to Anthropic's Messages API as a chat completion.

What chat completions have no place for is refused where it would change the answer (tools that run at
Anthropic, files by id), and left out where it would not (`cache_control`, `service_tier`, signatures of
thinking). `is_error` of a tool's result becomes the word `Error: ` before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane.dialects.messages_wire import (
    Block,
    Counted,
    OutputConfig,
    Request,
    Thinking,
    ToolChoice,
)
from gateway.dataplane.request import decode
from gateway.errors import InvalidRequest

_REQUEST = msgspec.json.Decoder(Request)
_COUNTED = msgspec.json.Decoder(Counted)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SMALL, _LARGE = 4096, 16_384
"""Budgets of thinking, in tokens, below which it is little effort and from which it is much."""
_CHOICES: Mapping[str, Any] = {"auto": "auto", "any": "required", "none": "none"}
ERROR_MARK = "Error: "


def to_chat(data: bytes) -> dict[str, Any]:
    """
    The chat request for the body of `POST /v1/messages`.

    Raises:
        InvalidRequest: malformed, an unknown field, or something that chat completions cannot carry.
    """
    asked = decode(data, _REQUEST)
    if asked.max_tokens < 1:
        message = f"max_tokens: must be at least 1, got {asked.max_tokens}"
        raise InvalidRequest(message, param="max_tokens")
    chat = _common(asked)
    chat["max_tokens"] = asked.max_tokens
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(asked, name)
        if value is not None:
            chat[name] = value
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    if asked.metadata is not None and asked.metadata.user_id:
        chat["user"] = asked.metadata.user_id
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def to_count(data: bytes) -> dict[str, Any]:
    """The chat request whose tokens `POST /v1/messages/count_tokens` is to count. Raises InvalidRequest."""
    return _common(decode(data, _COUNTED))


def _common(asked: Counted) -> dict[str, Any]:
    if not asked.messages:
        message = "messages: at least one message is required"
        raise InvalidRequest(message, param="messages")
    messages: list[dict[str, Any]] = []
    if asked.system:
        messages.append({"role": "system", "content": _joined(asked.system, "system")})
    for at, turn in enumerate(asked.messages):
        where = f"messages.{at}.content"
        if isinstance(turn.content, str):
            messages.append({"role": turn.role, "content": turn.content})
        elif turn.role == "assistant":
            messages.append(_assistant(turn.content, where))
        elif turn.role == "system":
            messages.append({"role": "system", "content": _joined(turn.content, where)})
        else:
            messages += _user(turn.content, where)
    chat: dict[str, Any] = {"model": asked.model, "messages": messages}
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        chat |= _choice(asked.tool_choice)
    return chat | _effort(asked.thinking, asked.output_config)


def _joined(content: str | Sequence[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    for at, block in enumerate(content):
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise _wrong(f"{where}.{at}", "takes text blocks alone")
    return "\n\n".join(block["text"] for block in content)


def _assistant(blocks: Sequence[Block], where: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for at, block in enumerate(blocks):
        place, kind = f"{where}.{at}", block.get("type")
        if kind == "text":
            texts.append(_field(block, "text", str, place))
        elif kind == "thinking":
            thoughts.append(_field(block, "thinking", str, place))
        elif kind == "tool_use":
            arguments = json.dumps(_field(block, "input", dict, place), ensure_ascii=False)
            function = {"name": _field(block, "name", str, place), "arguments": arguments}
            calls.append({"id": _field(block, "id", str, place), "type": "function", "function": function})
        elif kind != "redacted_thinking":
            raise _wrong(place, f"cannot carry blocks of type {kind!r} of an assistant")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user(blocks: Sequence[Block], where: str) -> list[dict[str, Any]]:
    """Results of tools as messages of their own, then all else as one message."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for at, block in enumerate(blocks):
        place = f"{where}.{at}"
        if block.get("type") == "tool_result":
            result, others = _result(block, place)
            results.append(result)
            parts += others
        else:
            parts.append(_part(block, place))
    if not parts:
        return results
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if only_text else parts}]


def _result(block: Block, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A tool's message, and parts of its result that only a user's message can carry, such as images."""
    content = block.get("content")
    parts: list[dict[str, Any]] = []
    if isinstance(content, str):
        text = content
    elif isinstance(content, list):
        parts = [_part(inner, f"{where}.content.{at}") for at, inner in enumerate(content)]
        text = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
    elif content is None:
        text = ""
    else:
        raise _wrong(f"{where}.content", "must be text or a list of blocks")
    if block.get("is_error"):
        text = ERROR_MARK + text
    message = {"role": "tool", "tool_call_id": _field(block, "tool_use_id", str, where), "content": text}
    return message, [part for part in parts if part["type"] != "text"]


def _part(block: Block, where: str) -> dict[str, Any]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        return {"type": "text", "text": _field(block, "text", str, where)}
    if kind in ("image", "document"):
        source = _field(block, "source", dict, where)
        return _image(source, where) if kind == "image" else _document(block, source, where)
    if kind == "search_result":
        return {"type": "text", "text": _searched(block, where)}
    raise _wrong(where, f"cannot carry blocks of type {kind!r}")


def _image(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    if source.get("type") == "base64":
        url = f"data:{_field(source, 'media_type', str, where)};base64,{_field(source, 'data', str, where)}"
    elif source.get("type") == "url":
        url = _field(source, "url", str, where)
    else:
        raise _wrong(f"{where}.source", "must be base64 or url; files by id stay at Anthropic")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Block, source: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = source.get("type")
    if kind == "text":
        return {"type": "text", "text": _field(source, "data", str, where)}
    if kind == "base64":
        data = f"data:{_field(source, 'media_type', str, where)};base64,{_field(source, 'data', str, where)}"
        return {"type": "file", "file": {"filename": block.get("title") or "document", "file_data": data}}
    if kind == "content" and isinstance(source.get("content"), str | list):
        return {"type": "text", "text": _joined(source["content"], f"{where}.source.content")}
    raise _wrong(f"{where}.source", "must be text, content or base64; other files stay at Anthropic")


def _searched(block: Block, where: str) -> str:
    head = [str(block[name]) for name in ("title", "source") if block.get(name)]
    return "\n".join([*head, _joined(_field(block, "content", list, where), f"{where}.content")])


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = tool.get("type") or "custom"
    if kind != "custom":
        raise _wrong(f"{where}.type", f"{kind!r} runs at Anthropic; only tools with an input_schema pass")
    schema = _field(tool, "input_schema", dict, where)
    function = {"name": _field(tool, "name", str, where), "parameters": schema}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.type == "tool":
        if not choice.name:
            raise _wrong("tool_choice.name", "names the tool that must be used")
        chosen: Any = {"type": "function", "function": {"name": choice.name}}
    else:
        chosen = _CHOICES[choice.type]
    found: dict[str, Any] = {"tool_choice": chosen}
    return found | ({"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {})


def _effort(thinking: Thinking | None, output: OutputConfig | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if thinking is not None and thinking.type == "enabled":
        budget = thinking.budget_tokens or 0
        found["reasoning_effort"] = "low" if budget < _SMALL else "medium" if budget < _LARGE else "high"
    if output is None:
        return found
    if output.effort is not None:
        if output.effort not in _EFFORTS:
            raise _wrong("output_config.effort", f"must be one of {', '.join(_EFFORTS)}")
        found["reasoning_effort"] = "high" if output.effort in ("xhigh", "max") else output.effort
    if output.format is not None:
        if output.format.get("type") != "json_schema" or not isinstance(output.format.get("schema"), dict):
            raise _wrong("output_config.format", "must be {type: json_schema, schema: …}")
        schema = {"name": "answer", "schema": output.format["schema"], "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found


def _field(block: Mapping[str, Any], name: str, kind: type, where: str) -> Any:  # noqa: ANN401 - *kind* types it
    value = block.get(name)
    if not isinstance(value, kind):
        words = {"str": "text", "dict": "an object", "list": "a list"}
        raise _wrong(f"{where}.{name}", f"must be {words[kind.__name__]}")
    return value


def _wrong(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {why}", param=where)


def texts_of(chat: Mapping[str, Any]) -> Iterable[str]:
    """Every text that a model reads of a chat request: messages, and tools as JSON."""
    for message in chat["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if part["type"] == "text":
                yield part["text"]
        for call in message.get("tool_calls", ()):
            yield call["function"]["name"] + call["function"]["arguments"]
    for tool in chat.get("tools", ()):
        yield json.dumps(tool["function"], ensure_ascii=False)
