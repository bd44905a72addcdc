"""`evals datasets from-traces` and `synth`: datasets out of what was recorded, or written by a model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evals import dataset, estimate, settings
from evals.cost import Purse
from evals.curate import steps
from evals.curate.pseudonyms import Pseudonyms, read_key, read_names
from evals.curate.synthetic import TASK, Source, Synthesis
from evals.curate.traces import SUBJECTS, Reading
from evals.dataset import Dataset
from registry import datasets, judges
from registry.clock import utc_now
from registry.entities import Chunker, JudgeContent
from registry.errors import BadInput
from registry.ids import short
from registry.refs import check_name, parse_ref
from registry.terminal import Json, progress, show, table
from registry.workspace import Workspace, open_workspace

FROM_TRACES = (
    "Example: evals datasets from-traces traces.jsonl --name support --where model=gpt-5 --sample 200 "
    "--stratify metadata.language"
)
SYNTH = "Example: evals datasets synth --corpus docs/ --name support-synthetic --n 50 --model openai/gpt-5"
KEY_FILE = "pseudonym.key"
"""In the registry's home, where no other key is named."""
Absent = Literal["make", "draw", "refuse"]
Name = Annotated[str, typer.Option(help="What the registry calls it.", show_default=False)]
Output = Annotated[Path | None, typer.Option(help="Write JSON Lines here instead of the registry.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and store nothing.")]


def from_traces(  # noqa: PLR0913 - the options of a command
    files: Annotated[
        list[Path], typer.Argument(help="JSON Lines, also .gz: completions, OTLP spans or rows.")
    ],
    *,
    name: Name,
    where: Annotated[
        list[str] | None, typer.Option(help="key=value, key!=value or key~regex; repeatable, all must hold.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="A date or RFC 3339 time.")] = None,
    until: Annotated[str | None, typer.Option(help="A date or RFC 3339 time, exclusive.")] = None,
    dedupe: Annotated[
        float, typer.Option(help="Similarity of near-duplicates, 0.5 to 1; 0 keeps all.")
    ] = 0.9,
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise/--as-is", help="Replace what names a person by keyed tokens.")
    ] = True,
    key_file: Annotated[
        Path | None, typer.Option(help="Key of the pseudonyms, made if absent; by default the registry's.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="People to replace: one a line, other names after commas.")
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="Field that names the person, such as metadata.user; repeatable.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Keep so many, the same ones every time.")] = None,
    stratify: Annotated[str, typer.Option(help="Keys that share out the sample, such as model,lang.")] = "",
    seed: Annotated[str, typer.Option(help="Another seed, another sample.")] = "",
    accept_outputs: Annotated[
        bool, typer.Option("--accept-outputs", help="Take recorded answers as right answers.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Under which licence the rows are.")] = "",
    output: Output = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a dataset of recorded calls: filtered, without near-duplicates, sampled, under pseudonyms."""
    check_name(name, "dataset name")
    recipe = steps.Recipe(
        where=tuple(map(steps.condition, where or ())),
        since=steps.moment(since, "since") if since else None,
        until=steps.moment(until, "until") if until else None,
        dedupe=dedupe or None,
        sample=sample,
        stratify=tuple(key.strip() for key in stratify.split(",") if key.strip()),
        seed=seed,
        accept_outputs=accept_outputs,
    )
    reading = Reading(files, tuple(subject) if subject else SUBJECTS)
    with open_workspace(later=True) as workspace:
        pseudonyms, made = None, None
        if pseudonymise:
            pseudonyms, made = open_pseudonyms(
                workspace, key_file, names, absent="draw" if dry_run else "make"
            )
        curated = steps.curate(reading, recipe, pseudonyms)
        found = dataset.build(
            iter(enumerate(curated.rows, 1)),
            name,
            where=f"{name}, row",
            source=curated.source,
            licence=licence,
        )
        report = {"steps": [asdict(step) for step in curated.steps], "source": curated.source}
        lines = table(
            ("STEP", "ROWS", "REMOVED", "DETAILS"),
            [(one.name, one.rows, one.removed, _details(one.details)) for one in curated.steps],
        )
        if made:
            report["key_made"] = str(made)
            lines += f"\nmade the key {made}: keep it; without it the same people get other tokens"
        store(workspace, found, report, lines, output=output, dry_run=dry_run, as_json=as_json)


def synth(
    *,
    corpus: Annotated[Path, typer.Option(help="JSON Lines of id and text, or a folder of .md and .txt.")],
    name: Name,
    n: Annotated[
        int, typer.Option("--n", min=1, max=100_000, help="So many questions, if passages last.")
    ] = 50,
    judge: Annotated[str | None, typer.Option(help="A registered judge whose model writes them.")] = None,
    model: Annotated[str | None, typer.Option(help="Or a model as provider/model.")] = None,
    url: Annotated[str | None, typer.Option("--judge-url", help="OpenAI-compatible server to ask.")] = None,
    key: Annotated[
        str | None, typer.Option("--judge-key", help="Its key; better in the environment.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most dollars to spend.")] = None,
    max_chars: Annotated[int, typer.Option(help="Longest passage, 50 to 20000 characters.")] = 1200,
    seed: Annotated[str, typer.Option(help="Another seed, other passages.")] = "",
    licence: Annotated[str, typer.Option(help="Under which licence the rows are.")] = "",
    output: Output = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a model write questions for passages of a corpus; what the passage does not support is dropped."""
    from rag.chunk import chunk
    from rag.load import load

    check_name(name, "dataset name")
    with open_workspace(later=True) as workspace:
        content = _judge(workspace, judge, model)
        chunks = chunk(load(corpus), Chunker(max_chars=max_chars))
        passages = [Source(one.id, one.document_id, one.embedded_text) for one in chunks]
        if dry_run:
            most = min(n, len(passages))
            answer = {"ok": True, "dry_run": True, "passages": len(passages), "most_questions": most}
            line = f"{len(passages)} passages; {content.model} would be asked for {most} questions or more"
            show(answer, line, as_json=as_json)
            return
        purse = estimate.purse(workspace, max_cost)
        with progress("questions", n) as done:
            made = asyncio.run(_synthesize(workspace, content, (url, key), purse, passages, n, seed, done))
        if not made.rows:
            raise BadInput(f"none of {made.asked} passages gave a usable question: {_details(made.dropped)}")
        source = f"synthetic: written by {content.model} for passages of {corpus.name}, seed {seed!r}"
        found = dataset.build(
            iter(enumerate(made.rows, 1)), name, where=f"{name}, row", source=source, licence=licence
        )
        report = {"asked": made.asked, "dropped": dict(made.dropped), "spent_usd": purse.spent_usd}
        lines = f"{len(made.rows)} questions for {made.asked} passages, ${purse.spent_usd:.4f}"
        lines += f"; dropped: {_details(made.dropped)}" if made.dropped else ""
        store(workspace, found, report, lines, output=output, as_json=as_json)


def store(
    workspace: Workspace,
    found: Dataset,
    report: Mapping[str, Any] | None = None,
    lines: str = "",
    *,
    output: Path | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Push *found*, write it to *output*, or neither; then print it with *report*."""
    answer: dict[str, Any] = {"ok": True, "name": found.name, "rows": len(found.samples)}
    answer |= {"rows_digest": found.digest, **(report or {})}
    if dry_run:
        answer["dry_run"] = True
        last = f"dataset {found.name} would have {len(found.samples)} rows"
    elif output is not None:
        try:
            output.write_bytes(found.rows)
        except OSError as error:
            raise BadInput(f"output {output}: cannot be written: {error.strerror}") from error
        answer["output"] = str(output)
        last = f"{output}: {len(found.samples)} rows"
    else:
        with workspace.acting("datasets.push") as (connection, actor):
            version = datasets.push(
                connection,
                workspace.artifacts,
                found.name,
                found.rows,
                source=found.source,
                licence=found.licence,
                actor=actor,
                now=utc_now(),
            )
        answer |= {"number": version.number, "digest": version.digest}
        last = f"dataset {version.name}:{version.number}  {version.digest}  {len(found.samples)} rows"
    show(answer, f"{lines}\n{last}" if lines else last, as_json=as_json)


def open_pseudonyms(
    workspace: Workspace, key_file: Path | None, names: Path | None, *, absent: Absent
) -> tuple[Pseudonyms, Path | None]:
    """
    The pseudonyms of a key and a list of names, and the key's file if it was made just now.

    Args:
        absent: what to do without a key: make one, draw one that nobody keeps, or refuse.

    Raises:
        BadInput: the key or the names cannot be read, or the key is absent and that is refused.
    """
    path = key_file or workspace.settings.home / KEY_FILE
    people = read_names(names) if names else {}
    if absent == "refuse" and not path.exists():
        raise BadInput(f"key {path}: not there; name the one the traces were read with: --key-file")
    if absent == "draw" and not path.exists():
        return Pseudonyms(os.urandom(32), people), None
    key, made = read_key(path)
    return Pseudonyms(key, people), path if made else None


async def _synthesize(
    workspace: Workspace,
    judge: JudgeContent,
    server: tuple[str | None, str | None],
    purse: Purse,
    passages: Sequence[Source],
    n: int,
    seed: str,
    done: Callable[[int], None],
) -> Synthesis:
    from evals.cache import CACHE_FOLDER, open_cache
    from evals.client import Patience
    from evals.curate.synthetic import synthesize
    from evals.judging.bench import Desk
    from evals.judging.places import place_of
    from evals.upstream import Upstream

    url, key, model = place_of(judge.model, os.environ, *server)
    chosen = settings.evals_settings()
    patience = Patience(chosen.timeout_s, chosen.retries, chosen.ready_timeout_s)
    async with Upstream(url, key, concurrency=chosen.concurrency, patience=patience) as upstream:
        with open_cache(workspace.settings.home / CACHE_FOLDER) as cache:
            desk = Desk(judge, model, upstream, cache, purse)
            return await synthesize(desk.bench(), passages, n, seed=seed, done=done)


def _judge(workspace: Workspace, judge: str | None, model: str | None) -> JudgeContent:
    """What writes the questions. Raises BadInput unless exactly one of both is named."""
    if (judge is None) == (model is None):
        message = "name what writes the questions: either --judge or --model"
        raise BadInput(message)
    if model is not None:
        return JudgeContent(model, TASK)
    with workspace.viewing("versions.show") as connection:
        _, content = judges.get(connection, parse_ref(judge or ""))
    return replace(content, rubric=TASK)


def _details(details: Mapping[str, Any]) -> str:
    shown = {key: _short(value) for key, value in details.items() if value not in ("", [], {})}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else short(str(value))
