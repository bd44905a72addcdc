"""Prompt templates: sandboxed Jinja, strict variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from registry.entities import PromptContent
from registry.errors import BadTemplate

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False, trim_blocks=True
)
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
}

Render: TypeAlias = Callable[[Mapping[str, Any]], list[dict[str, str]]]


def compile_prompt(prompt: PromptContent) -> Render:
    """
    A function from variables to chat messages `[{"role", "content"}]`. Thread-safe.

    It raises BadTemplate for a missing, extra or wrongly typed variable.

    Raises:
        BadTemplate: a syntax error, or a variable that the template uses but does not declare
            (or the reverse).
    """
    templates = []
    used: set[str] = set()
    for message in prompt.messages:
        try:
            used |= meta.find_undeclared_variables(_ENVIRONMENT.parse(message.content))
            templates.append((message.role, _ENVIRONMENT.from_string(message.content)))
        except TemplateError as error:
            message_text = f"{message.role} message: {error}"
            raise BadTemplate(message_text) from error
    declared = set(prompt.variables)
    if used != declared:
        undeclared, unused = sorted(used - declared), sorted(declared - used)
        text = f"variables differ: used but not declared {undeclared}, declared but not used {unused}"
        raise BadTemplate(text)

    def render(values: Mapping[str, Any]) -> list[dict[str, str]]:
        check(prompt.variables, values)
        try:
            return [{"role": role, "content": t.render(values).strip()} for role, t in templates]
        except TemplateError as error:
            raise BadTemplate(f"cannot be rendered: {error}") from error

    return render


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
        if not isinstance(value, _TYPES[kind]) or (kind == "number" and isinstance(value, bool)):
            raise BadTemplate(f"variable {name!r} must be {kind}, got {type(value).__name__}")
