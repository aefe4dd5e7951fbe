"""What ONNX' operations compute of the values of a graph, whatever its numbers are.

The graph is gone through once. What is computed is kept until it is known how it is to be stored,
and becomes a layer then: see :class:`thresher.golden.read.onnx_maps.Maps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from thresher.golden.network import MaxPool
from thresher.golden.read.onnx_graph import Graph, Node
from thresher.golden.read.onnx_maps import Maps
from thresher.golden.read.onnx_values import (
    PADDED,
    Array,
    Floats,
    Int64Array,
    Joined,
    Mean,
    Parts,
    Pending,
    Product,
    Real,
    Refusal,
    Scores,
    Source,
    Stored,
    Sum,
    Target,
    Tensor,
    Unclear,
    Unknown,
    Value,
    Weighted,
    Weights,
    check_zero,
    is_whole,
    per_channel,
)
from thresher.golden.read.onnx_windows import Padding, Windows, windows
from thresher.golden.read.problems import Problems

__all__ = [
    "ELEMENTWISE",
    "MOVING",
    "Operations",
    "array_of",
    "check_known",
    "is_constant",
    "one_a_channel",
    "optional",
    "tensor_of",
]


_QUANTISE = "quantise it (QuantizeLinear, DequantizeLinear)"
_MOST_VALUES = 1 << 26
_HOST = "replace it, or cut the model there and let the host compute it"

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


class Operations:
    """Turns a graph into layers, node by node, and notes the problems of each.

    Parameters
    ----------
    graph
        The graph.
    maps
        Receives the layers.
    problems
        Receives what stands in the way.
    """

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
    """Methods by operation: of (node, values of its inputs), returning its output's value."""

    takes_constants: ClassVar[frozenset[str]] = frozenset()
    """Operations whose method is called for constants, too."""

    instead: ClassVar[Mapping[str, str]] = {}
    """What would work instead of an operation that is not supported."""

    in_floats: ClassVar[bool] = False
    """Whether layers may have values that are not quantised."""

    def __init__(self, graph: Graph, maps: Maps, problems: Problems) -> None:
        self.graph, self.layers, self.problems = graph, maps, problems
        self.values: dict[str, Value] = dict(graph.constants)

    def weights_of(self, value: Value | None) -> Weights:
        """Return constant weights."""
        raise NotImplementedError

    def settled(self, value: Tensor) -> Tensor:
        """Return a value for an operation on several."""
        return value

    def name(self, name: str, value: Value) -> None:
        """Take note of the tensor that a value is."""

    # Nodes.

    def take(self, node: Node) -> None:
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
                self.name(name, made[number])
            else:
                shape = self.graph.shapes.get(name, (1, 1, 1, 1))
                self.values[name] = Unknown(places=np.zeros(shape, np.int64))

    def _made(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        op = node.op
        if op == "Constant":
            return [_constant(node)]
        if op == "Shape":
            return [self._shape(node, values[0])]
        folds = op not in self.takes_constants and bool(values)
        if folds and all(value is None or is_constant(value) for value in values):
            return self._folded(node, values)
        if op in MOVING:
            return self._moved(node, values)
        if op not in self.methods:
            raise Refusal("this operation is not supported", self.instead.get(op, _HOST))
        return [getattr(self, self.methods[op])(node, values)]

    def _shape(self, node: Node, value: Value | None) -> Array:
        array = value if isinstance(value, np.ndarray) else None
        shape = array.shape if array is not None else tensor_of(value).places.shape
        if isinstance(value, Unknown):
            raise Unclear
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return np.array(shape[start:end], np.int64)

    def _moved(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        value = tensor_of(values[0])
        rest = [array_of(item, "parameter") for item in values[1:]]
        moved = self.graph.evaluate(node, [value.places, *rest])
        for places in moved:
            if places.ndim == 0 or not places.size:
                raise Refusal("its result is empty, or no array", "take it out")
        return [replace(value, places=places.astype(np.int64)) for places in moved]

    def _folded(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        weights = values[0]
        if node.op not in MOVING or not isinstance(weights, Weights):
            arrays = [x.real() if isinstance(x, Weights) else x for x in values]
            return self.graph.evaluate(node, arrays)  # type: ignore[arg-type]
        rest = [array_of(item, "parameter") for item in values[1:]]
        parts = (
            self.graph.evaluate(node, [array, *rest]) for array in (weights.values, weights.scale)
        )
        return [Weights(values=a, scale=b) for a, b in zip(*parts, strict=True)]

    def passed(self, node: Node, values: list[Value | None]) -> Value:
        """Return an input that the node does not change."""
        value = tensor_of(values[0])
        if node.op == "Cast" and node.attributes.get("to") != 1:  # FLOAT
            raise Refusal("it casts to something other than float32", "take it out")
        return value

    # Weighted operations.

    def convolution(self, node: Node, values: list[Value | None]) -> Value:
        """Conv of (1, C, H, W), or of (1, C, W) as a map of one row."""
        quantised = self.weights_of(values[1])
        if quantised.values.ndim not in {3, 4}:
            raise Refusal(
                f"it is a convolution of {quantised.values.ndim - 2} spatial axes",
                "use one of height and width",
            )
        kernel = quantised.values.shape[2:]
        factor = one_a_channel(quantised)
        offset = _bias(values[2] if node.has(2) else None, len(factor))
        windows(node, (4095, 4095), kernel)
        value = tensor_of(values[0])
        check_known(value)
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
        weights = quantised.values.reshape(*quantised.values.shape[:2], *spec.kernel)
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
        weights = self.weights_of(values[1])
        if node.attributes.get("transA", 0):
            raise Refusal("its transA is 1", "give its input as a row")
        if not node.attributes.get("transB", 0):
            weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = one_a_channel(weights) * alpha
        offset = _bias(values[2] if node.has(2) else None, len(factor)) * beta
        return self._product(node, values[0], weights.values, factor, offset)

    def matmul(self, node: Node, values: list[Value | None]) -> Value:
        """MatMul by a constant matrix."""
        if isinstance(values[0], np.ndarray | Weights):
            raise Refusal("its first input is constant", "put the constant second")
        weights = self.weights_of(values[1])
        if weights.values.ndim != 2:
            raise Refusal(f"its weights have {weights.values.ndim} axes", "give them two")
        weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = one_a_channel(weights)
        offset = np.zeros(len(factor))
        return self._product(node, values[0], weights.values, factor, offset)

    def _product(
        self, node: Node, value: Value | None, weights: Array, factor: Floats, offset: Floats
    ) -> Value:
        """Return ``weights`` (out, in) times a vector, or times that at each position of a map."""
        tensor = tensor_of(value)
        check_known(tensor)
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
            wide = np.zeros((outputs, shape[0] * size), weights.dtype)
            inside = places[0] != PADDED
            np.add.at(wide.T, places[0][inside], weights[:, inside].T)  # a value may be there twice
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
            wide = np.zeros((outputs, shape[0], 1, 1), weights.dtype)
            np.add.at(wide[:, :, 0, 0].T, order, weights.T)
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
        gamma, beta, mean, variance = (_real(item).astype(np.float64) for item in values[1:5])
        if node.attributes.get("training_mode", 0):
            raise Refusal("it is in training mode", "export the model for inference")
        gain = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        value = tensor_of(values[0])
        check_known(value)
        axes = (1, -1, *(1,) * (value.places.ndim - 2))
        return self._affine(node, value, gain.reshape(axes), (beta - mean * gain).reshape(axes))

    def _affine(self, node: Node, value: Tensor, gain: Array, offset: Array) -> Value:
        """Return ``value * gain + offset``, constants that may differ by channel."""
        if isinstance(value, Weighted) and value.is_plain:
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
            check_zero(places, float(np.abs(offset).max()))
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

    def _sloped(self, node: Node, value: Tensor, slopes: Array) -> Value:
        """Return a value, where it is negative times a slope a channel.

        It is the sum of what is not negative, and of products of what is: one sum of those of
        positive slopes, one of those of negative ones. What is not quantised is computed for each.
        """
        base: Value = value
        if self.in_floats or not (isinstance(value, Weighted) and value.is_plain):
            real = self.layers.linear(value)
            if np.unique(slopes).size == 1:
                number = slopes.ravel()[:1]
                return self.applied(real, lambda x: self._evaluated(node, [x, number]))
            base = self._affine(node, real, np.ones(()), np.zeros(()))
        assert isinstance(base, Weighted)
        by_channel = per_channel(slopes.astype(np.float64), base.places, base.shape)
        if by_channel is None or not np.isfinite(by_channel).all():
            raise Refusal("its slope is not one a channel", "use one slope, or one a channel")
        parts = [replace(base, name=f"{node.name}/positive", low=0.0)]
        for has, low, high in ((by_channel > 0, -np.inf, 0.0), (by_channel < 0, 0.0, np.inf)):
            if has.any():
                taken = has.reshape(-1, *(1,) * (base.weights.ndim - 1))
                product = replace(
                    base,
                    name=f"{node.name}/slopes",
                    weights=np.where(taken, base.weights, 0),
                    factor=base.factor * np.where(has, by_channel, 1),
                    offset=base.offset * np.where(has, by_channel, 0),
                    low=low,
                    high=high,
                )
                parts.append(product)
        return Parts(name=node.name, shape=base.shape, places=base.places, parts=tuple(parts))

    # Functions and sums.

    def function(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of one value."""
        value = tensor_of(values[0])
        rest = [optional(item) for item in values[1:]]
        check_known(value)
        if isinstance(value, Pending):
            limits = _limits(node, rest)
            if limits is not None:
                return value.clipped(*limits)
            if node.op == "LeakyRelu" and not self.in_floats:
                return self._sloped(node, value, np.array([node.attributes.get("alpha", 0.01)]))
        return self.applied(value, lambda x: self._evaluated(node, [x, *rest]))

    def applied(self, value: Tensor, function: Any) -> Real:
        """Return a function of a value."""
        real = value if isinstance(value, Real) else self.layers.linear(value)
        before = real.function or _same
        with np.errstate(all="ignore"):  # a node that is not sound is found here
            found = function(before(np.zeros(1, np.float32)))
        if np.shape(found) != (1,):
            raise Refusal("it does not give one value for each", _HOST)
        return replace(real, function=lambda x: function(before(x)))

    def _evaluated(self, node: Node, arrays: Sequence[Any]) -> Any:
        return self.graph.evaluate(node, arrays)[0]

    def of_two(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of two tensors, of which one may be constant."""
        if len(values) != 2:
            raise Refusal(f"it has {len(values)} inputs", "use nodes of two")
        constant = [index for index, value in enumerate(values) if is_constant(value)]
        tensors = [tensor_of(value) for index, value in enumerate(values) if index not in constant]
        for tensor in tensors:
            check_known(tensor)
        if constant:
            return self._with_constant(node, tensors[0], _real(values[constant[0]]), constant[0])
        one, other = (x if isinstance(x, Real) else self.layers.linear(x) for x in tensors)
        of_one = self.layers.of_one(one, other)
        if of_one is not None:
            first, second = (item.function or _same for item in of_one)
            return replace(
                of_one[0], function=lambda x: self._evaluated(node, [first(x), second(x)])
            )
        if node.op == "Mul":
            return self._product_of_maps(node, one, other)
        if node.op not in {"Add", "Sub"}:
            raise Refusal("it combines two tensors that are not functions of one value", _HOST)
        if node.op == "Sub":
            other = self.applied(other, np.negative)
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

    def _product_of_maps(self, node: Node, one: Tensor, other: Tensor) -> Value:
        """Return the product of two maps of one shape, or of a map and one value a channel."""
        first, second = self.layers.linear(one), self.layers.linear(other, "second input")
        if first.places.size < second.places.size:
            first, second = second, first
        if first.places.size == second.places.size:
            layer, operand, places = self.layers.aligned(first, second)
        else:
            layer, operand, places = self.layers.by_channel(first, second)
        shape = self.layers.shapes[layer]
        if self.layers.shapes[operand] not in {shape, (shape[0], 1, 1)}:
            raise Refusal("its inputs are maps of different shapes", "give both one shape")
        return Product(
            name=node.name,
            shape=shape,
            places=places,
            layers=(layer, operand),
            scales=(first.scale, second.scale),
        )

    def _with_constant(self, node: Node, value: Tensor, constant: Array, position: int) -> Value:
        if isinstance(value, Source | Stored):
            value = self.layers.linear(value)
        if np.broadcast_shapes(value.places.shape, constant.shape) != value.places.shape:
            raise Refusal("its constant makes its result larger", "export it of one shape")
        if isinstance(value, Real) and np.unique(constant).size == 1:
            number = constant.ravel()[:1].astype(np.float32)
            return self.applied(
                value,
                lambda x: self._evaluated(node, [x, number] if position else [number, x]),
            )
        if (node.op, position) == ("PRelu", 1):
            return self._sloped(node, value, constant)
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
            raise Refusal("its constant differs by channel", "use Add, Sub, Mul or Div for that")
        return self._affine(node, value, *affine[node.op, position])

    # Pooling.

    def max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """MaxPool."""
        if len(node.outputs) > 1 and node.outputs[1]:
            raise Refusal("it gives indices", "leave its second output out")
        return self._max_pool(
            node, tensor_of(values[0]), lambda height, width: windows(node, (height, width))
        )

    def global_max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalMaxPool."""
        return self._max_pool(node, tensor_of(values[0]), _whole)

    def _max_pool(self, node: Node, value: Tensor, find: Callable[[int, int], Windows]) -> Value:
        check_known(value)
        if isinstance(value, Pending):
            spec = find(*value.shape[1:])
            _check_pool(spec)
            if isinstance(value, Joined) or not is_whole(value.places, value.shape):
                self.layers.linear(value)
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
        name = self.layers.add(pool, self.layers.zero_point(layer))
        return replace(view, layer=name, places=_like(view.places, self.layers.shapes[name]))

    def average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """AveragePool."""
        counts_padding = bool(node.attributes.get("count_include_pad", 0))

        def find(height: int, width: int) -> Windows:
            return windows(node, (height, width))

        return self._average(node, tensor_of(values[0]), find, counts_padding=counts_padding)

    def global_average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalAveragePool."""
        return self._average(node, tensor_of(values[0]), _whole)

    def _average(
        self,
        node: Node,
        value: Tensor,
        find: Callable[[int, int], Windows],
        *,
        counts_padding: bool = False,
    ) -> Value:
        check_known(value)
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
            uncounted=self._uncounted(node, spec, counts_padding=counts_padding),
        )

    @staticmethod
    def _uncounted(node: Node, spec: Windows, *, counts_padding: bool) -> Padding:
        if not counts_padding:
            return spec.padding
        if node.op == "QLinearAveragePool":  # counts what rounding the size up adds, too
            return (0, 0, 0, 0)
        return (0, 0, *spec.overhang)

    def reduce_mean(self, node: Node, values: list[Value | None]) -> Value:
        """ReduceMean over all of height, of width or of both, wherever these axes are."""
        value = tensor_of(values[0])
        check_known(value)
        count = value.places.ndim
        given = node.attributes.get("axes")
        if node.has(1):
            given = array_of(values[1], "axes").tolist()
        axes = [axis % count for axis in (given or range(count))]
        real = self.layers.linear(value)
        rest = [axis for axis in range(count) if axis not in axes]
        places = self.layers.placed(real, real.layer)
        shape = self.layers.shapes[real.layer]
        rows = places.transpose(*rest, *axes).reshape(
            -1, int(np.prod([places.shape[axis] for axis in axes]))
        )
        for kernel in (shape[1:], (1, shape[2]), (shape[1], 1)):
            made = (shape[0], shape[1] // kernel[0], shape[2] // kernel[1])
            order = _windows_of(rows, shape, kernel)
            if order is not None:
                break
        else:
            raise Refusal(
                f"it takes the mean over axes {axes}, not over height or width",
                "take the mean over whole rows, columns or channels",
            )
        kept = bool(node.attributes.get("keepdims", 1))
        result = [
            1 if axis in axes else places.shape[axis] for axis in range(count)
            if kept or axis not in axes
        ]  # fmt: skip
        return Mean(
            name=node.name,
            shape=made,
            places=order.reshape(result),
            layer=real.layer,
            scale=real.scale,
            windows={"kernel": kernel, "stride": (1, 1), "padding": (0, 0, 0, 0)},
        )

    # The rest.

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
        return replace(value, places=np.pad(value.places, around, constant_values=PADDED))

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
            raise Refusal(f"it is taken over axis {axis} of {shape}", _HOST)
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


def _constant(node: Node) -> Array:
    attributes = node.attributes
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], kind)
    return np.asarray(attributes["value"])


def is_constant(value: Value | None) -> bool:
    """Whether a value is known."""
    return isinstance(value, np.ndarray | Weights)


def tensor_of(value: Value | None) -> Tensor:
    """Return a value that is a tensor of activations."""
    if not isinstance(value, Tensor):
        raise Refusal("its input is constant", "fold it at export")
    return value


def array_of(value: Value | None, what: str) -> Array:
    """Return a value that is a plain constant."""
    if isinstance(value, Unknown):
        raise Unclear
    if not isinstance(value, np.ndarray):
        raise Refusal(f"its {what} is not constant", "give it as an initializer")
    return value


def optional(value: Value | None) -> Array | None:
    """Return a value that is a plain constant, or left out."""
    return None if value is None else array_of(value, "parameter")


def _real(value: Value | None) -> Array:
    return value.real() if isinstance(value, Weights) else array_of(value, "constant")


def check_known(value: Tensor) -> None:
    """Go on only if the node that computes a value is sound, and no softmax."""
    if isinstance(value, Unknown):
        raise Unclear
    if isinstance(value, Scores):
        raise Refusal("it comes after a softmax, which the host takes", "end the model there")


def one_a_channel(weights: Weights) -> Floats:
    """Return the scale of each output channel of weights."""
    rows = weights.scale.reshape(len(weights.scale), -1)
    if (rows != rows[:, :1]).any():
        raise Refusal(
            "its weights have several scales in one output channel",
            "quantise weights with one scale, or one an output channel",
        )
    low, high = weights.values.min(), weights.values.max()
    if np.issubdtype(weights.values.dtype, np.integer) and (low < -256 or high > 255):
        raise Refusal(
            f"its weights reach {low}..{high} without their zero point",
            "quantise them to int8 or uint8",
        )
    return rows[:, 0].astype(np.float64)


def _bias(value: Value | None, channels: int) -> Floats:
    if value is None:
        return np.zeros(channels)
    real = value.values * value.scale if isinstance(value, Weights) else array_of(value, "bias")
    if not np.issubdtype(real.dtype, np.floating):
        raise Refusal(f"its bias is of {real.dtype}", "put a DequantizeLinear before it")
    if real.size not in {1, channels}:
        raise Refusal(f"its bias has shape {real.shape}", f"give one of {channels} values")
    return np.broadcast_to(real.ravel(), (channels,)).astype(np.float64)


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


def _windows_of(
    rows: Int64Array, shape: tuple[int, int, int], kernel: tuple[int, int]
) -> Int64Array | None:
    """Return which window of a map of ``shape`` each row of places is; None if one is none."""
    channels, height, width = shape
    numbers = np.arange(channels * height * width).reshape(
        channels, height // kernel[0], kernel[0], width // kernel[1], kernel[1]
    )
    windows = numbers.transpose(0, 1, 3, 2, 4).reshape(-1, kernel[0] * kernel[1])
    if rows.shape[1] != windows.shape[1] or rows.min() < 0:
        return None
    owner = np.empty(numbers.size, np.int64)
    owner[windows] = np.arange(len(windows))[:, None]
    order = owner[rows[:, 0]]
    return order if np.array_equal(np.sort(rows, axis=1), windows[order]) else None


def _like(places: Int64Array, shape: tuple[int, int, int]) -> Int64Array:
    """Return places of a whole map, of as many axes as another tensor has."""
    whole = np.arange(int(np.prod(shape))).reshape(1, *shape)
    return whole[:, :, 0] if places.ndim == 3 else whole


def _same(values: Any) -> Any:
    return values
