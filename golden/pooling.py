"""Pooling, by definition: what :class:`thresher.hw.output.pooler.Pooler` computes.

A window lies at rows ``wy * stride - pad`` and beyond, ``kernel`` of them, and may reach over any
edge of the map; what lies outside does not take part in a maximum, and counts as 0 in a sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.requantise import requantise

__all__ = ["average_pool", "max_pool"]

Int64Array = npt.NDArray[np.int64]
Pair = tuple[int, int]


def max_pool(
    maps: npt.ArrayLike, kernel: Pair, stride: Pair, padding: Pair, size: Pair
) -> Int64Array:
    """Return the largest value of each window.

    Parameters
    ----------
    maps
        Integers of shape ``(..., height, width)``.
    kernel, stride
        Rows and positions of a window, and between windows.
    padding
        Rows above the map and positions left of it that the first windows reach over.
    size
        Rows and positions of windows. Each window must hold a place of the map.

    Returns
    -------
    pooled
        int64 array of shape ``(..., *size)``.

    Raises
    ------
    TypeError
        If ``maps`` is not of an integer type.
    ValueError
        If a parameter is out of its range, or a window holds no place of the map.

    Examples
    --------
    >>> max_pool([[1, 2, 3], [4, 5, 6], [7, 8, 9]], (2, 2), (2, 2), (0, 0), (2, 2)).tolist()
    [[5, 6], [8, 9]]
    """
    values = _checked(maps)
    pooled = np.empty((*values.shape[:-2], *size), dtype=np.int64)
    for place, rows, positions in _windows(values.shape, kernel, stride, padding, size):
        pooled[(..., *place)] = values[..., rows, positions].max(axis=(-2, -1))
    return pooled


def average_pool(
    maps: npt.ArrayLike,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    size: Pair,
    *,
    scale: int,
    shift: int,
    rounding: Rounding,
    origin: int = 0,
    clip: Pair | None = None,
) -> Int64Array:
    """Return ``round(sum * scale / 2**shift)`` of each window, then clipped if ``clip`` is given.

    Parameters, result and errors are those of :func:`max_pool` and
    :func:`thresher.golden.requantise.requantise`; further:

    Parameters
    ----------
    origin
        Added to each value of a window, inside the map or not, and taken off the result again: how
        a half is rounded depends on the sign of the mean that a zero point is added to.

    Examples
    --------
    >>> half_up = Rounding.HALF_UP
    >>> average_pool([[1, 2], [3, 4]], (2, 2), (2, 2), (0, 0), (1, 1),
    ...              scale=1, shift=2, rounding=half_up).tolist()
    [[3]]
    """
    values = _checked(maps)
    sums = np.empty((*values.shape[:-2], *size), dtype=np.int64)
    for place, rows, positions in _windows(values.shape, kernel, stride, padding, size):
        sums[(..., *place)] = values[..., rows, positions].sum(axis=(-2, -1))
    sums += origin * kernel[0] * kernel[1]
    pooled = requantise(sums, scale, shift, rounding) - origin
    return pooled if clip is None else np.clip(pooled, *clip)


def _checked(maps: npt.ArrayLike) -> Int64Array:
    values = np.asarray(maps)
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"maps must be of an integer type, not {values.dtype}")
    if values.ndim < 2:
        raise ValueError(f"maps must have a height and a width, not shape {values.shape}")
    return values.astype(np.int64)


def _windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, size: Pair
) -> Iterator[tuple[Pair, slice, slice]]:
    """Each window's indices, and the slices of rows and of positions that it holds."""
    sides = []
    for axis, name in enumerate(("height", "width")):
        if min(kernel[axis], stride[axis], size[axis]) < 1 or padding[axis] < 0:
            raise ValueError(
                f"kernel, stride and size must be positive and padding not negative in {name}, not "
                f"{kernel[axis]}, {stride[axis]}, {size[axis]} and {padding[axis]}"
            )
        length = shape[-2 + axis]
        starts = [window * stride[axis] - padding[axis] for window in range(size[axis])]
        slices = [slice(max(0, start), min(length, start + kernel[axis])) for start in starts]
        for window, part in enumerate(slices):
            if part.start >= part.stop:
                raise ValueError(f"window {window} holds no place of the map in {name}")
        sides.append(slices)
    for wy, rows in enumerate(sides[0]):
        for wx, positions in enumerate(sides[1]):
            yield (wy, wx), rows, positions
