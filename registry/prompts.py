"""
PromptVersions: pushed with every partial pinned, and pulled back as the file they were pushed from.

Templates are imported where they are compiled: Jinja takes longer to import than most commands to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from registry import audit, labels, parse, tables, versions
from registry.clock import to_text
from registry.entities import PromptContent, ReleaseContent, Version
from registry.errors import BadInput, NotFound
from registry.ids import digest, digest_bytes, is_digest
from registry.promptfile import check_content, parse_file, read_file, with_partials, write_file
from registry.refs import Ref, check_name, parse_ref

__all__ = [
    "File", "check_for_release", "content_of", "file_of", "get", "log", "names", "ordered", "parse_file",
    "partials_of", "pin", "pull", "push", "push_files", "read", "read_file", "render", "says", "write_file",
]  # fmt: skip
_FILES, _VERSIONS, _ALIASES = tables.prompt_files, tables.versions, tables.aliases


@dataclass(frozen=True, slots=True)
class File:
    """A prompt file that was read and checked."""

    source: str
    """Where it came from, for errors."""
    name: str
    content: PromptContent
    """Its partials are references as long as nothing pins them."""
    text: str


def read(text: str, source: str) -> File:
    """The prompt file *text*. Raises BadInput naming *source* and the line."""
    name, content = parse_file(text, source=source)
    return File(source, name, content, text)


def ordered(files: Iterable[File]) -> list[File]:
    """
    *files* so that each comes after those it includes by name; otherwise in their order.

    Raises:
        BadInput: two files have one name, or files include each other in a circle.
    """
    waiting: dict[str, File] = {}
    for file in files:
        if file.name in waiting:
            raise BadInput(f"{file.source}: {waiting[file.name].source} has the name {file.name!r} too")
        waiting[file.name] = file
    done: list[File] = []
    while waiting:
        free = [file for file in waiting.values() if not (_wanted(file) & (waiting.keys() - {file.name}))]
        if not free:
            raise BadInput(f"prompts {', '.join(waiting)} include each other in a circle; break it")
        done += [waiting.pop(file.name) for file in free]
    return done


def push(
    connection: Connection,
    name: str,
    content: PromptContent,
    *,
    actor: str,
    now: datetime,
    text: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Version:
    """
    Store a prompt. Idempotent: equal content, same version.

    Partials that are references are pinned to what they name now.

    Args:
        text: the file it comes from, which `file_of` gives back to the byte; the newest one is kept.

    Raises:
        BadTemplate: its templates do not compile, or use other variables than it declares.
        BadInput: its tools or its response schema are malformed, or a partial is no prompt of kind text.
        NotFound: a partial is not in the registry.
    """
    from registry.templates import compile_prompt

    check_content(content)
    pinned = pin(connection, content)
    compile_prompt(pinned, partials_of(connection, pinned))
    version = versions.push(connection, "prompt", name, pinned, actor=actor, now=now, meta=meta)
    if text is not None:
        _keep(connection, version, text, actor=actor, now=now)
    return version


def push_files(
    connection: Connection, files: Sequence[File], *, actor: str, now: datetime
) -> list[tuple[File, Version, bool]]:
    """
    Push prompt files, partials first; each with its version, and whether that is new. All or none.

    Raises:
        BadInput, NotFound: as `push` and `ordered`; the message names the file.
    """
    pushed = []
    for file in ordered(files):
        before = _newest_number(connection, file.name)
        try:
            version = push(connection, file.name, file.content, actor=actor, now=now, text=file.text)
        except (BadInput, NotFound) as error:
            raise type(error)(f"{file.source}: {error.message}") from error
        pushed.append((file, version, version.number > before))
    return pushed


def pin(connection: Connection, content: PromptContent) -> PromptContent:
    """
    *content* with every partial named by the digest it stands for now.

    Raises:
        NotFound: a partial is not in the registry.
        BadInput: a partial is no prompt of kind text.
    """
    digests = {}
    for name, said in (content.partials or {}).items():
        if is_digest(said):
            version = versions.by_digest(connection, "prompt", said)
        else:
            version = labels.resolve(connection, parse_ref(said))
        if version.content.get("kind") != "text":
            raise BadInput(
                f"partials.{name}: prompt {version.name}:{version.number} is no prompt of kind text"
            )
        digests[name] = version.digest
    return with_partials(content, digests)


def partials_of(connection: Connection, content: PromptContent) -> dict[str, str]:
    """
    Digest → template text of all that a pinned prompt includes, and of what those include: what
    `templates.compile_prompt` takes.

    Raises:
        NotFound: a partial is missing from the registry.
        VersionTampered: the stored content of one no longer has its digest.
        BadInput: they include each other more than 16 deep.
    """
    from registry.templates import MAX_DEPTH, pin_includes

    texts: dict[str, str] = {}
    level = set((content.partials or {}).values())
    for _depth in range(MAX_DEPTH + 1):
        following: set[str] = set()
        for wanted in sorted(level - texts.keys()):
            inner = content_of(versions.by_digest(connection, "prompt", wanted))
            texts[wanted] = pin_includes(inner.messages[0].content, inner.partials or {})
            following |= set((inner.partials or {}).values())
        level = following - texts.keys()
        if not level:
            return texts
    raise BadInput(f"partials include each other more than {MAX_DEPTH} deep")


def get(connection: Connection, ref: Ref) -> tuple[Version, PromptContent]:
    """The prompt that *ref* names, by label too. Raises NotFound, VersionTampered."""
    version = labels.resolve(connection, ref)
    return version, content_of(version)


def content_of(version: Version) -> PromptContent:
    """The typed content of a prompt version."""
    return parse.build(version.content, PromptContent, source=f"prompt {version.name}:{version.number}")


def render(connection: Connection, ref: Ref, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    The messages of a prompt with *values* for its variables, and which version that is; for a prompt of kind
    text also `text`.

    Raises:
        NotFound: no such prompt.
        BadTemplate: a missing, extra or wrongly typed variable, or a template that costs too much.
    """
    from registry.templates import compile_prompt

    version, content = get(connection, ref)
    messages = compile_prompt(content, partials_of(connection, content))(values)
    answer = {"name": version.name, "number": version.number, "digest": version.digest, "messages": messages}
    for key in ("tools", "response_schema"):
        if version.content.get(key):
            answer[key] = version.content[key]
    return {**answer, "text": messages[0]["content"]} if content.kind == "text" else answer


def file_of(connection: Connection, version: Version) -> tuple[str, bool]:
    """
    The file of a prompt version, and whether it is the very text that was pushed.

    What was pushed is checked against the version; where it says something else, or was never kept, this is
    the file that `write_file` makes.
    """
    query = select(_FILES.c.text).where(*_file(version))
    text = connection.execute(query).scalar()
    if text is not None and says(text, version):
        return text, True
    return write_file(version.name, content_of(version)), False


def says(text: str, version: Version) -> bool:
    """Whether the prompt file *text* has the content of *version*, partials taken as that pins them."""
    try:
        name, content = parse_file(text)
    except BadInput:
        return False
    pinned = content_of(version).partials or {}
    if name != version.name or set(content.partials or {}) != set(pinned):
        return False
    return digest(versions.plain(with_partials(content, pinned))) == version.digest


def pull(connection: Connection, ref: Ref) -> dict[str, Any]:
    """
    The file of a prompt, as it was pushed: `file`; `as_pushed` is false where it had to be written anew.

    Raises:
        NotFound: no such prompt.
        VersionTampered: its stored content no longer has its digest.
    """
    version = labels.resolve(connection, ref)
    text, as_pushed = file_of(connection, version)
    return {
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "as_pushed": as_pushed,
        "file": text,
    }


def names(connection: Connection) -> list[str]:
    """The name of every prompt, sorted."""
    query = select(_VERSIONS.c.name).where(_VERSIONS.c.kind == "prompt").distinct().order_by(_VERSIONS.c.name)
    return list(connection.execute(query).scalars())


def log(connection: Connection, name: str, *, limit: int = 20, before: int | None = None) -> dict[str, Any]:
    """
    Who pushed which version of a prompt when, newest first, with its labels and the releases that pin it.

    Args:
        limit: at most this many versions.
        before: only versions with a smaller number; `next` of the answer before.

    Raises:
        NotFound: no such prompt.
    """
    check_name(name)
    query = select(_VERSIONS).where(_VERSIONS.c.kind == "prompt", _VERSIONS.c.name == name)
    if before is not None:
        query = query.where(_VERSIONS.c.number < before)
    rows = connection.execute(query.order_by(_VERSIONS.c.number.desc()).limit(limit)).mappings().all()
    if not rows and not _newest_number(connection, name):
        raise NotFound(f"no prompt {name} in the registry; `registry prompts list` shows what there is")
    pinning = _pinning(connection, [row["digest"] for row in rows])
    pointing: dict[str, list[str]] = {}
    for label in labels.listing(connection, name):
        pointing.setdefault(label.digest, []).append(label.label)
    entries = [
        {
            "number": row["number"],
            "digest": row["digest"],
            "created_at": row["created_at"],
            "created_by": row["created_by"],
            "labels": pointing.get(row["digest"], []),
            "releases": pinning.get(row["digest"], []),
        }
        for row in rows
    ]
    more = bool(rows) and len(rows) == limit and rows[-1]["number"] > 1
    return {"name": name, "versions": entries, "next": rows[-1]["number"] if more else None}


def check_for_release(version: Version, release: ReleaseContent) -> None:
    """
    Check that the gateway can fill every variable of the prompt.

    Raises:
        BadInput: the prompt wants a variable other than `question` and, with an index, `passages`.
    """
    offered = {"question", "passages"} if release.index else {"question"}
    wanted = set(content_of(version).variables)
    if wanted - offered:
        message = (
            f"prompt {version.name}:{version.number} wants {sorted(wanted - offered)}, "
            f"but this release offers {sorted(offered)}"
        )
        raise BadInput(message)


def _wanted(file: File) -> set[str]:
    """The names of the prompts whose newest version a file includes."""
    refs = [parse_ref(said) for said in (file.content.partials or {}).values() if not is_digest(said)]
    return {ref.name for ref in refs if ref.number is None and ref.digest is None}


def _newest_number(connection: Connection, name: str) -> int:
    query = select(_VERSIONS.c.number).where(_VERSIONS.c.kind == "prompt", _VERSIONS.c.name == name)
    return connection.execute(query.order_by(_VERSIONS.c.number.desc()).limit(1)).scalar() or 0


def _file(version: Version) -> tuple[Any, ...]:
    return _FILES.c.kind == "prompt", _FILES.c.name == version.name, _FILES.c.digest == version.digest


def _keep(connection: Connection, version: Version, text: str, *, actor: str, now: datetime) -> None:
    """Keep the newest file of a version; that it says something else than the version is a mistake here."""
    known = connection.execute(select(_FILES.c.text).where(*_file(version))).scalar()
    if known == text:
        return
    row = {"text": text, "at": to_text(now), "by": actor}
    if known is None:
        key = {"kind": "prompt", "name": version.name, "digest": version.digest}
        connection.execute(insert(_FILES).values(**key, **row))
        return
    connection.execute(update(_FILES).where(*_file(version)).values(**row))
    body = {"digest": version.digest, "file": digest_bytes(text.encode())}
    where = f"prompt-file/{version.name}:{version.number}"
    audit.append(connection, "prompt.file", where, body, actor=actor, now=now)


def _pinning(connection: Connection, digests: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Prompt digest → releases that pin it, with their aliases."""
    if not digests:
        return {}
    query = select(_VERSIONS).where(
        _VERSIONS.c.kind == "release", or_(*(_VERSIONS.c.content.contains(one) for one in digests))
    )
    aliases: dict[tuple[str, str], list[str]] = {}
    for state in connection.execute(select(_ALIASES).order_by(_ALIASES.c.alias)).mappings():
        aliases.setdefault((state["name"], state["digest"]), []).append(state["alias"])
    pinning: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query.order_by(_VERSIONS.c.name, _VERSIONS.c.number)).mappings():
        release = versions.get(connection, "release", Ref(row["name"], number=row["number"]))
        variants = release.content.get("variants") or ()
        for pinned in dict.fromkeys([release.content.get("prompt"), *(one["prompt"] for one in variants)]):
            if pinned in digests:
                at = aliases.get((release.name, release.digest), [])
                entry = {"release": f"{release.name}:{release.number}", "aliases": at}
                pinning.setdefault(pinned, []).append(entry)
    return pinning
