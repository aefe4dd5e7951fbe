"""Huffman codes: optimal, canonical, invertible, and safe on damaged streams."""

from __future__ import annotations

import collections
import itertools
import math

import huffman
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.golden.codes.bits import BitReader, BitWriter, CodeError, pack_fields
from thresher.golden.codes.huffman import (
    canonical_codes,
    code_lengths,
    coded_bits,
    entropy_bits,
    huffman_decode,
    huffman_encode,
)
from thresher.golden.descriptors import ErrorCode

frequency_lists = st.lists(st.integers(0, 1000), max_size=64)


def kraft(lengths: np.ndarray) -> float:
    return float((0.5 ** lengths[lengths > 0]).sum())


def least_cost(frequencies: list[int], limit: int) -> int:
    """Least size over all lengths that satisfy Kraft's inequality, by trying them."""
    used = [f for f in frequencies if f]
    return min(
        sum(f * n for f, n in zip(used, lengths, strict=True))
        for lengths in itertools.product(range(1, limit + 1), repeat=len(used))
        if sum(2 ** (limit - n) for n in lengths) <= 2**limit
    )


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_without_a_binding_limit_the_size_is_that_of_a_plain_huffman_code(
    frequencies: list[int],
) -> None:
    book = huffman.codebook(enumerate(frequencies))
    plain = sum(f * len(book[symbol]) for symbol, f in enumerate(frequencies))
    if max(len(code) for code in book.values()) <= 15:
        assert coded_bits(frequencies, code_lengths(frequencies, 15)) == plain


@settings(max_examples=40)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=6), st.integers(3, 4))
def test_with_a_binding_limit_no_other_lengths_are_smaller(
    frequencies: list[int], limit: int
) -> None:
    if np.count_nonzero(frequencies) >= 2:
        lengths = code_lengths(frequencies, limit)
        assert lengths.max() <= limit
        assert coded_bits(frequencies, lengths) == least_cost(frequencies, limit)


def test_the_limit_binds_for_fibonacci_frequencies() -> None:
    frequencies = [1, 1]
    while len(frequencies) < 24:
        frequencies.append(frequencies[-1] + frequencies[-2])
    sizes = []
    for limit in range(5, 16):
        lengths = code_lengths(frequencies, limit)
        assert lengths.max() == limit
        assert kraft(lengths) == 1
        sizes.append(coded_bits(frequencies, lengths))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[-1] > entropy_bits(frequencies)


@given(frequency_lists, st.integers(6, 15))
def test_lengths_fill_the_code_space(frequencies: list[int], limit: int) -> None:
    lengths = code_lengths(frequencies, limit)
    used = np.asarray(frequencies, dtype=np.int64) > 0
    assert np.array_equal(lengths > 0, used)
    match used.sum():
        case 0:
            pass
        case 1:
            assert lengths.max() == 1
        case _:
            assert kraft(lengths) == 1
            total = int(np.sum(frequencies))
            size = coded_bits(frequencies, lengths)
            assert entropy_bits(frequencies) <= size + 1e-6
            if limit >= 12:
                assert size < entropy_bits(frequencies) + total


def test_more_symbols_than_codes_are_refused() -> None:
    assert code_lengths([1] * 16, 4).tolist() == [4] * 16
    with pytest.raises(ValueError, match="17 symbols do not fit codes of 4 bits"):
        code_lengths([1] * 17, 4)


@pytest.mark.parametrize(
    ("frequencies", "limit", "error", "message"),
    [
        ([1, 2], 0, ValueError, "limit must be in 1..15, not 0"),
        ([1, 2], 16, ValueError, "limit must be in 1..15, not 16"),
        ([1, -2], 8, ValueError, "must not be negative"),
        ([[1, 2]], 8, ValueError, "must have shape"),
        ([1.0, 2.0], 8, TypeError, "must be integers"),
    ],
)
def test_bad_frequencies_are_refused(
    frequencies: list[int], limit: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        code_lengths(frequencies, limit)


@given(frequency_lists)
def test_codes_are_canonical_and_free_of_prefixes(frequencies: list[int]) -> None:
    lengths = code_lengths(frequencies, 15)
    codes = canonical_codes(lengths)
    book = sorted((int(n), s, int(codes[s])) for s, n in enumerate(lengths) if n)
    words = [f"{code:0{n}b}" for n, _, code in book]
    assert words == sorted(words)
    assert all(not later.startswith(word) for word, later in itertools.pairwise(words))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 1, 1], "more codes than"),
        ([0, 3, 0], "only symbol must be 1, not 3"),
        ([16, 1], "must be in 0..15"),
    ],
)
def test_impossible_lengths_are_refused(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical_codes(lengths)


@given(st.data())
def test_symbols_survive(data: st.DataObject) -> None:
    symbols = data.draw(st.lists(st.integers(0, 30), max_size=200))
    lengths = code_lengths(np.bincount(symbols, minlength=31).astype(np.int64), 6)
    coded = huffman_encode(symbols, lengths)
    assert huffman_decode(coded, len(symbols), lengths).tolist() == symbols
    frequencies = list(collections.Counter(symbols).values())
    assert len(coded) == math.ceil(coded_bits(frequencies, code_lengths(frequencies, 6)) / 8)


def test_many_symbols_survive_block_boundaries() -> None:
    symbols = np.random.default_rng(3).geometric(0.3, 200_000).clip(1, 40)
    lengths = code_lengths(np.bincount(symbols), 15)
    coded = huffman_encode(symbols, lengths)
    assert np.array_equal(huffman_decode(coded, symbols.size, lengths), symbols)


def test_an_only_symbol_costs_no_bits() -> None:
    lengths = code_lengths([0, 0, 9], 8)
    assert lengths.tolist() == [0, 0, 1]
    assert huffman_encode([2] * 9, lengths) == b""
    assert huffman_decode(b"", 9, lengths).tolist() == [2] * 9


def test_symbols_without_a_code_are_refused() -> None:
    with pytest.raises(ValueError, match="symbol 1 has no code"):
        huffman_encode([0, 1], [1, 0, 1])
    with pytest.raises(ValueError, match=r"symbols must be in 0\.\.2"):
        huffman_encode([3], [1, 0, 1])


@pytest.mark.parametrize(
    ("data", "lengths", "code", "position"),
    [
        ("d0", [2, 2, 0, 2], ErrorCode.CODE_UNUSED, 0),
        ("2c", [2, 2, 2], ErrorCode.CODE_UNUSED, 4),  # 00 10 11
        ("", [1, 1], ErrorCode.STREAM_SHORT, 0),
        ("ff", [1, 2, 3, 3], ErrorCode.STREAM_SHORT, 6),  # 111 111 11
        ("00", [0, 0], ErrorCode.CODE_UNUSED, 0),
    ],
)
def test_damaged_streams_name_reason_and_place(
    data: str, lengths: list[int], code: ErrorCode, position: int
) -> None:
    with pytest.raises(CodeError, match=f"at bit {position}$") as caught:
        huffman_decode(bytes.fromhex(data), 9, lengths)
    assert (caught.value.code, caught.value.position) == (code, position)


@given(st.binary(max_size=40), st.lists(st.integers(0, 5), max_size=8), st.integers(0, 80))
def test_any_bits_give_symbols_or_an_error(data: bytes, lengths: list[int], count: int) -> None:
    try:
        symbols = huffman_decode(data, count, lengths)
    except ValueError:
        return
    assert symbols.size == count
    taken = coded_bits(np.bincount(symbols, minlength=len(lengths)), lengths)
    bits = "".join(f"{byte:08b}" for byte in data)
    again = "".join(f"{byte:08b}" for byte in huffman_encode(symbols, lengths))
    assert taken <= len(bits)
    assert bits[:taken] == again[:taken]


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 2**63 - 1)), max_size=40))
def test_fields_are_packed_as_their_binary_numerals(fields: list[tuple[int, int]]) -> None:
    fields = [(width, value & ((1 << width) - 1)) for width, value in fields]
    text = "".join(f"{value:0{width}b}" for width, value in fields if width)
    widths = [width for width, _ in fields]
    packed = pack_fields([value for _, value in fields], widths)
    assert len(packed) == math.ceil(len(text) / 8)
    assert "".join(f"{byte:08b}" for byte in packed)[: len(text)] == text

    reader = BitReader(packed)
    assert [reader.read(width) for width in widths] == [value for _, value in fields]


@pytest.mark.parametrize(("value", "width"), [(8, 3), (-5, 3), (1, 0), (-1, 0), (1 << 62, 62)])
def test_numbers_that_do_not_fit_are_refused(value: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"does not fit {width} bits"):
        pack_fields([value], [width])


def test_writer_fills_whole_words_and_reader_reads_signed_numbers() -> None:
    writer = BitWriter()
    writer.write(1, 1)
    writer.write_many([-4, 3, -1], 3)
    data = writer.to_bytes(word_bits=64)
    assert (len(writer), len(data), BitWriter().to_bytes(64)) == (10, 8, b"")
    reader = BitReader(data, position=1)
    assert reader.read_many(3, 3, signed=True).tolist() == [-4, 3, -1]
    assert reader.read_many(0, 8).tolist() == []
    with pytest.raises(CodeError, match="ends after 54 of 55 bits, at bit 10"):
        reader.read(55)
    with pytest.raises(CodeError, match="ends after 54 of 60 bits"):
        reader.read_many(6, 10)
