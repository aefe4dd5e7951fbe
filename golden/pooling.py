"""Pooling, by definition: what :class:`thresher.hw.output.pooler.Pooler` computes.

A window lies at rows ``wy * stride - pad`` and beyond, ``kernel`` of them, and may reach over any
edge of the map; what lies outside does not take part in a maximum, and counts as 0 in a sum. The
window *lacks* the rows and positions that lie outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.integers import integers
from thresher.golden.requantise import requantise

__all__ = ["MOST_LACKING", "average_pool", "counted_places", "divisors", "lacking", "max_pool"]

Int64Array = npt.NDArray[np.int64]
Pair = tuple[int, int]
Sides = tuple[int, int, int, int]

MOST_LACKING = 15
"""Rows, and positions, that a window whose scale depends on them may lack."""


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
    cut_scales: Sequence[Sequence[int]] | None = None,
) -> Int64Array:
    """Return ``round(sum * scale / 2**shift)`` of each window, then clipped if ``clip`` is given.

    Parameters, result and errors are those of :func:`max_pool` and
    :func:`thresher.golden.requantise.requantise`; further:

    Parameters
    ----------
    origin
        Added to each value of a window, and taken off the result again: how a half is rounded
        depends on the sign of the mean that a zero point is added to.
    cut_scales
        ``cut_scales[r][c]`` takes the place of ``scale`` in windows that lack r rows and c
        positions, at most ``MOST_LACKING`` of each. A single row of scales is that of all windows,
        whatever rows they lack; a single scale in each row likewise.

    Examples
    --------
    >>> half_up = Rounding.HALF_UP
    >>> average_pool([[1, 2], [3, 4]], (2, 2), (2, 2), (0, 0), (1, 1),
    ...              scale=1, shift=2, rounding=half_up).tolist()
    [[3]]
    >>> average_pool([[1, 2], [3, 4]], (2, 2), (2, 2), (1, 0), (1, 1), scale=1, shift=2,
    ...              rounding=half_up, cut_scales=[[1], [2]]).tolist()
    [[2]]
    """
    values = _checked(maps)
    sums = np.empty((*values.shape[:-2], *size), dtype=np.int64)
    for place, rows, positions in _windows(values.shape, kernel, stride, padding, size):
        sums[(..., *place)] = (values[..., rows, positions] + origin).sum(axis=(-2, -1))
    scales: npt.ArrayLike = scale
    if cut_scales is not None:
        rows_lacking, positions_lacking = (
            lacking(values.shape[axis - 2], kernel[axis], stride[axis], padding[axis], size[axis])
            for axis in (0, 1)
        )
        table = np.asarray(cut_scales)
        scales = table[
            np.ix_(rows_lacking * (table.shape[0] > 1), positions_lacking * (table.shape[1] > 1))
        ]
    pooled = requantise(sums, scales, shift, rounding) - origin
    return pooled if clip is None else np.clip(pooled, *clip)


def lacking(length: int, kernel: int, stride: int, pad: int, count: int) -> Int64Array:
    """Return how many places each of ``count`` windows along a side of a map lacks.

    Examples
    --------
    >>> lacking(4, kernel=3, stride=1, pad=1, count=4).tolist()
    [1, 0, 0, 1]
    """
    first = np.arange(count) * stride - pad
    return np.asarray(np.maximum(0, -first) + np.maximum(0, first + kernel - length))


def counted_places(
    shape: Pair, kernel: Pair, stride: Pair, padding: Sides, uncounted: Sides
) -> tuple[Int64Array, Int64Array]:
    """Return how many rows each row of windows, and how many columns each column, divides by.

    Parameters are those of :func:`divisors`.
    """
    sides = []
    for axis in (0, 1):
        size, before, after = kernel[axis], padding[axis], padding[axis + 2]
        count = (shape[axis] + before + after - size) // stride[axis] + 1
        first = np.arange(count) * stride[axis] - before
        end = np.minimum(first + size, shape[axis] + after - uncounted[axis + 2])
        sides.append(np.asarray(end - np.maximum(first, uncounted[axis] - before)))
    return sides[0], sides[1]


def divisors(
    shape: Pair, kernel: Pair, stride: Pair, padding: Sides, uncounted: Sides
) -> tuple[list[int], list[int]]:
    """Return by what a mean divides: the rows, and columns, of a window that lacks 0, 1, ...

    A single one where that is the same for all windows, as where each of them holds all rows.

    Parameters
    ----------
    shape
        Height and width of the map.
    kernel, stride
        Of the windows, (y, x).
    padding
        Places around the map that windows reach over: (top, left, bottom, right).
    uncounted
        The outer ones of them, which do not count; the others count as zeros.

    Raises
    ------
    ValueError
        If windows have different divisors and one lacks more than ``MOST_LACKING``, or windows
        that lack as much have different divisors.

    Examples
    --------
    >>> divisors((4, 5), (3, 3), (1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
    ([3, 2], [3, 2])
    >>> divisors((2, 5), (3, 3), (1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
    ([2], [3, 2])
    """
    sides = [
        (places, lacking(shape[axis], kernel[axis], stride[axis], padding[axis], places.size))
        for axis, places in enumerate(counted_places(shape, kernel, stride, padding, uncounted))
    ]
    found = []
    for size, name, (places, missing) in zip(kernel, ("rows", "columns"), sides, strict=True):
        if np.all(places == places[0]):
            found.append([int(places[0])])
            continue
        if missing.max() > MOST_LACKING:
            raise ValueError(
                f"a window has {missing.max()} of its {size} {name} outside of the map, more than"
                f" {MOST_LACKING}"
            )
        table = [size - lacks for lacks in range(int(missing.max()) + 1)]
        for lacks in np.unique(missing).tolist():
            different = np.unique(places[missing == lacks])
            if different.size > 1:
                raise ValueError(
                    f"windows with {lacks} {name} outside of the map divide by {different[0]} and"
                    f" by {different[1]}"
                )
            table[lacks] = int(different[0])
        found.append(table)
    return found[0], found[1]


def _checked(maps: npt.ArrayLike) -> Int64Array:
    values = integers("maps", maps)
    if values.ndim < 2:
        raise ValueError(f"maps must have a height and a width, not shape {values.shape}")
    return values


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
