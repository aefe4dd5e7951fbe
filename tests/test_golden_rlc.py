"""Run-length coded activations: packing bit for bit, round trips, damaged rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.golden.codes.bits import CodeError
from thresher.golden.codes.rlc import (
    EYERISS,
    RLCFormat,
    best_run_bits,
    rlc_decode_map,
    rlc_decode_row,
    rlc_encode_map,
    rlc_encode_row,
    rlc_map_words,
)
from thresher.golden.descriptors import ErrorCode

LAST = 1 << 63
formats = st.builds(
    RLCFormat,
    run_bits=st.integers(1, 16),
    value_bits=st.integers(2, 16),
    word_bits=st.sampled_from([64, 128, 256]),
)


def encode_slowly(values: list[int], fmt: RLCFormat) -> list[int]:
    """The definition, pair after pair."""
    pairs, zeros = [], 0
    for value in values:
        if value == 0:
            zeros += 1
            continue
        while zeros > fmt.max_run:
            pairs.append((fmt.max_run, 0))
            zeros -= fmt.max_run + 1
        pairs.append((zeros, value))
        zeros = 0
    words = []
    for first in range(0, len(pairs), fmt.pairs):
        word = 0
        for p, (run, value) in enumerate(pairs[first : first + fmt.pairs]):
            field = run | (value & ((1 << fmt.value_bits) - 1)) << fmt.run_bits
            word |= field << p * fmt.pair_bits
        words.append(word)
    if words:
        words[-1] |= 1 << (fmt.word_bits - 1)
    return words


@st.composite
def sparse_rows(draw: st.DrawFn, fmt: RLCFormat) -> np.ndarray:
    rows, count = draw(st.integers(1, 5)), draw(st.integers(0, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    half = 1 << (fmt.value_bits - 1)
    density = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
    return rng.integers(-half, half, (rows, count)) * (rng.random((rows, count)) < density)


@given(st.data(), formats)
def test_rows_are_packed_as_defined_and_survive(data: st.DataObject, fmt: RLCFormat) -> None:
    rows = data.draw(sparse_rows(fmt))
    expected = []
    for row in rows:
        words = encode_slowly(row.tolist(), fmt)
        assert rlc_encode_row(row, fmt) == words
        assert np.array_equal(rlc_decode_row(words, row.size, fmt), row)
        expected += [len(words), *words]
    assert rlc_encode_map(rows, fmt) == expected
    assert rlc_map_words(rows, fmt) == len(expected)
    memory = [-1, -1, *expected, -1]
    assert np.array_equal(rlc_decode_map(memory, 2, *rows.shape, fmt), rows)


def test_the_preset_is_three_pairs_in_64_bits() -> None:
    assert (EYERISS.pairs, EYERISS.pair_bits, EYERISS.max_run) == (3, 21, 31)
    words = rlc_encode_row([0] * 40 + [5, -1, 9], EYERISS)
    assert words == [31 | (8 | 5 << 5) << 21 | (0xFFFF << 5) << 42, LAST | 9 << 5]


@pytest.mark.parametrize(
    ("words", "count", "message"),
    [
        ([2 | 1 << 5 | LAST], 2, "a value past the end of row 0, at word 0"),
        ([31 | LAST], 31, "zeros past the end of row 0, at word 0"),
        ([1 << 5], 4, "last bit missing on the final word of row 0, at word 0"),
        (
            [1 << 5 | LAST, 1 << 5 | LAST],
            9,
            "last bit set before the final word of row 0, at word 0",
        ),
        ([0, 1 << 5 | LAST], 3, "a value past the end of row 0, at word 1"),
    ],
)
def test_damaged_rows_are_refused(words: list[int], count: int, message: str) -> None:
    with pytest.raises(CodeError, match=message) as caught:
        rlc_decode_row(words, count, EYERISS)
    assert caught.value.code is ErrorCode.ROW_LENGTH


def test_damaged_maps_name_row_and_address() -> None:
    memory = rlc_encode_map([[1, 0, 0, 0], [0, 0, 0, 2]], EYERISS)
    assert len(memory) == 4
    with pytest.raises(CodeError, match="memory ends within row 1, at word 2"):
        rlc_decode_map(memory[:3], 0, 2, 4, EYERISS)
    with pytest.raises(CodeError, match="3 words of row 1, at most 2 expected, at word 2"):
        rlc_decode_map([*memory[:2], 3, *memory[3:], 0, 0], 0, 2, 4, EYERISS)
    with pytest.raises(CodeError, match="a value past the end of row 1, at word 3"):
        rlc_decode_map(memory, 0, 2, 3, EYERISS)


def test_pairs_of_value_zero_are_zeros_unless_they_end_the_row() -> None:
    word = 0 | (3 | 1 << 5) << 21 | LAST  # (0, 0), (3, 1), unused
    assert rlc_decode_row([word], 6, EYERISS).tolist() == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([40000], ValueError, "values must be in -32768..32767"),
        ([[1]], ValueError, r"must have shape \(n,\)"),
        ([0.5], TypeError, "must be integers"),
    ],
)
def test_bad_values_are_refused(values: list[int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rlc_encode_row(values, EYERISS)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.3, 0.9])
def test_best_run_width_is_the_smallest_by_encoding(density: float) -> None:
    rng = np.random.default_rng(7)
    maps = [
        rng.integers(1, 100, shape) * (rng.random(shape) < density) for shape in [(3, 700), (9, 64)]
    ]
    sizes = [
        sum(
            len(rlc_encode_map(rows, RLCFormat(run_bits=run_bits, value_bits=8, word_bits=64)))
            for rows in maps
        )
        for run_bits in range(1, 17)
    ]
    assert best_run_bits(maps, 8, 64) == 1 + int(np.argmin(sizes))
