"""
`/api/v1/served`: the prompts of what is served now, for those who call models themselves.

Answered from what the gateway holds in memory, so it goes on while the registry is away, and is as fresh as
what the gateway serves. Asked with an API key of the gateway; it reads what it may call.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from gateway.controlplane.refresh import Live
from gateway.controlplane.registry_api.terms import Answer, Body, Errors, json_response
from gateway.dataplane.auth import authenticate
from gateway.dataplane.table import Grant, Target
from gateway.dataplane.variants import choose
from gateway.errors import InvalidRequest, NotReady
from registry.entities import PromptContent, ServedRelease
from registry.templates import compile_prompt
from registry.versions import plain

router = APIRouter(tags=["served"])
_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key of the gateway, `sk-sg-…`.")
Model = Annotated[str, Path(max_length=200, examples=["support@production"])]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Errors, "description": "The request is wrong."},
    401: {"model": Errors, "description": "No API key, or one that ended."},
    403: {"model": Errors, "description": "This API key may not call that."},
    404: {"model": Errors, "description": "No release has that name."},
    413: {"model": Errors, "description": "The body is too long."},
    503: {"model": Errors, "description": "It cannot be served yet."},
}


class Question(Body):
    """Whom a prompt is rendered for, and with what."""

    values: dict[str, Any] = Field(default_factory=dict, examples=[{"question": "Why?"}])
    user: Annotated[
        str, Field(max_length=256, description="Who asks: the same always gets the same variant.")
    ] = ""


def grant_of(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Grant:
    """What the API key that was shown may do."""
    state = request.app.state
    header = f"Bearer {shown.credentials}".encode() if shown is not None else None
    grant = authenticate(header, state.live.table, state.clock())
    grant.require_route(request.url.path)
    return grant


Granted = Annotated[Grant, Depends(grant_of)]


@router.get("/served/{model}/prompt", summary="The prompt that is served under a name.", responses=_REFUSALS)
def prompt(request: Request, model: Model, grant: Granted) -> Response:
    """Templates, variables and partials; ask with If-None-Match to hear of changes only."""
    target, release = _served(request, model, grant)
    etag = f'"{target.route.digest}"'
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"etag": etag})
    answer = {
        **_about(target, release),
        "prompt": plain(release.prompt),
        "variants": [
            {"name": one.name, "weight": one.weight, "prompt": plain(release.variants[one.name])}
            for one in release.content.variants or ()
        ],
        "partials": dict(release.partials),
        "tools": [dict(tool) for tool in release.tools],
    }
    return json_response(answer, headers={"etag": etag})


@router.post("/served/{model}/render", summary="The messages of the served prompt.", responses=_REFUSALS)
def render(request: Request, model: Model, grant: Granted, body: Question) -> Answer:
    """A missing, extra or wrongly typed variable is an error."""
    target, release = _served(request, model, grant)
    branch = choose(target.route.branches, target.route.digest, body.user)
    content = release.variants[branch.name] if branch is not None else release.prompt
    assert isinstance(content, PromptContent)  # noqa: S101 - `_served` looked
    messages = compile_prompt(content, release.partials)(body.values)
    answer = {
        **_about(target, release),
        "variant": branch.name if branch else "default",
        "messages": messages,
    }
    tools = [*(dict(tool) for tool in release.tools), *(dict(tool) for tool in content.tools or ())]
    if tools:
        answer["tools"] = tools
    if content.response_schema is not None:
        answer["response_schema"] = content.response_schema
    return answer


def _served(request: Request, model: str, grant: Grant) -> tuple[Target, ServedRelease]:
    """What *model* names, for a key that may call it."""
    live: Live = request.app.state.live
    target = live.table.find(model, grant)
    found = live.served(target.route.digest)
    if found is None:
        message = f"{model!r} cannot be read: {target.route.problem or 'it is no release'}"
        raise NotReady(message)
    if found.prompt is None:
        raise InvalidRequest(f"{model!r} has no prompt; its messages are the client's own", param="model")
    return target, found


def _about(target: Target, release: ServedRelease) -> dict[str, Any]:
    return {
        "release": release.version.name,
        "number": release.version.number,
        "digest": target.route.digest,
        "alias": target.alias or None,
        "model": release.content.model,
        "parameters": dict(release.content.parameters),
    }
