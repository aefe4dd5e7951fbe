"""Tokens: the sequence that a lane sends into the array, by its definition.

A strided convolution is taken apart by the phase of the input position: position y lies in phase
``(y + pad) % stride`` at place ``Y = (y + pad) // stride``, and kernel rows of that phase, counted
ky, meet output row ``Y - ky``. A token is an activation with the groups of taps that it meets; the
accumulators that they add to are found from its base, the address of output ``(Y, X)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.integers import integers

__all__ = ["Item", "Token", "items", "tokens"]


class Item(NamedTuple):
    """What a lane knows of a row, one element at a time; ``step`` comes before the hit."""

    value: int
    channel: int
    step: bool
    hit: bool
    last: bool


class Token(NamedTuple):
    """Work on groups ``lo`` to ``hi`` (excluded), or a marker of an output row."""

    marker: bool
    open: bool
    lo: int = 0
    hi: int = 0
    base: int = 0
    value: int = 0


def items(
    row: npt.NDArray[np.integer], *, first_channel: int = 0, send_zeros: bool = False
) -> list[Item]:
    """Return the items of a visit in their shortest form.

    Parameters
    ----------
    row
        Values, shape (width, channels) of the segment.
    first_channel
        Channels of the lane's segments before this one.
    send_zeros
        Zeros are hits too.

    Examples
    --------
    >>> [tuple(map(int, item)) for item in items(np.array([[0, 5], [0, 0], [7, 0]]))]
    [(5, 1, 0, 1, 0), (0, 0, 1, 0, 0), (7, 0, 1, 1, 1)]
    """
    width, channels = row.shape
    found: list[Item] = []
    at = 0
    for x in range(width):
        for channel in range(channels):
            value = int(row[x, channel])
            if not (value or send_zeros):
                continue
            found += [Item(0, 0, True, False, False)] * max(0, x - at - 1)
            found.append(Item(value, first_channel + channel, x > at, True, False))
            at = x
    if not found:
        return [Item(0, 0, False, False, True)]
    return [*found[:-1], found[-1]._replace(last=True)]


def _range(place: int, outputs: int, kernel: int) -> tuple[int, int]:
    """First and last kernel index of a phase that meets an output; none if last < first."""
    return max(0, place - outputs + 1), min(kernel - 1, place)


def _hit_tokens(
    run: Mapping[str, int], y: int, x: int, channel: int, value: int
) -> Iterator[Token]:
    place_y, phase_y = divmod(y + run["pad_y"], run["stride_y"])
    place_x, phase_x = divmod(x + run["pad_x"], run["stride_x"])
    y_low, y_high = _range(place_y, run["out_height"], run["kernel_height"])
    x_low, x_high = _range(place_x, run["out_width"], run["kernel_width"])
    if y_low > y_high or x_low > x_high:
        return
    base = place_y * run["row_size"] + place_x * run["channels"]
    phase = phase_y * run["stride_x"] + phase_x
    first = run["group_base"] + channel * run["channel_groups"] + phase * run["phase_groups"]
    width = run["kernel_width"]
    if (x_low, x_high) == (0, width - 1):
        yield Token(False, False, first + y_low * width, first + (y_high + 1) * width, base, value)
        return
    for ky in range(y_low, y_high + 1):
        row = first + ky * width
        yield Token(False, False, row + x_low, row + x_high + 1, base, value)


def _map_tokens(
    activation_map: npt.NDArray[np.integer], run: Mapping[str, int], segments: Sequence[int]
) -> Iterator[Token]:
    """Tokens of one input, shape (channels, height, width); bases count from its first output."""
    opened = completed = 0
    for y in range(run["height"]):
        while opened < run["out_height"] and opened * run["stride_y"] - run["pad_y"] <= y:
            yield Token(True, True)
            opened += 1
        for begin, end in pairwise(np.cumsum([0, *segments]).tolist()):
            row = activation_map[begin:end, y].T
            for x, channel in np.argwhere((row != 0) | bool(run["send_zeros"])).tolist():
                yield from _hit_tokens(run, y, x, begin + channel, int(row[x, channel]))
        while completed < run["out_height"]:
            final = completed * run["stride_y"] - run["pad_y"] + run["extent_y"] - 1
            if min(run["height"] - 1, final) > y:
                break
            if opened == completed:  # the output row lies below the last input row
                yield Token(True, True)
                opened += 1
            yield Token(True, False)
            completed += 1


def tokens(
    activations: npt.NDArray[np.integer],
    run: Mapping[str, int],
    segments: Sequence[int],
    *,
    group_depth: int,
    accumulator_depth: int,
) -> list[Token]:
    """Return all tokens of a lane in a run.

    For each input row: markers of the output rows that open with it, tokens, markers of the
    output rows that it completes.

    Parameters
    ----------
    activations
        Input of the lane, shape (maps, channels, height, width), the channels of all segments.
    run
        Fields of :data:`thresher.golden.descriptors.RUN`.
    segments
        Channels of each segment, in order; none for a lane that only sends markers.
    group_depth, accumulator_depth
        Sizes by which addresses are reduced.

    Raises
    ------
    TypeError
        If the activations are not integers.
    ValueError
        If their shape does not match the run.
    """
    activations = integers("activations", activations)
    shape = (run["maps"], sum(segments), run["height"], run["width"])
    if activations.shape != shape:
        raise ValueError(f"activations must have shape {shape}, not {activations.shape}")
    return [
        token._replace(
            lo=0 if token.marker else (token.lo + index * run["round_groups"]) % group_depth,
            hi=0 if token.marker else (token.hi + index * run["round_groups"]) % group_depth,
            base=0 if token.marker else (token.base + index * run["map_size"]) % accumulator_depth,
        )
        for index, activation_map in enumerate(activations)
        for token in _map_tokens(activation_map, run, segments)
    ]
