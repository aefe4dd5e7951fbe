"""What a column of the hardware loads for a pass, and the tables that code it.

``docs/interfaces.md`` gives the bits of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.huffman import code_lengths, coded_bits
from thresher.golden.codes.weights.pairs import LENGTH_BITS, MAX_INDICES, WeightFormat, zero_runs
from thresher.golden.config import Config

__all__ = [
    "GROUPS_BITS",
    "LAST_BITS",
    "PAIRS_BITS",
    "SHIFT_BITS",
    "ColumnRow",
    "ColumnStream",
    "ColumnTables",
    "column_format",
    "column_tables",
    "plain_tables",
    "weight_codes",
]

Int64Array = npt.NDArray[np.int64]

GROUPS_BITS = 16
PAIRS_BITS = 20
SHIFT_BITS = 6
LAST_BITS = 8  # of a column's alphabet: its last symbol, and above it whether weights are plain


def column_format(config: Config) -> WeightFormat:
    """Return the format of a machine's weight streams."""
    return WeightFormat(run_bits=config.weight_run_bits, code_bits=config.code_bits)


class ColumnRow(NamedTuple):
    """Weights of one processing element, PE(i, j), for a pass.

    Parameters
    ----------
    groups
        Start pointers that the element gets, less one; 0 to 65535.
    positions
        Where the weights are that are coded, shape ``(n,)``, strictly increasing; a position is
        ``group * N + n``, N being the output channels of the widest column.
    indices
        Their indices in the column's codebook, shape ``(n,)``.
    """

    groups: int
    positions: npt.NDArray[np.integer]
    indices: npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class ColumnStream:
    """What a column loads for one pass.

    Parameters
    ----------
    bias, scale, shift
        Constants of the column's output channels, shape ``(channels,)``, ``channels`` 0 to N.
    codebook
        Weight codes as the multiplier takes them, shape ``(k,)``, ``k`` 0 to 256; see
        ``golden.multipliers.encode``.
    rows
        One :class:`ColumnRow` (or a plain tuple like it) a lane.
    lookup
        The column's lookup table, shape ``(2**activation_bits,)``, or None if it stays as it is.
        Entry k is the output for the input whose two's complement bits are k: those for 0, 1, ...
        up to the greatest activation, then those for the least one up to -1.
    """

    bias: npt.NDArray[np.integer]
    scale: npt.NDArray[np.integer]
    shift: npt.NDArray[np.integer]
    codebook: npt.NDArray[np.integer]
    rows: Sequence[ColumnRow | tuple[int, npt.NDArray[np.integer], npt.NDArray[np.integer]]]
    lookup: npt.NDArray[np.integer] | None = None


@dataclass(frozen=True, eq=False)
class ColumnTables:
    """Codes and codebook of a column, as they stay in its loader from one load to the next.

    Parameters
    ----------
    run_lengths, index_lengths
        Code lengths, shapes ``(run_symbols,)`` and ``(k,)``.
    codebook
        Weight codes, shape ``(k,)``.
    plain
        Weights are sent as they are: an index is a weight code, ``k`` is ``2**weight_code_bits``,
        all lengths are ``weight_code_bits``, and neither lengths nor codebook are in the stream.
    """

    run_lengths: Int64Array
    index_lengths: Int64Array
    codebook: Int64Array
    plain: bool = False

    @property
    def run_symbols(self) -> int:
        """Run lengths in the stream: those up to the last that is used, but one at least."""
        return max(1, int(np.trim_zeros(self.run_lengths, "b").size))

    @property
    def index_symbols(self) -> int:
        """Index lengths and codebook entries in the stream, one at least."""
        return 0 if self.plain else max(1, self.codebook.size)


def plain_tables(run_lengths: Int64Array, config: Config) -> ColumnTables:
    """Return the tables of a column whose weights are sent as they are."""
    bits = config.weight_code_bits
    codes = np.arange(1 << bits, dtype=np.int64)
    return ColumnTables(run_lengths, np.full(codes.size, bits), codes, plain=True)


def weight_codes(stream: ColumnStream, config: Config) -> Int64Array:
    """Return the codebook with its weight codes as unsigned numbers."""
    codebook = np.asarray(stream.codebook, dtype=np.int64)
    if codebook.ndim != 1 or codebook.size > MAX_INDICES:
        raise ValueError(f"codebook must have shape (0..{MAX_INDICES},), not {codebook.shape}")
    values = 1 << config.weight_code_bits
    if codebook.size and (codebook.min() < -values // 2 or codebook.max() >= values):
        raise ValueError(f"weight codes must have {config.weight_code_bits} bits")
    return codebook & (values - 1)


def column_tables(
    streams: Sequence[ColumnStream], config: Config, *, plain: bool | None = None
) -> ColumnTables:
    """Choose the best codes for the loads of a column that share a codebook.

    Parameters
    ----------
    streams
        One or more loads, all with the same codebook.
    plain
        Whether weights are sent as they are, which needs ``weight_code_bits`` up to ``code_bits``.
        By default if they can be, and if lengths, codebook and codes together take no fewer bits.

    Raises
    ------
    ValueError
        If the codebooks differ, an index is outside of them, there are more symbols than codes of
        ``config.code_bits`` bits, or a plain weight is longer than that.
    """
    fmt = column_format(config)
    codebook = weight_codes(streams[0], config)
    run_counts = np.zeros(fmt.run_symbols, dtype=np.int64)
    index_counts = np.zeros(codebook.size, dtype=np.int64)
    for stream in streams:
        if not np.array_equal(weight_codes(stream, config), codebook):
            raise ValueError("loads that share tables must have the same codebook")
        for _, positions, indices in stream.rows:
            runs, symbols = zero_runs(positions, indices, fmt)
            symbols = symbols[symbols >= 0]
            if symbols.size and symbols.max() >= codebook.size:
                raise ValueError(f"indices must be in 0..{codebook.size - 1}, not {symbols.max()}")
            run_counts += np.bincount(runs, minlength=fmt.run_symbols)
            index_counts += np.bincount(symbols, minlength=codebook.size)
    run_lengths = code_lengths(run_counts, fmt.code_bits)
    index_lengths = code_lengths(index_counts, fmt.code_bits)
    bits, limit = config.weight_code_bits, fmt.code_bits
    if plain is None:
        coded = coded_bits(index_counts, index_lengths) + codebook.size * (LENGTH_BITS + bits)
        plain = bits <= limit and bits * int(index_counts.sum()) <= coded
    if not plain:
        return ColumnTables(run_lengths, index_lengths, codebook)
    if bits > limit:
        raise ValueError(f"plain weights have {bits} bits, code_bits is {limit}")
    return plain_tables(run_lengths, config)
