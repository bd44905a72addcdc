"""Fields of a request under the names that each provider knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.dataplane.request import Body


class _Habits(NamedTuple):
    renamed: Mapping[str, str] = {}
    """Field → what the provider calls it, in every request."""
    dropped: frozenset[str] = frozenset()
    """Fields that the provider refuses, and whose effect it has anyway."""
    translated: Mapping[str, str] = {}
    """As `renamed`, in requests that came in another dialect only."""
    unknown: frozenset[str] = frozenset()
    """Fields that the provider refuses; left out of requests that came in another dialect."""


_NEWER = frozenset(("prompt_cache_key", "safety_identifier", "verbosity"))
"""Fields that OpenAI and Azure alone know for sure, and others may refuse."""
_OLDER_LIMIT = {"max_completion_tokens": "max_tokens"}
_OPENAI = _Habits(translated={"max_tokens": "max_completion_tokens"}, unknown=frozenset(("top_k",)))
_HABITS: Mapping[str, _Habits] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "gemini": _Habits(unknown=_NEWER | {"top_k"}),
    "groq": _Habits(unknown=_NEWER | {"top_k"}),
    # Ends every stream with its usage, and refuses to be asked for it.
    "mistral": _Habits(_OLDER_LIMIT, frozenset(("stream_options",)), unknown=_NEWER | {"top_k", "user"}),
    "together": _Habits(_OLDER_LIMIT, unknown=_NEWER),
    "tgi": _Habits(_OLDER_LIMIT, unknown=_NEWER),
    "responses": _Habits(unknown=frozenset(("top_k",))),
    "litellm": _Habits(unknown=_NEWER | {"top_k"}),
}
_OTHERS = _Habits(unknown=_NEWER)
_PARTICULAR = tuple(f"{name}/" for name, habits in _HABITS.items() if habits.renamed or habits.dropped)
"""Beginnings of models to which no request goes out as it is."""


def fitted(body: Body, model_name: str, *, translated: bool) -> Body:
    """
    *body* as the provider of *model_name* (`provider/model`) knows its fields.

    A *translated* request came in another dialect: its client did not choose the names, so what the provider
    would refuse is left out. Of others only names change, and what the provider does unasked goes.

    >>> from gateway.dataplane.request import parse
    >>> list(fitted(parse(b'{"max_completion_tokens": 9}'), "mistral/small", translated=False))
    ['max_tokens']
    """
    if not translated and not model_name.startswith(_PARTICULAR):
        return body
    habits = _HABITS.get(model_name.partition("/")[0], _OTHERS)
    if translated:
        body = {name: value for name, value in body.items() if name not in habits.unknown}
        body = _renamed(body, habits.translated)
    return _renamed({name: body[name] for name in body if name not in habits.dropped}, habits.renamed)


def _renamed(body: Body, names: Mapping[str, str]) -> Body:
    """*body* under new *names*; a field that is there under both keeps the value of the new one."""
    kept = {name: value for name, value in body.items() if name not in names}
    return {names[name]: value for name, value in body.items() if name in names} | kept
