"""
A `VLLMEngine` as the command that serves it.

    argv, environment = command(engine, 8000, api_key=key)

Flags are those of vLLM 0.32. The key travels in the environment: every user of a machine can read its
command lines. Nothing is reported to vLLM's makers, and an engine that needs no hub asks none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registry.entities.engines import VLLMEngine
from registry.errors import BadInput
from registry.ids import is_digest

_GIB = 1 << 30
_METHODS = {"ngram": "ngram", "draft": "draft_model", "eagle": "eagle", "eagle3": "eagle3"}
"""Our word for a way to guess ahead → vLLM's."""
_SETTINGS = {
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_offload_gib": "--kv-offloading-size",
    "tool_call_parser": "--tool-call-parser",
    "reasoning_parser": "--reasoning-parser",
    "seed": "--seed",
}
"""Field → flag, where the value is written as it is."""


def command(
    engine: VLLMEngine,
    port: int,
    *,
    host: str = "127.0.0.1",
    api_key: str | None = None,
    drain_s: int = 0,
    folders: Mapping[str, str] | None = None,
    program: str = "vllm",
) -> tuple[list[str], dict[str, str]]:
    """
    The argument vector that serves *engine*, and what its environment needs besides the usual.

    Args:
        port: 1 to 65535.
        host: address to listen on; loopback needs no key, anything else does.
        api_key: what requests must carry; it appears in the environment alone.
        drain_s: how long running answers may go on after SIGTERM; at 0 vLLM cuts them at once.
        folders: digest → absolute folder, of adapters that the engine names by digest.
        program: the `vllm` to run, where it is not on the path.

    Raises:
        BadInput: a port, key or drain_s that cannot be, an address that others reach without a key, or an
            adapter whose folder nobody knows.
    """
    _check_key(api_key, host)
    argv = arguments(engine, port, host=host, drain_s=drain_s, folders=folders, program=program)
    return argv, environment(engine, api_key)


def arguments(
    engine: VLLMEngine,
    port: int,
    *,
    host: str,
    drain_s: int = 0,
    folders: Mapping[str, str] | None = None,
    program: str = "vllm",
) -> list[str]:
    """The argument vector alone, for where the key comes from elsewhere; as `command`."""
    if not 1 <= port <= 65_535:
        message = f"port {port} is not 1 to 65535"
        raise BadInput(message)
    if not 0 <= drain_s <= 3600:
        message = f"drain_s {drain_s} is not 0 to 3600"
        raise BadInput(message)
    argv = [program, "serve", engine.model, "--host", host, "--port", str(port)]
    if drain_s:
        argv += ["--shutdown-timeout", str(drain_s)]
    for name, value in _flags(engine):
        argv += [name] if value is None else [name, value]
    if engine.served_names:
        argv += ["--served-model-name", *engine.served_names]
    if engine.loras:
        argv += ["--lora-modules", *_adapters(engine, folders or {})]
    return argv


def environment(engine: VLLMEngine, api_key: str | None = None) -> dict[str, str]:
    """What the environment of *engine* needs besides the usual; *api_key* is in it under `VLLM_API_KEY`."""
    found = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not needs_hub(engine):
        found |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if engine.device == "cpu" and engine.kv_cache_gib is not None:
        found["VLLM_CPU_KVCACHE_SPACE"] = str(engine.kv_cache_gib)
    if api_key is not None:
        found["VLLM_API_KEY"] = api_key
    return found


def needs_hub(engine: VLLMEngine) -> bool:
    """Whether its model, or the one that guesses for it, comes from a hub."""
    draft = engine.speculation.model if engine.speculation else None
    return any(model is not None and not model.startswith("/") for model in (engine.model, draft))


def folders_of(engine: VLLMEngine, folders: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """
    Every folder that *engine* reads: of its model, its draft, its adapters; in that order, each once.

    Raises:
        BadInput: *folders* has no entry for an adapter that is named by digest.
    """
    draft = engine.speculation.model if engine.speculation else None
    models = [model for model in (engine.model, draft) if model is not None and model.startswith("/")]
    adapters = [_folder(engine, name, folders or {}) for name in engine.loras]
    return tuple(dict.fromkeys([*models, *adapters]))


def speculative_config(engine: VLLMEngine) -> dict[str, Any] | None:
    """What `--speculative-config` takes; None where nothing is guessed."""
    guess = engine.speculation
    if guess is None:
        return None
    values = {
        "method": _METHODS[guess.method],
        "num_speculative_tokens": guess.num_speculative_tokens,
        "model": guess.model,
        "revision": guess.revision,
        "prompt_lookup_min": guess.prompt_lookup_min,
        "prompt_lookup_max": guess.prompt_lookup_max,
        "draft_tensor_parallel_size": guess.draft_tensor_parallel_size,
    }
    return {name: value for name, value in values.items() if value is not None}


def _flags(engine: VLLMEngine) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    if engine.revision is not None:
        found += [("--revision", engine.revision), ("--tokenizer-revision", engine.revision)]
    if engine.quantization != "none":
        found.append(("--quantization", engine.quantization))
    if engine.dtype != "auto":
        found.append(("--dtype", engine.dtype))
    if engine.kv_cache_dtype != "auto":
        found.append(("--kv-cache-dtype", engine.kv_cache_dtype))
    if engine.kv_cache_gib is not None and engine.device == "cuda":
        found.append(("--kv-cache-memory-bytes", str(engine.kv_cache_gib * _GIB)))
    for name, flag in _SETTINGS.items():
        value = getattr(engine, name)
        if value is not None:
            found.append((flag, str(value)))
    switches = {
        "enable-chunked-prefill": engine.enable_chunked_prefill,
        "enable-prefix-caching": engine.enable_prefix_caching,
        "enable-auto-tool-choice": engine.enable_auto_tool_choice or None,
        "enable-lora": bool(engine.loras) or None,
    }
    found += [(_switch(name, on), None) for name, on in switches.items() if on is not None]
    sizes = {
        "--tensor-parallel-size": engine.tensor_parallel_size,
        "--pipeline-parallel-size": engine.pipeline_parallel_size,
    }
    found += [(flag, str(size)) for flag, size in sizes.items() if size > 1]
    limits = {"--max-lora-rank": engine.max_lora_rank, "--max-loras": engine.max_loras}
    found += [(flag, str(limit)) for flag, limit in limits.items() if limit is not None]
    guess = speculative_config(engine)
    if guess is not None:
        found.append(("--speculative-config", _json(guess)))
    if engine.structured_output_backend != "auto":
        output: dict[str, Any] = {"backend": engine.structured_output_backend}
        if engine.structured_output_compact:
            output["disable_any_whitespace"] = True
        found.append(("--structured-outputs-config", _json(output)))
    for name, option in sorted(engine.extra.items()):
        found.append(
            (_switch(name, option), None) if isinstance(option, bool) else (f"--{name}", str(option))
        )
    return found


def _switch(name: str, on: bool) -> str:  # noqa: FBT001 - one word beside one word
    return f"--{name}" if on else f"--no-{name}"


def _adapters(engine: VLLMEngine, folders: Mapping[str, str]) -> list[str]:
    base = (engine.served_names or (engine.model,))[0]
    return [
        _json({"name": name, "path": _folder(engine, name, folders), "base_model_name": base})
        for name in engine.loras
    ]


def _folder(engine: VLLMEngine, name: str, folders: Mapping[str, str]) -> str:
    source = engine.loras[name].source
    if not is_digest(source):
        return source
    if source not in folders:
        message = f"loras.{name}: no folder holds {source}; fetch the adapter and say where it lies"
        raise BadInput(message)
    return folders[source]


def _check_key(api_key: str | None, host: str) -> None:
    if api_key is None:
        if host not in ("127.0.0.1", "::1", "localhost"):
            message = f"host {host}: others can reach it; give the engine an api_key"
            raise BadInput(message)
        return
    if len(api_key) < 16 or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        message = "api_key: at least 16 printable ASCII characters without spaces"
        raise BadInput(message)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
