"""`gateway engine`: how vLLM runs a model, checked, written as a command or a manifest, or kept alive."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry import terminal
from registry.errors import BadInput
from registry.terminal import Json, show, table

if TYPE_CHECKING:
    from gateway.engines.launch import EngineStatus, Patience
    from gateway.engines.supervisor import Supervisor
    from registry.entities.engines import VLLMEngine

KEY_VARIABLE = "VLLM_API_KEY"
application = terminal.command_group(
    "Run vLLM: check an engine, show its command or manifest, keep it alive."
)
Engine = Annotated[
    str, typer.Argument(help="YAML of an engine, whose keys are vLLM's own, or a release that says serving:.")
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")]


@application.command("check", epilog="Example: gateway engine check engines/qwen3.yaml")
def check(engine: Engine, *, as_json: Json = False) -> None:
    """Refuse what vLLM would refuse after minutes of loading; print what is set."""
    chosen = _read(engine)
    values = {name: value for name, value in asdict(chosen).items() if value not in (None, (), {}, False)}
    answer: dict[str, Any] = {"ok": True, "engine": values, "cautions": list(chosen.cautions())}
    cautions = [f"caution: {caution}" for caution in chosen.cautions()]
    show(
        answer, lambda: "\n".join([table(("KEY", "VALUE"), list(values.items())), *cautions]), as_json=as_json
    )


@application.command("command", epilog="Example: gateway engine command engines/qwen3.yaml --port 8001")
def command(engine: Engine, *, port: Port = 8000, as_json: Json = False) -> None:
    """Print the `vllm serve` that runs it on loopback, and its environment without the key."""
    from gateway.engines import vllm

    argv, environment = vllm.command(_read(engine), port, drain_s=20)
    answer = {"ok": True, "argv": argv, "environment": environment}
    words = [f"{name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    show(answer, " ".join([*words, shlex.join(argv)]), as_json=as_json)


@application.command(
    "manifest",
    epilog="Example: gateway engine manifest engines/qwen3.yaml --name qwen3 --secret qwen3-key "
    "--image vllm/vllm-openai:v0.32.0 | kubectl apply -f -",
)
def manifest(
    engine: Engine,
    *,
    name: Annotated[str, typer.Option(help="Of the Deployment and its Service.")],
    image: Annotated[str, typer.Option(help="With a tag or a digest, not latest.")],
    secret: Annotated[str, typer.Option(help="Secret that holds api-key, and hf-token for gated models.")],
    namespace: Annotated[str | None, typer.Option(help="By default kubectl's.")] = None,
    replicas: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[
        int | None, typer.Option(help="For each pod; by default as many as the engine uses.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1)] = 4,
    memory_gib: Annotated[int, typer.Option(min=1)] = 32,
) -> None:
    """Print a Deployment, a Service and a PodDisruptionBudget; the Secret is yours to make."""
    from gateway.engines import kubernetes
    from gateway.engines.place import Place

    place = Place(
        secret, namespace=namespace, replicas=replicas, cpus=cpus, memory_gib=memory_gib
    )  # fmt: skip
    print(kubernetes.manifest(_read(engine), name, image, place, gpus=gpus), end="")


@application.command(
    "run", epilog="Example: VLLM_API_KEY=… gateway engine run engines/qwen3.yaml --port 8001 --log qwen3.log"
)
def run(
    engine: Engine,
    *,
    port: Port = 8000,
    log: Annotated[Path | None, typer.Option(help="By default <file>.log beside the file.")] = None,
    program: Annotated[str, typer.Option(help="The vllm to run.")] = "vllm",
    start_s: Annotated[float, typer.Option(help="How long it may take to its first token.")] = 900.0,
    as_json: Json = False,
) -> None:
    """
    Keep an engine alive on loopback until Ctrl-C or SIGTERM; each change of its state is a line.

    It answers to the key in VLLM_API_KEY. Exit code 3 when it failed for good.
    """
    from gateway.engines.launch import Patience, local
    from gateway.engines.supervisor import Supervisor

    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        message = f"set {KEY_VARIABLE}: the key that the engine is to want, and the gateway to send"
        raise BadInput(message)
    place = log or Path(engine).with_suffix(".log")
    launch = local(_read(engine), port, log=place, api_key=key, program=program)
    supervisor = Supervisor(launch, Patience(start_s=start_s))
    failed = asyncio.run(_keep(supervisor, Patience(start_s=start_s), as_json=as_json))
    raise typer.Exit(terminal.EXIT_CONFIG if failed else terminal.EXIT_OK)


async def _keep(supervisor: Supervisor, patience: Patience, *, as_json: bool) -> bool:
    """Until a signal comes or it failed for good; whether it failed."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, told.set)
    async with supervisor:
        last: EngineStatus | None = None
        while not told.is_set():
            now = supervisor.status()
            if last is None or (now.state, now.restarts) != (last.state, last.restarts):
                _tell(now, supervisor, as_json=as_json)
                last = now
            if now.state == "failed":
                return True
            try:
                async with asyncio.timeout(min(patience.probe_pause_s, 0.2)):
                    await told.wait()
            except TimeoutError:
                continue
    _tell(supervisor.status(), supervisor, as_json=as_json)
    return False


def _tell(status: EngineStatus, supervisor: Supervisor, *, as_json: bool) -> None:
    told = {"model": supervisor.launch.model, "url": supervisor.launch.url, **asdict(status)}
    reason = f": {status.reason}" if status.reason else ""
    show(told, f"{told['model']} at {told['url']} is {status.state}{reason}", as_json=as_json)
    sys.stdout.flush()


def _read(named: str) -> VLLMEngine:
    """
    The engine in a file, or that of a release.

    Raises:
        BadInput: a malformed engine, or a release that does not say how its model is run.
        BadRef, NotFound: neither a file nor a release.
    """
    from registry import parse, releases
    from registry.entities.engines import VLLMEngine, engine_of_release
    from registry.refs import parse_ref
    from registry.workspace import open_workspace

    path = Path(named)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return parse.read(path, VLLMEngine)
    ref = parse_ref(named)
    with open_workspace() as workspace, workspace.viewing("versions.show") as connection:
        version = releases.resolve(connection, ref)
    engine = engine_of_release(releases.content_of(version))
    if engine is None:
        message = f"release {named}: it does not say how its model is run; add serving: to its file"
        raise BadInput(message)
    return engine
