"""`/api/v1/versions`, `/search`, `/diff`, `/lineage`, `/verify`, and the versions of each kind."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import WithJsonSchema

from gateway.controlplane.registry_api.aside import Aside
from gateway.controlplane.registry_api.terms import (
    Answer,
    Asked,
    Limit,
    Reference,
    json_response,
    schema_of,
    verb,
)
from registry import parse
from registry.entities import GatePolicy, GuardrailRule, Kind
from registry.judges import JudgeFile
from registry.lineage import Direction
from registry.policies import PolicyFile
from registry.prices import PriceFile
from registry.schemas import ToolFile
from registry.verbs import versions
from registry.versions import GROUPS

router = APIRouter()
NameQuery = Annotated[str | None, Query(max_length=64, description="Only of this name.")]
Before = Annotated[str | None, Query(max_length=80, description="`next` of the page before.")]
_RULES = {"type": "array", "items": schema_of(GuardrailRule)}


def _file(**properties: dict[str, Any]) -> WithJsonSchema:
    keys = {"name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}, **properties}
    return WithJsonSchema(
        {"type": "object", "properties": keys, "required": list(keys), "additionalProperties": False}
    )


@router.get("/versions", summary="Versions of every kind, newest first.", **verb("versions.list"))
def list_versions(
    asked: Asked,
    kind: Annotated[Kind | None, Query()] = None,
    name: NameQuery = None,
    limit: Limit = 100,
    before: Before = None,
) -> Answer:
    """Give `before` the `next` of the answer before until that is null."""
    return versions.listing(asked, kind, name, limit=limit, before=before)


@router.get(
    "/search", summary="The newest version of each name, or what has a digest.", **verb("versions.search")
)
def search(
    asked: Asked,
    q: Annotated[str, Query(min_length=1, max_length=100, description="Part of a name, or of a digest.")],
    kind: Annotated[Kind | None, Query()] = None,
    limit: Limit = 100,
    after: Annotated[str | None, Query(max_length=120, description="`next` of the page before.")] = None,
) -> Answer:
    """Matches names that contain the text, whatever its case, and digests that begin with it."""
    return versions.find(asked, q, kind, limit=limit, after=after)


@router.get("/diff", summary="What changed between two versions of one kind.", **verb("versions.diff"))
def diff(
    asked: Asked,
    a: Annotated[str, Query(max_length=200, examples=["support:1"])],
    b: Annotated[str, Query(max_length=200, examples=["support@candidate"])],
) -> Answer:
    """Each is a release such as `support:1`, or has its kind before it: `prompts/support:1`."""
    return versions.diff(asked, a, b)


@router.get("/lineage", summary="What a version was made of and what came of it.", **verb("lineage.show"))
def lineage(
    asked: Asked,
    ref: Annotated[str, Query(max_length=200, examples=["support@production"])],
    direction: Direction = "both",
) -> Answer:
    """From data to requests, as nodes and edges."""
    return versions.graph(asked, ref, direction)


@router.get("/verify", summary="Whether everything is what its digest says.", **verb("registry.verify"))
def verify(asked: Asked, request: Request) -> Answer:
    """Reads the whole registry, in a process of its own; one such check runs at a time."""
    aside: Aside = request.app.state.aside
    return aside.run(asked, "versions")


@router.post("/guardrails", summary="Store a guardrail policy.", **verb("guardrails.push"))
def push_guardrails(asked: Asked, body: Annotated[dict[str, Any], _file(rules=_RULES)]) -> Answer:
    """Idempotent: equal content is the same version."""
    return versions.push_policy(asked, parse.build({"kind": "guardrails", **body}, PolicyFile, source="body"))


@router.post("/gates", summary="Store a gate policy.", **verb("gates.push"))
def push_gate(asked: Asked, body: Annotated[dict[str, Any], _file(gate=schema_of(GatePolicy))]) -> Answer:
    """Its name is that of the release whose aliases it guards."""
    return versions.push_policy(asked, parse.build({"kind": "gate", **body}, PolicyFile, source="body"))


@router.post("/judges", summary="Store a judge.", **verb("judges.push"))
def push_judge(asked: Asked, body: Annotated[dict[str, Any], WithJsonSchema(schema_of(JudgeFile))]) -> Answer:
    """Idempotent: equal content is the same version."""
    return versions.push_judge(asked, parse.build(body, JudgeFile, source="body"))


@router.post("/tools", summary="Store a tool schema.", **verb("tools.push"))
def push_tools(asked: Asked, body: Annotated[dict[str, Any], WithJsonSchema(schema_of(ToolFile))]) -> Answer:
    """Functions that releases offer their model, in OpenAI's shape."""
    return versions.push_tools(asked, parse.build(body, ToolFile, source="body"))


@router.post("/prices", summary="Store a price table.", **verb("prices.push"))
def push_prices(
    asked: Asked, body: Annotated[dict[str, Any], WithJsonSchema(schema_of(PriceFile))]
) -> Answer:
    """What releases that pin it are charged by, in US dollars for a million tokens."""
    return versions.push_prices(asked, parse.build(body, PriceFile, source="body"))


def _add(kind: Kind, group: str) -> None:
    @router.get(
        f"/{group}",
        summary=f"Versions of kind {kind}, newest first.",
        operation_id=f"{group}_list",
        **verb("versions.list"),
    )
    def listed(asked: Asked, name: NameQuery = None, limit: Limit = 100, before: Before = None) -> Answer:
        return versions.listing(asked, kind, name, limit=limit, before=before)

    @router.get(
        f"/{group}/{{ref}}",
        summary=f"One version of kind {kind}.",
        operation_id=f"{group}_show",
        **verb("versions.show"),
    )
    def shown(asked: Asked, request: Request, ref: Reference) -> Response:
        answer = versions.show(asked, kind, ref)
        etag = f'"{answer["digest"]}"'
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": etag})
        return json_response(answer, headers={"etag": etag})


for _kind, _group in GROUPS.items():
    _add(_kind, _group)
