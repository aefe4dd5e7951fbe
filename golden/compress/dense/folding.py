"""Dense networks with what follows a layer taken into it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from thresher.golden.compress.dense.graph import DenseNetwork
from thresher.golden.compress.dense.layer import (
    OF_TWO,
    RELU,
    RELU6,
    UNBOUNDED,
    WEIGHTED,
    DenseLayer,
)

__all__ = ["folded"]


def folded(network: DenseNetwork) -> DenseNetwork:
    """Return the network with what follows a layer taken into it, where nothing else reads it.

    A batch normalisation is a depthwise 1x1 convolution, ``weight`` (C, 1, 1, 1): it goes into the
    weights and biases of a convolution or linear layer without bounds before it. A unary ``relu``,
    ``relu6`` or ``clip`` becomes the bounds of a convolution, a linear layer, an addition or a
    product. The names that remain are those of the last layers taken in, so that each value has the
    name that it had.

    Parameters
    ----------
    network
        Any dense network.

    Returns
    -------
    network
        One that computes the same.
    """
    readers = network.readers()
    layers: dict[str, DenseLayer] = {}
    for layer in network.layers:
        before = layers.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
        joined = None
        if before is not None and len(readers[before.name]) == 1:
            joined = _joined(before, layer)
        if joined is not None and before is not None:
            del layers[before.name]
        layers[layer.name] = joined or layer
    return replace(network, layers=tuple(layers.values()))


def _joined(before: DenseLayer, layer: DenseLayer) -> DenseLayer | None:
    """Return one layer for two, or None."""
    if layer.kind == "unary" and before.kind in {*WEIGHTED, *OF_TWO}:
        bounds = {"relu": RELU, "relu6": RELU6, "clip": layer.parameters or UNBOUNDED}
        low, high = bounds.get(layer.function, (0.0, 0.0))
        low, high = max(low, before.clip[0]), min(high, before.clip[1])
        return replace(before, name=layer.name, clip=(low, high)) if low < high else None
    is_scale = (
        layer.weight is not None
        and layer.weight.shape == (layer.groups, 1, 1, 1)
        and layer.stride == (1, 1)
        and not any(layer.padding)
    )
    if not is_scale or before.weight is None or before.clip != UNBOUNDED:
        return None
    assert layer.weight is not None
    scale = layer.weight.ravel()
    bias = np.zeros(len(scale)) if before.bias is None else before.bias
    shift = 0.0 if layer.bias is None else layer.bias
    weight = before.weight * scale.reshape(-1, *[1] * (before.weight.ndim - 1))
    return replace(
        before, name=layer.name, weight=weight, bias=bias * scale + shift, clip=layer.clip
    )
