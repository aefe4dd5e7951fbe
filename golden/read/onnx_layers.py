"""Layers that compute what an ONNX graph's tensors stand for, made where these are quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.quantise import quantise_factor
from thresher.golden.descriptors import Rounding
from thresher.golden.network import (
    Add,
    AveragePool,
    ChannelShuffle,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Range,
    Shape,
    WeightedLayer,
)
from thresher.golden.read.onnx_values import (
    PADDED,
    Channels,
    Floats,
    Int64Array,
    Joined,
    Mean,
    Pending,
    Real,
    Refusal,
    Source,
    Stored,
    Sum,
    Target,
    Tensor,
    Unknown,
    Weighted,
    channels_of,
    without_padding,
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


class Layers:
    """Layers made so far, with their shapes, ranges and zero points.

    The input's map is arranged by the first node that computes with it.

    Parameters
    ----------
    source_shape
        Shape of the input as the model has it, its batch of 1 included.
    """

    def __init__(self, source_shape: tuple[int, ...]) -> None:
        self.source_shape = source_shape
        self.input_shape: Shape | None = None
        self.input: Target | None = None
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {}
        self.ranges: dict[str, Range] = {}
        self.zero_points: dict[str, int] = {}
        self._arrangement: Int64Array | None = None  # place in the map of each input element
        self._selections: dict[tuple[str, tuple[int, ...]], str] = {}
        self._tables: dict[tuple[str, bytes], str] = {}

    # Tensors as maps.

    def placed(self, value: Tensor, layer: str) -> Int64Array:
        """Return a tensor's places in the map of its layer."""
        if layer != "input":
            return value.places
        self.arrange(self._default_map(value.places))
        assert self._arrangement is not None
        known = value.places != PADDED
        return np.where(known, self._arrangement[np.where(known, value.places, 0)], PADDED)

    def as_map(self, value: Tensor, layer: str) -> tuple[str, tuple[int, int, int, int]]:
        """Return the layer whose map a tensor (1, C, H, W) or (1, C, W) is, and zeros around it.

        Raises
        ------
        Refusal
            If it is not one, even with its channels selected.
        """
        source = value.places
        if source.ndim not in {3, 4} or source.shape[0] != 1:
            raise Refusal(
                f"its input has shape {source.shape}", "give it one of shape (1, C, H, W)"
            )
        places = source[0] if source.ndim == 4 else source[0][:, None, :]
        inner = without_padding(places)
        if inner is None:
            raise Refusal("its input has zeros in its midst", "pad height and width alone")
        inside, padding = inner
        if layer == "input":
            self.arrange(inside)
            assert self._arrangement is not None
            inside = self._arrangement[inside]
        channels = self._channels(inside, layer)
        if channels is None and inside.shape[1:] == (1, 1):
            layer = self.flattened(layer)
            channels = self._channels(inside, layer)
        if channels is None:
            raise Refusal(
                f"its input is no map of channels but {self.shapes[layer]} in another arrangement",
                "keep (channels, height, width) up to here",
            )
        return self.selected(layer, channels.order), padding

    def _channels(self, inside: Int64Array, layer: str) -> Channels | None:
        order = channels_of(inside, self.shapes[layer])
        if order is None or len(set(order)) != len(order):
            return None
        return Channels(order=order, padding=(0, 0, 0, 0))

    def selected(self, layer: str, order: tuple[int, ...]) -> str:
        """Return a layer of some channels of another, in an order."""
        if order == tuple(range(self.shapes[layer][0])):
            return layer
        key = layer, order
        if key not in self._selections:
            self._selections[key] = self.add(
                ChannelShuffle(name=self.unique(f"{layer}/channels"), inputs=(layer,), order=order),
                self.zero_points.get(layer, 0),
            )
        return self._selections[key]

    def flattened(self, layer: str) -> str:
        """Return a layer with a map's values as channels."""
        if self.shapes[layer][1:] == (1, 1):
            return layer
        key = layer, ()
        if key not in self._selections:
            self._selections[key] = self.add(
                Flatten(name=self.unique(f"{layer}/flat"), inputs=(layer,)),
                self.zero_points.get(layer, 0),
            )
        return self._selections[key]

    def _default_map(self, places: Int64Array) -> Int64Array:
        """Arrange the input as its shape suggests."""
        shape = self.source_shape[1:]
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        if places.ndim == 4 and places.size == numbers.size:
            return np.asarray(places[0])
        if len(shape) == 3:
            is_nhwc = shape[2] in {1, 3} and shape[0] not in {1, 3}
            return numbers.transpose(2, 0, 1) if is_nhwc else numbers
        if len(shape) == 2:
            return numbers[None]
        return np.asarray(numbers.reshape(-1, 1, 1))

    def arrange(self, places: Int64Array) -> None:
        """Arrange the input as the map (channels, height, width) of ``places``, if it is not yet.

        Where that is a part of it, it is arranged as its shape suggests.
        """
        if self._arrangement is not None:
            return
        numbers = np.arange(int(np.prod(self.source_shape)))
        if not np.array_equal(np.sort(places.ravel()), numbers):
            places = self._default_map(numbers)
        if max(places.shape) > 4095:
            raise Refusal(
                f"its input of {places.shape} is larger than 4095 in an axis",
                "give the input as a map (1, C, H, W)",
            )
        self._arrangement = np.empty_like(numbers)
        self._arrangement[places.ravel()] = numbers
        channels, height, width = places.shape
        self.input_shape = self.shapes["input"] = channels, height, width

    def layout(self) -> str | None:
        """Return how the source's input becomes the map: NCHW, NHWC or None for neither."""
        assert self._arrangement is not None
        numbers = np.arange(self._arrangement.size)
        if np.array_equal(self._arrangement, numbers):
            return "NCHW"
        if len(self.source_shape) == 4:
            moved = numbers.reshape(self.source_shape[1:]).transpose(2, 0, 1)
            if np.array_equal(self._arrangement[moved.ravel()], numbers):
                return "NHWC"
        return None

    # Layers.

    def unique(self, name: str) -> str:
        """Return a name that no layer has."""
        taken = {"input", *(layer.name for layer in self.layers)}
        found, number = name, 2
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        return found

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
        self.shapes[layer.name], self.ranges[layer.name] = shape, values
        if zero_point:
            self.zero_points[layer.name] = zero_point
        return layer.name

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
        layer = self._looked_up(value, table.astype(np.int64), self.zero_points.get(value.layer, 0))
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
            layer = self._looked_up(value, table, target.zero_point)
            places = self.placed(value, value.layer)
        return Real(layer=layer, places=places, scale=target.scale)

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

    def joined(self, parts: Sequence[Stored], axis: int, name: str) -> Stored:
        """Return tensors one after another along an axis."""
        tensors = []
        for part in parts:
            try:
                layer, padding = self.as_map(part, part.layer)
            except Refusal:
                tensors.append((part.layer, self.placed(part, part.layer)))
                continue
            if any(padding):
                raise Refusal("one of its inputs is padded", "pad the result instead")
            size = int(np.prod(self.shapes[layer]))
            tensors.append((layer, np.arange(size).reshape(part.places.shape)))
        layers = list(dict.fromkeys(layer for layer, _ in tensors))
        sizes = [int(np.prod(self.shapes[layer])) for layer in layers]
        starts = dict(zip(layers, np.cumsum([0, *sizes[:-1]]), strict=True))
        places = np.concatenate(
            [
                np.where(places == PADDED, PADDED, places + starts[layer])
                for layer, places in tensors
            ],
            axis=axis,
        )
        target = parts[0].target
        if len(layers) == 1:
            return Stored(layer=layers[0], places=places, target=target)
        concat = Concat(name=self.unique(name), inputs=tuple(layers))
        zero_point = target.zero_point if target is not None else 0
        return Stored(layer=self.add(concat, zero_point), places=places, target=target)

    def _made(self, value: Pending, target: Target) -> str:
        clip = _clip(value, target)
        match value:
            case Weighted():
                return self.add(self._weighted(value, target, clip), target.zero_point)
            case Mean():
                return self.add(self._mean(value, target, clip), target.zero_point)
            case Sum():
                return self.add(self._sum(value, target, clip), target.zero_point)
        raise TypeError(f"no layer for {type(value).__name__}")

    def _weighted(self, value: Weighted, target: Target, clip: Range) -> WeightedLayer:
        factor = value.factor / target.scale
        weights, factor, bias = _positive(value.weights, factor, value.offset / target.scale)
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
        count = int(np.prod(value.windows["kernel"]))
        scale, shift = _factor(value.scale / target.scale / count)
        name = self.unique(value.name)
        pool = _checked(
            lambda: AveragePool(
                name=name,
                inputs=(value.layer,),
                scale=scale,
                shift=shift,
                rounding=_ROUNDING,
                **value.windows,
            )
        )
        low, high = _checked(lambda: pool.output_range(self.stored_range(value.layer)))
        if clip[0] <= low and high <= clip[1]:
            return pool
        return replace(pool, clip=clip)

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

    def aligned(self, one: Real, other: Real) -> tuple[str, str, Int64Array]:
        """Return two layers whose maps, element for element, are two tensors of one shape.

        Returns
        -------
        layers, places
            Names, and the places of the tensors' elements in either.
        """
        if one.places.shape != other.places.shape:
            raise Refusal(
                f"its inputs have shapes {one.places.shape} and {other.places.shape}",
                "give both one shape",
            )
        for first, second in ((one, other), (other, one)):
            places, others = (self.placed(item, item.layer) for item in (first, second))
            shape = self.shapes[first.layer]
            size = int(np.prod(shape))
            if not np.array_equal(np.sort(places.ravel()), np.arange(size)):
                continue
            relation = np.empty(size, np.int64)
            relation[places.ravel()] = others.ravel()
            if (relation == PADDED).any():
                continue
            channels = self._channels(relation.reshape(shape), second.layer)
            if channels is None:
                continue
            layers = first.layer, self.selected(second.layer, channels.order)
            if first is other:
                layers = layers[1], layers[0]
            return *layers, places
        maps = [self.as_map(item, item.layer) for item in (one, other)]
        if any(maps[0][1]) or any(maps[1][1]):
            raise Refusal("one of its inputs is padded", "pad the result instead")
        shape = self.shapes[maps[0][0]]
        if self.shapes[maps[1][0]] != shape:
            raise Refusal("its inputs are arranged differently", "give both one arrangement")
        places = np.arange(int(np.prod(shape))).reshape(one.places.shape)
        return maps[0][0], maps[1][0], places


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


def _clip(value: Pending, target: Target) -> Range:
    """Return limits of stored values: those of their type and of activation functions."""
    low, high = (
        int(np.clip(np.rint(np.float32(limit) / np.float32(target.scale)), *target.clip))
        for limit in (value.low, value.high)
    )
    return low, high


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
