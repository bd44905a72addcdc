"""`gateway prices`: what models cost, from which day on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.amounts import moment, usd
from registry import prices, terminal
from registry.clock import to_text, utc_now
from registry.entities import Price
from registry.errors import BadInput, MissingExtra, NotFound
from registry.terminal import Json, show, table
from registry.workspace import open_workspace

application = terminal.command_group(
    "Prices of models, in dollars for a million tokens. None is ever changed afterwards."
)

_TABLE = "model_prices_and_context_window_backup.json"
_MAX_BYTES = 50_000_000
_PICO = Decimal(10**12)
Model = Annotated[
    str, typer.Argument(help="provider/model, or a pattern such as openai/*; the longest that fits wins.")
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Date or time from which it holds; now by default."),
]


@application.command(
    "set",
    epilog="Example: gateway prices set openai/gpt-4o-mini --input 0.15 --output 0.60 --cached-input 0.075",
)
def set_price(
    model: Model,
    *,
    input_usd: Annotated[str, typer.Option("--input", metavar="USD", help="For a million prompt tokens.")],
    output_usd: Annotated[
        str, typer.Option("--output", metavar="USD", help="For a million completion tokens.")
    ],
    cached_usd: Annotated[
        str | None,
        typer.Option(
            "--cached-input",
            metavar="USD",
            help="For a million prompt tokens that the provider read from its cache; as others by default.",
        ),
    ] = None,
    since: From = None,
    as_json: Json = False,
) -> None:
    """Set a price from some moment on. The same price again changes nothing."""
    now = utc_now()
    price = Price(
        model=model,
        effective_from=moment(since, "--from") if since is not None else now,
        input_picousd=prices.picousd(input_usd, "--input"),
        output_picousd=prices.picousd(output_usd, "--output"),
        cached_input_picousd=prices.picousd(cached_usd, "--cached-input") if cached_usd is not None else None,
    )
    with open_workspace() as workspace, workspace.acting("prices.write") as (connection, who):
        in_force = {p.model: p for p in prices.current(prices.list_prices(connection), now)}.get(model)
        if since is None and in_force is not None and same(in_force, price):
            price, changed = in_force, False
        else:
            changed = prices.set_price(connection, price, actor=who, now=now)
    text = f"{model}: {price_text(price)}{'' if changed else ' (unchanged)'}"
    show(plain(price) | {"changed": changed}, text, as_json=as_json)


@application.command("remove", epilog="Example: gateway prices remove openai/gpt-4o-mini")
def remove(model: Model, *, since: From = None, as_json: Json = False) -> None:
    """Let a model have no price of its own from some moment on; what was charged stays."""
    now = utc_now()
    at = moment(since, "--from") if since is not None else now
    with open_workspace() as workspace, workspace.acting("prices.write") as (connection, who):
        if model not in {price.model for price in prices.current(prices.list_prices(connection), at)}:
            raise NotFound(
                f"{model!r} has no price of its own then; `gateway prices list` shows those there are"
            )
        prices.set_price(connection, Price(model, at, 0, 0, withdrawn=True), actor=who, now=now)
    show(
        {"model": model, "effective_from": to_text(at)}, f"{model}: no price from {_day(at)}", as_json=as_json
    )


@application.command("list", epilog="Example: gateway prices list --at 2026-01-31")
def list_prices(
    *,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those in force at this date or time; `now` works."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every price, past and future ones too, or those of one moment."""
    now = utc_now()
    with open_workspace() as workspace, workspace.viewing("prices.list") as connection:
        found = prices.list_prices(connection)
    in_force = prices.current(found, now)
    if at is not None:
        found = prices.current(found, now if at == "now" else moment(at, "--at"))

    def rows() -> str:
        return table(
            ("MODEL", "INPUT", "OUTPUT", "CACHED INPUT", "FROM", "STATE"),
            [(p.model, *_cells(p), _day(p.effective_from), _state(p, in_force, now)) for p in found],
        )

    answer = [plain(price) | {"state": _state(price, in_force, now)} for price in found]
    show({"prices": answer}, rows, as_json=as_json)


@application.command("import", epilog="Example: gateway prices import 'openai/gpt-4o*' --dry-run")
def import_prices(
    patterns: Annotated[list[str], typer.Argument(help="Which models, such as 'openai/gpt-4o*'.")],
    *,
    source: Annotated[
        Path | None,
        typer.Option("--table", help="File in litellm's format; that of the installed litellm by default."),
    ] = None,
    since: From = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the prices and store none.")] = False,
    as_json: Json = False,
) -> None:
    """Take prices over from litellm's table, which has no warranty: check them against your contract."""
    now = utc_now()
    at = moment(since, "--from") if since is not None else now
    path, origin = (source, source.name) if source is not None else _installed()
    found, skipped = _chosen(_read(path), patterns, at)
    if not found and not skipped:
        raise NotFound(f"no model in {path.name} matches {', '.join(patterns)}; names are provider/model")
    changed: list[Price] = []
    with open_workspace() as workspace, workspace.acting("prices.write") as (connection, who):
        in_force = {p.model: p for p in prices.current(prices.list_prices(connection), now)}
        for price in found:
            before = in_force.get(price.model)
            if since is None and before is not None and same(before, price):
                continue
            if dry_run or prices.set_price(connection, price, actor=f"{who}, from {origin}", now=now):
                changed.append(price)
    verb = "would set" if dry_run else "set"
    lines = [f"{verb} {price.model}: {price_text(price)}" for price in changed]
    lines += [f"skipped {model}: {why}" for model, why in skipped.items()]
    lines.append(
        f"{len(changed)} of {len(found)} prices from {origin} {'would be' if dry_run else 'were'} new"
    )
    answer = {"source": origin, "dry_run": dry_run, "prices": [plain(p) for p in changed], "skipped": skipped}
    show(answer, "\n".join(lines), as_json=as_json)


def same(one: Price, other: Price) -> bool:
    """Whether both ask the same for every token."""
    return _amounts(one) == _amounts(other)


def price_text(price: Price) -> str:
    """A price for people."""
    if price.withdrawn:
        return "no price of its own"
    input_usd, output_usd, cached = _cells(price)
    extra = "" if price.cached_input_picousd is None else f", {cached} cached input"
    return f"{input_usd} input, {output_usd} output{extra}, from {_day(price.effective_from)}"


def plain(price: Price) -> dict[str, Any]:
    """A price for machines: exact integers, and dollars as text."""
    cached = price.cached_input_picousd
    return {
        "model": price.model,
        "effective_from": to_text(price.effective_from),
        "input_picousd": price.input_picousd,
        "output_picousd": price.output_picousd,
        "cached_input_picousd": cached,
        "input_usd_per_million": prices.per_million(price.input_picousd),
        "output_usd_per_million": prices.per_million(price.output_picousd),
        "cached_input_usd_per_million": None if cached is None else prices.per_million(cached),
        "withdrawn": price.withdrawn,
    }


def _amounts(price: Price) -> tuple[int, int, int | None, bool]:
    return price.input_picousd, price.output_picousd, price.cached_input_picousd, price.withdrawn


def _cells(price: Price) -> tuple[str, str, str]:
    if price.withdrawn:
        return "-", "-", "-"
    amounts = (price.input_picousd, price.output_picousd, price.cached_input_picousd)
    input_usd, output_usd, cached = ("as input" if n is None else usd(n) for n in amounts)
    return input_usd, output_usd, cached


def _day(at: datetime) -> str:
    return to_text(at)[:10] if to_text(at).endswith("T00:00:00.000000Z") else to_text(at)[:19] + "Z"


def _state(price: Price, in_force: list[Price], now: datetime) -> str:
    if price.withdrawn:
        return "withdrawn"
    if price.effective_from > now:
        return "to come"
    return "in force" if any(price is one for one in in_force) else "past"


def _installed() -> tuple[Path, str]:
    """The table of litellm and its version, found without importing litellm."""
    spec = util.find_spec("litellm")
    path = Path(spec.origin).parent / _TABLE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise MissingExtra(
            "prices are read from litellm's table: pip install 'sluicegate[litellm]', or --table FILE"
        )
    return path, f"litellm {metadata.version('litellm')}"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            message = f"{path}: larger than {_MAX_BYTES} bytes"
            raise BadInput(message)
        content = json.loads(path.read_bytes(), parse_float=Decimal, parse_int=Decimal)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise BadInput(message) from error
    except ValueError as error:
        message = f"{path}: not JSON: {error}"
        raise BadInput(message) from error
    if not isinstance(content, dict):
        message = f"{path}: not an object of models"
        raise BadInput(message)
    return content


def _chosen(
    content: Mapping[str, Any], patterns: list[str], at: datetime
) -> tuple[list[Price], dict[str, str]]:
    """The prices that *patterns* ask for, by model, and why others have none."""
    found: dict[str, Price] = {}
    skipped: dict[str, str] = {}
    for model, _is_its_own, facts in sorted(_models(content), key=lambda one: one[:2]):
        if not any(fnmatchcase(model, pattern) for pattern in patterns):
            continue
        names = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
        amounts = [_picousd(facts.get(name)) for name in names]
        if amounts[0] is None or (amounts[1] is None and facts.get("mode") != "embedding"):
            skipped[model] = "its price for a token is not there, or is finer than can be kept"
            continue
        found[model] = Price(model, at, amounts[0], amounts[1] or 0, amounts[2])
    return list(found.values()), skipped


_PROVIDERS = {"bedrock_converse": "bedrock", "together_ai": "together"}
"""What the table calls a provider → its name here."""


def _models(content: Mapping[str, Any]) -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """`provider/model`, whether the table writes it so, and its facts; it may stand there in both ways."""
    for name, facts in content.items():
        if (
            isinstance(facts, dict)
            and isinstance(facts.get("litellm_provider"), str)
            and name != "sample_spec"
        ):
            named = facts["litellm_provider"]
            provider = _PROVIDERS.get(named, "vertex_ai" if named.startswith("vertex_ai-") else named)
            is_its_own = name.startswith((f"{named}/", f"{provider}/"))
            model = name.partition("/")[2] if is_its_own else name
            yield f"{provider}/{model}", is_its_own, facts


def _picousd(value: object) -> int | None:
    """Dollars for a token as whole pico-USD; None where that is not what *value* is."""
    if (
        not isinstance(value, Decimal)
        or not 0 <= value * _PICO <= 10**10
        or value * _PICO != int(value * _PICO)
    ):
        return None
    return int(value * _PICO)
