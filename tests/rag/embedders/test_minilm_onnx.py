from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from rag.embedders import minilm_onnx
from rag.embedders.minilm import published

SENTENCES = [
    [101, 2129, 2214, 2003, 2016, 1029, 102],
    [101, 1996, 4937, 2938, 2006, 1996, 13523, 1012, 102],
    [101, 7592, 102],
    [101, *range(2000, 2254), 102],
]
"""Token ids; the last has all 256 positions."""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, onnxruntime.InferenceSession]:
    folder = tmp_path_factory.mktemp("graphs")
    sessions = {}
    for quantised in (True, False):
        minilm_onnx.write(published(), folder / f"{quantised}.onnx", quantised=quantised)
        sessions[quantised] = onnxruntime.InferenceSession(folder / f"{quantised}.onnx")
        assert (folder / f"{quantised}.onnx").stat().st_size < (25_000_000 if quantised else 92_000_000)
    return sessions


def run(session: onnxruntime.InferenceSession, rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
    vectors: np.ndarray = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    return vectors


def test_int8_stays_close_to_float32(graphs: dict[bool, onnxruntime.InferenceSession]) -> None:
    exact, small = (np.stack([run(graphs[kind], [row])[0] for row in SENTENCES]) for kind in (False, True))
    assert (exact * small).sum(axis=1).min() > 0.97


def test_padding_changes_nothing_in_float32(graphs: dict[bool, onnxruntime.InferenceSession]) -> None:
    alone = np.stack([run(graphs[False], [row])[0] for row in SENTENCES])
    assert np.allclose(alone, run(graphs[False], SENTENCES), atol=1e-6)


def test_the_float32_graph_gives_the_published_vector(
    graphs: dict[bool, onnxruntime.InferenceSession],
) -> None:
    assert np.allclose(reference(SENTENCES[0]), run(graphs[False], [SENTENCES[0]])[0], atol=1e-6)


def reference(ids: list[int]) -> np.ndarray:
    """The same model as plain NumPy in float64, straight from the definition of BERT."""
    import json
    import math

    from safetensors.numpy import load_file

    folder: Path = published()
    config = json.loads((folder / "config.json").read_text())
    weights = {
        name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()
    }

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        product: np.ndarray = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return product

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        result: np.ndarray = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return result

    e = "embeddings"
    x = weights[f"{e}.word_embeddings.weight"][ids] + weights[f"{e}.position_embeddings.weight"][: len(ids)]
    x = norm(f"{e}.LayerNorm", x + weights[f"{e}.token_type_embeddings.weight"][0])
    heads = config["num_attention_heads"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            dense(f"{layer}.attention.self.{part}", x).reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        logits = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        heard = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(f"{layer}.attention.output.LayerNorm", dense(f"{layer}.attention.output.dense", heard) + x)
        wide = dense(f"{layer}.intermediate.dense", x)
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", dense(f"{layer}.output.dense", wide) + x)
    mean = x.mean(axis=0)
    unit: np.ndarray = mean / np.linalg.norm(mean)
    return unit
