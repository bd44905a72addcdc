from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.entities.engine_options import EXTRA
from registry.entities.engine_parts import Adapter, Speculation
from registry.entities.engines import VLLMEngine, engine_of, engine_of_release
from registry.entities.releases import ReleaseContent
from registry.errors import BadInput
from registry.parse import loads

BASE = "sha256:" + "b" * 64
OTHER = "sha256:" + "c" * 64
LORA = {"source": "/loras/a", "base_digest": BASE}

FILE = f"""
model: Qwen/Qwen3-8B
revision: 9f1c2e7
model_digest: {BASE}
served_names: [qwen3]
quantization: fp8
kv_cache_dtype: fp8_e4m3
gpu_memory_utilization: 0.9
gpus: 2
tensor_parallel_size: 2
enable_prefix_caching: true
max_lora_rank: 32
loras:
  law: {{source: /loras/law, base_digest: "{BASE}", rank: 32}}
speculation: {{method: ngram, num_speculative_tokens: 4, prompt_lookup_max: 5}}
extra: {{enforce-eager: true, cpu-offload-gb: 2}}
"""


def test_an_engine_is_read_from_yaml() -> None:
    assert loads(FILE, VLLMEngine) == VLLMEngine(
        model="Qwen/Qwen3-8B",
        revision="9f1c2e7",
        model_digest=BASE,
        served_names=("qwen3",),
        quantization="fp8",
        kv_cache_dtype="fp8_e4m3",
        gpu_memory_utilization=0.9,
        gpus=2,
        tensor_parallel_size=2,
        enable_prefix_caching=True,
        max_lora_rank=32,
        loras={"law": Adapter("/loras/law", BASE, 32)},
        speculation=Speculation("ngram", 4, prompt_lookup_max=5),
        extra={"enforce-eager": True, "cpu-offload-gb": 2},
    )


def test_an_error_names_file_line_field_and_remedy() -> None:
    with pytest.raises(BadInput) as caught:
        loads(FILE.replace("gpus: 2", "gpu: 2"), VLLMEngine, source="engine.yaml")
    assert caught.value.message == "engine.yaml:9: gpu: unknown key; did you mean 'gpus'?"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": "../m"}, "model '../m' is neither a hub id"),
        ({"model": "relative/../../m"}, "is neither a hub id"),
        ({"model": "/models/../etc"}, "is neither a hub id"),
        ({"model": "--trust-remote-code"}, "is neither a hub id"),
        ({"model": "s3://bucket/m"}, "is neither a hub id"),
        ({"model": "/models/m", "revision": "main"}, "revision 'main': a folder has none"),
        ({"revision": "-x"}, "revision '-x' is not a commit, tag or branch"),
        ({"model_digest": "sha256:12"}, "model_digest 'sha256:12' is not sha256:<64 hex digits>"),
        ({"served_names": ["a b"]}, "'a b' is no name for a model"),
        ({"served_names": ["a", "a"]}, "'a' would name two models"),
        ({"served_names": ["-a"]}, "'-a' is no name for a model"),
        ({"quantization": "int3"}, "'int3' is not one of awq, gptq, fp8, bitsandbytes, none"),
        ({"quantization": "awq", "dtype": "float32"}, "dtype float32: awq computes in half or bfloat16"),
        ({"quantization": "fp8", "kv_cache_dtype": "fp8_e5m2"}, "does not go with fp8 weights; use fp8_e4m3"),
        ({"device": "cpu", "kv_cache_dtype": "bfloat16"}, "on device cpu it is one of auto, fp8, fp8_e4m3"),
        ({"device": "cpu", "gpus": 1}, "gpus needs device cuda"),
        ({"device": "cpu", "gpu_memory_utilization": 0.5}, "gpu_memory_utilization needs device cuda"),
        ({"device": "cpu", "kv_offload_gib": 1}, "kv_offload_gib needs device cuda"),
        ({"device": "cpu", "quantization": "bitsandbytes"}, "bitsandbytes needs device cuda"),
        ({"kv_cache_gib": 4, "gpu_memory_utilization": 0.5}, "both size the cache; leave one out"),
        ({"gpu_memory_utilization": 0}, "gpu_memory_utilization 0.0 is not above 0 and at most 1"),
        ({"gpu_memory_utilization": 1.01}, "gpu_memory_utilization 1.01 is not"),
        ({"gpus": 4, "tensor_parallel_size": 4, "pipeline_parallel_size": 2}, "4 x 2 needs 8 of 4 gpus"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size 0 is not 1 to 1024"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "tokens 32 is below max_num_seqs 64"),
        (
            {"enable_chunked_prefill": False, "max_model_len": 8192, "max_num_batched_tokens": 4096},
            "4096 is below max_model_len 8192, and without enable_chunked_prefill a prompt has to fit",
        ),
        ({"seed": -1}, "seed -1 is not 0 to"),
        ({"enable_auto_tool_choice": True}, "enable_auto_tool_choice needs tool_call_parser"),
        (
            {"tool_call_parser": "hermez"},
            "tool_call_parser 'hermez' is not one of vLLM's; did you mean 'hermes'",
        ),
        ({"reasoning_parser": "qwen33"}, "reasoning_parser 'qwen33' is not one of vLLM's; did you mean"),
        ({"structured_output_compact": True}, "needs structured_output_backend xgrammar or guidance"),
        ({"max_lora_rank": 16}, "max_lora_rank and max_loras are for loras, and there are none"),
        ({"loras": {"a": LORA}}, "pin model_digest, so that their base can be compared"),
        ({"loras": {"a": LORA}, "model_digest": OTHER}, f"loras.a: it was trained on {BASE}, and the engine"),
        ({"loras": {"a": {**LORA, "rank": 64}}, "model_digest": BASE}, "rank 64 is above max_lora_rank 16"),
        (
            {"loras": {"a": LORA}, "model_digest": BASE, "max_lora_rank": 24},
            "max_lora_rank 24 is not one of 1, 8",
        ),
        ({"loras": {"org/m": LORA}, "model_digest": BASE}, "'org/m' would name two models"),
        ({"loras": {"a": {**LORA, "source": "loras/a"}}, "model_digest": BASE}, "neither an absolute folder"),
        (
            {"loras": {"a": {**LORA, "base_digest": "main"}}, "model_digest": BASE},
            "base_digest 'main' is not",
        ),
        ({"speculation": {"method": "ngram", "num_speculative_tokens": 3}}, "ngram needs prompt_lookup_max"),
        (
            {"speculation": {"method": "ngram", "num_speculative_tokens": 3, "model": "org/d"}},
            "method ngram has no model",
        ),
        (
            {
                "speculation": {
                    "method": "ngram",
                    "num_speculative_tokens": 3,
                    "prompt_lookup_min": 6,
                    "prompt_lookup_max": 5,
                }
            },
            "prompt_lookup_min 6 is not 1 to 5",
        ),
        ({"speculation": {"method": "draft", "num_speculative_tokens": 3}}, "method draft needs model"),
        (
            {
                "speculation": {
                    "method": "eagle",
                    "num_speculative_tokens": 3,
                    "model": "org/e",
                    "prompt_lookup_max": 2,
                }
            },
            "belong to method ngram, not eagle",
        ),
        (
            {
                "tensor_parallel_size": 4,
                "speculation": {
                    "method": "draft",
                    "num_speculative_tokens": 3,
                    "model": "org/d",
                    "draft_tensor_parallel_size": 2,
                },
            },
            "draft_tensor_parallel_size 2 is neither 1 nor tensor_parallel_size 4",
        ),
        ({"extra": {"trust-remote-code": True}}, "extra.trust-remote-code: refused: it would run code"),
        ({"extra": {"api-key": "k"}}, "extra.api-key: refused: every user of the machine can read"),
        ({"extra": {"host": "::"}}, "extra.host: refused: whoever starts the engine decides it"),
        ({"extra": {"max-model-len": 5}}, "extra.max-model-len: set the field max_model_len instead"),
        (
            {"extra": {"enforce-eagr": True}},
            "not a flag that an engine may be given; did you mean 'enforce-eager'",
        ),
        ({"extra": {"enforce-eager": "yes"}}, "extra.enforce-eager: expected true or false, got 'yes'"),
        ({"extra": {"max-logprobs": True}}, "extra.max-logprobs: expected a whole number, got True"),
        ({"extra": {"max-logprobs": -1}}, "extra.max-logprobs: -1 is below 0"),
        ({"extra": {"load-format": "--x"}}, "extra.load-format: '--x' is not a value"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_read(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        engine_of({"model": "org/m", **change})
    assert problem in caught.value.message


def test_a_release_fills_in_the_digest_and_refuses_another() -> None:
    serving = {"model": "org/m", "loras": {"a": LORA}}
    assert engine_of(serving, model_digest=BASE).model_digest == BASE
    with pytest.raises(
        BadInput, match=r"^release: model_digest .* is not sha256:c+, which the release pins$"
    ):
        engine_of({"model": "org/m", "model_digest": BASE}, model_digest=OTHER, source="release")


def test_a_release_is_served_by_an_engine_that_knows_its_name() -> None:
    serving = {"model": "/models/q", "served_names": ["qwen3"]}
    release = ReleaseContent(
        kind="chat", name="support", model="vllm/qwen3", model_digest=BASE, serving=serving
    )
    assert engine_of_release(release) == VLLMEngine(
        model="/models/q", model_digest=BASE, served_names=("qwen3",)
    )
    assert engine_of_release(replace(release, serving=None)) is None
    with pytest.raises(BadInput) as caught:
        engine_of_release(replace(release, serving={"model": "/models/q"}))
    assert caught.value.message == (
        "support: serving: it serves /models/q, and the release asks for qwen3; set served_names"
    )


def test_names_are_those_of_the_model_and_its_adapters() -> None:
    engine = engine_of({"model": "org/m", "model_digest": BASE, "loras": {"law": LORA}})
    assert (engine.names(), engine.world_size()) == (("org/m", "law"), 1)


def test_cautions_say_what_is_allowed_and_yet_worth_knowing() -> None:
    guess = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 5}
    risky = engine_of(
        {"model": "org/m", "quantization": "bitsandbytes", "kv_cache_dtype": "fp8", "speculation": guess}
    )
    assert [caution.split(":")[0] for caution in risky.cautions()] == [
        "bitsandbytes left vLLM's core",
        "an FP8 cache makes fewer guesses of the speculation right",
        "org/m is not pinned",
    ]
    assert engine_of({"model": "org/m", "revision": "v1"}).cautions() == ()
    assert engine_of({"model": "/models/m"}).cautions() == ()


@given(st.text(), st.one_of(st.booleans(), st.integers(), st.floats(), st.text()))
def test_no_flag_outside_the_list_is_taken(flag: str, value: Any) -> None:
    try:
        engine = engine_of({"model": "org/m", "extra": {flag: value}})
    except BadInput:
        return
    assert flag in EXTRA and engine.extra == {flag: value}


@given(model=st.text(max_size=40))
def test_no_model_name_can_be_taken_for_a_flag(model: str) -> None:
    try:
        engine = engine_of({"model": model})
    except BadInput:
        return
    assert not engine.model.startswith("-") and engine.model.isprintable() and ".." not in model.split("/")
