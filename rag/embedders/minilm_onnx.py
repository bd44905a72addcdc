"""
all-MiniLM-L6-v2 as an ONNX graph with int8 weights, written from its published ones without torch.

The graph takes `input_ids` and `attention_mask`, both int64 (n, s), and yields `embedding`,
float32 (n, 384), rows of unit length: BERT encoder, mean over the unmasked tokens, L2 norm.

Source: Devlin et al. 2019, "BERT", section 3 (encoder); Reimers and Gurevych 2019,
"Sentence-BERT", section 3 (mean pooling). Deviations, equal up to rounding: the token type is
always 0, so its row is added to the positions once; the query weights carry the 1/sqrt(d) of
attention; query, key and value are one product.

int8: a column of a weight matrix is W ≈ s·q with s = max|W| / 63 and q in [-63, 63]; activations
are quantised to 8 bits while running, with one scale for the whole batch. Seven bits, not eight,
because the AVX2 instruction for 8-bit products saturates above. Source: Jacob et al. 2018,
"Quantization and Training of Neural Networks", section 2.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

_MASKED = -1e9
"""Added to the attention of padding: its softmax is then exactly 0 in float32."""
_LEVELS = 63
_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # what opset 20 was released with

_Array = npt.NDArray[Any]


class _Graph:
    """A checkpoint and the graph made from it so far; every method returns a tensor's name."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, _Array], *, quantised: bool) -> None:
        self.config = config
        self.weights = weights
        self.quantised = quantised
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: _Array) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:  # noqa: ANN401 - as onnx
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{name}.node", **attributes))
        return name

    def rows(self, name: str, table: _Array, indices: str) -> str:
        """The rows of *table* that the tensor *indices* picks."""
        if not self.quantised:
            return self.node("Gather", self.constant(f"{name}.table", table), indices, name=name)
        small, scales = _quantise(table, axis=1)
        picked = self.node("Gather", self.constant(f"{name}.table", small), indices, name=f"{name}.int8")
        scale = self.node("Gather", self.constant(f"{name}.scales", scales), indices, name=f"{name}.scale")
        wide = self.node("Cast", picked, name=f"{name}.wide", to=TensorProto.FLOAT)
        return self.node("Mul", wide, scale, name=name)

    def affine(self, name: str, hidden: str, matrix: _Array, offset: _Array) -> str:
        """`hidden · matrix + offset`."""
        if self.quantised:
            product = self._small_product(name, hidden, matrix)
        else:
            constant = self.constant(f"{name}.matrix", matrix)
            product = self.node("MatMul", hidden, constant, name=f"{name}.product")
        return self.node("Add", product, self.constant(f"{name}.offset", offset), name=name)

    def _small_product(self, name: str, hidden: str, matrix: _Array) -> str:
        """The product in whole numbers; onnxruntime runs these five nodes as one."""
        small, scales = _quantise(matrix, axis=0)
        q, scale, zero = (f"{name}.{part}" for part in ("uint8", "scale", "zero"))
        self.nodes.append(
            helper.make_node("DynamicQuantizeLinear", [hidden], [q, scale, zero], name=f"{q}.node")
        )
        whole = self.node(
            "MatMulInteger", q, self.constant(f"{name}.matrix", small), zero, name=f"{name}.whole"
        )
        wide = self.node("Cast", whole, name=f"{name}.wide", to=TensorProto.FLOAT)
        factors = self.constant(f"{name}.scales", scales.reshape(-1))
        return self.node(
            "Mul", wide, self.node("Mul", scale, factors, name=f"{name}.factors"), name=f"{name}.product"
        )


def write(source: Path, target: Path, *, quantised: bool = True) -> None:
    """
    Write the graph of the checkpoint in folder *source* to the file *target*.

    Takes about a second. 23 MB; 90 MB in float32 when not *quantised*. The folder holds
    `config.json` and `model.safetensors`.
    """
    config = json.loads((source / "config.json").read_text())
    graph = _Graph(config, load_file(source / "model.safetensors"), quantised=quantised)
    mask = graph.node("Cast", "attention_mask", name="mask", to=TensorProto.FLOAT)
    bias = _attention_bias(graph, mask)
    hidden = _embeddings(graph)
    for number in range(config["num_hidden_layers"]):
        hidden = _layer(graph, f"encoder.layer.{number}", hidden, bias)
    _pool(graph, hidden, mask)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", config["hidden_size"]])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, [output], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _embeddings(graph: _Graph) -> str:
    key = "embeddings"
    words = graph.rows("words", graph.weights[f"{key}.word_embeddings.weight"], "input_ids")
    always = graph.weights[f"{key}.token_type_embeddings.weight"][0]
    table = graph.constant("positions", graph.weights[f"{key}.position_embeddings.weight"] + always)
    shape = graph.node("Shape", "input_ids", name="shape")
    length = graph.node("Slice", shape, graph.integers(1), graph.integers(2), name="length")
    positions = graph.node("Slice", table, graph.integers(0), length, name="position")
    return _norm(graph, f"{key}.LayerNorm", graph.node("Add", words, positions, name="placed"))


def _attention_bias(graph: _Graph, mask: str) -> str:
    padding = graph.node("Sub", graph.number("one", 1), mask, name="padding")
    bias = graph.node("Mul", padding, graph.number("masked", _MASKED), name="bias")
    return graph.node("Unsqueeze", bias, graph.integers(1, 2), name="bias_4d")


def _layer(graph: _Graph, key: str, hidden: str, bias: str) -> str:
    heard = _dense(graph, f"{key}.attention.output.dense", _attention(graph, key, hidden, bias))
    summed = graph.node("Add", heard, hidden, name=f"{key}.heard")
    middle = _norm(graph, f"{key}.attention.output.LayerNorm", summed)
    wide = graph.node("Gelu", _dense(graph, f"{key}.intermediate.dense", middle), name=f"{key}.active")
    narrow = _dense(graph, f"{key}.output.dense", wide)
    return _norm(graph, f"{key}.output.LayerNorm", graph.node("Add", narrow, middle, name=f"{key}.thought"))


def _attention(graph: _Graph, key: str, hidden: str, bias: str) -> str:
    """softmax(Q·Kᵀ/√d + bias)·V for every head, the heads joined again."""
    size, heads = graph.config["hidden_size"], graph.config["num_attention_heads"]
    width = size // heads
    at = f"{key}.attention.self"
    shrink = np.float32(width**-0.5)
    factors = {"query": shrink, "key": np.float32(1), "value": np.float32(1)}
    matrix = np.concatenate(
        [graph.weights[f"{at}.{part}.weight"].T * by for part, by in factors.items()], axis=1
    )
    offset = np.concatenate([graph.weights[f"{at}.{part}.bias"] * by for part, by in factors.items()])
    mixed = graph.affine(f"{at}.mixed", hidden, matrix, offset)
    split = graph.node("Reshape", mixed, graph.integers(0, 0, 3, heads, width), name=f"{at}.split")
    parts = graph.node("Transpose", split, name=f"{at}.parts", perm=[2, 0, 3, 1, 4])
    query, keys, values = (
        graph.node("Gather", parts, graph.constant(f"part_{n}", np.array(n, np.int64)), name=f"{at}.{part}")
        for n, part in enumerate(factors)
    )
    turned = graph.node("Transpose", keys, name=f"{at}.turned", perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", query, turned, name=f"{at}.scores")
    biased = graph.node("Add", scores, bias, name=f"{at}.biased")
    shares = graph.node("Softmax", biased, name=f"{at}.shares", axis=-1)
    heard = graph.node("MatMul", shares, values, name=f"{at}.heard")
    ordered = graph.node("Transpose", heard, name=f"{at}.ordered", perm=[0, 2, 1, 3])
    return graph.node("Reshape", ordered, graph.integers(0, 0, size), name=f"{at}.joined")


def _pool(graph: _Graph, hidden: str, mask: str) -> None:
    column = graph.node("Unsqueeze", mask, graph.integers(2), name="mask_3d")
    kept = graph.node("Mul", hidden, column, name="kept")
    # Dividing the sum by the number of tokens would not change its direction.
    total = graph.node("ReduceSum", kept, graph.integers(1), name="total", keepdims=0)
    length = graph.node("ReduceL2", total, graph.integers(1), name="norm", keepdims=1)
    graph.node("Div", total, length, name="embedding")


def _dense(graph: _Graph, key: str, hidden: str) -> str:
    return graph.affine(key, hidden, graph.weights[f"{key}.weight"].T, graph.weights[f"{key}.bias"])


def _norm(graph: _Graph, key: str, hidden: str) -> str:
    gain = graph.constant(f"{key}.gain", graph.weights[f"{key}.weight"])
    shift = graph.constant(f"{key}.shift", graph.weights[f"{key}.bias"])
    epsilon = float(graph.config["layer_norm_eps"])
    return graph.node("LayerNormalization", hidden, gain, shift, name=key, axis=-1, epsilon=epsilon)


def _quantise(matrix: _Array, axis: int) -> tuple[_Array, _Array]:
    """Whole numbers in [-63, 63], and the scale for each slice along *axis*, kept as a dimension."""
    scales = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True), np.float32(1e-12)) / np.float32(_LEVELS)
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)
