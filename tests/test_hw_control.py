"""Sequencer: records whole, in order, when they are allowed. Counters: counts, and their writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from thresher.golden.config import Config
from thresher.golden.descriptors import (
    COUNTER_BITS,
    COUNTERS,
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    Kind,
    Record,
)
from thresher.hw.control.counters import Counters
from thresher.hw.control.sequencer import Sequencer
from thresher.sim.streams import check_stream_rules, collect_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

Fields = dict[str, int]
NAMES = [name for name, _ in COUNTERS]


def fields_of(rng: np.random.Generator, record: Record, **given: int) -> Fields:
    """Return random values for the fields that are not given."""
    values = {}
    for word in record.words:
        for one in word:
            low = -(1 << one.bits - 1) if one.signed else 0
            values[one.name] = int(rng.integers(low, low + (1 << one.bits)))
    return values | given


@dataclass
class Step:
    """A record of a program."""

    head: Fields
    lanes: list[Fields]
    segments: list[list[Fields]] = field(default_factory=list)
    operands: list[Fields] = field(default_factory=list)
    scales: list[Fields] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        return Kind(self.head["kind"])

    def words(self) -> list[int]:
        if self.kind is Kind.LOAD:
            lanes = [word for one in self.lanes for word in LOAD_LANE.pack(one)]
            return LOAD.pack(self.head) + lanes
        words = RUN.pack(self.head)
        words += [word for one in self.scales for word in POOL_SCALE.pack(one)]
        for number, (lane, segments) in enumerate(zip(self.lanes, self.segments, strict=True)):
            operand = self.operands[number : number + 1]
            words += RUN_LANE.pack(lane)
            words += [word for one in segments + operand for word in RUN_SEGMENT.pack(one)]
        return words


def expected_scales(step: Step) -> list[Fields]:
    """Return what a run writes to the poolers' tables: the scale of whole windows last."""
    whole = {"rows": 0, "columns": 0, "scale": step.head["pool_scale"]}
    return [*({name: one[name] for name in whole} for one in step.scales), whole]


def load(rng: np.random.Generator, lanes: int, needs: int) -> Step:
    """Return a load that waits for ``needs`` runs."""
    head = fields_of(rng, LOAD, kind=Kind.LOAD, needs=needs)
    return Step(head, [fields_of(rng, LOAD_LANE) for _ in range(lanes)])


def run(rng: np.random.Generator, lanes: int, needs: int) -> Step:
    """Return a run that waits for ``needs`` loads, of 0 to 4 segments a lane.

    It may add, and may have further scales.
    """
    counts = rng.integers(5, size=lanes)
    scales = int(rng.integers(16))
    head = fields_of(rng, RUN, kind=Kind.RUN, needs=needs, pool_scales=scales)
    return Step(
        head,
        [fields_of(rng, RUN_LANE, segments=int(count)) for count in counts],
        [[fields_of(rng, RUN_SEGMENT) for _ in range(count)] for count in counts],
        [fields_of(rng, RUN_SEGMENT) for _ in range(lanes * head["add"])],
        [fields_of(rng, POOL_SCALE) for _ in range(head["pool_scales"])],
    )


def random_program(rng: np.random.Generator, lanes: int) -> list[Step]:
    """Return loads and runs in which nothing waits for what comes after it."""
    steps: list[Step] = []
    loads = runs = 0
    for _ in range(int(rng.integers(1, 9))):
        if rng.random() < 0.5:
            steps.append(load(rng, lanes, int(rng.integers(runs + 1))))
            loads += 1
        else:
            steps.append(run(rng, lanes, int(rng.integers(loads + 1))))
            runs += 1
    return steps


def memory_words(config: Config, steps: list[Step], end: int = Kind.END) -> list[int]:
    """Return the program's memory words, and some that are read ahead."""
    words = [word for step in steps for word in step.words()] + [end]
    per_word = config.port_bits // 64
    words += [0xDEAD_BEEF] * (-len(words) % per_word + 2 * per_word)
    return [
        sum(word << 64 * k for k, word in enumerate(words[at : at + per_word]))
        for at in range(0, len(words), per_word)
    ]


@dataclass
class Seen:
    """What the sequencer did, by cycle."""

    started: list[tuple[int, Kind]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    dispatched: list[int] = field(default_factory=list)
    load_waits: list[int] = field(default_factory=list)
    done_at: int = 0
    unknown: bool = False


class Bench:
    """A sequencer with loaders and an array that are busy for given numbers of cycles."""

    def __init__(self, config: Config, steps: list[Step], seed: int) -> None:
        self.dut = Sequencer(config)
        self.config = config
        self.steps = steps
        self.rng = np.random.default_rng(seed)
        self.seen = Seen()
        self.cycle = 0
        self.durations = {Kind.LOAD: (1, 40), Kind.RUN: (1, 40)}
        self.gaps = 3
        self.undrained = 0  # cycles after the last record in which writes are outstanding

    def run(self, *, end: int = Kind.END, times: int = 1, limit: int = 5000) -> Seen:
        """Run the program ``times`` times, checking every record as it starts."""
        dut = self.dut

        async def feed(ctx: SimulatorContext) -> None:
            for _ in range(times):
                await ctx.tick().until(dut.start)
                words = memory_words(self.config, self.steps, end)
                for word in words:
                    for _ in range(int(self.rng.integers(self.gaps + 1))):
                        await ctx.tick()
                    ctx.set(dut.words.payload, word)
                    ctx.set(dut.words.valid, 1)
                    ready, busy = 0, 1
                    while busy and not ready:
                        _, _, ready, busy = await ctx.tick().sample(dut.words.ready, dut.busy)
                    ctx.set(dut.words.valid, 0)
                    if not busy:  # what was read ahead is dropped
                        break

        async def watch(ctx: SimulatorContext) -> None:
            for _ in range(times):
                ctx.set(dut.start, 1)
                await ctx.tick()
                ctx.set(dut.start, 0)
                await self._watch(ctx, limit)

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(feed, background=True)
        simulator.add_testbench(watch)
        simulator.run()
        return self.seen

    async def _watch(self, ctx: SimulatorContext, limit: int) -> None:
        dut, seen, lanes = self.dut, self.seen, self.config.lanes
        waiting = {
            kind: iter([step for step in self.steps if step.kind is kind])
            for kind in (Kind.LOAD, Kind.RUN)
        }
        busy = {Kind.LOAD: dut.loads_busy, Kind.RUN: dut.run_busy}
        left = dict.fromkeys(busy, 0)
        ended = dict.fromkeys(busy, 0)
        tables: list[dict[tuple[int, int], Any]] = [{} for _ in range(lanes)]
        scales: list[Fields] = []
        undrained = self.undrained
        ctx.set(dut.drained, not undrained)
        sampled = [
            *(dut.done, dut.unknown, dut.load_wait, dut.run_dispatched, dut.run_finished),
            *(dut.load_start, dut.run_start, dut.pool_scale),
            *(write for write in dut.segments),
        ]
        for _ in range(limit):
            values = (await ctx.tick().sample(*sampled))[2:]
            done, unknown, waits, dispatched, finished, *starts, scale = values[:8]
            self.cycle += 1
            seen.load_waits += [self.cycle] * waits
            seen.dispatched += [self.cycle] * dispatched
            if finished:
                seen.finished.append(self.cycle)
                assert not left[Kind.RUN]
            for table, write in zip(tables, values[8:], strict=True):
                if write.valid:
                    table[write.half, write.index] = write.data
            assert not (scale.valid and left[Kind.RUN]), "a run uses the tables"
            scales += [{name: scale[name] for name in ("rows", "columns", "scale")}] * scale.valid
            if done or unknown:
                seen.unknown, seen.done_at = bool(unknown), self.cycle
                if done:
                    assert not any(next(steps, None) for steps in waiting.values())
                    assert not any(left.values())
                    assert not undrained
                return
            for kind, count in left.items():
                left[kind] = max(0, count - 1)
                if count == 1:
                    ctx.set(busy[kind], 0)
                    ended[kind] += 1
            for kind, start in zip((Kind.LOAD, Kind.RUN), starts, strict=True):
                if start:  # busy from the next cycle on
                    step = next(waiting[kind])
                    assert not left[kind]
                    assert ended[Kind.RUN if kind is Kind.LOAD else Kind.LOAD] >= step.head["needs"]
                    self._check_record(ctx, step, tables)
                    if kind is Kind.RUN:
                        assert scales == expected_scales(step)
                        scales.clear()
                    seen.started.append((self.cycle, kind))
                    left[kind] = int(self.rng.integers(*self.durations[kind], endpoint=True))
                    ctx.set(busy[kind], 1)
            if undrained and len(seen.started) and not any(left.values()):
                undrained -= 1
                ctx.set(dut.drained, not undrained)
        raise TimeoutError(f"not done in {limit} cycles")

    def _check_record(
        self, ctx: SimulatorContext, step: Step, tables: list[dict[tuple[int, int], Any]]
    ) -> None:
        head, lanes = (
            (self.dut.load, self.dut.load_lanes)
            if step.kind is Kind.LOAD
            else (self.dut.run, self.dut.run_lanes)
        )
        assert {name: ctx.get(head[name]) for name in step.head} == step.head
        for view, lane in zip(lanes, step.lanes, strict=True):
            assert {name: ctx.get(view[name]) for name in lane} == lane
        for view, operand in zip(self.dut.operands, step.operands, strict=False):
            assert {name: ctx.get(view[name]) for name in operand} == operand
        half = ctx.get(self.dut.half)
        for table, segments in zip(tables, step.segments, strict=False):
            for index, segment in enumerate(segments):
                assert {name: table[half, index][name] for name in segment} == segment


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("lanes", "port_bits"), [(1, 64), (2, 128), (4, 256)])
def test_records_start_whole_in_order_when_they_are_allowed(
    lanes: int, port_bits: int, seed: int
) -> None:
    config = Config(lanes=lanes, port_bits=port_bits)
    steps = random_program(np.random.default_rng(seed), lanes)
    bench = Bench(config, steps, seed)
    bench.gaps = seed % 4
    bench.undrained = seed % 3 * 10
    seen = bench.run(times=2)
    kinds = [step.kind for step in steps]
    for kind in Kind:  # the order within a kind is looked at as they start
        assert [seen for _, seen in seen.started].count(kind) == 2 * kinds.count(kind)
    assert len(seen.dispatched) == len(seen.finished) == 2 * kinds.count(Kind.RUN)


def test_a_machine_without_addition_reads_no_operands() -> None:
    rng = np.random.default_rng(7)
    step = run(rng, 2, 0)
    step.head["add"], step.operands = 0, []
    bench = Bench(Config(lanes=2, residual=0), [step, step], 0)
    assert not hasattr(bench.dut, "operands")
    bench.dut.operands = ()
    assert [kind for _, kind in bench.run().started] == [Kind.RUN] * 2


def test_an_empty_program_is_done_at_once() -> None:
    bench = Bench(Config(lanes=2), [], 0)
    bench.gaps = 0
    assert bench.run().done_at <= 4


def test_a_load_goes_on_beside_a_run_and_a_run_waits_for_its_load() -> None:
    rng = np.random.default_rng(3)
    steps = [load(rng, 2, 0), run(rng, 2, 1), load(rng, 2, 0), run(rng, 2, 2), load(rng, 2, 2)]
    bench = Bench(Config(lanes=2), steps, 0)
    bench.gaps = 0
    bench.durations = {Kind.LOAD: (60, 60), Kind.RUN: (80, 80)}
    seen = bench.run()
    first, begun, beside, after, last = (cycle for cycle, _ in seen.started)
    assert begun > first + 60  # the run waits for the load before it
    assert beside < begun + 15  # the next load does not wait for the run
    assert after > begun + 80  # the array is taken until then
    assert last > after + 80  # two runs must be finished
    assert seen.done_at > last + 60


def test_load_wait_counts_the_cycles_in_which_a_run_waits_for_weights() -> None:
    rng = np.random.default_rng(4)
    for duration in (30, 50):  # longer than it takes to read the run's record
        bench = Bench(Config(lanes=1), [load(rng, 1, 0), run(rng, 1, 1)], 0)
        bench.gaps = 0
        bench.durations = {Kind.LOAD: (duration, duration), Kind.RUN: (5, 5)}
        seen = bench.run()
        # From the load's header to the cycle before the run's: no gap between.
        (dispatched,) = seen.dispatched
        assert seen.load_waits == list(range(dispatched - len(seen.load_waits), dispatched))
        words = len(LOAD.words) + 1
        assert words + duration <= len(seen.load_waits) <= words + duration + 4


def test_a_hidden_load_counts_no_load_wait() -> None:
    rng = np.random.default_rng(5)
    steps = [run(rng, 1, 0), load(rng, 1, 0), run(rng, 1, 1)]
    bench = Bench(Config(lanes=1), steps, 0)
    bench.gaps = 0
    bench.durations = {Kind.LOAD: (10, 10), Kind.RUN: (60, 60)}
    assert bench.run().load_waits == []


@pytest.mark.parametrize("port_bits", [64, 128])
def test_a_record_of_unknown_kind_is_reported_after_those_before_it(port_bits: int) -> None:
    rng = np.random.default_rng(6)
    steps = [load(rng, 2, 0), run(rng, 2, 1)]
    seen = Bench(Config(lanes=2, port_bits=port_bits), steps, 1).run(end=3)
    assert seen.unknown
    assert [kind for _, kind in seen.started] == [Kind.LOAD, Kind.RUN]


@pytest.mark.parametrize("seed", range(6))
def test_counters_are_written_in_order_while_counting_goes_on(seed: int) -> None:
    config = Config(lanes=2, port_bits=(64, 128, 256)[seed % 3])
    per_word = config.port_bits // COUNTER_BITS
    dut = Counters(config)
    rng = np.random.default_rng(seed)
    runs = [rng.integers(0, 1 << 9, (int(rng.integers(40, 80)), len(NAMES))) for _ in range(3)]
    expected = [
        (
            0x1000 * number + at // per_word,
            sum(int(total) << COUNTER_BITS * k for k, total in enumerate(totals[at:][:per_word])),
        )
        for number, totals in enumerate(growth.sum(axis=0) for growth in runs)
        for at in range(0, len(NAMES), per_word)
    ]
    received: list[Any] = []

    async def count(ctx: SimulatorContext) -> None:
        ctx.set(dut.increments, dict.fromkeys(NAMES, 7))
        await ctx.tick().repeat(5)
        ctx.set(dut.clear, 1)  # what was counted until the start is not the first run's
        await ctx.tick()
        ctx.set(dut.clear, 0)
        for number, growth in enumerate(runs):
            for cycle, row in enumerate(growth):
                ctx.set(dut.increments, dict(zip(NAMES, row.tolist(), strict=True)))
                ctx.set(dut.finished, cycle == len(growth) - 1)
                ctx.set(dut.address, 0x1000 * number)
                await ctx.tick()
        ctx.set(dut.finished, 0)

    async def take(ctx: SimulatorContext) -> None:
        stalls = rng.integers(0, 3, len(expected)).tolist()
        received.extend(await collect_stream(ctx, dut.request, len(expected), stalls, 200))
        await ctx.tick()
        assert not ctx.get(dut.busy)

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.request)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(count)
    simulator.add_testbench(take)
    simulator.add_testbench(rules, background=True)
    simulator.run()
    assert [(word.address, word.data) for word in received] == expected
