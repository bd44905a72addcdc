"""
Other people's metrics over our bench: their prompts and arithmetic, our calls.

A library gets a model that asks the `Bench`, so that every call is cached, paced, priced and counted as those
of native metrics are, and nothing of the library opens a connection or retries.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import math
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

from evals.errors import ScoreFailed
from evals.judging.base import Bench, Message
from evals.judging.verdict import read
from registry.errors import PlatformError
from registry.plugins import missing

T = TypeVar("T")
Check = Callable[[Any], str | None]
"""What else is wrong with a reply that fits its schema, without quoting it; None for nothing."""
_REPLY_CHARACTERS = 8_000
"""Most of a malformed reply that is sent back."""


def require(library: str) -> None:
    """Nothing, if *library* is installed; it is not imported. Raises MissingExtra."""
    if importlib.util.find_spec(library) is None:
        raise missing(ModuleNotFoundError(name=library), library)


def load(module: str, environment: Mapping[str, str]) -> ModuleType:
    """
    A *module* of a library that comes with the extra of the same name.

    Args:
        environment: variables the library reads on import; those already set keep their value.

    Raises:
        MissingExtra: the library, or something it needs, is not installed.
    """
    for key, value in environment.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise missing(error, module.partition(".")[0]) from error


@dataclass(slots=True)
class Ear:
    """What one score of a *library* asks of the judge, and what came of it. Not for several scores."""

    bench: Bench
    library: str
    """The start of the kinds of its failures, such as `ragas`."""
    check: Check | None = None
    heard: list[Any] = field(default_factory=list)
    """The replies so far as plain JSON, for `Scored.details`."""
    failure: PlatformError | None = None
    """The first failure: what the library makes of it does not matter."""
    _asked: dict[str, int] = field(default_factory=dict)

    async def ask(self, prompt: str, model: Any) -> Any:  # noqa: ANN401
        """
        The judge's reply to *prompt* as an instance of the pydantic class *model*.

        One call, and one more with what was wrong if the first reply does not fit; JSON is read strictly. A
        prompt that is asked again is meant as another sample: with a temperature it gets a seed of its own,
        without one the first answer stands.

        Raises:
            ScoreFailed: `<library>_malformed` or `<library>_nan` after the second reply; what `Bench.ask`
                raises. Remembered, because libraries may catch it.
        """
        try:
            return await self._ask(prompt, model)
        except PlatformError as error:
            self.failure = self.failure or error
            raise

    async def _ask(self, prompt: str, model: Any) -> Any:  # noqa: ANN401
        shape = model.model_json_schema()
        parameters = self._seed(prompt)
        sent, checked = strict(shape), strict(shape, optional=True)
        messages: list[Message] = [{"role": "user", "content": prompt}]
        fits: list[Any] = []

        def wrong(value: Any) -> str | None:  # noqa: ANN401
            fits.append(fit(value, model))
            return fits[-1] if isinstance(fits[-1], str) else self.check(fits[-1]) if self.check else None

        reply = await self.bench.ask(messages, schema=sent, parameters=parameters)
        try:
            self.heard.append(read(reply, checked, wrong))
        except ScoreFailed as error:
            messages += [
                {"role": "assistant", "content": reply[:_REPLY_CHARACTERS]},
                {
                    "role": "user",
                    "content": f"That reply cannot be used: {error.message}. Reply again with the corrected "
                    "JSON object only.",
                },
            ]
            again = await self.bench.ask(messages, schema=sent, parameters=parameters)
            try:
                self.heard.append(read(again, checked, wrong))
            except ScoreFailed as last:
                raise ScoreFailed(last.kind.replace("judge", self.library, 1), last.message) from last
        return fits[-1]

    async def vectors(self, texts: list[str]) -> list[list[float]]:
        """
        One vector a text, in order.

        Raises:
            ScoreFailed: `<library>_bad_vectors`: empty, of different lengths, zero or not finite; what
                `Bench.embed` raises.
        """
        try:
            found = await self.bench.embed(texts)
            sound = all(map(_is_direction, found)) and len({len(vector) for vector in found}) == 1
            if not sound:
                raise ScoreFailed(f"{self.library}_bad_vectors", "an embedding has no direction")
        except PlatformError as error:
            self.failure = self.failure or error
            raise
        return found

    async def listen(self, work: Awaitable[T]) -> T:
        """
        What the library's *work* returns.

        Raises:
            ScoreFailed: the failure of a call, whatever the library made of it; else `<library>_failed` for
                any exception of its own.
        """
        try:
            found = await work
        except PlatformError as error:
            raise self.failure or error from error
        except Exception as error:  # whatever a library raises, it is no score
            raise self.failure or ScoreFailed(
                f"{self.library}_failed", f"{self.library} raised {type(error).__name__}"
            ) from error
        if self.failure:
            raise self.failure
        return found

    def number(self, value: Any, low: float, high: float) -> float:  # noqa: ANN401
        """
        *value* as a score in [low, high], give or take 1e-6 of rounding.

        Raises:
            ScoreFailed: `<library>_nan` for None, NaN and infinities, `<library>_malformed` for what is no
                number, `<library>_out_of_range`.
        """
        if value is None:
            raise ScoreFailed(f"{self.library}_nan", f"{self.library} gave no score")
        try:
            score = float(value)
        except (TypeError, ValueError) as error:
            raise ScoreFailed(f"{self.library}_malformed", f"{self.library} gave no number") from error
        if not math.isfinite(score):
            raise ScoreFailed(f"{self.library}_nan", f"{self.library} gave a score that is not finite")
        if not low - 1e-6 <= score <= high + 1e-6:
            raise ScoreFailed(f"{self.library}_out_of_range", f"a score outside {low:g} to {high:g}")
        return min(max(score, low), high)

    def _seed(self, prompt: str) -> dict[str, Any]:
        before = self._asked.get(prompt, 0)
        self._asked[prompt] = before + 1
        own = self.bench.judge.parameters
        return {"seed": int(own.get("seed", 0)) + before} if before and own.get("temperature") else {}


def strict(schema: Mapping[str, Any], *, optional: bool = False) -> dict[str, Any]:
    """
    A pydantic JSON Schema as servers with strict structured output take it: references put in their place,
    no titles or defaults, no other keys, every key required.

    Args:
        optional: leave keys that have a default out of `required`, to check replies of lax servers.

    >>> strict({"$defs": {"N": {"type": "integer", "title": "N"}}, "type": "object",
    ...         "properties": {"n": {"$ref": "#/$defs/N"}}})["properties"]
    {'n': {'type': 'integer'}}
    """
    known = schema.get("$defs", {})

    def plain(part: Mapping[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            return plain(known[part["$ref"].rpartition("/")[2]])
        kept = {key: part[key] for key in ("type", "enum", "const", "description") if key in part}
        if "anyOf" in part:
            kept["anyOf"] = [plain(one) for one in part["anyOf"]]
        if "items" in part:
            kept["items"] = plain(part["items"])
        if "properties" in part:
            kept["properties"] = {key: plain(one) for key, one in part["properties"].items()}
            kept["required"] = list(part.get("required", ()) if optional else part["properties"])
            kept["additionalProperties"] = False
        return kept

    return plain(schema)


def fit(value: Any, model: Any) -> Any:  # noqa: ANN401
    """*value* as an instance of the pydantic class *model*; or, as text, where it does not fit."""
    from pydantic import ValidationError

    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the reply'} does not fit ({first['type']})"


def _is_direction(vector: list[float]) -> bool:
    return any(vector) and all(map(math.isfinite, vector))
