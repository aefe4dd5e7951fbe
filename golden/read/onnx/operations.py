"""What ONNX' operations compute of the values of a graph, whatever its numbers are.

The graph is gone through once, by :class:`~thresher.golden.read.onnx.nodes.Nodes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from thresher.golden.read.gathering import NOWHERE
from thresher.golden.read.onnx.arguments import array_of, check_known, tensor_of
from thresher.golden.read.onnx.functions import Functions
from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.nodes import HOST
from thresher.golden.read.onnx.pools import Pools
from thresher.golden.read.onnx.values import (
    Joined,
    Pending,
    Real,
    Refusal,
    Scores,
    Stored,
    Target,
    Value,
    is_whole,
)

__all__ = ["ELEMENTWISE", "Operations"]

_QUANTISE = "quantise it (QuantizeLinear, DequantizeLinear)"
_MOST_VALUES = 1 << 26

ELEMENTWISE = {
    "Abs",
    "Ceil",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
}
"""Functions of one value."""

_OF_TWO = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"}


class Operations(Functions, Pools):
    """All operations that need not know whether the numbers are quantised."""

    methods: ClassVar[Mapping[str, str]] = {
        "Cast": "passed",
        "Dropout": "passed",
        "Conv": "convolution",
        "Gemm": "gemm",
        "MatMul": "matmul",
        "BatchNormalization": "batch_normalization",
        "MaxPool": "max_pool",
        "GlobalMaxPool": "global_max_pool",
        "AveragePool": "average_pool",
        "GlobalAveragePool": "global_average_pool",
        "ReduceMean": "reduce_mean",
        "Pad": "pad",
        "Concat": "concat",
        "Softmax": "softmax",
        **dict.fromkeys(ELEMENTWISE, "function"),
        **dict.fromkeys(_OF_TWO, "of_two"),
    }

    def pad(self, node: Node, values: list[Value | None]) -> Value:
        """Pad with zeros."""
        value = tensor_of(values[0])
        check_known(value)
        mode = node.attributes.get("mode", "constant")
        filler = node.attributes.get("value", 0.0)
        if node.has(2):
            filler = float(array_of(values[2], "value").ravel()[0])
        zero = 0.0
        if isinstance(value, Stored):
            zero = value.target.zero_point if value.target else self.layers.zero_point("input")
        if mode != "constant" or filler != zero:
            raise Refusal(f"it pads by {mode} with {filler}", "pad with a constant zero")
        if isinstance(value, Pending):
            value = self.layers.linear(value)
        attributes = dict(node.attributes)
        pads = array_of(values[1], "pads").tolist() if node.has(1) else list(attributes["pads"])
        axes = list(range(value.places.ndim))
        if node.has(3):
            axes = [int(a) % value.places.ndim for a in array_of(values[3], "axes")]
        around = [(0, 0)] * value.places.ndim
        for index, axis in enumerate(axes):
            around[axis] = (int(pads[index]), int(pads[index + len(axes)]))
        if min(min(pair) for pair in around) < 0:
            raise Refusal("it crops", "use Slice")
        sizes = zip(value.places.shape, around, strict=True)
        if (count := math.prod(size + sum(pair) for size, pair in sizes)) > _MOST_VALUES:
            raise Refusal(f"it makes {count:,} values", f"pad to {_MOST_VALUES:,} at most")
        return replace(value, places=np.pad(value.places, around, constant_values=NOWHERE))

    def concat(self, node: Node, values: list[Value | None]) -> Value:
        """Concat."""
        tensors = []
        for value in values:
            tensor = tensor_of(value)
            check_known(tensor)
            tensors.append(self.settled(tensor))
        axis = int(node.attributes["axis"]) % tensors[0].places.ndim
        if all(isinstance(tensor, Stored) for tensor in tensors):
            stored = [tensor for tensor in tensors if isinstance(tensor, Stored)]
            if len({item.target for item in stored}) != 1:
                raise Refusal("its inputs are quantised differently", "give them one scale")
            return self.layers.joined(stored, axis, node.name)
        parts: list[Real | Pending] = []
        for tensor in tensors:
            if not isinstance(tensor, Real | Pending):
                raise Refusal("one of its inputs is not quantised", _QUANTISE)
            parts.append(tensor)
        shape = list(parts[0].places.shape)
        shape[axis] = sum(part.places.shape[axis] for part in parts)
        size = int(np.prod(shape))
        plain = [part for part in parts if isinstance(part, Real) and part.function is None]
        if len(plain) == len(parts) and len({part.scale for part in plain}) == 1:
            views = [Stored(layer=part.layer, target=None, places=part.places) for part in plain]
            whole = self.layers.joined(views, axis, node.name)
            return replace(plain[0], layer=whole.layer, places=whole.places)
        return Joined(
            name=node.name,
            shape=(size, 1, 1),
            places=np.arange(size).reshape(shape),
            parts=tuple(parts),
            axis=axis,
        )

    def softmax(self, node: Node, values: list[Value | None]) -> Value:
        """Softmax, at the end."""
        value = tensor_of(values[0])
        check_known(value)
        real = self.layers.linear(value)
        axis = int(node.attributes.get("axis", -1 if self.graph.opsets[""] >= 13 else 1))
        shape = real.places.shape
        if shape[axis % len(shape)] != real.places.size:
            raise Refusal(f"it is taken over axis {axis} of {shape}", HOST)
        target = Target(scale=real.scale, zero_point=0, low=0, high=0)
        return Scores(layer=real.layer, target=target, places=real.places)

    def output_layer(self, end: Real | Stored | Scores) -> tuple[str, str | None]:
        """Return the layer of the output, and its layout if that is not the map's own."""
        places = self.layers.placed(end, end.layer)
        shape = self.layers.shapes[end.layer]
        if is_whole(places, shape):
            return end.layer, None
        if places.ndim == 4 and is_whole(np.moveaxis(places, 3, 1), shape):
            return end.layer, "NHWC"
        if (places != NOWHERE).all():
            try:
                layer, _ = self.layers.as_map(end, end.layer)
            except Refusal:
                layer = end.layer
            if layer != end.layer:
                return layer, None
            if shape[1:] == (1, 1) and len(set(places.ravel())) == places.size:
                return self.layers.selected(layer, tuple(int(x) for x in places.ravel())), None
        raise Refusal(
            f"the output is a part of a map {shape}, or another arrangement of it",
            "end the model before it is rearranged",
        )
