"""Encoder of a column's stream: constants, lookup table, tables and weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitWriter
from thresher.golden.codes.weights.column import (
    GROUPS_BITS,
    LAST_BITS,
    PAIRS_BITS,
    SHIFT_BITS,
    ColumnStream,
    ColumnTables,
    column_format,
    column_tables,
    weight_codes,
)
from thresher.golden.codes.weights.pairs import LENGTH_BITS, pair_fields, zero_runs
from thresher.golden.config import Config

__all__ = ["encode_column"]


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
    >>> from thresher.golden.codes.weights import ColumnRow
    >>> one = np.ones(1, dtype=np.int64)
    >>> row = ColumnRow(1, np.array([0]), np.array([0]))
    >>> data = encode_column(ColumnStream(one, one, one, one, [row]), Config(lanes=1))
    >>> len(data) % 8, data[:8].hex()
    (0, '8000000080000001')
    """
    fmt = column_format(config)
    if codes is None:
        if not tables:
            raise ValueError("without tables in the stream, codes must be given")
        codes = column_tables([stream], config)
    if len(stream.rows) != config.lanes:
        raise ValueError(f"rows must be {config.lanes}, one a lane, not {len(stream.rows)}")
    codebook = weight_codes(stream, config)
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
        writer.write_many(*pair_fields(runs, symbols, codes.run_lengths, codes.index_lengths))
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
