"""
The registry over HTTP: the verbs of the command line under `/api/v1`, on the gateway's own port.

Who asks shows the token of a user of the registry; each call is one transaction under the name of one verb.
What needs a file of the caller's machine, such as a backup, has no path here.
"""

from __future__ import annotations

from fastapi import FastAPI

from gateway.controlplane.refresh import Live
from gateway.controlplane.registry_api import (
    aside,
    audit,
    evidence,
    feedback,
    people,
    prompts,
    releases,
    served,
    terms,
    versions,
)
from registry.clock import Clock
from registry.workspace import Workspace

PREFIX = "/api/v1"


def mount(app: FastAPI, workspace: Workspace, live: Live, clock: Clock) -> None:
    """Hang every path below `/api/v1` into *app*."""
    app.state.workspace, app.state.live, app.state.clock = workspace, live, clock
    app.state.aside = aside.Aside()
    # What has a literal path comes before what takes a reference in the same place.
    for routes in (served, audit, people, feedback, evidence, releases, prompts, versions):
        app.include_router(routes.router, prefix=PREFIX)
    terms.handle_errors(app)
    terms.describe(app)
