"""What every path of the registry's API shares: who asks, what answers look like, how errors are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from gateway.errors import InvalidRequest, body_of, status_of
from registry.errors import BadTemplate, PlatformError, StoreUnavailable, Unauthorized
from registry.verbs import Session

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="user",
    description="The token of a user of the registry, `sgr-…`, or a signed one (JWT) of `registry.oidc`.",
)
Reference = Annotated[str, Path(max_length=200, examples=["support@production"])]
Name = Annotated[str, Path(max_length=64, examples=["support"])]
AliasName = Annotated[str, Path(max_length=32, examples=["production"])]
Digest = Annotated[str, Path(max_length=80, examples=["sha256:" + "0" * 64])]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most this many.")]
Moment = Annotated[str | None, Query(max_length=40, description="A time, as RFC 3339 writes it.")]
Answer = dict[str, Any]


class Body(BaseModel):
    """A request body; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Error(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None
    code: str


class Errors(BaseModel):
    """The body of every refusal."""

    error: Error


def session_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Session:
    """The session of the user whose token was shown; every verb checks it anew."""
    state = request.app.state
    if not (state.workspace.engines or state.live.reached):
        raise StoreUnavailable("this gateway could not read the registry yet; /health/ready says why")
    token = credentials.credentials if credentials is not None else ""
    return Session(state.workspace, token, remote=True)


Asked = Annotated[Session, Depends(session_of)]


def verb(name: str, *statuses: int) -> dict[str, Any]:
    """
    What the path of the registry's verb *name* declares: id, tag, and how it may refuse.

    Args:
        statuses: of refusals beside 400, 401, 403, 404, 413 and 503.
    """
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Errors, "description": _MEANINGS[status]}
        for status in sorted({400, 401, 403, 404, 413, 503, *statuses})
    }

    def allowed(asked: Asked) -> None:
        with asked.viewing(name):
            pass  # before anything is made of the body: the verb's own transaction asks again

    return {
        "tags": [name.partition(".")[0]],
        "responses": responses,
        "openapi_extra": {"x-verb": name},
        "dependencies": [Depends(allowed)],
    }


_MEANINGS = {
    400: "The request is wrong; the message names the field.",
    401: "No token of a user or of the issuer, or one that is revoked or does not hold.",
    403: "The user's role does not allow this.",
    404: "There is no such thing.",
    409: "Refused: the gate, an approval, or somebody who was faster says no.",
    413: "The body is too long.",
    503: "The registry cannot be reached, or is damaged.",
}


def schema_of(shape: type) -> dict[str, Any]:
    """The JSON Schema of a dataclass that `registry.parse` reads, with every definition in its place."""
    schema = TypeAdapter(shape).json_schema()
    made: dict[str, Any] = _inlined(schema, schema.pop("$defs", {}))
    return made


def _inlined(value: Any, known: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        return [_inlined(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(known[value["$ref"].rpartition("/")[2]], known)
    made = {key: _inlined(one, known) for key, one in value.items()}
    return {**made, "additionalProperties": False} if "properties" in made else made


def handle_errors(app: FastAPI) -> None:
    """Tell every error of *app* in OpenAI's shape."""

    @app.exception_handler(PlatformError)
    async def platform_error(_: Request, error: PlatformError) -> Response:
        status = 400 if isinstance(error, BadTemplate) else status_of(error)
        headers = {"www-authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
        return Response(body_of(error), status, headers, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def wrong_request(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]  # its input is left out: it may be a secret
        where = [str(part) for part in first["loc"] if not isinstance(part, int) or first["loc"][0] != "body"]
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        ours = InvalidRequest(f"{'.'.join(where)}: {first['msg']}{more}"[:500], param=where[-1])
        return Response(body_of(ours), 400, media_type="application/json")


def json_response(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """*answer* as JSON."""
    data = msgspec.json.encode(answer)
    return Response(data, status, dict(headers or {}), media_type="application/json")


def describe(app: FastAPI) -> None:
    """Leave the 422 that is never answered out of the OpenAPI of *app*: what is wrong is told with 400."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation.get("responses", {}).pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
