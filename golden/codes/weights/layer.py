"""A layer's weights in a file: one stream with its tables, checked bit by bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, BitWriter, CodeError
from thresher.golden.codes.huffman import DecodeTable, code_lengths, coded_bits
from thresher.golden.codes.weights.pairs import (
    LENGTH_BITS,
    MAX_INDICES,
    WeightFormat,
    expand_runs,
    pair_fields,
    read_lengths,
    read_pairs,
    zero_runs,
)
from thresher.golden.descriptors import ErrorCode

__all__ = ["best_format", "decode_layer", "encode_layer"]

UInt8Array = npt.NDArray[np.uint8]

SYMBOLS_BITS = 9
SIZE_BITS = 32
LAYER_WIDTHS = (4, SIZE_BITS, 1, 8, SIZE_BITS)  # fixed part of a layer: see encode_layer


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
    writer.write_many(*pair_fields(runs, symbols, run_lengths, index_lengths))
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
    run = DecodeTable(read_lengths(reader, fmt.run_symbols, fmt.code_bits))
    at = reader.position
    symbols = reader.read(SYMBOLS_BITS)
    if symbols > MAX_INDICES:
        raise CodeError(f"{symbols} index symbols", at, ErrorCode.CODE_UNUSED)
    index = DecodeTable(read_lengths(reader, symbols, fmt.code_bits))

    pairs = read_pairs(reader, count, run, index)
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
