"""A release's prompt and passages, put into the client's request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.dataplane.request import Body, content_of, messages_of, part_text, raw, role_of
from gateway.dataplane.table import Passage, Retriever, Route
from gateway.dataplane.variants import Branch
from gateway.dataplane.work import Work
from gateway.errors import InvalidRequest
from gateway.providers.base import Ground

_OVERRIDABLE = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "stop", "seed", "n",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs",
        "top_logprobs", "stream_options", "reasoning_effort", "verbosity",
    }
)  # fmt: skip
"""What a client may set otherwise than the release: how to sample, not what runs."""
_SAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_MAX_HEADER_BYTES = 2000


class Augmented(msgspec.Struct, frozen=True):
    """A body ready for the upstream, and what was put into it."""

    body: Body
    question: str | None = None
    grounds: tuple[Ground, ...] = ()


async def augment(route: Route, body: Body, work: Work, branch: Branch | None = None) -> Augmented:
    """
    *body* with the release's parameters, prompt and passages; *branch* has another prompt in its place.

    The rendered prompt's last user message stands in the place of the client's last user message;
    what the client said before and after it stays, after the prompt's leading messages.

    Raises:
        InvalidRequest: the release asks a question of its index or prompt, and no message has one.
        BadTemplate: the prompt could not be rendered.
    """
    body = with_parameters(route, body)
    if route.retriever is None and route.render is None:
        return Augmented(body)
    messages = messages_of(body)
    position, question = last_question(messages)
    found: Sequence[Passage] = ()
    if route.retriever is not None:
        found = await work.run(_retrieve, route.retriever, question, route)
    render = route.render if branch is None else branch.render
    if render is not None:
        passages = [{"id": p.id, "title": p.title, "text": p.text} for p in found]
        offered: dict[str, Any] = {"question": question, "passages": passages}
        wanted = route.variables if branch is None else branch.variables
        rendered = render({name: offered[name] for name in wanted if name in offered})
        body = {**body, "messages": raw(_join(messages, position, rendered))}
    grounds = tuple(Ground(p.id, p.text, p.score) for p in found)
    return Augmented(body, question, grounds)


def with_parameters(route: Route, body: Body) -> Body:
    """*body* with the release's parameters; a client's own sampling values win over them."""
    if not route.parameters:
        return body
    merged = dict(body)
    for name, value in route.parameters.items():
        set_by_client = name in body or _SAME.get(name, name) in body
        if not (set_by_client and name in _OVERRIDABLE):
            merged[name] = value
    return merged


def last_question(messages: Sequence[dict[str, msgspec.Raw]]) -> tuple[int, str]:
    """
    Position and text of the last user message; text parts are joined by line breaks.

    Raises:
        InvalidRequest: there is no user message, or it has no text.
    """
    for position in range(len(messages) - 1, -1, -1):
        if role_of(messages[position]) != "user":
            continue
        content = content_of(messages[position], position)
        if isinstance(content, list):
            content = "\n".join(text for part in content if (text := part_text(part)) is not None)
        if content and content.strip():
            return position, content
        break
    message = "messages: this release answers a question; the last user message must have text"
    raise InvalidRequest(message, param="messages")


def passages_header(grounds: Sequence[Ground]) -> bytes:
    """The distinct passage ids, best first, percent-encoded, joined by commas, at most 2,000 bytes."""
    ids = list(dict.fromkeys(quote(ground.passage_id, safe="#:._-/") for ground in grounds))
    while ids and len(",".join(ids)) > _MAX_HEADER_BYTES:
        ids.pop()
    return ",".join(ids).encode()


def _retrieve(retriever: Retriever, question: str, route: Route) -> Sequence[Passage]:
    passages = retriever.retrieve(question, route.retrieval.k)
    if route.retrieval.max_sentences is None:
        return passages
    return retriever.best_sentences(question, passages, route.retrieval.max_sentences)


def _join(
    messages: Sequence[dict[str, msgspec.Raw]], position: int, rendered: Sequence[dict[str, str]]
) -> list[dict[str, msgspec.Raw]]:
    own = [{name: raw(value) for name, value in message.items()} for message in rendered]
    if rendered[-1]["role"] != "user":
        return [*own, *messages]
    asked = dict(messages[position])
    content = content_of(asked, position)
    others = [part for part in content if part_text(part) is None] if isinstance(content, list) else []
    text = rendered[-1]["content"]
    asked["content"] = raw([{"type": "text", "text": text}, *others] if others else text)
    return [*own[:-1], *messages[:position], asked, *messages[position + 1 :]]
