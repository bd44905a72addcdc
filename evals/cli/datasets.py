"""`evals datasets`: make, look at, compare and check the sets that releases are judged on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from evals import dataset
from evals.cli import curating
from evals.curate import sources
from evals.curate.leakage import leaks
from evals.curate.steps import person, without
from evals.dataset import Dataset
from registry import datasets, verbs
from registry.clock import utc_now
from registry.entities import Version
from registry.errors import BadInput
from registry.ids import short
from registry.refs import check_name, parse_ref
from registry.terminal import EXIT_FAIL, EXIT_OK, Json, command_group, show, table
from registry.verbs import versions
from registry.workspace import Workspace, open_workspace

_SHOWN = 20
"""Most ids that are printed for people; --json has all."""
Place = Annotated[
    str, typer.Argument(help="A file, or a registered dataset such as name:3.", show_default=False)
]


def add_to(application: typer.Typer) -> None:
    """Hang the group `datasets` into *application*."""
    group = command_group("The sets that releases are judged on: make, push, look at, compare, check, erase.")
    group.command("push", epilog="Example: evals datasets push questions.jsonl --name support")(push)
    group.command("list", epilog="Example: evals datasets list --json")(listing)
    group.command("show", epilog="Example: evals datasets show support:2 --rows 5")(show_one)
    group.command("diff", epilog="Example: evals datasets diff support:1 support:2")(diff)
    group.command(
        "leakage",
        epilog="Example: evals datasets leakage support --against train.csv --prompt prompts/support.md   "
        "Exit codes: 0 no leak above --max-share, 1 leaks, 3 wrong input.",
    )(leakage)
    group.command("erase", epilog="Example: evals datasets erase support --person ann@example.org")(erase)
    group.command("from-traces", epilog=curating.FROM_TRACES)(curating.from_traces)
    group.command("synth", epilog=curating.SYNTH)(curating.synth)
    application.add_typer(group, name="datasets")


def push(
    file: Annotated[Path, typer.Argument(help=".jsonl, .csv or .parquet.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="What the registry calls it.", show_default=False)],
    source: Annotated[str, typer.Option(help="Where the rows are from.")] = "",
    licence: Annotated[str, typer.Option(help="Under which licence they are, as an SPDX id.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and store nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Store a file as an immutable version; equal rows are the same version."""
    found = dataset.read(file, check_name(name, "dataset name"), source=source, licence=licence)
    with open_workspace(later=True) as workspace:
        curating.store(workspace, found, dry_run=dry_run, as_json=as_json)


def listing(
    name: Annotated[str | None, typer.Argument(help="Only versions of this name.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """List registered datasets, newest first."""
    with verbs.session() as session:
        answer = versions.listing(session, "dataset", name, limit=limit)
    rows = [
        (f"{one['name']}:{one['number']}", short(one["digest"]), one["created_at"][:19], one["created_by"])
        for one in answer["versions"]
    ]
    show(answer, lambda: table(("VERSION", "DIGEST", "CREATED", "BY"), rows), as_json=as_json)


def show_one(
    place: Place,
    *,
    rows: Annotated[int, typer.Option(min=0, max=10_000, help="Print so many rows too.")] = 0,
    as_json: Json = False,
) -> None:
    """Print what a dataset holds, where it is from, and some of its rows in the order of the file."""
    with open_workspace(later=True) as workspace:
        found = sources.open_dataset(workspace, place)
    all_rows = sources.rows_of(found)
    columns: dict[str, int] = {}
    for row in all_rows:
        for column in row:
            columns[column] = columns.get(column, 0) + 1
    answer = {
        "ok": True,
        "name": found.name,
        "number": found.version.number if found.version else None,
        "rows_digest": found.digest,
        "rows": len(all_rows),
        "columns": dict(sorted(columns.items())),
        "synthetic": sum(row.get("synthetic") is True for row in all_rows),
        "source": found.source,
        "licence": found.licence,
        "first": all_rows[:rows],
    }
    show(answer, lambda: _described(answer), as_json=as_json)


def diff(a: Place, b: Place, *, as_json: Json = False) -> None:
    """Show which rows were added, removed and changed from A to B; 0 when none, 1 when some."""
    with open_workspace(later=True) as workspace:
        before, after = (
            {str(row["id"]): row for row in sources.rows_of(sources.open_dataset(workspace, place))}
            for place in (a, b)
        )
    changed = [
        {"id": name, "fields": _differing(before[name], row)}
        for name, row in after.items()
        if name in before and before[name] != row
    ]
    answer = {
        "ok": True,
        "same": before == after,
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "changed": changed,
    }
    show(answer, lambda: _compared(answer, a, b), as_json=as_json)
    raise typer.Exit(EXIT_OK if answer["same"] else EXIT_FAIL)


def leakage(
    place: Place,
    *,
    against: Annotated[
        list[str] | None, typer.Option(help="Training data: a file or a registered dataset; repeatable.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt with examples: a file or a name; repeatable.")
    ] = None,
    max_share: Annotated[float, typer.Option(min=0, max=1, help="Share of rows that may leak.")] = 0.0,
    near: Annotated[float, typer.Option(help="Similarity that counts as the same, 0.5 to 1.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Find rows that training data or prompts hold, word for word or nearly; 1 when there are too many."""
    if not against and not prompt:
        message = "name what the rows may have leaked into: --against, --prompt or both"
        raise BadInput(message)
    with open_workspace(later=True) as workspace:
        found = sources.open_dataset(workspace, place)
        texts = chain(
            sources.training_texts(workspace, against or ()), sources.prompt_texts(workspace, prompt or ())
        )
        leaked = leaks(found.samples, texts, near=near)
    share = len(leaked) / len(found.samples)
    passed = share <= max_share
    answer = {
        "ok": passed,
        "rows": len(found.samples),
        "leaked": len(leaked),
        "share": share,
        "max_share": max_share,
        "leaks": [asdict(leak) for leak in sorted(leaked, key=lambda leak: leak.id)],
    }
    show(answer, lambda: _leaked(answer), as_json=as_json)
    raise typer.Exit(EXIT_OK if passed else EXIT_FAIL)


def erase(
    name: Annotated[str, typer.Argument(help="A registered dataset, such as name:3.", show_default=False)],
    *,
    trace: Annotated[list[str] | None, typer.Option(help="Id of a trace or row; repeatable.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="A token such as [email:…]; repeatable.")] = None,
    who: Annotated[
        list[str] | None, typer.Option("--person", help="As she is named in traces; needs the key.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The key of the pseudonyms; by default the registry's.")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="The list of names the traces were read with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows and store nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a new version without the rows of some traces or people; the versions before it stay."""
    if not (trace or subject or who):
        message = "name what to erase: --trace, --subject or --person"
        raise BadInput(message)
    with open_workspace() as workspace:
        found = sources.open_dataset(workspace, str(parse_ref(name)))
        tokens = list(subject or ())
        if who:
            pseudonyms = curating.open_pseudonyms(workspace, key_file, names, absent="refuse")[0]
            tokens += [token for one in who for token in (person(pseudonyms, one), pseudonyms.subject(one))]
        left, taken = without(sources.rows_of(found), traces=trace or (), tokens=list(dict.fromkeys(tokens)))
        removed = len(found.samples) - len(left)
        if not left:
            raise BadInput(f"dataset {found.name}: no row would be left; a dataset has at least one")
        kept = found.version
        if removed and not dry_run:
            kept = _stored(workspace, found, left, f"{removed} rows erased")
    assert kept is not None  # noqa: S101 - it came from the registry
    answer = {
        "ok": True,
        "dry_run": dry_run,
        "name": kept.name,
        "number": kept.number,
        "digest": kept.digest,
        "rows": len(left),
        "removed": removed,
        "taken": taken,
    }
    show(answer, lambda: _erased(answer), as_json=as_json)


def _stored(workspace: Workspace, found: Dataset, rows: Sequence[Mapping[str, Any]], note: str) -> Version:
    source = f"{found.source}; {note}" if found.source else note
    made = dataset.build(iter(enumerate(rows, 1)), found.name, where=found.name)
    with workspace.acting("datasets.push") as (connection, actor):
        return datasets.push(
            connection,
            workspace.artifacts,
            found.name,
            made.rows,
            source=source,
            licence=found.licence,
            actor=actor,
            now=utc_now(),
        )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in a.keys() | b.keys() if key not in a or key not in b or a[key] != b[key])


def _described(answer: Mapping[str, Any]) -> str:
    title = f"{answer['name']}:{answer['number']}" if answer["number"] else answer["name"]
    lines = [f"{title}  {answer['rows']} rows  {answer['rows_digest']}"]
    lines += [f"{field}: {answer[field]}" for field in ("source", "licence") if answer[field]]
    lines += [f"synthetic: {answer['synthetic']} rows"] if answer["synthetic"] else []
    lines.append(table(("COLUMN", "ROWS"), list(answer["columns"].items())))
    return "\n".join([*lines, *(json.dumps(row, ensure_ascii=False) for row in answer["first"])])


def _compared(answer: Mapping[str, Any], a: str, b: str) -> str:
    if answer["same"]:
        return f"{a} and {b} hold the same rows"
    rows = [("added", name, "") for name in answer["added"]]
    rows += [("removed", name, "") for name in answer["removed"]]
    rows += [("changed", one["id"], ", ".join(one["fields"])) for one in answer["changed"]]
    counted = ", ".join(f"{len(answer[key])} {key}" for key in ("added", "removed", "changed"))
    return f"{counted}\n{table(('WHAT', 'ID', 'FIELDS'), rows[:_SHOWN])}{_more(len(rows))}"


def _leaked(answer: Mapping[str, Any]) -> str:
    head = (
        f"{answer['leaked']} of {answer['rows']} rows leaked ({answer['share']:.1%}, "
        f"at most {answer['max_share']:.1%} may)"
    )
    if not answer["leaks"]:
        return head
    rows = [
        (one["id"], one["kind"], f"{one['share']:.2f}", one["places"], one["where"])
        for one in answer["leaks"][:_SHOWN]
    ]
    return f"{head}\n{table(('ID', 'KIND', 'SHARE', 'PLACES', 'FIRST'), rows)}{_more(len(answer['leaks']))}"


def _erased(answer: Mapping[str, Any]) -> str:
    title = f"{answer['name']}:{answer['number']}"
    if not answer["removed"]:
        return f"{title} has no such row; nothing was changed"
    if answer["dry_run"]:
        return f"{answer['removed']} rows of {title} would go, {answer['rows']} stay"
    return (
        f"dataset {title} has {answer['rows']} rows, {answer['removed']} fewer; earlier versions are "
        "immutable and still hold them"
    )


def _more(count: int) -> str:
    return f"\n… and {count - _SHOWN} more: --json" if count > _SHOWN else ""
