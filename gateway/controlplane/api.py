"""The control plane as a FastAPI application: health and metrics, on the data plane's port."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from gateway.controlplane.health import readiness, seed_health
from gateway.controlplane.refresh import Live
from gateway.controlplane.siblings import Siblings
from gateway.errors import GatewayError, InvalidRequest, UnknownPath, WrongMethod, body_of, status_of
from gateway.telemetry import CONTENT_TYPE, Telemetry
from registry.clock import Clock
from registry.workspace import Workspace


def control_plane(
    live: Live,
    telemetry: Telemetry,
    clock: Clock,
    siblings: Siblings | None = None,
    registry: Workspace | None = None,
) -> FastAPI:
    """
    Health and metrics, none of which needs a key; and the registry's API, where each caller needs one.

    Args:
        registry: what the API answers for; None: there is none here.
        siblings: all processes of the port, where there are several: metrics are those of all, and readiness
            lists each one's state. A process that does not answer delays an answer by one second at most.
    """
    app = FastAPI(
        title="Sluicegate", docs_url=None, redoc_url=None, openapi_url="/openapi.json", redirect_slashes=False
    )

    @app.get("/health/live", summary="This process answers.")
    async def health_live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/health/ready", summary="Every release in production can answer (200), or not (503).")
    async def health_ready() -> Response:
        report = readiness(live)
        if siblings is not None:
            report["workers"] = await siblings.states()
        return _json(report, 200 if report["ready"] else 503)

    @app.get("/health", summary="Whether predictions are served.")
    async def health() -> Response:
        report = seed_health(live, clock())
        return _json(report, 200 if report["status"] == "healthy" else 503)

    @app.get("/metrics", summary="Metrics in Prometheus' text format.")
    async def metrics() -> Response:
        text = telemetry.render()
        if siblings is not None:
            text = await siblings.metrics(text)
        return Response(text, media_type=CONTENT_TYPE)

    if registry is not None:
        from gateway.controlplane import registry_api

        registry_api.mount(app, registry, live, clock)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path[:200]
        ours: GatewayError = UnknownPath(f"there is nothing at {path!r}")
        if error.status_code == 400:
            ours = InvalidRequest("the request body cannot be read as JSON")
        elif error.status_code == 405:
            ours = WrongMethod(f"{path!r} does not answer {request.method[:16]}")
        headers = dict(error.headers or {})
        return Response(body_of(ours), status_of(ours), headers, media_type="application/json")

    return app


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
