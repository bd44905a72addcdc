"""`/api/v1/releases`, `/aliases` and `/approvals`: what runs, and what may."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query
from fastapi.responses import FileResponse
from pydantic import Field, WithJsonSchema

from gateway.controlplane.registry_api.terms import (
    AliasName,
    Answer,
    Asked,
    Body,
    Limit,
    Moment,
    Name,
    Reference,
    schema_of,
    verb,
)
from registry import pack, parse
from registry.clock import from_text
from registry.entities import Sticky
from registry.errors import BadInput
from registry.refs import parse_ref
from registry.releases import ReleaseFile
from registry.verbs import releases, splits

router = APIRouter()
Why = Annotated[str, Field(max_length=2000, description="Kept in the history.")]
Which = Annotated[str, Field(max_length=200, examples=["support@candidate"])]


class Promotion(Body):
    """Which release an alias is to point at, and why."""

    ref: Which
    reason: Why = ""
    evidence: Annotated[
        list[dict[str, Any]] | None, Field(max_length=200, description="Judge these envelopes alone.")
    ] = None
    dry_run: bool = Field(default=False, description="Decide, and move nothing.")


class Emergency(Body):
    """Which release an alias is to point at without evidence, and why it cannot wait."""

    ref: Which
    reason: Annotated[str, Field(min_length=1, max_length=2000, examples=["the key leaked"])]


class Shadow(Body):
    """A release that is asked beside the others, and answers nobody."""

    ref: Which
    percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    usd_per_day: Annotated[float | None, Field(gt=0, description="What it may spend on a day of UTC.")] = None


class Shares(Body):
    """Which releases share an alias's traffic."""

    arms: dict[str, Annotated[float, Field(gt=0, lt=100)]] = Field(
        default_factory=dict,
        max_length=9,
        description="Release to percent.",
        examples=[{"support@candidate": 10}],
    )
    shadow: Shadow | None = None
    sticky: Sticky = "user"
    reason: Why = ""
    dry_run: bool = Field(default=False, description="Decide, and change nothing.")


class Reason(Body):
    """Why."""

    reason: Why = ""


class Consent(Body):
    """What is approved."""

    ref: Which
    comment: Annotated[str, Field(max_length=2000)] = ""


@router.post(
    "/releases", summary="Pin parts into a release; candidate points at it.", **verb("releases.create")
)
def create(
    asked: Asked,
    body: Annotated[dict[str, Any], WithJsonSchema(schema_of(ReleaseFile))],
    *,
    dry_run: Annotated[bool, Query(description="Check it and store nothing.")] = False,
) -> Answer:
    """The body is what a release file says: names and references, resolved to digests now."""
    return releases.create(asked, parse.build(body, ReleaseFile, source="body"), dry_run=dry_run)


@router.get(
    "/releases/{ref}/export",
    summary="A release, all it pins and its evidence as one tar.",
    response_class=FileResponse,
    **verb("releases.export"),
)
def export(asked: Asked, ref: Reference, after: BackgroundTasks) -> FileResponse:
    """`registry releases verify` checks it offline, `registry releases import` enters it elsewhere."""
    folder = tempfile.TemporaryDirectory(prefix="sluicegate-export-")
    path = Path(folder.name) / "release.tar"
    try:
        done = pack.export(partial(asked.viewing, "releases.export"), asked.workspace.artifacts, ref, path)
    except BaseException:
        folder.cleanup()
        raise
    after.add_task(folder.cleanup)
    name = done["release"].replace(":", "-")
    return FileResponse(path, media_type="application/x-tar", filename=f"{name}.tar", background=after)


@router.get("/aliases", summary="Where every alias points.", **verb("aliases.list"))
def aliases(asked: Asked, name: Annotated[str | None, Query(max_length=64)] = None) -> Answer:
    """Every alias, or those of one release."""
    return releases.aliases(asked, name)


@router.get(
    "/aliases/{name}/history", summary="Who moved which alias when and why.", **verb("aliases.history")
)
def history(
    asked: Asked,
    name: Name,
    alias: Annotated[str | None, Query(max_length=32)] = None,
    at: Moment = None,
    limit: Limit = 1000,
) -> Answer:
    """With `at`, what was so then, and what each alias was."""
    return releases.moves(asked, name, alias=alias, at=from_text(at) if at else None, limit=limit)


@router.get("/aliases/{name}/{alias}/was", summary="What an alias was at a time.", **verb("aliases.history"))
def was(asked: Asked, name: Name, alias: AliasName, at: Annotated[str, Query(max_length=40)]) -> Answer:
    """The release, its parts, and who moved it there on what evidence."""
    return releases.was(asked, name, from_text(at), alias)


@router.post(
    "/aliases/{name}/{alias}/promote", summary="Move an alias on evidence.", **verb("aliases.promote", 409)
)
def promote(asked: Asked, name: Name, alias: AliasName, body: Promotion) -> Answer:
    """Refused unless signed, fresh evidence for exactly these bytes says that the release passed its gate."""
    ref = _of(name, body.ref)
    return releases.promote(
        asked, ref, alias, reason=body.reason, envelopes=body.evidence, dry_run=body.dry_run
    )


@router.post(
    "/aliases/{name}/{alias}/break-glass",
    summary="Move an alias without evidence, in an emergency.",
    **verb("aliases.break-glass", 409),
)
def break_glass(asked: Asked, name: Name, alias: AliasName, body: Emergency) -> Answer:
    """History, metrics and alerts say so until it is promoted on evidence."""
    return releases.break_glass(asked, _of(name, body.ref), alias, reason=body.reason)


@router.post(
    "/aliases/{name}/{alias}/rollback",
    summary="Return to the release before.",
    **verb("aliases.rollback", 409),
)
def rollback(asked: Asked, name: Name, alias: AliasName, body: Reason) -> Answer:
    """In one step, without evidence: it was proven before."""
    return releases.rollback(asked, name, alias, reason=body.reason)


@router.get("/splits", summary="Which aliases' traffic is shared.", **verb("splits.list"))
def list_splits(asked: Asked, name: Annotated[str | None, Query(max_length=64)] = None) -> Answer:
    """Every split that is set, or those of one release."""
    return splits.listing(asked, name)


@router.put("/aliases/{name}/{alias}/split", summary="Share an alias's traffic.", **verb("splits.set", 409))
def set_split(asked: Asked, name: Name, alias: AliasName, body: Shares) -> Answer:
    """Each arm needs what a promotion to the alias needs; a shadow answers nobody and needs nothing."""
    shadow = body.shadow
    return splits.put(
        asked,
        f"{name}@{alias}",
        arms=body.arms,
        shadow=None if shadow is None else shadow.ref,
        shadow_percent=100 if shadow is None else shadow.percent,
        shadow_usd_per_day=None if shadow is None else shadow.usd_per_day,
        sticky=body.sticky,
        reason=body.reason,
        dry_run=body.dry_run,
    )


@router.delete("/aliases/{name}/{alias}/split", summary="End a split.", **verb("splits.end"))
def end_split(
    asked: Asked, name: Name, alias: AliasName, reason: Annotated[str, Query(max_length=2000)] = ""
) -> Answer:
    """All traffic goes back to the alias's own release."""
    return splits.end(asked, f"{name}@{alias}", reason=reason)


@router.get("/approvals", summary="The approvals of a release's versions.", **verb("approvals.list"))
def approvals(asked: Asked, name: Annotated[str, Query(max_length=64, examples=["support"])]) -> Answer:
    """Newest first."""
    return releases.list_approvals(asked, name)


@router.post("/aliases/{name}/{alias}/approvals", summary="Approve a release.", **verb("approvals.give", 409))
def approve(asked: Asked, name: Name, alias: AliasName, body: Consent) -> Answer:
    """Never one's own."""
    return releases.approve(asked, _of(name, body.ref), alias, comment=body.comment)


@router.delete(
    "/aliases/{name}/{alias}/approvals",
    summary="Take back one's own approval.",
    **verb("approvals.withdraw", 409),
)
def unapprove(
    asked: Asked,
    name: Name,
    alias: AliasName,
    ref: Annotated[str, Query(max_length=200, examples=["support:1"])],
) -> Answer:
    """It no longer counts from now on."""
    return releases.unapprove(asked, _of(name, ref), alias)


def _of(name: str, ref: str) -> str:
    if parse_ref(ref).name != name:
        raise BadInput(f"ref: {ref!r} is not a version of {name!r}")
    return ref
