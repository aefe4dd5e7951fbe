"""Addition of two maps that have different scales: what the output stage computes.

Defined as in the reference kernel of TFLite's ADD for int8, which gives its inputs 20 fractional
bits before it rounds them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.integers import integers
from thresher.golden.requantise import requantise

__all__ = ["ADD_HEADROOM", "add"]

Int64Array = npt.NDArray[np.int64]

ADD_HEADROOM = 20
"""Fractional bits of the scaled one of the two; the plain one has one fewer."""


def add(
    plain: npt.ArrayLike,
    scaled: npt.ArrayLike,
    *,
    operand_scale: int,
    operand_shift: int,
    scale: int,
    shift: int,
    rounding: Rounding,
    clip: tuple[int, int] | None = None,
) -> Int64Array:
    """Return ``round((plain * 2**19 + s) * scale / 2**shift)``, then clipped if ``clip`` is given.

    Here s is ``round(scaled * 2**20 * operand_scale / 2**operand_shift)``.

    Parameters
    ----------
    plain, scaled
        Integers of at most 17 bits, of one shape; ``plain`` has the greater scale.
    operand_scale, operand_shift
        A fraction of at most 1: ``operand_scale`` up to ``2**operand_shift``, within 31 bits.
    scale, shift
        Integers in 0..2^31-1 and in 0..63.
    rounding
        How both are rounded.
    clip
        Least and greatest result.

    Raises
    ------
    TypeError
        If an operand is not of an integer type.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> half = {"operand_scale": 1 << 29, "operand_shift": 30}
    >>> add([3, 3, -3], [5, 6, 5], **half, scale=1, shift=19, rounding=Rounding.HALF_UP).tolist()
    [8, 9, 2]
    """
    if operand_scale > 1 << operand_shift:
        raise ValueError(
            f"operand_scale must be at most 2^operand_shift, not {operand_scale} with "
            f"operand_shift {operand_shift}; exchange the two maps"
        )
    first, second = integers("maps", plain), integers("maps", scaled)
    part = requantise(second << ADD_HEADROOM, operand_scale, operand_shift, rounding)
    total = (first << ADD_HEADROOM - 1) + part
    return requantise(total, scale, shift, rounding, clip)
