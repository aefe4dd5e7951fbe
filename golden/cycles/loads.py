"""How long a load takes: each column's fields and pairs, a cycle each, and the port they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.config import Config
from thresher.golden.cycles.latencies import (
    CHUNK,
    CONSTANTS,
    ELEMENT,
    FIRST_REQUEST,
    PASSES,
    PIPELINE,
    READ_AHEAD,
    STEP,
    TO_PORT,
    TO_WINDOW,
    TO_WORD,
)

__all__ = ["LoadCycles", "column_cycles", "element_cycles", "load_cycles"]

Int64Array = npt.NDArray[np.int64]


def element_cycles(positions: Int64Array, groups: int, channels: int, config: Config) -> int:
    """Return the cycles of an element: its fields, pairs and pointers.

    Parameters
    ----------
    positions
        Positions of its taps, increasing, shape (taps,).
    groups
        Start pointers, less one.
    channels
        N: positions of a group.
    config
        The machine.
    """
    escape = config.run_symbols - 1
    before = np.concatenate([[-1], positions[:-1]])
    escapes = (positions - before - 1) // escape
    # A pair costs its cycles, or one for each group that it enters.
    step = 0 if config.pair_cycles == 1 else STEP
    here = positions // channels
    after_escapes = before + escapes * escape
    entered_last = here - np.where(after_escapes < 0, -1, after_escapes // channels)
    cost = int(np.maximum(config.pair_cycles, entered_last + step).sum())
    for k in range(int(escapes.max(initial=0))):
        some = escapes > k
        start = before[some] + k * escape
        end = start + escape
        entered = end // channels - np.where(start < 0, -1, start // channels)
        cost += int(np.maximum(config.pair_cycles, entered + step).sum())
    left = groups - (int(here[-1]) if positions.size else -1)
    return ELEMENT + cost + PIPELINE + left


def column_cycles(
    elements: Sequence[int], constants: int, index_symbols: int | None, config: Config
) -> int:
    """Return the cycles of a column from its first field on.

    Parameters
    ----------
    elements
        Cycles of each element.
    constants
        Channels of the column.
    index_symbols
        Entries of the codebook; None if the tables of the previous load stay.
    """
    if config.pair_cycles > 1:
        return _compact_cycles(constants, index_symbols, config) + sum(elements)
    cycles = constants * CONSTANTS + 1
    if index_symbols is not None:
        cycles += config.run_symbols + 1 + 2 * index_symbols
        # The index table is ready K + code_bits + 1 after its last length, K entries being read.
        # What is waited for begins with BUILD of the first element.
        cycles += config.code_bits + 1 - ELEMENT
    return cycles + sum(elements)


def _compact_cycles(constants: int, index_symbols: int | None, config: Config) -> int:
    """Return the cycles of a compact loader before its first element."""
    bits = constants * (config.accumulator_bits + config.scale_bits + 6)
    fields = -(-config.accumulator_bits // CHUNK) - (-config.scale_bits // CHUNK) + 1
    cycles = constants * (fields + 1) + 3
    if index_symbols is not None:
        bits += 4 * config.run_symbols + 9 + (4 + config.weight_code_bits) * index_symbols
        cycles += 2 * (config.run_symbols + index_symbols + PASSES)
    return cycles + bits // CHUNK


class LoadCycles(NamedTuple):
    """A load, predicted: cycles from its start, words through the port, as many at once."""

    cycles: int
    words: int
    burst: int

    def traffic(self, begin: int) -> list[tuple[int, int, int]]:
        """Return when the words are taken if the load starts at ``begin``: (begin, end, words)."""
        first = begin + FIRST_REQUEST
        middle = first + self.burst
        return [
            (first, middle, self.burst),
            (middle, max(middle + 1, begin + self.cycles), self.words - self.burst),
        ]


def load_cycles(
    columns: Sequence[Sequence[int]],
    constants: Sequence[int],
    words: int,
    index_symbols: int | None,
    config: Config,
    *,
    latency: int = 4,
) -> LoadCycles:
    """Predict a load, from its start pulse to the last column's last write.

    Parameters
    ----------
    columns
        Cycles of the elements of each column.
    constants
        Channels of each column.
    words
        Words of all columns' streams.
    index_symbols
        Entries of the codebook; None if the tables of the previous load stay.
    config
        The machine.
    latency
        Of the memory.
    """
    begin = config.lanes - 1 + FIRST_REQUEST + TO_PORT + latency + TO_WORD + TO_WINDOW
    longest = max(
        column_cycles(elements, count, index_symbols, config)
        for elements, count in zip(columns, constants, strict=True)
    )
    # All columns read their constants at once, and the port may be slower than they.
    bits = config.accumulator_bits + config.scale_bits + 6
    wanted = sum(constants) * bits // config.port_bits
    slower = max(0, wanted - CONSTANTS * max(constants))
    burst = min(words, wanted + config.lanes * READ_AHEAD)
    return LoadCycles(begin + slower + longest, words, burst)
