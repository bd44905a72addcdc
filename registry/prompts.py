"""PromptVersions, and the file format that reviews well in git."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from registry import parse, versions
from registry.entities import PromptContent, PromptMessage, ReleaseContent, VariableType, Version
from registry.errors import BadInput
from registry.refs import Ref
from registry.templates import compile_prompt

_FRONT = re.compile(r"\A---\n(?P<front>.*?)\n---\n(?P<body>.*)\Z", re.DOTALL)
_HEADING = re.compile(r"^# (system|user|assistant)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Front:
    name: str
    variables: Mapping[str, VariableType] = field(default_factory=dict)


def read_file(path: Path) -> tuple[str, PromptContent]:
    """
    The name and content of a prompt file: YAML between `---` lines, then `# role` sections.

    Raises:
        BadInput: the file has another shape, or its templates use undeclared variables.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    return parse_file(text.replace("\r\n", "\n"), source=str(path))


def parse_file(text: str, *, source: str = "prompt") -> tuple[str, PromptContent]:
    """
    As `read_file`, from text.

    Raises:
        BadInput: as `read_file`.
    """
    match = _FRONT.match(text)
    if match is None:
        raise BadInput(f"{source}: begin with a line ---, then name: and variables:, then ---")
    front = parse.loads("\n" + match["front"], _Front, source=source)
    body = match["body"]
    headings = list(_HEADING.finditer(body))
    if not headings or body[: headings[0].start()].strip():
        raise BadInput(f"{source}: after --- comes a heading: # system, # user or # assistant")
    ends = [heading.start() for heading in headings[1:]] + [len(body)]
    messages = tuple(
        PromptMessage(heading[1], body[heading.end() : end].strip())  # type: ignore[arg-type]
        for heading, end in zip(headings, ends, strict=True)
    )
    content = PromptContent(messages, dict(front.variables))
    try:
        compile_prompt(content)
    except BadInput as error:
        raise type(error)(f"{source}: {error.message}") from error
    return front.name, content


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
    lines = ["---", f"name: {name}"]
    if content.variables:
        lines += ["variables:", *(f"  {key}: {kind}" for key, kind in content.variables.items())]
    sections = (f"# {message.role}\n{message.content}\n" for message in content.messages)
    return "\n".join([*lines, "---", "\n".join(sections)])


def push(connection: Connection, name: str, content: PromptContent, *, actor: str, now: datetime) -> Version:
    """
    Store a prompt. Idempotent: equal content, same version.

    Raises:
        BadTemplate: its templates do not compile, or use other variables than it declares.
    """
    compile_prompt(content)
    return versions.push(connection, "prompt", name, content, actor=actor, now=now)


def get(connection: Connection, ref: Ref) -> tuple[Version, PromptContent]:
    """The prompt that *ref* names. Raises NotFound, VersionTampered."""
    version = versions.get(connection, "prompt", ref)
    return version, content_of(version)


def content_of(version: Version) -> PromptContent:
    """The typed content of a prompt version."""
    return parse.build(version.content, PromptContent, source=f"prompt {version.name}:{version.number}")


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
