"""Reference inference: every layer's exact output, and what computing it costs.

Sums are formed by floating-point matrix products, in the narrowest format in which they are
proven exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from thresher.golden.addition import add
from thresher.golden.codes.huffman import entropy_bits
from thresher.golden.codes.rlc import RLCFormat
from thresher.golden.codes.weights import best_format, encode_layer, zero_runs
from thresher.golden.config import MultiplierKind
from thresher.golden.multipliers import represent
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
    WeightedLayer,
)
from thresher.golden.pooling import average_pool, max_pool
from thresher.golden.product import multiply
from thresher.golden.requantise import requantise

__all__ = [
    "Inference",
    "LayerCounts",
    "Macs",
    "StreamSize",
    "count_macs",
    "infer",
    "seen_by",
    "weight_stream",
]

Int64Array = npt.NDArray[np.int64]

_BATCH_VALUES = 1 << 20  # values of the largest matrix of a batch; what a cache holds is fastest


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiplications, by which of them have an operand that is not zero.

    Parameters
    ----------
    dense
        All of them.
    weights
        Those whose weight is not zero.
    activations
        Those whose activation is not zero.
    both
        Those of which neither is.
    """

    dense: int = 0
    weights: int = 0
    activations: int = 0
    both: int = 0

    def __add__(self, other: Macs) -> Macs:
        return Macs(**{item.name: _sum(self, other, item.name) for item in fields(self)})


@dataclass(frozen=True, kw_only=True)
class StreamSize:
    """Size of weights or activations in memory.

    Parameters
    ----------
    values, nonzero
        Numbers of values, and of those that are not zero.
    bytes_dense
        Each value in whole bytes.
    bytes_coded
        As coded: weights by ``encode_layer``; activations as run-length words, with headers.
    bytes_entropy
        Shannon's bound for the runs and the values (weights: indices) that are coded.
    """

    values: int = 0
    nonzero: int = 0
    bytes_dense: int = 0
    bytes_coded: int = 0
    bytes_entropy: float = 0.0

    def __add__(self, other: StreamSize) -> StreamSize:
        return StreamSize(**{item.name: _sum(self, other, item.name) for item in fields(self)})

    @property
    def density(self) -> float:
        """Part of the values that is not zero."""
        return self.nonzero / self.values if self.values else 0.0


@dataclass(frozen=True, kw_only=True)
class LayerCounts:
    """Costs of a layer for all inputs together.

    Parameters
    ----------
    macs
        Multiplications; one by a padded position is one by an activation of value zero.
    macs_in_bounds
        The same without padded positions.
    weights
        The weights, once.
    inputs, outputs
        The activations.
    """

    macs: Macs = Macs()
    macs_in_bounds: Macs = Macs()
    weights: StreamSize = StreamSize()
    inputs: StreamSize = StreamSize()
    outputs: StreamSize = StreamSize()

    def __add__(self, other: LayerCounts) -> LayerCounts:
        return LayerCounts(**{item.name: _sum(self, other, item.name) for item in fields(self)})


def _sum(one: object, other: object, name: str) -> Any:
    return getattr(one, name) + getattr(other, name)


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Result of :func:`infer`.

    Parameters
    ----------
    outputs
        int64 arrays (n, channels, height, width) of the layers that were kept, by name.
    counts
        Costs by layer.
    """

    outputs: Mapping[str, Int64Array]
    counts: Mapping[str, LayerCounts]

    @property
    def total(self) -> LayerCounts:
        """Sum of all layers' costs."""
        return sum(self.counts.values(), start=LayerCounts())


def seen_by(network: CompressedNetwork, multiplier: MultiplierKind) -> CompressedNetwork:
    """Return the network as a multiplier sees it: with represented codebooks.

    The nearest representable weight does not depend on the width of a weight that fits.
    """
    kind = MultiplierKind(multiplier)
    if kind in {MultiplierKind.EXACT, MultiplierKind.LUT}:
        return network
    return network.with_codebooks(
        {
            layer.name: represent(layer.codebook, kind, 9)
            for layer in network.layers
            if isinstance(layer, WeightedLayer)
        }
    )


def infer(
    network: CompressedNetwork,
    inputs: npt.ArrayLike,
    multiplier: MultiplierKind | None = None,
    *,
    keep: Collection[str] | None = None,
    rlc: RLCFormat | None = None,
    counts: bool = True,
) -> Inference:
    """Run a network on its inputs, exactly.

    Parameters
    ----------
    network
        The network.
    inputs
        Integers of shape (n, channels, height, width), within the network's ``input_range``.
    multiplier
        The multiplier that sees the weights; the network's own if None.
    keep
        Names of the layers whose outputs are returned; all if None.
    rlc
        Format of coded activations; pairs of 5-bit runs and 9-bit values (wider values if a
        layer's range needs them) in 64-bit words if None.
    counts
        Whether to count costs, which takes longer than the outputs.

    Returns
    -------
    inference
        Outputs and counts. Coded activations are those of a machine of one lane.

    Raises
    ------
    TypeError
        If the inputs are not of an integer type.
    ValueError
        If the shape is wrong or a value is out of range.
    """
    array = np.asarray(inputs)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"inputs must be integers, not {array.dtype}")
    if array.ndim != 4 or array.shape[1:] != network.input_shape:
        expected = ", ".join(str(size) for size in network.input_shape)
        raise ValueError(f"inputs must have shape (n, {expected}), not {array.shape}")
    low, high = network.input_range
    for value in (int(array.min()), int(array.max())) if array.size else ():
        if not low <= value <= high:
            raise ValueError(f"inputs must be in {low}..{high}, not {value}")
    kept = {layer.name for layer in network.layers} if keep is None else set(keep)
    for name in kept:
        network.layer(name)

    seen = seen_by(network, network.multiplier if multiplier is None else multiplier)
    shapes, ranges = seen.shapes(), seen.ranges()
    parts: dict[str, list[Int64Array]] = {name: [] for name in kept}
    sizes = {name: _ActivationSize(ranges[name], rlc) for name in shapes}
    nonzeros = {name: np.zeros(shape, dtype=np.int64) for name, shape in shapes.items()}
    batch = max(1, _BATCH_VALUES // max(_matrix_values(layer, shapes) for layer in seen.layers))
    for first, last in pairwise([*range(0, len(array), batch), len(array)]):
        maps = {"input": array[first:last].astype(np.int64)}
        for layer in seen.layers:
            sources = [maps[source] for source in layer.inputs]
            maps[layer.name] = _forward(layer, sources, ranges[layer.inputs[0]])
        for name, values in maps.items():
            if counts:
                sizes[name].add(values)
                nonzeros[name] += np.count_nonzero(values, axis=0)
            if name in kept:
                parts[name].append(values)

    costs = {}
    for layer in seen.layers if counts else ():
        source = layer.inputs[0]
        macs = macs_in_bounds = Macs()
        weights = StreamSize()
        if isinstance(layer, WeightedLayer):
            macs, macs_in_bounds = count_macs(layer, nonzeros[source], len(array))
            weights = weight_stream(layer)
        costs[layer.name] = LayerCounts(
            macs=macs,
            macs_in_bounds=macs_in_bounds,
            weights=weights,
            inputs=sum((sizes[name].size() for name in layer.inputs), start=StreamSize()),
            outputs=sizes[layer.name].size(),
        )
    empty = {name: np.zeros((0, *shapes[name]), dtype=np.int64) for name in kept}
    outputs = {
        layer.name: np.concatenate([empty[layer.name], *parts[layer.name]])
        for layer in seen.layers
        if layer.name in kept
    }
    return Inference(outputs=outputs, counts=costs)


def weight_stream(layer: WeightedLayer) -> StreamSize:
    """Return the size of a layer's weights: as int8, as coded, and Shannon's bound."""
    indices = layer.weights.ravel()
    positions = np.flatnonzero(layer.dense_weights())
    runs, symbols = zero_runs(positions, indices[positions], best_format(positions))
    histograms = np.bincount(runs), np.bincount(symbols[symbols >= 0])
    return StreamSize(
        values=layer.weights.size,
        nonzero=positions.size,
        bytes_dense=layer.weights.size,
        bytes_coded=len(encode_layer(indices, layer.codebook)),
        bytes_entropy=sum(entropy_bits(counts) for counts in histograms) / 8,
    )


def _forward(  # noqa: PLR0911  # a result a kind of layer
    layer: Layer, sources: list[Int64Array], allowed: Range
) -> Int64Array:
    values = sources[0]
    match layer:
        case Add():
            return _add(layer, sources)
        case Multiply():
            scaling: dict[str, Any] = {"scale": layer.scale, "shift": layer.shift}
            return multiply(*sources, **scaling, rounding=layer.rounding, clip=layer.clip)
        case Concat():
            return np.concatenate(sources, axis=1)
        case ChannelShuffle():
            return values[:, list(layer.order)]
        case Lookup():
            return np.asarray(layer.table[values - layer.first])
        case Convolution():
            return _requantised(layer, _convolve(layer, values, allowed))
        case Linear():
            flat = values.reshape(len(values), -1)
            dtype = _exact_dtype(layer, allowed)
            sums = flat.astype(dtype) @ layer.dense_weights().T.astype(dtype)
            return _requantised(layer, sums[:, :, None, None])
        case MaxPool():
            return max_pool(values, **_windows(layer, values))
        case AveragePool():
            divisor: dict[str, Any] = {
                "scale": layer.scale,
                "shift": layer.shift,
                "rounding": layer.rounding,
                "origin": layer.origin,
                "clip": layer.clip,
                "cut_scales": layer.cut_scales,
            }
            return average_pool(values, **_windows(layer, values), **divisor)
        case Flatten():
            return values.reshape(len(values), -1, 1, 1)
        case _:
            raise TypeError(f"layer {layer.name!r}: no inference for {type(layer).__name__}")


def _add(layer: Add, sources: list[Int64Array]) -> Int64Array:
    return add(
        *sources,
        operand_scale=layer.operand_scale,
        operand_shift=layer.operand_shift,
        scale=layer.scale,
        shift=layer.shift,
        rounding=layer.rounding,
        clip=layer.clip,
    )


def _requantised(layer: WeightedLayer, sums: npt.NDArray[np.floating]) -> Int64Array:
    acc = sums.astype(np.int64)
    acc += layer.bias[:, None, None]
    scale, shift = layer.scale[:, None, None], layer.shift[:, None, None]
    return requantise(acc, scale, shift, layer.rounding, layer.clip)


def _exact_dtype(layer: WeightedLayer, allowed: Range) -> type[np.floating]:
    """Return a floating-point type in which no partial sum is ever rounded."""
    magnitudes = np.abs(layer.dense_weights()).reshape(layer.out_channels, -1).sum(axis=1)
    bound = int(magnitudes.max()) * max(abs(allowed[0]), abs(allowed[1]))
    if bound >= 1 << 53:
        raise ValueError(f"layer {layer.name!r}: sums must be below 2^53, not {bound}")
    return np.float32 if bound < 1 << 24 else np.float64


def _windows(layer: MaxPool | AveragePool, values: Int64Array) -> dict[str, Any]:
    _, channels, height, width = values.shape
    return {
        "kernel": layer.kernel,
        "stride": layer.stride,
        "padding": layer.padding[:2],
        "size": layer.output_shape((channels, height, width))[1:],
    }


def _taps(layer: Convolution, maps: npt.NDArray, rows: int) -> npt.NDArray:
    """Return a view with kernel height and width as its last axes.

    Parameters
    ----------
    layer
        Says where the windows lie.
    maps
        Its inputs; in the view rows and columns are those of the output.
    rows
        The axis of rows; columns follow it.
    """
    top, left, bottom, right = layer.padding
    around = [(0, 0)] * maps.ndim
    around[rows : rows + 2] = [(top, bottom), (left, right)]
    padded = np.pad(maps, around) if any(layer.padding) else maps
    views = sliding_window_view(padded, layer.extent, axis=(rows, rows + 1))
    (stride_y, stride_x), (dilation_y, dilation_x) = layer.stride, layer.dilation
    chosen = [slice(None)] * views.ndim
    chosen[rows : rows + 2] = slice(None, None, stride_y), slice(None, None, stride_x)
    chosen[-2:] = slice(None, None, dilation_y), slice(None, None, dilation_x)
    return views[tuple(chosen)]


def _convolve(layer: Convolution, values: Int64Array, allowed: Range) -> npt.NDArray[np.floating]:
    """Return the sums (n, channels out, height, width), exact; in memory channels come last."""
    dtype = _exact_dtype(layer, allowed)
    channels_last = np.ascontiguousarray(values.transpose(0, 2, 3, 1), dtype)
    taps = _taps(layer, channels_last, 1)
    count, height, width, channels = taps.shape[:4]
    out, inner = layer.weights.shape[:2]
    weights = layer.dense_weights().astype(dtype)
    if inner == 1 and layer.groups == channels:
        sums = _depthwise(weights.reshape(channels, -1, *layer.kernel), taps)
    else:
        # One product a group: (positions of all inputs, taps) times (taps, channels out).
        columns = taps[..., 0, 0]
        if layer.kernel != (1, 1):
            columns = np.empty((count, height, width, *layer.kernel, channels), dtype)
            for ky, kx in np.ndindex(layer.kernel):
                columns[:, :, :, ky, kx] = taps[..., ky, kx]
        columns = columns.reshape(count * height * width, -1, layer.groups, inner)
        by_tap = weights.transpose(2, 3, 1, 0).reshape(-1, out)
        each = out // layer.groups
        products = [
            columns[:, :, group].reshape(len(columns), -1)
            @ by_tap[:, group * each : (group + 1) * each]
            for group in range(layer.groups)
        ]
        sums = products[0] if layer.groups == 1 else np.concatenate(products, axis=1)
    return np.asarray(sums.reshape(count, height, width, out)).transpose(0, 3, 1, 2)


def _depthwise(weights: npt.NDArray, taps: npt.NDArray) -> npt.NDArray[np.floating]:
    """Return the sums of a convolution each of whose groups has one input channel.

    Parameters
    ----------
    weights
        Shape (groups, channels out of a group, kernel height, kernel width).
    taps
        Shape (n, height, width, groups, kernel height, kernel width).

    Returns
    -------
    sums
        Shape (n, height, width, groups, channels out of a group).
    """
    sums = np.zeros((*taps.shape[:4], weights.shape[1]), taps.dtype)
    product = np.empty_like(sums)
    for ky, kx in np.ndindex(weights.shape[2:]):
        weight = weights[..., ky, kx]
        if weight.any():
            np.multiply(taps[..., ky, kx, None], weight, out=product)
            sums += product
    return sums


def _matrix_values(layer: Layer, shapes: Mapping[str, tuple[int, int, int]]) -> int:
    """Return the size of the largest array of a layer, for one input."""
    _, height, width = shapes[layer.name]
    channels, rows, columns = shapes[layer.inputs[0]]
    taps = layer.kernel[0] * layer.kernel[1] if isinstance(layer, Convolution) else 1
    matrix = channels * taps * height * width
    return max(channels * rows * columns, matrix, math.prod(shapes[layer.name]))


def count_macs(layer: WeightedLayer, nonzeros: Int64Array, count: int) -> tuple[Macs, Macs]:
    """Count a layer's multiplications, with padded positions and without.

    Parameters
    ----------
    layer
        Its weights decide which are zero.
    nonzeros
        For each input position, for how many of the inputs it is not zero; the map's shape.
    count
        Number of inputs.
    """
    # By tap: how many of its activations are not zero, how many of its weights.
    if isinstance(layer, Convolution):
        taps = _taps(layer, nonzeros, 1)
        positions = taps.shape[1] * taps.shape[2] * count
        inside = _taps(layer, np.full_like(nonzeros, count), 1).sum(axis=(1, 2))
        active = taps.sum(axis=(1, 2))
        fan_out = layer.out_channels // layer.groups
    else:
        active = nonzeros.ravel()
        positions, inside = count, np.full_like(active, count)
        fan_out = layer.out_channels
    used = np.count_nonzero(
        layer.dense_weights().reshape(-1, fan_out, *layer.weights.shape[1:]), axis=1
    ).reshape(active.shape)
    activations, both = int(active.sum()) * fan_out, int((active * used).sum())
    return (
        Macs(
            dense=layer.weights.size * positions,
            weights=int(used.sum()) * positions,
            activations=activations,
            both=both,
        ),
        Macs(
            dense=int(inside.sum()) * fan_out,
            weights=int((inside * used).sum()),
            activations=activations,
            both=both,
        ),
    )


class _ActivationSize:
    """Size of a layer's activations, gathered batch by batch."""

    def __init__(self, values: Range, fmt: RLCFormat | None) -> None:
        self.low, high = values
        width = max(_bits(self.low), _bits(high)) + 1
        self.fmt = fmt or RLCFormat(value_bits=max(9, width))
        self.value_bytes = (width - (self.low >= 0) + 7) // 8 or 1
        self.runs = np.zeros(self.fmt.max_run + 1, dtype=np.int64)
        self.values = np.zeros(max(high, 0) - min(self.low, 0) + 1, dtype=np.int64)
        self.count = self.words = 0

    def add(self, maps: Int64Array) -> None:
        """Count rows of (input, row), each of (position, channel)."""
        rows = maps.transpose(0, 2, 3, 1).reshape(maps.shape[0] * maps.shape[2], -1)
        places = np.flatnonzero(rows)
        row = places // rows.shape[1]
        zeros = places - row * rows.shape[1]  # before it, in its row
        zeros[1:] -= np.where(row[1:] == row[:-1], zeros[:-1] + 1, 0)
        longer, runs = np.divmod(zeros, self.fmt.max_run + 1)
        extra = int(longer.sum())
        self.runs += np.bincount(runs, minlength=self.runs.size)
        self.runs[-1] += extra
        zero = -min(self.low, 0)
        self.values += np.bincount(rows.ravel()[places] + zero, minlength=self.values.size)
        self.values[zero] += extra
        pairs = np.bincount(row, weights=longer + 1, minlength=len(rows)).astype(np.int64)
        self.words += int((-(-pairs // self.fmt.pairs)).sum()) + len(rows)
        self.count += maps.size

    def size(self) -> StreamSize:
        zero = -min(self.low, 0)
        return StreamSize(
            values=self.count,
            nonzero=int(self.values.sum() - self.values[zero]),
            bytes_dense=self.count * self.value_bytes,
            bytes_coded=self.words * self.fmt.word_bits // 8,
            bytes_entropy=(entropy_bits(self.runs) + entropy_bits(self.values)) / 8,
        )


def _bits(value: int) -> int:
    return (value if value >= 0 else -value - 1).bit_length()
