"""`/v1/generations/{id}` and `/v1/feedback`: what a request cost, and what people say of its answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, field, parse
from gateway.dataplane.reserve import reserve
from gateway.dataplane.services import Services
from gateway.errors import InvalidRequest, RecordsUnavailable, UnknownGeneration
from registry.entities import Feedback, UsageEntry
from registry.errors import BadInput, StoreUnavailable
from registry.ids import made_at

_GENERATIONS = "/v1/generations/"
_RECENT = timedelta(minutes=1)
_MOST_ID = 40
_WRAPPERS = ("resp_", "msg_", "rerank-", "modr-")
"""How ids of answers begin that this gateway made of the request's id."""
_FIELDS = frozenset(
    {"request_id", "generation_id", "score", "label", "comment", "name", "row", "user", "safety_identifier"}
)
_TEXT = msgspec.json.Decoder(str | None)
_NUMBER = msgspec.json.Decoder(float | None)
_WHOLE = msgspec.json.Decoder(int | None)


async def generation(exchange: Exchange, services: Services) -> None:
    """
    `GET /v1/generations/{id}`: what a request of this account used and cost.

    Raises:
        UnknownGeneration: none of that id is on record, or it is another account's.
        RecordsUnavailable: the registry cannot be reached.
    """
    await reserve(exchange, services)
    entry = await _entry(exchange, services, exchange.path.removeprefix(_GENERATIONS))
    exchange.respond(200, msgspec.json.encode(_plain(entry)))


async def feedback(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/feedback`: a score, a label or a comment about an answer; 201, or 200 where it changes what the
    same user said before of the same request, row and name.

    Raises:
        InvalidRequest: an unknown field, or one of another type.
        BadInput: nothing is said, or a value is out of its range.
        UnknownGeneration, RecordsUnavailable: as `generation`.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    body = parse(data)
    await reserve(exchange, services, body=body)
    record = exchange.record
    said = _said(body, record.user)
    entry = await _entry(exchange, services, _request_of(body))
    assert services.records is not None  # noqa: S101 - the entry came from there
    try:
        identity, is_new = await services.records.give(entry, said)
    except StoreUnavailable as error:
        raise RecordsUnavailable from error
    record.release, record.digest, record.feedback = entry.release, entry.digest, (said.name, said.sign)
    answer = {
        "id": identity, "object": "feedback", "request_id": entry.request_id, "row": said.row,
        "name": said.name, "release": entry.release, "digest": entry.digest,
    }  # fmt: skip
    exchange.respond(201 if is_new else 200, msgspec.json.encode(answer))


async def _entry(exchange: Exchange, services: Services, named: str) -> UsageEntry:
    """The record of the request that *named* is the id of, if it is this account's."""
    identity = _unwrapped(named)
    found, made = None, made_at(identity)
    if services.records is not None and made is not None and len(identity) <= _MOST_ID:
        try:
            found = await services.records.find(identity)
        except StoreUnavailable as error:
            raise RecordsUnavailable from error
    if found is None or found.account != exchange.record.account:
        message = (
            f"no request {named[:80]!r} of this account used anything; its id is the answer's x-request-id"
        )
        raise UnknownGeneration(message, recent=made is not None and exchange.now - made < _RECENT)
    return found


def _unwrapped(named: str) -> str:
    for prefix in _WRAPPERS:
        if named.startswith(prefix):
            rest = named.removeprefix(prefix)
            return rest if rest.startswith("req_") else f"req_{rest}"
    return named


def _plain(entry: UsageEntry) -> dict[str, Any]:
    cost = entry.cost_microusd
    return {
        "id": entry.request_id,
        "object": "generation",
        "created_at": entry.at,
        "route": entry.route,
        "release": entry.release,
        "digest": entry.digest or None,
        "model": entry.model or None,
        "status": entry.status,
        "error": entry.error or None,
        "tokens": {
            "prompt": entry.prompt_tokens,
            "completion": entry.completion_tokens,
            "cached": entry.cached_tokens,
        },
        "rows": entry.rows,
        "estimated": bool(entry.estimated),
        "cost_usd": None if cost is None else "{}.{:06d}".format(*divmod(cost, 1_000_000)),
    }


def _request_of(body: Body) -> str:
    named = [
        name
        for name in ("request_id", "generation_id")
        if name in body and field(body, name, _TEXT) is not None
    ]
    if len(named) != 1:
        message = "request_id: name the request by its x-request-id, as request_id or generation_id"
        raise InvalidRequest(message, param="request_id")
    text: str = field(body, named[0], _TEXT)
    return text


def _said(body: Body, user: str) -> Feedback:
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        message = f"{unknown[0][:80]}: feedback has no such field; it has {', '.join(sorted(_FIELDS))}"
        raise InvalidRequest(message, param=unknown[0][:80])
    score = field(body, "score", _NUMBER)
    try:
        return Feedback(
            name=field(body, "name", _TEXT) or "user",
            row=field(body, "row", _WHOLE),
            user=user,
            score=score,
            label=field(body, "label", _TEXT),
            comment=field(body, "comment", _TEXT),
        )
    except BadInput as error:
        raise InvalidRequest(error.message, param=error.message.partition(":")[0]) from error
