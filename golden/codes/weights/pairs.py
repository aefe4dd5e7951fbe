"""Pairs of a zero run and a codebook index, and their codes.

A weight that is not zero is a pair: the zeros before it, and its index. Runs and indices have
their own canonical codes of limited length. The last run symbol is the escape: as many zeros as
its number says, and no weight. Zeros after the last weight are not coded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, CodeError
from thresher.golden.codes.huffman import (
    BLOCK_BITS,
    DecodeTable,
    checked_lengths,
    symbol_fields,
    walk,
)
from thresher.golden.descriptors import ErrorCode

__all__ = [
    "LENGTH_BITS",
    "MAX_INDICES",
    "WeightFormat",
    "expand_runs",
    "pair_fields",
    "read_lengths",
    "read_pairs",
    "zero_runs",
]

Int64Array = npt.NDArray[np.int64]

LENGTH_BITS = 4
MAX_INDICES = 256


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """Parameters of the pairs; the one place where they are checked.

    Parameters
    ----------
    run_bits
        log2 of the number of run symbols, 1 to 8.
    code_bits
        Longest code, 1 to 15.
    """

    run_bits: int = 5
    code_bits: int = 12

    def __post_init__(self) -> None:
        if not 1 <= self.run_bits <= 8:
            raise ValueError(f"run_bits must be in 1..8, not {self.run_bits!r}")
        if not 1 <= self.code_bits <= 15:
            raise ValueError(f"code_bits must be in 1..15, not {self.code_bits!r}")

    @property
    def run_symbols(self) -> int:
        """Number of run symbols."""
        return 1 << self.run_bits

    @property
    def escape(self) -> int:
        """The last run symbol, and the number of zeros for which it stands."""
        return self.run_symbols - 1


def zero_runs(
    positions: npt.ArrayLike, indices: npt.ArrayLike, fmt: WeightFormat
) -> tuple[Int64Array, Int64Array]:
    """Turn weights at positions into pairs.

    Parameters
    ----------
    positions
        Where the weights are, shape ``(n,)``, not negative, strictly increasing.
    indices
        Their codebook indices, shape ``(n,)``, not negative.

    Returns
    -------
    runs, symbols
        int64 of shape ``(p,)``, ``p >= n``: run symbols, and index symbols or -1 at an escape.

    Raises
    ------
    ValueError
        If the shapes differ or the positions do not increase.

    Examples
    --------
    >>> runs, symbols = zero_runs([2, 3, 10], [5, 6, 7], WeightFormat(run_bits=2))
    >>> runs.tolist(), symbols.tolist()
    ([2, 0, 3, 3, 0], [5, 6, -1, -1, 7])
    """
    places = np.asarray(positions, dtype=np.int64)
    weights = np.asarray(indices, dtype=np.int64)
    if places.ndim != 1 or places.shape != weights.shape:
        raise ValueError(
            f"positions and indices must share a shape (n,), not {places.shape}, {weights.shape}"
        )
    zeros = np.diff(places, prepend=-1) - 1
    if zeros.size and zeros.min() < 0:
        raise ValueError("positions must increase from 0")
    if weights.size and weights.min() < 0:
        raise ValueError("indices must not be negative")
    escapes, rest = np.divmod(zeros, fmt.escape)
    at = np.cumsum(escapes + 1) - 1
    pairs = int(at[-1]) + 1 if at.size else 0
    runs = np.full(pairs, fmt.escape, dtype=np.int64)
    symbols = np.full(pairs, -1, dtype=np.int64)
    runs[at] = rest
    symbols[at] = weights
    return runs, symbols


def expand_runs(
    runs: npt.ArrayLike, symbols: npt.ArrayLike, fmt: WeightFormat
) -> tuple[Int64Array, Int64Array]:
    """Turn pairs into weights at positions; the inverse of :func:`zero_runs`.

    Examples
    --------
    >>> positions, indices = expand_runs([2, 3, 0], [5, -1, 7], WeightFormat(run_bits=2))
    >>> positions.tolist(), indices.tolist()
    ([2, 6], [5, 7])
    """
    run_array = np.asarray(runs, dtype=np.int64)
    weights = np.asarray(symbols, dtype=np.int64)
    if run_array.ndim != 1 or run_array.shape != weights.shape:
        raise ValueError(
            f"runs and symbols must share a shape (p,), not {run_array.shape}, {weights.shape}"
        )
    if run_array.size and (run_array.min() < 0 or run_array.max() > fmt.escape):
        raise ValueError(f"runs must be in 0..{fmt.escape}")
    hits = run_array < fmt.escape
    if not np.array_equal(hits, weights >= 0):
        raise ValueError("an escape, and only it, is without an index")
    ends = np.cumsum(run_array + hits)
    return ends[hits] - 1, weights[hits]


def pair_fields(
    runs: Int64Array, symbols: Int64Array, run_lengths: Int64Array, index_lengths: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Interleave the codes of runs and indices; an escape's index has no bits."""
    hits = symbols >= 0
    fields = np.zeros((2, runs.size, 2), dtype=np.int64)
    fields[:, :, 0] = symbol_fields(runs, run_lengths)
    fields[:, hits, 1] = symbol_fields(symbols[hits], index_lengths)
    codes, widths = fields.reshape(2, -1)
    return codes, widths


@dataclass(frozen=True)
class Pairs:
    """Pairs as they were read, up to the fault if there was one."""

    starts: Int64Array  # bit position of each pair
    runs: Int64Array
    symbols: Int64Array
    fault: CodeError | None

    def ends(self, escape: int) -> Int64Array:
        """Positions passed after each pair."""
        return np.cumsum(self.runs + (self.runs < escape))


def read_pairs(reader: BitReader, count: int, run: DecodeTable, index: DecodeTable) -> Pairs:
    """Read pairs; like :func:`huffman_decode`, but a link leads from pair to pair."""
    escape = run.symbols - 1
    widest = run.width + index.width
    parts: list[tuple[Int64Array, Int64Array, Int64Array]] = []
    fault: CodeError | None = None
    left = count
    while left and fault is None:
        block = max(1, min(BLOCK_BITS, left * widest, reader.remaining + 1))
        run_windows = reader.windows(block, run.width)
        index_windows = reader.windows(block + run.width, index.width)
        run_symbols = run.symbol[run_windows]
        middle = np.arange(block) + run.length[run_windows]
        index_windows = index_windows[middle]
        hits = run_symbols != escape
        index_symbols = np.where(hits, index.symbol[index_windows], -1)
        following = middle + np.where(hits, index.length[index_windows], 0)
        bad = (run_symbols < 0) | (hits & (index_symbols < 0)) | (following > reader.remaining)
        following[bad] = -1
        starts, end = walk(following, left)
        parts.append((reader.position + starts, run_symbols[starts], index_symbols[starts]))
        left -= starts.size
        if end < 0:
            at = -1 - end
            table, window = run, int(run_windows[at])
            if run_symbols[at] >= 0 and middle[at] <= reader.remaining and hits[at]:
                table, window, at = index, int(index_windows[at]), int(middle[at])
            fault = table.fault(window, reader.position + at, reader.remaining - at)
        else:
            reader.position += end
    if not parts:
        parts.append((np.zeros(0, dtype=np.int64),) * 3)
    starts, runs, symbols = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pairs(starts, runs, symbols, fault)


def read_lengths(reader: BitReader, lengths: int, limit: int) -> Int64Array:
    """Read as many code lengths.

    Raises
    ------
    CodeError
        If a length is greater than ``limit``, or there is no such code.
    """
    at = reader.position
    array = reader.read_many(lengths, LENGTH_BITS)
    if array.size and array.max() > limit:
        raise CodeError(f"code longer than {limit} bits", at, ErrorCode.CODE_UNUSED)
    try:
        return checked_lengths(array)
    except ValueError as error:
        raise CodeError(str(error), at, ErrorCode.CODE_UNUSED) from error
