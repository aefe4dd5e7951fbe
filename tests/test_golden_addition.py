"""Addition against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.golden.addition import add
from thresher.golden.descriptors import Rounding

values = st.integers(-(1 << 15), (1 << 15) - 1)


@given(
    plain=values,
    scaled=values,
    ratio=st.floats(0.01, 1.0),
    scale=st.integers(0, (1 << 31) - 1),
    shift=st.integers(0, 63),
)
def test_addition_rounds_its_operand_and_its_sum(
    plain: int, scaled: int, ratio: float, scale: int, shift: int
) -> None:
    operand_scale = int(ratio * (1 << 30))
    half = Fraction(1, 2)
    part = math.floor(Fraction(scaled * operand_scale, 1 << 10) + half)
    total = (plain << 19) + part
    expected = math.floor(Fraction(total * scale, 1 << shift) + half)
    result = add(
        [plain],
        [scaled],
        operand_scale=operand_scale,
        operand_shift=30,
        scale=scale,
        shift=shift,
        rounding=Rounding.HALF_UP,
        clip=(-(1 << 15), (1 << 15) - 1),
    )
    assert result == np.clip(expected, -(1 << 15), (1 << 15) - 1)


def test_an_operand_is_never_scaled_up() -> None:
    wrong = {"operand_scale": 5, "operand_shift": 2, "scale": 1, "shift": 19}
    with pytest.raises(ValueError, match=r"operand_scale must be at most 2\^operand_shift, not 5"):
        add([1], [1], **wrong, rounding=Rounding.HALF_UP)


def test_fractions_are_refused() -> None:
    fraction = {"operand_scale": 1, "operand_shift": 1, "scale": 1, "shift": 19}
    with pytest.raises(TypeError, match="maps must be integers, not float64"):
        add([1], [0.5], **fraction, rounding=Rounding.HALF_UP)
