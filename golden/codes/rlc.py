"""Run-length code of activations: (zero run, value) pairs packed into memory words.

Zeros at a row's end are not coded. A run too long for its field is continued by a pair
``(max_run, 0)``, which stands for ``max_run + 1`` zeros. ``docs/interfaces.md`` gives the bits.

Reference
---------
Y.-H. Chen, T. Krishna, J. S. Emer, V. Sze, "Eyeriss: An Energy-Efficient Reconfigurable
Accelerator for Deep Convolutional Neural Networks", IEEE JSSC 52(1), 2017 (5-bit runs, 16-bit
values, three pairs and a bit for the last word in 64 bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import CodeError
from thresher.golden.descriptors import ErrorCode
from thresher.golden.integers import integers_in

__all__ = [
    "EYERISS",
    "RLCFormat",
    "best_run_bits",
    "rlc_decode_map",
    "rlc_decode_row",
    "rlc_encode_map",
    "rlc_encode_row",
    "rlc_map_words",
]

Int64Array = npt.NDArray[np.int64]

HEADER_BITS = 20  # a header counts the words of its row


@dataclass(frozen=True, kw_only=True)
class RLCFormat:
    """Widths of an activation word; the one place where they are checked.

    Parameters
    ----------
    run_bits
        Bits of the unsigned run field, 1 to 16.
    value_bits
        Bits of the two's complement value field, 2 to 16.
    word_bits
        Bits of a word. Pair ``p`` occupies bits ``p * pair_bits`` upward, run lowest; the most
        significant bit of the word is ``last``.
    """

    run_bits: int = 5
    value_bits: int = 16
    word_bits: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.run_bits <= 16:
            raise ValueError(f"run_bits must be in 1..16, not {self.run_bits!r}")
        if not 2 <= self.value_bits <= 16:
            raise ValueError(f"value_bits must be in 2..16, not {self.value_bits!r}")
        if self.word_bits not in {64, 128, 256}:
            raise ValueError(f"word_bits must be 64, 128 or 256, not {self.word_bits!r}")

    @property
    def pair_bits(self) -> int:
        """Bits of one pair."""
        return self.run_bits + self.value_bits

    @property
    def pairs(self) -> int:
        """Pairs in a word."""
        return (self.word_bits - 1) // self.pair_bits

    @property
    def max_run(self) -> int:
        """Largest number of zeros that one pair carries before its value."""
        return (1 << self.run_bits) - 1

    @property
    def limbs(self) -> int:
        """64-bit parts of a word."""
        return self.word_bits // 64


EYERISS = RLCFormat(run_bits=5, value_bits=16, word_bits=64)


class Words(Protocol):
    """Anything that gives memory words by their address."""

    def __getitem__(self, address: int, /) -> int: ...


def _checked_rows(rows: npt.ArrayLike, fmt: RLCFormat) -> Int64Array:
    high = 1 << (fmt.value_bits - 1)
    array = integers_in("values", rows, -high, high - 1)
    if array.ndim != 2:
        raise ValueError(f"rows must have shape (rows, n), not {array.shape}")
    return array


def _runs(rows: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return row, zeros before it in its row, and value of each value that is not zero."""
    row, column = np.nonzero(rows)
    before = np.concatenate([[-1], column[:-1]])
    before[np.diff(row, prepend=-1) > 0] = -1
    return row, column - before - 1, rows[row, column]


def _words_by_row(row: Int64Array, runs: Int64Array, rows: int, fmt: RLCFormat) -> Int64Array:
    pairs = np.bincount(row, runs // (fmt.max_run + 1) + 1, minlength=rows).astype(np.int64)
    return -(-pairs // fmt.pairs)


def _pack(rows: Int64Array, fmt: RLCFormat) -> list[int]:
    """Encode rows, each behind a header word."""
    row, runs, values = _runs(rows)
    continued, rest = np.divmod(runs, fmt.max_run + 1)
    at = np.cumsum(continued + 1) - 1
    total = int(at[-1]) + 1 if at.size else 0
    pair = np.full(total, fmt.max_run, dtype=np.uint64)
    pair[at] = rest | (values & ((1 << fmt.value_bits) - 1)) << fmt.run_bits

    # Pair k of a row goes to slot k % pairs of the row's word k // pairs.
    row_of_pair = np.repeat(row, continued + 1)
    first = np.searchsorted(row_of_pair, np.arange(len(rows)))
    word, slot = np.divmod(np.arange(total) - first[row_of_pair], fmt.pairs)
    lengths = _words_by_row(row, runs, len(rows), fmt)
    headers = np.cumsum(lengths + 1) - lengths - 1
    word += headers[row_of_pair] + 1

    limbs = np.zeros((int(lengths.sum()) + len(rows), fmt.limbs), dtype=np.uint64)
    for p in range(fmt.pairs):
        limb, shift = divmod(p * fmt.pair_bits, 64)
        here = slot == p
        limbs[word[here], limb] |= pair[here] << np.uint64(shift)
        if shift + fmt.pair_bits > 64:
            limbs[word[here], limb + 1] |= pair[here] >> np.uint64(64 - shift)
    finals = (headers + lengths)[lengths > 0]
    limbs[finals, -1] |= np.uint64(1 << 63)
    limbs[headers, 0] = lengths
    words: list[int] = limbs[:, -1].tolist()
    for limb in range(fmt.limbs - 2, -1, -1):
        words = [high << 64 | low for high, low in zip(words, limbs[:, limb].tolist(), strict=True)]
    return words


def _unpack(
    words: list[int], lengths: Int64Array, count: int, fmt: RLCFormat, addresses: Int64Array
) -> Int64Array:
    """Decode the words of several rows, headers removed; ``addresses`` serve messages."""
    rows = np.zeros((lengths.size, count), dtype=np.int64)
    if not words:
        return rows
    size = fmt.word_bits // 8
    data = b"".join(word.to_bytes(size, "little") for word in words)
    limbs = np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(-1, fmt.limbs)
    row = np.repeat(np.arange(lengths.size), lengths)
    final = np.diff(row, append=lengths.size) > 0
    last = limbs[:, -1] >> np.uint64(63) == 1

    pair = np.zeros((len(words), fmt.pairs), dtype=np.uint64)
    for p in range(fmt.pairs):
        limb, shift = divmod(p * fmt.pair_bits, 64)
        pair[:, p] = limbs[:, limb] >> np.uint64(shift)
        if shift + fmt.pair_bits > 64:
            pair[:, p] |= limbs[:, limb + 1] << np.uint64(64 - shift)
    pairs = (pair & np.uint64((1 << fmt.pair_bits) - 1)).astype(np.int64)
    sign = np.int64(1) << (fmt.value_bits - 1)
    values = (pairs >> fmt.run_bits ^ sign) - sign

    # The last word's unused pairs are those of zeros up to its end; they stand for nothing.
    unused = np.logical_and.accumulate(pairs[:, ::-1] == 0, axis=1)[:, ::-1] & final[:, None]
    steps = np.where(unused, 0, (pairs & fmt.max_run) + 1)
    ends = np.cumsum(steps.ravel()).reshape(steps.shape)
    before = np.concatenate([[0], ends[:-1, -1]])
    ends -= before[np.searchsorted(row, row)][:, None]

    past = (ends > count) & ~unused
    faults = np.flatnonzero(past.any(axis=1) | (last != final))
    if faults.size:
        k = int(faults[0])
        where = f"of row {row[k]}"
        if past[k].any():
            beyond = values[k][past[k]].any()
            reason = f"a value past the end {where}" if beyond else f"zeros past the end {where}"
        elif last[k]:
            reason = f"last bit set before the final word {where}"
        else:
            reason = f"last bit missing on the final word {where}"
        raise _row_error(reason, int(addresses[k]))
    hits = values != 0
    rows[np.broadcast_to(row[:, None], hits.shape)[hits], ends[hits] - 1] = values[hits]
    return rows


def _row_error(reason: str, address: int) -> CodeError:
    return CodeError(reason, address, ErrorCode.ROW_LENGTH, unit="word")


def rlc_encode_row(values: npt.ArrayLike, fmt: RLCFormat) -> list[int]:
    """Encode one row, without its header.

    Parameters
    ----------
    values
        Integers of shape ``(n,)`` that fit ``fmt.value_bits``.
    fmt
        Widths.

    Returns
    -------
    words
        None for a row of zeros; the code is canonical, every row has exactly one.

    Raises
    ------
    TypeError
        If the values are not integers.
    ValueError
        If the shape is another or a value does not fit.

    Examples
    --------
    >>> [hex(word) for word in rlc_encode_row([0, 0, 7, 0, -1, 0], EYERISS)]
    ['0x800003fffc2000e2']
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"values must have shape (n,), not {array.shape}")
    return _pack(_checked_rows(array[None], fmt), fmt)[1:]


def rlc_decode_row(words: Sequence[int], count: int, fmt: RLCFormat) -> Int64Array:
    """Decode one row, without its header.

    Parameters
    ----------
    words
        All words of the row.
    count
        Values of the row.
    fmt
        Widths.

    Returns
    -------
    values
        int64 of shape ``(count,)``.

    Raises
    ------
    CodeError
        If the ``last`` bit is not on the final word alone, or a pair goes past the row's end; its
        position is the faulty word's index.

    Examples
    --------
    >>> rlc_decode_row([0x800003FFFC2000E2], 6, EYERISS).tolist()
    [0, 0, 7, 0, -1, 0]
    """
    row: Int64Array = _unpack(
        list(words), np.array([len(words)]), count, fmt, np.arange(len(words))
    )[0]
    return row


def rlc_encode_map(rows: npt.ArrayLike, fmt: RLCFormat) -> list[int]:
    """Encode the rows of a segment, each behind its header word.

    Parameters
    ----------
    rows
        Integers of shape ``(rows, n)``; a row is position-major, channel-innermost.
    fmt
        Widths.

    Returns
    -------
    words
        For each row the number of its words, then these.

    Raises
    ------
    TypeError, ValueError
        As :func:`rlc_encode_row`; also for a row of more words than its header can count.

    Examples
    --------
    >>> [hex(word) for word in rlc_encode_map([[0, 0], [1, 0]], EYERISS)]
    ['0x0', '0x1', '0x8000000000000020']
    """
    array = _checked_rows(rows, fmt)
    if array.shape[1] >= fmt.pairs << HEADER_BITS:
        raise ValueError(f"a row of {array.shape[1]} values does not fit its header")
    return _pack(array, fmt)


def rlc_map_words(rows: npt.ArrayLike, fmt: RLCFormat) -> int:
    """Count the words of :func:`rlc_encode_map` without encoding.

    Examples
    --------
    >>> rlc_map_words([[0, 0], [1, 0]], EYERISS)
    3
    """
    array = _checked_rows(rows, fmt)
    row, runs, _ = _runs(array)
    return int(_words_by_row(row, runs, len(array), fmt).sum()) + len(array)


def rlc_decode_map(words: Words, address: int, rows: int, count: int, fmt: RLCFormat) -> Int64Array:
    """Decode the rows of a segment from memory.

    Parameters
    ----------
    words
        Memory, indexed by word address.
    address
        The first row's header.
    rows, count
        Rows, and values of each.
    fmt
        Widths.

    Returns
    -------
    values
        int64 of shape ``(rows, count)``.

    Raises
    ------
    CodeError
        If a row does not match its length, as :func:`rlc_decode_row`, or the memory ends within
        it; its position is the faulty word's address.

    Examples
    --------
    >>> rlc_decode_map([9, 0, 1, 0x8000000000000020], 1, 2, 2, EYERISS).tolist()
    [[0, 0], [1, 0]]
    """
    most = -(-count // fmt.pairs)  # every pair but the unused ones stands for a value
    lengths = np.zeros(rows, dtype=np.int64)
    addresses: list[int] = []
    coded: list[int] = []
    for row in range(rows):
        try:
            length = words[address] & ((1 << HEADER_BITS) - 1)
            if length > most:
                raise _row_error(f"{length} words of row {row}, at most {most} expected", address)
            span = range(address + 1, address + 1 + length)
            coded += [words[place] for place in span]
        except IndexError as error:
            raise _row_error(f"memory ends within row {row}", address) from error
        addresses += span
        lengths[row] = length
        address += 1 + length
    return _unpack(coded, lengths, count, fmt, np.array(addresses, dtype=np.int64))


def best_run_bits(maps: Iterable[npt.ArrayLike], value_bits: int, word_bits: int) -> int:
    """Choose the run width for which the maps take the fewest words; of equals the least.

    Parameters
    ----------
    maps
        Arrays of shape ``(rows, n)`` or ``(n,)``; they may differ in shape.
    value_bits, word_bits
        As in :class:`RLCFormat`.

    Examples
    --------
    >>> best_run_bits([[1, 2, 3, 4], [5, 6, 7, 8]], 15, 64)
    1
    >>> best_run_bits([np.eye(8, dtype=int)[7:], np.zeros((2, 9), dtype=int)], 16, 64)
    2
    """
    widest = RLCFormat(run_bits=16, value_bits=value_bits, word_bits=word_bits)
    arrays = [_checked_rows(np.atleast_2d(np.asarray(rows)), widest) for rows in maps]
    found = [(len(array), *_runs(array)) for array in arrays]
    sizes = []
    for run_bits in range(1, 17):
        fmt = RLCFormat(run_bits=run_bits, value_bits=value_bits, word_bits=word_bits)
        sizes.append(
            sum(int(_words_by_row(row, runs, rows, fmt).sum()) for rows, row, runs, _ in found)
        )
    return 1 + int(np.argmin(sizes))
