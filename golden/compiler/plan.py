"""Planning: for each stage, what its lanes read, what its columns make, and in which passes.

Ways to read are compared by the cycles that they are estimated to take; the columns are chosen
for this stage and all that read its result, or whose results must lie where this one lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.mapping import assign_columns
from thresher.golden.compiler.passes import (
    FitError,
    OperandSegment,
    Pass,
    cut_into_passes,
    fixed_passes,
    limits_of,
    most_rounds,
)
from thresher.golden.compiler.reading import Reading, Stream, readings, shares
from thresher.golden.compiler.stages import Stage, Work, outputs_met, token_pieces
from thresher.golden.compiler.views import Parts, View
from thresher.golden.config import Config, Skip

__all__ = ["Plan", "Planner", "Segments"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Segments = Sequence[Sequence[IntArray]]
"""Channels of each stream of each segment of a map, in stream order."""

_BETTER = 0.98  # of the cycles of a simpler plan, to be preferred to it
_LOADED = 0.5  # likewise, of a vector whose weights are streamed: those of one lane take least bits
_OVERLAPS = 1.04  # of the estimate, where lanes share only some of their streams
_OVERLAP = 0.03  # of the cycles of reading and of walking, that the other does not hide
_CONTENTION = 1.25  # cycles of the memory port for a word that is read or written
_VISIT = 3  # cycles of a row of a stream, beside its activations
_FIRST_HEADER = 24  # cycles until the header of an input's first row is there, of several streams
_MOST_DEVIATION = 0.8  # times sqrt(log2(n)): about the greatest of n normal deviations
_FILL = 0.9  # of the tap stores that passes fill on average, where they are cut for others


@dataclass(frozen=True)
class Plan:
    """How a stage runs: its passes, and the cycles an input that they are estimated to take."""

    passes: list[Pass]
    cycles: float


@dataclass(frozen=True)
class _Costs:
    """What is known of a stage's work, in cycles an input."""

    work: Work
    by_channel: FloatArray  # (outputs, input channels)
    pieces: int  # cycles of the activations of a channel that is nowhere zero
    positions: int  # of the input map


class Planner:
    """Plans stages one after another; knows where the maps of those before are stored.

    Parameters
    ----------
    stages
        All stages of the network, in order.
    config, skip
        The machine, its mode.
    densities
        Share of each channel's values that is not zero, by map; NaN, where it is not known, counts
        as 1.
    inputs
        That follow one another.
    streamed
        As for :func:`~thresher.golden.compiler.program.compile_network`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        config: Config,
        skip: Skip,
        densities: Mapping[str, FloatArray],
        *,
        inputs: int = 1,
        streamed: bool = False,
    ) -> None:
        self.inputs, self.streamed = inputs, streamed
        self.stages = list(stages)
        self.config, self.skip, self.densities = config, skip, dict(densities)
        self.stored: dict[str, Segments] = {}
        self.within: dict[str, tuple[str, int]] = {}  # maps that are channels of another
        self.costs: dict[str, _Costs] = {}
        self.added = {
            name
            for stage in stages
            if stage.addition is not None
            for name in stage.addition.operand.maps
        }

    def store(self, result: str, segments: Segments) -> None:
        """Note where a map is stored."""
        self.stored[result] = segments

    def put_within(self, names: Mapping[str, int], real: str) -> None:
        """Note that maps are stored as channels of another, from so many upward."""
        for name, first in names.items():
            self.within[name] = (real, first)
        self.densities[real] = np.concatenate([self.densities[name] for name in names])

    def split(self, stage: Stage, parts: Sequence[Stage]) -> None:
        """Plan other stages in place of one; the first makes a map that was not stored before."""
        at = self.stages.index(stage)
        self.stages[at : at + 1] = parts
        self.costs.pop(stage.result, None)

    def plan(self, stage: Stage, made: Mapping[str, int] | None = None) -> Plan:
        """Plan a stage whose source is stored.

        Parameters
        ----------
        made
            Maps whose channels its result is, and the first channel of each; by default its own.

        Raises
        ------
        FitError
            If it does not fit in any way.
        """
        return self._plan(stage, self.streams(stage.source), made)

    def plan_with_input(self, stage: Stage) -> tuple[Plan, Segments]:
        """Plan the first stage that reads the network's input; returns how that is stored, too."""
        channels = self.densities["input"].size
        lanes = self.config.lanes
        layouts: list[Segments] = []
        if channels >= lanes:
            work = self._read_work("input", channels)
            layouts.append([assign_columns(np.zeros((channels, lanes)), work)])
        if channels <= 2 * lanes and channels <= self.config.segments:
            layouts.append([[np.array([channel]) for channel in range(channels)]])
        if channels < lanes:
            layouts.append([[np.arange(channels)]])
        plans = []
        error: FitError | None = None
        for layout in layouts:
            self.stored["input"] = layout
            try:
                plans.append((self.plan(stage), layout))
            except FitError as found:
                error = error or found
            del self.stored["input"]
        if error is not None and not plans:
            raise error
        best = plans[0]
        for plan in plans[1:]:
            if plan[0].cycles < _BETTER * best[0].cycles:
                best = plan
        return best

    def streams(self, view: View) -> list[Stream]:
        """Return the stored streams that have channels of a view."""
        places: dict[str, list[list[int]]] = {}  # of each channel, where it is in the view
        first = 0
        for name, channels in view.parts:
            real, offset = self.within.get(name, (name, 0))
            if real not in places:
                places[real] = [[] for _ in range(_channels(self.stored[real]))]
            for place, channel in enumerate((channels + offset).tolist(), first):
                places[real][channel].append(place)
            first += channels.size
        streams = []
        for name, wanted in places.items():
            for copy in range(max(map(len, wanted))):
                channel_of = np.array([at[copy] if copy < len(at) else -1 for at in wanted])
                streams += [
                    Stream(
                        map=name,
                        segment=segment,
                        number=number,
                        channels=channel_of[stored],
                        stored=stored,
                    )
                    for segment, columns in enumerate(self.stored[name])
                    for number, stored in enumerate(columns)
                    if np.any(channel_of[stored] >= 0)
                ]
        return streams

    def _plan(self, stage: Stage, streams: list[Stream], made: Mapping[str, int] | None) -> Plan:
        costs = self.costs_of(stage)
        by_channel = costs.by_channel.sum(axis=0)
        stream_work = np.array([by_channel[stream.wanted].sum() for stream in streams])
        fixed = self._operand_segments(stage)
        others = None if fixed else self._others(stage, made or {stage.result: 0})
        choices: list[tuple[float, Reading]] = []
        enough = 0.0  # cycles of the best so far
        for reading in readings(streams, stream_work, self.config.lanes):
            if choices and self._tokens(stage, reading) > _BETTER * enough:
                continue
            columns = _together(fixed) if fixed else self._columns(stage, reading, others)
            cycles = self._cycles(stage, reading, columns, len(fixed))
            cycles *= _OVERLAPS if reading.overlaps else 1
            choices.append((cycles, reading))
            enough = min(cycles, enough or cycles)
        # A vector is read in rounds, the fewer the more tokens it makes; words wait for those of
        # loads. Of a map more readers level what densities do not tell, so no gain is too small.
        vector = stage.out_shape[1:] == (1, 1)
        better = _BETTER if vector or self.streamed else 1.0
        if vector and self.streamed:
            better = _LOADED
        error: FitError | None = None
        while choices:
            best = 0
            for number, (cycles, _) in enumerate(choices):
                if cycles < better * choices[best][0]:
                    best = number
            cycles, reading = choices.pop(best)
            try:
                if fixed:
                    columns = _together(fixed)
                    passes = fixed_passes(stage, costs.work, reading, fixed, self.config)
                else:
                    columns = self._columns(stage, reading, others)
                    most = self._most(stage, made or {stage.result: 0})
                    passes = cut_into_passes(
                        stage,
                        costs.work,
                        reading,
                        columns,
                        self.config,
                        most=most,
                        one_input=self.inputs == 1 and stage.result not in self.added,
                        streamed=self.streamed,
                    )
            except FitError as found:
                error = error or found
                continue
            return Plan(passes, self._cycles(stage, reading, columns, len(passes)))
        raise error or FitError(f"layer {stage.name} reads nothing")

    def costs_of(self, stage: Stage) -> _Costs:
        """Return the work of a stage; kept."""
        if stage.result in self.costs:
            return self.costs[stage.result]
        density = self._density(stage.source)
        taps = stage.taps_sent(skip_zeros=self.skip.skips_weights)
        met = [outputs_met(stage, axis).sum(axis=0) for axis in range(2)]
        cost = density[taps.channel] * met[0][taps.ky] * met[1][taps.kx]
        outputs, channels = stage.out_shape[0], stage.in_shape[0]
        cell = taps.output * channels + taps.channel
        by_channel = np.asarray(np.bincount(cell, cost, outputs * channels), np.float64)
        costs = _Costs(
            work=Work(taps, cost),
            by_channel=by_channel.reshape(outputs, channels),
            pieces=int(np.maximum(1, token_pieces(stage)).sum()),
            positions=stage.in_shape[1] * stage.in_shape[2],
        )
        self.costs[stage.result] = costs
        return costs

    def _density(self, view: View) -> FloatArray:
        if not self.skip.skips_activations:
            return np.ones(view.shape[0])
        return np.concatenate([self._known(name)[channels] for name, channels in view.parts])

    def _columns(self, stage: Stage, reading: Reading, others: FloatArray | None) -> list[IntArray]:
        work = self.costs_of(stage).by_channel
        blocks = list(reading.blocks)
        block_of = reading.block_of(stage.in_shape[0])
        by_block = np.zeros((work.shape[0], len(blocks)))
        for block in range(len(blocks)):
            by_block[:, block] = work[:, block_of == block].sum(axis=1)
        taken = shares(by_block.sum(axis=0)[:, None], blocks, self.config.lanes)[:, :, 0]
        parts = taken / np.maximum(1e-9, taken.sum(axis=1, keepdims=True))
        return assign_columns(by_block @ parts, others)

    def _cycles(
        self, stage: Stage, reading: Reading, columns: Sequence[IntArray], passes: int = 0
    ) -> float:
        """Estimate the cycles of an input, over all passes."""
        config, costs = self.config, self.costs_of(stage)
        lanes = config.lanes
        blocks = list(reading.blocks)
        block_of = reading.block_of(stage.in_shape[0])
        by_column = np.stack([costs.by_channel[column].sum(axis=0) for column in columns], axis=1)
        work = np.zeros((len(blocks), lanes))
        np.add.at(work, block_of, by_column)
        taken = shares(work, blocks, lanes)
        fullest = float(taken.sum(axis=0).max()) * (1 + self._spread(stage, reading))
        widest = max(column.size for column in columns)
        if not passes:
            taps = fullest * costs.work.taps.output.size / max(1e-9, costs.work.cost.sum())
            most = limits_of(stage, config).channels
            passes = max(1, -(-widest // most))
            if taps > config.tap_depth:
                passes = max(passes, int(np.ceil(taps / (config.tap_depth // 2))))
        drained = stage.out_shape[1] * stage.out_shape[2] * widest
        rest = self._last_round(stage, reading, fullest, widest)
        words = passes * self._words_read(stage, reading) + self._words_written(stage, columns)
        read = max(passes * self._tokens(stage, reading), words * _CONTENTION)
        parts = taken / np.maximum(1e-9, work)[:, None]
        visits = max(
            self._visits(stage, reading.of(lane), by_column, parts[block_of, lane])
            for lane in range(lanes)
        )
        waits = self._load_wait(stage, reading, passes)
        return max(fullest, read, drained, visits) + rest + waits + _OVERLAP * (read + fullest)

    def _load_wait(self, stage: Stage, reading: Reading, passes: int) -> float:
        """Estimate the cycles of loads that no run hides, as the pointers of two do not fit."""
        lanes = self.config.lanes
        channels = max(reading.channels(lane) for lane in range(lanes))
        groups = channels * stage.channel_groups
        if 2 * groups <= self.config.group_depth:
            return 0.0
        pairs = self.costs_of(stage).work.taps.output.size / lanes
        return float(passes * lanes * groups) + pairs * self.config.pair_cycles

    def _last_round(self, stage: Stage, reading: Reading, fullest: float, widest: int) -> float:
        """Estimate the cycles of draining the last round of a vector that is read in rounds."""
        if stage.out_shape[1:] != (1, 1) or self.inputs > 1:
            return 0.0
        rounds = most_rounds(fullest, self._tokens(stage, reading), widest)
        return widest / max(1, int(rounds))

    def _spread(self, stage: Stage, reading: Reading) -> float:
        """Estimate the share that the fullest lane has more than is known, as inputs differ.

        Values are zero or not independently of one another, and the most of so many normal
        deviations is wanted of the sets of lanes that read the same. What is not known is half.
        """
        sets = {numbers for numbers in reading.lanes if numbers}
        if len(sets) < 2 or not self.skip.skips_activations:
            return 0.0
        deviations = []
        for numbers in sets:
            parts = [self.densities[reading.streams[n].map] for n in numbers]
            stored = [reading.streams[n].stored for n in numbers]
            density = np.concatenate([part[at] for part, at in zip(parts, stored, strict=True)])
            density = np.nan_to_num(density, nan=0.5)
            count = self.costs_of(stage).positions * density
            deviations.append(float((count * (1 - density)).sum() ** 0.5 / count.sum()))
        return _MOST_DEVIATION * float(np.log2(len(sets)) ** 0.5) * max(deviations)

    def _tokens(self, stage: Stage, reading: Reading) -> float:
        """Estimate the cycles of the lane that has most to read."""
        return max(
            sum(self._stream_cycles(stage, stream) for stream in streams)
            + _FIRST_HEADER * len(streams) * (len(streams) > 1)
            for streams in map(reading.of, range(self.config.lanes))
        )

    def _stream_cycles(self, stage: Stage, stream: Stream) -> float:
        """Estimate the cycles of rows, activations, and positions that have none."""
        costs, density = self.costs_of(stage), self._stream_density(stream)
        tokens = costs.pieces * float(density.sum())
        cycles = max(tokens, costs.positions * self._pairs(density))
        cycles += costs.positions * float(np.prod(1 - density))
        return cycles + stage.in_shape[1] * _VISIT

    def _visits(
        self, stage: Stage, streams: Sequence[Stream], work: FloatArray, parts: FloatArray
    ) -> float:
        """Estimate the cycles of a lane whose streams keep some of its elements busy in turn.

        Parameters
        ----------
        work, parts
            Work of each channel in each column, and the lane's part of it: (channels, columns).
        """
        if len(streams) == 1:
            return 0.0
        total = 0.0
        for stream in streams:
            cycles = self._stream_cycles(stage, stream)
            busiest = (work * parts)[stream.wanted].sum(axis=0).max()
            tokens = max(1.0, cycles / stage.in_shape[1])  # of a row
            total += max(cycles, busiest * max(0.0, 1 - self.config.fifo_depth / tokens))
        return total

    def _words_read(self, stage: Stage, reading: Reading) -> float:
        lanes = map(reading.of, range(self.config.lanes))
        return sum(self._words(stage, stream) for streams in lanes for stream in streams)

    def _words_written(self, stage: Stage, columns: Sequence[IntArray]) -> float:
        _, height, width = stage.result_shape
        density = np.ones(stage.out_shape[0])
        if stage.result in self.densities and self.skip.skips_activations:
            density = self._known(stage.result)
        used = sum(column.size > 0 for column in columns)
        return height * (used + width * float(density.sum()) / self.config.rlc.pairs)

    def _words(self, stage: Stage, stream: Stream) -> float:
        _, height, width = stage.in_shape
        pairs = width * self._pairs(self._stream_density(stream))
        return height * (1 + pairs / self.config.rlc.pairs)

    def _pairs(self, density: FloatArray) -> float:
        """Estimate the pairs of a position: a run too long for its field is continued by more."""
        mean = float(density.mean())
        return density.size * mean / (1 - (1 - mean) ** (1 << self.config.rlc.run_bits))

    def _stream_density(self, stream: Stream) -> FloatArray:
        if not self.skip.skips_activations:
            return np.ones(stream.stored.size)
        return self._known(stream.map)[stream.stored]

    def _known(self, name: str) -> FloatArray:
        return np.nan_to_num(self.densities[name], nan=1.0)

    def _operand_segments(self, stage: Stage) -> list[OperandSegment]:
        """Columns of each pass of a stage that adds: those of its operand."""
        if stage.addition is None:
            return []
        view = stage.addition.operand
        segments = []
        for name in view.maps:
            places, channels = view.places(name)
            place_of = np.empty(places.size, np.int64)
            place_of[channels] = places
            segments += [
                ((name, number), [place_of[column] for column in columns])
                for number, columns in enumerate(self.stored[name])
            ]
        return segments

    def _read_work(self, name: str, channels: int) -> FloatArray:
        """Work of each channel of a map in each stage that reads it, shape (channels, stages)."""
        return self._tied({name: np.arange(channels)}, channels)[0]

    def _others(self, stage: Stage, made: Mapping[str, int]) -> FloatArray:
        return self._tied(self._made(stage, made), stage.out_shape[0])[0]

    def _made(self, stage: Stage, made: Mapping[str, int]) -> dict[str, IntArray]:
        ends = [*sorted(made.values())[1:], stage.out_shape[0]]
        return {
            name: np.arange(first, end)
            for (name, first), end in zip(
                sorted(made.items(), key=lambda item: item[1]), ends, strict=True
            )
        }

    def _most(self, stage: Stage, made: Mapping[str, int]) -> int | None:
        """Most channels a column, for stages whose passes must be those of this one."""
        tied = self._tied(self._made(stage, made), stage.out_shape[0])[1]
        config, most = self.config, None
        for other in tied:
            try:
                limit = limits_of(other, config).channels
            except FitError:
                continue
            taps = self.costs_of(other).work.taps.output.size
            each = taps / other.out_shape[0] / config.lanes  # of an element, for one output
            widest = -(-other.out_shape[0] // config.lanes)
            if each * widest > _FILL * config.tap_depth:
                limit = min(limit, max(1, int(_FILL * (config.tap_depth // 2) / each)))
            most = limit if most is None else min(most, limit)
        return most

    def _tied(self, maps: Mapping[str, IntArray], channels: int) -> tuple[FloatArray, list[Stage]]:
        """Work on channels where they are read, and on those that are added to them.

        Parameters
        ----------
        maps
            Channels of each map, numbered as the result's columns are.

        Returns
        -------
        work, stages
            Shape (channels, kinds); the stages whose results have to lie where these maps lie.
        """
        place_of = dict(maps)
        kinds: list[FloatArray] = []
        tied: list[Stage] = []
        for stage in self.stages:
            if any(name in place_of for name in stage.source.maps):
                kinds.append(
                    _placed(
                        stage.source.parts,
                        place_of,
                        self.costs_of(stage).by_channel.sum(axis=0),
                        channels,
                    )
                )
            operand = stage.addition.operand if stage.addition else None
            if operand is not None and any(name in place_of for name in operand.maps):
                kinds.append(
                    _placed(
                        operand.parts,
                        place_of,
                        self.costs_of(stage).by_channel.sum(axis=1),
                        channels,
                    )
                )
                tied.append(stage)
                result = np.concatenate(
                    [
                        place_of[name][mine] if name in place_of else np.full(mine.size, -1)
                        for name, mine in operand.parts
                    ]
                )
                place_of[stage.result] = result
        return np.stack(kinds, axis=1) if kinds else np.zeros((channels, 0)), tied


def _placed(
    parts: Parts, place_of: Mapping[str, IntArray], work: FloatArray, channels: int
) -> FloatArray:
    """Return work on the channels of a view as work on the channels that they are."""
    placed = np.zeros(channels + 1)  # the last is no channel
    first = 0
    for name, mine in parts:
        if name in place_of:
            np.add.at(placed, place_of[name][mine], work[first : first + mine.size])
        first += mine.size
    return placed[:channels]


def _together(segments: Sequence[OperandSegment]) -> list[IntArray]:
    """Return the channels of each column, over all segments."""
    parts = zip(*(columns for _, columns in segments), strict=True)
    return [np.concatenate(part) for part in parts]


def _channels(segments: Segments) -> int:
    return sum(column.size for columns in segments for column in columns)
