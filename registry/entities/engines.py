"""
An inference engine: how vLLM runs one model, checked before anything is started.

    engine = engine_of({"model": "Qwen/Qwen3-8B", "quantization": "fp8", "max_model_len": 8192})

The fields are vLLM's own, under its names; what they are checked against is vLLM 0.32. Two of a person's
older options are gone there: `swap_space` (see `kv_offload_gib`), and bitsandbytes in vLLM's core.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from registry.entities.engine_options import (
    CPU_KV_CACHE_DTYPES,
    LORA_RANKS,
    REASONING_PARSERS,
    TOOL_CALL_PARSERS,
    Device,
    Dtype,
    KvCacheDtype,
    Option,
    Quantization,
    StructuredBackend,
    check_extra,
)
from registry.entities.engine_parts import Adapter, Speculation, check_model, known, refuse, within
from registry.entities.releases import ReleaseContent
from registry.errors import BadInput
from registry.ids import is_digest
from registry.parse import build

_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_WHOLE_FLOATS = frozenset({"float", "float32"})


@dataclass(frozen=True, slots=True)
class VLLMEngine:
    """
    One model as vLLM runs it. None leaves a choice to vLLM.

    Raises BadInput when it is built with values that vLLM refuses, or that contradict each other.
    """

    model: str
    """Hub id such as `Qwen/Qwen3-8B`, or an absolute folder."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    model_digest: str | None = None
    """`sha256:…` of the weights. LoRA adapters need it."""
    served_names: tuple[str, ...] = ()
    """What requests call the model; empty: *model* itself."""
    device: Device = "cuda"
    gpus: int | None = None
    """GPUs of the machine, where known: parallel sizes must fit."""
    quantization: Quantization = "none"
    dtype: Dtype = "auto"
    max_model_len: int | None = None
    """Tokens of prompt and answer together."""
    max_num_seqs: int | None = None
    """Requests in one batch."""
    max_num_batched_tokens: int | None = None
    """Tokens in one step of the batch."""
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    kv_cache_dtype: KvCacheDtype = "auto"
    kv_cache_gib: int | None = None
    """GiB of keys and values on each device; instead of *gpu_memory_utilization*."""
    kv_offload_gib: float | None = None
    """GiB of main memory for keys and values that the GPUs have no room for; over all GPUs."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that vLLM takes, above 0 and at most 1."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    speculation: Speculation | None = None
    loras: Mapping[str, Adapter] = field(default_factory=dict)
    """Name in requests → adapter."""
    max_lora_rank: int | None = None
    max_loras: int | None = None
    """Adapters in one batch."""
    structured_output_backend: StructuredBackend = "auto"
    structured_output_compact: bool = False
    """Whether JSON comes without white space: small models can else fill an answer with it."""
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool = False
    reasoning_parser: str | None = None
    seed: int | None = None
    extra: Mapping[str, Option] = field(default_factory=dict)
    """Further flags, of those in `engine_options.EXTRA`, without `--`."""

    def __post_init__(self) -> None:
        """Refuse what vLLM would refuse after minutes of loading, or would quietly not do."""
        check_model("model", self.model, self.revision)
        if self.model_digest is not None and not is_digest(self.model_digest):
            refuse(f"model_digest {self.model_digest!r} is not sha256:<64 hex digits>")
        _check_numbers(self)
        _check_names(self)
        _check_memory(self)
        _check_parallel(self)
        _check_batch(self)
        _check_loras(self)
        _check_output(self)
        own = frozenset(each.name for each in fields(VLLMEngine)) | _SPELLED_OTHERWISE
        for flag, value in self.extra.items():
            check_extra(flag, value, own)

    def world_size(self) -> int:
        """Devices it needs: tensor times pipeline parallel size."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def names(self) -> tuple[str, ...]:
        """Every name that a request may ask for: the model's, then the adapters'."""
        return (*(self.served_names or (self.model,)), *self.loras)

    def cautions(self) -> tuple[str, ...]:
        """What is allowed and yet worth knowing before it serves; empty where nothing is."""
        found = []
        if self.quantization == "bitsandbytes":
            found.append("bitsandbytes left vLLM's core: since 0.32 the image needs a plug-in that has it")
        if self.speculation and self.kv_cache_dtype.startswith("fp8"):
            found.append("an FP8 cache makes fewer guesses of the speculation right: measure both together")
        if "/" in self.model and not self.model.startswith("/") and not (self.revision or self.model_digest):
            found.append(f"{self.model} is not pinned: without revision, tomorrow's weights may be others")
        return tuple(found)


_SPELLED_OTHERWISE = frozenset({
    "enable_lora", "kv_cache_memory_bytes", "kv_offloading_size", "lora_modules", "served_model_name",
    "speculative_config", "structured_outputs_config",
})  # fmt: skip
"""Flags of vLLM that the fields of an engine become, where the names differ."""


def engine_of(
    serving: Mapping[str, Any], *, model_digest: str | None = None, source: str = "serving"
) -> VLLMEngine:
    """
    The engine that a release's `serving` describes.

    Args:
        model_digest: what the release pins; it fills a missing one, and must equal one that is there.
        source: what to call the mapping in errors.

    Raises:
        BadInput: an unknown key, a wrong type, a contradiction, or a digest other than the release's.
    """
    own = serving.get("model_digest")
    if model_digest is not None and own is not None and own != model_digest:
        message = f"{source}: model_digest {own!r} is not {model_digest}, which the release pins"
        raise BadInput(message)
    values = {**serving, "model_digest": model_digest} if model_digest and own is None else serving
    return build(values, VLLMEngine, source=source)


def engine_of_release(release: ReleaseContent) -> VLLMEngine | None:
    """
    The engine that *release* is served by; None where it does not say how its model is run.

    Raises:
        BadInput: as `engine_of`, or the engine serves no model of the release's name.
    """
    if release.serving is None:
        return None
    engine = engine_of(release.serving, model_digest=release.model_digest, source=f"{release.name}: serving")
    asked = release.model.partition("/")[2]
    if asked not in engine.names():
        names = ", ".join(engine.names())
        message = (
            f"{release.name}: serving: it serves {names}, and the release asks for {asked}; set served_names"
        )
        raise BadInput(message)
    return engine


def _check_numbers(engine: VLLMEngine) -> None:
    within("max_model_len", engine.max_model_len, 1, 100_000_000)
    within("max_num_seqs", engine.max_num_seqs, 1, 65_536)
    within("max_num_batched_tokens", engine.max_num_batched_tokens, 1, 100_000_000)
    within("kv_cache_gib", engine.kv_cache_gib, 1, 65_536)
    within("tensor_parallel_size", engine.tensor_parallel_size, 1, 1024)
    within("pipeline_parallel_size", engine.pipeline_parallel_size, 1, 1024)
    within("gpus", engine.gpus, 1, 1024)
    within("max_loras", engine.max_loras, 1, 1024)
    within("seed", engine.seed, 0, 2**32 - 1)
    share = engine.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        refuse(f"gpu_memory_utilization {share} is not above 0 and at most 1")
    offload = engine.kv_offload_gib
    if offload is not None and not 0 < offload <= 65_536:
        refuse(f"kv_offload_gib {offload} is not above 0 and at most 65536")


def _check_names(engine: VLLMEngine) -> None:
    names = engine.names()
    for name in (*engine.served_names, *engine.loras):
        if not _SERVED.fullmatch(name):
            refuse(f"{name!r} is no name for a model: 1 to 128 of A-Z a-z 0-9 . _ : / @ -")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        refuse(f"served_names and loras: {min(twice)!r} would name two models")


def _check_memory(engine: VLLMEngine) -> None:
    if engine.kv_cache_gib is not None and engine.gpu_memory_utilization is not None:
        refuse("kv_cache_gib and gpu_memory_utilization both size the cache; leave one out")
    if engine.quantization != "none" and engine.dtype in _WHOLE_FLOATS:
        refuse(f"dtype {engine.dtype}: {engine.quantization} computes in half or bfloat16")
    if engine.quantization == "fp8" and engine.kv_cache_dtype == "fp8_e5m2":
        refuse("kv_cache_dtype fp8_e5m2 does not go with fp8 weights; use fp8_e4m3")
    if engine.device != "cpu":
        return
    if engine.kv_cache_dtype not in CPU_KV_CACHE_DTYPES:
        options = ", ".join(sorted(CPU_KV_CACHE_DTYPES))
        refuse(f"kv_cache_dtype {engine.kv_cache_dtype}: on device cpu it is one of {options}")
    gpu_only = {
        "gpus": engine.gpus,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "kv_offload_gib": engine.kv_offload_gib,
    }
    for name, value in gpu_only.items():
        if value is not None:
            refuse(f"{name} needs device cuda; on cpu set kv_cache_gib")
    if engine.quantization == "bitsandbytes":
        refuse("quantization bitsandbytes needs device cuda")


def _check_parallel(engine: VLLMEngine) -> None:
    needed = engine.world_size()
    if engine.gpus is not None and needed > engine.gpus:
        sizes = f"{engine.tensor_parallel_size} x {engine.pipeline_parallel_size}"
        refuse(
            f"tensor_parallel_size x pipeline_parallel_size = {sizes} needs {needed} of {engine.gpus} gpus"
        )
    guess = engine.speculation
    size = guess.draft_tensor_parallel_size if guess else None
    if size is not None and size not in (1, engine.tensor_parallel_size):
        refuse(
            f"speculation.draft_tensor_parallel_size {size} is neither 1 nor tensor_parallel_size"
            f" {engine.tensor_parallel_size}"
        )


def _check_batch(engine: VLLMEngine) -> None:
    tokens, length, seqs = engine.max_num_batched_tokens, engine.max_model_len, engine.max_num_seqs
    if tokens is not None and seqs is not None and tokens < seqs:
        refuse(f"max_num_batched_tokens {tokens} is below max_num_seqs {seqs}")
    if (
        engine.enable_chunked_prefill is False
        and tokens is not None
        and length is not None
        and tokens < length
    ):
        refuse(
            f"max_num_batched_tokens {tokens} is below max_model_len {length}, and without"
            " enable_chunked_prefill a prompt has to fit one step"
        )


def _check_loras(engine: VLLMEngine) -> None:
    rank = engine.max_lora_rank
    if rank is not None and rank not in LORA_RANKS:
        refuse(f"max_lora_rank {rank} is not one of {', '.join(map(str, LORA_RANKS))}")
    if not engine.loras:
        if rank is not None or engine.max_loras is not None:
            refuse("max_lora_rank and max_loras are for loras, and there are none")
        return
    if engine.model_digest is None:
        refuse("loras: pin model_digest, so that their base can be compared with it")
    for name, adapter in engine.loras.items():
        if adapter.base_digest != engine.model_digest:
            refuse(
                f"loras.{name}: it was trained on {adapter.base_digest}, and the engine runs"
                f" {engine.model_digest}"
            )
        if adapter.rank is not None and adapter.rank > (rank or 16):
            refuse(f"loras.{name}: rank {adapter.rank} is above max_lora_rank {rank or 16}")


def _check_output(engine: VLLMEngine) -> None:
    if engine.enable_auto_tool_choice and engine.tool_call_parser is None:
        refuse("enable_auto_tool_choice needs tool_call_parser")
    known("tool_call_parser", engine.tool_call_parser, TOOL_CALL_PARSERS)
    known("reasoning_parser", engine.reasoning_parser, REASONING_PARSERS)
    if engine.structured_output_compact and engine.structured_output_backend not in ("xgrammar", "guidance"):
        refuse("structured_output_compact needs structured_output_backend xgrammar or guidance")
