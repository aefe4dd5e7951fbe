"""One run on the cycle model: from what the lanes read and the elements hold to cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.config import Config
from thresher.golden.cycles.kernels import kernel
from thresher.golden.cycles.latencies import (
    ADDER,
    CHUNK,
    COMPACT_CHUNK,
    DIGIT,
    ENCODER,
    FINISHED,
    LINKED_END,
    LINKED_OUTPUT,
    LINKED_READ,
    LINKED_TOKEN,
    LINKED_WRITE,
    LOOKUP,
    PACKER,
    POOL_HEADROOM,
    POOL_PAD,
    POOL_PLACE,
    POOL_RESULT,
    POOL_ROW,
    POOL_SCALE,
    POOL_SENT,
    POOL_SEVERAL,
    POOL_WINDOW,
    POOLER,
    REQUANTISER,
    SCALINGS,
    SERIAL,
    SERIAL_RESULT,
    SOUTH,
    SUM_HEADROOM,
    SUMMING,
    WORDS,
)
from thresher.golden.cycles.loads import Load, load_rest
from thresher.golden.cycles.state import (
    FAR,
    L_CHUNK,
    LEAST_PLACES,
    NEXT,
    W_LAST,
    Run,
    State,
    new_state,
)

__all__ = ["LaneInput", "LoadsAfter", "PortLoads", "RunCycles", "Taps", "predict_run"]

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]


class PortLoads(NamedTuple):
    """Loads that may share a run's port, in order, in the run's time.

    Parameters
    ----------
    loads
        The loads.
    begins
        Of each: when its record can have been read; the cycles for which it is read, behind the
        load before; words of the program before it and up to its end.
    state
        Of the fetchers, if the first load is under way: bytes, else None.
    program
        When words of the program are asked for if none waits for the port.
    """

    loads: tuple[Load, ...] = ()
    begins: tuple[tuple[int, int, int, int], ...] = ()
    state: bytes | None = None
    program: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class LoadsAfter:
    """The loads of a run when it is over, in its time.

    Parameters
    ----------
    times
        When each of those that have started starts and ends; None: it is under way.
    state
        Of the fetchers.
    at
        The cycle up to which they have gone.
    program
        When the program's words got the port.
    """

    times: list[tuple[int, int | None]]
    state: Int64Array
    at: int
    program: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LaneInput:
    """What a lane reads in a run.

    Parameters
    ----------
    segments
        Channels of each segment, in order.
    mask
        1 where a value is not zero, in the order of reading: map, row, segment, position, channel.
    """

    segments: Sequence[int]
    mask: ByteArray


@dataclass(frozen=True)
class Taps:
    """Taps of all processing elements, those of one in order.

    Parameters
    ----------
    pointers
        First tap of each group, and the end of the last one: shape (P, groups + 1, P), by row,
        group and column.
    low
        Lowest two bits of each tap's accumulator offset; 4 more: its weight is zero. Shape (taps,).
    """

    pointers: Int32Array
    low: ByteArray

    @classmethod
    def of_elements(cls, elements: Sequence[tuple[Int64Array, ByteArray]]) -> Taps:
        """Put together those of PE(0, 0), PE(0, 1), ...: taps of each group, and ``low``."""
        size = isqrt(len(elements))
        groups = max((counts.size for counts, _ in elements), default=0)
        pointers = np.zeros((size, groups + 1, size), np.int32)
        at = 0
        for number, (counts, low) in enumerate(elements):
            row, column = divmod(number, size)
            pointers[row, 1 : counts.size + 1, column] = np.cumsum(counts)
            pointers[row, counts.size + 1 :, column] = low.size
            pointers[row, :, column] += at
            at += low.size
        return cls(pointers, np.concatenate([low for _, low in elements]))


@dataclass(frozen=True, kw_only=True)
class RunCycles:
    """A run, predicted.

    Parameters
    ----------
    cycles
        From the record's dispatch to the last write, as the counter of that name.
    walking
        Cycles in which an element walks a tap, summed over the elements.
    bounds
        What alone would take so many cycles: "taps" of the fullest element, "tokens" of the
        longest lane, words to "drain", words through the "port".
    loads
        What has become of the loads that shared its port; None: they had it for themselves.
    """

    cycles: int
    walking: int
    bounds: dict[str, int] = field(default_factory=dict)
    loads: LoadsAfter | None = field(default=None, compare=False, repr=False)


def _axis(size: int, pad: int, stride: int, outputs: int, kernel_groups: int) -> Int64Array:
    """Place, phase, first and last kernel index of each input position."""
    padded = np.arange(size) + pad
    place = padded // stride
    low = np.maximum(0, place - outputs + 1)
    high = np.minimum(kernel_groups - 1, place)
    return np.stack([place, padded % stride, low, high], axis=1).astype(np.int64)


def _markers(run: Mapping[str, int]) -> Int64Array:
    """Rows that open, complete, and open late with each input row."""
    height, rows = run["height"], run["out_height"]
    first = np.arange(rows) * run["stride_y"] - run["pad_y"]
    opens = np.maximum(0, first)
    completes = np.clip(first + run["extent_y"] - 1, 0, height - 1)
    late = opens >= height
    table = np.zeros((height, 3), np.int64)
    np.add.at(table[:, 0], opens[~late], 1)
    np.add.at(table[:, 1], completes, 1)
    table[-1, 2] = late.sum()
    return table


def _windows(places: int, kernel_size: int, stride: int, pad: int, count: int) -> Int64Array:
    """How many pooling windows hold each place."""
    first = np.arange(count) * stride - pad
    at = np.arange(places)[:, None]
    return np.asarray(((at >= first) & (at < first + kernel_size)).sum(axis=1), np.int64)


def _pooling(run: Mapping[str, int], channels: int, config: Config) -> dict[str, Any]:
    """Fields of :class:`Run` that say how long the pooler takes, and when it rests."""
    serial = config.output_cycles > 1
    nothing = np.zeros(0, np.int64)
    fields: dict[str, Any] = {
        "pool_y": nothing, "pool_x": nothing, "pool_rest": nothing,
        "pool_ends": nothing, "pool_sends": nothing,
        "pool_window": POOL_WINDOW if serial else 1,
        "pool_several": POOL_SEVERAL if serial else 0,
        "pool_place": POOL_PLACE if serial else 0,
    }  # fmt: skip
    if not run["pool"]:
        return fields
    y, x = (
        _windows(
            run[f"out_{side}"], run[f"pool_{side}"], run[f"pool_stride_{axis}"],
            run[f"pool_pad_{axis}"], run[f"pooled_{side}"],
        )
        for axis, side in (("y", "height"), ("x", "width"))
    )  # fmt: skip
    ends_y, ends_x = (
        np.minimum(
            np.arange(run[f"pooled_{side}"]) * run[f"pool_stride_{axis}"]
            - run[f"pool_pad_{axis}"]
            + run[f"pool_{side}"],
            run[f"out_{side}"],
        )
        - 1
        for axis, side in (("y", "height"), ("x", "width"))
    )
    fields |= {"pool_y": y, "pool_x": x}
    fields["pool_ends"], fields["pool_sends"] = np.zeros_like(y), np.zeros_like(x)
    row = run["pooled_width"] * channels
    if serial:  # a place's windows are sent while the input waits, all that are left at its end
        window = POOL_RESULT * channels + POOL_SENT
        fields["pool_ends"][ends_y] = 1
        fields["pool_sends"][ends_x] = 1
        fields["pool_sends"][-1] = x[-1]
        rest = np.full(y.size, POOL_ROW + POOL_PAD * run["pool_pad_x"], np.int64)
        rest[-1] += max(0, int(y[-1]) - 1) * run["pooled_width"] * window
    else:
        rest = np.full(y.size, run["pool_pad_x"], np.int64)
        if x[-1] > 1:  # windows cut by the side are sent while the input waits
            np.add.at(rest, ends_y, int(x[-1]) * channels)
        rest[-1] += max(0, int(y[-1]) - 1) * row
    return fields | {"pool_rest": rest}


def _row_ends(run: Mapping[str, int]) -> Int64Array:
    """Output row with which each written row ends, over all maps."""
    height = run["out_height"]
    ends = np.arange(run["pooled_height"])
    if run["pool"]:
        ends = ends * run["pool_stride_y"] - run["pool_pad_y"] + run["pool_height"] - 1
        ends = np.minimum(ends, height - 1)
    return np.asarray((np.arange(run["maps"])[:, None] * height + ends).ravel(), np.int64)


def _output_cycles(config: Config, run: Mapping[str, int]) -> int:
    """Cycles of a value in the scaler: the serial one takes a product of two digits each."""
    if config.output_cycles == 1:
        return 1
    sums = config.activation_bits + (SUM_HEADROOM if config.residual else POOL_HEADROOM)
    value_digits = -(-(max(config.accumulator_bits + 1, sums) + 1) // DIGIT)
    cycles = value_digits * -(-max(config.scale_bits, POOL_SCALE) // DIGIT)
    if not run["add"]:
        return cycles
    if not config.registered_links:  # the next operand comes behind the sum
        return 2 * cycles + SUMMING
    return max(SCALINGS * cycles, cycles + SUMMING)


def predict_run(  # noqa: PLR0917
    run: Mapping[str, int],
    lanes: Sequence[LaneInput],
    taps: Taps,
    column_channels: Sequence[int],
    config: Config,
    out_words: Sequence[Int64Array],
    record: int = 0,
    shared: PortLoads = PortLoads(),  # noqa: B008  # immutable
    *,
    operands: Sequence[Int64Array] = (),
    latency: int = 4,
) -> RunCycles:
    """Predict a run.

    Parameters
    ----------
    run
        Fields of :data:`thresher.golden.descriptors.RUN`.
    lanes
        What each lane reads.
    taps
        What the elements hold.
    column_channels
        Output channels of each column.
    config
        The machine.
    out_words
        What each column writes of each row of each map: words without headers, and continuation
        pairs. Shape (2, rows).
    record
        Cycles from dispatch to start, in which the record is read.
    shared
        Loads that share the port.
    operands
        Words of an operand that each column reads with each row, headers included; none: there is
        no operand.
    latency
        Of the memory, from a request to its response.

    Raises
    ------
    ThresherError
        If numba is missing.
    """
    jitted = kernel()
    size = config.lanes
    geometry = np.array(
        [
            run["row_size"], run["channels"], run["map_size"], run["channel_groups"],
            run["phase_groups"], run["kernel_width"], run["stride_x"], run["round_groups"],
        ]
    )  # fmt: skip
    y_table = _axis(
        run["height"], run["pad_y"], run["stride_y"], run["out_height"], run["kernel_height"]
    )
    x_table = _axis(
        run["width"], run["pad_x"], run["stride_x"], run["out_width"], run["kernel_width"]
    )
    markers = _markers(run)
    entries, visit_words, scripts = [], [], []
    made: dict[tuple[int, ...], tuple[Any, Any, tuple[int, int]]] = {}
    walked: list[Int64Array] = []
    written_entries = 0
    for lane in lanes:
        key = (id(lane.mask), *lane.segments)
        if key not in made:  # lanes may all read the same
            script, words, taken = jitted.write_script(
                lane.mask, np.asarray(lane.segments, np.int64), run["maps"], y_table, x_table,
                markers, geometry, taps.pointers.shape[1], bool(run["send_zeros"]),
                bool(run["gate"]), config.rlc.max_run, config.rlc.pairs,
            )  # fmt: skip
            first, written_entries = written_entries, written_entries + len(script)
            entries.append(script)
            made[key] = words, taken, (first, written_entries)
        words, taken, script = made[key]
        visit_words.append(words)
        scripts.append(script)
        walked.append(taken @ np.diff(taps.pointers[len(walked)], axis=0))

    rows = run["maps"] * run["out_height"]
    pooled = run["pool"] != 0
    ends = _row_ends(run)
    serial = config.output_cycles > 1
    through = SOUTH + REQUANTISER + LOOKUP * config.lookup + (PACKER if serial else ENCODER)
    through += SERIAL if serial else 0
    through += POOLER if pooled else ADDER if run["add"] else 0
    linked = config.registered_links
    if linked:  # (in the array a link behind every second row)
        through += (size - 1) // 2 + LINKED_OUTPUT + config.lookup + config.residual + LINKED_WRITE
        through += LINKED_TOKEN + run["add"]
    through += SERIAL_RESULT if serial and (pooled or run["add"]) else 0
    written = _by_row([words for words, _ in out_words], ends, rows)
    # Between pooled values there is time for them, and so there is with a serial scaler.
    continued = _by_row([pairs for _, pairs in out_words], ends, rows)
    if pooled or config.output_cycles > 1:
        continued[:] = 0
    taken = _by_row(operands, ends, rows)
    planes = jitted.write_planes(taps.low, config.accumulator_banks, bool(run["gate"]))
    constants = Run(
        entries=np.concatenate(entries),
        scripts=np.array(scripts, np.int64),
        segments=np.array([len(lane.segments) for lane in lanes]),
        visit_words=np.concatenate(visit_words),
        first_visit=np.cumsum([0, *(words.size for words in visit_words)]),
        height=run["height"],
        maps=run["maps"],
        pointers=taps.pointers.shape[1],
        starts=np.append(taps.pointers, np.zeros(LEAST_PLACES, np.int32)),
        planes=planes.ravel(),
        plane=planes.shape[1],
        channels=np.asarray(column_channels, np.int64),
        row_size=run["row_size"],
        positions_n=run["channels"],
        rows=rows,
        out_width=run["out_width"],
        ring_rows=run["ring_rows"],
        fifo_depth=config.fifo_depth,
        banks=config.accumulator_banks,
        kernel_width=run["kernel_width"],
        input_cycles=max(run["pad_x"], run["pad_y"]) + 3,
        latency=latency + LINKED_READ * linked,
        output_cycles=_output_cycles(config, run),
        **_pooling(run, max(column_channels), config),
        out_words=written,
        out_headers=np.bincount(ends, minlength=rows),
        out_continued=continued,
        operand_words=taken,
        operands_ahead=WORDS if config.output_cycles == 1 else 1,
        program=np.array(shared.program, np.int64),
        through=through,
        needs=_joined([load.needs for load in shared.loads]),
        load_starts=_load_starts(shared.loads, size),
        load_cycles=np.array([load.each for load in shared.loads], np.int64).reshape(-1, size),
        load_begins=np.array(shared.begins, np.int64).reshape(-1, 4),
        chunks=config.port_bits // (CHUNK if config.pair_cycles == 1 else COMPACT_CHUNK),
        compact=config.pair_cycles > 1,
        fetch_latency=latency + (LINKED_READ - 1) * linked,
        load_rest=load_rest(config),
    )
    state = new_state(constants)
    if shared.state is not None:
        state.fetchers[:] = np.frombuffer(shared.state, np.int64).reshape(state.fetchers.shape)
        state.load_times[0, 0] = 0
    jitted.go_on(constants, state)
    # Rows that no window of pooling holds are drained, too.
    finished = int(max(state.writers[:, W_LAST].max() + FINISHED, state.columns[:, NEXT].max()))
    finished += LINKED_END * linked
    moved = [*visit_words, *(words for words, _ in out_words)]
    return RunCycles(
        cycles=record + finished + 1,
        walking=int(np.sum(walked)),
        bounds={
            "taps": int(np.max(walked)),
            "tokens": max(last - first for first, last in scripts),
            "drain": rows * run["row_size"],
            "port": sum(int(words.sum()) + words.size for words in moved)
            + sum(int(words.sum()) for words in operands),
        },
        loads=_loads_after(constants, state, shared.loads),
    )


def _by_row(words: Sequence[Int64Array], ends: Int64Array, rows: int) -> Int64Array:
    """Words of each column by the output row with which they are written, shape (columns, rows)."""
    counts = np.zeros((len(words), rows), np.int64)
    for column, written in enumerate(words):
        if written.size:
            np.add.at(counts[column], ends, written)
    return counts


def _joined(parts: Sequence[Int64Array]) -> Int64Array:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _load_starts(loads: Sequence[Load], size: int) -> Int64Array:
    """First chunk of each load's columns, all loads' chunks being one row."""
    sizes = np.cumsum([0, *(load.needs.size for load in loads)])
    starts = [load.starts + first for load, first in zip(loads, sizes[:-1], strict=True)]
    return np.array(starts, np.int64).reshape(-1, size + 1)


def _loads_after(run: Run, state: State, loads: Sequence[Load]) -> LoadsAfter:
    times: list[tuple[int, int | None]] = [
        (int(start), None if end == FAR else int(end))
        for start, end in state.load_times
        if start != FAR
    ]
    fetchers = state.fetchers.copy()
    if times:
        fetchers[:, L_CHUNK] -= run.load_starts[len(times) - 1, 0]
    granted: list[int] = state.program[: state.port[3], 0].tolist()
    return LoadsAfter(times, fetchers, int(state.port[2]), granted)
