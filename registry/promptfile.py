"""
Prompt files: YAML between `---` lines, then the templates. They review well in git, and keep their bytes.

A chat prompt has a section for each message, under `# system`, `# user` or `# assistant`. A line of a
template that would read as such a heading is written with a backslash before it. A prompt of kind text has
no headings: all that follows the front matter is its template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from registry import parse
from registry.entities import PromptContent, PromptMessage, Role, VariableType
from registry.errors import BadInput
from registry.ids import is_digest
from registry.refs import check_name, parse_ref
from registry.schemas import check_schema, check_tools

MAX_BYTES = 1_000_000
"""Bytes of one prompt file."""
_FRONT = re.compile(r"\A---[ \t]*\r?\n(?P<front>.*?\n)---[ \t]*(?:\r?\n(?P<body>.*))?\Z", re.DOTALL)
_HEADING = re.compile(r"^# (system|user|assistant)[ \t]*\r?$", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*# (?:system|user|assistant)[ \t]*\r?)$", re.MULTILINE)
_NEEDS_ESCAPE = re.compile(r"^(\\*# (?:system|user|assistant)[ \t]*\r?)$", re.MULTILINE)
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class _Front:
    name: str
    kind: Literal["text", "chat"] = "chat"
    whitespace: Literal["trimmed", "kept"] = "trimmed"
    """Whether templates begin and end with their first and last character that is no white space."""
    variables: Mapping[str, VariableType] = field(default_factory=dict)
    partials: Mapping[str, str] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    response_schema: Mapping[str, Any] | None = None


def read_text(path: Path) -> str:
    """
    The text of a prompt file, its line ends as they are.

    Raises:
        BadInput: it cannot be read, is longer than 1 MB, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadInput(f"{path}: longer than {MAX_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}") from error
    if "\0" in text:
        raise BadInput(f"{path}: has a zero byte, which a registry cannot keep; remove it")
    return text


def read_file(path: Path) -> tuple[str, PromptContent]:
    """
    The name and content of a prompt file; partials are references until the prompt is pushed.

    Raises:
        BadInput: the file has another shape, or its templates use undeclared variables.
    """
    return parse_file(read_text(path), source=str(path))


def parse_file(text: str, *, source: str = "prompt") -> tuple[str, PromptContent]:
    """
    As `read_file`, from text. Line ends may be those of any system; a byte order mark is ignored.

    Raises:
        BadInput: as `read_file`.
    """
    match = _FRONT.match(text.removeprefix("\ufeff"))
    if match is None:
        raise BadInput(f"{source}: begin with a line ---, then name: and variables:, then ---")
    front = parse.loads("\n" + match["front"].replace("\r\n", "\n"), _Front, source=source)
    body = match["body"] or ""
    kept = front.whitespace == "kept"
    if not kept:
        body = body.replace("\r\n", "\n").replace("\r", "\n")
    messages = _text(body, kept=kept) if front.kind == "text" else _messages(body, source, kept=kept)
    try:
        check_name(front.name)
        content = PromptContent(
            messages,
            dict(front.variables),
            kind="text" if front.kind == "text" else None,
            partials=dict(front.partials) if front.partials else None,
            tools=front.tools or None,
            response_schema=front.response_schema or None,
        )
        check_content(content)
    except BadInput as error:
        raise type(error)(f"{source}: {error.message}") from error
    return front.name, content


def check_content(content: PromptContent) -> None:
    """
    Check a prompt on its own: its templates, its tools, its schema and how it names its partials.

    Raises:
        BadInput: names what is wrong.
    """
    from registry.templates import check_syntax

    if content.kind == "text" and content.messages[0].role != "user":
        raise BadInput(f"a prompt of kind text has the role user, not {content.messages[0].role}")
    for name, ref in (content.partials or {}).items():
        if not is_digest(ref):
            try:
                parse_ref(ref)
            except BadInput as error:
                raise BadInput(f"partials.{name}: {error.message}, nor a digest") from error
    if content.tools:
        check_tools(content.tools)
    if content.response_schema:
        check_schema(content.response_schema)
    check_syntax(content)


def write_file(name: str, content: PromptContent) -> str:
    """
    The file text of a prompt; `parse_file` reads it back to the same content.

    >>> print(write_file("hi", PromptContent((PromptMessage("user", "{{ q }}"),), {"q": "text"})))
    ---
    name: hi
    variables:
      q: text
    ---
    # user
    {{ q }}
    <BLANKLINE>
    """
    texts = [message.content for message in content.messages]
    kept = any(text != text.strip() or "\r" in text for text in texts)
    lines = ["---", f"name: {_scalar(name)}"]
    if content.kind == "text":
        lines.append("kind: text")
    if kept:
        lines.append("whitespace: kept")
    for key, value in (("variables", content.variables), ("partials", content.partials)):
        if value:
            lines += [f"{key}:", *(f"  {_key(inner)}: {_scalar(said)}" for inner, said in value.items())]
    for key, more in (("tools", content.tools), ("response_schema", content.response_schema)):
        if more:
            lines.append(_yaml({key: json.loads(json.dumps(more))}))
    lines.append("---")
    if content.kind == "text":
        return "\n".join([*lines, texts[0] + "\n"])
    sections = (f"# {m.role}\n{_NEEDS_ESCAPE.sub(_with_backslash, m.content)}\n" for m in content.messages)
    return "\n".join([*lines, ("" if kept else "\n").join(sections)])


def with_partials(content: PromptContent, digests: Mapping[str, str]) -> PromptContent:
    """*content* with every partial named by its digest."""
    return replace(content, partials=dict(digests) or None)


def _text(body: str, *, kept: bool) -> tuple[PromptMessage, ...]:
    return (PromptMessage("user", body.removesuffix("\n") if kept else body.strip()),)


def _messages(body: str, source: str, *, kept: bool) -> tuple[PromptMessage, ...]:
    headings = list(_HEADING.finditer(body))
    if not headings or body[: headings[0].start()].strip():
        raise BadInput(f"{source}: after --- comes a heading: # system, # user or # assistant")
    ends = [heading.start() for heading in headings[1:]] + [len(body)]
    messages = []
    for heading, end in zip(headings, ends, strict=True):
        text = body[heading.end() : end].removeprefix("\n")
        text = _ESCAPED.sub(r"\1", text.removesuffix("\n") if kept else text.strip())
        messages.append(PromptMessage(cast("Role", heading[1]), text))
    return tuple(messages)


def _with_backslash(match: re.Match[str]) -> str:
    return "\\" + match[0]


def _key(text: str) -> str:
    return text if _PLAIN_KEY.fullmatch(text) else _scalar(text)


def _scalar(text: str) -> str:
    """*text* as YAML that reads back as text."""
    return _yaml(text).removesuffix("...").rstrip("\n")


def _yaml(value: object) -> str:
    """*value* as YAML that reads back as it is; unusual line ends are escaped, which YAML would fold."""
    is_usual = not _LINE_ENDS.search(json.dumps(value, ensure_ascii=False))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=is_usual, width=2**31).rstrip("\n")
