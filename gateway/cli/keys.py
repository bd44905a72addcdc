"""`gateway keys`: make, list and end the virtual keys that clients call with."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from registry import accounts, terminal
from registry.clock import to_text, utc_now
from registry.entities import ApiKey
from registry.errors import BadInput
from registry.terminal import Json, show, table
from registry.workspace import open_workspace

application = terminal.command_group("Virtual API keys. A key is shown once, when it is made.")


@application.command("create", epilog="Example: gateway keys create --name web --models support,churn")
def create(
    *,
    name: Annotated[str, typer.Option(help="Who or what uses the key.")],
    models: Annotated[
        str, typer.Option(help="Comma-separated release names or patterns such as openai/*; * is all.")
    ] = "*",
    expires_days: Annotated[
        float | None, typer.Option(help="Days until it expires; never by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    if expires_days is not None and not 0 < expires_days <= 36_500:
        message = f"--expires-days {expires_days:g}: must be above 0 and at most 36500"
        raise BadInput(message)
    now = utc_now()
    expires_at = now + timedelta(days=expires_days) if expires_days is not None else None
    scope = [model.strip() for model in models.split(",") if model.strip()]
    with open_workspace() as workspace, workspace.writing() as connection:
        key, secret = accounts.create_key(connection, name, models=scope, expires_at=expires_at, now=now)
    show(_plain(key) | {"key": secret}, secret, as_json=as_json)


@application.command("list", epilog="Example: gateway keys list --json")
def list_keys(*, as_json: Json = False) -> None:
    """Every key, revoked and expired ones too."""
    now = utc_now()
    with open_workspace() as workspace, workspace.reading() as connection:
        keys = accounts.list_keys(connection)

    def rows() -> str:
        return table(
            ("ID", "NAME", "KEY", "MODELS", "STATE"),
            [(key.id, key.name, key.prefix + "…", ",".join(key.models), _state(key, now)) for key in keys],
        )

    show({"keys": [_plain(key) | {"state": _state(key, now)} for key in keys]}, rows, as_json=as_json)


@application.command("revoke", epilog="Example: gateway keys revoke key_01jexample")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `gateway keys list` shows it.")],
    *,
    as_json: Json = False,
) -> None:
    """End a key now; a running gateway refuses it within a second."""
    with open_workspace() as workspace, workspace.writing() as connection:
        key = accounts.revoke_key(connection, key_id, now=utc_now())
    show(_plain(key), f"revoked {key.id} ({key.name})", as_json=as_json)


def _state(key: ApiKey, now: Any) -> str:  # noqa: ANN401
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return "expired" if key.expires_at <= now else f"valid until {to_text(key.expires_at)[:10]}"


def _plain(key: ApiKey) -> dict[str, Any]:
    """The key without its hash."""
    values = asdict(key)
    del values["digest"]
    return {
        name: to_text(value) if name.endswith("_at") and value is not None else value
        for name, value in values.items()
    }
