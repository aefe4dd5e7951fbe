"""The bits that accumulators must have."""

from __future__ import annotations

import numpy as np

from thresher.golden.network.compressed import CompressedNetwork
from thresher.golden.network.layer import Range
from thresher.golden.network.weighted import WeightedLayer

__all__ = ["accumulator_bound", "check_accumulators"]


def accumulator_bound(layer: WeightedLayer, input_range: Range) -> Range:
    """Return bounds of every partial sum ``bias + sum(w * a)``, over all channels.

    The bounds hold in whatever order the products are added, and with padding.

    Parameters
    ----------
    layer
        Its weights decide the bounds.
    input_range
        Least and greatest input of the layer.
    """
    low, high = min(input_range[0], 0), max(input_range[1], 0)
    weights = layer.dense_weights().reshape(layer.out_channels, -1)
    positive = np.maximum(weights, 0).sum(axis=1)
    negative = np.minimum(weights, 0).sum(axis=1)
    least = np.minimum(layer.bias, 0) + positive * low + negative * high
    greatest = np.maximum(layer.bias, 0) + positive * high + negative * low
    return int(least.min()), int(greatest.max())


def check_accumulators(network: CompressedNetwork, bits: int) -> None:
    """Prove that no accumulator of ``bits`` bits overflows, for any input.

    Raises
    ------
    ValueError
        If a sum could leave the range; the message names the layer and the bits it needs.
    """
    ranges = network.ranges()
    for layer in network.layers:
        if not isinstance(layer, WeightedLayer):
            continue
        low, high = accumulator_bound(layer, ranges[layer.inputs[0]])
        needed = max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1
        if needed > bits:
            raise ValueError(
                f"layer {layer.name!r}: accumulators must have {needed} bits or more "
                f"for sums in {low}..{high}, not {bits}"
            )
