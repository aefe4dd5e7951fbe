"""Inputs of an imported network: from what its source takes to integers without zero point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork

__all__ = ["network_inputs", "quantised"]

Int64Array = npt.NDArray[np.int64]


def network_inputs(array: npt.NDArray[Any], network: CompressedNetwork, name: str) -> Int64Array:
    """Return inputs (n, C, H, W) as the network takes them.

    Parameters
    ----------
    array
        One input or several, in the source's shape and layout (``metadata["input"]``), flat, or
        in the network's own (C, H, W); dimensions of 1 may be left out. Floats are real values;
        integers of the source's type are its stored values; other integers have no zero point.
    network
        The network.
    name
        What the array is called in errors.

    Raises
    ------
    ThresherError
        If shape, type or a value does not fit.
    """
    info = network.metadata.get("input")
    info = info if isinstance(info, Mapping) else {}
    values = _in_own_layout(array, network, info)
    if values is None or len(values) == 0:
        wanted = ", ".join(str(size) for size in network.input_shape)
        source = info.get("shape", [])
        differs = source and tuple(source) != network.input_shape
        also = f" or (n, {', '.join(str(size) for size in source)})" if differs else ""
        raise ThresherError(
            f"{name} has shape {array.shape}: network {network.name} takes (n, {wanted}){also}"
        )
    low, high = network.input_range
    if np.issubdtype(array.dtype, np.floating) and "scale" in info:
        return quantised(values, network, name)
    if not np.issubdtype(array.dtype, np.integer):
        raise ThresherError(f"{name} holds {array.dtype}: give integers in {low}..{high}")
    integers = values.astype(np.int64)
    if str(array.dtype) == info.get("dtype"):
        integers -= int(info.get("zero_point", 0))
    least, most = int(integers.min()), int(integers.max())
    if least < low or most > high:
        raise ThresherError(
            f"{name} has values in {least}..{most}: network {network.name} takes {low}..{high}"
        )
    return integers


def quantised(
    values: npt.NDArray[np.floating], network: CompressedNetwork, name: str
) -> Int64Array:
    """Return real values as integers: rounded, halves to even, and limited to the range.

    Raises
    ------
    ThresherError
        If the network does not say what its inputs stand for, or a value is no number.
    """
    info = network.metadata.get("input")
    if not isinstance(info, Mapping) or "scale" not in info:
        low, high = network.input_range
        raise ThresherError(
            f"{name}: network {network.name} does not say what real values its inputs stand for;"
            f" give integers in {low}..{high}"
        )
    if not np.isfinite(values).all():
        raise ThresherError(f"{name} holds numbers that are not finite: leave these inputs out")
    # In the source's precision: its scale is of single precision.
    scaled = np.rint(values.astype(np.float32) / np.float32(info["scale"]))
    return np.asarray(np.clip(scaled, *network.input_range), np.int64)


def _in_own_layout(
    array: npt.NDArray[Any], network: CompressedNetwork, info: Mapping[str, Any]
) -> npt.NDArray[Any] | None:
    """Return the array as (n, C, H, W), or None if it does not have the size of inputs."""
    channels, height, width = network.input_shape
    size = math.prod(network.input_shape)
    if array.ndim == 0 or array.size == 0 or array.size % size:
        return None
    count = array.size // size
    possible = [array.shape[1:]] if len(array) == count else []
    possible += [array.shape] if count == 1 else []
    found = {_squeezed(shape) for shape in possible}
    source = {_squeezed(tuple(info.get("shape", ()))), _squeezed((size,))}
    if info.get("layout") == "NHWC":
        if found & (source | {_squeezed((height, width, channels))}):
            return array.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
        source = set()
    if found & (source | {_squeezed(network.input_shape)}):
        return array.reshape(count, channels, height, width)
    return None


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its dimensions of 1."""
    return tuple(size for size in shape if size != 1)
