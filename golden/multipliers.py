"""Multipliers: what each kind computes, from its own definition.

A multiplier takes a *weight code*. ``EXACT`` and ``LUT`` take the two's complement weight. The
shift multipliers take one term (``SHIFT1``) or two (``SHIFT``), term 0 in the lowest bits; a term
is, from its lowest bit, ``[non_zero 1][negative 1][exponent]`` and stands for
``(-1)^negative * 2^exponent``. Code 0 is always weight 0.

Reference
---------
D. Miyashita, E. H. Lee, B. Murmann, "Convolutional Neural Networks using Logarithmic Data
Representation", arXiv:1603.01025, 2016 (weights as signed powers of two).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from thresher.golden.config import MultiplierKind
from thresher.golden.integers import integers_in

__all__ = [
    "codebook_products",
    "decode",
    "encode",
    "error_table",
    "multiply",
    "multiply_by_index",
    "represent",
    "representable",
]

Int64Array = npt.NDArray[np.int64]

_RADIX_BITS = 4
_LOWEST_DIGIT = -8  # of the signed top digit
_DIGITS = np.arange(_LOWEST_DIGIT, 16)
_PRODUCTS = _DIGITS[:, None] * _DIGITS  # every product of two digits, indexed from the lowest


def representable(kind: MultiplierKind, weight_bits: int) -> Int64Array:
    """Return all weights that a multiplier can stand for, in ascending order.

    Examples
    --------
    >>> representable(MultiplierKind.SHIFT1, 3).tolist()
    [-4, -2, -1, 0, 1, 2, 4]
    """
    kind = _checked(kind, weight_bits)
    terms = _terms(kind)
    if not terms:
        return np.arange(-(1 << weight_bits - 1), 1 << weight_bits - 1)
    powers = 1 << np.arange(weight_bits)
    values = single = np.concatenate([-powers, [0], powers])
    for _ in range(terms - 1):
        values = (values[:, None] + single).ravel()
    return np.unique(values)


def represent(weights: npt.ArrayLike, kind: MultiplierKind, weight_bits: int) -> Int64Array:
    """Return the weights as the multiplier sees them: the nearest that it can stand for.

    Parameters
    ----------
    weights
        Integers of ``weight_bits`` bits, of any shape. For the shift multipliers
        ``2^(weight_bits - 1)`` is allowed too, being the nearest to other weights.
    kind
        Kind of the multiplier.
    weight_bits
        Width of a weight, 2 to 9.

    Returns
    -------
    weights
        int64 array of the same shape. A tie goes to the smaller magnitude.

    Raises
    ------
    TypeError
        If ``weights`` is not of an integer type.
    ValueError
        If a weight is out of range.

    Examples
    --------
    >>> represent([-100, 0, 11, 12, 127], MultiplierKind.SHIFT, 8).tolist()
    [-96, 0, 10, 12, 127]
    >>> represent([-100, 0, 11, 12, 127], MultiplierKind.SHIFT1, 8).tolist()
    [-128, 0, 8, 8, 128]
    """
    kind = _checked(kind, weight_bits)
    half = 1 << weight_bits - 1
    array = integers_in("weights", weights, -half, half - 1 + bool(_terms(kind)))
    if not _terms(kind):
        return array
    values = representable(kind, weight_bits)
    magnitudes = values[values >= 0]
    above = magnitudes[np.searchsorted(magnitudes, np.abs(array))]
    below = magnitudes[np.searchsorted(magnitudes, np.abs(array), side="right") - 1]
    nearest = np.where(above - np.abs(array) < np.abs(array) - below, above, below)
    return np.asarray(np.sign(array) * nearest)


def encode(weights: npt.ArrayLike, kind: MultiplierKind, weight_bits: int) -> Int64Array:
    """Return the codes of the represented weights; of several, the smallest.

    Parameters and errors are those of :func:`represent`.

    Examples
    --------
    >>> encode([-1, 5], MultiplierKind.EXACT, 8).tolist()
    [255, 5]
    >>> [f"{code:010b}" for code in encode([0, -4, 5], MultiplierKind.SHIFT, 8).tolist()]
    ['0000000000', '0000001011', '0000101001']
    """
    seen = represent(weights, kind, weight_bits)
    if not _terms(kind):
        return seen & ((1 << weight_bits) - 1)
    values, codes = _code_table(MultiplierKind(kind), weight_bits)
    return np.asarray(codes[np.searchsorted(values, seen)])


def decode(codes: npt.ArrayLike, kind: MultiplierKind, weight_bits: int) -> Int64Array:
    """Return the weights that codes stand for.

    Raises
    ------
    TypeError
        If ``codes`` is not of an integer type.
    ValueError
        If a code is out of range or has an exponent of ``weight_bits`` or more.
    """
    kind = _checked(kind, weight_bits)
    if not _terms(kind):
        return _sign_extended(codes, weight_bits)
    total = np.zeros(np.shape(codes), dtype=np.int64)
    for non_zero, negative, exponent in _split(codes, kind, weight_bits):
        total += np.where(non_zero, np.where(negative, -1, 1) << exponent, 0)
    return total


def multiply(
    activations: npt.ArrayLike,
    codes: npt.ArrayLike,
    kind: MultiplierKind,
    weight_bits: int,
    activation_bits: int,
) -> Int64Array:
    """Return the products as the multiplier forms them.

    ``EXACT`` multiplies, ``SHIFT`` and ``SHIFT1`` add shifted activations, ``LUT`` cuts both
    operands into digits of radix 16, the top digit signed, and adds tabulated digit products.

    Parameters
    ----------
    activations
        Signed integers of ``activation_bits`` bits.
    codes
        Weight codes that broadcast with ``activations``.
    kind, weight_bits
        As for :func:`represent`.
    activation_bits
        Width of an activation, 4 to 16.

    Raises
    ------
    TypeError
        If an operand is not of an integer type.
    ValueError
        If an operand is out of its range.

    Examples
    --------
    >>> code = encode(-100, MultiplierKind.SHIFT, 8)  # seen as -128 + 32
    >>> multiply([3, -5], code, MultiplierKind.SHIFT, 8, 9).tolist()
    [-288, 480]
    """
    kind = _checked(kind, weight_bits)
    values = _activations(activations, activation_bits)
    if kind is MultiplierKind.EXACT:
        return np.asarray(values * _sign_extended(codes, weight_bits))
    if kind is MultiplierKind.LUT:
        weights = _sign_extended(codes, weight_bits)
        total = np.zeros(np.broadcast_shapes(values.shape, weights.shape), dtype=np.int64)
        for place, digit in enumerate(_digits(values, activation_bits)):
            for weight_place, weight_digit in enumerate(_digits(weights, weight_bits)):
                product = _PRODUCTS[digit - _LOWEST_DIGIT, weight_digit - _LOWEST_DIGIT]
                total += product << _RADIX_BITS * (place + weight_place)
        return total
    total = np.zeros(np.broadcast_shapes(values.shape, np.shape(codes)), dtype=np.int64)
    for non_zero, negative, exponent in _split(codes, kind, weight_bits):
        shifted = values << exponent
        total += np.where(non_zero, np.where(negative, -shifted, shifted), 0)
    return total


def codebook_products(codebook: npt.ArrayLike) -> Int64Array:
    """Return every codebook entry times every digit -8..15, of shape (entries, 24).

    Column ``digit + 8`` is that of a digit: 0..15 for lower digits, -8..7 for the top one.

    Examples
    --------
    >>> codebook_products([0, 7])[1, [0, 8, 23]].tolist()
    [-56, 0, 105]
    """
    return np.asarray(integers_in("codebook", codebook, -256, 256).reshape(-1, 1) * _DIGITS)


def multiply_by_index(
    activations: npt.ArrayLike, indices: npt.ArrayLike, products: Int64Array, activation_bits: int
) -> Int64Array:
    """Return activations times codebook entries, by a table of :func:`codebook_products` alone.

    Parameters
    ----------
    activations
        Signed integers of ``activation_bits`` bits.
    indices
        Codebook indices that broadcast with ``activations``.
    products
        The codebook's table.
    activation_bits
        Width of an activation, 4 to 16.

    Examples
    --------
    >>> multiply_by_index([100, -100], [1, 0], codebook_products([-3, 7]), 9).tolist()
    [700, 300]
    """
    values = _activations(activations, activation_bits)
    chosen = integers_in("indices", indices, 0, len(products) - 1)
    total = np.zeros(np.broadcast_shapes(values.shape, chosen.shape), dtype=np.int64)
    for place, digit in enumerate(_digits(values, activation_bits)):
        total += products[chosen, digit - _LOWEST_DIGIT] << _RADIX_BITS * place
    return total


def error_table(kind: MultiplierKind, weight_bits: int) -> Int64Array:
    """Return a row (weight, represented weight, error) for each weight, in ascending order.

    Examples
    --------
    >>> error_table(MultiplierKind.SHIFT1, 3)[-3:].tolist()
    [[1, 1, 0], [2, 2, 0], [3, 2, -1]]
    """
    weights = np.arange(-(1 << weight_bits - 1), 1 << weight_bits - 1)
    seen = represent(weights, kind, weight_bits)
    return np.stack([weights, seen, seen - weights], axis=1)


def _terms(kind: MultiplierKind) -> int:
    return {MultiplierKind.SHIFT: 2, MultiplierKind.SHIFT1: 1}.get(kind, 0)


def _checked(kind: MultiplierKind, weight_bits: int) -> MultiplierKind:
    if not 2 <= weight_bits <= 9:
        raise ValueError(f"weight_bits must be in 2..9, not {weight_bits!r}")
    return MultiplierKind(kind)


def _activations(values: npt.ArrayLike, bits: int) -> Int64Array:
    if not 4 <= bits <= 16:
        raise ValueError(f"activation_bits must be in 4..16, not {bits!r}")
    return integers_in("activations", values, -(1 << bits - 1), (1 << bits - 1) - 1)


def _sign_extended(codes: npt.ArrayLike, bits: int) -> Int64Array:
    values = integers_in("codes", codes, 0, (1 << bits) - 1)
    return np.asarray(values - ((values >> bits - 1) << bits))


def _digits(values: Int64Array, bits: int) -> list[Int64Array]:
    """Return the digits of radix 16, lowest first, the last one signed."""
    places = range(0, bits, _RADIX_BITS)
    lower = [(values >> place) & 15 for place in places[:-1]]
    return [*lower, np.asarray(values >> places[-1])]


def _split(
    codes: npt.ArrayLike, kind: MultiplierKind, weight_bits: int
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Int64Array]]:
    """Return (non_zero, negative, exponent) of each term, term 0 first."""
    exponent_bits = (weight_bits - 1).bit_length()
    term_bits = 2 + exponent_bits
    values = integers_in("codes", codes, 0, (1 << term_bits * _terms(kind)) - 1)
    terms = []
    for term in range(_terms(kind)):
        bits = values >> term * term_bits
        exponent = np.asarray((bits >> 2) & ((1 << exponent_bits) - 1))
        if exponent.size and exponent.max() >= weight_bits:
            raise ValueError(f"exponents must be below {weight_bits}, not {exponent.max()}")
        terms.append(((bits & 1) == 1, (bits & 2) == 2, exponent))
    return terms


@lru_cache
def _code_table(kind: MultiplierKind, weight_bits: int) -> tuple[Int64Array, Int64Array]:
    """Return the representable weights, ascending, and the smallest code of each."""
    exponent_bits = (weight_bits - 1).bit_length()
    term_bits = 2 + exponent_bits
    codes = np.arange(1 << term_bits * _terms(kind))
    for term in range(_terms(kind)):
        exponents = (codes >> term * term_bits + 2) & ((1 << exponent_bits) - 1)
        codes = codes[exponents < weight_bits]
    values, first = np.unique(decode(codes, kind, weight_bits), return_index=True)
    return values, codes[first]
