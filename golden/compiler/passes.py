"""Passes: a stage cut along its output channels so that each part fits the machine's stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.reading import Reading, deal, level, shares
from thresher.golden.compiler.stages import Stage, Taps, Work
from thresher.golden.config import Config
from thresher.golden.descriptors import Pool

__all__ = [
    "FitError",
    "Limits",
    "OperandSegment",
    "Pass",
    "cut_into_passes",
    "fixed_passes",
    "limits_of",
    "most_rounds",
    "pass_of",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

OperandSegment = tuple[tuple[str, int], list[IntArray]]
"""Map and segment of an operand, and the outputs of each column to which it is added."""

_TAPS_A_TOKEN = 2.5  # at least, of an element, in a round
_ROUND_COST = 4.0  # cycles of a round beside its taps
_PASS_COST = 300.0  # cycles of a pass beside its weights and taps
_FIELD = (1 << 12) - 1  # most channels of a column, and rows of a ring, that a record can say


class FitError(ValueError):
    """A layer that does not fit the machine; says which store is short and by how much."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One load and one run.

    Parameters
    ----------
    stage
        The stage that it is a part of.
    reading
        What each lane reads.
    columns
        Output channels of each column, in the order of their accumulators.
    channels
        N, output channels of the widest column in a round.
    ring_rows
        Output rows that the accumulators hold.
    groups
        Start pointers of each lane, less the closing one.
    taps, rows, column_of, position
        Parallel arrays: the taps, row and column of each one's processing element, its position
        there (group x N + n); sorted by column, row, position.
    operand
        Map and segment of the operand that the columns add, or None.
    rounds
        The run reads its input so many times, each time for a share of each column's outputs, whose
        sums drain while those of the next round add up.
    """

    stage: Stage
    reading: Reading
    columns: list[IntArray]
    channels: int
    ring_rows: int
    groups: list[int]
    taps: Taps
    rows: IntArray
    column_of: IntArray
    position: IntArray
    operand: tuple[str, int] | None = None
    rounds: int = 1

    @property
    def segments(self) -> list[list[IntArray]]:
        """Output channels of each column in each round; each round stores a segment."""
        shares = [self.made(column) // self.rounds for column in range(len(self.columns))]
        return [
            [
                column[number * share : (number + 1) * share]
                for column, share in zip(self.columns, shares, strict=True)
            ]
            for number in range(self.rounds)
        ]

    def made(self, column: int) -> int:
        """Return the channels that a column makes, over all rounds.

        There may be a few more than its outputs: they are 0 and lie behind those of the last round,
        and as zeros at the end of a row they are not stored.
        """
        return -(-self.columns[column].size // self.rounds) * self.rounds

    @property
    def row_size(self) -> int:
        """Accumulators of one output row."""
        return self.stage.out_shape[2] * self.channels

    def tap_counts(self, lanes: int) -> IntArray:
        """Taps of each processing element, shape (lanes, lanes) by row and column."""
        return np.bincount(self.rows * lanes + self.column_of, minlength=lanes * lanes).reshape(
            lanes, lanes
        )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the stores allow a pass of a stage.

    Parameters
    ----------
    channels
        Most output channels a column for which a row drains while the next accumulates.
    tight
        Most for which the sums fit at all.
    """

    channels: int
    tight: int


def _rows_needed(stage: Stage) -> int:
    """Output rows that are open at once, at least."""
    height, out_height = stage.in_shape[1], stage.out_shape[1]
    rows = np.arange(out_height)
    opens = np.maximum(0, rows * stage.stride[0] - stage.padding[0])
    completes = rows * stage.stride[0] - stage.padding[0] + stage.extent[0] - 1
    completes = np.minimum(height - 1, completes)
    # Row r opens while every row that completes at or after its first input row is still open.
    return int(np.max(rows + 1 - np.searchsorted(completes, opens)))


def _short(stage: Stage, store: str, parameter: str, need: int, have: int) -> FitError:
    return FitError(
        f"layer {stage.name} does not fit: {store} needs {need} words and {parameter} is {have}; "
        f"raise {parameter} or use more lanes"
    )


def _check_lacks(stage: Stage, config: Config) -> None:
    """Raise if means divide by what the hardware's table of scales does not tell apart."""
    if stage.pooling.cut_scales is None:
        return
    sizes = np.shape(stage.pooling.cut_scales)
    lacks = stage.pooling.lacking(stage.out_shape)
    for axis, name in enumerate(("rows", "columns")):
        most = lacks[axis].max() if sizes[axis] > 1 else 0
        if most > config.pool_lacks:
            raise FitError(
                f"layer {stage.name} does not fit: means divide by the places inside of the map,"
                f" a window has {most} {name} outside, and pool_lacks is {config.pool_lacks};"
                " raise pool_lacks"
            )


def limits_of(stage: Stage, config: Config) -> Limits:
    """Return how many output channels a column a pass may have.

    Raises
    ------
    FitError
        If not even one fits.
    """
    size = max(*stage.in_shape[1:], *stage.out_shape[1:])
    if size >= 1 << config.map_bits:
        raise FitError(
            f"layer {stage.name} does not fit: a side of a map is {size} and map_bits is "
            f"{config.map_bits}; raise map_bits"
        )
    out_width = stage.out_shape[2]
    rows_needed = _rows_needed(stage)
    depth = config.accumulator_depth
    if rows_needed * out_width > depth:
        raise _short(
            stage, "the accumulator store", "accumulator_depth", rows_needed * out_width, depth
        )
    most = min(config.channel_depth, _FIELD)
    if stage.pooling.kind is not Pool.NONE:
        live = -(-stage.pooling.kernel[0] // stage.pooling.stride[0])
        pooled = stage.pooling.shape[1] * min(live, stage.pooling.shape[0])
        if pooled > config.pool_depth:
            raise _short(stage, "the pooling store", "pool_depth", pooled, config.pool_depth)
        most = min(most, config.pool_depth // pooled)
        _check_lacks(stage, config)
    tight = min(most, depth // (rows_needed * out_width))
    roomy = min(most, depth // ((rows_needed + 1) * out_width))
    return Limits(channels=roomy or tight, tight=tight)


def _check_reading(stage: Stage, reading: Reading, config: Config) -> None:
    widest = max(reading.channels(lane) for lane in range(config.lanes))
    groups = widest * stage.channel_groups + 1
    if groups > config.group_depth:
        raise _short(stage, "the start-pointer store", "group_depth", groups, config.group_depth)
    segments = max(len(numbers) for numbers in reading.lanes)
    if segments > config.segments:
        raise FitError(
            f"layer {stage.name} does not fit: it reads {segments} segments a lane and segments "
            f"is {config.segments}; raise segments or tap_depth"
        )


def _rows_of(stage: Stage, reading: Reading, work: Work, column: IntArray, lanes: int) -> IntArray:
    """Deal the taps, which are sorted by input channel, to the lanes that read their channels."""
    blocks = list(reading.blocks)
    block = reading.block_of(stage.in_shape[0])[work.taps.channel]
    if all(len(readers) == 1 for readers in blocks):
        return np.array([readers[0] for readers in blocks], np.int64)[block]
    rows = np.zeros(column.size, np.int64)
    cell = block * lanes + column
    by_cell = np.asarray(np.bincount(cell, work.cost, len(blocks) * lanes), np.float64)
    taken = shares(by_cell.reshape(-1, lanes), blocks, lanes)
    order = np.argsort(cell, kind="stable")
    ends = np.cumsum(np.bincount(cell, minlength=len(blocks) * lanes))
    for number, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        if start < end:
            readers = np.array(blocks[number // lanes])
            parts = taken[number // lanes, readers, number % lanes]
            mine = order[start:end]
            dealt = level(deal(int(end - start), parts), work.cost[mine], parts)
            rows[mine] = readers[dealt]
    return rows


def _accumulators_a_position(
    stage: Stage, work: Work, columns: Sequence[IntArray], config: Config
) -> int:
    """Return N: the channels of the widest column, or one more.

    An element whose outputs read one input channel each (depthwise) adds to one n of each
    position. If N is even, all of its additions hit one bank of the accumulators, and the drain
    has to wait for them; so N is made odd, where there is room.
    """
    widest = max(column.size for column in columns)
    wider = widest | 1
    pairs = np.unique(work.taps.output * stage.in_shape[0] + work.taps.channel).size
    rows = config.accumulator_depth // (stage.out_shape[2] * wider)
    room = min(config.channel_depth, _FIELD)
    if pairs > stage.out_shape[0] or rows <= _rows_needed(stage) or wider > room:
        return widest
    return wider


def _groups_of(stage: Stage, taps: Taps) -> IntArray:
    """Return the group of each tap among those of its channel: by stride phase, then by kernel."""
    (stride_y, stride_x), (dilation_y, dilation_x) = stage.stride, stage.dilation
    phase_height, phase_width = stage.phase_shape
    ky, kx = taps.ky * dilation_y, taps.kx * dilation_x
    phase = (ky % stride_y) * stride_x + kx % stride_x
    row, column = ky // stride_y, kx // stride_x
    return np.asarray((phase * phase_height + row) * phase_width + column)


def pass_of(
    stage: Stage,
    work: Work,
    reading: Reading,
    columns: Sequence[IntArray],
    config: Config,
    *,
    rounds: int = 1,
) -> Pass:
    """Place the taps of the columns' outputs.

    Parameters
    ----------
    work
        Taps that are loaded, and the cycles that each takes.
    reading
        What each lane reads.
    columns
        Output channels of each column.
    rounds
        Times that the input is read.
    """
    lanes = config.lanes
    shares = [-(-column.size // rounds) for column in columns]
    channels = max(shares)
    if rounds == 1:
        channels = _accumulators_a_position(stage, work, columns, config)
    column_of = np.full(stage.out_shape[0], -1, np.int64)
    round_of = np.zeros(stage.out_shape[0], np.int64)
    n_of = np.zeros(stage.out_shape[0], np.int64)
    for number, (outputs, share) in enumerate(zip(columns, shares, strict=True)):
        column_of[outputs] = number
        round_of[outputs], n_of[outputs] = np.divmod(np.arange(outputs.size), max(1, share))
    work = work.select(np.flatnonzero(column_of[work.taps.output] >= 0))
    in_channel: IntArray = _groups_of(stage, work.taps) * channels + n_of[work.taps.output]

    # In the order of the tokens that meet them, so that each token's taps are shared out.
    places = reading.places(stage.in_shape[0])
    size = stage.channel_groups * channels
    groups = [reading.channels(lane) * stage.channel_groups for lane in range(lanes)]
    round_size = max(groups) * channels
    in_channel += round_of[work.taps.output] * round_size
    first_place = places.max(axis=0)[work.taps.channel]
    order = np.argsort(first_place * size + in_channel, kind="stable")
    work, in_channel = work.select(order), in_channel[order]
    taps = work.taps
    column = column_of[taps.output]
    rows = _rows_of(stage, reading, work, column, lanes)
    position = places[rows, taps.channel] * size + in_channel
    order = np.lexsort((position, rows, column))
    return Pass(
        stage=stage,
        reading=reading,
        columns=list(columns),
        channels=channels,
        ring_rows=min(config.accumulator_depth // (stage.out_shape[2] * channels), _FIELD),
        groups=groups if rounds == 1 else [max(groups) * rounds] * lanes,
        taps=taps.select(order),
        rows=rows[order],
        column_of=column[order],
        position=position[order],
        rounds=rounds,
    )


def most_rounds(taps: float, tokens: float, outputs: int) -> float:
    """Return how many rounds are worth it.

    Parameters
    ----------
    taps, tokens
        Of an element.
    outputs
        Of a column.
    """
    return min(taps / (_TAPS_A_TOKEN * max(1.0, tokens)), sqrt(outputs / _ROUND_COST))


def _rounds(
    stage: Stage, work: Work, reading: Reading, columns: Sequence[IntArray], config: Config
) -> int:
    """Choose how often a run reads a vector, so that one round's sums drain during the next.

    The sums of a fully connected layer are all complete at its end. In rounds only those of the
    last one are left to drain then; but tokens come more often, with fewer taps each.
    """
    if stage.out_shape[1:] != (1, 1) or stage.addition or stage.pooling.kind is not Pool.NONE:
        return 1
    zero = 0 if stage.lookup is None else int(stage.lookup[0])
    if zero or not stage.clip[0] <= 0 <= stage.clip[1]:  # of the channels that fill up a round
        return 1
    sizes = [column.size for column in columns]
    work = work.select(np.flatnonzero(np.isin(work.taps.output, np.concatenate(columns))))
    density = np.zeros(stage.in_shape[0])
    np.add.at(density, work.taps.channel, work.cost)
    np.divide(
        density,
        np.bincount(work.taps.channel, minlength=density.size),
        out=density,
        where=density > 0,
    )
    groups = max(reading.channels(lane) for lane in range(config.lanes)) * stage.channel_groups
    positions = stage.in_shape[1] * stage.in_shape[2]
    tokens = positions * max(
        sum(float(density[stream.wanted].sum()) for stream in reading.of(lane))
        for lane in range(config.lanes)
    )
    each = work.cost.sum() / config.multipliers
    most = min(most_rounds(each, tokens, max(sizes)), (config.group_depth - 1) / groups)
    for rounds in range(int(most), 1, -1):
        shares = [-(-size // rounds) for size in sizes]
        fills = all(size > share * (rounds - 1) for size, share in zip(sizes, shares, strict=True))
        if fills and rounds * max(shares) <= min(config.channel_depth, _FIELD):
            return rounds
    return 1


def _parts(columns: Sequence[IntArray], size: int, last: int) -> list[list[IntArray]]:
    """Cut all columns alike: ``size`` channels each, and, if not 0, the ``last`` ones apart."""
    widest = max(column.size for column in columns)
    bounds = [*range(0, widest - last, size), widest - last, widest]
    return [
        [column[first:end] for column in columns]
        for first, end in pairwise(bounds if last else bounds[:-1])
    ]


def cut_into_passes(
    stage: Stage,
    work: Work,
    reading: Reading,
    columns: Sequence[IntArray],
    config: Config,
    *,
    most: int | None = None,
    one_input: bool = False,
    streamed: bool = False,
) -> list[Pass]:
    """Cut a stage into the fewest passes of equal numbers of channels that fit.

    Parameters
    ----------
    stage, work, reading, columns
        As for :func:`pass_of`.
    most
        Most channels a column, where others have to be cut alike.
    one_input
        The program has one input, so a run may read it in rounds.
    streamed
        Weights are loaded while the network runs. A stage that takes longer to load than to compute
        has a last pass of just so many channels that they load while those before them compute.

    Raises
    ------
    FitError
        If not even one output channel a column fits.
    """
    lanes = config.lanes
    _check_reading(stage, reading, config)
    limit = min(limits_of(stage, config).channels, most or _FIELD)
    widest = max(column.size for column in columns)
    count = -(-widest // limit)
    loading = np.bincount(work.taps.output, minlength=stage.out_shape[0])
    computing = work.cost.sum() / config.multipliers
    longest = float(max(loading[column].sum() for column in columns))
    streamed &= longest > computing
    if streamed and count == 1 and widest > 1 and computing > _PASS_COST:
        count = 2
    while True:
        last = 0  # of the channels, in a pass of their own
        if streamed and count > 1:
            last = int(np.ceil(widest * computing / ((count - 1) * longest + computing)))
        size = -(-(widest - last) // (count - (last > 0)))
        parts = _parts(columns, size, last)
        passes = []
        for number, part in enumerate(parts):
            rounds = 1  # since each reads the input through the port, for which loads wait
            if one_input and (not streamed or number == len(parts) - 1):
                rounds = _rounds(stage, work, reading, part, config)
            passes.append(pass_of(stage, work, reading, part, config, rounds=rounds))
        fullest = max(int(part.tap_counts(lanes).max()) for part in passes)
        # Half the store each, so that the next pass loads while one computes.
        fair = config.tap_depth - 1 if count == 1 else config.tap_depth // 2
        if fullest <= fair:
            return passes
        if size == 1:
            if fullest < config.tap_depth:
                return passes
            raise _short(stage, "the tap store", "tap_depth", fullest + 1, config.tap_depth)
        equal = count - (last > 0)
        count = max(count + 1, min(widest, equal * fullest // fair + (last > 0)))
        while count < widest and -(-widest // count) == size:
            count += 1


def fixed_passes(
    stage: Stage,
    work: Work,
    reading: Reading,
    segments: Sequence[OperandSegment],
    config: Config,
) -> list[Pass]:
    """Make a pass for each segment of an operand, if they fit.

    Raises
    ------
    FitError
        If one of them does not.
    """
    _check_reading(stage, reading, config)
    limits = limits_of(stage, config)
    passes = [
        replace(pass_of(stage, work, reading, columns, config), operand=operand)
        for operand, columns in segments
    ]
    widest = max(part.channels for part in passes)
    if widest > limits.tight:
        need, have = widest * config.accumulator_depth // limits.tight, config.accumulator_depth
        raise _short(stage, "the accumulator store", "accumulator_depth", need, have)
    fullest = max(int(part.tap_counts(config.lanes).max()) for part in passes)
    if fullest >= config.tap_depth:
        raise _short(stage, "the tap store", "tap_depth", fullest + 1, config.tap_depth)
    return passes
