"""Find plug-ins by name: built-in and third-party ones register the same way."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec
from typing import cast

from registry.errors import MissingExtra, NotFound

EXTRA_OF = {
    "bedrock": "litellm",
    "chroma": "rag",
    "llamacpp": "llamacpp",
    "minilm": "rag",
    "onnx": "classical",
    "vertex_ai": "vertex",
}


def names(group: str) -> list[str]:
    """The sorted names of the entry points in `sluicegate.<group>`; nothing is imported."""
    return sorted({point.name for point in _points(group)})


@cache
def _installed() -> EntryPoints:
    """Read once: what is installed does not change under a running process."""
    return cast("EntryPoints", entry_points())


def _points(group: str) -> EntryPoints:
    return _installed().select(group=f"sluicegate.{group}")


def load(group: str, name: str) -> object:
    """
    The object registered as *name* in `sluicegate.<group>`; its module is imported now.

    Raises:
        NotFound: no such plug-in; the message lists those there are.
        MissingExtra: the plug-in's own dependency is not installed.
    """
    for point in _points(group):
        if point.name != name:
            continue
        try:
            return point.load()
        except ModuleNotFoundError as error:
            raise missing(error, EXTRA_OF.get(name)) from error
    known = ", ".join(names(group)) or "none"
    message = f"no plug-in {name!r} in sluicegate.{group}; there are: {known}"
    raise NotFound(message)


def is_installed(module: str) -> bool:
    """Whether *module*, which may be one of a package, can be imported; it is not."""
    try:
        return find_spec(module) is not None
    except ImportError:  # its package is not there
        return False


def missing(error: ModuleNotFoundError, extra: str | None) -> MissingExtra:
    """The error that tells which extra brings the module that *error* misses."""
    remedy = f"pip install 'sluicegate[{extra}]'" if extra else f"pip install {error.name}"
    return MissingExtra(f"module {error.name!r} is not installed: {remedy}")
