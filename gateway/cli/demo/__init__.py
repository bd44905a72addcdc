"""`sluicegate demo`: the whole sentence of the product, on real input, with the commands it runs."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.demo import steps
from gateway.cli.demo.shell import Shell, StepFailed
from gateway.cli.demo.story import Story
from gateway.cli.init import write_template
from registry.errors import Conflict
from registry.terminal import EXIT_FAIL, Json

MARKER = ".sluicegate-demo"
KEPT = ("embeddings", "evals-cache", "mlflow.db", "mlartifacts")
"""What a second demo keeps: caches keyed by content, and MLflow's own history."""


def demo(
    *,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where to put the project; made anew at each run.")
    ] = Path(".demo"),
    model: Annotated[
        str | None,
        typer.Option(help="Model behind the assistant, such as openai/gpt-4o-mini or ollama/llama3.2."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the gateway; 0 takes a free one.")] = 0,
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the checks instead of serving.")] = False,
    as_json: Json = False,
) -> None:
    """
    Build an index, train a model, register a prompt, judge the releases, promote them, ask them.

    Every command it runs is printed first; run them yourself in the same folder.
    """
    started = time.monotonic()
    prepare(folder)
    shell = Shell(folder.resolve(), quiet=as_json)
    story = Story(shell, model or steps.default_model(), port)
    done: list[steps.Step] = []
    try:
        for name, run in steps.STEPS:
            done.append(_run(name, run, story))
            if not done[-1].ok:
                break
        ok = all(step.ok for step in done)
        answer: dict[str, Any] = {
            "ok": ok,
            "steps": [asdict(step) for step in done],
            "releases": story.releases,
            "model": story.model,
            "question": story.question,
            "answer": story.answer,
            "url": story.url,
            "facts": story.facts,
            "seconds": round(time.monotonic() - started, 2),
        }
        if as_json:
            print(json.dumps(answer), flush=True)
        else:
            shell.say(steps.summary(done, answer["seconds"]))
        if ok and not leave:
            _serve(story, shell)
    finally:
        story.stop()
    if not ok:
        raise typer.Exit(EXIT_FAIL)


def prepare(folder: Path) -> None:
    """
    A fresh project in *folder*; of an earlier demo only the caches stay.

    Raises:
        Conflict: the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise Conflict(f"{folder} holds other files; name another folder with --dir")
    home = folder / ".sluicegate"
    for path in home.iterdir() if home.exists() else ():
        if not path.name.startswith(KEPT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    write_template(folder, replace=True)


def _run(name: str, run: steps.Run, story: Story) -> steps.Step:
    began = time.monotonic()
    story.shell.heading(name, (run.__doc__ or "").strip())
    try:
        run(story)
    except StepFailed as error:
        story.shell.say(f"FAILED: {error}")
        return steps.Step(name, ok=False, seconds=round(time.monotonic() - began, 2), error=str(error))
    return steps.Step(name, ok=True, seconds=round(time.monotonic() - began, 2))


def _serve(story: Story, shell: Shell) -> None:
    """Keep the gateway up until Ctrl-C or SIGTERM."""
    shell.say(steps.goodbye(story))
    sys.stdout.flush()
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        story.wait()
    except KeyboardInterrupt:
        shell.say("stopping")
    finally:
        signal.signal(signal.SIGTERM, previous)
