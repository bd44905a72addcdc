"""Give MLflow what the registry holds. A second export finds our digests there and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry import models, prompts, terminal
from registry.clock import from_text
from registry.entities import Version
from registry.errors import Conflict
from registry.interop import mlflow_models
from registry.interop.mlflow import DIGEST, REF, RUN, Server, connect, experiment_id
from registry.interop.mlflow_parts import Part, Parts, Run, expanded, gather
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities import Metric

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_./ -]")
_MEASURES = ("value", "low", "high", "n", "baseline_value", "gain", "gain_low", "gain_high", "p_value")
_CHANGES = frozenset({"created", "aliased", "updated"})
_TRUST = "sluicegate.signature"


def export(
    workspace: Workspace,
    refs: Sequence[str] | None,
    *,
    uri: str,
    experiment: str = "sluicegate",
    prompt_prefix: str = "",
    dry_run: bool = False,
    token: str | None = None,
) -> dict[str, Any]:
    """
    Export models, prompts and evaluation runs to the MLflow server at *uri*. Idempotent.

    Args:
        refs: as `mlflow_parts.gather`; None exports everything.
        experiment: MLflow experiment of the models and runs; made where there is none.
        prompt_prefix: put before the names of prompts, which MLflow keeps in one list with models.
        dry_run: look, and change nothing.

    Returns:
        `ok` (nothing there was altered behind us), `tracking_uri`, `changed` (how many) and `items`:
        kind, ref, digest, `mlflow` (where it is), aliases, and `outcome`: created, present, aliased (there
        but for an alias), updated (a run whose evidence was withdrawn since), or altered when MLflow's
        text under our digest is no longer ours.

    Raises:
        NotFound, BadInput: as `gather`.
        Conflict: a prompt and a model want one name in MLflow.
        MlflowFailed: the server refused; what was exported before stays, and is found the next time.
        MissingExtra: MLflow is not installed.
    """
    server = connect(uri)
    with workspace.viewing("mlflow.export", token) as connection:
        parts = gather(connection, refs)
    _check_names(parts, prompt_prefix)
    home = experiment_id(server, experiment, create=not dry_run)
    items = []
    with terminal.progress("exporting", len(parts.versions) + len(parts.runs)) as done:
        for part in parts.versions:
            if part.kind == "model":
                items.append(_model(server, workspace, part, home, dry_run=dry_run))
            else:
                items.append(_prompt(server, part, prompt_prefix, dry_run=dry_run))
            done(1)
        for run in parts.runs:
            items.append(_evaluation(server, run, home, dry_run=dry_run))
            done(1)
    return {
        "ok": all(item["outcome"] != "altered" for item in items),
        "dry_run": dry_run,
        "tracking_uri": server.shown,
        "experiment": experiment,
        "changed": sum(item["outcome"] in _CHANGES for item in items),
        "items": items,
    }


def template(content: Mapping[str, Any], partials: Mapping[str, str]) -> str | list[dict[str, str]]:
    """A prompt's content as MLflow keeps it: text, or chat messages; includes are written out."""
    messages = [{**m, "content": expanded(m["content"], partials)} for m in content["messages"]]
    return messages[0]["content"] if content.get("kind") == "text" else messages


def _check_names(parts: Parts, prefix: str) -> None:
    taken = {part.version.name for part in parts.versions if part.kind == "model"}
    for part in parts.versions:
        if part.kind == "prompt" and prefix + part.version.name in taken:
            raise Conflict(
                f"{part.version.name!r} is a model and a prompt, and MLflow keeps both in one list: "
                "give --prompt-prefix, such as --prompt-prefix prompt."
            )


def _model(
    server: Server, workspace: Workspace, part: Part, home: str | None, *, dry_run: bool
) -> dict[str, Any]:
    version = part.version
    content = models.content_of(version)
    number = mlflow_models.found(server, version.name, version.digest)
    outcome = "present" if number else "created"
    if not number and not dry_run:
        assert home is not None  # noqa: S101 - made above unless this is a dry run
        data = workspace.artifacts.get(content.artifact)
        number = mlflow_models.register(server, home, version, content, data)
    moved = _alias(
        number,
        part.aliases,
        lambda: server.client.get_registered_model(version.name).aliases,
        lambda alias, to: server.client.set_registered_model_alias(version.name, alias, to),
        server,
        dry_run=dry_run,
    )
    where = f"models:/{version.name}/{number}" if number else None
    return _item(part, "aliased" if moved and outcome == "present" else outcome, where)


def _prompt(server: Server, part: Part, prefix: str, *, dry_run: bool) -> dict[str, Any]:
    version, name = part.version, prefix + part.version.name
    content = prompts.content_of(version)
    text = template(version.content, part.partials)
    number = mlflow_models.found(server, name, version.digest, prompt=True)
    outcome = "present" if number else "created"
    if number:
        with server.asked(f"prompt {name}"):
            kept = server.client.get_prompt_version(name, number)
        if kept is None or kept.template != text:
            return _item(part, "altered", f"prompts:/{name}/{number}")
    elif not dry_run:
        with server.asked(f"prompt {name}"):
            made = server.client.register_prompt(
                name,
                text,
                commit_message=f"Sluicegate prompt {version.name}:{version.number}",
                tags={DIGEST: version.digest, REF: f"{version.name}:{version.number}"},
                response_format=dict(content.response_schema) if content.response_schema else None,
                model_config={"extra_params": {"tools": list(content.tools)}} if content.tools else None,
            )
        number = str(made.version)
    moved = _alias(
        number,
        part.aliases,
        lambda: server.client.get_registered_model(name).aliases,
        lambda alias, to: server.client.set_prompt_alias(name, alias, int(to)),
        server,
        dry_run=dry_run,
    )
    where = f"prompts:/{name}/{number}" if number else None
    return _item(part, "aliased" if moved and outcome == "present" else outcome, where)


def _alias(
    number: str | None,
    wanted: Sequence[str],
    known: Callable[[], Mapping[str, Any]],
    move: Callable[[str, str], None],
    server: Server,
    *,
    dry_run: bool,
) -> bool:
    """Point MLflow's aliases at version *number* where they do not yet; whether any had to move."""
    if number is None or not wanted:
        return False
    with server.asked(f"aliases {', '.join(wanted)}"):
        there = {alias: str(at) for alias, at in known().items()}
        moving = [alias for alias in wanted if there.get(alias) != number]
        for alias in [] if dry_run else moving:
            move(alias, number)
    return bool(moving)


def _evaluation(server: Server, run: Run, home: str | None, *, dry_run: bool) -> dict[str, Any]:
    client = server.client
    known: Sequence[Any] = []
    with server.asked(f"run {run.id}"):
        if home is not None:
            known = client.search_runs([home], f"tags.`{RUN}` = '{run.id}'", max_results=1)
        if known:
            run_id = known[0].info.run_id
            same = known[0].data.tags.get(_TRUST) == run.trust
            if not same and not dry_run:
                client.set_tag(run_id, _TRUST, run.trust)
            return _run_item(run, "present" if same else "updated", f"runs:/{run_id}")
        if dry_run:
            return _run_item(run, "created", None)
        assert home is not None  # noqa: S101 - made above unless this is a dry run
        predicate = run.statement.get("predicate", {})
        started, ended = (_ms(predicate.get(key)) for key in ("startedOn", "finishedOn"))
        subject = (run.statement.get("subject") or [{}])[0].get("name", "release/?")
        suite = str(predicate.get("suite", {}).get("name", "suite")).removeprefix("suite/")
        made = client.create_run(home, start_time=started, run_name=f"{suite} {subject}"[:250])
        run_id = made.info.run_id
        status = "FAILED"
        try:
            tags, metrics = tags_of(run), _metrics(run, ended or int(made.info.start_time))
            _log(server, run_id, tags, metrics)
            client.log_dict(run_id, dict(run.envelope), "evidence.json")
            client.log_dict(run_id, dict(run.summary), "report.json")
            client.set_tag(run_id, RUN, run.id)  # last: a run without it was cut short, and is made anew
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status, end_time=ended)
    return _run_item(run, "created", f"runs:/{run_id}")


def tags_of(run: Run) -> dict[str, str]:
    """What a run is about: digests, verdict, whether its signature counts, the verdict of each check."""
    predicate = run.statement.get("predicate", {})
    about = {
        "verdict": run.verdict,
        "release": run.release_digest,
        "suite": run.suite_digest,
        "evidence": run.evidence or "",
        "samples": str(predicate.get("samples", "")),
    }
    tags = {f"sluicegate.{key}": value for key, value in about.items() if value} | {_TRUST: run.trust}
    checks = {f"check.{key}": str(check.get("verdict", "")) for key, check in checks_of(run).items()}
    return tags | {key: value for key, value in checks.items() if value}


def checks_of(run: Run) -> dict[str, Mapping[str, Any]]:
    """Each check of the signed statement under a name that MLflow takes as a key, unique in the run."""
    found: dict[str, Mapping[str, Any]] = {}
    predicate = run.statement.get("predicate", {})
    for check in predicate.get("claims", predicate.get("checks", ())):  # the older name
        named = _NOT_IN_KEYS.sub("_", str(check.get("name") or check.get("metric") or "check"))[:200]
        key, again = named, 1
        while key in found:
            again += 1
            key = f"{named}_{again}"
        found[key] = check
    return found


def _metrics(run: Run, at_ms: int) -> list[Metric]:
    """Value, interval and gain of each check; `<check>` is the value, `<check>.low` its lower bound."""
    from mlflow.entities import Metric

    metrics = []
    for key, check in checks_of(run).items():
        for measure in _MEASURES:
            value = check.get(measure)
            if isinstance(value, int | float) and not isinstance(value, bool):
                name = key if measure == "value" else f"{key}.{measure}"
                metrics.append(Metric(name, float(value), at_ms, 0))
    return metrics


def _log(server: Server, run_id: str, tags: Mapping[str, str], metrics: list[Metric]) -> None:
    from mlflow.entities import RunTag

    kept = [RunTag(key, value) for key, value in tags.items()]
    for start in range(0, max(len(kept), len(metrics)), 100):
        part = slice(start, start + 100)  # as many as MLflow takes in one call
        server.client.log_batch(run_id, metrics=metrics[part], tags=kept[part])


def _ms(text: object) -> int | None:
    return int(from_text(text).timestamp() * 1000) if isinstance(text, str) else None


def _item(part: Part, outcome: str, where: str | None) -> dict[str, Any]:
    version: Version = part.version
    return {
        "kind": part.kind,
        "ref": f"{version.name}:{version.number}",
        "digest": version.digest,
        "outcome": outcome,
        "mlflow": where,
        "aliases": list(part.aliases),
    }


def _run_item(run: Run, outcome: str, where: str | None) -> dict[str, Any]:
    return {
        "kind": "run",
        "ref": run.id,
        "digest": run.evidence,
        "outcome": outcome,
        "mlflow": where,
        "aliases": [],
    }
