"""The contents of what a release is made of: prompts, indexes, models, datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.errors import BadInput

VariableType = Literal["text", "number", "integer", "boolean", "list", "object"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message template of a prompt."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class PromptContent:
    """Jinja templates, the types of every variable they use, and what else a call with them carries."""

    messages: tuple[PromptMessage, ...]
    variables: Mapping[str, VariableType] = field(default_factory=dict)
    kind: Literal["text"] | None = None
    """`text` renders to one text, of its one message; None is a chat."""
    partials: Mapping[str, str] | None = None
    """Name in `{% include "name" %}` → digest of the prompt version (of kind text) that it stands for."""
    tools: tuple[Mapping[str, Any], ...] | None = None
    """Tools in OpenAI's shape that a call with this prompt offers."""
    response_schema: Mapping[str, Any] | None = None
    """JSON Schema that the answer has to meet."""

    def __post_init__(self) -> None:
        """Refuse a prompt without messages."""
        if not self.messages:
            message = "a prompt needs at least one message"
            raise BadInput(message)
        if self.kind == "text" and (len(self.messages) > 1 or self.tools or self.response_schema):
            message = "a prompt of kind text has one template, and neither tools nor a response schema"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class Chunker:
    """How documents become passages."""

    method: Literal["sentences"] = "sentences"
    max_chars: int = 400
    overlap_sentences: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot hold text."""
        if not 50 <= self.max_chars <= 20_000 or not 0 <= self.overlap_sentences <= 5:
            message = "chunker: max_chars is 50 to 20000, overlap_sentences 0 to 5"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class Embedder:
    """Which embedder made the vectors, by the digest of its weights."""

    name: str
    digest: str
    dimension: int


@dataclass(frozen=True, slots=True)
class IndexContent:
    """The manifest of a retrieval index: everything that decides what it returns."""

    corpus_digest: str
    """Over the canonical documents, sorted by id."""
    chunker: Chunker
    embedder: Embedder
    documents: int
    passages: int
    passages_digest: str
    """Blob of passages, JSON Lines sorted by id; vectors follow from it and the embedder."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One input column of a classical model."""

    name: str
    dtype: Literal["text", "number"]
    nullable: bool = True
    values: tuple[str, ...] = ()
    """Categories seen in training, for text; empty when open."""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class ModelContent:
    """A trained model: bytes that load without pickle, and how to call them."""

    format: Literal["onnx"]
    artifact: str
    """Digest of the blob that holds the model."""
    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    training: Mapping[str, Any]
    """Digests of data, parameters and environment lock; the held-out metrics."""


@dataclass(frozen=True, slots=True)
class DatasetContent:
    """An immutable evaluation set: JSON Lines in the artifact store."""

    artifact: str
    rows: int
    columns: tuple[str, ...]
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class JudgeContent:
    """What scores answers: a model, its rubric and its parameters."""

    model: str
    """`provider/model`."""
    rubric: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model_digest: str | None = None
    calibration: Mapping[str, Any] | None = None
    """How it agreed with people: dataset digest, agreement with its interval, when."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """Functions that a release offers its model, in OpenAI's shape."""

    tools: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        """Refuse what is no list of named functions."""
        names = []
        for tool in self.tools:
            function = tool.get("function")
            name = function.get("name") if isinstance(function, Mapping) else None
            if tool.get("type") != "function" or not isinstance(name, str) or not name:
                message = "tools: each is {type: function, function: {name: …, parameters: …}}"
                raise BadInput(message)
            names.append(name)
        if not names or len(set(names)) < len(names):
            message = "tools: name at least one function, and each once"
            raise BadInput(message)
