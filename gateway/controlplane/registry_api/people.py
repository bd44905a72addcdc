"""`/api/v1/users` and `/webhooks`: who may act, and who is told."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from gateway.controlplane.registry_api.terms import Answer, Asked, Body, Limit, Name, verb
from registry.entities import UserRole
from registry.verbs import people, webhooks

router = APIRouter()


class NewUser(Body):
    """Somebody who is to act here."""

    name: Annotated[str, Field(max_length=64, examples=["ann"])]
    role: UserRole


class Role(Body):
    """What somebody may do from now on."""

    role: UserRole


class NewWebhook(Body):
    """Who is to be told what."""

    url: Annotated[str, Field(max_length=2000, examples=["https://ci.example.com/hook"])]
    events: Annotated[
        list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=50, examples=[["alias.*"]])
    ]
    allow_private: bool = Field(default=False, description="Its host may be in a private network.")


class Delivery(Body):
    """What is to be sent."""

    retry_dead: bool = Field(default=False, description="Begin again with what was given up.")


@router.get("/users", summary="Everybody who may or once might act.", **verb("users.list"))
def users(asked: Asked) -> Answer:
    """By name; tokens are never shown."""
    return people.listing(asked)


@router.post("/users", summary="Make a user.", **verb("users.add", 409))
def add_user(asked: Asked, body: NewUser) -> Answer:
    """The token is in this answer and nowhere else."""
    return people.add(asked, body.name, body.role)


@router.patch("/users/{name}", summary="Give a user another role.", **verb("users.change"))
def change_user(asked: Asked, name: Name, body: Role) -> Answer:
    """The token stays."""
    return people.change(asked, name, body.role)


@router.post("/users/{name}/token", summary="Another token for a user.", **verb("users.change"))
def new_token(asked: Asked, name: Name) -> Answer:
    """The one before ends now."""
    return people.token(asked, name)


@router.post("/users/{name}/revoke", summary="End a user's token for good.", **verb("users.revoke"))
def revoke_user(asked: Asked, name: Name) -> Answer:
    """The name is not given again."""
    return people.revoke(asked, name)


@router.get("/webhooks", summary="Every webhook, and how it fares.", **verb("webhooks.list"))
def list_webhooks(asked: Asked) -> Answer:
    """What waits, what was given up, and the last error."""
    return webhooks.listing(asked)


@router.post("/webhooks", summary="Add a webhook.", **verb("webhooks.add"))
def add_webhook(asked: Asked, body: NewWebhook) -> Answer:
    """The secret is in this answer and nowhere else."""
    return webhooks.add(asked, body.url, body.events, allow_private=body.allow_private)


@router.post("/webhooks/deliver", summary="Send what is due now.", **verb("webhooks.deliver"))
def deliver(asked: Asked, body: Delivery) -> Answer:
    """As every running gateway does by itself."""
    return webhooks.deliver(asked, retry_dead=body.retry_dead)


@router.delete("/webhooks/{name}", summary="End a webhook.", **verb("webhooks.remove"))
def remove_webhook(asked: Asked, name: Name) -> Answer:
    """What was still to be told it is forgotten."""
    return webhooks.remove(asked, name)


@router.get("/webhooks/{name}/deliveries", summary="Its newest deliveries.", **verb("webhooks.list"))
def deliveries(asked: Asked, name: Name, limit: Limit = 100) -> Answer:
    """Waiting, delivered or dead, and why."""
    return webhooks.log(asked, name, limit=limit)


@router.post("/webhooks/{name}/test", summary="Send it a test message now.", **verb("webhooks.deliver"))
def test_webhook(asked: Asked, name: Name) -> Answer:
    """`error` says why its receiver did not take it."""
    return webhooks.test(asked, name)
