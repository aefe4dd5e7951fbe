"""Records: the program's loads and runs, with the weight streams that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.codes.weights import ColumnStream, column_tables, encode_column
from thresher.golden.compiler.layout import Layout, StoredMap
from thresher.golden.compiler.passes import Pass
from thresher.golden.compiler.stages import Addition, Stage
from thresher.golden.config import Config, Skip
from thresher.golden.descriptors import (
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    Kind,
    counter_words,
)
from thresher.golden.multipliers import encode
from thresher.golden.network import Multiply

__all__ = ["ProgramWriter"]

IntArray = npt.NDArray[np.int64]


def _column_streams(
    passes: Sequence[Pass], lookups: Sequence[IntArray | None], config: Config
) -> list[list[bytes]]:
    """Return the weight streams of a stage's passes, a list of the columns' for each.

    A column's tables have the entries that it uses in any pass, and come with the first one.
    """
    stage, lanes = passes[0].stage, config.lanes
    weights = encode(stage.codebook, config.multiplier, config.weight_bits)
    coded: list[list[bytes]] = [[] for _ in passes]
    cells = [part.tap_counts(lanes).T.ravel() for part in passes]  # taps lie by column, then row
    ends = [np.concatenate([[0], np.cumsum(counts)]) for counts in cells]
    for column in range(lanes):
        bounds = [end[column * lanes : (column + 1) * lanes + 1] for end in ends]
        indices = [
            part.taps.index[bound[0] : bound[-1]]
            for part, bound in zip(passes, bounds, strict=True)
        ]
        used = np.unique(np.concatenate(indices))
        streams = []
        for number, part in enumerate(passes):
            outputs = part.columns[column]
            local = np.searchsorted(used, indices[number])
            rows = []
            for row in range(lanes):
                first, last = bounds[number][row : row + 2]
                mine = local[first - bounds[number][0] : last - bounds[number][0]]
                rows.append((part.groups[row], part.position[first:last], mine))
            streams.append(
                ColumnStream(
                    bias=_filled(stage.bias[outputs], part.made(column)),
                    scale=_filled(stage.scale[outputs], part.made(column)),
                    shift=_filled(stage.shift[outputs], part.made(column)),
                    codebook=weights[used],
                    rows=rows,
                    lookup=lookups[number],
                )
            )
        codes = column_tables(streams, config)
        for number, stream in enumerate(streams):
            coded[number].append(encode_column(stream, config, number == 0, codes))
    return coded


def _filled(constants: IntArray, size: int) -> IntArray:
    """Return constants with zeros behind them."""
    return np.concatenate([constants, np.zeros(size - constants.size, np.int64)])


class _Rings:
    """Stores that passes fill one after another; says which runs must be finished for a load."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ends = [np.zeros(config.multipliers + 2, np.int64)]
        self.depths = np.array(
            [config.tap_depth] * config.multipliers + [config.group_depth, config.channel_depth]
        )
        self.table: IntArray | None = None  # that the columns hold
        self.looked_up = 0  # runs up to the last that looks up

    def add(self, part: Pass) -> tuple[int, int, int, IntArray | None]:
        """Return (runs needed, group_base, channel_base, table to load) of the next pass."""
        start = self.ends[-1]
        constants = part.channels * part.rounds
        sizes = [*part.tap_counts(self.config.lanes).ravel(), max(part.groups) + 1, constants]
        end = start + np.array(sizes)
        needs = 0
        while np.any(end - self.ends[needs] > self.depths):
            needs += 1
        self.ends.append(end)
        table = part.stage.lookup
        if table is not None:
            if self.table is not None and np.array_equal(table, self.table):
                table = None
            else:
                self.table, needs = table, max(needs, self.looked_up)
            self.looked_up = len(self.ends) - 1
        *_, group, channel = start.tolist()
        bases = group % self.config.group_depth, channel % self.config.channel_depth
        return needs, *bases, table


def _run_values(part: Pass, config: Config, skip: Skip) -> dict[str, int]:
    stage, addition = part.stage, part.stage.addition
    phase_height, phase_width = stage.phase_shape
    values = {
        "kind": Kind.RUN,
        "send_zeros": not skip.skips_activations,
        "gate": skip is Skip.GATE,
        "lookup": stage.lookup is not None,
        "add": addition is not None,
        "scale_operand": 0,
        "multiply": 0,
        "broadcast": 0,
        "height": stage.in_shape[1],
        "width": stage.in_shape[2],
        "out_height": stage.out_shape[1],
        "out_width": stage.out_shape[2],
        "ring_rows": part.ring_rows,
        "stride_y": stage.stride[0],
        "stride_x": stage.stride[1],
        "pad_y": stage.padding[0],
        "pad_x": stage.padding[1],
        "kernel_height": phase_height,
        "kernel_width": phase_width,
        "channels": part.channels,
        "row_size": part.row_size,
        "map_size": stage.out_shape[1] * part.row_size % config.accumulator_depth,
        "extent_y": stage.extent[0],
        "channel_groups": stage.channel_groups,
        "phase_groups": phase_height * phase_width,
        "round_groups": max(part.groups) // part.rounds if part.rounds > 1 else 0,
        "clip_low": stage.clip[0],
        "clip_high": stage.clip[1],
        "rounding": stage.rounding,
        "operand_scale": 0,
        "operand_shift": 0,
    }
    values |= _pool_values(part, config)
    if addition is not None:
        values |= _addition_values(addition, stage)
    return values


def _pool_values(part: Pass, config: Config) -> dict[str, int]:
    """Return the fields of a run that say how its values are pooled."""
    stage, pooling = part.stage, part.stage.pooling
    half = 1 << config.activation_bits - 1
    low, high = pooling.clip or (-half, half - 1)
    return {
        "pool": pooling.kind,
        "pool_pad_y": pooling.padding[0],
        "pool_pad_x": pooling.padding[1],
        "pool_height": pooling.kernel[0],
        "pool_width": pooling.kernel[1],
        "pool_stride_y": pooling.stride[0],
        "pool_stride_x": pooling.stride[1],
        "pooled_height": stage.result_shape[1],
        "pooled_width": stage.result_shape[2],
        "pool_scale": pooling.scale,
        "pool_shift": pooling.shift,
        "pool_rounding": pooling.rounding,
        "pool_low": low,
        "pool_high": high,
        "pool_origin": pooling.origin,
        "pool_scales": len(_cut_scales(part, config)),
        "pool_room_y": stage.out_shape[1] + pooling.padding[0] - pooling.kernel[0],
        "pool_room_x": stage.out_shape[2] + pooling.padding[1] - pooling.kernel[1],
    }


def _addition_values(addition: Addition, stage: Stage) -> dict[str, int]:
    """Return the fields of a run that adds or multiplies, over those of one that does not."""
    layer = addition.layer
    values = {
        "pool_scale": layer.scale,
        "pool_shift": layer.shift,
        "pool_rounding": layer.rounding,
        "pool_low": layer.clip[0],
        "pool_high": layer.clip[1],
    }
    if isinstance(layer, Multiply):
        return values | {
            "multiply": 1,
            "broadcast": addition.operand.shape != stage.out_shape,
            "operand_shift": ADD_HEADROOM,
        }
    return values | {
        "scale_operand": addition.scale_operand,
        "operand_scale": layer.operand_scale,
        "operand_shift": layer.operand_shift,
    }


def _cut_scales(part: Pass, config: Config) -> list[dict[str, int]]:
    """Return the records of the scales of windows that lack something.

    Where it does not matter what they lack, the table of the hardware has the same scale for all
    that it may take them to lack.
    """
    pooling = part.stage.pooling
    if pooling.cut_scales is None:
        return []
    table = np.array(pooling.cut_scales)
    for axis, lacks in enumerate(pooling.lacking(part.stage.out_shape)):
        if table.shape[axis] == 1 and lacks.any():
            table = table.repeat(config.pool_lacks + 1, axis)
    return [
        {"rows": rows, "columns": columns, "scale": scale}
        for (rows, columns), scale in np.ndenumerate(table)
        if rows or columns
    ]


class ProgramWriter:
    """Records of the program, in order, with what they refer to laid out in memory."""

    def __init__(self, config: Config, layout: Layout, skip: Skip, inputs: int) -> None:
        self.config, self.layout, self.skip, self.inputs = config, layout, skip, inputs
        self.rings = _Rings(config)
        self.loads: list[list[int]] = []
        self.needs: list[int] = []
        self.behind: list[bool] = []  # is a load to stand behind the run before its own
        self.runs: list[list[int]] = []
        self.weight_bytes = 0
        self.counter_addresses: list[int] = []

    def add(self, passes: Sequence[Pass], maps: Mapping[str, StoredMap]) -> None:
        """Add load and run of each pass of a stage; each round writes a segment of the result."""
        places = [self.rings.add(part) for part in passes]
        lookups = [lookup for *_, lookup in places]
        streams = _column_streams(passes, lookups, self.config)
        segment = 0
        for number, part in enumerate(passes):
            needs, group_base, channel_base, _ = places[number]
            bases = {"group_base": group_base, "channel_base": channel_base}
            self.needs.append(needs)
            self.behind.append(number > 0 and _loads_longer(part, passes[number - 1], self.config))
            self._add_load(part, bases, streams[number])
            self._add_run(part, bases, maps, segment)
            segment += part.rounds

    def _add_load(self, part: Pass, bases: Mapping[str, int], streams: Sequence[bytes]) -> None:
        number = len(self.loads)
        phase_height, phase_width = part.stage.phase_shape
        words = LOAD.pack(
            {
                "kind": Kind.LOAD,
                "needs": self.needs[number],
                "layer": number,
                "channels": part.channels,
                "row_size": part.row_size,
                "kernel_height": phase_height,
                "kernel_width": phase_width,
                **bases,
            }
        )
        size = self.config.port_bits // 8
        for column, stream in enumerate(streams):
            address = self.layout.put_bytes(stream)
            self.weight_bytes += len(stream)
            words += LOAD_LANE.pack(
                {
                    "address": address,
                    "channels": part.made(column),
                    "words": -(-len(stream) // size),
                }
            )
        self.loads.append(words)

    def _add_run(
        self, part: Pass, bases: Mapping[str, int], maps: Mapping[str, StoredMap], segment: int
    ) -> None:
        number = len(self.runs)
        counters = self.layout.reserve(counter_words(self.config.port_bits))
        self.counter_addresses.append(counters)
        result = maps[part.stage.result]
        words = RUN.pack(
            {
                **_run_values(part, self.config, self.skip),
                **bases,
                "needs": number + 1,
                "layer": number,
                "maps": self.inputs if part.rounds == 1 else part.rounds,
                "counters": counters,
                "out_pitch": result.pitches[segment],
            }
        )
        for record in _cut_scales(part, self.config):
            words += POOL_SCALE.pack(record)
        for lane in range(self.config.lanes):
            streams = part.reading.of(lane)
            words += RUN_LANE.pack(
                {
                    "segments": len(streams),
                    "channels": part.made(lane) // part.rounds,
                    "out_address": result.addresses[segment][lane],
                }
            )
            for stream in streams:
                words += _segment(
                    maps[stream.map], stream.segment, stream.number, again=part.rounds > 1
                )
            if part.operand is not None:
                name, at = part.operand
                words += _segment(maps[name], at, lane)
        self.runs.append(words)

    def words(self) -> list[int]:
        """All records: each load a run ahead of its own, or behind the run that it waits for.

        A load that takes longer than the run before its own stands behind that run: both start at
        once then, and the input is read while the load's first words are awaited.
        """
        words: list[int] = []
        loads = 0
        for number, run in enumerate(self.runs):
            while loads < len(self.loads) and self.needs[loads] <= number:
                if loads > number + (not self.behind[loads]):
                    break
                words += self.loads[loads]
                loads += 1
            words += run
        return [*words, Kind.END]


def _loads_longer(part: Pass, before: Pass, config: Config) -> bool:
    """Whether a pass takes longer to load than the one before it to compute, if all is dense."""
    loading = part.tap_counts(config.lanes).sum(axis=0).max()
    _, height, width = before.stage.out_shape
    computing = before.tap_counts(config.lanes).max() * height * width
    return bool(loading > computing)


def _segment(stored: StoredMap, segment: int, number: int, *, again: bool = False) -> list[int]:
    return RUN_SEGMENT.pack(
        {
            "address": stored.addresses[segment][number],
            "channels": stored.segments[segment][number].size,
            "pitch": 0 if again else stored.pitches[segment],
        }
    )
