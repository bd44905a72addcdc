"""`gateway limits`: what teams, users, sessions and models may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from gateway.cli.amounts import BudgetUsd, Concurrency, Period, Rpm, Tpm, limits_from, limits_text, spent_text
from registry import limits as rules
from registry import terminal, traffic
from registry.clock import to_text, utc_now
from registry.entities import BudgetPeriod, LimitRule, Limits, Spending, SubjectKind
from registry.errors import BadInput
from registry.terminal import Json, show, table
from registry.workspace import open_workspace

application = terminal.command_group(
    "Limits of teams, users, sessions and models; `gateway keys` has those of keys."
)

RuleKind = Literal["team", "user", "session", "model"]
Team = Annotated[str | None, typer.Option(help="Name of a team; '*' is each other one.")]
User = Annotated[
    str | None, typer.Option(help="End user, as requests name it; '*' is each other one of each key.")
]
Session = Annotated[
    str | None, typer.Option(help="Session, as requests name it; '*' is each other one of each key.")
]
Model = Annotated[
    str | None, typer.Option(help="Release name, or provider/model called directly; '*' is each other one.")
]


@application.command(
    "set", epilog="Example: gateway limits set --user '*' --rpm 30 --budget-usd 1 --budget-period day"
)
def set_limits(
    *,
    team: Team = None,
    user: User = None,
    session: Session = None,
    model: Model = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    budget_usd: BudgetUsd = None,
    budget_period: Period = None,
    as_json: Json = False,
) -> None:
    """Set all limits of one subject, in the place of those it had. Gateways follow within a second."""
    kind, subject = one_subject(team=team, user=user, session=session, model=model)
    limits = limits_from(
        Limits(),
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        budget_usd=budget_usd,
        budget_period=budget_period,
    )
    rule = LimitRule(kind, subject, limits)
    with open_workspace() as workspace, workspace.acting("limits.write") as (connection, who):
        changed = rules.set_rule(connection, rule, actor=who, now=utc_now())
    text = f"{kind} {subject}: {limits_text(limits)}{'' if changed else ' (unchanged)'}"
    show(asdict(rule) | {"changed": changed}, text, as_json=as_json)


@application.command("remove", epilog="Example: gateway limits remove --team web")
def remove(
    *,
    team: Team = None,
    user: User = None,
    session: Session = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Take the limits of one subject away."""
    kind, subject = one_subject(team=team, user=user, session=session, model=model)
    with open_workspace() as workspace, workspace.acting("limits.write") as (connection, who):
        rules.remove_rule(connection, kind, subject, actor=who, now=utc_now())
    show({"kind": kind, "subject": subject}, f"{kind} {subject}: no limits", as_json=as_json)


@application.command("list", epilog="Example: gateway limits list --json")
def list_limits(*, as_json: Json = False) -> None:
    """Every limit, and what its subject spent in the period of its budget."""
    at = to_text(utc_now())
    kinds: tuple[SubjectKind, ...] = ("team", "user", "session", "model")
    with open_workspace() as workspace, workspace.viewing("limits.list") as connection:
        found = rules.list_rules(connection)
        spent = {
            (one.kind, one.subject, one.period): one
            for kind in kinds
            if any(rule.kind == kind for rule in found)
            for one in traffic.spendings(connection, kind, at)
        }
    answer = [asdict(rule) | {"spent": _plain(_spent(rule, spent))} for rule in found]

    def rows() -> str:
        return table(
            ("KIND", "SUBJECT", "LIMITS", "SPENT"),
            [
                (rule.kind, rule.subject, limits_text(rule.limits), _text(_spent(rule, spent)))
                for rule in found
            ],
        )

    show({"limits": answer}, rows, as_json=as_json)


def one_subject(
    *, team: str | None, user: str | None, session: str | None, model: str | None
) -> tuple[RuleKind, str]:
    """
    The only one of the four that is given.

    Raises:
        BadInput: none or more than one is.
    """
    options: tuple[tuple[RuleKind, str | None], ...] = (
        ("team", team), ("user", user), ("session", session), ("model", model),
    )  # fmt: skip
    given = [(kind, subject) for kind, subject in options if subject is not None]
    if len(given) != 1:
        message = "name exactly one of team, user, session and model"
        raise BadInput(message)
    return given[0]


def _spent(
    rule: LimitRule, spent: Mapping[tuple[SubjectKind, str, BudgetPeriod], Spending]
) -> Spending | None:
    """What the subject of *rule* used; None where the rule is for many."""
    if rule.subject == "*":
        return None
    subject = rule.subject
    if rule.kind in ("user", "session"):
        from gateway.dataplane.exchange import pseudonym

        subject = pseudonym(subject)
    period = rule.limits.budget_period
    return spent.get((rule.kind, subject, period)) or Spending(rule.kind, subject, period, "", 0, 0, 0, 0)


def _plain(used: Spending | None) -> dict[str, Any] | None:
    return None if used is None else asdict(used)


def _text(used: Spending | None) -> str:
    return "each its own" if used is None else spent_text(used)
