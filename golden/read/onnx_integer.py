"""ONNX models of integers: graphs of QuantizeLinear and DequantizeLinear, and of QLinear nodes.

The graph is gone through once. A dequantised tensor is a real view of integers; what is computed
from it is kept until a QuantizeLinear says how the result is stored, and becomes a layer there. A
QLinear node is its inputs dequantised, the float operation and its output quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thresher.golden.network import CompressedNetwork, MaxPool
from thresher.golden.read.onnx_graph import Graph, Node
from thresher.golden.read.onnx_layers import Layers
from thresher.golden.read.onnx_values import (
    PADDED,
    Array,
    Floats,
    Int64Array,
    Joined,
    Mean,
    Pending,
    Real,
    Refusal,
    Scores,
    Source,
    Stored,
    Sum,
    Target,
    Tensor,
    Unknown,
    Value,
    Weighted,
    Weights,
    is_whole,
    per_channel,
)
from thresher.golden.read.onnx_windows import Windows, windows
from thresher.golden.read.problems import Problems

__all__ = ["ELEMENTWISE", "MOVING", "IntegerReader"]

_QUANTISE = "quantise it (QuantizeLinear, DequantizeLinear)"
_STATIC = "quantise statically, with calibration data"
_HOST = "replace it, or cut the model there and let the host compute it"
_ACTIVATIONS = {np.dtype(np.int8): (-128, 127), np.dtype(np.uint8): (0, 255)}

MOVING = {
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operations that move elements about."""

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
_INSTEAD = {
    "ConvInteger": _STATIC,
    "MatMulInteger": _STATIC,
    "DynamicQuantizeLinear": _STATIC,
    "QLinearMul": "fold a constant factor into the weights",
    "ConvTranspose": _HOST,
}


class IntegerReader:
    """Turns a graph into a network, node by node, and notes the problems of each.

    Parameters
    ----------
    graph
        The graph.
    problems
        Receives what stands in the way.
    """

    def __init__(self, graph: Graph, problems: Problems) -> None:
        self.graph, self.problems = graph, problems
        self.layers = Layers(graph.input_shape)
        self.values: dict[str, Value] = dict(graph.constants)
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
            self._take(node)
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
        softmax = isinstance(end, Scores)
        if isinstance(end, Real):
            end = self.layers.linear(end, "output")
        assert isinstance(end, Real | Stored | Scores)
        layer, layout = self._output_layer(end)
        if layer == "input":
            raise Refusal("the output is the input, nothing is computed", "export another model")
        made = self.layers
        needed = {layer}
        for item in reversed(made.layers):
            if item.name in needed:
                needed.update(item.inputs)
        if "input" not in needed or made.input_shape is None or made.input is None:
            raise Refusal("the output does not depend on the input", "export the model again")
        arrangement = made.layout()
        if arrangement is None:
            raise Refusal(
                "the input is rearranged before the first layer in a way other than NHWC to NCHW",
                "give the model its input as (1, C, H, W)",
            )
        scale = end.scale if isinstance(end, Real) else end.target.scale if end.target else 1.0
        layers = tuple(item for item in made.layers if item.name in needed)
        output: dict[str, object] = {
            "scale": scale,
            "zero_point": made.zero_points.get(layer, 0),
            "softmax": softmax,
        }
        if layout is not None:
            output["layout"] = layout
        return CompressedNetwork(
            name=self.graph.name,
            input_shape=made.input_shape,
            input_range=made.input.clip,
            layers=layers,
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

    def _output_layer(self, end: Real | Stored | Scores) -> tuple[str, str | None]:
        """Return the layer of the output, and its layout if that is not the map's own."""
        places = self.layers.placed(end, end.layer)
        shape = self.layers.shapes[end.layer]
        if is_whole(places, shape):
            return end.layer, None
        if places.ndim == 4 and is_whole(np.moveaxis(places, 3, 1), shape):
            return end.layer, "NHWC"
        if (places != PADDED).all():
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

    # Nodes.

    def _take(self, node: Node) -> None:
        """Find the values of a node's outputs; note its problems."""
        values = [self.values[name] if name else None for name in node.inputs]
        made: Sequence[Value]
        try:
            made = self._made(node, values)
        except Unclear:
            made = []
        except Refusal as refusal:
            self.problems.add(refusal.reason, refusal.instead, node=node.name, op=node.op)
            made = []
        except Exception as error:  # whatever a node that is not sound leads to
            text = " ".join(str(error).split()) or type(error).__name__
            self.problems.add(
                f"its inputs or attributes do not fit together ({text[:120]})",
                "correct the node, or export the model again",
                node=node.name,
                op=node.op,
            )
            made = []
        for number, name in enumerate(node.outputs):
            if not name:
                continue
            if number < len(made):
                self.values[name] = made[number]
                self._name(name, made[number])
            else:
                shape = self.graph.shapes.get(name, (1, 1, 1, 1))
                self.values[name] = Unknown(places=np.zeros(shape, np.int64))

    def _name(self, name: str, value: Value) -> None:
        """Remember which tensor of the source a layer's whole output is."""
        if (
            isinstance(value, Stored)
            and value.layer != "input"
            and value.layer not in self.tensors
            and is_whole(value.places, self.layers.shapes[value.layer])
        ):
            self.tensors[value.layer] = name

    def _made(self, node: Node, values: list[Value | None]) -> Sequence[Value]:  # noqa: PLR0911
        op = node.op
        handler: Callable[[Node, list[Value | None]], Value] | None = _HANDLERS.get(op)
        if op == "Constant":
            return [_constant(node)]
        if op == "Shape":
            return [self._shape(node, values[0])]
        if op in {"QuantizeLinear", "DequantizeLinear"}:
            assert handler is not None
            return [handler(self, node, values)]  # type: ignore[call-arg, arg-type]
        known = op in MOVING | ELEMENTWISE | _OF_TWO | {"Dropout", "Cast"} or handler is not None
        if values and all(value is None or _is_constant(value) for value in values):
            if any(isinstance(value, Weights) for value in values):
                return self._moved_weights(node, values)
            return self.graph.evaluate(node, values)  # type: ignore[arg-type]  # arrays
        if not known:
            raise Refusal("this operation is not supported", _INSTEAD.get(op, _HOST))
        if op in MOVING:
            return self._moved(node, values)
        if op in {"Dropout", "Cast"}:
            return [self._passed(node, values)]
        if op in ELEMENTWISE:
            return [self._function(node, values)]
        if op in _OF_TWO:
            return [self._of_two(node, values)]
        assert handler is not None
        return [handler(self, node, values)]  # type: ignore[call-arg, arg-type]

    def _shape(self, node: Node, value: Value | None) -> Array:
        array = value if isinstance(value, np.ndarray) else None
        shape = array.shape if array is not None else _tensor(value).places.shape
        if isinstance(value, Unknown):
            raise Unclear
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return np.array(shape[start:end], np.int64)

    def _moved(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        value = _tensor(values[0])
        rest = [_array(item, "parameter") for item in values[1:]]
        moved = self.graph.evaluate(node, [value.places, *rest])
        for places in moved:
            if places.ndim == 0 or not places.size:
                raise Refusal("its result is empty, or no array", "take it out")
        return [replace(value, places=places.astype(np.int64)) for places in moved]

    def _moved_weights(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        weights = values[0]
        if node.op not in MOVING or not isinstance(weights, Weights):
            arrays = [x.real() if isinstance(x, Weights) else x for x in values]
            return self.graph.evaluate(node, arrays)  # type: ignore[arg-type]
        rest = [_array(item, "parameter") for item in values[1:]]
        parts = (
            self.graph.evaluate(node, [array, *rest]) for array in (weights.values, weights.scale)
        )
        return [Weights(values=a, scale=b) for a, b in zip(*parts, strict=True)]

    def _passed(self, node: Node, values: list[Value | None]) -> Value:
        """Return an input that the node does not change."""
        value = _tensor(values[0])
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
        if values[0] is not None and _is_constant(values[0]):
            array = _array(values[0], "input")
            _check_scale(_array(values[1], "scale"), "its scale")
            (made,) = self.graph.evaluate(node, [array, *map(_optional, values[1:])])
            return np.asarray(made)
        target = self._target(node, values[1], values[2] if node.has(2) else None)
        value = _tensor(values[0])
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
                _array(values[1], "scale"),
                None if zero_point is None else _array(zero_point, "zero point"),
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
        if value is not None and _is_constant(value):
            array = _array(value, "input")
            zero = None if zero_point is None else _array(zero_point, "zero point")
            return _weights(array, _array(scale, "scale"), zero, 1)
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
        scales = _array(scale, "scale")
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
            zeros = _array(zero_point, "zero point")
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

    # Weighted operations.

    def convolution(self, node: Node, values: list[Value | None]) -> Value:
        """Conv of (1, C, H, W), or of (1, C, W) as a map of one row."""
        quantised = _weights_of(values[1])
        if quantised.values.ndim not in {3, 4}:
            raise Refusal(
                f"it is a convolution of {quantised.values.ndim - 2} spatial axes",
                "use one of height and width",
            )
        kernel = quantised.values.shape[2:]
        factor = _one_a_channel(quantised)
        offset = _bias(values[2] if node.has(2) else None, len(factor))
        windows(node, (4095, 4095), kernel)
        value = _tensor(values[0])
        _check_known(value)
        real = self.layers.linear(value)
        layer, padding = self.layers.as_map(real, real.layer)
        _, height, width = self.layers.shapes[layer]
        size = height + padding[0] + padding[2], width + padding[1] + padding[3]
        spec = windows(node, size, kernel)
        geometry: dict[str, Any] = {
            "stride": spec.stride,
            "dilation": spec.dilation,
            "padding": tuple(a + b for a, b in zip(padding, spec.padding, strict=True)),
            "groups": int(node.attributes.get("group", 1)),
        }
        maps = quantised.values.reshape(*quantised.values.shape[:2], *spec.kernel)
        weights, geometry["padding"] = _widened(maps, geometry)
        channels, height, width = self.layers.shapes[layer]
        if weights.shape[1] * geometry["groups"] != channels or len(weights) % geometry["groups"]:
            raise Refusal(
                f"its weights {weights.shape} and {geometry['groups']} groups do not fit"
                f" {channels} channels",
                "correct them",
            )
        sizes = []
        for axis, length in enumerate((height, width)):
            extent = (weights.shape[2 + axis] - 1) * geometry["dilation"][axis] + 1
            room = length + geometry["padding"][axis] + geometry["padding"][axis + 2] - extent
            if room < 0:
                raise Refusal("its kernel is larger than its padded input", "use a smaller one")
            sizes.append(room // geometry["stride"][axis] + 1)
        shape = len(weights), sizes[0], sizes[1]
        places = np.arange(int(np.prod(shape))).reshape(1, *shape)
        return Weighted(
            name=node.name,
            shape=shape,
            places=places if real.places.ndim != 3 else places[:, :, 0],
            layer=layer,
            weights=weights,
            factor=factor * real.scale,
            offset=offset,
            geometry=geometry,
        )

    def gemm(self, node: Node, values: list[Value | None]) -> Value:
        """Gemm of a vector."""
        alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        weights = _weights_of(values[1])
        if node.attributes.get("transA", 0):
            raise Refusal("its transA is 1", "give its input as a row")
        if not node.attributes.get("transB", 0):
            weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = _one_a_channel(weights) * alpha
        offset = _bias(values[2] if node.has(2) else None, len(factor)) * beta
        return self._product(node, values[0], weights.values, factor, offset)

    def matmul(self, node: Node, values: list[Value | None]) -> Value:
        """MatMul by a constant matrix."""
        if isinstance(values[0], np.ndarray | Weights):
            raise Refusal("its first input is constant", "put the constant second")
        weights = _weights_of(values[1])
        if weights.values.ndim != 2:
            raise Refusal(f"its weights have {weights.values.ndim} axes", "give them two")
        weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = _one_a_channel(weights)
        offset = np.zeros(len(factor))
        return self._product(node, values[0], weights.values, factor, offset)

    def _product(
        self, node: Node, value: Value | None, weights: Int64Array, factor: Floats, offset: Floats
    ) -> Value:
        """Return ``weights`` (out, in) times a vector, or times that at each position of a map."""
        tensor = _tensor(value)
        _check_known(tensor)
        real = self.layers.linear(tensor)
        outputs, inputs = weights.shape
        if real.places.shape[-1] != inputs:
            raise Refusal(
                f"its input has {real.places.shape[-1]} values, its weights take {inputs}",
                "correct its shape",
            )
        *ahead, _ = real.places.shape
        rows = int(np.prod(ahead))
        layer = real.layer
        if layer == "input" and rows > 1:
            sides = ahead[1:] if len(ahead) == 3 else (1, rows)
            self.layers.arrange(real.places.reshape(rows, inputs).T.reshape(inputs, *sides))
        places = self.layers.placed(real, layer).reshape(rows, inputs)
        shape = self.layers.shapes[layer]
        size = shape[1] * shape[2]
        if rows == 1:
            wide = np.zeros((outputs, shape[0] * size), np.int64)
            inside = places[0] != PADDED
            wide[:, places[0][inside]] = weights[:, inside]
            made = outputs, 1, 1
            out = np.arange(outputs)
            geometry = None
        else:
            order, position = places[0] // size, places[:, 0] % size
            if rows != size or not np.array_equal(places, order * size + position[:, None]):
                raise Refusal(
                    f"its input of shape {real.places.shape} is no map with its channels last",
                    "give it a vector, or a map transposed to (1, H, W, C)",
                )
            wide = np.zeros((outputs, shape[0], 1, 1), np.int64)
            wide[:, order, 0, 0] = weights
            made = outputs, shape[1], shape[2]
            out = position[:, None] + np.arange(outputs) * size
            geometry = {
                "stride": (1, 1), "dilation": (1, 1), "padding": (0,) * 4, "groups": 1
            }  # fmt: skip
        return Weighted(
            name=node.name,
            shape=made,
            places=out.reshape(*ahead, outputs),
            layer=layer,
            weights=wide,
            factor=factor * real.scale,
            offset=offset,
            geometry=geometry,
        )

    def batch_normalization(self, node: Node, values: list[Value | None]) -> Value:
        """BatchNormalization, folded into the sums before it or a depthwise convolution."""
        gamma, beta, mean, variance = (
            _array(item, "parameter").astype(np.float64) for item in values[1:5]
        )
        if node.attributes.get("training_mode", 0):
            raise Refusal("it is in training mode", "export the model for inference")
        gain = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        value = _tensor(values[0])
        _check_known(value)
        axes = (1, -1, *(1,) * (value.places.ndim - 2))
        return self._affine(node, value, gain.reshape(axes), (beta - mean * gain).reshape(axes))

    def _affine(self, node: Node, value: Tensor, gain: Array, offset: Array) -> Value:
        """Return ``value * gain + offset``, constants that may differ by channel."""
        if isinstance(value, Pending):
            if not isinstance(value, Weighted) or not value.is_plain:
                raise Refusal(f"its input is not quantised ({value.name!r} computes it)", _QUANTISE)
            gains, offsets = (
                per_channel(item, value.places, value.shape) for item in (gain, offset)
            )
            if gains is None or offsets is None:
                raise Refusal("its constant is not one a channel", "use one value a channel")
            return replace(
                value, factor=value.factor * gains, offset=value.offset * gains + offsets
            )
        real = self.layers.linear(value)
        layer = real.layer
        if real.places.ndim in {3, 4}:
            layer, padding = self.layers.as_map(real, layer)
            if any(padding):
                raise Refusal("its input is padded", "pad its result instead")
            shape = self.layers.shapes[layer]
            places = np.arange(int(np.prod(shape))).reshape(real.places.shape)
        else:
            places = self.layers.placed(real, layer)
            shape = self.layers.shapes[layer]
        gains, offsets = (per_channel(item, places, shape) for item in (gain, offset))
        if gains is None or offsets is None:
            raise Refusal("its constant is not one a channel", "use one value a channel")
        return Weighted(
            name=node.name,
            shape=shape,
            places=places,
            layer=layer,
            weights=np.full((shape[0], 1, 1, 1), 127),  # room for a bias between two inputs
            factor=gains * real.scale / 127,
            offset=offsets,
            geometry={
                "stride": (1, 1),
                "dilation": (1, 1),
                "padding": (0,) * 4,
                "groups": shape[0],
            },
        )

    # Functions and sums.

    def _function(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of one value."""
        value = _tensor(values[0])
        rest = [_optional(item) for item in values[1:]]
        _check_known(value)
        if isinstance(value, Pending):
            limits = _limits(node, rest)
            if limits is None:
                raise Refusal(f"its input is not quantised ({value.name!r} computes it)", _QUANTISE)
            return value.clipped(*limits)
        return self._applied(node, value, lambda x: self._evaluated(node, [x, *rest]))

    def _applied(self, node: Node, value: Tensor, function: Any) -> Value:
        if isinstance(value, Source):
            raise Refusal("its input is not quantised", _QUANTISE)
        if not isinstance(value, Real):
            raise Refusal("its input is of integers", "put a DequantizeLinear before it")
        before = value.function
        if before is None:
            return replace(value, function=function)
        return replace(value, function=lambda x: function(before(x)))

    def _evaluated(self, node: Node, arrays: Sequence[Any]) -> Any:
        return self.graph.evaluate(node, arrays)[0]

    def _of_two(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of two tensors, of which one may be constant."""
        if len(values) != 2:
            raise Refusal(f"it has {len(values)} inputs", "use nodes of two")
        constant = [index for index, value in enumerate(values) if _is_constant(value)]
        tensors = [_tensor(value) for index, value in enumerate(values) if index not in constant]
        for tensor in tensors:
            _check_known(tensor)
        if constant:
            return self._with_constant(node, tensors[0], _real(values[constant[0]]), constant[0])
        one, other = tensors
        if (
            isinstance(one, Real)
            and isinstance(other, Real)
            and one.layer == other.layer
            and np.array_equal(one.places, other.places)
        ):
            first, second = one.function or _same, other.function or _same
            return replace(one, function=lambda x: self._evaluated(node, [first(x), second(x)]))
        if node.op not in {"Add", "Sub"}:
            raise Refusal("it combines two tensors that are not functions of one value", _HOST)
        if node.op == "Sub":
            other = self._applied(node, other, np.negative)  # type: ignore[assignment]
        return self._sum(node, one, other)

    def _sum(self, node: Node, one: Tensor, other: Tensor) -> Value:
        first, second = self.layers.linear(one), self.layers.linear(other, "second input")
        layer, operand, places = self.layers.aligned(first, second)
        shape = self.layers.shapes[layer]
        if self.layers.shapes[operand] != shape:
            raise Refusal("its inputs are maps of different shapes", "give both one shape")
        return Sum(
            name=node.name,
            shape=shape,
            places=places,
            layers=(layer, operand),
            scales=(first.scale, second.scale),
        )

    def _with_constant(self, node: Node, value: Tensor, constant: Array, position: int) -> Value:
        if isinstance(value, Source | Stored):
            raise Refusal("its input is not quantised", _QUANTISE)
        if np.broadcast_shapes(value.places.shape, constant.shape) != value.places.shape:
            raise Refusal("its constant makes its result larger", "export it of one shape")
        if isinstance(value, Real) and np.unique(constant).size == 1:
            number = constant.ravel()[:1].astype(np.float32)
            return self._applied(
                node,
                value,
                lambda x: self._evaluated(node, [x, number] if position else [number, x]),
            )
        if node.op in {"Max", "Min"} and isinstance(value, Pending):
            limit = float(constant.ravel()[0])
            if np.unique(constant).size == 1:
                return value.clipped(*((limit, np.inf) if node.op == "Max" else (-np.inf, limit)))
        wide = constant.astype(np.float64)
        one, zero = np.ones(()), np.zeros(())
        affine = {
            ("Add", 0): (one, wide),
            ("Add", 1): (one, wide),
            ("Sub", 0): (-one, wide),
            ("Sub", 1): (one, -wide),
            ("Mul", 0): (wide, zero),
            ("Mul", 1): (wide, zero),
            ("Div", 1): (1 / np.where(wide == 0, np.nan, wide), zero),
        }
        if (node.op, position) not in affine:
            raise Refusal(
                "its constant differs by channel, or its input is not quantised", _QUANTISE
            )
        return self._affine(node, value, *affine[node.op, position])

    # Pooling.

    def max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """MaxPool."""
        if len(node.outputs) > 1 and node.outputs[1]:
            raise Refusal("it gives indices", "leave its second output out")
        return self._max_pool(
            node, _tensor(values[0]), lambda height, width: windows(node, (height, width))
        )

    def global_max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalMaxPool."""
        return self._max_pool(node, _tensor(values[0]), _whole)

    def _max_pool(self, node: Node, value: Tensor, find: Callable[[int, int], Windows]) -> Value:
        _check_known(value)
        if isinstance(value, Pending):
            spec = find(*value.shape[1:])
            _check_pool(spec)
            if isinstance(value, Joined) or not is_whole(value.places, value.shape):
                raise Refusal(f"its input is not quantised ({value.name!r} computes it)", _QUANTISE)
            probe = MaxPool(name="pool", **spec.pool())
            shape = probe.output_shape(value.shape)
            places = _like(value.places, shape)
            return replace(value, shape=shape, places=places, pools=(*value.pools, spec.pool()))
        view = value if isinstance(value, Stored) else self.layers.linear(value)
        layer, padding = self.layers.as_map(view, view.layer)
        _, height, width = self.layers.shapes[layer]
        if any(padding):
            if self.layers.stored_range(layer)[0] < 0:
                raise Refusal(
                    "its input is padded with zeros and may be less", "give it pads instead"
                )
            height, width = height + padding[0] + padding[2], width + padding[1] + padding[3]
        spec = find(height, width)
        _check_pool(spec)
        arguments = spec.pool()
        arguments["padding"] = tuple(a + b for a, b in zip(spec.padding, padding, strict=True))
        pool = MaxPool(name=self.layers.unique(node.name), inputs=(layer,), **arguments)
        name = self.layers.add(pool, self.layers.zero_points.get(layer, self._zero(view)))
        return replace(view, layer=name, places=_like(view.places, self.layers.shapes[name]))

    def _zero(self, view: Stored | Real) -> int:
        """Return the zero point of a tensor that may be the input."""
        known = self.layers.input if view.layer == "input" else None
        return known.zero_point if known else 0

    def average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """AveragePool."""
        counts_padding = bool(node.attributes.get("count_include_pad", 0))

        def find(height: int, width: int) -> Windows:
            spec = windows(node, (height, width))
            if any(spec.overhang) or (any(spec.padding) and not counts_padding):
                raise Refusal(
                    "its windows at the edge divide by fewer values",
                    "set count_include_pad, without ceil_mode, or choose sizes without padding",
                )
            return spec

        return self._average(node, _tensor(values[0]), find)

    def global_average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalAveragePool."""
        return self._average(node, _tensor(values[0]), _whole)

    def _average(self, node: Node, value: Tensor, find: Callable[[int, int], Windows]) -> Value:
        _check_known(value)
        real = self.layers.linear(value)
        layer, padding = self.layers.as_map(real, real.layer)
        channels, height, width = self.layers.shapes[layer]
        spec = find(height + padding[0] + padding[2], width + padding[1] + padding[3])
        _check_pool(spec)
        arguments = spec.pool()
        arguments["padding"] = tuple(a + b for a, b in zip(spec.padding, padding, strict=True))
        shape = MaxPool(name="pool", **arguments).output_shape((channels, height, width))
        return Mean(
            name=node.name,
            shape=shape,
            places=_like(real.places, shape),
            layer=layer,
            scale=real.scale,
            windows=arguments,
        )

    def reduce_mean(self, node: Node, values: list[Value | None]) -> Value:
        """ReduceMean over all of height and width, wherever these axes are."""
        value = _tensor(values[0])
        _check_known(value)
        count = value.places.ndim
        given = node.attributes.get("axes")
        if node.has(1):
            given = _array(values[1], "axes").tolist()
        axes = [axis % count for axis in (given or range(count))]
        real = self.layers.linear(value)
        rest = [axis for axis in range(count) if axis not in axes]
        places = self.layers.placed(real, real.layer)
        shape = self.layers.shapes[real.layer]
        size = shape[1] * shape[2]
        rows = places.transpose(*rest, *axes).reshape(
            -1, int(np.prod([places.shape[axis] for axis in axes]))
        )
        order = rows.min(axis=1) // size
        expected = order[:, None] * size + np.arange(size)
        if rows.shape[1] != size or not np.array_equal(np.sort(rows, axis=1), expected):
            raise Refusal(
                f"it takes the mean over axes {axes}, not over height and width",
                "take the mean over the whole of each channel",
            )
        kept = bool(node.attributes.get("keepdims", 1))
        result = [
            1 if axis in axes else places.shape[axis] for axis in range(count)
            if kept or axis not in axes
        ]  # fmt: skip
        return Mean(
            name=node.name,
            shape=(shape[0], 1, 1),
            places=order.reshape(result),
            layer=real.layer,
            scale=real.scale,
            windows={"kernel": shape[1:], "stride": (1, 1), "padding": (0, 0, 0, 0)},
        )

    # The rest.

    def pad(self, node: Node, values: list[Value | None]) -> Value:
        """Pad with zeros."""
        value = _tensor(values[0])
        _check_known(value)
        mode = node.attributes.get("mode", "constant")
        filler = node.attributes.get("value", 0.0)
        if node.has(2):
            filler = float(_array(values[2], "value").ravel()[0])
        zero = 0.0
        if isinstance(value, Stored):
            known = value.target or self.layers.input
            zero = known.zero_point if known else 0
        if mode != "constant" or filler != zero:
            raise Refusal(f"it pads by {mode} with {filler}", "pad with a constant zero")
        if isinstance(value, Pending):
            raise Refusal(f"its input is not quantised ({value.name!r} computes it)", _QUANTISE)
        attributes = dict(node.attributes)
        pads = _array(values[1], "pads").tolist() if node.has(1) else list(attributes["pads"])
        axes = list(range(value.places.ndim))
        if node.has(3):
            axes = [int(a) % value.places.ndim for a in _array(values[3], "axes")]
        around = [(0, 0)] * value.places.ndim
        for index, axis in enumerate(axes):
            around[axis] = (int(pads[index]), int(pads[index + len(axes)]))
        if min(min(pair) for pair in around) < 0:
            raise Refusal("it crops", "use Slice")
        return replace(value, places=np.pad(value.places, around, constant_values=PADDED))

    def concat(self, node: Node, values: list[Value | None]) -> Value:
        """Concat."""
        tensors = []
        for value in values:
            tensor = _tensor(value)
            _check_known(tensor)
            tensors.append(tensor)
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
        value = _tensor(values[0])
        _check_known(value)
        real = self.layers.linear(value)
        axis = int(node.attributes.get("axis", -1 if self.graph.opsets[""] >= 13 else 1))
        shape = real.places.shape
        if shape[axis % len(shape)] != real.places.size:
            raise Refusal(f"it is taken over axis {axis} of {shape}", _HOST)
        target = Target(scale=real.scale, zero_point=0, low=0, high=0)
        return Scores(layer=real.layer, target=target, places=real.places)

    # QLinear nodes.

    def qlinear_conv(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearConv."""
        zero = _array(values[5], "zero point") if node.has(5) else None
        weights = _weights(_array(values[3], "weights"), _array(values[4], "scale"), zero, 0)
        target = self._target(node, values[6], values[7])
        value = self._dequantised(node, values[0], values[1], values[2])
        bias = None
        if node.has(8):
            step = _one_a_channel(weights) * float(_array(values[1], "scale").ravel()[0])
            bias = _array(values[8], "bias").astype(np.float64) * step
        inputs: list[Value | None] = [value, weights, bias]
        plain = replace(node, inputs=("x", "w", "b" if bias is not None else ""))
        return self._quantised_to(node, self.convolution(plain, inputs), target)

    def qlinear_matmul(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearMatMul."""
        value = self._dequantised(node, values[0], values[1], values[2])
        zero = _array(values[5], "zero point") if node.has(5) else None
        weights = _weights(_array(values[3], "weights"), _array(values[4], "scale"), zero, -1)
        target = self._target(node, values[6], values[7])
        return self._quantised_to(node, self.matmul(node, [value, weights]), target)

    def qgemm(self, node: Node, values: list[Value | None]) -> Value:
        """QGemm of com.microsoft."""
        value = self._dequantised(node, values[0], values[1], values[2])
        axis = 0 if node.attributes.get("transB", 0) else 1
        zero = _array(values[5], "zero point") if node.has(5) else None
        weights = _weights(_array(values[3], "weights"), _array(values[4], "scale"), zero, axis)
        bias = None
        if node.has(6):
            columns = weights if axis == 0 else Weights(
                values=weights.values.T, scale=weights.scale.T
            )  # fmt: skip
            step = _one_a_channel(columns) * float(_array(values[1], "scale").ravel()[0])
            bias = _array(values[6], "bias").astype(np.float64).ravel() * step
        plain = replace(node, inputs=("a", "b", "c" if bias is not None else ""))
        made = self.gemm(plain, [value, weights, bias])
        if not node.has(7):
            return made
        zero_point = values[8] if node.has(8) else None
        return self._quantised_to(node, made, self._target(node, values[7], zero_point))

    def qlinear_add(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearAdd of com.microsoft."""
        one = self._dequantised(node, values[0], values[1], values[2])
        other = self._dequantised(node, values[3], values[4], values[5])
        zero_point = values[7] if node.has(7) else None
        target = self._target(node, values[6], zero_point)
        proto = type(node.proto)()
        proto.CopyFrom(node.proto)
        proto.op_type, proto.domain = "Add", ""
        del proto.input[:]
        proto.input.extend(["a", "b"])
        plain = replace(node, op="Add", inputs=("a", "b"), proto=proto)
        return self._quantised_to(node, self._of_two(plain, [one, other]), target)

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
        tensor = _tensor(value)
        if is_last:
            tensor = replace(tensor, places=np.moveaxis(tensor.places, -1, 1))
        made = (
            self.average_pool(node, [tensor])
            if node.op == "QLinearAveragePool"
            else self.global_average_pool(node, [tensor])
        )
        stored = _tensor(self._quantised_to(node, made, target))
        return replace(stored, places=np.moveaxis(stored.places, 1, -1)) if is_last else stored

    def qlinear_function(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearSigmoid and QLinearLeakyRelu of com.microsoft."""
        value = self._dequantised(node, values[0], values[1], values[2])
        zero_point = values[4] if node.has(4) else None
        target = self._target(node, values[3], zero_point)
        tensor = _tensor(value)
        _check_known(tensor)
        slope = np.float32(node.attributes.get("alpha", 0.01))
        is_sigmoid = node.op == "QLinearSigmoid"
        function = _sigmoid if is_sigmoid else lambda x: np.where(x < 0, slope * x, x)
        return self._quantised_to(node, self._applied(node, tensor, function), target)

    def qlinear_softmax(self, node: Node, values: list[Value | None]) -> Value:
        """QLinearSoftmax of com.microsoft, at the end."""
        value = self._dequantised(node, values[0], values[1], values[2])
        return self.softmax(node, [value])

    def _quantised_to(self, node: Node, made: Value, target: Target) -> Value:
        return self.layers.quantised(_tensor(made), target, node.name)


class Unclear(Refusal):
    """A node that cannot be judged, for one before it has a problem."""

    def __init__(self) -> None:
        super().__init__("", "")


_Handler = Callable[[IntegerReader, Node, list[Value | None]], Value]
_HANDLERS: dict[str, Any] = {
    "QuantizeLinear": IntegerReader.quantise,
    "DequantizeLinear": IntegerReader.dequantise,
    "Conv": IntegerReader.convolution,
    "Gemm": IntegerReader.gemm,
    "MatMul": IntegerReader.matmul,
    "BatchNormalization": IntegerReader.batch_normalization,
    "MaxPool": IntegerReader.max_pool,
    "GlobalMaxPool": IntegerReader.global_max_pool,
    "AveragePool": IntegerReader.average_pool,
    "GlobalAveragePool": IntegerReader.global_average_pool,
    "ReduceMean": IntegerReader.reduce_mean,
    "Pad": IntegerReader.pad,
    "Concat": IntegerReader.concat,
    "Softmax": IntegerReader.softmax,
    "QLinearConv": IntegerReader.qlinear_conv,
    "QLinearMatMul": IntegerReader.qlinear_matmul,
    "QGemm": IntegerReader.qgemm,
    "QLinearAdd": IntegerReader.qlinear_add,
    "QLinearConcat": IntegerReader.qlinear_concat,
    "QLinearAveragePool": IntegerReader.qlinear_average_pool,
    "QLinearGlobalAveragePool": IntegerReader.qlinear_average_pool,
    "QLinearSigmoid": IntegerReader.qlinear_function,
    "QLinearLeakyRelu": IntegerReader.qlinear_function,
    "QLinearSoftmax": IntegerReader.qlinear_softmax,
}


def _constant(node: Node) -> Array:
    attributes = node.attributes
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], kind)
    return np.asarray(attributes["value"])


def _is_constant(value: Value | None) -> bool:
    return isinstance(value, np.ndarray | Weights)


def _tensor(value: Value | None) -> Tensor:
    if not isinstance(value, Tensor):
        raise Refusal("its input is constant", "fold it at export")
    return value


def _array(value: Value | None, what: str) -> Array:
    if isinstance(value, Unknown):
        raise Unclear
    if not isinstance(value, np.ndarray):
        raise Refusal(f"its {what} is not constant", "give it as an initializer")
    return value


def _optional(value: Value | None) -> Array | None:
    return None if value is None else _array(value, "parameter")


def _real(value: Value | None) -> Array:
    return value.real() if isinstance(value, Weights) else _array(value, "constant")


def _check_known(value: Tensor) -> None:
    if isinstance(value, Unknown):
        raise Unclear
    if isinstance(value, Scores):
        raise Refusal("it comes after a softmax, which the host takes", "end the model there")


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


def _weights_of(value: Value | None) -> Weights:
    if isinstance(value, Unknown):
        raise Unclear
    if isinstance(value, np.ndarray):
        raise Refusal(f"its weights are of {value.dtype}", f"{_QUANTISE[:-1]}) to int8 or uint8")
    if not isinstance(value, Weights):
        raise Refusal("its weights are computed", "give them as initializers")
    return value


def _one_a_channel(weights: Weights) -> Floats:
    rows = weights.scale.reshape(len(weights.scale), -1)
    if (rows != rows[:, :1]).any():
        raise Refusal(
            "its weights have several scales in one output channel",
            "quantise weights with one scale, or one an output channel",
        )
    low, high = int(weights.values.min()), int(weights.values.max())
    if low < -256 or high > 255:
        raise Refusal(
            f"its weights reach {low}..{high} without their zero point",
            "quantise them to int8 or uint8",
        )
    return rows[:, 0].astype(np.float64)


def _bias(value: Value | None, channels: int) -> Floats:
    if value is None:
        return np.zeros(channels)
    real = (
        value.values * value.scale
        if isinstance(value, Weights)
        else _array(value, "bias").astype(np.float64)
    )
    if real.size not in {1, channels}:
        raise Refusal(f"its bias has shape {real.shape}", f"give one of {channels} values")
    return np.broadcast_to(real.ravel(), (channels,)).astype(np.float64)


def _widened(
    weights: Int64Array, geometry: dict[str, Any]
) -> tuple[Int64Array, tuple[int, int, int, int]]:
    """Surround a kernel with zero weights until it is larger than its padding."""
    padding = list(geometry["padding"])
    for axis in range(2):
        step = geometry["dilation"][axis]
        extent = (weights.shape[2 + axis] - 1) * step + 1
        over = max(padding[axis], padding[axis + 2]) - extent + 1
        more = max(0, -(-over // step))
        if more:
            around = [(0, 0)] * 4
            around[2 + axis] = (more, more)
            weights = np.pad(weights, around)
            padding[axis] += more * step
            padding[axis + 2] += more * step
    return weights, (padding[0], padding[1], padding[2], padding[3])


def _limits(node: Node, rest: Sequence[Array | None]) -> tuple[float, float] | None:
    """Return the limits of a function that only limits, else None."""
    if node.op == "Relu":
        return 0.0, np.inf
    if node.op != "Clip":
        return None
    given = [
        float(rest[index].ravel()[0]) if index < len(rest) and rest[index] is not None  # type: ignore[union-attr]
        else float(node.attributes.get(name, default))
        for index, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)))
    ]  # fmt: skip
    return given[0], given[1]


def _check_pool(spec: Windows) -> None:
    if spec.dilation != (1, 1):
        raise Refusal(f"its dilations are {spec.dilation}", "pool without dilation")


def _whole(height: int, width: int) -> Windows:
    return Windows(
        kernel=(height, width),
        stride=(1, 1),
        dilation=(1, 1),
        padding=(0, 0, 0, 0),
        overhang=(0, 0),
    )


def _like(places: Int64Array, shape: tuple[int, int, int]) -> Int64Array:
    """Return places of a whole map, of as many axes as another tensor has."""
    whole = np.arange(int(np.prod(shape))).reshape(1, *shape)
    return whole[:, :, 0] if places.ndim == 3 else whole


def _same(values: Any) -> Any:
    return values


def _sigmoid(values: Any) -> Any:
    one = np.float32(1)
    return one / (one + np.exp(-values))
