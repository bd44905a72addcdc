"""
A chat completion as a request to Anthropic's Messages API.

What that API has no place for is refused where it would change the answer (several choices, log
probabilities, penalties), and left out where it would not (`seed`, `store`, `metadata`). Sources: "Create a
Message", "Extended thinking" and "Structured outputs" of Anthropic's API reference, version 2023-06-01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.providers.chunks import text_of
from registry.parse import nearest

Json = dict[str, Any]
ERROR_MARK = "Error: "
"""How the text of a tool's result begins that is told to be an error."""
_READ = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "stop",
        "user", "safety_identifier", "stream", "stream_options", "tools", "tool_choice", "response_format",
        "parallel_tool_calls", "reasoning_effort",
    }
)  # fmt: skip
_LEFT_OUT = frozenset(
    {"seed", "store", "metadata", "service_tier", "prompt_cache_key", "verbosity", "prompt_cache_retention"}
)
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],),
}  # fmt: skip
"""Fields that are refused but for values that ask for nothing."""
_BUDGETS: Mapping[str, int] = {"low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 32_768}
_LEAST_BUDGET = 1024
_CHOICES: Mapping[str, str] = {"auto": "auto", "required": "any", "none": "none"}


def to_messages(
    chat: Mapping[str, Any], *, max_tokens: int = 4096, adaptive: bool = False, sampling: bool = True
) -> Json:
    """
    The body of `POST /v1/messages` for the chat request *chat*.

    Args:
        max_tokens: of an answer to a request that sets no bound; the API wants one.
        adaptive: whether the model takes an effort and thinks as much as it likes, not a budget.
        sampling: whether the model takes `temperature`, `top_p` and `top_k`.

    Raises:
        InvalidRequest: malformed, an unknown field, or something that the API cannot carry.
    """
    _check_fields(chat)
    system, turns, results = _turns(chat.get("messages"))
    bound = chat.get("max_completion_tokens") or chat.get("max_tokens") or max_tokens
    asked: Json = {"model": chat.get("model"), "max_tokens": bound, "messages": turns}
    if system:
        asked["system"] = system
    if chat.get("stream"):
        asked["stream"] = True
    _sample(asked, chat, sampling=sampling)
    stop = chat.get("stop")
    if stop:
        asked["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = chat.get("user") or chat.get("safety_identifier")
    if user:
        asked["metadata"] = {"user_id": user}
    if chat.get("tools"):
        asked["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(chat["tools"])]
        _choose(asked, chat)
    if turns[-1]["content"] is not results:
        _think(asked, chat.get("reasoning_effort"), adaptive=adaptive)
    _shape(asked, chat.get("response_format"))
    return asked


def _check_fields(chat: Mapping[str, Any]) -> None:
    for name, value in chat.items():
        if name in _READ or name in _LEFT_OUT or value is None or value in _NEUTRAL.get(name, ()):
            continue
        if name in _NEUTRAL:
            raise _wrong(name, "is not done by Anthropic's models; leave it out")
        raise _wrong(name, f"is not a field that this provider passes on{nearest(name, _READ)}")


def _turns(messages: object) -> tuple[list[Json], list[Json], list[Json]]:
    """
    Blocks of instructions, the conversation, and the content of its last turn where that is results of tools.

    Results that follow each other are one turn. A model that thought before it called must be shown its
    signed thoughts with the results, or not think on: chat completions carry no signatures.
    """
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of at least one message")
    system: list[Json] = []
    turns: list[Json] = []
    results: list[Json] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role != "tool":
            results = []
        if role in ("system", "developer"):
            text = text_of(message.get("content"), where, InvalidRequest)
            system += [{"type": "text", "text": text}] if text else []
        elif role == "user":
            turns.append({"role": "user", "content": _user(message.get("content"), where)})
        elif role == "assistant":
            turns.append({"role": "assistant", "content": _assistant(message, where)})
        elif role == "tool":
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result(message, where))
        else:
            raise _wrong(f"{where}.role", "must be system, developer, user, assistant or tool")
    if not turns:
        raise _wrong("messages", "must have one of a user")
    return system, turns, results


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
        return _cached({"type": "text", "text": inner}, part)
    if kind == "image_url" and isinstance(inner, dict) and isinstance(inner.get("url"), str):
        return _cached({"type": "image", "source": _source(inner["url"], f"{where}.image_url.url")}, part)
    if kind == "file" and isinstance(inner, dict) and isinstance(inner.get("file_data"), str):
        title = {"title": inner["filename"]} if inner.get("filename") else {}
        source = _source(inner["file_data"], f"{where}.file.file_data")
        return _cached({"type": "document", "source": source, **title}, part)
    raise _wrong(where, f"parts of type {str(kind)[:64]!r} cannot be sent to Anthropic's models")


def _cached(block: Json, part: Any) -> Json:  # noqa: ANN401 - an object, as the caller has seen
    """*block* with the hint that what comes before it is worth caching."""
    return {**block, "cache_control": part["cache_control"]} if part.get("cache_control") else block


def _source(url: str, where: str) -> Json:
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    head, comma, data = url.partition(",")
    media = head.removeprefix("data:").removesuffix(";base64")
    if not comma or not head.startswith("data:") or not head.endswith(";base64") or not media:
        raise _wrong(where, "must be an https address or data:TYPE;base64,…")
    return {"type": "base64", "media_type": media, "data": data}


def _assistant(message: Json, where: str) -> str | list[Json]:
    """Thoughts are left out: Anthropic takes back those alone that it has signed."""
    text = text_of(message.get("content"), where, InvalidRequest)
    calls = message.get("tool_calls")
    if not calls:
        return text
    blocks: list[Json] = [{"type": "text", "text": text}] if text else []
    return blocks + [_call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)]


def _call(call: object, where: str) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise _wrong(where, "must be a call of a function")
    try:
        given = msgspec.json.decode(function.get("arguments") or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, TypeError) as error:
        raise _wrong(f"{where}.function.arguments", "must be a JSON object as text") from error
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _result(message: Json, where: str) -> Json:
    text = text_of(message.get("content"), where, InvalidRequest)
    block: Json = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": text}
    if text.startswith(ERROR_MARK):
        block |= {"content": text.removeprefix(ERROR_MARK), "is_error": True}
    return block


def _sample(asked: Json, chat: Mapping[str, Any], *, sampling: bool) -> None:
    temperature = chat.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        raise _wrong("temperature", f"{temperature} is more than 1, the most that Anthropic's models take")
    for name in ("temperature", "top_p", "top_k"):
        if chat.get(name) is not None and sampling:
            asked[name] = chat[name]


def _tool(tool: object, where: str) -> Json:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(function, dict):
        raise _wrong(where, "must be a function")
    schema = function.get("parameters") or {"type": "object"}
    more = {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    return {"name": function.get("name"), "input_schema": schema, **more}


def _choose(asked: Json, chat: Mapping[str, Any]) -> None:
    choice, one_at_a_time = chat.get("tool_choice"), chat.get("parallel_tool_calls") is False
    found: Json | None = None
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise _wrong("tool_choice", f"must be {', '.join(_CHOICES)} or a function")
        found = {"type": _CHOICES[choice]}
    elif isinstance(choice, dict):
        function = choice.get("function")
        if choice.get("type") != "function" or not isinstance(function, dict):
            raise _wrong("tool_choice", f"must be {', '.join(_CHOICES)} or a function")
        found = {"type": "tool", "name": function.get("name")}
    if one_at_a_time and (found is None or found["type"] != "none"):
        found = {**(found or {"type": "auto"}), "disable_parallel_tool_use": True}
    if found is not None:
        asked["tool_choice"] = found


def _think(asked: Json, effort: object, *, adaptive: bool) -> None:
    if effort is None or effort in ("none", "minimal"):
        return
    if effort not in _BUDGETS:
        raise _wrong("reasoning_effort", f"must be none, minimal, {', '.join(_BUDGETS)}")
    if adaptive:
        asked["thinking"] = {"type": "adaptive"}
        asked["output_config"] = {"effort": effort}
        return
    # The budget is part of what may be written, and some of that is for the answer.
    budget = min(_BUDGETS[str(effort)], asked["max_tokens"] // 2)
    if budget >= _LEAST_BUDGET:
        asked["thinking"] = {"type": "enabled", "budget_tokens": budget}
        for name in ("temperature", "top_k"):
            asked.pop(name, None)  # the API refuses both beside thinking


def _shape(asked: Json, form: object) -> None:
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return
    schema = form.get("json_schema") if isinstance(form, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise _wrong("response_format", "must be text, or json_schema with a schema, for Anthropic's models")
    shape = {"type": "json_schema", "schema": schema["schema"]}
    asked["output_config"] = {**asked.get("output_config", {}), "format": shape}


def _wrong(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {why}", param=where)
