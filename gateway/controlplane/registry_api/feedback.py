"""`/api/v1/feedback`: what people say of answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from gateway.controlplane.registry_api.terms import Answer, Asked, Limit, Moment, verb
from registry.clock import from_text
from registry.verbs import feedback

router = APIRouter()


@router.get("/feedback", summary="What people said of answers, newest first.", **verb("feedback.list"))
def listing(
    asked: Asked,
    release: Annotated[str | None, Query(max_length=200, examples=["support"])] = None,
    name: Annotated[str | None, Query(max_length=64, examples=["thumbs"])] = None,
    since: Moment = None,
    until: Moment = None,
    before: Annotated[
        str | None, Query(max_length=40, description="`next` of the page before this one.")
    ] = None,
    limit: Limit = 100,
) -> Answer:
    """Scores, labels and comments with the release that they are about; users are pseudonyms."""
    return feedback.listing(
        asked,
        release=release,
        name=name,
        since=from_text(since) if since else None,
        until=from_text(until) if until else None,
        before=before,
        limit=limit,
    )
