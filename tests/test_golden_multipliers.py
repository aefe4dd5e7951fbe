"""Multipliers: each kind against the definition of its codes, over all operands."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from thresher.golden.config import Config, MultiplierKind
from thresher.golden.multipliers import (
    codebook_products,
    decode,
    encode,
    error_table,
    multiply,
    multiply_by_index,
    represent,
    representable,
)

KINDS = list(MultiplierKind)
SHIFTS = [MultiplierKind.SHIFT, MultiplierKind.SHIFT1]
WIDTHS = range(2, 10)


def all_weights(bits: int) -> np.ndarray:
    return np.arange(-(1 << bits - 1), 1 << bits - 1)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", SHIFTS)
def test_the_nearest_weight_is_found_by_trying_all(kind: MultiplierKind, bits: int) -> None:
    terms = [0] + [sign << exponent for sign in (1, -1) for exponent in range(bits)]
    sums = {sum(pair) for pair in itertools.product(terms, repeat=2 - SHIFTS.index(kind))}
    assert representable(kind, bits).tolist() == sorted(sums)
    for weight, seen, _ in error_table(kind, bits):
        assert seen == min(sums, key=lambda value: (abs(value - weight), abs(value)))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_stand_for_represented_weights(kind: MultiplierKind, bits: int) -> None:
    codes = encode(all_weights(bits), kind, bits)
    seen = represent(all_weights(bits), kind, bits)
    assert np.array_equal(decode(codes, kind, bits), seen)
    assert np.array_equal(represent(seen, kind, bits), seen)
    assert np.array_equal(encode(seen, kind, bits), codes)
    assert codes.min() == 0
    assert codes.max() < 1 << Config(multiplier=kind, weight_bits=bits).weight_code_bits
    assert decode(0, kind, bits) == 0


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", SHIFTS)
def test_the_width_of_a_weight_that_fits_does_not_matter(kind: MultiplierKind, bits: int) -> None:
    weights = all_weights(bits)
    assert np.array_equal(represent(weights, kind, bits), represent(weights, kind, 9))


@pytest.mark.parametrize(("bits", "activation_bits"), [(2, 4), (5, 7), (8, 9), (9, 9), (4, 16)])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_represented_weights(
    kind: MultiplierKind, bits: int, activation_bits: int
) -> None:
    rng = np.random.default_rng(activation_bits)
    half = 1 << activation_bits - 1
    activations = np.unique([-half, half - 1, -1, 0, 1, *rng.integers(-half, half, size=300)])
    codes = encode(all_weights(bits), kind, bits)
    products = multiply(activations[:, None], codes, kind, bits, activation_bits)
    seen = represent(all_weights(bits), kind, bits)
    assert np.array_equal(products, activations[:, None] * seen)
    limit = 1 << activation_bits + bits - 1
    assert -limit <= products.min() <= products.max() < limit


def test_a_term_without_its_non_zero_bit_is_zero() -> None:
    assert decode([0b00110, 0b11110], MultiplierKind.SHIFT1, 8).tolist() == [0, 0]
    product = multiply(7, [0b00110, 0b00111], MultiplierKind.SHIFT1, 8, 9)
    assert product.tolist() == [0, -14]


def test_a_codebooks_products_give_the_product() -> None:
    codebook = all_weights(8)
    activations = all_weights(9)[:, None]
    products = codebook_products(codebook)
    assert products.shape == (256, 24)
    by_table = multiply_by_index(activations, np.arange(256), products, 9)
    assert np.array_equal(by_table, activations * codebook)


def test_errors_of_two_terms_are_small() -> None:
    exact = error_table(MultiplierKind.EXACT, 8)
    two = error_table(MultiplierKind.SHIFT, 8)
    one = error_table(MultiplierKind.SHIFT1, 8)
    assert not exact[:, 2].any()
    for table in (two, one):
        assert np.array_equal(table[:, 0], all_weights(8))
        assert np.array_equal(table[:, 1] - table[:, 0], table[:, 2])
    assert np.abs(two[:, 2]).max() == 8
    assert np.abs(one[:, 2]).max() == 32


def test_bad_operands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights must be in -128\.\.127, not 128"):
        represent([128], MultiplierKind.EXACT, 8)
    with pytest.raises(TypeError, match="weights must be integers, not float64"):
        represent([1.5], MultiplierKind.SHIFT, 8)
    with pytest.raises(ValueError, match=r"weight_bits must be in 2\.\.9, not 10"):
        encode([1], MultiplierKind.LUT, 10)
    with pytest.raises(ValueError, match=r"activations must be in -256\.\.255, not 256"):
        multiply([256], [0], MultiplierKind.EXACT, 8, 9)
    with pytest.raises(ValueError, match=r"activation_bits must be in 4\.\.16, not 3"):
        multiply([0], [0], MultiplierKind.EXACT, 8, 3)
    with pytest.raises(ValueError, match="exponents must be below 5, not 7"):
        decode([0b11101], MultiplierKind.SHIFT1, 5)
