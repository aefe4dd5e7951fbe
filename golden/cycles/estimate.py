"""Estimates of networks without data: layers of stated shapes and densities, in random patterns.

Channels are shared out to lanes and columns by their taps, a layer is cut into passes by the stores
of the machine, as docs/compiler.md says. Passes and layers that are alike
are predicted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.mapping import assign_columns
from thresher.golden.config import Config, Skip
from thresher.golden.cycles.kernels import kernel
from thresher.golden.cycles.loads import (
    Constants,
    Load,
    Stream,
    TableSizes,
    element_cycles,
    make_load,
    random_stream,
)
from thresher.golden.cycles.runs import (
    LaneInput,
    PortLoads,
    RunCycles,
    Taps,
    predict_run,
)
from thresher.golden.cycles.sequence import LoadStep, RunStep, sequence
from thresher.golden.cycles.shapes import Shape
from thresher.golden.descriptors import LOAD, RUN
from thresher.golden.errors import ThresherError

__all__ = ["Estimate", "LayerCycles", "estimate"]

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

INDEX_BITS = (
    5  # entropy of a weight's index, Deep Compression: 5 bits in linear layers, 8 in others
)
MOST_WEIGHTS = 1 << 25  # of a layer whose channels are assigned one by one
SHARED_IMBALANCE = 1.15  # an input that shares out worse is read by all lanes, docs/compiler.md


@dataclass(kw_only=True)
class LayerCycles:
    """A layer, predicted.

    Parameters
    ----------
    name
        Of the layer.
    passes
        How many runs it takes.
    cycles, load_wait
        Of its runs, as the counters of these names.
    macs_dense, macs
        Multiplications, those with padding included; taps walked.
    bounds
        What alone would take so many cycles: taps of the fullest element, tokens of the longest
        lane, words to drain, words through the port, loading.
    """

    name: str
    passes: int = 0
    cycles: int = 0
    load_wait: int = 0
    macs_dense: int = 0
    macs: int = 0
    bounds: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A network, predicted: cycles from start to done, and its layers."""

    cycles: int
    layers: list[LayerCycles]


@dataclass(frozen=True)
class _Pass:
    """A load and a run, and what they leave in the stores."""

    load: Load
    run: dict[str, int]
    lanes: list[LaneInput]
    taps: Taps
    columns: list[int]
    out_words: list[Int64Array]
    sizes: tuple[int, int, int]  # taps of the fullest element, start pointers, channel constants


class _Layer:
    """A layer cut into passes of random weights."""

    def __init__(  # noqa: PLR0917
        self,
        shape: Shape,
        segments: Sequence[int],
        config: Config,
        skip: Skip,
        densities: tuple[float, float],
        rng: np.random.Generator,
        latency: int,
    ) -> None:
        self.latency = latency
        self.shape, self.config, self.skip, self.rng = shape, config, skip, rng
        self.weights, self.activations = densities
        size = config.lanes
        most = -(-shape.channels // size)
        self.shared = size > 1 and most * size / shape.channels > SHARED_IMBALANCE
        self.pattern = self._pattern()
        if self.pattern is None:  # so large that chance balances it
            channels, outs = np.arange(shape.channels), np.arange(shape.out)
            self.lanes = [channels[k::size] for k in range(size)]
            self.columns = [outs[k::size] for k in range(size)]
        else:
            taps = self.pattern.sum(axis=1, dtype=np.int64).astype(float)  # (channels, out)
            if self.shared:
                self.lanes = [np.arange(shape.channels)] * size
                work = np.repeat(taps.sum(axis=0)[:, None], size, axis=1)
            else:
                self.lanes = assign_columns(np.repeat(taps.sum(axis=1)[:, None], size, axis=1))
                work = np.stack([taps[lane].sum(axis=0) for lane in self.lanes], axis=1)
            self.columns = assign_columns(work)
        count = 1 if self.shared else len(segments)
        self.segments = [
            [part.size for part in np.array_split(mine, min(count, max(1, mine.size)))]
            for mine in self.lanes
        ]
        self.phase = -(-shape.kernel // shape.stride)
        self.channel_groups = (self.phase * shape.stride) ** 2
        self.sizes = self._cut()

    def _pattern(self) -> BoolArray | None:
        """Weights that taps are made of, shape (channels, places, out); None if too many."""
        shape = self.shape
        size = (shape.channels, shape.kernel**2, shape.out)
        if np.prod(size) > MOST_WEIGHTS:
            return None
        taken = self.weights if self.skip.skips_weights else 1.0
        pattern = self.rng.random(size, dtype=np.float32) < taken
        if shape.groups > 1:
            group_in = np.arange(shape.channels) // (shape.channels // shape.groups)
            group_out = np.arange(shape.out) // (shape.out // shape.groups)
            pattern &= (group_in[:, None] == group_out)[:, None, :]
        return np.asarray(pattern)

    def _cut(self) -> list[int]:
        """Channels a column of each pass; the fewest passes that fit."""
        shape, config = self.shape, self.config
        widest = max(column.size for column in self.columns)
        rows = -(-shape.kernel // shape.stride) + (shape.kernel > 1)
        need = rows * shape.out_size
        limit = config.accumulator_depth // (need + shape.out_size)
        limit = min(limit or config.accumulator_depth // need, config.channel_depth)
        kernel_size, stride, _ = shape.pool
        if kernel_size:
            live = min(-(-kernel_size // stride), shape.written_size)
            limit = min(limit, config.pool_depth // (live * shape.written_size))
        groups = max(lane.size for lane in self.lanes) * self.channel_groups + 1
        for store, parameter, short in (
            ("the accumulator or pooling store", "accumulator_depth and pool_depth", limit == 0),
            ("the start-pointer store", "group_depth", groups > config.group_depth),
        ):
            if short:
                raise ThresherError(
                    f"layer {shape.name} does not fit: {store} is too small; "
                    f"raise {parameter} or use more lanes"
                )
        taken = self.weights if self.skip.skips_weights else 1.0
        inputs = min(self.lanes[0].size, -(-shape.channels // shape.groups))
        if shape.groups > 1:
            inputs = max(1, inputs // config.lanes)
        each = inputs * shape.kernel**2 * taken / (config.lanes if self.shared else 1)
        count = -(-widest // limit)
        while True:
            size = -(-widest // count)
            taps = each * size
            taps += 5 * np.sqrt(taps)  # what chance adds to the fullest element
            fair = config.tap_depth if count == 1 else config.tap_depth // 2
            if taps < fair or size == 1:
                break
            count += 1
        return [min(size, widest - first) for first in range(0, widest, size)]

    def make(self, number: int) -> _Pass:
        """Return a pass with random weights and activations."""
        shape, config, rng = self.shape, self.config, self.rng
        first = sum(self.sizes[:number])
        columns = [column[first : first + self.sizes[number]] for column in self.columns]
        channels = max(column.size for column in columns)
        run = self._run(channels)
        taps, streams, most = self._weights(columns, channels, run)
        load = make_load(streams, config, latency=self.latency)
        lanes = []
        shared = None
        for lane, segments in zip(self.lanes, self.segments, strict=True):
            if shared is None or not self.shared:
                shared = rng.random(shape.size**2 * lane.size) < self.activations
            lanes.append(LaneInput([count for count in segments if count], shared.view(np.uint8)))
        fmt = config.rlc
        out_words = []
        for column in columns:
            mask = rng.random(shape.written_size**2 * column.size) < self.activations
            out_words.append(
                np.stack(
                    kernel().row_words(
                        mask.view(np.uint8), shape.written_size, fmt.max_run, fmt.pairs
                    )
                )
            )
        groups = max(lane.size for lane in self.lanes) * self.channel_groups + 1
        return _Pass(
            load=load,
            run=run,
            lanes=lanes,
            taps=taps,
            columns=[column.size for column in columns],
            out_words=out_words,
            sizes=(most, groups, channels),
        )

    def _run(self, channels: int) -> dict[str, int]:
        shape, config = self.shape, self.config
        kernel_size, stride, padding = shape.pool
        row_size = shape.out_size * channels
        return {
            "maps": 1,
            "send_zeros": not self.skip.skips_activations,
            "gate": self.skip is Skip.GATE,
            "add": 0,
            "height": shape.size,
            "width": shape.size,
            "out_height": shape.out_size,
            "out_width": shape.out_size,
            "ring_rows": min(config.accumulator_depth // row_size, 4095),
            "stride_y": shape.stride,
            "stride_x": shape.stride,
            "pad_y": shape.padding,
            "pad_x": shape.padding,
            "kernel_height": self.phase,
            "kernel_width": self.phase,
            "channels": channels,
            "row_size": row_size,
            "map_size": shape.out_size * row_size % config.accumulator_depth,
            "extent_y": shape.kernel,
            "channel_groups": self.channel_groups,
            "phase_groups": self.phase**2,
            "round_groups": 0,
            "pool": 1 if kernel_size else 0,
            "pool_pad_y": padding,
            "pool_pad_x": padding,
            "pool_height": kernel_size or 1,
            "pool_width": kernel_size or 1,
            "pool_stride_y": stride,
            "pool_stride_x": stride,
            "pooled_height": shape.written_size,
            "pooled_width": shape.written_size,
        }

    def _weights(
        self, columns: list[Int64Array], channels: int, run: dict[str, int]
    ) -> tuple[Taps, list[Stream], int]:
        """Taps of the elements, their streams, fullest element."""
        shape, config, rng = self.shape, self.config, self.rng
        size, s, phase = config.lanes, shape.stride, self.phase
        at = np.arange(shape.kernel)
        within = ((at % s)[:, None] * s + at % s) * phase**2 + (at // s)[:, None] * phase + at // s
        group = np.arange(self.channel_groups) % phase**2
        shift = group // phase * run["row_size"] + group % phase * channels
        low = ((np.arange(channels) - shift[:, None]) & 3).astype(np.uint8)
        elements: list[list[tuple[Int64Array, npt.NDArray[np.uint8]]]] = [[] for _ in range(size)]
        streams = []
        most = 0
        for column in columns:
            cycles = []
            bits = 0
            for row, lane in enumerate(self.lanes):
                taps = np.zeros((lane.size, self.channel_groups, channels), bool)
                shown = (lane.size, shape.kernel**2, column.size)
                if self.pattern is None:
                    taken = self.weights if self.skip.skips_weights else 1.0
                    here = rng.random(shown, dtype=np.float32) < taken
                else:
                    here = self.pattern[lane][:, :, column]
                taps[:, within.ravel(), : column.size] = here
                flat = np.flatnonzero(taps)
                if self.shared:  # dealt one by one
                    flat = flat[np.arange(flat.size) % size == row]
                groups = lane.size * self.channel_groups
                counts = np.bincount(flat // channels, minlength=groups)
                offsets = low.ravel()[flat % low.size]
                if self.skip is Skip.GATE:
                    offsets = offsets + 4 * (rng.random(flat.size) >= self.weights)
                elements[row].append((counts, offsets.astype(np.uint8)))
                most = max(most, flat.size)
                escape = config.run_symbols - 1
                cycles.append(element_cycles(flat, groups, channels, config))
                bits += 36 + _pair_bits(flat, escape)
            constants = Constants(column.size, shared=False)
            tables = TableSizes(config.run_symbols, 2**INDEX_BITS)
            streams.append(random_stream(cycles, bits, constants, tables, config))
        held = Taps.of_elements([one for row in elements for one in row])
        return held, streams, most


def _pair_bits(positions: Int64Array, escape: int) -> int:
    """Bits of an element's pairs: the entropy of its runs, and of as many indices."""
    runs = np.diff(positions, prepend=-1) - 1
    escapes, rest = np.divmod(runs, escape)
    counts = np.bincount(rest, minlength=escape + 1).astype(float)
    counts[escape] = escapes.sum()
    share = counts[counts > 0] / max(1.0, counts.sum())
    return int(-(counts.sum() * share * np.log2(share)).sum()) + INDEX_BITS * positions.size


def _order(passes: Sequence[_Pass], config: Config) -> list[tuple[bool, int, int]]:
    """Records (is a run, pass, needs): each load behind the run before its own."""
    depths = np.array([config.tap_depth, config.group_depth, config.channel_depth])
    ends = [np.zeros(3, np.int64)]
    needs = []
    for one in passes:
        end = ends[-1] + np.array(one.sizes)
        least = 0
        while np.any(end - ends[least] > depths):
            least += 1
        needs.append(least)
        ends.append(end)
    order: list[tuple[bool, int, int]] = []
    for number, least in enumerate(needs):
        order += [(False, number, least), (True, number, number + 1)]
    return order


def estimate(
    shapes: Sequence[Shape],
    config: Config,
    skip: Skip = Skip.BOTH,
    *,
    weights: float = 0.3,
    activations: float = 0.5,
    seed: int = 0,
    latency: int = 4,
) -> Estimate:
    """Estimate a network of which only shapes and densities are known.

    Parameters
    ----------
    shapes
        Its layers, one after another; the first one's input is dense.
    config, skip
        The machine and the mode.
    weights, activations
        Shares of weights and of activations that are not zero.
    seed
        Of the random patterns.
    latency
        Of the memory.

    Raises
    ------
    ThresherError
        If a layer does not fit the machine, or numba is missing.

    Examples
    --------
    >>> guess = estimate([Shape("one", 16, 8, 16, 3, 1, 1)], Config(lanes=2))
    >>> guess.layers[0].passes, guess.layers[0].macs_dense
    (1, 147456)
    """
    rng = np.random.default_rng(seed)
    made: dict[tuple[Shape, int, int], tuple[_Pass, list[RunCycles]]] = {}
    passes: list[tuple[LayerCycles, _Pass, list[RunCycles]]] = []
    segments = [1]
    layers = []
    for number, shape in enumerate(shapes):
        plan = _Layer(
            shape,
            segments,
            config,
            skip,
            (weights, activations if number else 1.0),
            rng,
            latency,
        )
        layers.append(LayerCycles(name=shape.name, macs_dense=shape.macs))
        for at, size in enumerate(plan.sizes):
            key = (replace(shape, name=""), len(segments), size)
            if key not in made:
                made[key] = (plan.make(at), [])
            passes.append((layers[-1], *made[key]))
        segments = plan.sizes
    steps: list[LoadStep | RunStep] = []
    for is_run, at, needs in _order([one for _, one, _ in passes], config):
        _, one, results = passes[at]
        if not is_run:
            steps.append(LoadStep(needs, len(LOAD.words) + config.lanes, one.load))
            continue
        words = len(RUN.words) + sum(1 + len(lane.segments) for lane in one.lanes)

        def predict(
            record: int, shared: PortLoads, one: _Pass = one, results: list[RunCycles] = results
        ) -> RunCycles:
            if not results:
                results.append(
                    predict_run(
                        one.run, one.lanes, one.taps, one.columns, config, one.out_words,
                        record, shared, latency=latency,
                    )
                )  # fmt: skip
            # Others of its kind have other loads beside them.
            return replace(results[0], loads=None)

        steps.append(RunStep(needs, words, predict))
    total = sequence(steps, config, latency=latency)
    for (layer, one, _), result, wait in zip(passes, total.passes, total.load_wait, strict=True):
        layer.passes += 1
        layer.cycles += result.cycles
        layer.load_wait += wait
        layer.macs += result.walking
        bounds = {**result.bounds, "loading": one.load.cycles}
        bounds["port"] += one.load.words
        for name, value in bounds.items():
            layer.bounds[name] = layer.bounds.get(name, 0) + value
    return Estimate(total.cycles, layers)
