"""What is in a network: a row a layer, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.golden.inference import Macs, StreamSize, count_macs, weight_stream
from thresher.golden.network import CompressedNetwork, Range, Shape, WeightedLayer

__all__ = ["LayerRow", "inspect_network"]

_NO_WEIGHTS = StreamSize()
_NO_MACS = Macs()


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """Facts about a layer.

    Parameters
    ----------
    name, kind
        Its name, and its type's: ``Convolution``, ``MaxPool``, ...
    output_shape, output_range
        (channels, height, width), and least and greatest possible value.
    weight_shape
        Shape of the weights; empty without weights.
    codebook_entries, weight_bits
        Size of the codebook, and the two's complement width of its greatest entry.
    weights
        Number, density and bytes of the weights: dense, coded, Shannon's bound.
    macs
        Multiplications an input: all, and those with a weight that is not zero. ``activations``
        and ``both`` depend on the input, and are those of one without zeros in the layer.
    """

    name: str
    kind: str
    output_shape: Shape
    output_range: Range
    weight_shape: tuple[int, ...] = ()
    codebook_entries: int = 0
    weight_bits: int = 0
    weights: StreamSize = _NO_WEIGHTS
    macs: Macs = _NO_MACS


def inspect_network(network: CompressedNetwork) -> list[LayerRow]:
    """Return a row for each layer, in order."""
    shapes, ranges = network.shapes(), network.ranges()
    rows = []
    for layer in network.layers:
        kind, output_shape, output_range = (
            type(layer).__name__,
            shapes[layer.name],
            ranges[layer.name],
        )
        if not isinstance(layer, WeightedLayer):
            rows.append(
                LayerRow(
                    name=layer.name, kind=kind, output_shape=output_shape, output_range=output_range
                )
            )
            continue
        ones = np.ones(shapes[layer.inputs[0]], dtype=np.int64)
        least, greatest = int(layer.codebook.min()), int(layer.codebook.max())
        rows.append(
            LayerRow(
                name=layer.name,
                kind=kind,
                output_shape=output_shape,
                output_range=output_range,
                weight_shape=layer.weights.shape,
                codebook_entries=layer.codebook.size,
                weight_bits=max(greatest, -least - 1).bit_length() + 1,
                weights=weight_stream(layer),
                macs=count_macs(layer, ones, 1)[0],
            )
        )
    return rows
