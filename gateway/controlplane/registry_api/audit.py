"""`/api/v1/audit`: the signed record of every change and every decision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from gateway.controlplane.registry_api.aside import Aside
from gateway.controlplane.registry_api.terms import Answer, Asked, Body, Limit, Moment, Name, verb
from registry.clock import from_text
from registry.verbs import audit

router = APIRouter()
Pattern = Annotated[str | None, Query(max_length=200, description="With * at its end: what begins so.")]


class Pruning(Body):
    """Whether to do it."""

    dry_run: bool = Field(default=False, description="Count, and empty nothing.")


class Erasure(Body):
    """Whom to forget."""

    person: Annotated[str, Field(min_length=1, max_length=256, examples=["user/ann"])]
    reason: Annotated[str, Field(min_length=1, max_length=2000, examples=["asked on 3 March"])]


class NewHold(Body):
    """What is to be kept."""

    scope: Annotated[str, Field(min_length=1, max_length=256, examples=["release/support"])]
    reason: Annotated[str, Field(min_length=1, max_length=2000, examples=["case 12"])]


@router.get("/audit", summary="Records, newest first, as they are stored.", **verb("audit.list"))
def listing(
    asked: Asked,
    target: Pattern = None,
    action: Pattern = None,
    actor: Pattern = None,
    since: Moment = None,
    until: Moment = None,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Limit = 100,
) -> Answer:
    """Nothing is verified here; see `/audit/verify`."""
    return audit.listing(
        asked,
        target=target,
        action=action,
        actor=actor,
        since=from_text(since) if since else None,
        until=from_text(until) if until else None,
        before=before,
        limit=limit,
    )


@router.get(
    "/audit/verify", summary="Check the chain, and every row against it.", **verb("audit.verify", 409)
)
def verify(
    asked: Asked,
    request: Request,
    *,
    every_signature: Annotated[bool, Query(description="Inside the chain too.")] = False,
) -> Answer:
    """Reads all of it, in a process of its own; one such check runs at a time."""
    aside: Aside = request.app.state.aside
    return aside.run(asked, "audit", every_signature=every_signature)


@router.get("/audit/head", summary="The signed end of the chain.", **verb("audit.anchor"))
def head(asked: Asked) -> Answer:
    """Keep it elsewhere: it is what shows that the chain was cut."""
    return audit.head(asked)


@router.post("/audit/prune", summary="Empty records whose retention ended.", **verb("audit.prune"))
def prune(asked: Asked, body: Pruning) -> Answer:
    """The chain stays whole."""
    return audit.prune(asked, dry_run=body.dry_run)


@router.post("/audit/erase", summary="Forget a person.", **verb("audit.erase", 409))
def erase(asked: Asked, body: Erasure) -> Answer:
    """What the chain says of that person becomes unreadable for ever; the chain stays whole."""
    return audit.erase(asked, body.person, reason=body.reason)


@router.get("/audit/holds", summary="Legal holds.", **verb("audit.list"))
def holds(asked: Asked) -> Answer:
    """Newest first, released ones too."""
    return audit.holds(asked)


@router.post("/audit/holds", summary="Keep records until further notice.", **verb("audit.hold", 409))
def hold(asked: Asked, body: NewHold) -> Answer:
    """They are neither pruned nor erased."""
    return audit.hold(asked, body.scope, reason=body.reason)


@router.post("/audit/holds/{name}/release", summary="End a hold.", **verb("audit.hold"))
def release(asked: Asked, name: Name) -> Answer:
    """What it kept may be pruned from now on."""
    return audit.release(asked, name)
