"""
Answers made of the retrieved passages alone: the baseline that a language model has to beat.

The sentences closest to the question, by the offline embedder's cosine similarity, are the answer;
where none is close enough the answer is that there is none. Nothing is generated.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gateway.errors import InvalidRequest, Overloaded, UnknownPath
from gateway.providers.base import Call, Ground, Reply
from gateway.providers.local_reply import DONE, SSE_HEADERS, LocalReply, event
from gateway.providers.options import ProviderOptions
from rag.sentences import split
from registry.clock import utc_now
from registry.errors import BadInput, MissingExtra
from registry.ids import sortable_id
from registry.parse import nearest

ABSTENTION = "The documents do not answer this."
ABSTAIN_BELOW = 0.425
"""
Least cosine similarity of an answer, for the embedder `minilm`.

Measured with that embedder over XQuAD's English passages (3 retrieved, 400 characters each): 96.4 %
of 688 XQuAD questions are answered (98.6 % of those whose best sentence holds the answer), and so
are 4.0 % of 300 PubMedQA questions, which these passages cannot answer.
"""
_SENTENCES = {"best-sentence": 1, "best-3": 3}
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")
_PIECES_PER_CHUNK = 4
_MAX_WAITING = 64


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    """The fields of a chat request that mean something here; all others are ignored."""

    model: str
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    stream_options: _StreamOptions | None = None
    abstain_below: float | None = None


@dataclass(frozen=True, slots=True)
class Support:
    """A sentence of a passage and how close it is to the question."""

    passage_id: str
    text: str
    score: float
    """Cosine similarity in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, and on what it rests."""

    text: str
    supports: tuple[Support, ...]
    """Best first; empty in an abstention."""
    finish_reason: Literal["stop", "length"]


def build(model: str, options: ProviderOptions) -> Extractive:
    """
    A provider that answers with `best-sentence` or with up to three (`best-3`).

    Raises:
        BadInput: another model name.
        MissingExtra: there is no offline embedder.
    """
    if model not in _SENTENCES:
        message = f"extractive has no model {model!r}{nearest(model, _SENTENCES)}"
        raise BadInput(message)
    if options.embed is None:
        message = "the provider extractive needs an offline embedder: pip install 'sluicegate[rag]'"
        raise MissingExtra(message)
    return Extractive(model, options)


def rank(question: str, grounds: Sequence[Ground], embed: Any) -> list[Support]:  # noqa: ANN401 - an array
    """
    Every sentence of *grounds* by its similarity to *question*, best first.

    Equal scores keep the order of *grounds*; a sentence that stands in two passages counts once.
    """
    found: dict[str, str] = {}
    for ground in grounds:
        for sentence in split(ground.text):
            found.setdefault(sentence.strip(), ground.passage_id)
    found.pop("", None)
    if not found:
        return []
    vectors = embed([question, *found])
    scores = (vectors[1:] @ vectors[0]).tolist()
    ranked = [
        Support(passage_id, text, round(score, 4))
        for (text, passage_id), score in zip(found.items(), scores, strict=True)
    ]
    return sorted(ranked, key=lambda support: -support.score)


def compose(ranked: Sequence[Support], most: int, abstain_below: float) -> Answer:
    """The best *most* of *ranked* that reach *abstain_below*, or an abstention."""
    chosen = tuple(support for support in ranked[:most] if support.score >= abstain_below)
    if not chosen:
        return Answer(ABSTENTION, (), "stop")
    return Answer(" ".join(support.text for support in chosen), chosen, "stop")


def shorten(answer: Answer, max_tokens: int | None, stop: Sequence[str]) -> Answer:
    """*answer* up to the first of *stop*, and to *max_tokens* words and punctuation marks."""
    ends = [answer.text.find(mark) for mark in stop if mark and mark in answer.text]
    text = answer.text[: min(ends)].rstrip() if ends else answer.text
    pieces = _PIECE.findall(text)
    if max_tokens is None or len(pieces) <= max_tokens:
        return Answer(text, answer.supports, "stop")
    return Answer("".join(pieces[:max_tokens]).rstrip(), answer.supports, "length")


def count_tokens(text: str) -> int:
    """
    Words and punctuation marks of *text*: what `usage` counts, as no tokenizer is involved.

    >>> count_tokens("It's 1889.")
    5
    """
    return len(_PIECE.findall(text))


class Extractive:
    """Ranks sentences on threads of its own, so that the event loop stays free."""

    def __init__(self, model: str, options: ProviderOptions) -> None:
        """Answer with as many sentences as *model* says."""
        self._most = _SENTENCES[model]
        self._embed = options.embed
        self._pool = ThreadPoolExecutor(max(1, options.threads), thread_name_prefix="extractive")
        self._waiting = 0

    async def start(self) -> None:
        """Nothing to do: there is no upstream."""

    async def open(self, call: Call) -> Reply:
        """
        The answer to *call*, whole or as a stream of events.

        Raises:
            InvalidRequest: a field is wrong, or the release has no index.
            UnknownPath: not a chat completion.
            Overloaded: 64 requests are being ranked already.
        """
        if call.path != "/v1/chat/completions":
            message = f"the provider extractive answers /v1/chat/completions, not {call.path}"
            raise UnknownPath(message)
        request = _read(call.body)
        if call.question is None:
            message = "extractive answers from retrieved passages: the release needs an index"
            raise InvalidRequest(message, param="model")
        if self._waiting >= _MAX_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            ranked = await asyncio.get_running_loop().run_in_executor(
                self._pool, rank, call.question, call.grounds, self._embed
            )
        finally:
            self._waiting -= 1
        threshold = ABSTAIN_BELOW if request.abstain_below is None else request.abstain_below
        answer = compose(ranked, self._most, threshold)
        stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
        answer = shorten(answer, request.max_completion_tokens or request.max_tokens, stop)
        usage = _usage(call, answer, request.n or 1)
        if call.stream:
            return LocalReply(200, list(_events(request, answer, usage)), SSE_HEADERS)
        return LocalReply(200, (_completion(request, answer, usage),))

    async def close(self) -> None:
        """Let the threads go; what they are doing is finished in the background."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def status(self) -> dict[str, Any]:
        """Always ready."""
        return {"ready": True}


def _read(body: bytes) -> _Request:
    try:
        request = msgspec.json.decode(body, type=_Request)
    except msgspec.MsgspecError as error:
        message = f"the request is not a valid chat completion: {error}"
        raise InvalidRequest(message) from error
    bounds = {
        "n": (request.n, 1, 128),
        "max_tokens": (request.max_tokens, 1, 10**9),
        "max_completion_tokens": (request.max_completion_tokens, 1, 10**9),
        "abstain_below": (request.abstain_below, -1, 1),
    }
    for field, (value, least, most) in bounds.items():
        if value is not None and not least <= value <= most:
            message = f"{field} is {value}, but must be from {least} to {most}"
            raise InvalidRequest(message, param=field)
    return request


def _usage(call: Call, answer: Answer, n: int) -> dict[str, int]:
    prompt = count_tokens(call.question or "") + sum(count_tokens(ground.text) for ground in call.grounds)
    completion = count_tokens(answer.text) * n
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _citations(answer: Answer) -> list[dict[str, Any]]:
    return [{"passage_id": support.passage_id, "score": support.score} for support in answer.supports]


def _head(kind: str, request: _Request) -> dict[str, Any]:
    return {
        "id": sortable_id("chatcmpl", utc_now()),
        "object": kind,
        "created": int(utc_now().timestamp()),
        "model": request.model,
    }


def _completion(request: _Request, answer: Answer, usage: dict[str, int]) -> bytes:
    cited = _citations(answer)
    message = {"role": "assistant", "content": answer.text, "refusal": None, "citations": cited}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        for index in range(request.n or 1)
    ]
    return msgspec.json.encode({**_head("chat.completion", request), "choices": choices, "usage": usage})


def _events(request: _Request, answer: Answer, usage: dict[str, int]) -> Iterator[bytes]:
    """Per choice: role and citations, then groups of words, then the end; then usage, if asked for."""
    head = _head("chat.completion.chunk", request)
    with_usage = request.stream_options is not None and request.stream_options.include_usage
    extra = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **extra})

    pieces = _PIECE.findall(answer.text)
    groups = range(0, len(pieces), _PIECES_PER_CHUNK)
    for index in range(request.n or 1):
        yield chunk(index, {"role": "assistant", "content": "", "citations": _citations(answer)})
        for start in groups:
            yield chunk(index, {"content": "".join(pieces[start : start + _PIECES_PER_CHUNK])})
        yield chunk(index, {}, answer.finish_reason)
    if with_usage:
        yield event({**head, "choices": [], "usage": usage})
    yield DONE
