"""Layers that compute what an ONNX graph's tensors stand for, made where these are quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.compress.quantise import quantise_factor, quantise_mean
from thresher.golden.descriptors import Rounding
from thresher.golden.network import (
    Add,
    AveragePool,
    Convolution,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
    Range,
    WeightedLayer,
)
from thresher.golden.pooling import divisors
from thresher.golden.read.onnx.maps import Maps, rescaled
from thresher.golden.read.onnx.values import (
    Floats,
    Int64Array,
    Joined,
    Mean,
    Parts,
    Pending,
    Product,
    Real,
    Refusal,
    Source,
    Stored,
    Sum,
    Target,
    Tensor,
    Unknown,
    Weighted,
    check_zero,
)

__all__ = ["Layers", "coded"]

_T = TypeVar("_T")
_ROUNDING = Rounding.HALF_EVEN
_BITS = 31  # of a scale
_ACTIVATION = (-(1 << 15), (1 << 15) - 1)
_INSTEAD_QUANTISED = "quantise it there (QuantizeLinear, DequantizeLinear)"


def coded(weights: Int64Array) -> tuple[npt.NDArray[np.uint8], Int64Array]:
    """Return weights as indices into a codebook, in which zero, if there is one, is first.

    Raises
    ------
    Refusal
        If a codebook of 256 entries does not hold them.
    """
    entries, indices = np.unique(weights, return_inverse=True)
    if entries.size > 256:
        raise Refusal(
            f"its weights have {entries.size} different values, more than 256",
            "quantise them symmetrically, or with one zero point",
        )
    order = np.argsort(entries != 0, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return place[indices].reshape(weights.shape).astype(np.uint8), entries[order]


class Layers(Maps):
    """Integer layers made so far, with their shapes, ranges and zero points.

    Parameters are those of :class:`Maps`.
    """

    def __init__(self, source_shape: tuple[int, ...]) -> None:
        super().__init__(source_shape)
        self.input: Target | None = None
        self.layers: list[Layer] = []
        self.ranges: dict[str, Range] = {}
        self._tables: dict[tuple[str, bytes], str] = {}
        self._made_layers: dict[str, Layer] = {}

    def add(self, layer: Layer, zero_point: int) -> str:
        """Add a layer; return its name.

        Raises
        ------
        Refusal
            If it does not take its inputs.
        """
        try:
            shape = layer.output_shape(*(self.shapes[name] for name in layer.inputs))
            values = layer.output_range(*(self.ranges[name] for name in layer.inputs))
        except ValueError as error:
            raise Refusal(_reason(error), "change that, or let the host compute it") from error
        self.layers.append(layer)
        self._made_layers[layer.name] = layer
        self.shapes[layer.name], self.ranges[layer.name] = shape, values
        if zero_point:
            self.zero_points[layer.name] = zero_point
        return layer.name

    def zero_point(self, layer: str) -> int:
        if layer == "input":
            return self.input.zero_point if self.input else 0
        return super().zero_point(layer)

    def placeholder(self, shape: tuple[int, ...], target: Target) -> tuple[str, Int64Array]:
        """Return a layer's name and places that stand for a tensor whose node has a problem."""
        name = f"({len(self.shapes)})"
        places = np.arange(int(np.prod(shape))).reshape(shape)
        channels, height, width = (shape[1], *shape[2:]) if len(shape) == 4 else (places.size, 1, 1)
        self.shapes[name] = channels, height, width
        self.ranges[name] = target.clip
        return name, places

    # Values of one variable.

    def stored_range(self, layer: str) -> Range:
        """Return the least and greatest value of a layer."""
        if layer == "input" and layer not in self.ranges:
            raise Refusal("its input is not quantised", _INSTEAD_QUANTISED)
        return self.ranges[layer]

    def linear(self, value: Tensor, what: str = "input") -> Real:
        """Return a real tensor that is a scale times stored values.

        A function whose values are multiples of its scale, as ReLU's are, becomes a table.

        Raises
        ------
        Refusal
            If a tensor is not quantised.
        """
        if isinstance(value, Source | Pending):
            made = f" ({value.name!r} computes it)" if isinstance(value, Pending) else ""
            raise Refusal(f"its {what} is not quantised{made}", _INSTEAD_QUANTISED)
        if not isinstance(value, Real):
            raise Refusal(f"its {what} is of integers", "put a DequantizeLinear before it")
        if value.function is None:
            return value
        low, high = self.stored_range(value.layer)
        steps = _real_values(value, low, high).astype(np.float64) / value.scale
        table = np.rint(steps)
        if not np.isfinite(steps).all() or np.abs(steps - table).max() > 1e-4:
            raise Refusal(
                f"its {what} is a function of a quantised tensor that is not quantised again",
                _INSTEAD_QUANTISED,
            )
        check_zero(value.places, float(_real_values(value, 0, 0)[0]))
        layer = self._looked_up(value, table.astype(np.int64), self.zero_point(value.layer))
        return replace(value, layer=layer, function=None, places=self._kept(value))

    def _kept(self, value: Real) -> Int64Array:
        return self.placed(value, value.layer)

    def _looked_up(self, value: Real | Stored, table: Int64Array, zero_point: int) -> str:
        low, high = self.stored_range(value.layer)
        if np.array_equal(table, np.arange(low, high + 1)):
            return value.layer
        self.placed(value, value.layer)
        key = value.layer, table.tobytes()
        if key not in self._tables:
            lookup = Lookup(
                name=self.unique(f"{value.layer}/table"),
                inputs=(value.layer,),
                first=low,
                table=np.clip(table, *_ACTIVATION),
            )
            self._tables[key] = self.add(lookup, zero_point)
        return self._tables[key]

    def dequantised(self, value: Tensor, target: Target) -> Real:
        """Return what stored values stand for with a scale and zero point."""
        assert isinstance(value, Stored)
        if value.layer == "input" and self.input is None:
            self.input = target
            self.ranges["input"] = target.clip
        known = self.input if value.layer == "input" else value.target
        assert known is not None
        layer, places = value.layer, value.places
        if known.zero_point != target.zero_point:
            low, high = self.stored_range(value.layer)
            table = np.arange(low, high + 1) + known.zero_point - target.zero_point
            check_zero(value.places, (known.zero_point - target.zero_point) * target.scale)
            layer = self._looked_up(value, table, target.zero_point)
            places = self.placed(value, value.layer)
        return Real(layer=layer, places=places, scale=target.scale)

    def traced(self, value: Real) -> list[Real]:
        """Return a tensor as a function of its layer, of what that looks up, and so on."""
        found = [value]
        while isinstance(table := self._made_layers.get(found[-1].layer), Lookup):
            found.append(_behind(found[-1], table))
        return found

    # Quantising.

    def quantised(self, value: Tensor, target: Target, name: str) -> Stored:
        """Return a tensor's stored values, computed by a layer called ``name`` if one is needed.

        Raises
        ------
        Refusal
            If no layer computes them.
        """
        match value:
            case Source():
                if self.input is not None and self.input != target:
                    raise Refusal("the input is quantised twice, differently", "quantise it once")
                self.input = target
                self.ranges["input"] = target.clip
                return Stored(layer="input", target=target, places=value.places)
            case Real():
                low, high = self.stored_range(value.layer)
                steps = _real_values(value, low, high) / np.float32(target.scale)
                if np.isnan(steps).any():
                    raise Refusal("the function before it gives NaN", "limit its input")
                table = np.clip(np.rint(steps), *target.clip).astype(np.int64)
                at_zero = np.rint(_real_values(value, 0, 0) / np.float32(target.scale))
                check_zero(value.places, float(at_zero[0]) * target.scale)
                layer = self._looked_up(value, table, target.zero_point)
                places = value.places if layer == value.layer else self.placed(value, value.layer)
                return Stored(layer=layer, places=places, target=target)
            case Joined():
                parts = [
                    self.quantised(part, target, part_name(part, name)) for part in value.parts
                ]
                joined = self.joined(parts, value.axis, value.name)
                joined = replace(joined, places=joined.places.ravel()[value.places])
                if value.low > -np.inf or value.high < np.inf:
                    joined = self._limited(joined, value, target)
                return joined
            case Pending():
                layer = self._made(value, target)
                for pool in value.pools:
                    layer = self.add(
                        MaxPool(name=self.unique(f"{layer}/pool"), inputs=(layer,), **pool),
                        target.zero_point,
                    )
                return Stored(layer=layer, places=value.places, target=target)
            case Unknown():
                layer, places = self.placeholder(value.places.shape, target)
                return Stored(layer=layer, places=places, target=target)
        raise Refusal("it quantises what is quantised already", "take it out")

    def _limited(self, value: Stored, pending: Pending, target: Target) -> Stored:
        low, high = self.stored_range(value.layer)
        table = np.clip(np.arange(low, high + 1), *_clip(pending, target))
        layer = self._looked_up(value, table, target.zero_point)
        return replace(value, layer=layer)

    def _made(self, value: Pending, target: Target) -> str:
        clip = _clip(value, target)
        match value:
            case Weighted():
                return self.add(self._weighted(value, target, clip), target.zero_point)
            case Mean():
                return self.add(self._mean(value, target, clip), target.zero_point)
            case Sum():
                return self.add(self._sum(value, target, clip), target.zero_point)
            case Parts():
                return self._added(value, target, clip)
            case Product():
                scale, shift = _factor(value.scales[0] * value.scales[1] / target.scale)
                product = Multiply(
                    name=self.unique(value.name),
                    inputs=value.layers,
                    scale=scale,
                    shift=shift,
                    rounding=_ROUNDING,
                    clip=clip,
                )
                return self.add(product, target.zero_point)
        raise TypeError(f"no layer for {type(value).__name__}")

    def _weighted(self, value: Weighted, target: Target, clip: Range) -> WeightedLayer:
        factor, offset = value.factor / target.scale, value.offset / target.scale
        weights, factor = _finer(value, factor, offset)
        weights, factor, bias = _positive(weights, factor, offset)
        indices, codebook = coded(weights)
        pairs = [_factor(float(number)) for number in factor]
        arguments: dict[str, Any] = {
            "name": self.unique(value.name),
            "inputs": (value.layer,),
            "weights": indices,
            "codebook": codebook,
            "bias": bias,
            "scale": np.array([scale for scale, _ in pairs]),
            "shift": np.array([shift for _, shift in pairs]),
            "rounding": _ROUNDING,
            "clip": clip,
        }
        return _checked(
            lambda: (
                Linear(**arguments)
                if value.geometry is None
                else Convolution(**arguments, **value.geometry)
            )
        )

    def _mean(self, value: Mean, target: Target, clip: Range) -> Layer:
        shape = self.shapes[value.layer][1:]
        divided = _checked(lambda: divisors(shape, **value.windows, uncounted=value.uncounted))
        factor = value.scale / target.scale
        _factor(factor / (divided[0][0] * divided[1][0]))
        name = self.unique(value.name)
        pool = _checked(
            lambda: AveragePool(
                name=name,
                inputs=(value.layer,),
                rounding=_ROUNDING,
                **quantise_mean(factor, divided, _BITS),
                **value.windows,
            )
        )
        low, high = _checked(lambda: pool.output_range(self.stored_range(value.layer)))
        if clip[0] <= low and high <= clip[1]:
            return pool
        return replace(pool, clip=clip)

    def _added(self, value: Parts, target: Target, clip: Range) -> str:
        """Add the layers of the parts, and of their sums, which are exact."""
        layers = [self._made(part, target) for part in value.parts]
        total = layers[0]
        for layer in layers[1:]:
            whole = Add(
                name=self.unique(value.name),
                inputs=(total, layer),
                operand_scale=1,
                operand_shift=1,
                scale=1,
                shift=ADD_HEADROOM - 1,
                rounding=_ROUNDING,
                clip=clip if layer == layers[-1] else target.clip,
            )
            total = self.add(whole, target.zero_point)
        return total

    def _sum(self, value: Sum, target: Target, clip: Range) -> Layer:
        first, second = (0, 1) if value.scales[0] >= value.scales[1] else (1, 0)
        greater, lesser = value.scales[first], value.scales[second]
        operand = _factor(lesser / (2 * greater))
        whole = _factor(greater / target.scale / (1 << 19))
        return _checked(
            lambda: Add(
                name=self.unique(value.name),
                inputs=(value.layers[first], value.layers[second]),
                operand_scale=operand[0],
                operand_shift=operand[1],
                scale=whole[0],
                shift=whole[1],
                rounding=_ROUNDING,
                clip=clip,
            )
        )


def part_name(part: Tensor, name: str) -> str:
    """Return the name of the layer that computes a part of a joined tensor."""
    return part.name if isinstance(part, Pending) else name


def _real_values(value: Real, low: int, high: int) -> npt.NDArray[np.float32]:
    """Return what each stored value stands for, computed in single precision as a runtime does."""
    values = (np.arange(low, high + 1).astype(np.float32) * np.float32(value.scale)).astype(
        np.float32
    )
    if value.function is None:
        return values
    with np.errstate(all="ignore"):
        return np.asarray(value.function(values), np.float32)


def _behind(value: Real, table: Lookup) -> Real:
    """Return a function of a table's outputs as a function of its stored inputs."""
    function = rescaled(value).function
    assert function is not None
    outputs = table.table.astype(np.float32)

    def looked_up(stored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return function(outputs[np.rint(stored).astype(np.int64) - table.first])

    return replace(value, layer=table.inputs[0], scale=1.0, function=looked_up)


def _clip(value: Pending, target: Target) -> Range:
    """Return limits of stored values: those of their type and of activation functions."""
    low, high = (
        int(np.clip(np.rint(np.float32(limit) / np.float32(target.scale)), *target.clip))
        for limit in (value.low, value.high)
    )
    return low, high


def _finer(value: Weighted, factor: Floats, offset: Floats) -> tuple[Int64Array, Floats]:
    """Return weights and factors of ``factor * sum + offset`` that suit the offsets.

    An offset becomes an integer of sums, which rounds it. A channel of one weight may have any
    other with another factor: of those up to 127 it gets the one with which least is lost.
    """
    weights = value.weights
    count = len(weights)
    if value.geometry is None or value.geometry["groups"] != count or weights.size != count:
        return weights, factor
    step = factor * weights.ravel()  # of the output, for one of the input
    choices = np.arange(127, 0, -1)
    wanted = np.outer(offset / np.where(step == 0, 1, step), choices)
    lost = np.abs(wanted - np.rint(wanted)) / choices
    chosen = choices[np.argmin(lost, axis=1)]
    sums = np.divide(offset, factor, out=np.zeros(count), where=factor != 0)
    change = (step != 0) & (np.abs(sums - np.rint(sums)) > 1e-6)
    made = np.where(change, chosen, weights.ravel())
    return made.reshape(weights.shape), np.where(change, step / chosen, factor)


def _positive(
    weights: Int64Array, factor: Floats, offset: Floats
) -> tuple[Int64Array, Floats, Int64Array]:
    """Return weights, factors above zero and integer biases for ``factor * sum + offset``."""
    axes = (slice(None), *(None,) * (weights.ndim - 1))
    # Without a factor there is the offset alone; 2^-20 keeps it exact enough for any output.
    weights = weights * np.sign(factor).astype(np.int64)[axes]
    factor = np.where(factor == 0, 2.0**-20, np.abs(factor))
    bias = np.rint(offset / factor)
    if not np.isfinite(bias).all() or np.abs(bias).max() >= 1 << 47:
        raise Refusal("a bias is too large for its scale, or no number", "check scales and biases")
    return weights, factor, bias.astype(np.int64)


def _factor(number: float) -> tuple[int, int]:
    try:
        return quantise_factor(number, _BITS)
    except ValueError:
        raise Refusal(
            f"its scales differ too much: input (times weights) over output is {number:.4g}",
            "check the scales",
        ) from None


def _checked(make: Callable[[], _T]) -> _T:
    """Make a layer; its ValueError is a reason."""
    try:
        return make()
    except ValueError as error:
        raise Refusal(_reason(error), "change that, or let the host compute it") from error


def _reason(error: ValueError) -> str:
    """Return a layer's error without the layer, which the problem names."""
    text = str(error)
    return text.split(": ", 1)[1] if text.startswith("layer ") and ": " in text else text
