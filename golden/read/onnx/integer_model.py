"""ONNX models of integers: graphs of QuantizeLinear and DequantizeLinear, and of QLinear nodes.

A dequantised tensor is a real view of integers; what is computed from it becomes a layer where a
QuantizeLinear says how the result is stored. A QLinear node is its inputs dequantised, the float
operation and its output quantised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from thresher.golden.network import CompressedNetwork
from thresher.golden.read.map_layers import needed_for
from thresher.golden.read.onnx.arguments import (
    array_of,
    check_known,
    is_constant,
    one_a_channel,
    optional,
    tensor_of,
)
from thresher.golden.read.onnx.graph import Graph, Node
from thresher.golden.read.onnx.layers import Layers
from thresher.golden.read.onnx.operations import Operations
from thresher.golden.read.onnx.values import (
    Array,
    Pending,
    Real,
    Refusal,
    Scores,
    Source,
    Stored,
    Target,
    Tensor,
    Unclear,
    Unknown,
    Value,
    Weights,
    is_whole,
)
from thresher.golden.read.problems import Problems

__all__ = ["IntegerReader"]

_QUANTISE = "quantise it (QuantizeLinear, DequantizeLinear)"
_STATIC = "quantise statically, with calibration data"
_ACTIVATIONS = {np.dtype(np.int8): (-128, 127), np.dtype(np.uint8): (0, 255)}


class IntegerReader(Operations):
    """Turns a graph into a network.

    Parameters
    ----------
    graph
        The graph.
    problems
        Receives what stands in the way.
    """

    methods: ClassVar[Mapping[str, str]] = {
        **Operations.methods,
        "QuantizeLinear": "quantise",
        "DequantizeLinear": "dequantise",
        "QLinearConv": "qlinear_conv",
        "QLinearMatMul": "qlinear_matmul",
        "QGemm": "qgemm",
        "QLinearAdd": "qlinear_of_two",
        "QLinearMul": "qlinear_of_two",
        "QLinearConcat": "qlinear_concat",
        "QLinearAveragePool": "qlinear_average_pool",
        "QLinearGlobalAveragePool": "qlinear_average_pool",
        "QLinearSigmoid": "qlinear_function",
        "QLinearLeakyRelu": "qlinear_function",
        "QLinearSoftmax": "qlinear_softmax",
    }
    takes_constants: ClassVar[frozenset[str]] = frozenset({"QuantizeLinear", "DequantizeLinear"})
    instead: ClassVar[Mapping[str, str]] = {
        "ConvInteger": _STATIC,
        "MatMulInteger": _STATIC,
        "DynamicQuantizeLinear": _STATIC,
    }
    layers: Layers

    def __init__(self, graph: Graph, problems: Problems) -> None:
        super().__init__(graph, Layers(graph.input_shape), problems)
        self.tensors: dict[str, str] = {}  # of the source, by layer

    def network(self, source: dict[str, object]) -> CompressedNetwork | None:
        """Return the network, or None if there are problems.

        Parameters
        ----------
        source
            ``metadata["source"]``.
        """
        numbers = np.arange(int(np.prod(self.graph.input_shape))).reshape(self.graph.input_shape)
        kind = self.graph.input_type
        if kind == np.float32:
            self.values[self.graph.input] = Source(places=numbers)
        elif kind in _ACTIVATIONS:
            stored = Stored(layer="input", target=None, places=numbers)
            self.values[self.graph.input] = stored
        else:
            self.problems.add(
                f"the input is of {kind}",
                "give it one of float32, int8 or uint8",
                node=self.graph.input,
            )
            self.values[self.graph.input] = Unknown(places=numbers)
        for node in self.graph.nodes:
            self.take(node)
        try:
            return self._finished(source)
        except Refusal as refusal:
            self.problems.add(refusal.reason, refusal.instead, node=self.graph.output)
        except ValueError as error:
            self.problems.add(str(error), "change that layer")
        return None

    def _finished(self, source: dict[str, object]) -> CompressedNetwork | None:
        end = self.values[self.graph.output]
        if self.problems.found:
            return None
        if not isinstance(end, Tensor):
            raise Refusal("the output does not depend on the input", "export the model again")
        if isinstance(end, Pending | Source):
            raise Refusal("the output is not quantised", _QUANTISE)
        if isinstance(end, Real):
            end = self.layers.linear(end, "output")
        assert isinstance(end, Real | Stored | Scores)
        layer, layout = self.output_layer(end)
        if layer == "input":
            raise Refusal("the output is the input, nothing is computed", "export another model")
        made = self.layers
        needed = needed_for(layer, made.layers)
        if "input" not in needed or made.input_shape is None or made.input is None:
            raise Refusal("the output does not depend on the input", "export the model again")
        arrangement = made.layout()
        if arrangement is None:
            raise Refusal(
                "the input is rearranged before the first layer in a way other than NHWC to NCHW",
                "give the model its input as (1, C, H, W)",
            )
        scale = end.scale if isinstance(end, Real) else end.target.scale if end.target else 1.0
        output: dict[str, object] = {
            "scale": scale,
            "zero_point": made.zero_points.get(layer, 0),
            "softmax": isinstance(end, Scores),
        }
        if layout is not None:
            output["layout"] = layout
        return CompressedNetwork(
            name=self.graph.name,
            input_shape=made.input_shape,
            input_range=made.input.clip,
            layers=tuple(item for item in made.layers if item.name in needed),
            metadata={
                "source": source,
                "input": {
                    "scale": made.input.scale,
                    "zero_point": made.input.zero_point,
                    "dtype": str(self.graph.input_type),
                    "layout": arrangement,
                    "shape": list(self.graph.input_shape[1:]),
                },
                "output": output,
                "zero_points": {k: v for k, v in made.zero_points.items() if k in needed},
                "tensors": {k: v for k, v in self.tensors.items() if k in needed},
            },
        )

    def name(self, name: str, value: Value) -> None:
        """Remember which tensor of the source a layer's whole output is."""
        if (
            isinstance(value, Stored)
            and value.layer != "input"
            and value.layer not in self.tensors
            and is_whole(value.places, self.layers.shapes[value.layer])
        ):
            self.tensors[value.layer] = name

    def weights_of(self, value: Value | None) -> Weights:
        """Return quantised weights."""
        if isinstance(value, Unknown):
            raise Unclear
        if isinstance(value, np.ndarray):
            raise Refusal(
                f"its weights are of {value.dtype}", f"{_QUANTISE[:-1]}) to int8 or uint8"
            )
        if not isinstance(value, Weights):
            raise Refusal("its weights are computed", "give them as initializers")
        return value

    def passed(self, node: Node, values: list[Value | None]) -> Value:
        """Return an input that the node does not change."""
        value = tensor_of(values[0])
        if node.op == "Cast":
            to = node.attributes.get("to")
            if to != 1:  # FLOAT
                raise Refusal("it casts to something other than float32", "take it out")
            if isinstance(value, Stored):
                low, high = (
                    _ACTIVATIONS[self.graph.input_type] if value.layer == "input" else (0, 0)
                )
                known = value.target or self.layers.input
                whole = known or Target(scale=1.0, zero_point=0, low=low, high=high)
                real = self.layers.dequantised(value, whole)
                shift = np.float32(whole.zero_point)
                step = np.float32(whole.scale)
                if (whole.scale, whole.zero_point) != (1.0, 0):
                    return replace(real, function=lambda x: x / step + shift)
                return real
        return value

    def quantise(self, node: Node, values: list[Value | None]) -> Value:
        """QuantizeLinear."""
        if values[0] is not None and is_constant(values[0]):
            array = array_of(values[0], "input")
            _check_scale(array_of(values[1], "scale"), "its scale")
            (made,) = self.graph.evaluate(node, [array, *map(optional, values[1:])])
            return np.asarray(made)
        target = self._target(node, values[1], values[2] if node.has(2) else None)
        value = tensor_of(values[0])
        if isinstance(value, Scores):
            return value
        return self.layers.quantised(value, target, node.name)

    def dequantise(self, node: Node, values: list[Value | None]) -> Value:
        """DequantizeLinear."""
        value = values[0]
        zero_point = values[2] if node.has(2) else None
        if isinstance(value, np.ndarray):
            return _weights(
                value,
                array_of(values[1], "scale"),
                None if zero_point is None else array_of(zero_point, "zero point"),
                int(node.attributes.get("axis", 1)),
            )
        if isinstance(value, Scores | Unknown):
            return value
        if not isinstance(value, Stored):
            raise Refusal("its input is not quantised", "put a QuantizeLinear before it")
        kind = (value.target.low, value.target.high) if value.target else None
        return self._dequantised(node, value, values[1], zero_point, kind)

    def _dequantised(
        self,
        node: Node,
        value: Value | None,
        scale: Value | None,
        zero_point: Value | None,
        limits: tuple[int, int] | None = None,
    ) -> Value:
        """Return what an input of a QLinear node stands for."""
        if value is not None and is_constant(value):
            array = array_of(value, "input")
            zero = None if zero_point is None else array_of(zero_point, "zero point")
            return _weights(array, array_of(scale, "scale"), zero, 1)
        if isinstance(value, Unknown | Scores):
            return value
        if not isinstance(value, Stored):
            raise Refusal("its input is not of integers", "put a QuantizeLinear before it")
        known = value.target
        if limits is None and known is not None:
            limits = known.low, known.high
        if limits is None:
            limits = _ACTIVATIONS[self.graph.input_type]
        default = np.zeros((), np.int8 if limits[0] < 0 else np.uint8)
        target = self._target(node, scale, default if zero_point is None else zero_point)
        if (target.low, target.high) != limits:
            raise Refusal(
                f"its zero point is of {'int8' if target.low < 0 else 'uint8'}, its input is not",
                "give both one type",
            )
        return self.layers.dequantised(value, target)

    def _target(self, node: Node, scale: Value | None, zero_point: Value | None) -> Target:
        """Return the quantisation of activations that a scale and a zero point give."""
        scales = array_of(scale, "scale")
        _check_scale(scales, "its scale")
        if np.unique(scales).size != 1:
            raise Refusal(
                f"its activations have {scales.size} scales, one a channel",
                "quantise activations with one scale for the whole tensor",
            )
        if zero_point is None:
            kind = {3: np.int8, 2: np.uint8, 0: np.uint8}.get(
                node.attributes.get("output_dtype", 0)
            )
            zeros = np.zeros((), kind or np.float32)
        else:
            zeros = array_of(zero_point, "zero point")
        if zeros.dtype not in _ACTIVATIONS:
            raise Refusal(
                f"its zero point is of {zeros.dtype}, so its activations are, too",
                "quantise activations to int8 or uint8",
            )
        if np.unique(zeros).size != 1:
            raise Refusal("its activations have several zero points", "quantise with one")
        low, high = _ACTIVATIONS[zeros.dtype]
        return Target(
            scale=float(np.float32(scales.ravel()[0])),
            zero_point=int(zeros.ravel()[0]),
            low=low,
            high=high,
        )

    # QLinear nodes.

    def qlinear_conv(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearConv."""
        zero = array_of(values[5], "zero point") if node.has(5) else None
        weights = _weights(array_of(values[3], "weights"), array_of(values[4], "scale"), zero, 0)
        target = self._target(node, values[6], values[7])
        value = self._dequantised(node, values[0], values[1], values[2])
        bias = None
        if node.has(8):
            step = one_a_channel(weights) * float(array_of(values[1], "scale").ravel()[0])
            bias = array_of(values[8], "bias").astype(np.float64) * step
        inputs: list[Value | None] = [value, weights, bias]
        plain = replace(node, inputs=("x", "w", "b" if bias is not None else ""))
        return self._quantised_to(node, self.convolution(plain, inputs), target)

    def qlinear_matmul(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearMatMul."""
        value = self._dequantised(node, values[0], values[1], values[2])
        zero = array_of(values[5], "zero point") if node.has(5) else None
        weights = _weights(array_of(values[3], "weights"), array_of(values[4], "scale"), zero, -1)
        target = self._target(node, values[6], values[7])
        return self._quantised_to(node, self.matmul(node, [value, weights]), target)

    def qgemm(self, node: Node, values: list[Value | None]) -> Value:
        """QGemm of com.microsoft."""
        value = self._dequantised(node, values[0], values[1], values[2])
        axis = 0 if node.attributes.get("transB", 0) else 1
        zero = array_of(values[5], "zero point") if node.has(5) else None
        weights = _weights(array_of(values[3], "weights"), array_of(values[4], "scale"), zero, axis)
        bias = None
        if node.has(6):
            columns = weights if axis == 0 else Weights(
                values=weights.values.T, scale=weights.scale.T
            )  # fmt: skip
            step = one_a_channel(columns) * float(array_of(values[1], "scale").ravel()[0])
            bias = array_of(values[6], "bias").astype(np.float64).ravel() * step
        plain = replace(node, inputs=("a", "b", "c" if bias is not None else ""))
        made = self.gemm(plain, [value, weights, bias])
        if not node.has(7):
            return made
        zero_point = values[8] if node.has(8) else None
        return self._quantised_to(node, made, self._target(node, values[7], zero_point))

    def qlinear_of_two(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearAdd and QLinearMul of com.microsoft."""
        one = self._dequantised(node, values[0], values[1], values[2])
        other = self._dequantised(node, values[3], values[4], values[5])
        zero_point = values[7] if node.has(7) else None
        target = self._target(node, values[6], zero_point)
        proto = type(node.proto)()
        proto.CopyFrom(node.proto)
        proto.op_type, proto.domain = node.op.removeprefix("QLinear"), ""
        del proto.input[:]
        proto.input.extend(["a", "b"])
        plain = replace(node, op=proto.op_type, inputs=("a", "b"), proto=proto)
        return self._quantised_to(node, self.of_two(plain, [one, other]), target)

    def qlinear_concat(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearConcat of com.microsoft."""
        target = self._target(node, values[0], values[1])
        parts: list[Value | None] = [
            self._dequantised(node, values[k], values[k + 1], values[k + 2])
            for k in range(2, len(values), 3)
        ]
        return self._quantised_to(node, self.concat(node, parts), target)

    def qlinear_average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearAveragePool and QLinearGlobalAveragePool of com.microsoft."""
        value = self._dequantised(node, values[0], values[1], values[2])
        zero_point = values[4] if node.has(4) else None
        target = self._target(node, values[3], zero_point)
        is_last = bool(node.attributes.get("channels_last", 0))
        tensor = tensor_of(value)
        if is_last:
            tensor = replace(tensor, places=np.moveaxis(tensor.places, -1, 1))
        made = (
            self.average_pool(node, [tensor])
            if node.op == "QLinearAveragePool"
            else self.global_average_pool(node, [tensor])
        )
        stored = tensor_of(self._quantised_to(node, made, target))
        return replace(stored, places=np.moveaxis(stored.places, 1, -1)) if is_last else stored

    def qlinear_function(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearSigmoid and QLinearLeakyRelu of com.microsoft."""
        value = self._dequantised(node, values[0], values[1], values[2])
        zero_point = values[4] if node.has(4) else None
        target = self._target(node, values[3], zero_point)
        tensor = tensor_of(value)
        check_known(tensor)
        slope = np.float32(node.attributes.get("alpha", 0.01))
        is_sigmoid = node.op == "QLinearSigmoid"
        function = _sigmoid if is_sigmoid else lambda x: np.where(x < 0, slope * x, x)
        return self._quantised_to(node, self.applied(tensor, function), target)

    def qlinear_softmax(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearSoftmax of com.microsoft, at the end."""
        value = self._dequantised(node, values[0], values[1], values[2])
        return self.softmax(node, [value])

    def _quantised_to(self, node: Node, made: Value, target: Target) -> Value:
        return self.layers.quantised(tensor_of(made), target, node.name)


def _check_scale(scales: Array, what: str) -> None:
    numbers = scales.astype(np.float64)
    wrong = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if wrong.size or not numbers.size:
        found = f"{wrong.ravel()[0]:g}" if wrong.size else "missing"
        raise Refusal(f"{what} is {found}", "calibrate again: scales are positive numbers")


def _weights(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Weights:
    """Return a quantised constant."""
    if not (np.issubdtype(values.dtype, np.integer) or values.dtype.name.endswith("int4")):
        raise Refusal(f"its constant is of {values.dtype}", "quantise it to int8 or uint8")
    _check_scale(scale, "a scale of its constant")
    integers = values.astype(np.int64)
    parts = [scale.astype(np.float64)]
    if zero_point is not None:
        if zero_point.dtype != values.dtype:
            raise Refusal(
                f"its zero point is of {zero_point.dtype}, its constant of {values.dtype}",
                "give both one type",
            )
        parts.append(zero_point.astype(np.int64))
    for index, part in enumerate(parts):
        if part.size == 1:
            parts[index] = part.reshape(())
        elif part.ndim == 1 and part.size == values.shape[axis]:
            parts[index] = part.reshape([-1 if a == axis % values.ndim else 1
                                         for a in range(values.ndim)])  # fmt: skip
        else:
            raise Refusal(
                f"its constant of shape {values.shape} has {part.size} scales or zero points",
                "give one, or one an output channel",
            )
    if len(parts) == 2:
        integers = integers - parts[1].astype(np.int64)
    return Weights(values=integers, scale=np.broadcast_to(parts[0], values.shape))


def _sigmoid(values: Any) -> Any:
    one = np.float32(1)
    return one / (one + np.exp(-values))
