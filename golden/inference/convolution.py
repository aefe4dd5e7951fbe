"""Sums of convolutions, exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from thresher.golden.network import Convolution, Range, WeightedLayer

__all__ = ["convolve", "exact_dtype", "taps_of"]

Int64Array = npt.NDArray[np.int64]


def exact_dtype(layer: WeightedLayer, allowed: Range) -> type[np.floating]:
    """Return a floating-point type in which no partial sum is ever rounded."""
    magnitudes = np.abs(layer.dense_weights()).reshape(layer.out_channels, -1).sum(axis=1)
    bound = int(magnitudes.max()) * max(abs(allowed[0]), abs(allowed[1]))
    if bound >= 1 << 53:
        raise ValueError(f"layer {layer.name!r}: sums must be below 2^53, not {bound}")
    return np.float32 if bound < 1 << 24 else np.float64


def taps_of(layer: Convolution, maps: npt.NDArray, rows: int) -> npt.NDArray:
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


def convolve(layer: Convolution, values: Int64Array, allowed: Range) -> npt.NDArray[np.floating]:
    """Return the sums (n, channels out, height, width), exact; in memory channels come last."""
    dtype = exact_dtype(layer, allowed)
    channels_last = np.ascontiguousarray(values.transpose(0, 2, 3, 1), dtype)
    taps = taps_of(layer, channels_last, 1)
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
