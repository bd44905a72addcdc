"""`python -m tests.bench.gateway`: the speed tables; `collapse`, `workers` and `soak` beside them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import terminal
from tests.bench.gateway import (
    collapse,
    dialects,
    machine,
    options,
    report,
    sdk,
    shadow,
    soak,
    speed,
    workers,
)
from tests.bench.gateway.scenarios import default_scenarios

application = typer.Typer(
    help="Measure the gateway beside nginx, TensorZero, Portkey and LiteLLM on this machine.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    epilog="Example: python -m tests.bench.gateway --only sluicegate,nginx --quick",
)


@application.callback()
def tables(
    context: typer.Context,
    *,
    only: Annotated[
        str,
        typer.Option(
            help="Comma-separated: nginx,sluicegate,sluicegate-compiled,tensorzero,portkey,litellm."
        ),
    ] = "",
    scenarios: Annotated[str, typer.Option(help="Comma-separated, such as plain-16,streams-50,steady.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One short round, for plausibility.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Turns of every contender; 3 by default.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Load of each measurement; 4 by default.")] = None,
    chunk_delay_ms: Annotated[float, typer.Option(help="Pace of each stream; 0: as fast as it goes.")] = 10.0,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    compiled: options.Compiled = None,
    sluicegate_args: options.Serve = "",
    sluicegate_env: options.Env = None,
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """Print the tables of CPU, rate, latency, streams and start; about 12 minutes, 4 with --quick."""
    if context.invoked_subcommand is not None:
        return
    base = speed.Plan(rounds=1, seconds=2, warm_s=5) if quick else speed.Plan()
    plan = speed.Plan(rounds or base.rounds, seconds or base.seconds, base.warm_s)
    found = default_scenarios(chunk_delay_ms)
    if scenarios:
        found = [scenario for scenario in found if scenario.name in scenarios.split(",")]
    own = options.sluicegate_contender(python, sluicegate_args, sluicegate_env)
    facts = machine.facts()
    more = options.compiled_contender(compiled)
    outcome = speed.run(options.chosen(only, own, *more), found, plan, cache)
    _publish(
        report.markdown(outcome, found, facts), report.plain_json(outcome, facts), json_file, markdown_file
    )


@application.command("collapse", epilog="Example: python -m tests.bench.gateway collapse --seconds 8")
def collapse_command(
    *,
    connections: Annotated[str, typer.Option(help="Steps, comma-separated.")] = "16,32,64,128,256,512",
    seconds: Annotated[float, typer.Option(help="Load of each step.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Turns of all steps.")] = 5,
    latency_ms: Annotated[float, typer.Option(help="What the upstream takes for each answer.")] = 0.0,
    pause_s: Annotated[
        float, typer.Option(help="A refused client waits as Retry-After says, at most this long.")
    ] = 1.0,
    only: Annotated[str, typer.Option(help="Comma-separated contenders.")] = "sluicegate",
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    sluicegate_env: options.Env = None,
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """Goodput, refusals and latency from few to many closed-loop clients."""
    own = options.sluicegate_contender(python, sluicegate_args, sluicegate_env)
    steps_of = [int(step) for step in connections.split(",")]
    load = collapse.Load(steps_of, seconds, latency_ms, pause_s, rounds)
    facts = machine.facts()
    steps = collapse.run(options.chosen(only, own), load, cache)
    _publish(
        collapse.markdown(steps, load, facts), collapse.plain_json(steps, facts), json_file, markdown_file
    )


@application.command("workers", epilog="Example: python -m tests.bench.gateway workers --body-bytes 31000")
def workers_command(
    *,
    body_bytes: Annotated[int, typer.Option(help="Size of each request.")] = 31_000,
    seconds: Annotated[float, typer.Option(help="Load of each measurement.")] = 6.0,
    rounds: Annotated[int, typer.Option(help="Turns of one worker and two.")] = 3,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    sluicegate_env: options.Env = None,
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """What two workers give over one."""
    facts = machine.facts()
    found = workers.run(
        workers.Load(body_bytes, seconds, rounds), cache, python.absolute(), sluicegate_args, sluicegate_env
    )
    _publish(workers.markdown(found, facts), workers.plain_json(found, facts), json_file, markdown_file)


@application.command("dialects", epilog="Example: python -m tests.bench.gateway dialects --seconds 3")
def dialects_command(
    *,
    seconds: Annotated[float, typer.Option(help="Load of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Turns of all APIs.")] = 3,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    sluicegate_env: options.Env = None,
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """What `/v1/messages` and `/v1/responses` cost beside chat; exit code 1 above twice."""
    facts = machine.facts()
    load = dialects.Load(seconds, rounds)
    found = dialects.run(load, cache, python.absolute(), sluicegate_args, sluicegate_env)
    _publish(dialects.markdown(found, facts), dialects.plain_json(found, facts), json_file, markdown_file)
    if why := dialects.missed(found):
        print("; ".join(why))
        raise typer.Exit(1)


@application.command("sdk", epilog="Example: python -m tests.bench.gateway sdk --rounds 3")
def sdk_command(
    *,
    seconds: Annotated[float, typer.Option(help="Load of each measurement.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Turns of both ways.")] = 3,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """What providers behind the litellm SDK cost beside the SDK alone; exit code 1 above 1.2 times."""
    facts = machine.facts()
    load = sdk.Load(seconds, rounds)
    found = sdk.run(load, cache, python.absolute(), shlex.split(sluicegate_args))
    _publish(sdk.markdown(found, facts), sdk.plain_json(found, facts), json_file, markdown_file)
    if why := sdk.missed(found):
        print("; ".join(why))
        raise typer.Exit(1)


@application.command("shadow", epilog="Example: python -m tests.bench.gateway shadow --rounds 3")
def shadow_command(
    *,
    seconds: Annotated[float, typer.Option(help="Load of each measurement.")] = 6.0,
    rounds: Annotated[int, typer.Option(help="Turns of all kinds of shadow.")] = 5,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 100.0,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """What a shadow that answers, fails or hangs adds to users' requests; exit code 1 above 1 ms."""
    facts = machine.facts()
    load = shadow.Load(seconds, rounds, rate)
    found = shadow.run(load, cache, python.absolute(), shlex.split(sluicegate_args))
    _publish(shadow.markdown(found, facts), shadow.plain_json(found, facts), json_file, markdown_file)
    if why := shadow.missed(found):
        print("; ".join(why))
        raise typer.Exit(1)


@application.command("soak", epilog="Example: python -m tests.bench.gateway soak --requests 200000")
def soak_command(
    *,
    requests: Annotated[int, typer.Option(help="How many to send.")] = 200_000,
    connections: Annotated[int, typer.Option(help="Clients at once.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the choice of kinds.")] = 1,
    cache: options.Cache = options.DEFAULT_CACHE,
    python: options.Python = options.DEFAULT_PYTHON,
    sluicegate_args: options.Serve = "",
    sluicegate_env: options.Env = None,
    json_file: options.JsonFile = None,
    markdown_file: options.MarkdownFile = None,
) -> None:
    """Memory, descriptors and records over a long mixed run; exit code 1 when something leaked."""
    own = options.sluicegate_contender(python, sluicegate_args, sluicegate_env)
    facts = machine.facts()
    result = soak.run(own, soak.Load(requests, connections, seed), cache)
    _publish(soak.markdown(result, facts), soak.plain_json(result, facts), json_file, markdown_file)
    if soak.faults(result):
        raise typer.Exit(1)


def _publish(text: str, data: dict[str, Any], json_file: Path | None, markdown_file: Path | None) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(data, indent=1))
    if markdown_file is not None:
        markdown_file.write_text(text)
    print(text)


if __name__ == "__main__":
    terminal.run(application)
