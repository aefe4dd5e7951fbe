"""Weight streams: Huffman-coded pairs of a zero run and a codebook index.

A weight that is not zero is a pair: the zeros before it, and its index. Runs and indices have
their own canonical codes of limited length. The last run symbol is the escape: as many zeros as
its number says, and no weight. Zeros after the last weight are not coded.

Two containers hold such pairs: :func:`encode_layer`, a layer in a file, and
:func:`encode_column`, what the hardware's weight loader reads; ``docs/interfaces.md`` gives the
bits of the latter.

Reference
---------
S. Han, H. Mao, W. J. Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding", ICLR 2016 (codebook indices and relative positions, each
with its own Huffman code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, BitWriter, CodeError
from thresher.golden.codes.huffman import (
    BLOCK_BITS,
    DecodeTable,
    code_lengths,
    coded_bits,
    symbol_fields,
    walk,
)
from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode

__all__ = [
    "Column",
    "ColumnLoad",
    "ColumnRow",
    "ColumnStream",
    "ColumnTables",
    "RowTaps",
    "WeightFormat",
    "best_format",
    "column_tables",
    "decode_column",
    "decode_layer",
    "encode_column",
    "encode_layer",
    "expand_runs",
    "read_tables",
    "zero_runs",
]

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

GROUPS_BITS = 16
PAIRS_BITS = 20
SHIFT_BITS = 6
SYMBOLS_BITS = 9
LAST_BITS = 8  # of a column's alphabet: its last symbol, and above it whether weights are plain
LENGTH_BITS = 4
MAX_INDICES = 256
SIZE_BITS = 32
LAYER_WIDTHS = (4, SIZE_BITS, 1, 8, SIZE_BITS)  # fixed part of a layer: see encode_layer


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


def _format(config: Config) -> WeightFormat:
    return WeightFormat(run_bits=config.weight_run_bits, code_bits=config.code_bits)


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


def _pair_fields(
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
class _Pairs:
    """Pairs as they were read, up to the fault if there was one."""

    starts: Int64Array  # bit position of each pair
    runs: Int64Array
    symbols: Int64Array
    fault: CodeError | None

    def ends(self, escape: int) -> Int64Array:
        """Positions passed after each pair."""
        return np.cumsum(self.runs + (self.runs < escape))


def _read_pairs(reader: BitReader, count: int, run: DecodeTable, index: DecodeTable) -> _Pairs:
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
    return _Pairs(starts, runs, symbols, fault)


def _read_table(reader: BitReader, lengths: int, limit: int) -> tuple[Int64Array, DecodeTable]:
    at = reader.position
    array = reader.read_many(lengths, LENGTH_BITS)
    if array.size and array.max() > limit:
        raise CodeError(f"code longer than {limit} bits", at, ErrorCode.CODE_UNUSED)
    try:
        return array, DecodeTable(array)
    except ValueError as error:
        raise CodeError(str(error), at, ErrorCode.CODE_UNUSED) from error


# --- a layer in a file ----------------------------------------------------------------------


def best_format(positions: npt.ArrayLike, code_bits: int = 15) -> WeightFormat:
    """Choose the number of run symbols for which runs and their table are smallest.

    Examples
    --------
    >>> best_format([0, 1, 2, 3]).run_bits, best_format(np.arange(40) ** 2).run_bits
    (1, 4)
    """
    zeros = np.diff(np.asarray(positions, dtype=np.int64), prepend=-1) - 1
    formats = [
        WeightFormat(run_bits=run_bits, code_bits=code_bits)
        for run_bits in range(1, min(8, code_bits) + 1)
    ]
    sizes = []
    for fmt in formats:
        escapes, rest = np.divmod(zeros, fmt.escape)
        counts = np.bincount(rest, minlength=fmt.run_symbols)
        counts[fmt.escape] = escapes.sum()
        table_bits = LENGTH_BITS * fmt.run_symbols
        sizes.append(table_bits + coded_bits(counts, code_lengths(counts, code_bits)))
    return formats[int(np.argmin(sizes))]


def encode_layer(
    indices: npt.ArrayLike, codebook: npt.ArrayLike, fmt: WeightFormat | None = None
) -> bytes:
    """Encode a layer's codebook indices; the codebook itself is not part of it.

    Parameters
    ----------
    indices
        Integers of shape ``(n,)``, ``n`` below 2^32.
    codebook
        Integers of shape ``(k,)``, ``k`` up to 256. Weights whose entry is 0 are not coded; of
        several such entries the one most used.
    fmt
        By default the one of least size.

    Returns
    -------
    data
        log2 of the run symbols (4 bits), ``n`` (32), whether there is a zero entry (1), its index
        (8), pairs (32), lengths of the run codes (4 each), number of indices (9), lengths of
        their codes (4 each), pairs; filled to a whole byte.

    Raises
    ------
    ValueError
        If a shape or an index is out of range, or there are more symbols than codes.

    Examples
    --------
    >>> data = encode_layer([0, 0, 2, 0, 1, 0], [0, 5, -3])
    >>> decode_layer(data, 6).tolist()
    [0, 0, 2, 0, 1, 0]
    """
    array = np.asarray(indices, dtype=np.int64)
    entries = np.asarray(codebook)
    if array.ndim != 1 or array.size >> SIZE_BITS:
        raise ValueError(f"indices must have shape (n,), n below 2^{SIZE_BITS}, not {array.shape}")
    if entries.ndim != 1 or entries.size > MAX_INDICES:
        raise ValueError(f"codebook must have shape (0..{MAX_INDICES},), not {entries.shape}")
    if array.size and (array.min() < 0 or array.max() >= entries.size):
        raise ValueError(f"indices must be in 0..{entries.size - 1}")
    counts = np.bincount(array, minlength=entries.size)
    zeros = np.flatnonzero(entries == 0)
    zero = int(zeros[np.argmax(counts[zeros])]) if zeros.size else None
    positions = np.arange(array.size) if zero is None else np.flatnonzero(array != zero)
    if fmt is None:
        fmt = best_format(positions)
    runs, symbols = zero_runs(positions, array[positions], fmt)
    if zero is not None:
        counts[zero] = 0
    counts = np.trim_zeros(counts, "b")
    run_lengths = code_lengths(np.bincount(runs, minlength=fmt.run_symbols), fmt.code_bits)
    index_lengths = code_lengths(counts, fmt.code_bits)

    writer = BitWriter()
    writer.write_many(
        [fmt.run_bits, array.size, zero is not None, zero or 0, runs.size], LAYER_WIDTHS
    )
    writer.write_many(run_lengths, LENGTH_BITS)
    writer.write(index_lengths.size, SYMBOLS_BITS)
    writer.write_many(index_lengths, LENGTH_BITS)
    writer.write_many(*_pair_fields(runs, symbols, run_lengths, index_lengths))
    return writer.to_bytes()


def decode_layer(data: bytes, size: int) -> UInt8Array:
    """Decode a layer's codebook indices, and check every bit.

    Parameters
    ----------
    data
        What :func:`encode_layer` returned, nothing more.
    size
        Expected number of weights.

    Returns
    -------
    indices
        uint8 of shape ``(size,)``.

    Raises
    ------
    CodeError
        If the data is not what the encoder makes of any layer of that size; the message says what
        is wrong and at which bit.
    """
    reader = BitReader(data)
    run_bits, stored, has_zero, zero, count = (reader.read(width) for width in LAYER_WIDTHS)
    if not 1 <= run_bits <= 8:
        raise CodeError(f"2^{run_bits} run symbols", 0, ErrorCode.CODE_UNUSED)
    if stored != size or count > size:
        reason = f"{count} pairs for {stored} weights, {size} expected"
        raise CodeError(reason, LAYER_WIDTHS[0], ErrorCode.RUN_PAST_END)
    fmt = WeightFormat(run_bits=run_bits, code_bits=15)
    _, run = _read_table(reader, fmt.run_symbols, fmt.code_bits)
    at = reader.position
    symbols = reader.read(SYMBOLS_BITS)
    if symbols > MAX_INDICES:
        raise CodeError(f"{symbols} index symbols", at, ErrorCode.CODE_UNUSED)
    _, index = _read_table(reader, symbols, fmt.code_bits)

    pairs = _read_pairs(reader, count, run, index)
    past = np.flatnonzero(pairs.ends(fmt.escape) > size)
    if past.size:
        at = int(pairs.starts[past[0]])
        raise CodeError(f"run past the {size} weights", at, ErrorCode.RUN_PAST_END)
    if pairs.fault:
        raise pairs.fault
    if count and pairs.symbols[-1] < 0:
        raise CodeError("escape as the last pair", int(pairs.starts[-1]), ErrorCode.STREAM_SHORT)
    if reader.remaining >= 8 or reader.read(reader.remaining):
        raise CodeError("more bits than pairs", reader.position, ErrorCode.CODE_UNUSED)
    positions, coded = expand_runs(pairs.runs, pairs.symbols, fmt)
    if has_zero and np.any(coded == zero):
        raise CodeError(f"zero's index {zero} is coded", at, ErrorCode.CODE_UNUSED)
    if not has_zero and (zero or positions.size != size):
        raise CodeError("zeros in a layer without them", 0, ErrorCode.STREAM_SHORT)
    indices = np.full(size, zero, dtype=np.uint8)
    indices[positions] = coded
    return indices


# --- a column of the hardware ---------------------------------------------------------------


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


def _plain_tables(run_lengths: Int64Array, config: Config) -> ColumnTables:
    bits = config.weight_code_bits
    codes = np.arange(1 << bits, dtype=np.int64)
    return ColumnTables(run_lengths, np.full(codes.size, bits), codes, plain=True)


def _codebook(stream: ColumnStream, config: Config) -> Int64Array:
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
    fmt = _format(config)
    codebook = _codebook(streams[0], config)
    run_counts = np.zeros(fmt.run_symbols, dtype=np.int64)
    index_counts = np.zeros(codebook.size, dtype=np.int64)
    for stream in streams:
        if not np.array_equal(_codebook(stream, config), codebook):
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
    return _plain_tables(run_lengths, config)


def encode_column(
    stream: ColumnStream, config: Config, tables: bool = True, codes: ColumnTables | None = None
) -> bytes:
    """Encode what a column loads for one pass.

    Parameters
    ----------
    stream
        Constants, codebook and weights.
    config
        The machine.
    tables
        Whether the stream brings its tables; else those of the column's previous load stay.
    codes
        The tables; by default the best for this stream alone. Needed if ``tables`` is false.

    Returns
    -------
    data
        Whole words of ``config.port_bits``, big-endian.

    Raises
    ------
    ValueError
        If a shape or a number is out of range, or a weight has no code in ``codes``.

    Examples
    --------
    >>> one = np.ones(1, dtype=np.int64)
    >>> row = ColumnRow(1, np.array([0]), np.array([0]))
    >>> data = encode_column(ColumnStream(one, one, one, one, [row]), Config(lanes=1))
    >>> len(data) % 8, data[:8].hex()
    (0, '8000000080000001')
    """
    fmt = _format(config)
    if codes is None:
        if not tables:
            raise ValueError("without tables in the stream, codes must be given")
        codes = column_tables([stream], config)
    if len(stream.rows) != config.lanes:
        raise ValueError(f"rows must be {config.lanes}, one a lane, not {len(stream.rows)}")
    codebook = _codebook(stream, config)
    if not codes.plain and not np.array_equal(codebook, codes.codebook):
        raise ValueError("codes are for another codebook")

    writer = BitWriter()
    _write_constants(writer, stream, config)
    _write_lookup(writer, stream.lookup, config)
    writer.write(int(tables), 1)
    if tables:
        _write_tables(writer, codes, config)
    for groups, positions, indices in stream.rows:
        plain = codebook[np.asarray(indices, np.int64)] if codes.plain else indices
        runs, symbols = zero_runs(positions, plain, fmt)
        if not 0 <= groups < 1 << GROUPS_BITS or runs.size >= 1 << PAIRS_BITS:
            raise ValueError(f"{groups} groups, {runs.size} pairs are too many for a load")
        writer.write_many([groups, runs.size], [GROUPS_BITS, PAIRS_BITS])
        writer.write_many(*_pair_fields(runs, symbols, codes.run_lengths, codes.index_lengths))
    return writer.to_bytes(config.port_bits)


def _write_tables(writer: BitWriter, codes: ColumnTables, config: Config) -> None:
    writer.write_many([0, codes.run_symbols - 1], [1, LAST_BITS])
    writer.write_many(codes.run_lengths[: codes.run_symbols], LENGTH_BITS)
    if codes.plain:
        writer.write_many([1, 0], [1, LAST_BITS])
        return
    nothing = np.zeros(codes.index_symbols - codes.codebook.size, np.int64)  # of an empty codebook
    writer.write_many([0, codes.index_symbols - 1], [1, LAST_BITS])
    writer.write_many(np.concatenate([codes.index_lengths, nothing]), LENGTH_BITS)
    writer.write_many(np.concatenate([codes.codebook, nothing]), config.weight_code_bits)


def _write_constants(writer: BitWriter, stream: ColumnStream, config: Config) -> None:
    constants = np.stack([np.asarray(c) for c in (stream.bias, stream.scale, stream.shift)], axis=1)
    if constants.size and not np.issubdtype(constants.dtype, np.integer):
        raise ValueError(f"constants must be integers, not {constants.dtype}")
    constants = constants.astype(np.int64)
    half = 1 << (config.accumulator_bits - 1)
    lows = np.array([-half, 0, 0])
    highs = np.array([half, 1 << config.scale_bits, 1 << SHIFT_BITS])
    if np.any(constants < lows) or np.any(constants >= highs):
        raise ValueError(
            f"bias must be in {-half}..{half - 1}, scale below {highs[1]}, shift below {highs[2]}"
        )
    shared = len(constants) > 0 and bool(np.all(constants[:, 1:] == constants[0, 1:]))
    widths = np.tile([config.accumulator_bits, config.scale_bits, SHIFT_BITS], (len(constants), 1))
    if shared:
        widths[1:, 1:] = 0
    writer.write(int(shared), 1)
    sent = widths.ravel() > 0
    writer.write_many(constants.ravel()[sent], widths.ravel()[sent])


def _write_lookup(writer: BitWriter, table: npt.NDArray[np.integer] | None, config: Config) -> None:
    writer.write(int(table is not None), 1)
    if table is None:
        return
    if not config.lookup:
        raise ValueError("lookup must be None for a machine without lookup")
    entries = 1 << config.activation_bits
    outputs = np.asarray(table)
    if outputs.shape != (entries,) or not np.issubdtype(outputs.dtype, np.integer):
        raise ValueError(
            f"lookup must be integers of shape ({entries},), "
            f"not {outputs.dtype} of shape {outputs.shape}"
        )
    half = entries // 2
    if outputs.min() < -half or outputs.max() >= half:
        raise ValueError(
            f"lookup must be in {-half}..{half - 1}, not {outputs.min()}..{outputs.max()}"
        )
    writer.write_many(outputs.astype(np.int64) & (entries - 1), config.activation_bits)


@dataclass(frozen=True, kw_only=True)
class ColumnLoad:
    """Fields of the load descriptor, ``descriptors.LOAD`` and ``LOAD_LANE``, of one column.

    Parameters
    ----------
    channels
        N, output channels of the widest column.
    column_channels
        Output channels of this column, 0 to N.
    row_size, kernel_height, kernel_width
        As in ``descriptors.LOAD``.
    group_base
        First start pointer of this pass.
    """

    channels: int
    column_channels: int
    row_size: int
    kernel_height: int = 1
    kernel_width: int = 1
    group_base: int = 0

    @classmethod
    def from_fields(cls, load: Mapping[str, int], lane: Mapping[str, int]) -> ColumnLoad:
        """Take the fields from the values of the two records."""
        return cls(
            channels=load["channels"],
            column_channels=lane["channels"],
            row_size=load["row_size"],
            kernel_height=load["kernel_height"],
            kernel_width=load["kernel_width"],
            group_base=load["group_base"],
        )


@dataclass(frozen=True, eq=False)
class RowTaps:
    """What the loader writes into the stores of one processing element.

    Attributes
    ----------
    groups, positions, indices
        The weights as in :class:`ColumnRow`.
    pointers
        Values for the addresses ``group_base`` upward, shape ``(groups + 1,)``.
    addresses, offsets, codes
        Taps in the order of writing, shape ``(n,)``.
    end
        Tap address at which the next load of this element begins.
    """

    groups: int
    positions: Int64Array
    indices: Int64Array
    pointers: Int64Array
    addresses: Int64Array
    offsets: Int64Array
    codes: Int64Array
    end: int


@dataclass(frozen=True, eq=False)
class Column:
    """A decoded column.

    Attributes
    ----------
    bias, scale, shift
        Shape ``(channels,)``.
    shared
        Whether scale and shift are in the stream once, for all channels.
    lookup
        The lookup table as in :class:`ColumnStream`, None if the stream brings none.
    tables
        Those in force after the load.
    rows
        One a lane. Of plain weights the indices are weight codes.
    bits
        Bits up to the last pair's end, without padding.
    """

    bias: Int64Array
    scale: Int64Array
    shift: Int64Array
    shared: bool
    lookup: Int64Array | None
    tables: ColumnTables
    rows: tuple[RowTaps, ...]
    bits: int


def decode_column(
    data: bytes,
    config: Config,
    load: ColumnLoad,
    *,
    previous: ColumnTables | None = None,
    tap_starts: Sequence[int] | None = None,
) -> Column:
    """Decode as ``hw.weights.weight_loader.WeightLoader`` does, and check more.

    Parameters
    ----------
    data
        A column's stream; what follows it is not looked at.
    config, load
        The machine and the descriptor.
    previous
        Tables of the column's previous load; none after reset.
    tap_starts
        First tap address of each row; by default 0.

    Raises
    ------
    CodeError
        With ``code`` and bit ``position``: ``CODE_UNUSED`` at a symbol's or a table's first bit,
        ``STREAM_SHORT`` at the first bit of what is cut off, ``RUN_PAST_END`` at the first bit of
        the pair. Of several the first in the stream.

    Examples
    --------
    >>> one = np.ones(1, dtype=np.int64)
    >>> row = ColumnRow(2, np.array([1]), np.array([0]))
    >>> data = encode_column(ColumnStream(one, one, one, one, [row]), Config(lanes=1))
    >>> load = ColumnLoad(channels=1, column_channels=1, row_size=3, kernel_width=2)
    >>> taps = decode_column(data, Config(lanes=1), load).rows[0]
    >>> taps.pointers.tolist(), taps.offsets.tolist(), taps.codes.tolist()
    ([0, 0, 1], [4095], [1])
    """
    fmt = _format(config)
    reader = BitReader(data)
    shared, constants = _read_constants(reader, load.column_channels, config)

    at = reader.position
    lookup = None
    if reader.read(1):
        if not config.lookup:
            raise CodeError("lookup table for a machine without", at, ErrorCode.CODE_UNUSED)
        entries = 1 << config.activation_bits
        lookup = reader.read_many(entries, config.activation_bits, signed=True)

    if reader.read(1):
        tables = read_tables(reader, config)
    else:
        nothing = np.zeros(0, dtype=np.int64)
        tables = previous or ColumnTables(np.zeros(fmt.run_symbols, np.int64), nothing, nothing)
    run, index = DecodeTable(tables.run_lengths), DecodeTable(tables.index_lengths)

    rows = []
    for i in range(config.lanes):
        groups = reader.read(GROUPS_BITS)
        pairs = _read_pairs(reader, reader.read(PAIRS_BITS), run, index)
        past = np.flatnonzero(pairs.ends(fmt.escape) > groups * load.channels)
        if past.size:
            at = int(pairs.starts[past[0]])
            raise CodeError(f"run past the {groups} groups of row {i}", at, ErrorCode.RUN_PAST_END)
        if pairs.fault:
            raise pairs.fault
        row = ColumnRow(groups, *expand_runs(pairs.runs, pairs.symbols, fmt))
        start = tap_starts[i] if tap_starts is not None else 0
        rows.append(_taps(row, tables.codebook, start, config, load))
    return Column(*constants, shared, lookup, tables, tuple(rows), reader.position)


def _read_constants(
    reader: BitReader, channels: int, config: Config
) -> tuple[bool, tuple[Int64Array, Int64Array, Int64Array]]:
    widths = (config.accumulator_bits, config.scale_bits, SHIFT_BITS)
    shared = bool(reader.read(1))
    packed = np.zeros((channels, 3), dtype=np.int64)
    for channel, numbers in enumerate(packed):
        sent = 1 if shared and channel else 3
        numbers[:sent] = [reader.read(width) for width in widths[:sent]]
        numbers[sent:] = packed[0, sent:]
    half = np.int64(1) << (config.accumulator_bits - 1)
    return shared, ((packed[:, 0] ^ half) - half, packed[:, 1], packed[:, 2])


def read_tables(reader: BitReader, config: Config) -> ColumnTables:
    """Read the tables of a column's stream, behind the bit that announces them.

    Raises
    ------
    CodeError
        If they are none, or are cut off.
    """
    fmt = _format(config)
    at = reader.position
    plain, last = divmod(reader.read(1 + LAST_BITS), 1 << LAST_BITS)
    if plain or last >= fmt.run_symbols:
        reason = "plain runs" if plain else f"run symbol {last}, the last is {fmt.escape}"
        raise CodeError(reason, at, ErrorCode.CODE_UNUSED)
    sent, _ = _read_table(reader, last + 1, fmt.code_bits)
    run_lengths = np.zeros(fmt.run_symbols, np.int64)
    run_lengths[: last + 1] = sent
    at = reader.position
    plain, last = divmod(reader.read(1 + LAST_BITS), 1 << LAST_BITS)
    if plain:
        bits = config.weight_code_bits
        if bits > fmt.code_bits:
            reason = f"plain weights of {bits} bits, the longest code has {fmt.code_bits}"
            raise CodeError(reason, at, ErrorCode.CODE_UNUSED)
        return _plain_tables(run_lengths, config)
    index_lengths, _ = _read_table(reader, last + 1, fmt.code_bits)
    codebook = reader.read_many(last + 1, config.weight_code_bits)
    return ColumnTables(run_lengths, index_lengths, codebook)


def _taps(
    row: ColumnRow, codebook: Int64Array, start: int, config: Config, load: ColumnLoad
) -> RowTaps:
    """Work out what the stores hold after the weights of a row have been written."""
    positions = row.positions.astype(np.int64)
    indices = row.indices.astype(np.int64)
    group, channel = np.divmod(positions, max(1, load.channels))
    ky, kx = np.divmod(group % (load.kernel_height * load.kernel_width), load.kernel_width)
    offsets = channel - (ky * load.row_size + kx * load.channels)
    before = np.searchsorted(group, np.arange(row.groups + 1))
    return RowTaps(
        groups=row.groups,
        positions=positions,
        indices=indices,
        pointers=(start + before) % config.tap_depth,
        addresses=(start + np.arange(positions.size)) % config.tap_depth,
        offsets=offsets % config.accumulator_depth,
        codes=codebook[indices],
        end=(start + positions.size) % config.tap_depth,
    )
