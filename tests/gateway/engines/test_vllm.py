from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engines.vllm import arguments, command, environment, folders_of, needs_hub
from registry.entities.engine_options import (
    EXTRA,
    LORA_RANKS,
    REASONING_PARSERS,
    TOOL_CALL_PARSERS,
    Dtype,
    KvCacheDtype,
    Quantization,
    StructuredBackend,
)
from registry.entities.engine_parts import Adapter
from registry.entities.engines import VLLMEngine, engine_of
from registry.errors import BadInput
from tests.gateway.engines import strict
from tests.gateway.engines.engines import ADAPTER, BASE, ENGINES, EVERY_EXTRA, FOLDERS

KEY = "sk-engine-0123456789abcdef"
REAL = """
import json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
commands = json.load(sys.stdin)
sys.argv = ["vllm", "serve"]
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser(prog="vllm"))
for command in commands:
    parser.parse_args(command)
"""


@pytest.mark.parametrize("name", ENGINES)
def test_vllm_takes_the_command_of_every_engine(name: str) -> None:
    argv, _ = command(ENGINES[name], 8000, folders=FOLDERS)
    model, values = strict.parse(argv[1:])
    assert (argv[0], model) == ("vllm", ENGINES[name].model)
    assert (values["--host"], values["--port"]) == (["127.0.0.1"], ["8000"])


SOME: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["org/m", "/models/a b", "/models/a=1,2", "m"]),
    "revision": st.sampled_from(["main", "v1.0", "refs/pr/3"]),
    "served_names": st.lists(st.sampled_from(["a", "b/c", "d@e"]), unique=True).map(tuple),
    "device": st.sampled_from(["cuda", "cpu"]),
    "gpus": st.integers(1, 16),
    "quantization": st.sampled_from(get_args(Quantization)),
    "dtype": st.sampled_from(get_args(Dtype)),
    "max_model_len": st.integers(1, 200_000),
    "max_num_seqs": st.integers(1, 512),
    "max_num_batched_tokens": st.integers(1, 200_000),
    "enable_chunked_prefill": st.booleans(),
    "enable_prefix_caching": st.booleans(),
    "kv_cache_dtype": st.sampled_from(get_args(KvCacheDtype)),
    "kv_cache_gib": st.integers(1, 100),
    "kv_offload_gib": st.floats(0.001, 1000),
    "gpu_memory_utilization": st.floats(0.00001, 1),
    "tensor_parallel_size": st.integers(1, 8),
    "pipeline_parallel_size": st.integers(1, 4),
    "structured_output_backend": st.sampled_from(get_args(StructuredBackend)),
    "structured_output_compact": st.booleans(),
    "tool_call_parser": st.sampled_from(sorted(TOOL_CALL_PARSERS)),
    "enable_auto_tool_choice": st.booleans(),
    "reasoning_parser": st.sampled_from(sorted(REASONING_PARSERS)),
    "seed": st.integers(0, 2**32 - 1),
    "extra": st.dictionaries(st.sampled_from(sorted(EVERY_EXTRA)), st.none()).map(
        lambda some: {flag: EVERY_EXTRA[flag] for flag in some}
    ),
}


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {"model": SOME["model"]}, optional={name: some for name, some in SOME.items() if name != "model"}
    )
)
def test_vllm_takes_whatever_an_engine_may_be(values: dict[str, Any]) -> None:
    try:
        engine = engine_of(values)
    except BadInput:
        return
    model, found = strict.parse(arguments(engine, 8000, host="::1")[1:])
    assert (model, found.get("--served-model-name", [])) == (engine.model, list(engine.served_names))


def test_every_allowed_flag_is_one_that_vllm_has_and_is_no_secret() -> None:
    known = strict.flags()
    kinds = {flag: known[f"--{flag}"] for flag in EXTRA}
    assert {flag for flag, (kind, _) in kinds.items() if kind == "switch"} == {
        flag for flag, type_ in EXTRA.items() if type_ is bool
    }
    assert known["--max-lora-rank"][1] == ",".join(map(str, LORA_RANKS))


def test_the_installed_vllm_takes_every_command() -> None:
    program = shutil.which("vllm")
    if program is None:
        pytest.skip("vLLM is not installed here")
    python = Path(program).read_text().partition("\n")[0].removeprefix("#!").strip()
    commands = [arguments(engine, 8000, host="::1", folders=FOLDERS)[2:] for engine in ENGINES.values()]
    done = subprocess.run(
        [python, "-c", REAL],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")


def test_a_whole_command() -> None:
    assert command(ENGINES["fp8"], 8123, api_key=KEY) == (
        [
            "vllm", "serve", "Qwen/Qwen3-8B", "--host", "127.0.0.1", "--port", "8123",
            "--quantization", "fp8", "--kv-cache-dtype", "fp8_e4m3",
            "--max-model-len", "8192", "--max-num-seqs", "64", "--max-num-batched-tokens", "16384",
            "--gpu-memory-utilization", "0.85", "--no-enable-chunked-prefill", "--no-enable-prefix-caching",
        ],
        {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_API_KEY": KEY},
    )  # fmt: skip


def test_the_key_is_in_the_environment_and_in_no_argument() -> None:
    for engine in ENGINES.values():
        argv, variables = command(engine, 8000, api_key=KEY, folders=FOLDERS)
        assert not [argument for argument in argv if KEY in argument]
        assert variables["VLLM_API_KEY"] == KEY
        assert "VLLM_API_KEY" not in environment(engine)


def test_speculation_is_the_json_that_vllm_takes() -> None:
    found = {}
    for name in ("ngram", "draft", "eagle"):
        _, values = strict.parse(arguments(ENGINES[name], 1, host="::1")[1:])
        found[name] = json.loads(values["--speculative-config"][0])
    assert found == {
        "ngram": {
            "method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 5,
        },
        "draft": {
            "method": "draft_model", "num_speculative_tokens": 5, "model": "org/small", "revision": "v2",
            "draft_tensor_parallel_size": 1,
        },
        "eagle": {"method": "eagle3", "num_speculative_tokens": 3, "model": "/models/head"},
    }  # fmt: skip


def test_adapters_are_named_with_their_folder_and_base() -> None:
    _, values = strict.parse(arguments(ENGINES["loras"], 1, host="::1", folders=FOLDERS)[1:])
    assert [json.loads(value) for value in values["--lora-modules"]] == [
        {"name": "law", "path": "/models/loras/law", "base_model_name": "m"},
        {"name": "tax", "path": "/models/loras/tax=1,2", "base_model_name": "m"},
    ]
    assert "--enable-lora" in values and values["--max-lora-rank"] == ["64"]


def test_an_adapter_whose_folder_nobody_knows_is_refused() -> None:
    with pytest.raises(BadInput, match=f"loras.tax: no folder holds {ADAPTER}"):
        command(ENGINES["loras"], 8000)


def test_an_engine_of_folders_asks_no_hub() -> None:
    assert {name for name, engine in ENGINES.items() if not needs_hub(engine)} == {"cpu", "eagle", "loras"}
    assert environment(ENGINES["cpu"]) == {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }


def test_the_cache_is_sized_by_flag_on_gpus_and_by_variable_on_processors() -> None:
    _, on_gpu = strict.parse(arguments(ENGINES["awq"], 1, host="::1")[1:])
    _, on_cpu = strict.parse(arguments(ENGINES["cpu"], 1, host="::1")[1:])
    assert on_gpu["--kv-cache-memory-bytes"] == [str(20 * 1024**3)]
    assert "--kv-cache-memory-bytes" not in on_cpu
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(ENGINES["awq"])


def test_running_answers_may_end_when_the_engine_is_told_to() -> None:
    _, values = strict.parse(command(ENGINES["plain"], 8000, drain_s=20)[0][1:])
    assert values["--shutdown-timeout"] == ["20"]
    with pytest.raises(BadInput, match="drain_s -1 is not 0 to 3600"):
        command(ENGINES["plain"], 8000, drain_s=-1)


def test_folders_are_listed_once_each() -> None:
    engine = VLLMEngine(
        model="/m", model_digest=BASE, loras={"a": Adapter("/l/a", BASE), "b": Adapter("/l/a", BASE)}
    )
    assert folders_of(engine) == ("/m", "/l/a")
    assert folders_of(ENGINES["eagle"]) == ("/models/m", "/models/head")


@pytest.mark.parametrize(
    ("port", "host", "key", "problem"),
    [
        (0, "127.0.0.1", None, "port 0 is not 1 to 65535"),
        (65_536, "127.0.0.1", None, "port 65536"),
        (8000, "192.0.2.1", None, "host 192.0.2.1: others can reach it; give the engine an api_key"),
        (8000, "127.0.0.1", "short", "api_key: at least 16"),
        (8000, "127.0.0.1", "with spaces in between them", "api_key: at least 16"),
        (8000, "127.0.0.1", "line\nbreak-in-a-long-key", "api_key: at least 16"),
    ],
)
def test_an_open_or_impossible_address_is_refused(
    port: int, host: str, key: str | None, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        command(ENGINES["plain"], port, host=host, api_key=key)
    assert key is None or key not in caught.value.message
