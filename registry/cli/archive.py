"""`registry releases export|verify|import` and `registry gc|backup|restore`: what leaves and what stays."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import archive, backup, collect, pack, terminal, unpack
from registry.bundle import MOST_BYTES
from registry.clock import utc_now
from registry.ids import short
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.workspace import open_workspace

_GB = 10**9
DryRun = Annotated[bool, typer.Option("--dry-run", help="Look, and change nothing.")]
MostGb = Annotated[float, typer.Option("--max-gb", min=0.001, help="Refuse a larger file (gigabytes).")]
File = Annotated[Path, typer.Argument(help="The tar file.", show_default=False)]


def add_to(application: typer.Typer) -> None:
    """Hang the commands into *application* and into its group `releases`."""
    groups = {group.name: group.typer_instance for group in application.registered_groups}
    group = groups.get("releases")
    if group is None:
        group = command_group("Releases: the pinned parts of what runs.")
        application.add_typer(group, name="releases")
    group.command("export", epilog="Example: registry releases export support@production -o support.tar")(
        export
    )
    group.command("verify", epilog="Example: registry releases verify support.tar --key evidence.pub.pem")(
        verify
    )
    group.command("import", epilog="Example: registry releases import support.tar --dry-run")(take)
    application.command("gc", epilog="Example: registry gc --dry-run --keep-days 90")(collect_garbage)
    application.command("backup", epilog="Example: registry backup registry.tar --json")(back_up)
    application.command("restore", epilog="Example: registry restore registry.tar")(restore)


def export(
    ref: Annotated[str, typer.Argument(help="The release, such as support@production.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The tar file to write.")],
    as_json: Json = False,
) -> None:
    """Write a release, all it pins, its evidence and the keys that signed it into one file."""
    with open_workspace() as workspace:
        reading = partial(workspace.viewing, "releases.export")
        answer = pack.export(reading, workspace.artifacts, ref, output, bar=terminal.progress)
    text = (
        f"{answer['release']} {short(answer['digest'])} → {output}: {answer['members']} members, "
        f"{answer['evidence']} evidence, {_size(answer['bytes'])}"
    )
    show(answer, text, as_json=as_json)


def verify(
    file: File,
    *,
    key: Annotated[
        list[Path] | None, typer.Option(help="A public key in PEM whose signatures count; repeatable.")
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option(help="Id of a key in the file that counts; repeatable.")
    ] = None,
    max_gb: MostGb = MOST_BYTES / _GB,
    as_json: Json = False,
) -> None:
    """Check a release file offline: its bytes, and who signed (exit code 1 if no key that counts)."""
    answer = archive.verify(
        file,
        keys=key or (),
        trust=trust or (),
        now=utc_now(),
        most_bytes=round(max_gb * _GB),
        bar=terminal.progress,
    )
    show(answer, lambda: _verified(answer), as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)


def take(
    file: File,
    *,
    dry_run: DryRun = False,
    candidate: Annotated[bool, typer.Option("--candidate", help="Point candidate at it.")] = False,
    gates: Annotated[
        bool, typer.Option("--gates", help="Enter its gate policies too; takes the role for gates.push.")
    ] = False,
    max_gb: MostGb = MOST_BYTES / _GB,
    as_json: Json = False,
) -> None:
    """Enter a release from a file that another registry exported; keys in it are never trusted by that."""
    with open_workspace() as workspace:
        verb = "gates.push" if gates else "releases.import"
        answer = unpack.take(
            partial(workspace.viewing, verb),
            partial(workspace.acting, verb),
            workspace.artifacts,
            file,
            now=utc_now(),
            dry_run=dry_run,
            candidate=candidate,
            gates=gates,
            most_bytes=round(max_gb * _GB),
            bar=terminal.progress,
        )
    show(answer, lambda: _taken(answer), as_json=as_json)


def collect_garbage(
    *,
    dry_run: DryRun = False,
    keep_days: Annotated[int, typer.Option(min=0, help="Versions that came this lately stay.")] = 30,
    keep_newest: Annotated[int, typer.Option(min=1, help="As do this many of each name.")] = 5,
    as_json: Json = False,
) -> None:
    """Remove versions that nothing reaches any more, and blobs that no version names."""
    with open_workspace() as workspace:
        answer = collect.collect(
            partial(workspace.viewing, "registry.collect"),
            partial(workspace.acting, "registry.collect"),
            workspace.artifacts,
            now=utc_now(),
            keep_days=keep_days,
            keep_newest=keep_newest,
            dry_run=dry_run,
            bar=terminal.progress,
        )
    show(answer, lambda: _collected(answer), as_json=as_json)


def back_up(file: File, *, as_json: Json = False) -> None:
    """Write the whole registry, as it is at one moment, into one file. Private keys are not in it."""
    with open_workspace() as workspace:
        reading = partial(workspace.viewing, "registry.backup")
        answer = backup.backup(reading, workspace.artifacts, file, now=utc_now(), bar=terminal.progress)
        keys = workspace.settings.signing_key.parent
    rows = sum(answer["rows"].values())
    text = (
        f"{file}: {rows} rows, {answer['blobs']} blobs, {_size(answer['bytes'])}\n"
        f"keep it as safe as the database; the private keys in {keys} are not in it"
    )
    show(answer, text, as_json=as_json)


def restore(file: File, *, as_json: Json = False) -> None:
    """Fill an empty registry from a backup, on SQLite or PostgreSQL, whichever it came from."""
    with open_workspace() as workspace:
        verb = "registry.restore"
        answer = backup.restore(
            partial(workspace.viewing, verb),
            partial(workspace.acting, verb),
            workspace.artifacts,
            file,
            now=utc_now(),
            bar=terminal.progress,
        )
    rows = sum(answer["rows"].values())
    text = f"restored {rows} rows and {answer['blobs']} blobs as of {answer['at'][:19]}"
    if answer["lost_after"] is not None:
        text += (
            f"\nthis machine knows of audit records after {answer['lost_after']} that the backup lacks; "
            "nothing more is written until `registry audit anchor --accept --reason …`"
        )
    show(answer, text, as_json=as_json)


def _verified(answer: dict[str, Any]) -> str:
    held = f"{len(answer['versions'])} versions, {answer['blobs']} blobs, {_size(answer['bytes'])}"
    lines = [f"release {answer['release']} {answer['digest']}: {held}: every digest holds"]
    rows = [
        (
            short(item["digest"]), item["suite"], item["verdict"], item["samples"], item["valid_until"][:19],
            "trusted" if item["trusted"] else "not trusted", " ".join(item["signers"]) or "unknown key",
        )
        for item in answer["evidence"]
    ]  # fmt: skip
    if rows:
        lines.append(table(("EVIDENCE", "SUITE", "VERDICT", "N", "VALID UNTIL", "KEY", "SIGNED BY"), rows))
    lines += [f"not in the file: {m['kind']} {m['name']} {m['digest']}" for m in answer["missing"]]
    if not answer["checked_against"]:
        lines.append("no key was named, so who signed is not judged: --key PUBLIC.pem or --trust KEYID")
    elif not answer["ok"]:
        lines.append("no evidence in it is signed by a key that counts")
    return "\n".join(lines)


def _taken(answer: dict[str, Any]) -> str:
    rows = [(v["kind"], f"{v['name']}:{v['number']}", short(v["digest"]), v["outcome"])
            for v in answer["versions"]]  # fmt: skip
    verb = "would enter" if answer["dry_run"] else "entered"
    lines = [
        table(("KIND", "VERSION", "DIGEST", "OUTCOME"), rows),
        f"{verb} {answer['release']}@{answer['digest']} with {answer['evidence']} new evidence",
    ]
    untrusted = [key["id"] for key in answer["keys"] if not key["trusted"]]
    lines += [
        f"not trusted here: {key}; see `registry keys trust` for its evidence to count" for key in untrusted
    ]
    if any(version["outcome"] == "left out" for version in answer["versions"]):
        lines.append("its gate policy is not in force here; an admin enters it with --gates")
    return "\n".join(lines)


def _collected(answer: dict[str, Any]) -> str:
    rows = [("version", f"{v['kind']} {v['name']}:{v['number']}", v["bytes"]) for v in answer["versions"]]
    rows += [("blob", blob["digest"], blob["bytes"]) for blob in answer["blobs"]]
    verb = "would remove" if answer["dry_run"] else "removed"
    counts = f"{answer['version_count']} versions and {answer['blob_count']} blobs"
    end = f"{verb} {counts}, {_size(answer['bytes'])}"
    return f"{table(('WHAT', 'NAME', 'BYTES'), rows)}\n{end}" if rows else end


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
