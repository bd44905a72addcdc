"""What engines are made of: speculation, LoRA adapters, and the checks that their fields share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from registry.entities.engine_options import LORA_RANKS
from registry.errors import BadInput
from registry.ids import is_digest
from registry.parse import nearest

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_FOLDER = re.compile(r"(/[A-Za-z0-9._+@=:, -]+)+/?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True, slots=True)
class Speculation:
    """Tokens guessed ahead and checked in one pass: by looking back, or by a smaller model."""

    method: Literal["ngram", "draft", "eagle", "eagle3"]
    num_speculative_tokens: int
    """Guessed at a time, 1 to 32."""
    model: str | None = None
    """Hub id or absolute folder of the draft model or EAGLE head; none for ngram."""
    revision: str | None = None
    prompt_lookup_min: int | None = None
    """Shortest run of tokens that ngram looks for in the prompt."""
    prompt_lookup_max: int | None = None
    draft_tensor_parallel_size: int | None = None
    """1, or that of the engine."""

    def __post_init__(self) -> None:
        """Refuse parameters that the method does not have."""
        within("num_speculative_tokens", self.num_speculative_tokens, 1, 32)
        if self.method == "ngram":
            drafts = (self.model, self.revision, self.draft_tensor_parallel_size)
            if drafts != (None, None, None):
                refuse("method ngram has no model, revision or draft_tensor_parallel_size")
            if self.prompt_lookup_max is None:
                refuse("method ngram needs prompt_lookup_max, the longest run of tokens to look for")
            within("prompt_lookup_max", self.prompt_lookup_max, 1, 64)
            within("prompt_lookup_min", self.prompt_lookup_min, 1, self.prompt_lookup_max)
            return
        if (self.prompt_lookup_min, self.prompt_lookup_max) != (None, None):
            refuse(f"prompt_lookup_min and prompt_lookup_max belong to method ngram, not {self.method}")
        if self.model is None:
            refuse(f"method {self.method} needs model, the one that guesses")
        check_model("model", self.model, self.revision)
        within("draft_tensor_parallel_size", self.draft_tensor_parallel_size, 1, 1024)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter, and the base it was trained on."""

    source: str
    """Absolute folder, or `sha256:…` of one that whoever starts the engine knows."""
    base_digest: str
    """`sha256:…` of the weights that it was trained on: those that the engine must pin."""
    rank: int | None = None
    """Its rank, where known; it must fit `max_lora_rank`."""

    def __post_init__(self) -> None:
        """Refuse a source that is neither folder nor digest, and a base that is no digest."""
        if not is_digest(self.source) and not is_folder(self.source):
            refuse(f"source {self.source!r} is neither an absolute folder nor sha256:<64 hex digits>")
        if not is_digest(self.base_digest):
            refuse(f"base_digest {self.base_digest!r} is not sha256:<64 hex digits>")
        within("rank", self.rank, 1, LORA_RANKS[-1])


def check_model(name: str, model: str, revision: str | None) -> None:
    """Refuse what is neither a hub id nor an absolute folder, and the revision of a folder."""
    if is_folder(model):
        if revision is not None:
            refuse(f"revision {revision!r}: a folder has none; leave it out")
    elif not _HUB_ID.fullmatch(model):
        refuse(f"{name} {model!r} is neither a hub id such as Qwen/Qwen3-8B nor an absolute folder")
    if revision is not None and not _REVISION.fullmatch(revision):
        refuse(f"revision {revision!r} is not a commit, tag or branch")


def is_folder(text: str) -> bool:
    """Whether *text* is an absolute folder, without `..` and what a shell would read otherwise."""
    return _FOLDER.fullmatch(text) is not None and ".." not in text.split("/")


def within(name: str, value: float | None, low: int, high: int) -> None:
    """Refuse a number outside *low* to *high*; None is no number."""
    if value is not None and not low <= value <= high:
        refuse(f"{name} {value} is not {low} to {high}")


def known(name: str, value: str | None, valid: frozenset[str]) -> None:
    """Refuse a name that vLLM does not know; None is no name."""
    if value is not None and value not in valid:
        hint = nearest(value, valid).replace("valid keys", "valid")
        refuse(f"{name} {value!r} is not one of vLLM's{hint}")


def refuse(problem: str) -> NoReturn:
    """Raise BadInput, saying *problem*."""
    raise BadInput(problem)
