"""Outputs of each kind of layer, exact.

Sums are formed by floating-point matrix products, in the narrowest format in which they are
proven exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import add
from thresher.golden.inference.convolution import convolve, exact_dtype
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
    Multiply,
    Range,
    WeightedLayer,
)
from thresher.golden.pooling import average_pool, max_pool
from thresher.golden.product import multiply
from thresher.golden.requantise import requantise

__all__ = ["forward"]

Int64Array = npt.NDArray[np.int64]


def forward(  # noqa: PLR0911  # a result a kind of layer
    layer: Layer, sources: list[Int64Array], allowed: Range
) -> Int64Array:
    """Return a layer's output for maps (n, channels, height, width).

    Parameters
    ----------
    layer, sources
        The layer and its inputs.
    allowed
        Least and greatest value that its first input can have.
    """
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
            return _requantised(layer, convolve(layer, values, allowed))
        case Linear():
            flat = values.reshape(len(values), -1)
            dtype = exact_dtype(layer, allowed)
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


def _windows(layer: MaxPool | AveragePool, values: Int64Array) -> dict[str, Any]:
    _, channels, height, width = values.shape
    return {
        "kernel": layer.kernel,
        "stride": layer.stride,
        "padding": layer.padding[:2],
        "size": layer.output_shape((channels, height, width))[1:],
    }
