"""Random small networks and inputs, for tests: every kind of layer, every extreme."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network import (
    Add,
    AveragePool,
    ChannelShuffle,
    CompressedNetwork,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
    Range,
    Shape,
    WeightedLayer,
    accumulator_bound,
)
from thresher.golden.pooling import divisors

__all__ = ["random_graph", "random_inputs", "random_network"]

Int64Array = npt.NDArray[np.int64]
Kinds = tuple[str, ...]
_Weighted = TypeVar("_Weighted", bound=WeightedLayer)

_KINDS: Kinds = ("convolution", "convolution", "linear", "max", "average", "flatten")
_RANGES: tuple[Range, ...] = ((0, 255), (-256, 255), (-128, 127), (0, 15), (-256, 0), (-40, 90))
_GRAPH_KINDS: Kinds = (
    *("convolution", "convolution", "convolution", "linear", "max", "average", "flatten"),
    *("add", "add", "multiply", "multiply", "concat", "concat", "shuffle", "lookup"),
)
_WIDEST: Range = (-256, 255)
_DENSITIES = (0.0, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0)


def random_network(
    rng: np.random.Generator,
    *,
    layers: int | None = None,
    channels: int = 8,
    size: int = 12,
    weight_bits: int = 8,
    kinds: Kinds = _KINDS,
    pool_first: bool = False,
) -> CompressedNetwork:
    """Return a random chain of layers.

    Strides are 1 to 3, dilations 1 to 2, groups any divisor (depthwise included), densities 0 to
    1, codebooks 1 to 256 entries, ranges within 9 signed bits, rounding any. A layer's scale
    is chosen so that its outputs fill its clip range without all being clipped.

    Parameters
    ----------
    rng
        Decides everything.
    layers
        Number of layers, 1 to 4 at random if None.
    channels, size
        Greatest number of channels, and greatest height and width of the input.
    weight_bits
        Width of a weight, 2 to 9.
    kinds
        Kinds to draw from: convolution, linear, max, average, flatten.
    pool_first
        Whether a pooling or flattening may be first, or follow another.

    Examples
    --------
    >>> network = random_network(np.random.default_rng(1), layers=3)
    >>> len(network.layers), len(random_inputs(np.random.default_rng(2), network, 5))
    (3, 5)
    """
    weighted = tuple(kind for kind in kinds if kind in {"convolution", "linear"})
    shape: Shape = (
        int(rng.integers(1, channels + 1)),
        int(rng.integers(1, size + 1)),
        int(rng.integers(1, size + 1)),
    )
    values = input_range = _RANGES[rng.integers(len(_RANGES))]
    count = int(rng.integers(1, 5)) if layers is None else layers
    input_shape, source, after_weights = shape, "input", False
    chain: list[Layer] = []
    for number in range(count):
        kind = str(rng.choice(kinds if after_weights or pool_first else weighted or kinds))
        name = f"{kind}{number + 1}"
        place: dict[str, Any] = {"name": name, "inputs": (source,)}
        layer: Layer
        match kind:
            case "convolution":
                layer = _scaled(rng, _convolution(rng, place, shape, channels, weight_bits), values)
            case "linear":
                layer = _scaled(rng, _linear(rng, place, shape, channels, weight_bits), values)
            case "max" | "average":
                layer = _pool(rng, place, shape, kind, values)
            case "flatten":
                layer = Flatten(name=name, inputs=(source,))
            case _:
                raise ValueError(f"kinds must be of {sorted(set(_KINDS))}, not {kind!r}")
        chain.append(layer)
        shape, values = layer.output_shape(shape), layer.output_range(values)
        source, after_weights = name, kind in weighted
    return CompressedNetwork(
        name="random", input_shape=input_shape, input_range=input_range, layers=tuple(chain)
    )


def random_graph(
    rng: np.random.Generator,
    *,
    layers: int | None = None,
    channels: int = 6,
    size: int = 8,
    weight_bits: int = 8,
    kinds: Kinds = _GRAPH_KINDS,
) -> CompressedNetwork:
    """Return a random network whose layers read any values before them.

    Parameters
    ----------
    rng, channels, size, weight_bits
        As for :func:`random_network`; concatenations have up to three times as many channels.
    layers
        Number of layers, 3 to 9 at random if None.
    kinds
        Kinds to draw from: those of :func:`random_network`, add, multiply, concat, shuffle,
        lookup. Where nothing fits one of two inputs, a convolution makes what does.

    Examples
    --------
    >>> network = random_graph(np.random.default_rng(1), layers=6)
    >>> len(network.layers)
    6
    """
    input_shape = (
        int(rng.integers(1, channels + 1)),
        int(rng.integers(1, size + 1)),
        int(rng.integers(1, size + 1)),
    )
    graph = _Graph(rng, channels, weight_bits)
    graph.shapes["input"] = input_shape
    graph.ranges["input"] = input_range = _RANGES[rng.integers(len(_RANGES))]
    count = int(rng.integers(3, 10)) if layers is None else layers
    while len(graph.layers) < count:
        graph.grow(str(rng.choice(kinds)))
    return CompressedNetwork(
        name="random",
        input_shape=input_shape,
        input_range=input_range,
        layers=tuple(graph.layers[:count]),
    )


class _Graph:
    """Layers as they are drawn, with the shapes and ranges of their outputs."""

    def __init__(self, rng: np.random.Generator, channels: int, weight_bits: int) -> None:
        self.rng, self.channels, self.weight_bits = rng, channels, weight_bits
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {}
        self.ranges: dict[str, Range] = {}

    def grow(self, kind: str) -> None:
        """Add a layer of that kind."""
        rng = self.rng
        source = self._source(list(self.shapes))
        shape, values = self.shapes[source], self.ranges[source]
        place: dict[str, Any] = {"name": f"{kind}{len(self.layers) + 1}", "inputs": (source,)}
        match kind:
            case "add" | "multiply" | "concat":
                of_two = {"add": self._add, "multiply": self._multiply, "concat": self._concat}
                of_two[kind](source)
            case "convolution":
                layer = _convolution(rng, place, shape, self.channels, self.weight_bits)
                self._put(_scaled(rng, layer, values))
            case "linear":
                layer_ = _linear(rng, place, shape, self.channels, self.weight_bits)
                self._put(_scaled(rng, layer_, values))
            case "max" | "average":
                self._put(_pool(rng, place, shape, kind, values))
            case "flatten" if np.prod(shape) <= 8 * self.channels:
                self._put(Flatten(**place))
            case "shuffle":
                order = rng.permutation(shape[0])
                if rng.random() < 0.5:  # a split
                    order = order[: int(rng.integers(1, shape[0] + 1))]
                if rng.random() < 0.3:
                    order = np.sort(order)
                self._put(ChannelShuffle(**place, order=tuple(order.tolist())))
            case "lookup":
                low, high = values
                table = rng.integers(*_WIDEST, size=high - low + 1, endpoint=True)
                if rng.random() < 0.5:
                    table = np.sort(table)
                self._put(Lookup(**place, first=low, table=table))
            case _:
                pass

    def _put(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.shapes[layer.name] = layer.output_shape(*(self.shapes[name] for name in layer.inputs))
        self.ranges[layer.name] = layer.output_range(*(self.ranges[name] for name in layer.inputs))

    def _source(self, names: list[str]) -> str:
        """Return one of them, a late one more often."""
        return names[-1 - int(len(names) * self.rng.random() ** 2)]

    def _partner(self, source: str, shape: Shape, like: Convolution | None = None) -> Convolution:
        """Add a convolution of the source that has that shape; requantised like another, if any."""
        side = int(self.rng.choice([1, 3]))
        around = side // 2
        taps = (shape[0], self.shapes[source][0], side, side)
        layer = _scaled(
            self.rng,
            Convolution(
                **_weights(self.rng, taps, self.weight_bits),
                **_constants(self.rng, shape[0]),
                name=f"convolution{len(self.layers) + 1}",
                inputs=(source,),
                padding=(around, around, around, around),
            ),
            self.ranges[source],
        )
        if like is not None:
            layer = replace(layer, clip=like.clip, rounding=like.rounding)
        self._put(layer)
        return layer

    def _other(self, source: str) -> str:
        """Return a value of the same shape; sometimes it is the same value."""
        rng, shape = self.rng, self.shapes[source]
        others = [name for name, known in self.shapes.items() if known == shape and name != source]
        if rng.random() < 0.1:
            return source
        if others and rng.random() < 0.6:
            return self._source(others)
        return self._partner(source, shape).name

    def _multiply(self, source: str) -> None:
        """Multiply a value by one of its shape, or by one value a channel."""
        rng, shape = self.rng, self.shapes[source]
        if rng.random() < 0.5:
            inputs = source, self._other(source)
        else:  # squeeze-and-excite
            whole = f"max{len(self.layers) + 1}"
            self._put(MaxPool(name=whole, inputs=(source,), kernel=shape[1:], stride=(1, 1)))
            inputs = source, self._partner(whole, (shape[0], 1, 1)).name
        clip = _RANGES[rng.integers(len(_RANGES))]
        typical = math.prod(max(map(abs, self.ranges[name])) for name in inputs)
        scale, shift = _ratio(rng, clip, typical)
        self._put(
            Multiply(
                name=f"multiply{len(self.layers) + 1}",
                inputs=inputs,
                scale=scale,
                shift=shift,
                rounding=Rounding(int(rng.integers(len(Rounding)))),
                clip=clip,
            )
        )

    def _add(self, source: str) -> None:
        rng, other = self.rng, self._other(source)
        inputs = (source, other) if rng.random() < 0.5 else (other, source)
        operand_shift = int(rng.integers(0, 40))
        operand_scale = int(min((1 << 31) - 1, (1 << operand_shift) * 2.0 ** -rng.uniform(0, 4)))
        clip = _RANGES[rng.integers(len(_RANGES))]
        typical = sum(max(map(abs, self.ranges[name])) for name in inputs) * 2.0**19
        scale, shift = _ratio(rng, clip, typical)
        self._put(
            Add(
                name=f"add{len(self.layers) + 1}",
                inputs=inputs,
                operand_scale=max(1, operand_scale),
                operand_shift=operand_shift,
                scale=scale,
                shift=shift,
                rounding=Rounding(int(rng.integers(len(Rounding)))),
                clip=clip,
            )
        )

    def _concat(self, source: str) -> None:
        rng, shape = self.rng, self.shapes[source]
        alike = [name for name, known in self.shapes.items() if known[1:] == shape[1:]]
        inputs = [source, *(self._source(alike) for _ in range(int(rng.integers(1, 3))))]
        if rng.random() < 0.5:  # siblings, as in a fire module
            outs = rng.integers(1, self.channels + 1, size=2).tolist()
            one = self._partner(source, (outs[0], *shape[1:]))
            inputs = [one.name, self._partner(source, (outs[1], *shape[1:]), like=one).name]
        if sum(self.shapes[name][0] for name in inputs) > 3 * self.channels:
            return
        rng.shuffle(inputs)
        self._put(Concat(name=f"concat{len(self.layers) + 1}", inputs=tuple(inputs)))


def random_inputs(rng: np.random.Generator, network: CompressedNetwork, count: int) -> Int64Array:
    """Return random inputs of shape (count, channels, height, width), each of its own density."""
    low, high = network.input_range
    values = rng.integers(low, high, size=(count, *network.input_shape), endpoint=True)
    density = rng.choice(_DENSITIES, size=count)[:, None, None, None]
    is_zero = (rng.random(values.shape) >= density) & (low <= 0 <= high)
    return np.where(is_zero, 0, values)


def _ratio(rng: np.random.Generator, clip: Range, typical: float) -> tuple[int, int]:
    """Return scale and shift that take typical values to about the bounds."""
    ratio = max(map(abs, clip)) / max(1.0, typical) * 2.0 ** rng.uniform(-1, 1.5)
    bits = int(rng.choice([1, 8, 24, 31]))
    shift = int(np.clip(bits - 1 - np.floor(np.log2(ratio)), 0, 63))
    return max(1, min((1 << 31) - 1, int(ratio * 2.0**shift))), shift


def _weights(rng: np.random.Generator, shape: tuple[int, ...], weight_bits: int) -> dict[str, Any]:
    """Draw a codebook and indices of a random density."""
    half = 1 << weight_bits - 1
    most = min(256, 2 * half)
    entries = int(rng.choice([1, 2, 3, 16, most, int(rng.integers(1, most + 1))]))
    codebook = rng.permutation(np.arange(-half, half))[: min(entries, most)]
    zeros = np.flatnonzero(codebook == 0)
    if not zeros.size and rng.random() < 0.8:  # else there is no zero weight
        codebook[0] = 0
        zeros = np.array([0])
    weights = rng.integers(len(codebook), size=shape)
    if zeros.size:
        weights = np.where(rng.random(shape) < rng.choice(_DENSITIES), weights, zeros[0])
    return {"codebook": codebook, "weights": weights.astype(np.uint8)}


def _constants(rng: np.random.Generator, out: int) -> dict[str, Any]:
    """Draw what does not depend on the weights; the scale is left to :func:`_scaled`."""
    return {
        "bias": rng.integers(-2000, 2001, size=out),
        "scale": np.ones(out, dtype=np.int64),
        "shift": np.zeros(out, dtype=np.int64),
        "rounding": Rounding(int(rng.integers(len(Rounding)))),
        "clip": _RANGES[rng.integers(len(_RANGES))],
    }


def _scaled(rng: np.random.Generator, layer: _Weighted, values: Range) -> _Weighted:
    """Return the layer with scales for which typical sums fill the clip range."""
    typical = max(1.0, max(map(abs, accumulator_bound(layer, values))) ** 0.75)
    ratio = max(map(abs, layer.clip)) / typical * 2.0 ** rng.uniform(-1, 2, layer.out_channels)
    if rng.random() < 0.2:  # powers of two, so that exact halves occur
        ratio = 2.0 ** np.floor(np.log2(ratio))
    bits = int(rng.choice([2, 8, 16, 24, 31]))
    shift = np.clip(bits - 1 - np.floor(np.log2(ratio)), 0, 63).astype(np.int64)
    scale = np.minimum(np.floor(ratio * 2.0**shift), (1 << 31) - 1).astype(np.int64)
    return replace(layer, scale=np.maximum(scale, 1), shift=shift)


def _convolution(
    rng: np.random.Generator, place: dict[str, Any], shape: Shape, channels: int, weight_bits: int
) -> Convolution:
    divisors = [number for number in range(1, shape[0] + 1) if shape[0] % number == 0]
    groups = int(rng.choice([1, 1, shape[0], int(rng.choice(divisors))]))
    out = groups * int(rng.integers(1, max(1, channels // groups) + 1))
    dilation, stride, kernel, padding = [], [], [], []
    for length in shape[1:]:
        step = int(rng.choice([1, 1, 2]))
        taps = int(rng.integers(1, 6))
        extent = (taps - 1) * step + 1
        before, after = (int(rng.choice([0, int(rng.integers(extent))])) for _ in range(2))
        if length + before + after < extent:
            taps = extent = step = 1
            before = after = 0
        dilation.append(step)
        stride.append(int(rng.integers(1, 4)))
        kernel.append(taps)
        padding.append((before, after))
    parts = {
        **_weights(rng, (out, shape[0] // groups, *kernel), weight_bits),
        **_constants(rng, out),
        **place,
        "stride": tuple(stride),
        "padding": (padding[0][0], padding[1][0], padding[0][1], padding[1][1]),
        "dilation": tuple(dilation),
        "groups": groups,
    }
    return Convolution(**parts)


def _linear(
    rng: np.random.Generator, place: dict[str, Any], shape: Shape, channels: int, weight_bits: int
) -> Linear:
    out = int(rng.integers(1, 2 * channels + 1))
    parts = {
        **_weights(rng, (out, shape[0] * shape[1] * shape[2]), weight_bits),
        **_constants(rng, out),
        **place,
    }
    return Linear(**parts)


def _pool(
    rng: np.random.Generator, place: dict[str, Any], shape: Shape, kind: str, values: Range
) -> MaxPool | AveragePool:
    kernel, stride, padding = [], [], []
    for length in shape[1:]:
        window = int(rng.integers(1, 4))
        before, after = (int(rng.choice([0, int(rng.integers(window))])) for _ in range(2))
        if length + before + after < window:
            window, before, after = length, 0, 0
        kernel.append(window)
        stride.append(int(rng.integers(1, 4)))
        padding.append((before, after))
    windows = (kernel[0], kernel[1])
    strides = (stride[0], stride[1])
    around = (padding[0][0], padding[1][0], padding[0][1], padding[1][1])
    if kind == "max":
        return MaxPool(**place, kernel=windows, stride=strides, padding=around)
    shift = int(rng.integers(8, 24))
    plain = layer = AveragePool(
        **place,
        kernel=windows,
        stride=strides,
        padding=around,
        # Rounded down, so that a mean stays in the range of its values.
        scale=(1 << shift) // (windows[0] * windows[1]),
        shift=shift,
        rounding=Rounding(int(rng.integers(len(Rounding)))),
    )
    origin = 0
    if rng.random() < 0.4:  # values and their origins stay in the range of activations
        origin = int(rng.integers(_WIDEST[0] - values[0], _WIDEST[1] - values[1], endpoint=True))
    if rng.random() < 0.5:
        layer = _with_cut_scales(layer, shape)
    for made in (replace(layer, origin=origin), layer):
        low, high = made.output_range(values)
        if _WIDEST[0] <= low and high <= _WIDEST[1]:
            return made
    return plain


def _with_cut_scales(layer: AveragePool, shape: Shape) -> AveragePool:
    """Let the windows divide by the number of places inside."""
    rows, columns = divisors(
        (shape[1], shape[2]), layer.kernel, layer.stride, layer.padding, layer.padding
    )
    scales = tuple(
        tuple((1 << layer.shift) // (height * width) for width in columns) for height in rows
    )
    cut_scales = scales if len(rows) * len(columns) > 1 else None
    return replace(layer, scale=scales[0][0], cut_scales=cut_scales)
