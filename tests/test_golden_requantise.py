"""Requantisation against fractions, at every width and at exact halves."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thresher.golden.descriptors import Rounding
from thresher.golden.requantise import requantise

LOW, HIGH = -(1 << 63), (1 << 63) - 1
accs = st.integers(-(1 << 47), (1 << 47) - 1) | st.integers(-5, 5)
scales = st.integers(0, (1 << 31) - 1) | st.integers(0, 3)
shifts = st.integers(0, 63) | st.integers(0, 3)


def by_fraction(acc: int, scale: int, shift: int, rounding: Rounding) -> int:
    """The definition."""
    if rounding is Rounding.DOUBLE and shift > 31:
        once = by_fraction(acc, scale, 31, Rounding.HALF_UP)
        return by_fraction(once, 1, shift - 31, Rounding.HALF_AWAY)
    exact = Fraction(acc * scale, 1 << shift)
    if exact - math.floor(exact) != Fraction(1, 2):
        return math.floor(exact + Fraction(1, 2))
    match rounding:
        case Rounding.HALF_UP | Rounding.DOUBLE:
            return math.ceil(exact)
        case Rounding.HALF_AWAY:
            return math.ceil(exact) if exact > 0 else math.floor(exact)
        case Rounding.HALF_EVEN:
            return round(exact)


@given(accs, scales, shifts, st.sampled_from(Rounding))
@example(acc=-(1 << 47), scale=(1 << 31) - 1, shift=63, rounding=Rounding.HALF_EVEN)
@example(acc=(1 << 31) - 1, scale=(1 << 31) - 1, shift=63, rounding=Rounding.HALF_UP)
def test_a_value_is_rounded_as_a_fraction_is(
    acc: int, scale: int, shift: int, rounding: Rounding
) -> None:
    expected = min(max(by_fraction(acc, scale, shift, rounding), LOW), HIGH)
    assert int(requantise(acc, scale, shift, rounding, (LOW, HIGH))) == expected


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("offset", [0, 1 << 46])
def test_channels_have_their_own_scales(rounding: Rounding, offset: int) -> None:
    rng = np.random.default_rng(7)
    acc = rng.integers(-1000, 1000, size=(4, 3, 5, 2)) + offset
    scale, shift = np.array([1, 3, (1 << 31) - 1]), np.array([1, 0, 34])
    values = requantise(acc, scale[:, None, None], shift[:, None, None], rounding)
    assert values.dtype == np.int64
    assert values.shape == acc.shape
    for (n, c, y, x), value in np.ndenumerate(values):
        assert value == by_fraction(int(acc[n, c, y, x]), int(scale[c]), int(shift[c]), rounding)


@pytest.mark.parametrize("rounding", Rounding)
def test_every_small_half_is_rounded_right(rounding: Rounding) -> None:
    acc, shift = np.meshgrid(np.arange(-300, 300), np.arange(8))
    values = requantise(acc, 1, shift, rounding)
    for at, value in np.ndenumerate(values):
        assert value == by_fraction(int(acc[at]), 1, int(shift[at]), rounding)


def test_a_result_beyond_64_bits_is_refused_or_clipped() -> None:
    with pytest.raises(OverflowError, match="must fit 64 bits"):
        requantise((1 << 47) - 1, (1 << 31) - 1, 0, Rounding.HALF_UP)
    clipped = requantise((1 << 47) - 1, (1 << 31) - 1, 0, Rounding.HALF_UP, (0, 255))
    assert int(clipped) == 255


def test_nothing_is_as_good_as_something() -> None:
    assert requantise(np.zeros((0, 3), dtype=np.int64), 1, 1, Rounding.HALF_UP).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (1 << 47, 1, 1),
            r"acc must be in -140737488355328\.\.140737488355327, not 140737488355328",
        ),
        ((1, 1 << 31, 1), r"scale must be in 0\.\.2147483647, not 2147483648"),
        ((1, 1, 64), r"shift must be in 0\.\.63, not 64"),
        ((1, 1, -1), r"shift must be in 0\.\.63, not -1"),
    ],
)
def test_operands_out_of_range_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requantise(*arguments, Rounding.HALF_UP)


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="acc must be integers, not float64"):
        requantise([1.0], 1, 1, Rounding.HALF_UP)
