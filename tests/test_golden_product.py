"""Products of two maps against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.golden.descriptors import Rounding
from thresher.golden.product import multiply

values = st.integers(-(1 << 15), (1 << 15) - 1)


@given(
    first=values,
    second=values,
    scale=st.integers(0, (1 << 31) - 1),
    shift=st.integers(0, 63),
)
def test_products_are_rounded_once(first: int, second: int, scale: int, shift: int) -> None:
    expected = math.floor(Fraction(first * second * scale, 1 << shift) + Fraction(1, 2))
    limits = -(1 << 15), (1 << 15) - 1
    rounding = Rounding.HALF_UP if shift else Rounding.HALF_EVEN
    result = multiply([first], [second], scale=scale, shift=shift, rounding=rounding, clip=limits)
    assert result == np.clip(expected, *limits)


def test_one_value_a_channel_multiplies_all_its_places() -> None:
    maps, factors = np.arange(12).reshape(1, 3, 2, 2), np.array([2, 0, -1]).reshape(1, 3, 1, 1)
    result = multiply(maps, factors, scale=1, shift=0, rounding=Rounding.HALF_UP)
    assert result[0].tolist() == [
        [[0, 2], [4, 6]], [[0, 0], [0, 0]], [[-8, -9], [-10, -11]]
    ]  # fmt: skip


def test_fractions_are_refused() -> None:
    with pytest.raises(TypeError, match="maps must be integers, not float64"):
        multiply([1], [0.5], scale=1, shift=1, rounding=Rounding.HALF_UP)
