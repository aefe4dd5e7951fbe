"""How the loops are compiled: by numba, with the machine code cached."""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np

__all__ = ["allocating", "compiled", "inlined", "u"]

_njit: Any = partial(numba.njit, cache=True, nogil=True, error_model="numpy")

allocating = _njit()
"""For functions that make arrays."""

# Without counts of references: each call of a function with a state of many arrays would count up
# and down for all of them, a fifth of the time.
compiled = _njit(_nrt=False)
"""For functions that make no array."""

inlined = _njit(_nrt=False, forceinline=True)
"""For those of many arguments that are called at one place: passing them takes time, too."""

u = np.uint64
"""Of an index, which is never negative: one that may be is counted from the end, by a test."""
