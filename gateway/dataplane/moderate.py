"""`/v1/moderations`: what the guardrails' detectors find in a text, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, field, model_of, parse
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.services import Services
from gateway.dataplane.usage import estimate_tokens
from gateway.errors import BodyTooLarge, InvalidRequest
from gateway.guardrails.policy import TextScreen, all_detectors

DETECTORS = "sluicegate/guardrails"
"""The model that stands for all detectors, whatever any release's policy says."""
_OF_CLIENTS = frozenset(
    (DETECTORS, "omni-moderation-latest", "text-moderation-latest", "text-moderation-stable")
)
"""OpenAI's names, which its clients send by default, mean the same."""
_ANY = msgspec.json.Decoder(Any)


async def moderate(exchange: Exchange, services: Services) -> None:
    """
    One result for each input: `flagged`, `categories` and `category_scores` by detector and by rule.

    The model is a release, whose policy's input rules then judge, or `sluicegate/guardrails` (the default):
    all detectors. Detectors are rules: a score is 1 for what was found and 0 for what was not.

    Raises:
        InvalidRequest: no text, images, or a release without input rules.
        BodyTooLarge: more inputs than this gateway takes at once.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    body = parse(data)
    model = model_of(body) if "model" in body else DETECTORS
    screen = await _screen(exchange, services, model)
    await reserve(exchange, services)
    texts = _texts(body, services.limits.max_batch_rows)
    exchange.record.prompt_tokens = sum(map(estimate_tokens, texts))
    results = await services.work.run(_results, screen, texts)
    answer = {"id": f"modr-{exchange.record.request_id}", "model": model, "results": results}
    exchange.respond(200, msgspec.json.encode(answer))


async def _screen(exchange: Exchange, services: Services, model: str) -> TextScreen:
    if model in _OF_CLIENTS:
        exchange.grant.require(DETECTORS)
        exchange.record.release = "sluicegate/*"
        return await services.work.run(all_detectors)
    route = await resolve(exchange, model, services)
    if route.input is None:
        message = f"release {route.name!r} has no input rules; ask {DETECTORS} for all detectors"
        raise InvalidRequest(message, param="model")
    return route.input


def _texts(body: Body, limit: int) -> list[str]:
    value = field(body, "input", _ANY)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return ["\n".join(_part(part) for part in value)]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        message = "input: must be text, a list of texts, or a list of text parts"
        raise InvalidRequest(message, param="input")
    if len(texts) > limit:
        message = f"input: {len(texts)} texts are more than the {limit} this gateway takes at once"
        raise BodyTooLarge(message, param="input")
    return texts


def _part(part: dict[str, Any]) -> str:
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        message = f"input: the detectors read text alone, not {str(part.get('type'))[:32]!r}"
        raise InvalidRequest(message, param="input")
    return text


def _results(screen: TextScreen, texts: Sequence[str]) -> list[dict[str, Any]]:
    return [_result(screen, text) for text in texts]


def _result(screen: TextScreen, text: str) -> dict[str, Any]:
    found: dict[str, bool] = {}
    for check in screen.checks:
        findings = check.guardrail(text)
        found[check.detector] = found.get(check.detector, False) or bool(findings)
        found |= {f"{check.detector}/{finding.rule}": True for finding in findings}
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": {name: float(is_found) for name, is_found in found.items()},
        "category_applied_input_types": {name: ["text"] for name in found},
    }
