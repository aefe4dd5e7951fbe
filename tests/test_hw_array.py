"""PE and Array: sums equal golden under any flow control, rules kept, and on time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.lib import stream
from amaranth.sim import Simulator

from thresher.golden.array import ArrayRun, Taps, Token, array, pe
from thresher.golden.config import Config, MultiplierKind
from thresher.golden.multipliers import encode
from thresher.hw.array.array import Array
from thresher.hw.array.pe import PE
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

Int64Array = npt.NDArray[np.int64]
EVENTS = ("mac", "gated", "starved", "ring_full", "conflict")
OPEN = Token(marker=1, open=1)
COMPLETE = Token(marker=1)


def small(**changes: Any) -> Config:
    """Return a machine whose every memory wraps within a test."""
    sizes: dict[str, Any] = {
        "lanes": 1,
        "activation_bits": 6,
        "weight_bits": 5,
        "accumulator_bits": 16,
        "tap_depth": 32,
        "group_depth": 16,
        "accumulator_depth": 16,
        "fifo_depth": 4,
    }
    return Config(**(sizes | changes))


def make_taps(config: Config, groups: Sequence[Sequence[tuple[int, int]]], first: int = 0) -> Taps:
    """Lay (offset, weight) pairs of each group into stores, from tap address ``first`` on."""
    pointers = np.zeros(config.group_depth, dtype=np.int64)
    offsets = np.zeros(config.tap_depth, dtype=np.int64)
    codes = np.zeros(config.tap_depth, dtype=np.int64)
    at = first
    for group, pairs in enumerate(groups):
        pointers[group] = at % config.tap_depth
        for offset, weight in pairs:
            offsets[at % config.tap_depth] = offset % config.accumulator_depth
            codes[at % config.tap_depth] = encode(weight, config.multiplier, config.weight_bits)
            at += 1
    pointers[len(groups)] = at % config.tap_depth
    return Taps(pointers, offsets, codes)


def random_taps(config: Config, run: ArrayRun, channels: int, rng: random.Random) -> Taps:
    """Return 8 groups of up to 4 taps, a few weights zero, within the window of one row back."""
    limit = (1 << config.weight_bits - 1) - 1
    groups = [
        [
            (rng.randrange(channels) - rng.choice([0, run.row_size]), rng.randint(-limit, limit))
            for _ in range(rng.choice([0, 0, 1, 2, 4]) if channels else 0)
        ]
        for _ in range(8)
    ]
    return make_taps(config, groups, first=rng.randrange(config.tap_depth))


def random_tokens(config: Config, run: ArrayRun, rows: int, rng: random.Random) -> list[Token]:
    """Return the tokens of a map whose input row r meets output rows r and r - 1."""
    tokens = [OPEN]
    limit = 1 << config.activation_bits - 1
    for row in range(rows - 1):
        tokens.append(OPEN)
        for _ in range(rng.choice([0, 3, 12])):
            lo, hi = sorted(rng.choices(range(9), k=2))
            position = (row + 1) * run.row_size + rng.randrange(run.out_width) * run.channels
            value = rng.choice([0, rng.randrange(-limit, limit)])
            base = position % config.accumulator_depth
            tokens.append(Token(lo=lo, hi=hi, base=base, value=value))
        tokens.append(COMPLETE)
    return [*tokens, COMPLETE]


@dataclass
class Seen:
    """What a simulation showed: sums of each column, total and trace of each event."""

    sums: list[list[int]] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    trace: dict[str, list[int]] = field(default_factory=dict)
    cycles: int = 0


@dataclass
class Pauses:
    """Random gaps before what is sent, and stalls before what is received; seeded."""

    rng: random.Random
    most: int = 0

    def draw(self, count: int) -> list[int]:
        return [self.rng.choice([0, 0, self.rng.randint(0, self.most)]) for _ in range(count)]


def words(values: Int64Array) -> list[int]:
    return [int(value) for value in values.ravel()]


async def load(ctx: SimulatorContext, tap: Any, pointer: Any, row: int, taps: Taps) -> None:
    """Write the stores of the element in ``row``, as a loader does."""
    for address, (offset, code) in enumerate(zip(taps.offsets, taps.codes, strict=True)):
        entry = {"offset": int(offset), "code": int(code)}
        ctx.set(tap, {"valid": 1, "row": row, "address": address, "tap": entry})
        await ctx.tick()
    ctx.set(tap.valid, 0)
    for address, value in enumerate(taps.pointers):
        ctx.set(pointer, {"valid": 1, "row": row, "address": address, "value": int(value)})
        await ctx.tick()
    ctx.set(pointer.valid, 0)


async def begin(ctx: SimulatorContext, dut: Any, run: ArrayRun, ring: int, gate: bool) -> None:
    """Set the run's fields and pulse ``start``."""
    ctx.set(dut.run.out_width, run.out_width)
    ctx.set(dut.run.channels, run.channels)
    ctx.set(dut.run.row_size, run.row_size)
    ctx.set(dut.run.ring_rows, ring)
    ctx.set(dut.run.gate, gate)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


def simulate_pe(
    tokens: Sequence[Token],
    taps: Taps,
    config: Config,
    run: ArrayRun,
    *,
    channels: int | None = None,
    north: Int64Array | None = None,
    ring: int = 2,
    gate: bool = False,
    pauses: Pauses | None = None,
) -> Seen:
    """Do as golden ``pe`` does, through the hardware; a token that leaves east is compared."""
    dut = PE(config)
    count = run.channels if channels is None else channels
    rows = sum(token.marker and not token.open for token in tokens)
    words_out = rows * run.out_width * count
    pause = pauses or Pauses(random.Random(0))
    seen = Seen(trace={event: [] for event in EVENTS})
    started = running = False

    async def west(ctx: SimulatorContext) -> None:
        nonlocal started, running
        running = True
        ctx.set(dut.channels, count)
        ctx.set(dut.top, north is None)
        await load(ctx, dut.tap, dut.pointer, 0, taps)
        await begin(ctx, dut, run, ring, gate)
        assert ctx.get(dut.idle)
        started = True
        payloads = [token._asdict() for token in tokens]
        await drive_stream(ctx, dut.i, payloads, pause.draw(len(tokens)))
        for _ in range(2000):
            if ctx.get(dut.idle):
                break
            await ctx.tick()
        assert ctx.get(dut.idle), "still busy"
        running = False

    async def east(ctx: SimulatorContext) -> None:
        stalls = pause.draw(len(tokens))
        received = await collect_stream(ctx, dut.o, len(tokens), stalls, max_idle=2000)
        assert [Token(**{n: t[n] for n in Token._fields}) for t in received] == list(tokens)

    async def above(ctx: SimulatorContext) -> None:
        if north is not None:
            await drive_stream(ctx, dut.north, words(north), pause.draw(north.size))

    async def below(ctx: SimulatorContext) -> None:
        stalls = pause.draw(words_out)
        seen.sums.append(await collect_stream(ctx, dut.south, words_out, stalls, max_idle=4000))
        for _ in range(4):
            await ctx.tick()
            assert not ctx.get(dut.south.valid), "a word too many"

    async def events(ctx: SimulatorContext) -> None:
        signals = [getattr(dut, event) for event in EVENTS]
        while True:
            _, _, *values = await ctx.tick().sample(*signals)
            if started and running:
                seen.cycles += 1
                for event, value in zip(EVENTS, values, strict=True):
                    seen.trace[event].append(value)
                    seen.totals[event] += value

    simulator_benches = [west, east, above, below]
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for testbench in simulator_benches:
        simulator.add_testbench(testbench)
    simulator.add_testbench(events, background=True)
    for port in (dut.o, dut.south):

        async def rules(ctx: SimulatorContext, port: stream.Interface = port) -> None:
            await check_stream_rules(ctx, port)

        simulator.add_testbench(rules, background=True)
    simulator.run()
    return seen


def check_pe(
    tokens: Sequence[Token], taps: Taps, config: Config, run: ArrayRun, **options: Any
) -> Seen:
    """Assert that the hardware's sums, and its number of taps, equal golden's."""
    seen = simulate_pe(tokens, taps, config, run, **options)
    count = options.get("channels")
    expected = pe(tokens, taps, config, run, run.channels if count is None else count)
    total = words(expected)
    if options.get("north") is not None:
        total = [a + b for a, b in zip(total, words(options["north"]), strict=True)]
    assert seen.sums[0] == total
    taps_walked = sum(
        int(taps.pointers[token.hi] - taps.pointers[token.lo]) % config.tap_depth
        for token in tokens
        if not token.marker
    )
    assert seen.totals["mac"] == taps_walked
    return seen


@pytest.mark.parametrize("most", [0, 2, 12])
@pytest.mark.parametrize("seed", range(4))
def test_pe_equals_golden_under_any_flow_control(seed: int, most: int) -> None:
    rng = random.Random(seed)
    kind = list(MultiplierKind)[seed % 4]
    config = small(multiplier=kind, fifo_depth=rng.choice([2, 8]))
    run = ArrayRun(out_width=rng.choice([1, 2, 3]), channels=rng.choice([1, 2]))
    channels = rng.randint(1, run.channels)
    rows = 12
    north = np.array([rng.randint(-99, 99) for _ in range(rows * run.out_width * channels)])
    check_pe(
        random_tokens(config, run, rows, rng),
        random_taps(config, run, channels, rng),
        config,
        run,
        channels=channels,
        north=rng.choice([None, north]),
        ring=rng.choice([2, config.accumulator_depth // run.row_size]),
        gate=rng.choice([False, True]),
        pauses=Pauses(rng, most),
    )


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("most", [0, 8])
@pytest.mark.parametrize("seed", range(3))
def test_array_equals_golden_under_any_flow_control(seed: int, most: int, lanes: int) -> None:
    rng = random.Random(seed)
    config = small(lanes=lanes, multiplier=list(MultiplierKind)[seed % 4])
    run = ArrayRun(out_width=rng.choice([1, 3]), channels=2)
    channels = [2, seed % 3][:lanes]
    rows = 8
    tokens = [random_tokens(config, run, rows, rng) for _ in range(lanes)]
    taps = [[random_taps(config, run, count, rng) for count in channels] for _ in range(lanes)]
    seen = simulate_array(tokens, taps, config, run, channels, Pauses(rng, most))
    expected = array(tokens, taps, config, run, channels)
    assert seen.sums == [words(column) for column in expected]
    assert seen.totals["macs"] == sum(
        int(store.pointers[token.hi] - store.pointers[token.lo]) % config.tap_depth
        for lane, row in zip(tokens, taps, strict=True)
        for token in lane
        if not token.marker
        for store in row
    )


def simulate_array(
    tokens: Sequence[Sequence[Token]],
    taps: Sequence[Sequence[Taps]],
    config: Config,
    run: ArrayRun,
    channels: Sequence[int],
    pauses: Pauses,
) -> Seen:
    """Do as golden ``array`` does, through the hardware."""
    dut = Array(config)
    lanes = range(config.lanes)
    rows = sum(token.marker and not token.open for token in tokens[0])
    seen = Seen(sums=[[] for _ in lanes])
    started = False

    async def control(ctx: SimulatorContext) -> None:
        nonlocal started
        for column in lanes:
            ctx.set(dut.channels[column], channels[column])
            for row in lanes:
                await load(ctx, dut.tap[column], dut.pointer[column], row, taps[row][column])
        await begin(ctx, dut, run, 2, False)
        assert ctx.get(dut.idle)
        started = True

    def lane(row: int) -> Callable[[SimulatorContext], Any]:
        async def testbench(ctx: SimulatorContext) -> None:
            while not started:
                await ctx.tick()
            payloads = [token._asdict() for token in tokens[row]]
            await drive_stream(ctx, dut.tokens[row], payloads, pauses.draw(len(payloads)))
            for _ in range(2000):
                if ctx.get(dut.idle):
                    break
                await ctx.tick()
            assert ctx.get(dut.idle), "still busy"
            for _ in range(3):
                await ctx.tick()

        return testbench

    def column(index: int) -> Callable[[SimulatorContext], Any]:
        async def testbench(ctx: SimulatorContext) -> None:
            count = rows * run.out_width * channels[index]
            stalls = pauses.draw(count)
            seen.sums[index] = await collect_stream(ctx, dut.sums[index], count, stalls, 4000)

        return testbench

    async def counters(ctx: SimulatorContext) -> None:
        while True:
            _, _, macs = await ctx.tick().sample(dut.macs)
            seen.totals["macs"] += macs

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(control)
    for index in lanes:
        simulator.add_testbench(lane(index))
        simulator.add_testbench(column(index))
    simulator.add_testbench(counters, background=True)
    for port in dut.sums:

        async def rules(ctx: SimulatorContext, port: stream.Interface = port) -> None:
            await check_stream_rules(ctx, port)

        simulator.add_testbench(rules, background=True)
    simulator.run()
    return seen
