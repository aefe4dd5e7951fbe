"""Passes: a stage cut along its output channels so that each part fits the machine's stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.mapping import Placement
from thresher.golden.compiler.stages import Stage
from thresher.golden.config import Config
from thresher.golden.descriptors import Pool

__all__ = ["FitError", "Pass", "Taps", "cut_into_passes"]

IntArray = npt.NDArray[np.int64]


class FitError(ValueError):
    """A layer that does not fit the machine; says which store is short and by how much."""


@dataclass(frozen=True)
class Taps:
    """Taps of a stage as parallel arrays: output, input channel, kernel row, column, index."""

    output: IntArray
    channel: IntArray
    ky: IntArray
    kx: IntArray
    index: IntArray

    @classmethod
    def of(cls, stage: Stage, *, skip_zeros: bool) -> Taps:
        """Return the taps that exist, without the zero weights if those are skipped."""
        present = stage.present
        if skip_zeros:
            present = present & (stage.codebook[stage.weights] != 0)
        output, channel, ky, kx = np.nonzero(present)
        return cls(output, channel, ky, kx, stage.weights[output, channel, ky, kx])

    def select(self, chosen: npt.NDArray[np.bool_] | IntArray) -> Taps:
        """Return the chosen ones."""
        return Taps(*(array[chosen] for array in vars(self).values()))


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One load and one run.

    Parameters
    ----------
    stage
        The stage that it is a part of.
    columns
        Output channels of each column, in the order of their accumulators.
    channels
        N, output channels of the widest column.
    ring_rows
        Output rows that the accumulators hold.
    groups
        Start pointers of each lane, less the closing one.
    taps, rows, column_of, position
        Parallel arrays: the taps, row and column of each one's processing element, its position
        there (group x N + n); sorted by column, row, position.
    """

    stage: Stage
    columns: list[IntArray]
    channels: int
    ring_rows: int
    groups: list[int]
    taps: Taps
    rows: IntArray
    column_of: IntArray
    position: IntArray

    @property
    def row_size(self) -> int:
        """Accumulators of one output row."""
        return self.stage.out_shape[2] * self.channels

    def tap_counts(self, lanes: int) -> IntArray:
        """Taps of each processing element, shape (lanes, lanes) by row and column."""
        return np.bincount(self.rows * lanes + self.column_of, minlength=lanes * lanes).reshape(
            lanes, lanes
        )


def _rows_needed(stage: Stage) -> int:
    """Output rows that are open at once, at least."""
    height, out_height = stage.in_shape[1], stage.out_shape[1]
    rows = np.arange(out_height)
    opens = np.maximum(0, rows * stage.stride[0] - stage.padding[0])
    completes = rows * stage.stride[0] - stage.padding[0] + stage.extent[0] - 1
    completes = np.minimum(height - 1, completes)
    # Row r opens while every row that completes at or after its first input row is still open.
    return int(max(np.sum(completes[: row + 1] >= opens[row]) for row in rows))


def _short(stage: Stage, store: str, parameter: str, need: int, have: int) -> FitError:
    return FitError(
        f"layer {stage.name} does not fit: {store} needs {need} words and {parameter} is {have}; "
        f"raise {parameter} or use more lanes"
    )


def _place(
    stage: Stage,
    taps: Taps,
    placement: Placement,
    columns: list[IntArray],
    ring_rows: int,
) -> Pass:
    lanes = len(columns)
    channels = max(column.size for column in columns)
    column_of = np.full(stage.out_shape[0], -1, np.int64)
    n_of = np.zeros(stage.out_shape[0], np.int64)
    for number, outputs in enumerate(columns):
        column_of[outputs] = number
        n_of[outputs] = np.arange(outputs.size)
    taps = taps.select(column_of[taps.output] >= 0)

    local = np.zeros(stage.in_shape[0], np.int64)
    lane_of = np.zeros(stage.in_shape[0], np.int64)
    for lane in range(lanes):
        mine = placement.lane(lane)
        local[mine] = np.arange(mine.size)
        lane_of[mine] = lane
    groups = [placement.lane(lane).size * stage.channel_groups for lane in range(lanes)]

    (stride_y, stride_x), (dilation_y, dilation_x) = stage.stride, stage.dilation
    phase_height, phase_width = stage.phase_shape
    ky, kx = taps.ky * dilation_y, taps.kx * dilation_x
    phase = (ky % stride_y) * stride_x + kx % stride_x
    group: IntArray = local[taps.channel] * stage.channel_groups
    group += phase * phase_height * phase_width + (ky // stride_y) * phase_width + kx // stride_x
    column: IntArray = column_of[taps.output]
    position: IntArray = group * channels + n_of[taps.output]
    order = np.lexsort((position, column))
    if placement.shared:
        # Dealt one by one, so that each lane has an equal share of every token's taps.
        rank = np.empty(order.size, np.int64)
        starts = np.searchsorted(column[order], np.arange(lanes))
        rank[order] = np.arange(order.size) - starts[column[order]]
        rows = rank % lanes
    else:
        rows = lane_of[taps.channel]
    order = np.lexsort((position, rows, column))
    return Pass(
        stage=stage,
        columns=columns,
        channels=channels,
        ring_rows=ring_rows,
        groups=groups,
        taps=taps.select(order),
        rows=rows[order],
        column_of=column[order],
        position=position[order],
    )


def cut_into_passes(
    stage: Stage,
    placement: Placement,
    columns: list[IntArray],
    config: Config,
    *,
    skip_zeros: bool,
) -> list[Pass]:
    """Cut a stage into the fewest passes of equal numbers of channels that fit.

    Raises
    ------
    FitError
        If not even one output channel a column fits.
    """
    lanes = config.lanes
    widest = max(column.size for column in columns)
    out_width = stage.out_shape[2]
    rows_needed = _rows_needed(stage)
    if rows_needed * out_width > config.accumulator_depth:
        raise _short(
            stage,
            "the accumulator store",
            "accumulator_depth",
            rows_needed * out_width,
            config.accumulator_depth,
        )
    # One row more than needed lets a row drain while the next accumulates.
    roomy = config.accumulator_depth // ((rows_needed + 1) * out_width)
    limit = roomy or config.accumulator_depth // (rows_needed * out_width)
    limit = min(limit, config.channel_depth, (1 << 12) - 1)
    if stage.pooling.kind is not Pool.NONE:
        live = -(-stage.pooling.kernel[0] // stage.pooling.stride[0])
        pooled = stage.pooling.shape[1] * min(live, stage.pooling.shape[0])
        if pooled > config.pool_depth:
            raise _short(stage, "the pooling store", "pool_depth", pooled, config.pool_depth)
        limit = min(limit, config.pool_depth // pooled)
    groups = max(placement.lane(lane).size for lane in range(lanes)) * stage.channel_groups + 1
    if groups > config.group_depth:
        raise _short(stage, "the start-pointer store", "group_depth", groups, config.group_depth)
    taps = Taps.of(stage, skip_zeros=skip_zeros)
    count = -(-widest // limit)
    while True:
        size = -(-widest // count)
        passes = []
        for first in range(0, widest, size):
            chosen = [column[first : first + size] for column in columns]
            channels = max(column.size for column in chosen)
            rows = config.accumulator_depth // (out_width * channels)
            rows = min(rows, (1 << 12) - 1)
            passes.append(_place(stage, taps, placement, chosen, rows))
        most = max(int(part.tap_counts(lanes).max()) for part in passes)
        # Half the store each, so that the next pass loads while one computes.
        fair = (config.tap_depth if count == 1 else config.tap_depth // 2) - 1
        if most <= fair:
            return passes
        if size == 1:
            if most < config.tap_depth:
                return passes
            raise _short(stage, "the tap store", "tap_depth", most + 1, config.tap_depth)
        count = max(count + 1, min(widest, count * most // fair))
        while count < widest and -(-widest // count) == size:
            count += 1
