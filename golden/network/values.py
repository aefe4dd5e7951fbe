"""Layers that compute each output of one value of each input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network.layer import ACTIVATION, SCALE, SHIFT, Layer, Range, Shape

__all__ = ["Add", "Lookup", "Multiply"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfTwo(Layer):
    scale: int
    shift: int
    rounding: Rounding = Rounding.HALF_UP
    clip: Range = (0, 255)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("scale", *SCALE)
        self._set_integer("shift", *SHIFT)
        self._set_rounding()
        self._set_clip()

    def output_range(self, *ranges: Range) -> Range:
        return self.clip

    def _input_counts(self) -> tuple[int, int, str]:
        return 2, 2, "two names"


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(_OfTwo):
    """The sum of two maps that have different scales.

    ``clip(round(sum * scale >> shift))``, where the sum is the first input, times 2^19, and the
    second, times 2^20 and then ``round(... * operand_scale >> operand_shift)``. So the first is
    the input of the greater scale s1, the second that of the lesser, s2; operand_scale stands for
    s2 / (2 * s1), and scale for 2^-19 * s1 / (scale of the output).

    Parameters
    ----------
    operand_scale, operand_shift
        Multiplier (up to 31 bits) and right shift (0..63) of the second input; together at most 1.
    scale, shift
        The same of the sum.
    rounding
        How both are rounded.
    clip
        Least and greatest output.

    References
    ----------
    TFLite's reference kernel of ADD for int8, with ``left_shift`` 20.
    """

    operand_scale: int
    operand_shift: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("operand_scale", *SCALE)
        self._set_integer("operand_shift", *SHIFT)
        if self.operand_scale > 1 << self.operand_shift:
            raise self._error(
                f"operand_scale must be at most 2^operand_shift, not {self.operand_scale} with "
                f"operand_shift {self.operand_shift}; exchange the inputs"
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise self._error(f"inputs must have one shape, not {shapes[0]} and {shapes[1]}")
        return shapes[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(_OfTwo):
    """The product of two maps: ``clip(round(first * second * scale >> shift))``.

    The second input has the shape of the first, or one value a channel, (channels, 1, 1), as in
    squeeze-and-excite.

    Parameters
    ----------
    scale, shift
        Multiplier (up to 31 bits) and right shift (0..63) of the product.
    rounding
        How it is rounded.
    clip
        Least and greatest output.

    References
    ----------
    TFLite's reference kernel of MUL for int8.
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if second not in {first, (first[0], 1, 1)}:
            raise self._error(
                f"its second input must have shape {first}, or one value a channel, not {second}"
            )
        return first


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup(Layer):
    """A function of one value, as a table: hard-swish, sigmoid, or any other.

    Parameters
    ----------
    first
        The input whose output is ``table[0]``; the next greater ones follow.
    table
        Outputs; one for each possible input.
    """

    first: int
    table: Int64Array

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("first", *ACTIVATION)
        entries = np.size(self.table)
        if not 1 <= entries <= 1 << 16:
            raise self._error(f"table must have 1 to {1 << 16} entries, not {entries}")
        self._set_array("table", (entries,), ACTIVATION)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape

    def output_range(self, *ranges: Range) -> Range:
        ((low, high),) = ranges
        last = self.first + self.table.size - 1
        if low < self.first or high > last:
            raise self._error(f"table must cover inputs {low}..{high}, not {self.first}..{last}")
        possible = self.table[low - self.first : high - self.first + 1]
        return int(possible.min()), int(possible.max())
