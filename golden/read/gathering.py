"""Maps that are some of another map's values: cropped, every second row, with zeros around them.

They are made by a convolution of one tap an output channel. It takes maps of which each channel
has the places of a grid in some channel of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Convolution, Range, Shape

__all__ = ["NOWHERE", "gather"]

Int64Array = npt.NDArray[np.int64]

NOWHERE = -1
"""The place of a zero."""

_MOST_PADDING = 255
_MOST_STRIDE = 255
_MOST_WEIGHTS = 1 << 24


def gather(
    places: Int64Array, source: str, shape: Shape, values: Range, name: str
) -> Convolution | None:
    """Return the convolution whose outputs are some of a map's values.

    Parameters
    ----------
    places
        Of the outputs (channels, height, width): where each is in the flattened map, or -1 for 0.
    source, shape
        The map's name, and its (channels, height, width).
    values
        Its least and greatest value.
    name
        Of the layer.

    Returns
    -------
    layer
        None if the places are not, in each channel, those of a grid in one channel of the map, or
        the padding of the layer would be too wide.

    Examples
    --------
    >>> every_second = np.arange(16).reshape(1, 4, 4)[:, 1::2, ::2]
    >>> layer = gather(every_second, "x", (1, 4, 4), (0, 9), "some")
    >>> layer.stride, layer.kernel, layer.output_shape((1, 4, 4))
    ((2, 2), (2, 1), (1, 2, 2))
    """
    count, *size = places.shape
    channels = np.full(count, NOWHERE)
    inside = places != NOWHERE
    area = shape[1] * shape[2]
    for channel in np.flatnonzero(inside.any((1, 2))):
        channels[channel] = places[channel][inside[channel]][0] // area
    used = np.flatnonzero(channels >= 0)
    if not used.size or min(size) < 1:
        return None
    coordinates = places % area // shape[2], places % area % shape[2]
    sides = []
    for axis, found in enumerate(coordinates):
        along = np.moveaxis(found, axis + 1, 1).reshape(count, size[axis], -1)
        known = np.moveaxis(inside, axis + 1, 1).reshape(count, size[axis], -1)
        grid = _grid(along[used], known[used], shape[axis + 1])
        if grid is None:
            return None
        sides.append((grid[0], grid[1], size[axis], shape[axis + 1]))
    if not np.array_equal(_made(channels, used, sides, shape), places):
        return None
    (taps_y, height, stride_y, pad_y), (taps_x, width, stride_x, pad_x) = map(_windows, sides)
    alike = np.array_equal(channels, np.arange(shape[0]))
    weights = np.zeros((count, 1 if alike else shape[0], height, width), np.uint8)
    if (
        max(*pad_y, *pad_x) > _MOST_PADDING
        or max(stride_y, stride_x) > _MOST_STRIDE
        or weights.size > _MOST_WEIGHTS
    ):
        return None
    weights[used, 0 if alike else channels[used], taps_y, taps_x] = 1
    constants: dict[str, Any] = {
        "bias": np.zeros(count, np.int64),
        "scale": np.ones(count, np.int64),
        "shift": np.zeros(count, np.int64),
    }
    return Convolution(
        name=name,
        inputs=(source,),
        weights=weights,
        codebook=np.array([0, 1]),
        clip=(min(values[0], 0), max(values[1], 0)),
        stride=(stride_y, stride_x),
        padding=(pad_y[0], pad_x[0], pad_y[1], pad_x[1]),
        groups=count if alike else 1,
        **constants,
    )


_Side = tuple[Int64Array, int, int, int]
"""First position of each channel, step, number of outputs, length of the map."""


def _grid(
    along: Int64Array, known: npt.NDArray[np.bool_], length: int
) -> tuple[Int64Array, int] | None:
    """Return each channel's first position on an axis, and their common step.

    Parameters
    ----------
    along, known
        Positions (channels, places on the axis, places on the other), and which of them are so.
    length
        Of the map: where a channel has one position at most, others are outside.
    """
    rows = np.asarray(known.any(2))
    position = np.where(rows, np.where(known, along, 0).max(2), 0)
    number = np.arange(rows.shape[1])
    first, last = rows.argmax(1), rows.shape[1] - 1 - rows[:, ::-1].argmax(1)
    each = np.arange(len(rows))
    spans = last - first
    step = length if along.shape[1] > 1 else 1
    if spans.any():
        longest = int(spans.argmax())
        rise = position[longest, last[longest]] - position[longest, first[longest]]
        step = int(rise // spans[longest])
    if step < 1:
        return None
    return position[each, first] - step * number[first], step


def _made(
    channels: Int64Array, used: Int64Array, sides: Sequence[_Side], shape: Shape
) -> Int64Array:
    """Return the places that a grid in each channel has."""
    (first_y, step_y, height, _), (first_x, step_x, width, _) = sides
    made = np.full((channels.size, height, width), NOWHERE)
    y = (first_y[:, None] + step_y * np.arange(height))[:, :, None]
    x = (first_x[:, None] + step_x * np.arange(width))[:, None, :]
    place = (channels[used][:, None, None] * shape[1] + y) * shape[2] + x
    inside = (y >= 0) & (y < shape[1]) & (x >= 0) & (x < shape[2])
    made[used] = np.where(inside, place, NOWHERE)
    return made


def _windows(side: _Side) -> tuple[Int64Array, int, int, tuple[int, int]]:
    """Return where the taps are in a kernel, its extent, the stride, and padding at both ends."""
    first, step, count, length = side
    before = max(0, -int(first.min()))
    taps = first + before
    extent = int(taps.max()) + 1
    room = length + before - extent  # behind the first window
    wanted = (count - 1) * step
    if room >= wanted + step:
        extent, room = length + before - wanted, wanted
    return taps, extent, step, (before, max(0, wanted - room))
