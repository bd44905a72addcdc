"""The `rag` command line: build, search, list."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rag.settings import RagSettings
from registry import terminal
from registry.ids import short
from registry.terminal import Json

application = terminal.command_group("Versioned retrieval indexes: build, search, list.")


def main() -> None:
    """Run the command line."""
    terminal.run(application)


@application.command("build")
def build_command(
    path: Annotated[Path, typer.Argument(help="A .jsonl or .jsonl.gz file, or a folder of .md and .txt.")],
    name: Annotated[str, typer.Option(help="Name of the index in the registry.")],
    max_chars: Annotated[int | None, typer.Option(help="Longest passage; default rag.max_chars.")] = None,
    overlap: Annotated[int, typer.Option(help="Sentences that two passages share, 0 to 5.")] = 0,
    embedder: Annotated[str | None, typer.Option(help="Embedder; default rag.embedder.")] = None,
    store: Annotated[str | None, typer.Option(help="Vector store; default rag.store.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """
    Build a versioned index of documents and register it. Unchanged passages are not embedded again.

    Example: rag build docs/ --name handbook
    """
    from rag import build  # keeps `rag --help` fast
    from rag.embedders import base as embedders
    from rag.load import load
    from registry import indexes, settings
    from registry.clock import utc_now
    from registry.entities import Chunker
    from registry.refs import check_name
    from registry.workspace import open_workspace

    started = time.monotonic()
    options = settings.load("rag", RagSettings)
    check_name(name)
    home = settings.registry_settings().home
    model = embedders.load(embedder or options.embedder, home / "models", threads=options.threads)
    planned = build.plan(
        load(path),
        name=name,
        chunker=Chunker(
            max_chars=options.max_chars if max_chars is None else max_chars, overlap_sentences=overlap
        ),
        embedder=model,
        store_name=store or options.store,
        home=home,
    )
    summary = {
        "digest": planned.digest,
        "documents": planned.content.documents,
        "passages": planned.content.passages,
    }
    if dry_run:
        new = build.missing(planned, model)
        result = {"name": name, **summary, "embedded": new, "reused": planned.content.passages - new}
        text = f"would build {name} {planned.digest}\n{_counts(result)}"
        terminal.show({**result, "dry_run": True}, text, as_json=as_json)
        return
    with open_workspace() as workspace:
        with terminal.progress("embedding", planned.content.passages) as on_progress:
            built = build.carry_out(
                planned,
                embedder=model,
                artifacts=workspace.artifacts,
                on_progress=on_progress,
                batch_size=options.batch_size,
            )
        with workspace.acting("indexes.push") as (connection, who):
            version = indexes.push(connection, name, built.content, actor=who, now=utc_now())
    result = {
        "ref": f"{name}:{version.number}",
        "name": name,
        "number": version.number,
        **summary,
        "embedded": built.embedded,
        "reused": built.reused,
        "seconds": round(time.monotonic() - started, 2),
        "folder": str(built.folder),
    }
    text = f"{result['ref']} {version.digest}\n{_counts(result)} in {result['seconds']} s"
    terminal.show(result, text, as_json=as_json)


@application.command("search")
def search_command(
    ref: Annotated[str, typer.Argument(help="An index: name, name:3 or name@sha256:…")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many passages.")] = 5,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """
    Show the passages of an index that are closest to a query.

    Example: rag search handbook "how do I rotate a key?" -k 3
    """
    from rag.retrieve import open_retriever
    from registry import indexes, settings
    from registry.refs import parse_ref
    from registry.workspace import open_workspace

    options = settings.load("rag", RagSettings)
    with open_workspace() as workspace:
        with workspace.viewing("versions.show") as connection:
            version, content = indexes.get(connection, parse_ref(ref))
        retriever = open_retriever(
            content,
            version.digest,
            home=workspace.settings.home,
            artifacts=workspace.artifacts,
            threads=options.threads,
            store=options.store,
        )
    try:
        passages = retriever.retrieve(query, k)
    finally:
        retriever.close()
    result = {
        "ref": f"{version.name}:{version.number}",
        "digest": version.digest,
        "passages": [asdict(passage) for passage in passages],
    }
    blocks = (f"{found.score:.3f}  {found.id}  {found.title}\n{found.text}" for found in passages)
    terminal.show(result, lambda: "\n\n".join(blocks), as_json=as_json)


@application.command("list")
def list_command(as_json: Json = False) -> None:  # noqa: FBT002
    """
    List the newest 100 indexes of the registry and whether they are built on this machine.

    Example: rag list
    """
    from rag.build import folder_of
    from registry import indexes, settings, versions
    from registry.workspace import open_workspace

    options = settings.load("rag", RagSettings)
    with open_workspace() as workspace:
        home = workspace.settings.home
        with workspace.viewing("versions.show") as connection:
            found = [
                (version, indexes.content_of(version)) for version in versions.listing(connection, "index")
            ]
    rows = [
        {
            "ref": f"{version.name}:{version.number}",
            "digest": version.digest,
            "documents": content.documents,
            "passages": content.passages,
            "embedder": content.embedder.name,
            "built": folder_of(home, version.digest, options.store).exists(),
            "created_at": version.created_at.isoformat(),
        }
        for version, content in found
    ]
    headings = ("ref", "digest", "documents", "passages", "embedder", "built", "created_at")
    table = [[short(str(row[key])) if key == "digest" else row[key] for key in headings] for row in rows]
    terminal.show({"indexes": rows}, lambda: terminal.table(headings, table), as_json=as_json)


def _counts(result: dict[str, object]) -> str:
    parts = ("documents", "passages", "embedded", "reused")
    return ", ".join(f"{result[part]} {part}" for part in parts)
