"""`/api/v1/evidence`, `/keys` and `/runs`: what was proven, and whose signature counts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field, WithJsonSchema

from gateway.controlplane.registry_api.terms import Answer, Asked, Body, Digest, Limit, verb
from registry.signing import read_public_key
from registry.verbs import evidence

router = APIRouter()
_ENVELOPE = {
    "type": "object",
    "description": "A DSSE envelope around an in-toto statement.",
    "properties": {
        "payload": {"type": "string"},
        "payloadType": {"type": "string"},
        "signatures": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"keyid": {"type": "string"}, "sig": {"type": "string"}},
                "required": ["keyid", "sig"],
            },
        },
    },
    "required": ["payload", "payloadType", "signatures"],
}


class Withdrawal(Body):
    """Why evidence no longer counts."""

    reason: Annotated[str, Field(min_length=1, max_length=2000, examples=["measured on the wrong data"])]


class Key(Body):
    """A public key."""

    public_key: Annotated[
        str,
        Field(max_length=4000, description="Ed25519, in PEM.", examples=["-----BEGIN PUBLIC KEY-----\n…"]),
    ]


@router.get("/evidence", summary="The evidence on file about a release.", **verb("evidence.list"))
def listing(asked: Asked, name: Annotated[str, Query(max_length=64, examples=["support"])]) -> Answer:
    """Newest first: what each claims. Whether it holds is decided at promotion."""
    return evidence.listing(asked, name)


@router.post("/evidence", summary="File a signed envelope.", **verb("evidence.file", 409))
def file(asked: Asked, body: Annotated[dict[str, Any], WithJsonSchema(_ENVELOPE)]) -> Answer:
    """Idempotent. Whether it counts is decided when an alias wants to move."""
    return evidence.file(asked, body)


@router.get("/evidence/{digest}", summary="An envelope as it was filed.", **verb("evidence.show", 409))
def show(
    asked: Asked,
    digest: Digest,
    *,
    statement: Annotated[bool, Query(description="The decoded statement instead.")] = False,
) -> Answer:
    """To be checked with any tool that knows DSSE."""
    return evidence.show(asked, digest, statement=statement)


@router.post("/evidence/{digest}/withdraw", summary="Take back evidence.", **verb("evidence.withdraw", 409))
def withdraw(asked: Asked, digest: Digest, body: Withdrawal) -> Answer:
    """It stays on file and justifies nothing any more."""
    return evidence.withdraw(asked, digest, reason=body.reason)


@router.get("/runs", summary="Evaluation runs, newest first.", **verb("runs.list"))
def runs(
    asked: Asked,
    release: Annotated[str | None, Query(max_length=200, examples=["support@candidate"])] = None,
    limit: Limit = 100,
) -> Answer:
    """Of every release, or of one."""
    return evidence.runs(asked, release, limit=limit)


@router.get("/keys", summary="Every key ever trusted.", **verb("keys.list"))
def keys(asked: Asked) -> Answer:
    """Retired and revoked ones too."""
    return evidence.keys(asked)


@router.post("/keys", summary="Trust a key.", **verb("keys.trust"))
def trust(asked: Asked, body: Key) -> Answer:
    """Accept evidence that it signs from now on."""
    key = read_public_key(body.public_key.encode(), "public_key")
    return evidence.trust(asked, lambda: key)


@router.post("/keys/{digest}/retire", summary="Retire a key.", **verb("keys.retire"))
def retire(asked: Asked, digest: Digest) -> Answer:
    """What it signed before keeps its worth."""
    return evidence.retire(asked, digest)


@router.post("/keys/{digest}/revoke", summary="Revoke a key.", **verb("keys.revoke"))
def revoke(asked: Asked, digest: Digest) -> Answer:
    """Its evidence counts no more, past and future."""
    return evidence.revoke(asked, digest)
