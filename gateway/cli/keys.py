"""`gateway keys`: make, change, rotate, list and end the virtual keys that clients call with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import typer

from gateway.cli.amounts import (
    BudgetUsd,
    Concurrency,
    Period,
    Rpm,
    Tpm,
    duration,
    limits_from,
    limits_text,
    moment,
    names,
    spent_text,
)
from registry import accounts, terminal, traffic
from registry.clock import to_text, utc_now
from registry.entities import ApiKey, BudgetPeriod, Limits, Spending
from registry.errors import BadInput
from registry.terminal import Json, show, table
from registry.workspace import open_workspace

application = terminal.command_group("Virtual API keys. A key is shown once, when it is made.")

KeyId = Annotated[str, typer.Argument(help="Id of the key, as `gateway keys list` shows it.")]
_MODELS = "Comma-separated release names or patterns such as openai/*; * is all."
_ROUTES = "Comma-separated paths or patterns such as /v1/*; * is all."
_TEAM = "Team whose limits also apply to it."


@application.command(
    "create",
    epilog="Example: gateway keys create --name web --models support,churn --rpm 100 --budget-usd 20",
)
def create(
    *,
    name: Annotated[str, typer.Option(help="Who or what uses the key.")],
    models: Annotated[str, typer.Option(help=_MODELS)] = "*",
    routes: Annotated[str, typer.Option(help=_ROUTES)] = "*",
    team: Annotated[str, typer.Option(help=_TEAM)] = "",
    expires_days: Annotated[
        float | None, typer.Option(help="Days until it expires; never by default.")
    ] = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    budget_usd: BudgetUsd = None,
    budget_period: Period = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    if expires_days is not None and not 0 < expires_days <= 36_500:
        message = f"--expires-days {expires_days:g}: must be above 0 and at most 36500"
        raise BadInput(message)
    now = utc_now()
    limits = limits_from(
        Limits(),
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        budget_usd=budget_usd,
        budget_period=budget_period,
    )
    with open_workspace() as workspace, workspace.acting("apikeys.write") as (connection, who):
        key, secret = accounts.create_key(
            connection,
            name,
            models=names(models),
            routes=names(routes),
            team=team,
            limits=limits,
            expires_at=now + timedelta(days=expires_days) if expires_days is not None else None,
            actor=who,
            now=now,
        )
    show(plain(key) | {"key": secret}, secret, as_json=as_json)


@application.command("update", epilog="Example: gateway keys update key_01jexample --rpm 200 --tpm none")
def update(
    key_id: KeyId,
    *,
    models: Annotated[str | None, typer.Option(help=_MODELS)] = None,
    routes: Annotated[str | None, typer.Option(help=_ROUTES)] = None,
    team: Annotated[str | None, typer.Option(help=f"{_TEAM} Empty for none.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Date or time it expires, or `never`.")
    ] = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    budget_usd: BudgetUsd = None,
    budget_period: Period = None,
    as_json: Json = False,
) -> None:
    """Change what a key may do; what is not named stays. Running gateways follow within a second."""
    now = utc_now()
    expires_at: datetime | Literal["never"] | None = None
    if expires is not None:
        expires_at = "never" if expires == "never" else moment(expires, "--expires")
    with open_workspace() as workspace, workspace.acting("apikeys.write") as (connection, who):
        limits = limits_from(
            accounts.get_key(connection, key_id).limits,
            rpm=rpm,
            tpm=tpm,
            concurrency=concurrency,
            budget_usd=budget_usd,
            budget_period=budget_period,
        )
        key = accounts.update_key(
            connection,
            key_id,
            models=names(models) if models is not None else None,
            routes=names(routes) if routes is not None else None,
            team=team,
            limits=limits,
            expires_at=expires_at,
            actor=who,
            now=now,
        )
    text = f"{key.id} ({key.name}): models {','.join(key.models)}; limits {limits_text(key.limits)}"
    show(plain(key), text, as_json=as_json)


@application.command("rotate", epilog="Example: gateway keys rotate key_01jexample --overlap 24h")
def rotate(
    key_id: KeyId,
    *,
    overlap: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old key still works, such as 30m, 24h or 7d.")
    ] = "24h",
    as_json: Json = False,
) -> None:
    """Make the key that follows and print it, this once; scopes, limits and what was spent are shared."""
    now = utc_now()
    span = duration(overlap, "--overlap")
    with open_workspace() as workspace, workspace.acting("apikeys.write") as (connection, who):
        key, secret = accounts.rotate_key(connection, key_id, overlap=span, actor=who, now=now)
        old = accounts.get_key(connection, key_id)
    show(plain(key) | {"key": secret, "replaces": plain(old)}, secret, as_json=as_json)


@application.command("list", epilog="Example: gateway keys list --json")
def list_keys(*, as_json: Json = False) -> None:
    """Every key, revoked and expired ones too, with its limits and what was spent on it."""
    now = utc_now()
    with open_workspace() as workspace, workspace.viewing("apikeys.list") as connection:
        keys = accounts.list_keys(connection)
        spendings = traffic.spendings(connection, "key", to_text(now))
    spent = {(one.subject, one.period): one for one in spendings}
    found = [(key, _state(key, keys, now), _spent(key, spent)) for key in keys]

    def rows() -> str:
        return table(
            ("ID", "NAME", "KEY", "MODELS", "TEAM", "LIMITS", "SPENT", "STATE"),
            [
                (
                    key.id, key.name, key.prefix + "…", ",".join(key.models), key.team or "-",
                    limits_text(key.limits), spent_text(used), state,
                )
                for key, state, used in found
            ],
        )  # fmt: skip

    answer = [plain(key) | {"state": state, "spent": asdict(used)} for key, state, used in found]
    show({"keys": answer}, rows, as_json=as_json)


@application.command("revoke", epilog="Example: gateway keys revoke key_01jexample")
def revoke(key_id: KeyId, *, as_json: Json = False) -> None:
    """End a key now; a running gateway refuses it within a second."""
    with open_workspace() as workspace, workspace.acting("apikeys.write") as (connection, who):
        key = accounts.revoke_key(connection, key_id, actor=who, now=utc_now())
    show(plain(key), f"revoked {key.id} ({key.name})", as_json=as_json)


def plain(key: ApiKey) -> dict[str, Any]:
    """The key without its hash."""
    values = asdict(key)
    del values["digest"]
    return {
        name: to_text(value) if name.endswith("_at") and value is not None else value
        for name, value in values.items()
    }


def _spent(key: ApiKey, spent: Mapping[tuple[str, BudgetPeriod], Spending]) -> Spending:
    """What the key's account used in the period of its budget."""
    period = key.limits.budget_period
    nothing = Spending("key", key.account, period, "", 0, 0, 0, 0)
    return spent.get((key.account, period), nothing)


def _state(key: ApiKey, keys: Sequence[ApiKey], now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    if key.expires_at <= now:
        return "expired"
    if accounts.successor(key, keys, now) is not None:
        return f"rotating until {to_text(key.expires_at)[:16]}Z"
    return f"valid until {to_text(key.expires_at)[:10]}"
