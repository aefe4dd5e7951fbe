"""Reference inference: a network run on its inputs, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import RLCFormat
from thresher.golden.config import MultiplierKind
from thresher.golden.inference.counts import (
    ActivationSize,
    LayerCounts,
    Macs,
    StreamSize,
    count_macs,
    weight_stream,
)
from thresher.golden.inference.layers import forward
from thresher.golden.multipliers import represent
from thresher.golden.network import CompressedNetwork, Convolution, Layer, WeightedLayer

__all__ = ["Inference", "infer", "seen_by"]

Int64Array = npt.NDArray[np.int64]

_BATCH_VALUES = 1 << 20  # values of the largest matrix of a batch; what a cache holds is fastest


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
    array = _checked(network, inputs)
    kept = {layer.name for layer in network.layers} if keep is None else set(keep)
    for name in kept:
        network.layer(name)

    seen = seen_by(network, network.multiplier if multiplier is None else multiplier)
    shapes, ranges = seen.shapes(), seen.ranges()
    parts: dict[str, list[Int64Array]] = {name: [] for name in kept}
    costs = _Costs(seen, rlc) if counts else None
    batch = max(1, _BATCH_VALUES // max(_matrix_values(layer, shapes) for layer in seen.layers))
    for first, last in pairwise([*range(0, len(array), batch), len(array)]):
        maps = {"input": array[first:last].astype(np.int64)}
        for layer in seen.layers:
            sources = [maps[source] for source in layer.inputs]
            maps[layer.name] = forward(layer, sources, ranges[layer.inputs[0]])
        if costs is not None:
            costs.add(maps)
        for name in kept:
            parts[name].append(maps[name])
    empty = {name: np.zeros((0, *shapes[name]), dtype=np.int64) for name in kept}
    outputs = {
        layer.name: np.concatenate([empty[layer.name], *parts[layer.name]])
        for layer in seen.layers
        if layer.name in kept
    }
    return Inference(outputs=outputs, counts=costs.of_layers() if costs is not None else {})


def _checked(network: CompressedNetwork, inputs: npt.ArrayLike) -> npt.NDArray[np.integer]:
    """Return the inputs as an array, if they are inputs of the network."""
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
    return array


class _Costs:
    """Costs of all layers, gathered batch by batch."""

    def __init__(self, network: CompressedNetwork, rlc: RLCFormat | None) -> None:
        self.network = network
        self.inputs = 0
        ranges = network.ranges()
        shapes = network.shapes()
        self.sizes = {name: ActivationSize(ranges[name], rlc) for name in shapes}
        self.nonzeros = {name: np.zeros(shape, dtype=np.int64) for name, shape in shapes.items()}

    def add(self, maps: Mapping[str, Int64Array]) -> None:
        """Count a batch: the maps (n, channels, height, width) of the input and all layers."""
        self.inputs += len(maps["input"])
        for name, values in maps.items():
            self.sizes[name].add(values)
            self.nonzeros[name] += np.count_nonzero(values, axis=0)

    def of_layers(self) -> dict[str, LayerCounts]:
        """Return each layer's costs."""
        costs = {}
        for layer in self.network.layers:
            macs = macs_in_bounds = Macs()
            weights = StreamSize()
            if isinstance(layer, WeightedLayer):
                nonzeros = self.nonzeros[layer.inputs[0]]
                macs, macs_in_bounds = count_macs(layer, nonzeros, self.inputs)
                weights = weight_stream(layer)
            costs[layer.name] = LayerCounts(
                macs=macs,
                macs_in_bounds=macs_in_bounds,
                weights=weights,
                inputs=sum((self.sizes[name].size() for name in layer.inputs), start=StreamSize()),
                outputs=self.sizes[layer.name].size(),
            )
        return costs


def _matrix_values(layer: Layer, shapes: Mapping[str, tuple[int, int, int]]) -> int:
    """Return the size of the largest array of a layer, for one input."""
    _, height, width = shapes[layer.name]
    channels, rows, columns = shapes[layer.inputs[0]]
    taps = layer.kernel[0] * layer.kernel[1] if isinstance(layer, Convolution) else 1
    matrix = channels * taps * height * width
    return max(channels * rows * columns, matrix, math.prod(shapes[layer.name]))
