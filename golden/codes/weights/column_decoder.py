"""Decoder of a column's stream, as the hardware's loader decodes it, with every check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, CodeError
from thresher.golden.codes.huffman import DecodeTable
from thresher.golden.codes.weights.column import (
    GROUPS_BITS,
    LAST_BITS,
    PAIRS_BITS,
    SHIFT_BITS,
    ColumnRow,
    ColumnTables,
    column_format,
    plain_tables,
)
from thresher.golden.codes.weights.pairs import expand_runs, read_lengths, read_pairs
from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode

__all__ = ["Column", "ColumnLoad", "RowTaps", "decode_column", "read_tables"]

Int64Array = npt.NDArray[np.int64]


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
    >>> from thresher.golden.codes.weights import ColumnStream, encode_column
    >>> one = np.ones(1, dtype=np.int64)
    >>> row = ColumnRow(2, np.array([1]), np.array([0]))
    >>> data = encode_column(ColumnStream(one, one, one, one, [row]), Config(lanes=1))
    >>> load = ColumnLoad(channels=1, column_channels=1, row_size=3, kernel_width=2)
    >>> taps = decode_column(data, Config(lanes=1), load).rows[0]
    >>> taps.pointers.tolist(), taps.offsets.tolist(), taps.codes.tolist()
    ([0, 0, 1], [4095], [1])
    """
    fmt = column_format(config)
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
        pairs = read_pairs(reader, reader.read(PAIRS_BITS), run, index)
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
    fmt = column_format(config)
    at = reader.position
    plain, last = divmod(reader.read(1 + LAST_BITS), 1 << LAST_BITS)
    if plain or last >= fmt.run_symbols:
        reason = "plain runs" if plain else f"run symbol {last}, the last is {fmt.escape}"
        raise CodeError(reason, at, ErrorCode.CODE_UNUSED)
    sent = read_lengths(reader, last + 1, fmt.code_bits)
    run_lengths = np.zeros(fmt.run_symbols, np.int64)
    run_lengths[: last + 1] = sent
    at = reader.position
    plain, last = divmod(reader.read(1 + LAST_BITS), 1 << LAST_BITS)
    if plain:
        bits = config.weight_code_bits
        if bits > fmt.code_bits:
            reason = f"plain weights of {bits} bits, the longest code has {fmt.code_bits}"
            raise CodeError(reason, at, ErrorCode.CODE_UNUSED)
        return plain_tables(run_lengths, config)
    index_lengths = read_lengths(reader, last + 1, fmt.code_bits)
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
