"""Requantisation: from accumulators back to activations, exactly.

``round(acc * scale / 2**shift)`` on integers. The rounding modes differ for exact halves only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.integers import integers_in

__all__ = ["requantise"]

Int64Array = npt.NDArray[np.int64]

_DOUBLE_SHIFT = 31  # where double rounding rounds first


def requantise(
    acc: npt.ArrayLike,
    scale: npt.ArrayLike,
    shift: npt.ArrayLike,
    rounding: Rounding,
    clip: tuple[int, int] | None = None,
) -> Int64Array:
    """Return ``round(acc * scale / 2**shift)``, then clipped if ``clip`` is given.

    ``DOUBLE`` is TFLite's ``MultiplyByQuantizedMultiplier`` (its reference kernels, with a
    ``SaturatingRoundingDoublingHighMul`` and a ``RoundingDivideByPOT``).

    Parameters
    ----------
    acc
        Integers of up to 48 bits, signed.
    scale, shift
        Integers in 0..2^31-1 and in 0..63 that broadcast with ``acc``, so that one of each a
        channel is given with shape ``(channels, 1, 1)`` beside ``(n, channels, height, width)``.
    rounding
        What becomes of an exact half.
    clip
        Least and greatest result.

    Returns
    -------
    values
        int64 array of the broadcast shape.

    Raises
    ------
    TypeError
        If an operand is not of an integer type.
    ValueError
        If an operand is out of its range.
    OverflowError
        If a result that is not clipped does not fit 64 bits.

    Examples
    --------
    >>> requantise([5, -5, 6, -6], 1, 1, Rounding.HALF_UP).tolist()
    [3, -2, 3, -3]
    >>> requantise([5, -5, 6, -6], 1, 1, Rounding.HALF_AWAY).tolist()
    [3, -3, 3, -3]
    >>> requantise([5, -5, 6, -6], 1, 1, Rounding.HALF_EVEN).tolist()
    [2, -2, 3, -3]
    >>> requantise([5, -5, 6, -6], 1 << 30, 31, Rounding.DOUBLE).tolist()
    [3, -2, 3, -3]
    >>> requantise([5, -5, 7, -7], 1 << 30, 32, Rounding.DOUBLE).tolist()  # 3, -2; 4, -3 halved
    [2, -1, 2, -2]
    """
    accs = integers_in("acc", acc, -(1 << 47), (1 << 47) - 1)
    scales = integers_in("scale", scale, 0, (1 << 31) - 1)
    shifts = integers_in("shift", shift, 0, 63)
    shape = np.broadcast_shapes(accs.shape, scales.shape, shifts.shape)
    if accs.size == 0:
        return np.zeros(shape, dtype=np.int64)
    accs = np.atleast_1d(accs)  # an operation on an object of no dimensions gives no array

    # The sum of product and addend must stay below 2^63; the addend is at most 2^62.
    greatest = max(-int(accs.min()), int(accs.max())) * int(scales.max())
    values = (
        _round(accs * scales, shifts, Rounding(rounding))
        if greatest < 1 << 62
        else _round(accs.astype(object) * scales, shifts.astype(object), Rounding(rounding))
    )
    if clip is not None:
        values = np.clip(values, clip[0], clip[1])
    if values.dtype == object:
        least, most = min(values.flat), max(values.flat)
        if least < -(1 << 63) or most >= 1 << 63:
            raise OverflowError(f"a result must fit 64 bits, not reach {least}..{most}")
    return np.asarray(values.astype(np.int64).reshape(shape))


def _round(products: npt.NDArray, shifts: npt.NDArray, rounding: Rounding) -> npt.NDArray:
    """Return ``round(products / 2**shifts)``; ``products`` are overwritten."""
    half = np.where(shifts == 0, 0, np.ones_like(shifts) << np.maximum(shifts - 1, 0))
    match rounding:
        case Rounding.HALF_UP:
            products += half
        case Rounding.HALF_AWAY:
            # Below zero, a half goes down: just miss it.
            products -= (products < 0) & (half > 0)
            products += half
        case Rounding.HALF_EVEN:
            products += half
            values = np.asarray(products >> shifts)
            # A half was rounded up: the bits shifted out are all 0 after the addend.
            is_half = ((values << shifts) == products) & (half > 0)
            return np.asarray(values - (is_half & (values % 2 == 1)))
        case Rounding.DOUBLE:
            first = np.minimum(shifts, _DOUBLE_SHIFT)
            once = _round(products, first, Rounding.HALF_UP)
            return _round(once, shifts - first, Rounding.HALF_AWAY)
    products >>= shifts
    return products
