"""Multipliers: every kind equals its golden definition, for all operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from thresher.golden.config import Config, MultiplierKind
from thresher.golden.multipliers import decode, encode, multiply
from thresher.hw.array.multipliers import (
    ExactMultiplier,
    LUTMultiplier,
    Multiplier,
    ShiftMultiplier,
    make_multiplier,
)

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext


def products_of(
    dut: Multiplier, activations: list[int], codes: list[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return ``dut``'s product of each pair, of shape (codes, activations)."""
    found: list[list[int]] = []

    async def testbench(ctx: SimulatorContext) -> None:
        for code in codes:
            ctx.set(dut.code, code)
            row = []
            for activation in activations:
                ctx.set(dut.activation, activation)
                row.append(ctx.get(dut.product))
            found.append(row)

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
    return np.array(found, dtype=np.int64)


@pytest.mark.parametrize("kind", list(MultiplierKind))
@pytest.mark.parametrize(("activation_bits", "weight_bits"), [(4, 2), (5, 9), (7, 5)])
def test_every_product_equals_golden(
    kind: MultiplierKind, activation_bits: int, weight_bits: int
) -> None:
    config = Config(multiplier=kind, activation_bits=activation_bits, weight_bits=weight_bits)
    activations = list(range(-(1 << activation_bits - 1), 1 << activation_bits - 1))
    weights = np.arange(-(1 << weight_bits - 1), 1 << weight_bits - 1)
    codes = np.unique(encode(weights, kind, weight_bits))
    actual = products_of(make_multiplier(config), activations, codes.tolist())
    expected = multiply(activations, codes[:, None], kind, weight_bits, activation_bits)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", list(MultiplierKind))
def test_every_code_and_activation_of_the_default_widths(kind: MultiplierKind) -> None:
    config = Config(multiplier=kind)
    weights = np.arange(-128, 128)
    codes = np.unique(encode(weights, kind, 8))
    activations = list(range(-256, 256))
    actual = products_of(make_multiplier(config), activations, codes.tolist())
    np.testing.assert_array_equal(actual, multiply(activations, codes[:, None], kind, 8, 9))


def test_every_code_of_two_terms_not_only_the_smallest_of_a_weight() -> None:
    kind = MultiplierKind.SHIFT
    config = Config(multiplier=kind, activation_bits=6, weight_bits=4)
    codes = np.arange(1 << config.weight_code_bits)
    weights = decode(codes, kind, 4)
    codes = codes[np.abs(weights) <= 8]
    activations = [*range(-32, 32, 3), 31]
    actual = products_of(make_multiplier(config), activations, codes.tolist())
    np.testing.assert_array_equal(actual, multiply(activations, codes[:, None], kind, 4, 6))


@pytest.mark.parametrize("kind", list(MultiplierKind))
@pytest.mark.parametrize("bits", [(9, 8), (16, 9)])
def test_code_zero_gives_zero(kind: MultiplierKind, bits: tuple[int, int]) -> None:
    config = Config(multiplier=kind, activation_bits=bits[0], weight_bits=bits[1])
    extremes = [-(1 << bits[0] - 1), -1, 0, 1, (1 << bits[0] - 1) - 1]
    assert not products_of(make_multiplier(config), extremes, [0]).any()


@pytest.mark.parametrize("kind", list(MultiplierKind))
def test_extreme_operands_of_the_widest_multipliers(kind: MultiplierKind) -> None:
    config = Config(multiplier=kind, activation_bits=16, weight_bits=9)
    extremes = [-32768, -1, 0, 1, 32767, 0x5A5A, -0x5A5A]
    codes = np.unique(encode([-256, -255, -1, 0, 1, 254, 255], kind, 9))
    actual = products_of(make_multiplier(config), extremes, codes.tolist())
    np.testing.assert_array_equal(actual, multiply(extremes, codes[:, None], kind, 9, 16))


def test_the_kind_chooses_the_class() -> None:
    classes = {
        MultiplierKind.EXACT: ExactMultiplier,
        MultiplierKind.SHIFT: ShiftMultiplier,
        MultiplierKind.SHIFT1: ShiftMultiplier,
        MultiplierKind.LUT: LUTMultiplier,
    }
    for kind, expected in classes.items():
        multiplier = make_multiplier(Config(multiplier=kind))
        Fragment.get(multiplier, None)  # elaborates, as amaranth wants of all that is made
        assert type(multiplier) is expected
