"""Layers that pool: each output is of a window of their input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.golden.descriptors import Rounding
from thresher.golden.network.layer import (
    ACTIVATION,
    SCALE,
    SHIFT,
    Layer,
    Range,
    Shape,
    is_integer,
    window_counts,
)
from thresher.golden.pooling import MOST_LACKING, lacking
from thresher.golden.requantise import requantise

__all__ = ["AveragePool", "MaxPool"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool(Layer):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integers("kernel", 2, 1, 4095)
        self._set_integers("stride", 2, 1, 4095)
        self._set_integers("padding", 4, 0, 255)
        for amount, extent in zip(self.padding, self.kernel * 2, strict=True):
            if amount >= extent:
                raise self._error(
                    f"padding must be smaller than the kernel {self.kernel}, not {self.padding}"
                )

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        counts = window_counts(self, shape, self.kernel, self.stride, self.padding)
        return shape[0], *counts


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(_Pool):
    """The greatest value of each window; padded positions are ignored.

    Parameters
    ----------
    kernel, stride
        (y, x), each at least 1.
    padding
        (top, left, bottom, right), each smaller than the kernel. A size rounded up ("ceil mode")
        is a larger bottom or right padding.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool(_Pool):
    """``round(sum * scale >> shift)`` of each window; padded positions are zeros in the sum.

    Parameters
    ----------
    kernel, stride, padding
        As for :class:`MaxPool`.
    scale, shift
        Reciprocal of the divisor: an integer of up to 31 bits and a right shift (0..63).
    rounding
        How the mean is rounded.
    origin
        The mean is rounded as if each value were so much more: with the zero point of a network
        whose halves are rounded away from a stored zero.
    cut_scales
        Scales of the windows that the edges of the map cut: ``cut_scales[r][c]`` if r rows and c
        columns lie outside, 0 to 15 of each, and ``cut_scales[0][0]`` is ``scale``. A single row
        of them is for any number of rows outside, a single column likewise. None: all windows have
        one divisor.
    clip
        Least and greatest output; None where no mean goes beyond the activations' width.
    """

    scale: int
    shift: int
    rounding: Rounding = Rounding.HALF_UP
    origin: int = 0
    clip: Range | None = None
    cut_scales: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("scale", *SCALE)
        self._set_integer("shift", *SHIFT)
        self._set_rounding()
        self._set_integer("origin", *ACTIVATION)
        self._set_cut_scales()
        if self.clip is not None:
            self._set_clip()

    def _set_cut_scales(self) -> None:
        if self.cut_scales is None:
            return
        table = self.cut_scales
        most = [min(MOST_LACKING + 1, extent) for extent in self.kernel]
        if not isinstance(table, tuple | list) or not (
            1 <= len(table) <= most[0]
            and all(isinstance(row, tuple | list) for row in table)
            and len({len(row) for row in table}) == 1
            and 1 <= len(table[0]) <= most[1]
            and all(
                is_integer(scale) and SCALE[0] <= scale <= SCALE[1]
                for row in table
                for scale in row
            )
        ):
            raise self._error(
                f"cut_scales must be up to {most[0]} x {most[1]} scales of up to 31 bits,"
                f" not {table!r}"
            )
        if table[0][0] != self.scale:
            raise self._error(f"cut_scales must begin with scale, {self.scale}, not {table[0][0]}")
        self._set("cut_scales", tuple(tuple(int(scale) for scale in row) for row in table))

    def output_shape(self, *shapes: Shape) -> Shape:
        shape = super().output_shape(*shapes)
        if self.cut_scales is not None:
            allowed = len(self.cut_scales), len(self.cut_scales[0])
            for axis in (0, 1):
                lacks = lacking(
                    shapes[0][axis + 1],
                    self.kernel[axis],
                    self.stride[axis],
                    self.padding[axis],
                    shape[axis + 1],
                )
                if lacks.max() >= allowed[axis] > 1:
                    raise self._error(
                        f"a window has {lacks.max()} {('rows', 'columns')[axis]} outside of the"
                        f" map, and cut_scales are for less than {allowed[axis]}"
                    )
        return shape

    def output_range(self, *ranges: Range) -> Range:
        low, high = ranges[0][0] + self.origin, ranges[0][1] + self.origin
        height, width = self.kernel
        cases = [(height * width, self.scale)]
        if self.cut_scales is not None:
            cases = [
                (places_y * places_x, scale)
                for rows, line in enumerate(self.cut_scales)
                for columns, scale in enumerate(line)
                for places_y in self._places(0, height - rows)
                for places_x in self._places(1, width - columns)
            ]
        elif any(self.padding):  # a window may hold as little as one value
            cases.append((1, self.scale))
        means = [
            requantise(np.array([places * low, places * high]), scale, self.shift, self.rounding)
            for places, scale in cases
        ]
        bounds = np.array([np.min(means), np.max(means)]) - self.origin
        if self.clip is not None:
            bounds = np.clip(bounds, *self.clip)
        return int(bounds[0]), int(bounds[1])

    def _places(self, axis: int, most: int) -> tuple[int, ...]:
        """Return most and least rows, or columns, inside of windows of an entry of the table."""
        assert self.cut_scales is not None
        entries = len(self.cut_scales[0]) if axis else len(self.cut_scales)
        any_number = entries == 1 and self.padding[axis] + self.padding[axis + 2] > 0
        return (most, 1) if any_number else (most,)
