"""Checks of integer arrays, which all golden functions take."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["integers", "integers_in"]

Int64Array = npt.NDArray[np.int64]


def integers(name: str, values: npt.ArrayLike) -> Int64Array:
    """Return values as int64; without any value, of whatever type, too.

    Raises
    ------
    TypeError
        If they are not of an integer type.

    Examples
    --------
    >>> integers("taps", [1.5])
    Traceback (most recent call last):
    TypeError: taps must be integers, not float64
    """
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    return array.astype(np.int64)


def integers_in(name: str, values: npt.ArrayLike, low: int, high: int) -> Int64Array:
    """Return values as int64, if all are in ``low..high``.

    Raises
    ------
    TypeError
        If they are not of an integer type.
    ValueError
        If one is out of range; the message has it.

    Examples
    --------
    >>> integers_in("taps", [3, 300], 0, 255)
    Traceback (most recent call last):
    ValueError: taps must be in 0..255, not 300
    """
    array = np.asarray(values)
    checked = integers(name, array)
    for value in (int(array.min()), int(array.max())) if array.size else ():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in {low}..{high}, not {value}")
    return checked
