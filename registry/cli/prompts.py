"""`registry prompts …`: push, pull, compare, render, label, sync and import prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from sqlalchemy import Connection

from registry import imports, labels, promptdiff, prompts, promptsync, verbs
from registry.clock import utc_now
from registry.entities import Version
from registry.errors import BadInput, NotFound
from registry.ids import digest, short
from registry.promptdiff import Side
from registry.promptfile import read_text
from registry.refs import Ref, parse_ref
from registry.templates import parse_values
from registry.terminal import EXIT_FAIL, EXIT_OK, Json, command_group, show, table
from registry.verbs import prompts as verb
from registry.versions import plain
from registry.workspace import open_workspace

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="A variable, name=value; all but text as JSON.")
]
Values = Annotated[
    Path | None,
    typer.Option("--values", help="A JSON file of variables, or - for standard input.", allow_dash=True),
]
Reference = Annotated[str, typer.Argument(help="name, name:3, name@label, name@production or name@sha256:…")]
_EXAMPLES = {
    "push": "registry prompts push prompts/support.md",
    "pull": "registry prompts pull support@staging --output support.md",
    "diff": "registry prompts diff support:2 prompts/support.md --set question=Why?",
    "render": "registry prompts render support --set question=Why?",
    "log": "registry prompts log support",
    "label": "registry prompts label support:3 staging",
    "labels": "registry prompts labels support",
    "sync": "registry prompts sync prompts --dry-run",
    "import": "registry prompts import export.json --from langfuse",
}


def add_to(application: typer.Typer) -> None:
    """Hang the group `prompts` into *application*."""
    group = command_group("Prompts: immutable, numbered, content-addressed.")
    commands: dict[str, Callable[..., None]] = {
        "push": push, "pull": pull, "diff": diff, "render": render, "log": log, "label": label,
        "labels": show_labels, "sync": sync, "import": import_prompts,
    }  # fmt: skip
    for name, command in commands.items():
        group.command(name, epilog=f"Example: {_EXAMPLES[name]}")(command)
    application.add_typer(group, name="prompts")


def push(
    paths: Annotated[
        list[Path], typer.Argument(help="Prompt files, or folders of them.", show_default=False)
    ],
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Store prompt files as versions, all or none; equal content is the same version."""
    files: list[prompts.File] = []
    for path in paths:
        folder = path.is_dir()
        files += promptsync.read_folder(path) if folder else [prompts.read(read_text(path), str(path))]
    prompts.ordered(files)
    alone = len(paths) == 1 and not paths[0].is_dir()
    if dry_run and alone and not files[0].content.partials:
        content = files[0].content
        _pushed([{"name": files[0].name, "digest": digest(plain(content))}], alone, as_json, dry_run=True)
        return
    with verbs.session() as session:
        rows = verb.push(session, files, dry_run=dry_run)
    if alone:
        kept = ("name", "digest") if dry_run else ("name", "number", "digest")
        rows = [{key: row[key] for key in kept} for row in rows]
    _pushed(rows, alone, as_json, dry_run=dry_run)


def pull(
    ref: Annotated[str | None, typer.Argument(help="name, name:3, name@label or name@production.")] = None,
    *,
    output: Annotated[Path | None, typer.Option(help="Write the file here instead of printing it.")] = None,
    everything: Annotated[
        Path | None, typer.Option("--all", help="Write the newest of every prompt here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a prompt back as the very file it was pushed from."""
    if (ref is None) == (everything is None):
        raise BadInput("name one prompt, or a folder with --all DIR")
    with open_workspace() as workspace, workspace.viewing("prompts.pull") as connection:
        refs = [parse_ref(ref)] if ref is not None else [Ref(name) for name in prompts.names(connection)]
        pulled = [prompts.pull(connection, one) for one in refs]
    if everything is not None:
        for one in pulled:
            promptsync.put(everything / f"{one['name']}.md", one["file"])
        rows = [{key: one[key] for key in ("name", "number", "digest", "as_pushed")} for one in pulled]
        text = "\n".join(f"{everything / row['name']}.md  {row['name']}:{row['number']}" for row in rows)
        show({"ok": True, "folder": str(everything), "prompts": rows}, text, as_json=as_json)
        return
    one = pulled[0]
    if output is not None:
        promptsync.put(output, one["file"])
        show({**one, "output": str(output)}, f"{output}  {one['name']}:{one['number']}", as_json=as_json)
    elif as_json:
        show(one, "", as_json=True)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(one["file"].encode())
        sys.stdout.buffer.flush()


def diff(
    a: Annotated[str, typer.Argument(help="A reference or a file.")],
    b: Annotated[
        str | None, typer.Argument(help="Another; by default the version before, or the newest.")
    ] = None,
    *,
    sets: Sets = None,
    values: Values = None,
    as_json: Json = False,
) -> None:
    """Show what changed from A to B, and both rendered; exit code 0 when they are the same, 1 when not."""
    with open_workspace() as workspace, workspace.viewing("prompts.diff") as connection:
        first, second = (a, b) if b is not None else _with_before(connection, a)
        sides = _side(connection, first), _side(connection, second)
    declared = {**sides[0].content.variables, **sides[1].content.variables}
    answer = promptdiff.diff(*sides, _values(declared, sets, values))
    show(answer, lambda: promptdiff.describe(answer), as_json=as_json)
    raise typer.Exit(EXIT_OK if answer["same"] else EXIT_FAIL)


def render(ref: Reference, *, sets: Sets = None, values: Values = None, as_json: Json = False) -> None:
    """Render a prompt; a missing, extra or wrongly typed variable is an error."""
    with verbs.session() as session:
        answer = verb.render(session, ref, lambda declared: _values(declared, sets, values))
    text = "\n\n".join(f"# {message['role']}\n{message['content']}" for message in answer["messages"])
    show(answer, answer.get("text", text), as_json=as_json)


def log(
    name: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many versions.")] = 20,
    before: Annotated[int | None, typer.Option(min=1, help="Only versions below this number.")] = None,
    as_json: Json = False,
) -> None:
    """Who pushed which version when, with its labels and the releases that pin it."""
    with verbs.session() as session:
        answer = verb.log(session, name, limit=limit, before=before)
    rows = [
        (f"{name}:{one['number']}", short(one["digest"]), one["created_at"][:19], one["created_by"],
         " ".join(one["labels"]) or "-", " ".join(map(_release, one["releases"])) or "-")
        for one in answer["versions"]
    ]  # fmt: skip
    headings = ("VERSION", "DIGEST", "CREATED", "BY", "LABELS", "RELEASES")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def label(
    ref: Reference,
    name: Annotated[str, typer.Argument(metavar="LABEL", help="The label to move.")],
    *,
    expected: Annotated[
        int | None, typer.Option(min=0, help="Only if its generation is this; 0: only if it is new.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away instead.")] = False,
    as_json: Json = False,
) -> None:
    """Point a label at a version. `production` and `champion` follow releases and cannot be moved by hand."""
    with verbs.session() as session:
        if remove:
            answer = verb.unlabel(session, ref, name)
        else:
            answer = verb.label(session, ref, name, expected=expected)
    did = "took away" if remove else "label"
    text = f"{did} {answer['name']}@{answer['label']} → {short(answer['digest'])}"
    show(answer, text, as_json=as_json)


def show_labels(
    name: Annotated[str | None, typer.Argument(help="Only those of this prompt.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Where labels point, when they moved and who moved them."""
    with verbs.session() as session:
        answer = verb.list_labels(session, name)
    rows = [
        (f"{one['name']}@{one['label']}", f"{one['name']}:{one['number']}", short(one["digest"]),
         one["generation"], one["moved_at"][:19], one["moved_by"])
        for one in answer["labels"]
    ]  # fmt: skip
    headings = ("LABEL", "VERSION", "DIGEST", "GENERATION", "MOVED", "BY")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def sync(
    folder: Annotated[Path, typer.Argument(help="The folder of prompt files.")],
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Push what is new in a folder, write what is new in the registry; report conflicts (exit code 1)."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    with open_workspace() as workspace:
        if dry_run:
            with workspace.viewing("prompts.pull") as connection:
                steps = promptsync.plan(connection, folder)
        else:
            with workspace.acting("prompts.push") as (connection, who):
                steps = promptsync.plan(connection, folder)
                steps = promptsync.push(connection, steps, actor=who, now=utc_now())
            promptsync.write(folder, steps)
    answer = promptsync.answer(steps, dry_run=dry_run)
    rows = [(one["action"], one["file"], one["name"], one["reason"]) for one in answer["files"]]
    show(answer, lambda: table(("ACTION", "FILE", "PROMPT", "WHY"), rows), as_json=as_json)
    raise typer.Exit(EXIT_OK if answer["ok"] else EXIT_FAIL)


def import_prompts(
    file: Annotated[Path, typer.Argument(help="The exported JSON.")],
    *,
    source: Annotated[str, typer.Option("--from", help="mlflow, langfuse or langsmith.")],
    name: Annotated[str | None, typer.Option(help="What its one prompt is called here.")] = None,
    skip: Annotated[
        bool, typer.Option("--skip-unsupported", help="Import the others where a version cannot be one here.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Read prompts that another tool exported; every version in its order, labels that may be moved too."""
    found = imports.read_file(file, cast("imports.Source", source), name)
    refused = imports.refusals(found)
    if refused and not skip:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise BadInput(f"{file}: {refused[0]}{more}; change it there, or give --skip-unsupported")
    with verbs.session() as session:
        answer = verb.take(session, found, cast("imports.Source", source), dry_run=dry_run)
    rows = [
        (f"{one['source_name']} {version['source']}", *_imported(one["name"], version))
        for one in answer["prompts"]
        for version in one["versions"]
    ]
    headings = (source.upper(), "HERE", "LABELS", "LEFT OUT")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def _pushed(rows: list[dict[str, Any]], alone: bool, as_json: bool, *, dry_run: bool) -> None:  # noqa: FBT001
    """One file answers as itself; several as a list."""
    if alone:
        row = rows[0]
        if dry_run:
            answer = {"ok": True, "dry_run": True, "kind": "prompt", **row}
            text = f"prompt {row['name']} is valid; its digest would be {row['digest']}"
        else:
            answer = {"kind": "prompt", "ok": True, **row}
            text = f"prompt {row['name']}:{row['number']}  {row['digest']}"
        show(answer, text, as_json=as_json)
        return
    lines = [("new" if row["new"] else "same", f"{row['name']}:{row['number']}", row["file"]) for row in rows]
    answer = {"ok": True, "dry_run": dry_run, "kind": "prompt", "versions": rows}
    show(answer, lambda: table(("PUSHED", "VERSION", "FILE"), lines), as_json=as_json)


def _with_before(connection: Connection, a: str) -> tuple[str, str]:
    """What *a* alone is compared with: a version with the one before it, a file with the newest version."""
    if _is_file(a):
        return prompts.read(read_text(Path(a)), a).name, a
    version = labels.resolve(connection, parse_ref(a))
    if version.number == 1:
        raise NotFound(
            f"{version.name}:1 is the first version; name another prompt or a file to compare it with"
        )
    return f"{version.name}:{version.number - 1}", f"{version.name}:{version.number}"


def _side(connection: Connection, said: str) -> Side:
    if _is_file(said):
        content = prompts.pin(connection, prompts.read(read_text(Path(said)), said).content)
        return Side(said, content, prompts.partials_of(connection, content))
    version, content = prompts.get(connection, parse_ref(said))
    return Side(_title(version), content, prompts.partials_of(connection, content))


def _title(version: Version) -> str:
    return f"{version.name}:{version.number}"


def _is_file(said: str) -> bool:
    return said.endswith(".md") or "/" in said


def _values(declared: Mapping[str, str], sets: list[str] | None, path: Path | None) -> dict[str, Any]:
    """Variables of `--values`, then those of `--set`."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
            read = json.loads(text)
        except (OSError, ValueError) as error:
            raise BadInput(f"--values {path}: cannot be read as JSON") from error
        if not isinstance(read, dict):
            raise BadInput(f"--values {path}: expected an object of variables")
        values = read
    return values | parse_values(declared, sets or [])


def _release(entry: Mapping[str, Any]) -> str:
    aliases = ",".join(entry["aliases"])
    return f"{entry['release']}({aliases})" if aliases else str(entry["release"])


def _imported(name: str, version: Mapping[str, Any]) -> tuple[str, str, str]:
    if "refused" in version:
        return "-", "-", f"refused: {version['refused']}"
    left = [f"label {one['label']}" for one in version["labels_left"]]
    return (
        f"{name}:{version['number']}",
        " ".join(version["labels"]) or "-",
        ", ".join([*left, *version["dropped"]]) or "-",
    )
