"""Where an environment variable such as `MODEL__MAX_DEPTH` belongs in a nested document."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from classical.errors import BadParams
from registry import parse


def place(document: dict[str, Any], root: type, variable: str, text: str) -> None:
    """
    Put *text* at the place in *document* that *variable* names.

    Text stays text where the field wants text; elsewhere it is read as YAML, so `[a, b]` is a list
    and `null` is nothing. The value's type is checked when the document is built, not here.

    Args:
        document: plain mappings, nested as *root*; changed in place, missing levels are added.
        root: the dataclass the document will become; its fields are matched in lower case, the
            keys of its mappings whatever their case.
        variable: for example `MODEL__MAX_DEPTH`.

    Raises:
        BadParams: no such key in *root*, or *text* is not YAML.
    """
    shape: Any = root
    here = document
    *outer, last = variable.split("__")
    for part in outer:
        shape, key = _step(shape, part, here, variable)
        here[key] = dict(here.get(key) or {})
        here = here[key]
    shape, key = _step(shape, last, here, variable)
    options = [option for option in get_args(shape) if option is not type(None)]
    optional = get_origin(shape) in (Union, types.UnionType) and len(options) < len(get_args(shape))
    try:
        if optional and text in ("", "null"):
            here[key] = None
        elif (options[0] if optional else shape) in (str, Path):
            here[key] = text
        else:
            here[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadParams(f"{variable}: not a valid value") from error


def _step(shape: Any, part: str, here: Mapping[str, Any], variable: str) -> tuple[Any, str]:  # noqa: ANN401
    """The type and the key that one *part* of a variable's name leads to."""
    if is_dataclass(shape):
        hints = get_type_hints(shape)
        if part.lower() not in hints:
            valid = [f"{variable.removesuffix(part)}{name.upper()}" for name in hints]
            raise BadParams(f"{variable}: unknown key{parse.nearest(variable, valid)}")
        return hints[part.lower()], part.lower()
    if get_origin(shape) is Mapping:
        named = [key for key in here if key.upper() == part.upper()]
        return get_args(shape)[1], named[0] if named else part
    raise BadParams(f"{variable}: goes deeper than params.yaml does")
