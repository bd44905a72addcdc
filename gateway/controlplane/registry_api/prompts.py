"""`/api/v1/prompts`: push, pull, compare, render and label prompts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from gateway.controlplane.registry_api.terms import (
    AliasName,
    Answer,
    Asked,
    Body,
    Limit,
    Name,
    Reference,
    verb,
)
from registry import imports
from registry import prompts as service
from registry.errors import BadInput
from registry.refs import parse_ref
from registry.verbs import prompts

router = APIRouter()
_FILE = "---\nname: support\nvariables:\n  question: text\n---\n# user\n{{ question }}\n"


class PromptFiles(Body):
    """Prompt files to be stored, all or none."""

    files: Annotated[
        list[str],
        Field(min_length=1, max_length=1000, description="The text of each file.", examples=[[_FILE]]),
    ]
    dry_run: bool = Field(default=False, description="Say what would be done, and do nothing.")


class Rendering(Body):
    """What a prompt's variables are."""

    values: dict[str, Any] = Field(default_factory=dict, examples=[{"question": "Why?"}])


class Comparison(Body):
    """Two prompts, and variables for examples of both."""

    a: Annotated[str, Field(max_length=200, examples=["support:1"])]
    b: Annotated[str, Field(max_length=200, examples=["support@latest"])]
    values: dict[str, Any] = Field(default_factory=dict)


class Labelling(Body):
    """Where a label is to point."""

    ref: Annotated[str, Field(max_length=200, examples=["support:1"])]
    expected: Annotated[
        int | None, Field(ge=0, le=2**53, description="Only if its generation is this; 0: only if it is new.")
    ] = None


class Export(Body):
    """What another tool exported."""

    source: imports.Source
    export: Any = Field(description="The exported JSON.")
    name: Annotated[str | None, Field(max_length=64)] = None
    skip_unsupported: bool = False
    dry_run: bool = False


@router.post("/prompts", summary="Store prompt files, all or none.", **verb("prompts.push"))
def push(asked: Asked, body: PromptFiles) -> Answer:
    """Equal content is the same version. Files may include each other."""
    files = [service.read(text, f"files[{place}]") for place, text in enumerate(body.files)]
    service.ordered(files)
    rows = prompts.push(asked, files, dry_run=body.dry_run)
    return {"ok": True, "dry_run": body.dry_run, "kind": "prompt", "versions": rows}


@router.post("/prompts/diff", summary="What changed between two prompts.", **verb("prompts.diff"))
def diff(asked: Asked, body: Comparison) -> Answer:
    """Templates, variables, partials, tools, and both rendered."""
    return prompts.diff(asked, body.a, body.b, body.values)


@router.post("/prompts/import", summary="Import what another tool exported.", **verb("prompts.import"))
def take(asked: Asked, body: Export) -> Answer:
    """Prompts of MLflow, Langfuse or LangSmith; every version in its order."""
    found = imports.read(body.export, body.source, body.name)
    refused = imports.refusals(found)
    if refused and not body.skip_unsupported:
        raise BadInput(f"export: {refused[0]}; change it there, or set skip_unsupported")
    return prompts.take(asked, found, body.source, dry_run=body.dry_run)


@router.get("/labels", summary="Where labels point.", **verb("prompts.list"))
def labels(asked: Asked, prompt: Annotated[str | None, Query(max_length=64)] = None) -> Answer:
    """Every label, or those of one prompt."""
    return prompts.list_labels(asked, prompt)


@router.get("/prompts/{ref}/file", summary="A prompt as the file it was pushed from.", **verb("prompts.pull"))
def pull(asked: Asked, ref: Reference) -> Answer:
    """`as_pushed` is false where it had to be written anew."""
    return prompts.pull(asked, ref)


@router.post("/prompts/{ref}/render", summary="The messages of a prompt.", **verb("prompts.render"))
def render(asked: Asked, ref: Reference, body: Rendering) -> Answer:
    """A missing, extra or wrongly typed variable is an error."""
    return prompts.render(asked, ref, body.values)


@router.get("/prompts/{name}/log", summary="Who pushed which version when.", **verb("prompts.log"))
def log(
    asked: Asked, name: Name, limit: Limit = 20, before: Annotated[int | None, Query(ge=1, le=2**53)] = None
) -> Answer:
    """With labels, and the releases that pin each version."""
    return prompts.log(asked, name, limit=limit, before=before)


@router.put("/prompts/{name}/labels/{label}", summary="Point a label.", **verb("prompts.label", 409))
def put_label(asked: Asked, name: Name, label: AliasName, body: Labelling) -> Answer:
    """`production` and `champion` follow releases and cannot be moved by hand."""
    if parse_ref(body.ref).name != name:
        raise BadInput(f"ref: {body.ref!r} is not a version of {name!r}")
    return prompts.label(asked, body.ref, label, expected=body.expected)


@router.delete("/prompts/{name}/labels/{label}", summary="Take a label away.", **verb("prompts.label", 409))
def delete_label(asked: Asked, name: Name, label: AliasName) -> Answer:
    """What it pointed at stays."""
    return prompts.unlabel(asked, name, label)
