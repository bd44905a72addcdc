"""
LangSmith: commits of its hub, whose manifest is a LangChain prompt as LangChain serialises it.

A file holds one commit (`{"commit_hash": …, "manifest": …}`), a list of them from old to new, a bare
manifest, or `{"commits": […], "tags": [{"tag_name": …, "commit_hash": …}]}`. Templates are f-strings,
mustache or Jinja. Sections, few-shot examples, placeholders for messages and images have no counterpart and
are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from string import Formatter
from typing import Any

from registry.entities import PromptContent
from registry.errors import BadInput
from registry.imports.base import (
    Imported,
    ImportedVersion,
    Piece,
    jinja,
    listed,
    mapping,
    name_of,
    prompt,
    text_of,
    version,
)

_ROLES = {"AIMessage": "ai", "ChatMessage": "", "HumanMessage": "human", "SystemMessage": "system"}
_MUSTACHE = re.compile(
    r"\{\{\{\s*(?P<triple>[^{}]*?)\s*\}\}\}|\{\{(?P<sign>[#^/>!=&]?)\s*(?P<name>[^{}]*?)\s*\}\}"
)
_SIGNS = {
    "#": "section",
    "^": "inverted section",
    "/": "section",
    ">": "partial",
    "=": "change of delimiters",
}


def read(data: object, name: str | None = None) -> list[Imported]:
    """
    The prompts of an export, by name, their commits from old to new.

    Raises:
        BadInput: it has another shape, or a prompt has no name and *name* is None.
    """
    commits, tags = _commits(data)
    found: dict[str, list[ImportedVersion]] = {}
    for place, item in enumerate(commits, 1):
        commit = mapping(item, f"commit {place}")
        manifest = commit if "lc" in commit else commit.get("manifest")
        source = name or commit.get("repo") or commit.get("prompt_name")
        if not isinstance(source, str) or not source:
            raise BadInput(f"commit {place}: no repo; give the prompt a --name")
        said = str(commit.get("commit_hash") or place)
        labels = sorted({str(tag.get("tag_name")) for tag in tags if tag.get("commit_hash") == said})
        dropped = _dropped(manifest, commit)
        made = version(said, partial(_content, manifest), labels=labels, dropped=dropped)
        found.setdefault(source, []).append(made)
    return [Imported(name_of(source), source, tuple(versions)) for source, versions in sorted(found.items())]


def _commits(data: object) -> tuple[list[Any], list[Mapping[str, Any]]]:
    if not isinstance(data, Mapping):
        commits, tags = listed(data, "the export"), []
    elif "commits" in data:
        commits, tags = listed(data["commits"], "commits"), listed(data.get("tags") or [], "tags")
        repo = data.get("repo")
        if repo is not None:
            commits = [{"repo": repo, **mapping(commit, "commit")} for commit in commits]
    elif "manifest" in data or "lc" in data:
        commits, tags = [data], []
    else:
        raise BadInput("the export is neither a commit with a manifest nor a list of commits")
    if commits and all(isinstance(commit, Mapping) and commit.get("created_at") for commit in commits):
        commits = sorted(commits, key=lambda commit: str(commit["created_at"]))
    return commits, [mapping(tag, "tag") for tag in tags]


def _kind(node: object) -> str:
    """The class that a serialised object is of."""
    identity = node.get("id") if isinstance(node, Mapping) else None
    return str(identity[-1]) if isinstance(identity, list) and identity else ""


def _kwargs(node: object, where: str) -> Mapping[str, Any]:
    if isinstance(node, Mapping) and node.get("type") == "not_implemented":
        raise BadInput(f"{where}: {_kind(node)} was not serialised")
    return mapping(mapping(node, where).get("kwargs", {}), where)


def _content(manifest: object) -> PromptContent:
    kind = _kind(manifest)
    kwargs = _kwargs(manifest, "manifest")
    if kind in ("RunnableSequence", "PromptPlayground"):
        content = _content(kwargs.get("first"))
        tools = _bound(kwargs.get("last")).get("tools")
        if tools and content.kind is None:
            return prompt_with(content, tools)
        return content
    if kind == "PromptTemplate":
        return prompt([("user", _template(manifest, "template"))], kind="text")
    if kind not in ("ChatPromptTemplate", "StructuredPrompt"):
        raise BadInput(f"{kind or 'the manifest'} is no prompt of messages or of text")
    _no_values(kwargs, kind)
    messages = [
        _message(m, f"message {n}") for n, m in enumerate(listed(kwargs.get("messages"), "messages"), 1)
    ]
    schema = kwargs.get("schema_") or kwargs.get("schema")
    return prompt(
        messages, response_schema=mapping(schema, "schema_") if kind == "StructuredPrompt" else None
    )


def prompt_with(content: PromptContent, tools: object) -> PromptContent:
    """*content* with the tools that were bound to its model."""
    given = [mapping(tool, "tools") for tool in listed(tools, "tools")]
    return PromptContent(
        content.messages, content.variables, None, None, tuple(given), content.response_schema
    )


def _message(node: object, where: str) -> tuple[str, str]:
    kind = _kind(node)
    kwargs = _kwargs(node, where)
    if kind == "MessagesPlaceholder":
        raise BadInput(f"{where}: a placeholder for messages ({kwargs.get('variable_name')!r})")
    base = kind.removesuffix("PromptTemplate").removesuffix("Chunk")
    if base not in _ROLES:
        raise BadInput(f"{where}: {kind or 'something else'}, which has no counterpart here")
    role = str(kwargs.get("role", "")) if base == "ChatMessage" else _ROLES[base]
    if not kind.endswith("PromptTemplate"):
        return role, jinja([Piece("text", text_of(kwargs.get("content"), where))])
    inner = kwargs.get("prompt")
    if isinstance(inner, list):
        if len(inner) != 1:
            raise BadInput(f"{where}: {len(inner)} parts; a message here is one text")
        inner = inner[0]
    return role, _template(inner, where)


def _template(node: object, where: str) -> str:
    kind = _kind(node)
    if kind != "PromptTemplate":
        raise BadInput(f"{where}: {kind or 'something else'}, which has no counterpart here")
    kwargs = _kwargs(node, where)
    _no_values(kwargs, where)
    text = text_of(kwargs.get("template"), f"{where}.template")
    form = kwargs.get("template_format", "f-string")
    if form == "jinja2":
        return text
    if form not in ("f-string", "mustache"):
        raise BadInput(f"{where}: the template format {form!r}")
    return jinja(_f_string(text, where) if form == "f-string" else _mustache(text, where))


def _no_values(kwargs: Mapping[str, Any], where: str) -> None:
    if kwargs.get("partial_variables"):
        raise BadInput(
            f"{where}: values given ahead (partial_variables {sorted(kwargs['partial_variables'])})"
        )


def _f_string(text: str, where: str) -> Iterator[Piece]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise BadInput(f"{where}: no f-string: {error}") from error
    literal = ""
    for before, name, form, conversion in parsed:
        literal += before
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise BadInput(f"{where}: {{{name}}} with a format, an index or an attribute")
        yield Piece("text", literal)
        yield Piece("variable", name)
        literal = ""
    yield Piece("text", literal)


def _mustache(text: str, where: str) -> Iterator[Piece]:
    end = 0
    for match in _MUSTACHE.finditer(text):
        yield Piece("text", text[end : match.start()])
        end = match.end()
        sign, name = match["sign"] or "", match["triple"] if match["triple"] is not None else match["name"]
        if sign == "!":
            continue
        if sign in _SIGNS:
            raise BadInput(f"{where}: a mustache {_SIGNS[sign]} ({{{{{sign}{name}}}}})")
        yield Piece("variable", name)
    yield Piece("text", text[end:])


def _bound(last: object) -> Mapping[str, Any]:
    """What was bound to the model behind a prompt."""
    given = last.get("kwargs") if isinstance(last, Mapping) else None
    inner = given.get("kwargs") if isinstance(given, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _dropped(manifest: object, commit: Mapping[str, Any]) -> list[str]:
    dropped = []
    if _kind(manifest) == "RunnableSequence" and isinstance(manifest, Mapping):
        last = mapping(manifest.get("kwargs", {}), "manifest").get("last")
        dropped = ["model", *(f"model.{key}" for key in _bound(last) if key != "tools")]
    return [*dropped, "examples"] if commit.get("examples") else dropped
