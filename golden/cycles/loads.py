"""How long a load takes: each column's fields and pairs, and the words, which share a port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights.column import LAST_BITS, SHIFT_BITS
from thresher.golden.codes.weights.pairs import LENGTH_BITS
from thresher.golden.config import Config
from thresher.golden.cycles.kernels import kernel
from thresher.golden.cycles.latencies import (
    BUILD,
    CHUNK,
    COMPACT_CHUNK,
    LIMITS,
    LINKED_END,
    LINKED_READ,
    LINKED_START,
    PIPELINE,
    PUT,
    TABLE,
    ZERO,
)
from thresher.golden.cycles.state import FAR, FETCHER_FIELDS, L_ASK, L_CHUNK, L_WORD

__all__ = [
    "NOTHING",
    "Constants",
    "Fetchers",
    "Load",
    "Stream",
    "TableSizes",
    "element_cycles",
    "load_rest",
    "make_load",
    "random_stream",
    "shifted",
    "stream_fields",
]

Int64Array = npt.NDArray[np.int64]


NOTHING = np.zeros(0, np.int64)


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


class Constants(NamedTuple):
    """Channels of a column, and whether scale and shift are in its stream once for all of them."""

    channels: int
    shared: bool

    @property
    def scales(self) -> int:
        """Scales and shifts in the stream."""
        return min(1, self.channels) if self.shared else self.channels

    def bits(self, config: Config) -> int:
        """Return the bits of the constants."""
        scales = self.scales * (config.scale_bits + SHIFT_BITS)
        return self.channels * config.accumulator_bits + scales


class TableSizes(NamedTuple):
    """Tables that a column's stream brings: run lengths; index lengths, 0 of plain weights."""

    runs: int
    indices: int


def stream_fields(
    constants: Constants, lookup: bool, tables: TableSizes | None, config: Config
) -> tuple[Int64Array, Int64Array]:
    """Return the fields of a stream before its first row: bits of each, cycles after it.

    Parameters
    ----------
    constants
        Those of the column.
    lookup
        Whether there is a lookup table.
    tables
        None if those of the previous load stay.
    config
        The machine.
    """
    compact = config.pair_cycles > 1
    most = COMPACT_CHUNK if compact else CHUNK

    def parts(*numbers: int) -> list[tuple[int, int, int]]:
        """Return the fields in which numbers are read."""
        cut = []
        for bits in numbers:
            cut += [(bits % most, 0, int(bits % most > 0)), (most, 0, bits // most)]
        return cut

    bias = [(0, 1, int(compact))]  # a state that asks whether there is another channel
    bias += parts(config.accumulator_bits)
    scale = parts(config.scale_bits, SHIFT_BITS)
    # Bits, cycles after them, how often.
    fields = [(1, 0, 1)]
    for number in range(constants.channels):
        fields += bias + scale * (number < constants.scales)
    fields += [(0, 1, int(compact)), (1, 0, 1)]
    fields += [(config.activation_bits, 0, lookup << config.activation_bits), (1, 0, 1)]
    if tables is not None:
        runs, indices, code_bits = *tables, config.code_bits
        run_lengths, index_lengths = (LENGTH_BITS, 0, runs), (LENGTH_BITS, 0, indices)
        codebook = (config.weight_code_bits, 0, indices)
        alphabet = (1 + LAST_BITS, ZERO if compact else 0, 1)
        if compact:
            fields += [alphabet, run_lengths, (0, LIMITS + runs + 1, 1)]
            fields += [alphabet, index_lengths, (0, LIMITS, 1), codebook]
        else:
            fields += [alphabet, run_lengths, alphabet, index_lengths, codebook]
            # Both tables are to be ready in BUILD, two fields further on.
            building = runs + code_bits + TABLE - (1 + 2 * indices)
            if indices:
                building = max(building, code_bits + TABLE)
            fields.append((0, max(0, building - 2), 1))
    table = np.array(fields, np.int64)
    bits, cycles = np.repeat(table[:, :2].T, table[:, 2], axis=1)
    return bits, cycles


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
    if config.pair_cycles > 1:
        return 2 + BUILD + cost + PIPELINE + left
    # Its fields and pairs are read, and their end, while the element before is written.
    return max(2 + positions.size + int(escapes.sum()) + 1, cost + left)


def random_stream(
    elements: Sequence[int],
    bits: int,
    constants: Constants,
    tables: TableSizes | None,
    config: Config,
) -> Stream:
    """Return the stream of a column of which only the sizes are known.

    Parameters
    ----------
    elements
        Cycles of each element.
    bits
        Of all pairs, taken evenly.
    constants, tables, config
        See :func:`stream_fields`.
    """
    compact = config.pair_cycles > 1
    chunk = COMPACT_CHUNK if compact else CHUNK
    widths, rests = stream_fields(constants, False, tables, config)
    times = np.cumsum((widths > 0) + rests)
    ends = np.cumsum(widths)
    if compact:
        times = times + ends // chunk
    cycles = sum(elements) + (bits // chunk if compact else BUILD + PIPELINE)
    at = np.arange(0, int(ends[-1]) + bits, chunk)
    needs = np.interp(at, [0, *ends, ends[-1] + bits], [0, *times, times[-1] + cycles])
    return Stream(int(times[-1]) + cycles, needs.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Load:
    """A load.

    Parameters
    ----------
    needs
        Of all columns, see :class:`Stream`.
    starts
        First of each column's, shape (P + 1,).
    each
        Cycles of each column if it never waits, shape (P,).
    cycles
        From the start pulse to the last write, with the port for itself.
    words, burst
        Words through the port; those at the start between which it has no cycle left.
    """

    needs: Int64Array
    starts: Int64Array
    each: Int64Array
    cycles: int
    words: int
    burst: int


def make_load(streams: Sequence[Stream], config: Config, *, latency: int = 4) -> Load:
    """Put the streams of a load's columns together.

    Parameters
    ----------
    streams
        Of the columns.
    config
        The machine.
    latency
        Of the memory.
    """
    needs = np.concatenate([stream.needs for stream in streams])
    starts = np.cumsum([0, *(stream.needs.size for stream in streams)])
    each = np.array([stream.cycles for stream in streams], np.int64)
    alone = Fetchers(config, latency)
    grants = np.zeros(needs.size, np.int64)
    load = Load(needs, starts, each, 0, 0, 0)
    alone.begin(load, 0)
    words = alone.fetch(FAR, NOTHING, grants)
    gaps = np.flatnonzero(np.diff(grants[:words]) > 1)
    burst = int(gaps[0]) + 1 if gaps.size else words
    return replace(load, cycles=alone.end() or 0, words=words, burst=burst)


class Fetchers:
    """The weight fetchers and loaders: one load, under way or done, simulated up to ``at``."""

    def __init__(self, config: Config, latency: int) -> None:
        self._latency = latency + (LINKED_READ - 1) * config.registered_links
        self._compact = config.pair_cycles > 1
        self._chunks = config.port_bits // (COMPACT_CHUNK if self._compact else CHUNK)
        self._load: Load | None = None
        self.state = np.zeros((config.lanes, FETCHER_FIELDS), np.int64)
        self.at = 0

    def begin(self, load: Load, at: int) -> None:
        """Start a load."""
        self._load, self.at = load, at
        kernel().begin_load(at, load.starts, self.state)

    def take(self, load: Load, state: Int64Array, shift: int, at: int) -> None:
        """Go on with a load from a state in which all times are ``shift`` less."""
        self._load, self.at = load, at
        self.state = shifted(state, shift)

    def fetch(self, until: int, program: Int64Array, grants: Int64Array | None = None) -> int:
        """Fetch beside the program's words, without a run, until a cycle; return the words."""
        assert self._load is not None, "a load has begun"
        words = kernel().fetch(
            self.at, until, self._load.needs, self._load.starts, self._chunks, self._compact,
            self._latency, self.state, program, NOTHING if grants is None else grants,
        )  # fmt: skip
        self.at = max(self.at, until)
        return int(words)

    def end(self) -> int | None:
        """Return when the load's last write is, None if it has words to fetch."""
        assert self._load is not None, "a load has begun"
        end = int(kernel().load_end(self._load.each, self.state))
        return None if end == FAR else end


def load_rest(config: Config) -> int:
    """Return the cycles from a load's last write until the next can begin, or a run."""
    return 1 + (LINKED_START + LINKED_END // 2) * config.registered_links


def shifted(state: Int64Array, shift: int) -> Int64Array:
    """Return the state of fetchers with all times ``shift`` later."""
    moved = state + shift
    for field in (L_CHUNK, L_WORD):
        moved[:, field] = state[:, field]
    moved[state[:, L_ASK] == FAR, L_ASK] = FAR
    return moved
