"""What vLLM 0.32 knows by name: parsers, LoRA ranks, and the further flags an engine may be given."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from registry.errors import BadInput
from registry.parse import nearest

Quantization = Literal["awq", "gptq", "fp8", "bitsandbytes", "none"]
"""`none` leaves it to the model's own files: vLLM reads `quantization_config` of its `config.json`."""
Dtype = Literal["auto", "half", "float16", "bfloat16", "float", "float32"]
KvCacheDtype = Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"]
StructuredBackend = Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"]
Device = Literal["cuda", "cpu"]
Option = str | int | float | bool

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
CPU_KV_CACHE_DTYPES = frozenset({"auto", "fp8", "fp8_e4m3", "fp8_e5m2"})
"""What the attention kernels for processors store keys and values as."""
TOOL_CALL_PARSERS = frozenset({
    "apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32",
    "deepseek_v4", "deepseek_v41", "dots", "ernie45", "functiongemma", "gemma4", "gigachat3", "glm45",
    "glm47", "granite", "granite-20b-fc", "granite4", "hermes", "hf", "hunyuan_a13b", "hy_v3", "hy_v4",
    "inkling", "internlm", "jamba", "k2_horizon", "kimi_k2", "kimi_k3", "lfm2", "ling3", "llama3_json",
    "llama4_json", "llama4_pythonic", "longcat", "mimo", "minicpm5", "minimax_m2", "minimax_m3", "mistral",
    "muse_glimmer", "olmo3", "openai", "phi4_mini_json", "plamo3", "poolside_v1", "pythonic", "qwen3_coder",
    "qwen3_json", "qwen3_xml", "seed_oss", "step3", "step3p5", "xlam",
})  # fmt: skip
REASONING_PARSERS = frozenset({
    "cohere_command3", "cohere_command4", "deepseek_r1", "deepseek_v3", "deepseek_v4", "deepseek_v41",
    "ernie45", "gemma4", "glm45", "glm47", "granite", "granite_thinking_parser", "hf", "holo2",
    "hunyuan_a13b", "hy_v3", "hy_v4", "inkling", "k2_horizon", "kimi_k2", "kimi_k3", "ling3", "mimo",
    "minicpmv", "minimax_m2", "minimax_m2_append_think", "minimax_m3", "mistral", "muse_glimmer",
    "nemotron_v3", "olmo3", "openai_gptoss", "plamo3", "poolside_v1", "qwen3", "seed_oss", "step3",
    "step3p5",
})  # fmt: skip

EXTRA: Mapping[str, type] = MappingProxyType(
    {
        "async-scheduling": bool,
        "block-size": int,
        "cpu-offload-gb": float,
        "disable-custom-all-reduce": bool,
        "disable-uvicorn-access-log": bool,
        "enable-force-include-usage": bool,
        "enable-prompt-tokens-details": bool,
        "enforce-eager": bool,
        "generation-config": str,
        "kv-cache-metrics": bool,
        "load-format": str,
        "long-prefill-token-threshold": int,
        "max-cpu-loras": int,
        "max-log-len": int,
        "max-logprobs": int,
        "max-num-queued-reqs": int,
        "prefix-caching-hash-algo": str,
        "safetensors-load-strategy": str,
        "scheduling-policy": str,
        "sse-keep-alive-interval": int,
        "stream-interval": int,
        "uvicorn-log-level": str,
    }
)
"""Further flags that an engine may be given, without `--`, and the type of each one's value."""

_CODE = "it would run code that no release pins"
_FILES = "it would let a request read files or fetch addresses"
_OWNED = "whoever starts the engine decides it"
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "allowed-local-media-path": _FILES,
        "allowed-media-domains": _FILES,
        "api-key": "every user of the machine can read a command line; the key travels in the environment",
        "config": "it would hide options from this check",
        "download-dir": _OWNED,
        "enable-log-outputs": "it would write answers to the log",
        "enable-log-requests": "it would write prompts to the log",
        "hf-token": "every user of the machine can read a command line; set HF_TOKEN where the engine runs",
        "host": _OWNED,
        "logits-processors": _CODE,
        "middleware": _CODE,
        "port": _OWNED,
        "reasoning-parser-plugin": _CODE,
        "root-path": _OWNED,
        "scheduler-cls": _CODE,
        "shutdown-timeout": _OWNED,
        "tool-parser-plugin": _CODE,
        "tool-server": _CODE,
        "trust-remote-code": _CODE,
        "trust-request-chat-template": "it would let a request replace the chat template",
        "uds": _OWNED,
        "worker-cls": _CODE,
        "worker-extension-cls": _CODE,
    }
)


def check_extra(flag: str, value: Option, fields: frozenset[str]) -> None:
    """
    Refuse a further flag that is not on the list, and why.

    Args:
        flag: without `--`, words joined by `-`.
        fields: the engine's own fields, which are set there.

    Raises:
        BadInput: it has a field of its own, is refused for a reason, is unknown, or its value has
            another type.
    """
    where = f"extra.{flag}"
    if flag.replace("-", "_") in fields:
        message = f"{where}: set the field {flag.replace('-', '_')} instead"
        raise BadInput(message)
    if flag in _REFUSED:
        message = f"{where}: refused: {_REFUSED[flag]}"
        raise BadInput(message)
    if flag not in EXTRA:
        message = f"{where}: not a flag that an engine may be given{nearest(flag, EXTRA)}"
        raise BadInput(message)
    kind = EXTRA[flag]
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        message = f"{where}: expected {_SHOWN[kind]}, got {value!r}"
        raise BadInput(message)
    if isinstance(value, str) and (not value or value.startswith("-") or not value.isprintable()):
        message = f"{where}: {value!r} is not a value: write printable text that does not begin with '-'"
        raise BadInput(message)
    if not isinstance(value, bool | str) and value < 0:
        message = f"{where}: {value!r} is below 0"
        raise BadInput(message)


_SHOWN: Mapping[type, str] = MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
)
