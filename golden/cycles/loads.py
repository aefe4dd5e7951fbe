"""How long a load takes: each column's fields and pairs, and the words, which share a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights import LENGTH_BITS, SHIFT_BITS, SYMBOLS_BITS
from thresher.golden.config import Config
from thresher.golden.cycles.latencies import (
    BUILD,
    CHUNK,
    COMPACT_CHUNK,
    INDEX_TABLE,
    LIMITS,
    LINKED_END,
    LINKED_READ,
    LINKED_START,
    PIPELINE,
    PUT,
    ZERO,
)
from thresher.golden.cycles.runs import kernel

__all__ = [
    "LoadCycles",
    "Stream",
    "element_cycles",
    "load_cycles",
    "random_stream",
    "stream_fields",
]

Int64Array = npt.NDArray[np.int64]

SPANS = 16  # in which a load's words are thought to fall due evenly


class Stream(NamedTuple):
    """A column's stream in its loader.

    Parameters
    ----------
    cycles
        From the first field to the last write, if no word is waited for.
    needs
        The cycle of them in which each chunk of a bit reader is needed, shape (chunks,).
    """

    cycles: int
    needs: Int64Array


def stream_fields(
    constants: int, lookup: bool, index_symbols: int | None, config: Config
) -> tuple[Int64Array, Int64Array]:
    """Return the fields of a stream before its first row: bits of each, cycles after it.

    Parameters
    ----------
    constants
        Channels of the column.
    lookup
        Whether there is a lookup table.
    index_symbols
        Entries of the codebook; None if the tables of the previous load stay.
    config
        The machine.
    """
    compact = config.pair_cycles > 1
    most = COMPACT_CHUNK if compact else CHUNK
    channel = [(0, 1)] if compact else []  # a state that asks whether there is another one
    for bits in (config.accumulator_bits, config.scale_bits, SHIFT_BITS):
        rest = bits % most
        channel += [(rest, 0)] * (rest > 0) + [(most, 0)] * (bits // most)
    fields = channel * constants + [(0, 1)] * compact + [(1, 0)]
    fields += [(config.activation_bits, 0)] * (lookup << config.activation_bits)
    fields.append((1, 0))
    if index_symbols is not None:
        runs, weight = config.run_symbols, (config.weight_code_bits, 0)
        if compact:
            fields += [(0, ZERO), *[(LENGTH_BITS, 0)] * runs, (0, LIMITS + runs + 1)]
            fields += [(SYMBOLS_BITS, ZERO), *[(LENGTH_BITS, 0)] * index_symbols, (0, LIMITS)]
            fields += [weight] * index_symbols
        else:
            fields += [(LENGTH_BITS, 0)] * runs + [(SYMBOLS_BITS, 0)]
            fields += [(LENGTH_BITS, 0)] * index_symbols + [weight] * index_symbols
            fields.append((0, max(0, config.code_bits + INDEX_TABLE)))
    table = np.array(fields, np.int64)
    return table[:, 0], table[:, 1]


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
    step = 0 if config.pair_cycles == 1 else PUT
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
    return 2 + BUILD + cost + PIPELINE + left


def random_stream(
    elements: Sequence[int], bits: int, constants: int, index_symbols: int, config: Config
) -> Stream:
    """Return the stream of a column of which only the sizes are known.

    Parameters
    ----------
    elements
        Cycles of each element.
    bits
        Of all pairs, taken evenly.
    constants, index_symbols, config
        See :func:`stream_fields`.
    """
    compact = config.pair_cycles > 1
    chunk = COMPACT_CHUNK if compact else CHUNK
    widths, rests = stream_fields(constants, False, index_symbols, config)
    times = np.cumsum((widths > 0) + rests)
    ends = np.cumsum(widths)
    if compact:
        times = times + ends // chunk
    cycles = sum(elements) + (bits // chunk if compact else 0)
    at = np.arange(0, int(ends[-1]) + bits, chunk)
    needs = np.interp(at, [0, *ends, ends[-1] + bits], [0, *times, times[-1] + cycles])
    return Stream(int(times[-1]) + cycles, needs.astype(np.int64))


class LoadCycles(NamedTuple):
    """A load, predicted.

    Parameters
    ----------
    cycles
        From its start pulse to the last write.
    words, burst
        Words through the port; those at the start between which no cycle is left.
    spans
        Spans of time after its start in which words fall due evenly: begin, end, words.
    """

    cycles: int
    words: int
    burst: int
    spans: tuple[tuple[int, int, int], ...] = ()

    def traffic(self, begin: int) -> list[tuple[int, int, int]]:
        """Return when the words are taken if the load starts at ``begin``: (begin, end, words)."""
        return [(begin + first, begin + end, words) for first, end, words in self.spans]


def load_cycles(streams: Sequence[Stream], config: Config, *, latency: int = 4) -> LoadCycles:
    """Predict a load whose columns have the port for themselves.

    Parameters
    ----------
    streams
        Of the columns.
    config
        The machine.
    latency
        Of the memory.
    """
    sizes = [stream.needs.size for stream in streams]
    end, grants = kernel().fetch(
        np.concatenate([stream.needs for stream in streams]),
        np.cumsum([0, *sizes]),
        np.array([stream.cycles for stream in streams]),
        config.port_bits,
        config.pair_cycles > 1,
        latency + (LINKED_READ - 1) * config.registered_links,  # (its last link is a lane's)
    )
    end += (LINKED_START + LINKED_END // 2) * config.registered_links
    gaps = np.flatnonzero(np.diff(grants) > 1)
    burst = int(gaps[0]) + 1 if gaps.size else grants.size
    spans = tuple(
        (int(part[0]), int(part[-1]) + 1, part.size)
        for part in (grants[:burst], *np.array_split(grants[burst:], SPANS))
        if part.size
    )
    return LoadCycles(int(end), grants.size, burst, spans)
