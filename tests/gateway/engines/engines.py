"""Engines of every kind, for tests of what is made from them."""

from __future__ import annotations

from registry.entities.engine_options import EXTRA, Option
from registry.entities.engine_parts import Adapter, Speculation
from registry.entities.engines import VLLMEngine

BASE = "sha256:" + "b" * 64
ADAPTER = "sha256:" + "a" * 64
_TEXTS = {
    "generation-config": "vllm",
    "load-format": "safetensors",
    "prefix-caching-hash-algo": "sha256",
    "safetensors-load-strategy": "lazy",
    "scheduling-policy": "priority",
    "uvicorn-log-level": "warning",
}
VALUES: dict[type, Option] = {bool: True, int: 16, float: 2.5}
EVERY_EXTRA: dict[str, Option] = {
    flag: _TEXTS[flag] if kind is str else VALUES[kind] for flag, kind in EXTRA.items()
}

ENGINES: dict[str, VLLMEngine] = {
    "plain": VLLMEngine(model="Qwen/Qwen3-8B"),
    "pinned": VLLMEngine(model="Qwen/Qwen3-8B", revision="9f1c2e7", served_names=("qwen3", "chat")),
    "fp8": VLLMEngine(
        model="Qwen/Qwen3-8B",
        quantization="fp8",
        kv_cache_dtype="fp8_e4m3",
        gpu_memory_utilization=0.85,
        max_model_len=8192,
        max_num_seqs=64,
        max_num_batched_tokens=16_384,
        enable_chunked_prefill=False,
        enable_prefix_caching=False,
    ),
    "awq": VLLMEngine(model="org/m-awq", quantization="awq", dtype="half", kv_cache_gib=20, seed=7),
    "gptq": VLLMEngine(model="org/m-gptq", quantization="gptq", kv_offload_gib=12.5),
    "bitsandbytes": VLLMEngine(model="org/m", quantization="bitsandbytes", dtype="bfloat16"),
    "parallel": VLLMEngine(model="org/big", gpus=8, tensor_parallel_size=4, pipeline_parallel_size=2),
    "ngram": VLLMEngine(
        model="org/m",
        speculation=Speculation("ngram", 4, prompt_lookup_min=2, prompt_lookup_max=5),
    ),
    "draft": VLLMEngine(
        model="org/m",
        tensor_parallel_size=2,
        speculation=Speculation("draft", 5, model="org/small", revision="v2", draft_tensor_parallel_size=1),
    ),
    "eagle": VLLMEngine(model="/models/m", speculation=Speculation("eagle3", 3, model="/models/head")),
    "loras": VLLMEngine(
        model="/models/m",
        model_digest=BASE,
        served_names=("m",),
        loras={"law": Adapter("/models/loras/law", BASE, rank=64), "tax": Adapter(ADAPTER, BASE)},
        max_lora_rank=64,
        max_loras=2,
    ),
    "tools": VLLMEngine(
        model="Qwen/Qwen3-8B",
        enable_auto_tool_choice=True,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        structured_output_backend="xgrammar",
        structured_output_compact=True,
    ),
    "cpu": VLLMEngine(
        model="/models/tiny", served_names=("tiny",), device="cpu", kv_cache_gib=1, kv_cache_dtype="fp8"
    ),
    "extra": VLLMEngine(model="org/m", extra=EVERY_EXTRA),
    "extra-off": VLLMEngine(model="org/m", extra=dict.fromkeys(["enforce-eager", "async-scheduling"], False)),
}
FOLDERS = {ADAPTER: "/models/loras/tax=1,2"}
