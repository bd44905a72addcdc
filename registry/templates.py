"""Prompt templates: sandboxed Jinja, strict variables, partials pinned by digest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError

from registry import sandbox
from registry.entities import PromptContent
from registry.errors import BadTemplate
from registry.ids import short

MAX_DEPTH = 16
"""How many partials may include each other in a row."""
_NONE: Mapping[str, str] = MappingProxyType({})
_ANY = sandbox.Sandbox({}, {})
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "list": (list, tuple),
    "object": (dict,),
}
_NONSENSE = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What Python raises where a template computes nonsense."""

Render: TypeAlias = Callable[[Mapping[str, Any]], list[dict[str, str]]]


def compile_prompt(prompt: PromptContent, partials: Mapping[str, str] = _NONE) -> Render:
    """
    A function from variables to chat messages `[{"role", "content"}]`; a text is one message. Thread-safe.

    It raises BadTemplate for a missing, extra or wrongly typed variable, and for a template that takes more
    than the budget of one render (`registry.sandbox`): it neither hangs nor fills the memory.

    Args:
        partials: digest → template text of all that the prompt includes, and of what those include, which
            name theirs by digest (see `pin_includes`).

    Raises:
        BadTemplate: a syntax error, a partial that is not given, a construct that prompts may not use, or a
            variable that the templates use but the prompt does not declare (or the reverse).
    """
    names = prompt.partials or {}
    environment = sandbox.Sandbox(partials, names) if names else _ANY
    templates: list[tuple[str, Template]] = []
    used: set[str] = set()
    if sum(len(message.content) for message in prompt.messages) > sandbox.MAX_TEMPLATE:
        raise BadTemplate(f"the messages have more than {sandbox.MAX_TEMPLATE} characters together")
    included: set[str] = set()
    for number, message in enumerate(prompt.messages, 1):
        where = f"message {number} ({message.role})"
        tree = _parse(message.content, where, environment)
        used |= meta.find_undeclared_variables(tree)
        included |= _included(tree)
        code = _guarded(where, lambda tree=tree: environment.compile(tree, ""))  # type: ignore[misc]
        templates.append(
            (message.role, Template.from_code(environment, code, environment.make_globals(None)))
        )
    if included != set(names):
        raise BadTemplate(_differs("partials", included, set(names)))
    for name in sorted(names):
        used |= _variables(name, names[name], partials, environment, 0, {})
    if used != set(prompt.variables):
        raise BadTemplate(_differs("variables", used, set(prompt.variables)))

    def render(values: Mapping[str, Any]) -> list[dict[str, str]]:
        check(prompt.variables, values)
        messages: list[dict[str, str]] = []
        for role, template in templates:
            try:
                text = sandbox.run(template, values)
            except (TemplateError, *_NONSENSE) as error:
                where = f"message {len(messages) + 1} ({role}){_line(error)}"
                raise BadTemplate(f"{where} cannot be rendered: {_reason(error)}") from error
            messages.append({"role": role, "content": text.strip()})
        return messages

    return render


def check_syntax(prompt: PromptContent) -> None:
    """
    Check all of a prompt that can be without its partials: that it compiles, and includes what it says.

    Raises:
        BadTemplate: as `compile_prompt`; variables that are not used count only when there are no partials.
    """
    if not prompt.partials:
        compile_prompt(prompt)
        return
    used: set[str] = set()
    included: set[str] = set()
    for number, message in enumerate(prompt.messages, 1):
        tree = _parse(message.content, f"message {number} ({message.role})", _ANY)
        used |= meta.find_undeclared_variables(tree)
        included |= _included(tree)
    if included != set(prompt.partials):
        raise BadTemplate(_differs("partials", included, set(prompt.partials)))
    if used - set(prompt.variables):
        raise BadTemplate(_differs("variables", used, used & set(prompt.variables)))


def check(declared: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """
    Compare *values* with the declared variables and their types.

    Raises:
        BadTemplate: names the missing, extra or wrongly typed variables, never their values.
    """
    missing, extra = sorted(declared.keys() - values.keys()), sorted(values.keys() - declared.keys())
    if missing or extra:
        raise BadTemplate(f"missing variables {missing}, unknown variables {extra}")
    for name, kind in declared.items():
        value = values[name]
        if not isinstance(value, _TYPES[kind]) or (kind in ("number", "integer") and isinstance(value, bool)):
            raise BadTemplate(f"variable {name!r} must be {kind}, got {type(value).__name__}")


def parse_values(declared: Mapping[str, str], pairs: Iterable[str]) -> dict[str, Any]:
    """
    Values from words such as `question=Why?`: text as it stands, every other type as JSON.

    Raises:
        BadTemplate: a word without `=`, an unknown name, or a value that is no JSON of its type.

    >>> parse_values({"q": "text", "n": "integer"}, ["q=1=1", "n=3"])
    {'q': '1=1', 'n': 3}
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise BadTemplate(f"--set {name}: write name=value")
        if name not in declared:
            raise BadTemplate(f"unknown variable {name!r}; declared are {sorted(declared)}")
        values[name] = text if declared[name] == "text" else _json(name, declared[name], text)
        check({name: declared[name]}, {name: values[name]})
    return values


def includes(text: str) -> frozenset[str]:
    """The names of the partials that a template includes. Raises BadTemplate for a syntax error."""
    return frozenset(_included(_parse(text, "template", _ANY)))


def variables(text: str) -> dict[str, str]:
    """
    The variables of a template → the type its use suggests: what is looped over is a list, what has
    attributes an object, all else text.

    Raises:
        BadTemplate: a syntax error, or a construct that prompts may not use.
    """
    tree = _parse(text, "template", _ANY)
    found = dict.fromkeys(sorted(meta.find_undeclared_variables(tree)), "text")
    for loop in tree.find_all(nodes.For):
        inner = loop.iter.node if isinstance(loop.iter, nodes.Filter) else loop.iter
        if isinstance(inner, nodes.Name) and inner.name in found:
            found[inner.name] = "list"
    parts: list[nodes.Getattr | nodes.Getitem] = [
        *tree.find_all(nodes.Getattr),
        *tree.find_all(nodes.Getitem),
    ]
    for part in parts:
        if isinstance(part.node, nodes.Name) and found.get(part.node.name) == "text":
            found[part.node.name] = "object"
    return found


def pin_includes(text: str, names: Mapping[str, str]) -> str:
    """
    A template whose includes are named by what *names* says instead.

    >>> pin_includes("{% include 'tone' %} {{ q }}", {"tone": "sha256:ab"})
    '{% include "sha256:ab" %} {{ q }}'
    """
    if not names:
        return text
    parts: list[str] = []
    tokens = list(_guarded("template", lambda: list(_ANY.lex(text))))
    statement: list[str] = []
    for _line_number, kind, value in tokens:
        if kind == "block_begin":
            statement = []
        if kind == "string" and statement == ["include"] and value[1:-1] in names:
            parts.append(f'"{names[value[1:-1]]}"')
        else:
            parts.append(value)
        if kind in ("name", "string"):
            statement.append(value)
    return "".join(parts)


def _parse(text: str, where: str, environment: sandbox.Sandbox) -> nodes.Template:
    tree: nodes.Template = _guarded(where, lambda: environment.parse(text))
    return tree


def _guarded(where: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What *act* returns; whatever a template can make the compiler raise becomes BadTemplate."""
    try:
        return act()
    except TemplateSyntaxError as error:
        raise BadTemplate(f"{where}, line {error.lineno}: {error.message}") from error
    except sandbox.Refused as error:
        raise BadTemplate(f"{where}: {error.message}") from error
    except (TemplateError, SyntaxError, *_NONSENSE) as error:
        raise BadTemplate(f"{where}: too deeply nested, or nothing Jinja can compile") from error


def _included(tree: nodes.Template) -> set[str]:
    return {
        node.template.value for node in tree.find_all(nodes.Include) if isinstance(node.template, nodes.Const)
    }


def _variables(
    name: str,
    digest: str,
    partials: Mapping[str, str],
    environment: sandbox.Sandbox,
    depth: int,
    known: dict[str, set[str]],
) -> set[str]:
    """What a partial and all it includes use; every partial is read once."""
    if digest in known:
        return known[digest]
    if depth >= MAX_DEPTH:
        raise BadTemplate(f"partial {name!r}: partials include each other more than {MAX_DEPTH} deep")
    if digest not in partials:
        raise BadTemplate(f"partial {name!r} ({short(digest)}) is not given")
    where = f"partial {name!r}"
    tree = _parse(partials[digest], where, environment)
    used = meta.find_undeclared_variables(tree)
    for inner in sorted(_included(tree)):
        used |= _variables(inner, inner, partials, environment, depth + 1, known)
    _guarded(where, lambda: environment.get_template(digest))
    known[digest] = used
    return used


def _differs(what: str, used: set[str], declared: set[str]) -> str:
    undeclared, unused = sorted(used - declared), sorted(declared - used)
    return f"{what} differ: used but not declared {undeclared}, declared but not used {unused}"


def _line(error: BaseException) -> str:
    """Where in its template an error arose, as `, line 3`."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == "<template>":
            lines = re.findall(r"(\d+)=(\d+)", str(frame.f_globals.get("debug_info", "")))
            at = [line for line, compiled in lines if int(compiled) <= trace.tb_lineno]
            found = f", line {at[-1]}" if at else found
        trace = trace.tb_next
    return found


def _reason(error: BaseException) -> str:
    """Why a render failed, without what it was given."""
    if isinstance(error, sandbox.Refused):
        return str(error.message)
    if isinstance(error, SecurityError):
        return "it reaches for what is unsafe"
    if isinstance(error, UndefinedError):
        return "it uses an attribute or element that its variable does not have"
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    return f"it computes what cannot be ({type(error).__name__})"


def _json(name: str, kind: str, text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadTemplate(f"variable {name!r}: its value is no JSON, as {kind} has to be") from error
