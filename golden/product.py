"""Products of two maps: what the output stage computes of an output and a stored operand.

Defined as in the reference kernel of TFLite's MUL for int8: the product of two integers is exact,
and is rounded once it is scaled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.integers import integers
from thresher.golden.requantise import requantise

__all__ = ["multiply"]

Int64Array = npt.NDArray[np.int64]


def multiply(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    scale: int,
    shift: int,
    rounding: Rounding,
    clip: tuple[int, int] | None = None,
) -> Int64Array:
    """Return ``round(first * second * scale / 2**shift)``, then clipped if ``clip`` is given.

    Parameters
    ----------
    first, second
        Integers of at most 16 bits, zero points removed, of shapes that broadcast.
    scale, shift
        Integers in 0..2^31-1 and in 0..63.
    rounding
        How the scaled product is rounded.
    clip
        Least and greatest result.

    Raises
    ------
    TypeError
        If a factor is not of an integer type.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> multiply([3, -5], [7, 3], scale=1, shift=1, rounding=Rounding.HALF_UP).tolist()
    [11, -7]
    >>> multiply([3, -5], [7, 3], scale=1, shift=1, rounding=Rounding.HALF_EVEN).tolist()
    [10, -8]
    """
    product = np.asarray(integers("maps", first) * integers("maps", second))
    return requantise(product, scale, shift, rounding, clip)
