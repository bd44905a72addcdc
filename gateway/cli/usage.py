"""`gateway usage`: what was used, by whom and for how much."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from gateway.cli.amounts import duration, moment
from registry import accounts, traffic
from registry.clock import to_text, utc_now
from registry.prices import dollars
from registry.terminal import Json, show, table
from registry.workspace import open_workspace

By = Literal["key", "team", "model", "release", "day"]
_SUMS = (
    "requests",
    "failed",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_microusd",
    "unpriced",
)


def usage(
    *,
    by: Annotated[By, typer.Option(help="What to sum up by.")] = "key",
    since: Annotated[
        str, typer.Option(metavar="SPAN|TIME", help="Time span before now such as 7d, or a date or time.")
    ] = "30d",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Date or time before which; now by default.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Only this key, by its id, and those it was rotated from and to.")
    ] = None,
    team: Annotated[str | None, typer.Option(help="Only this team.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this provider/model.")] = None,
    release: Annotated[str | None, typer.Option(help="Only this release.")] = None,
    as_json: Json = False,
) -> None:
    """Requests, tokens and money of finished requests; those of the last seconds may still be under way."""
    now = utc_now()
    start = now - duration(since, "--since") if since[-1:] in "smhdw" else moment(since, "--since")
    end = moment(until, "--until") if until is not None else None
    chosen = {"team": team, "model": model, "release": release}
    only = {name: value for name, value in chosen.items() if value is not None}
    with open_workspace() as workspace, workspace.viewing("usage.list") as connection:
        names = {one.account: one.name for one in accounts.list_keys(connection)}
        if key is not None:
            only["key"] = accounts.get_key(connection, key).account
        rows = traffic.usage(connection, by=by, since=start, until=end, only=only)
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in _SUMS}
    if by == "key":
        rows = [{**row, "name": names.get(row["key"], "")} for row in rows]
    answer = {
        "by": by, "since": to_text(start), "until": to_text(end) if end else None, "only": only,
        "groups": rows, "total": total,
    }  # fmt: skip
    show(answer, lambda: _table(by, rows, total), as_json=as_json)


def _table(by: By, rows: list[dict[str, Any]], total: dict[str, Any]) -> str:
    lines = [(_label(by, row), *_cells(row)) for row in rows]
    headings = (by.upper(), "REQUESTS", "FAILED", "PROMPT", "CACHED", "COMPLETION", "USD", "UNPRICED")
    return table(headings, [*lines, ("total", *_cells(total))])


def _cells(row: dict[str, Any]) -> list[object]:
    return [dollars(row[name]) if name == "cost_microusd" else row[name] for name in _SUMS]


def _label(by: By, row: dict[str, Any]) -> str:
    value = str(row[by]) or "-"
    return f"{value} ({row['name']})" if row.get("name") else value
