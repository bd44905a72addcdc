"""`registry split …`: canaries, A/B tests and shadows on an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from registry import verbs
from registry.errors import BadInput
from registry.ids import short
from registry.terminal import Json, command_group, show, table
from registry.verbs import splits

Where = Annotated[str, typer.Argument(help="The alias, such as support@production; a name alone is that.")]


def add_to(application: typer.Typer) -> None:
    """Hang the group `split` into *application*."""
    group = command_group("Canaries, A/B tests and shadows: releases that share an alias's traffic.")
    group.command("set", epilog="Example: registry split set support --arm candidate=10")(set_split)
    group.command("show", epilog="Example: registry split show support --json")(show_splits)
    group.command("end", epilog="Example: registry split end support --reason 'canary is slow'")(end_split)
    application.add_typer(group, name="split")


def set_split(
    where: Where,
    *,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="RELEASE=PERCENT, such as candidate=10, :4=25 or support@champion=0.5; may repeat."
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(help="RELEASE or RELEASE=PERCENT: is asked too and answers nobody."),
    ] = None,
    shadow_usd_per_day: Annotated[
        float | None, typer.Option(min=0.000001, help="What the shadow may spend on a day of UTC.")
    ] = None,
    sticky: Annotated[
        str, typer.Option(help="What stays with its arm: user, session, key or request.")
    ] = "user",
    reason: Annotated[str, typer.Option(help="Why; kept in the audit chain.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Share an alias's traffic; each arm needs what a promotion needs, else it is refused (exit code 1)."""
    arms: dict[str, str] = {}
    for one in arm or ():
        ref, equals, share = one.rpartition("=")
        if not equals or ref in arms:
            raise BadInput(f"--arm {one!r}: is not RELEASE=PERCENT, each release once")
        arms[ref] = share
    mirrored, equals, share = (shadow or "").rpartition("=")
    with verbs.session() as session:
        answer = splits.put(
            session,
            where,
            arms=arms,
            shadow=None if shadow is None else (mirrored if equals else share),
            shadow_percent=share if equals else 100,
            shadow_usd_per_day=shadow_usd_per_day,
            sticky=sticky,
            reason=reason,
            dry_run=dry_run,
        )
    show(answer, lambda: _told([answer]) + ("\n(dry run)" if dry_run else ""), as_json=as_json)


def show_splits(
    name: Annotated[str | None, typer.Argument(help="Only those of this release.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Who answers whose traffic now."""
    with verbs.session() as session:
        answer = splits.listing(session, name)
    text = "no traffic is split; `registry split set --help`"
    show(answer, lambda: _told(answer["splits"]) if answer["splits"] else text, as_json=as_json)


def end_split(
    where: Where,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit chain.")] = "",
    as_json: Json = False,
) -> None:
    """Give all traffic back to the alias's own release."""
    with verbs.session() as session:
        answer = splits.end(session, where, reason=reason)
    target = f"{answer['name']}@{answer['alias']}"
    text = f"{target} answers alone again" if answer["ended"] else f"{target} was not split"
    show(answer, text, as_json=as_json)


def _told(found: list[Mapping[str, Any]] | list[dict[str, Any]]) -> str:
    rows = []
    for split in found:
        target = f"{split['name']}@{split['alias']}"
        rows += [
            (target, arm["name"], f"{arm['percent']:g} %", short(arm["digest"]), split["sticky"], "")
            for arm in split["arms"]
        ]
        shadow = split["shadow"]
        if shadow is not None:
            cap = shadow["usd_per_day"]
            bound = "any amount" if cap is None else f"{cap:g} USD a day"
            rows.append((target, "(shadow)", f"{shadow['percent']:g} %", short(shadow["digest"]), "", bound))
    return table(("ALIAS", "ARM", "SHARE", "DIGEST", "STICKY BY", "SPENDS"), rows)
