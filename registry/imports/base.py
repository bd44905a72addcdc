"""What the readers of exports share: what they return, and how other templates become Jinja."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from registry.entities import PromptContent, PromptMessage, Role, VariableType
from registry.errors import BadInput
from registry.promptfile import check_content
from registry.templates import variables

_ROLES: Mapping[str, Role] = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "system",
    "human": "user",
    "system": "system",
    "user": "user",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_RESERVED = frozenset(
    [
        "and",
        "caller",
        "else",
        "false",
        "if",
        "in",
        "is",
        "kwargs",
        "none",
        "not",
        "or",
        "self",
        "super",
        "true",
        "varargs",
    ]
)
_OPENS = re.compile(r"\{(?=[{%#])|\{\Z")
_DOUBLE = re.compile(r"\{\{\s*([^{}\s](?:[^{}]*[^{}\s])?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """One version of a prompt in another tool."""

    source: str
    """What that tool calls it: a number, a commit."""
    content: PromptContent | None
    refused: str | None = None
    """Why it cannot be a prompt here; its content is None."""
    labels: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    """What it had that a prompt here has not, such as the model it was tried with."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A prompt of another tool, its versions from old to new."""

    name: str
    """Its name here."""
    source: str
    """Its name there."""
    versions: tuple[ImportedVersion, ...]


class Piece(NamedTuple):
    """A stretch of a template: text as it stands, or the name of a variable."""

    kind: Literal["text", "variable"]
    value: str


def version(
    source: str, make: Callable[[], PromptContent], *, labels: Iterable[str] = (), dropped: Iterable[str] = ()
) -> ImportedVersion:
    """A version whose content *make* returns, or that is refused for the BadInput it raises."""
    try:
        content = make()
        check_content(content)
    except BadInput as error:
        return ImportedVersion(source, None, error.message)
    return ImportedVersion(source, content, None, tuple(labels), tuple(dropped))


def prompt(
    messages: Iterable[tuple[str, str]],
    *,
    kind: Literal["text"] | None = None,
    tools: Iterable[Mapping[str, Any]] = (),
    response_schema: Mapping[str, Any] | None = None,
) -> PromptContent:
    """
    A prompt of (role, Jinja template), its variables typed by how they are used.

    Raises:
        BadInput: a role or a construct that a prompt cannot have.
    """
    made = tuple(PromptMessage(role_of(role), text.strip()) for role, text in messages)
    types: dict[str, VariableType] = {}
    for message in made:
        for name, guess in variables(message.content).items():
            if types.get(name, "text") == "text":
                types[name] = cast("VariableType", guess)
    return PromptContent(made, types, kind, None, tuple(tools) or None, response_schema)


def role_of(role: object) -> Role:
    """
    The role of a message here.

    Raises:
        BadInput: one that prompts do not have, such as tool.
    """
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise BadInput(f"a message of role {role!r}; prompts have system, user and assistant")
    return known


def name_of(source: str) -> str:
    """
    *source* as a name may be here: lower case, `-` for what names do not have.

    Raises:
        BadInput: nothing of it can be in a name.

    >>> name_of("Support/First Answer")
    'support-first-answer'
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", source.lower()).strip("-._")[:64]
    if not name:
        raise BadInput(f"prompt {source!r}: give it another name; 1 to 64 of a-z, 0-9, '.', '_', '-'")
    return name


def jinja(pieces: Iterable[Piece]) -> str:
    """
    The Jinja template of *pieces*: text renders to itself, whatever it looks like.

    Raises:
        BadInput: a variable whose name Jinja cannot have.

    >>> jinja([Piece("text", "{{ not "), Piece("variable", "name")])
    '{{ "{" }}{ not {{ name }}'
    """
    return "".join(
        _OPENS.sub('{{ "{" }}', piece.value) if piece.kind == "text" else f"{{{{ {variable(piece.value)} }}}}"
        for piece in pieces
    )


def variable(name: str) -> str:
    """
    *name* when it may be a variable, or an attribute of one.

    Raises:
        BadInput: it is neither.
    """
    if not _NAME.fullmatch(name) or name.split(".", 1)[0].lower() in _RESERVED:
        raise BadInput(f"variable {name!r}: rename it to letters, digits and '_', and no word of Jinja's")
    return name


def double_braces(text: str, *, names_only: bool = False) -> str:
    """
    The Jinja template of a text with `{{ name }}`; all other braces are text.

    Args:
        names_only: what stands between braces and is no name is text too.

    Raises:
        BadInput: a name that Jinja cannot have.
    """
    pieces: list[Piece] = []
    end = 0
    for match in _DOUBLE.finditer(text):
        if names_only and not _NAME.fullmatch(match[1]):
            continue
        pieces += [Piece("text", text[end : match.start()]), Piece("variable", match[1])]
        end = match.end()
    return jinja([*pieces, Piece("text", text[end:])])


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """*value* when it is a JSON object. Raises BadInput naming *where*."""
    if not isinstance(value, Mapping):
        raise BadInput(f"{where}: expected an object, got {type(value).__name__}")
    return value


def text_of(value: object, where: str) -> str:
    """*value* when it is text. Raises BadInput naming *where*."""
    if not isinstance(value, str):
        raise BadInput(f"{where}: expected text, got {type(value).__name__}")
    return value


def listed(value: object, where: str) -> list[Any]:
    """*value* when it is a list. Raises BadInput naming *where*."""
    if not isinstance(value, list):
        raise BadInput(f"{where}: expected a list, got {type(value).__name__}")
    return value


def json_of(text: str, where: str) -> Any:  # noqa: ANN401
    """What the JSON *text* says. Raises BadInput naming *where*."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON") from error
