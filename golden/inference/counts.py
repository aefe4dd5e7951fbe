"""What inference costs: multiplications, and sizes of weights and activations in memory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.huffman import entropy_bits
from thresher.golden.codes.rlc import RLCFormat
from thresher.golden.codes.weights import best_format, encode_layer, zero_runs
from thresher.golden.inference.convolution import taps_of
from thresher.golden.network import Convolution, Range, WeightedLayer

__all__ = ["ActivationSize", "LayerCounts", "Macs", "StreamSize", "count_macs", "weight_stream"]

Int64Array = npt.NDArray[np.int64]


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
        taps = taps_of(layer, nonzeros, 1)
        positions = taps.shape[1] * taps.shape[2] * count
        inside = taps_of(layer, np.full_like(nonzeros, count), 1).sum(axis=(1, 2))
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


class ActivationSize:
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
