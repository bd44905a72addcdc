"""
Strict reading of YAML and JSON into frozen dataclasses.

Every error names the file, the line, the key and the remedy; an unknown key is an error that
offers the nearest valid one. Types are those of the dataclass: nothing is coerced silently.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml

from registry.errors import BadInput

T = TypeVar("T")
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 4_000_000


def read(path: Path, shape: type[T]) -> T:
    """
    The file at *path*, YAML or JSON, as an instance of the dataclass *shape*.

    Raises:
        BadInput: no such file, not UTF-8, not YAML, an unknown or missing key, a wrong type.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise BadInput(message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 at byte {error.start}"
        raise BadInput(message) from error
    return loads(text, shape, source=str(path))


def loads(text: str, shape: type[T], *, source: str = "input") -> T:
    """
    YAML or JSON *text* as an instance of the dataclass *shape*.

    Args:
        source: what to call the text in errors, usually its path.

    Raises:
        BadInput: as `read`.
    """
    if len(text) > _MAX_BYTES:
        message = f"{source}: longer than {_MAX_BYTES} characters"
        raise BadInput(message)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        message = f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}"
        raise BadInput(message) from error
    if node is None:
        return build({}, shape, source=source)
    lines: dict[str, int] = {}
    value = _plain(node, "", lines, source, 0)
    return cast("T", _build(value, shape, "", _Places(source, lines)))


def build(value: Mapping[str, Any], shape: type[T], *, source: str = "input") -> T:
    """
    A plain mapping as an instance of the dataclass *shape*, under the same rules.

    Raises:
        BadInput: as `read`, without line numbers.
    """
    return cast("T", _build(value, shape, "", _Places(source, {})))


def nearest(key: str, valid: typing.Iterable[str]) -> str:
    """A hint such as `; did you mean 'port'?`, or the sorted list of what is valid."""
    names = sorted(valid)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; valid keys: {', '.join(names)}"


class _Places:
    """Where each key stood in the source."""

    def __init__(self, source: str, lines: dict[str, int]) -> None:
        self.source = source
        self.lines = lines

    def fail(self, path: str, problem: str) -> typing.NoReturn:
        line = self.lines.get(path)
        where = f"{self.source}:{line}" if line else self.source
        raise BadInput(f"{where}: {path or 'the whole document'}: {problem}")


def _plain(node: yaml.Node, path: str, lines: dict[str, int], source: str, depth: int) -> Any:  # noqa: ANN401
    lines.setdefault(path, node.start_mark.line + 1)
    if depth > 64:
        message = f"{source}:{lines[path]}: nested deeper than 64 levels"
        raise BadInput(message)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = f"{path}.{key}" if path else key
            if key in result:
                message = f"{source}:{key_node.start_mark.line + 1}: {here} is given twice"
                raise BadInput(message)
            lines[here] = key_node.start_mark.line + 1
            result[key] = _plain(value_node, here, lines, source, depth + 1)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(item, f"{path}[{index}]", lines, source, depth + 1)
            for index, item in enumerate(node.value)
        ]
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        message = f"{source}:{lines[path]}: {path}: {error}"
        raise BadInput(message) from error


@cache
def _hints(shape: type) -> dict[str, Any]:
    return typing.get_type_hints(shape)


def _build(value: Any, shape: Any, path: str, places: _Places) -> Any:  # noqa: ANN401
    origin = get_origin(shape)
    if shape is Any or shape is object:
        return value
    if origin in (Union, types.UnionType):
        return _union(value, shape, path, places)
    if origin is Literal:
        if value not in get_args(shape):
            options = ", ".join(map(str, get_args(shape)))
            places.fail(path, f"{value!r} is not one of {options}")
        return value
    if isinstance(shape, type) and is_dataclass(shape):
        return _dataclass(value, shape, path, places)
    if origin in (dict, Mapping) or origin is typing.get_origin(Mapping[str, int]):
        if not isinstance(value, Mapping):
            places.fail(path, f"expected a mapping, got {_kind(value)}")
        inner = get_args(shape)[1]
        return {
            str(key): _build(item, inner, f"{path}.{key}" if path else str(key), places)
            for key, item in value.items()
        }
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            places.fail(path, f"expected a list, got {_kind(value)}")
        inner = get_args(shape)[0]
        items = [_build(item, inner, f"{path}[{i}]", places) for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if shape is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if shape is Path and isinstance(value, str):
        return Path(value)
    if isinstance(shape, type) and type(value) is shape:
        return value
    shown = "" if path.endswith("api_key") else f" {_shown(value)}"
    return places.fail(path, f"expected {_name(shape)}, got {_kind(value)}{shown}")


def _union(value: Any, shape: Any, path: str, places: _Places) -> Any:  # noqa: ANN401
    options = get_args(shape)
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    errors: list[BadInput] = []
    for option in options:
        try:
            return _build(value, option, path, places)
        except BadInput as error:
            errors.append(error)
    if len(errors) == 1 or (isinstance(value, Mapping) and any(map(is_dataclass, options))):
        raise errors[0]
    return places.fail(
        path, f"expected {' or '.join(map(_name, options))}, got {_kind(value)} {_shown(value)}"
    )


def _dataclass(value: Any, shape: type, path: str, places: _Places) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        places.fail(path, f"expected a mapping, got {_kind(value)}")
    hints = _hints(shape)
    known = {field.name: field for field in fields(shape) if field.init}
    for key in value:
        if key not in known:
            here = f"{path}.{key}" if path else str(key)
            places.fail(here, f"unknown key{nearest(str(key), known)}")
    arguments = {}
    for name, field in known.items():
        here = f"{path}.{name}" if path else name
        if name in value:
            arguments[name] = _build(value[name], hints[name], here, places)
        elif field.default is MISSING and field.default_factory is MISSING:
            places.fail(path, f"key {name!r} is missing")
    try:
        return shape(**arguments)
    except BadInput as error:
        return places.fail(path, error.message)


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) else ""
    return text if len(text) <= 60 else text[:57] + "..."


def _name(shape: Any) -> str:  # noqa: ANN401
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(shape) or str(getattr(shape, "__name__", shape))
