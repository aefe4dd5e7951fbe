"""PE and Array: sums equal golden under any flow control, rules kept, and on time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
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
from thresher.sim.runner import run_cocotb
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream
from thresher.sim.timing_table import parse_timing_table

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

Int64Array = npt.NDArray[np.int64]
EVENTS = ("mac", "gated", "starved", "ring_full", "conflict")
OPEN = Token(marker=1, open=1)
COMPLETE = Token(marker=1)
SHARED = {"shared_store": 1, "pair_cycles": 6}


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


def simulate(
    dut: Any,
    testbenches: Sequence[Callable[[SimulatorContext], Any]],
    observer: Callable[[SimulatorContext], Any],
    producers: Sequence[stream.Interface],
) -> None:
    """Run until all testbenches are done, with the rules of ``producers`` checked."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    simulator.add_testbench(observer, background=True)
    for port in producers:

        async def rules(ctx: SimulatorContext, port: stream.Interface = port) -> None:
            await check_stream_rules(ctx, port)

        simulator.add_testbench(rules, background=True)
    simulator.run()


async def nothing(ctx: SimulatorContext) -> None:
    await ctx.tick()


async def until_idle(ctx: SimulatorContext, dut: Any) -> None:
    for _ in range(2000):
        if ctx.get(dut.idle):
            return
        await ctx.tick()
    raise TimeoutError("still busy")


def words(values: Int64Array) -> list[int]:
    return [int(value) for value in values.ravel()]


async def load_store(ctx: SimulatorContext, dut: PE, taps: Taps) -> None:
    """Write the memory that an element has for both, as the array does."""
    half = dut.store.shape()["address"].width - 1
    for address, (offset, code) in enumerate(zip(taps.offsets, taps.codes, strict=True)):
        word = int(offset) | int(code) << dut.config.offset_bits
        ctx.set(dut.store, {"valid": 1, "row": 0, "address": address, "data": word})
        await ctx.tick()
    for address, value in enumerate(taps.pointers):
        ctx.set(dut.store, {"valid": 1, "row": 0, "address": address | 1 << half, "data": value})
        await ctx.tick()
    ctx.set(dut.store.valid, 0)


async def load(ctx: SimulatorContext, tap: Any, pointer: Any, row: int, taps: Taps) -> None:
    """Write the stores of the element in ``row``, as a loader does."""
    for address, (offset, code) in enumerate(zip(taps.offsets, taps.codes, strict=True)):
        entry = {"offset": int(offset), "code": int(code), "zero": int(code == 0)}
        ctx.set(tap, {"valid": 1, "row": row, "address": address, "tap": entry})
        await ctx.tick()
    ctx.set(tap.valid, 0)
    for address, value in enumerate(taps.pointers):
        ctx.set(pointer, {"valid": 1, "row": row, "address": address, "value": int(value)})
        await ctx.tick()
    ctx.set(pointer.valid, 0)


async def begin(ctx: SimulatorContext, dut: Any, run: ArrayRun, ring: int, gate: bool) -> None:
    """Set the run's fields and pulse ``start``."""
    if isinstance(dut, Array):
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
    nothing: bool = False,
    north: Int64Array | None = None,
    ring: int = 2,
    gate: bool = False,
    pauses: Pauses | None = None,
) -> Seen:
    """Do as golden ``pe`` does, through the hardware; a token that leaves east is compared."""
    dut = PE(config)
    count = 0 if nothing else run.channels
    rows = sum(token.marker and not token.open for token in tokens)
    words_out = rows * run.out_width * count
    pause = pauses or Pauses(random.Random(0))
    seen = Seen(trace={event: [] for event in EVENTS})
    started = running = False

    async def west(ctx: SimulatorContext) -> None:
        nonlocal started, running
        running = True
        ctx.set(dut.nothing, nothing)
        ctx.set(dut.top, north is None)
        if config.shared_store:
            await load_store(ctx, dut, taps)
        else:
            await load(ctx, dut.tap, dut.pointer, 0, taps)
        await begin(ctx, dut, run, ring, gate)
        assert ctx.get(dut.idle)
        started = True
        payloads = [token._asdict() for token in tokens]
        await drive_stream(ctx, dut.i, payloads, pause.draw(len(tokens)))
        await until_idle(ctx, dut)
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
            counting = started and running  # the first cycle is that of the first token
            _, _, *values = await ctx.tick().sample(*signals)
            if counting:
                seen.cycles += 1
                for event, value in zip(EVENTS, values, strict=True):
                    seen.trace[event].append(value)
                    seen.totals[event] += value

    simulate(dut, [west, east, above, below], events, [dut.o, dut.south])
    return seen


def check_pe(
    tokens: Sequence[Token], taps: Taps, config: Config, run: ArrayRun, **options: Any
) -> Seen:
    """Assert that the hardware's sums, and its number of taps, equal golden's."""
    seen = simulate_pe(tokens, taps, config, run, **options)
    expected = pe(tokens, taps, config, run, 0 if options.get("nothing") else run.channels)
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
    banks = 1 + seed % 2
    config = small(
        multiplier=kind,
        fifo_depth=rng.choice([2, 8]),
        accumulator_banks=banks,
        **(SHARED if seed < 2 else {}),
    )
    run = ArrayRun(out_width=rng.choice([1, 2, 3]), channels=rng.choice([1, 2]))
    channels = rng.randint(1, run.channels)
    rows = 12
    north = np.array([rng.randint(-99, 99) for _ in range(rows * run.row_size)])
    check_pe(
        random_tokens(config, run, rows, rng),
        random_taps(config, run, channels, rng),
        config,
        run,
        north=rng.choice([None, north]),
        ring=rng.choice([2, config.accumulator_depth // run.row_size]),
        gate=rng.choice([False, True]),
        pauses=Pauses(rng, most),
    )


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("most", [0, 8])
@pytest.mark.parametrize("seed", range(3))
def test_array_equals_golden_under_any_flow_control(seed: int, most: int, lanes: int) -> None:
    check_array(seed, most, lanes)


@pytest.mark.parametrize(("seed", "most", "lanes"), [(0, 8, 2), (1, 0, 4), (2, 8, 4)])
def test_an_array_with_registers_in_its_links_does_too(seed: int, most: int, lanes: int) -> None:
    check_array(seed, most, lanes, registered_links=1, output_cycles=4)


def check_array(seed: int, most: int, lanes: int, **sizes: int) -> None:
    rng = random.Random(seed)
    banks = 2 - seed % 2
    config = small(
        lanes=lanes,
        multiplier=list(MultiplierKind)[seed % 4],
        accumulator_banks=banks,
        **(SHARED if seed == 0 else {}),
        **sizes,
    )
    run = ArrayRun(out_width=rng.choice([1, 3]), channels=2)
    channels = [2, seed % 3, 1, 2][:lanes]
    rows = 8
    tokens = [random_tokens(config, run, rows, rng) for _ in range(lanes)]
    taps = [[random_taps(config, run, count, rng) for count in channels] for _ in range(lanes)]
    seen = simulate_array(tokens, taps, config, run, channels=channels, pauses=Pauses(rng, most))
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
    *,
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
            await until_idle(ctx, dut)
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

    benches = [make(index) for index in lanes for make in (lane, column)]
    simulate(dut, [control, *benches], counters, dut.sums)
    return seen


WIDE = ArrayRun(out_width=4, channels=4)  # one row fills the accumulators of small()


@pytest.mark.parametrize("banks", [1, 2, 4])
@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_hits_on_one_accumulator_a_few_cycles_apart(distance: int, banks: int) -> None:
    config = small(accumulator_banks=banks)
    # Offsets 3, 5, 7, .. on one bank, so that only the accumulator repeats at the distance.
    pairs = [(3 + 2 * (k % distance), k % 15 - 7) for k in range(24)]
    taps = make_taps(config, [pairs])
    tokens = [OPEN, Token(lo=0, hi=1, value=11), Token(lo=0, hi=1, value=-32), COMPLETE]
    check_pe(tokens, taps, config, WIDE, ring=1)


def test_tap_and_accumulator_addresses_wrap() -> None:
    config = small()
    taps = make_taps(config, [[(k, k - 8) for k in range(16)], [(15, 3)]], first=27)
    tokens = [OPEN, Token(hi=1, base=9, value=5), Token(lo=1, hi=2, base=15, value=-7), COMPLETE]
    check_pe(tokens * 2, taps, config, WIDE, ring=1)


def test_sums_wrap_at_the_accumulator_width() -> None:
    config = small()
    taps = make_taps(config, [[(0, -16)] * 31])
    tokens = [OPEN, *[Token(hi=1, value=-32)] * 3, COMPLETE]
    assert words(pe(tokens, taps, config, WIDE, 4))[0] < 0
    check_pe(tokens, taps, config, WIDE, ring=1)


def test_only_markers_give_rows_of_zeros() -> None:
    config = small()
    run = ArrayRun(out_width=2, channels=2)
    seen = check_pe([OPEN, COMPLETE] * 9, make_taps(config, [[]]), config, run, ring=1)
    assert seen.sums == [[0] * 36]


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_a_column_without_channels_drops_its_rows(banks: int) -> None:
    config = small(accumulator_banks=banks)
    run = ArrayRun(out_width=2, channels=2)
    taps = make_taps(config, [[]])
    seen = check_pe([OPEN, COMPLETE] * 9, taps, config, run, nothing=True, ring=1)
    assert seen.sums == [[]]


@pytest.mark.parametrize("most", [0, 6])
def test_the_walker_waits_for_the_ring_and_the_fifo_fills(most: int) -> None:
    config = small(fifo_depth=2)
    taps = make_taps(config, [[(k, 3 - k) for k in range(6)]])
    row = [OPEN, *[Token(hi=1, value=value) for value in (1, -5, 9)], COMPLETE]
    pauses = Pauses(random.Random(7), most)
    seen = check_pe(row * 3, taps, config, WIDE, ring=1, pauses=pauses)
    assert seen.totals["ring_full"] > 0


@pytest.mark.parametrize("gate", [False, True])
def test_gated_taps_count_and_change_nothing(gate: bool) -> None:
    config = small()
    taps = make_taps(config, [[(k, k % 3) for k in range(12)]])  # a third are zero
    tokens = [OPEN, *[Token(hi=1, value=value) for value in (3, 0, -4)], COMPLETE]
    seen = check_pe(tokens, taps, config, WIDE, ring=1, gate=gate)
    assert seen.totals["gated"] == (4 + 12 + 4 if gate else 0)
    if gate:
        pairs = zip(seen.trace["gated"], seen.trace["mac"], strict=True)
        assert all(mac for gated, mac in pairs if gated)


def test_one_tap_a_cycle_across_tokens() -> None:
    config = small()
    taps = make_taps(config, [[(0, 1)], [(1, 2), (2, 3)], [(k, 1) for k in range(5)]])
    groups = [0, 0, 0, 1, 2, 1, 2, 2, 2]  # the first come as fast as they are walked
    tokens = [OPEN, *[Token(lo=g, hi=g + 1, value=2) for g in groups], COMPLETE]
    macs = check_pe(tokens, taps, config, WIDE, ring=1).trace["mac"]
    # Accepted in cycle 0: the marker; the first tap is in the multiplier six cycles later.
    assert macs.index(1) == 6
    assert macs[6 : 6 + sum(macs)] == [1] * sum(macs)


def test_one_token_without_taps_a_cycle() -> None:
    config = small()
    taps = make_taps(config, [[], [(2, 3)]])
    empty = [Token(lo=0, hi=1, value=2)] * 20
    macs = check_pe(
        [OPEN, *empty, Token(lo=0, hi=2, value=4), COMPLETE], taps, config, WIDE, ring=1
    )
    assert macs.trace["mac"].index(1) == 26  # twenty cycles later than without them


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_one_word_a_cycle_leaves_south(banks: int) -> None:
    config = small(accumulator_depth=64, accumulator_banks=banks)
    run = ArrayRun(out_width=8, channels=4)
    dut = PE(config)
    valid_cycles: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.top, 1)
        ctx.set(dut.south.ready, 1)
        ctx.set(dut.o.ready, 1)
        await begin(ctx, dut, run, 2, False)
        await drive_stream(ctx, dut.i, [t._asdict() for t in (OPEN, OPEN, COMPLETE)])
        await drive_stream(ctx, dut.i, [COMPLETE._asdict()])
        for cycle in range(1, 80):  # the last marker was accepted in cycle 0
            if ctx.get(dut.south.valid):
                valid_cycles.append(cycle)
            await ctx.tick()

    simulate(dut, [testbench], nothing, [dut.south])
    assert valid_cycles == list(range(9, 9 + 64))  # of the first marker: ten cycles


def test_draining_gives_way_to_hits_on_its_bank() -> None:
    config = small(accumulator_depth=32, tap_depth=64)
    taps = make_taps(config, [[(16 + 2 * (k % 8), k % 9 - 4) for k in range(40)]])
    work = [Token(hi=1, base=0, value=value) for value in (7, -9, 3)]
    tokens = [OPEN, OPEN, COMPLETE, *work, COMPLETE]
    seen = check_pe(tokens, taps, config, WIDE)
    assert seen.totals["conflict"] > 8  # all taps are on the even bank
    macs = seen.trace["mac"]
    first = macs.index(1)
    assert macs[first : first + 120] == [1] * 120  # the walker never waits for the drain


def test_tokens_go_east_while_the_element_waits() -> None:
    config = small(fifo_depth=2)
    run = ArrayRun(out_width=1, channels=1)
    dut = PE(config)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.top, 1)
        await begin(ctx, dut, run, 1, False)
        # The second row never opens: the first is not complete. Two markers wait in the FIFO.
        await drive_stream(ctx, dut.i, [OPEN._asdict()])
        ctx.set(dut.o.ready, 1)
        await drive_stream(ctx, dut.i, [OPEN._asdict()] * 3)
        for _ in range(3):
            await ctx.tick()
        assert not ctx.get(dut.i.ready)
        assert not ctx.get(dut.o.valid)  # the last copy has left, though the token has to wait
        assert ctx.get(dut.ring_full)
        assert not ctx.get(dut.idle)

    simulate(dut, [testbench], nothing, [dut.o])


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_clear_drops_a_run_and_zeroes_the_accumulators(banks: int) -> None:
    config = small(accumulator_banks=banks)
    taps = make_taps(config, [[(k, 5) for k in range(16)]])
    dut = PE(config)
    sums: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.top, 1)
        ctx.set(dut.o.ready, 1)
        await load(ctx, dut.tap, dut.pointer, 0, taps)
        await begin(ctx, dut, WIDE, 1, False)
        work = [Token(hi=1, base=base, value=9) for base in range(4)]
        await drive_stream(ctx, dut.i, [t._asdict() for t in (OPEN, *work, COMPLETE, OPEN)])
        for _ in range(80):
            await ctx.tick()
        assert ctx.get(dut.south.valid)  # it has begun to drain
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        for _ in range(config.accumulator_depth // banks):
            assert ctx.get(dut.clearing)
            assert not ctx.get(dut.i.ready)
            assert not ctx.get(dut.south.valid)
            await ctx.tick()
        assert not ctx.get(dut.clearing)
        assert ctx.get(dut.idle)
        await begin(ctx, dut, WIDE, 1, False)
        await drive_stream(ctx, dut.i, [OPEN._asdict(), COMPLETE._asdict()])
        sums.extend(await collect_stream(ctx, dut.south, 16))

    simulate(dut, [testbench], nothing, [])
    assert sums == [0] * 16


def test_event_counts_of_an_array_come_two_cycles_late() -> None:
    config = small(lanes=2)
    dut = Array(config)
    found: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        await begin(ctx, dut, ArrayRun(out_width=1, channels=1), 0, False)
        for row in range(2):
            ctx.set(dut.tokens[row].payload, OPEN._asdict())
            ctx.set(dut.tokens[row].valid, 1)
        await ctx.tick()
        for row in range(2):
            ctx.set(dut.tokens[row].valid, 0)
        for _ in range(6):
            found.append(ctx.get(dut.ring_full))
            await ctx.tick()

    simulate(dut, [testbench], nothing, [])
    assert found == [0, 0, 0, 2, 4, 4]  # waiting from cycle 2 on; one column after the other


def test_docstring_timing_table_is_what_happens() -> None:
    table = parse_timing_table(PE)
    config = small()
    taps = make_taps(config, [[(0, 3), (0, 4)]])
    tokens = iter([OPEN, Token(hi=1, value=5), COMPLETE])
    dut = PE(config)
    inputs = {"i.valid", "south.ready"}

    async def replay(ctx: SimulatorContext) -> None:
        ctx.set(dut.top, 1)
        ctx.set(dut.o.ready, 1)
        await load(ctx, dut.tap, dut.pointer, 0, taps)
        await begin(ctx, dut, ArrayRun(out_width=1, channels=1), 1, False)
        for cycle in range(len(table["i.valid"])):
            ctx.set(dut.i.payload, next(tokens, OPEN)._asdict())  # every one is taken at once
            for name in sorted(table, key=lambda name: name not in inputs):
                expected, signal = table[name][cycle], attrgetter(name)(dut)
                if name in inputs:
                    assert expected is not None
                    ctx.set(signal, expected)
                elif expected is not None:
                    assert ctx.get(signal) == expected, f"{name} in cycle {cycle}"
            await ctx.tick()

    simulate(dut, [replay], nothing, [dut.o, dut.south])


@pytest.mark.cocotb
def test_verilog_equals_golden() -> None:
    assert run_cocotb(PE(small(accumulator_bits=20)), test_module="cocotb_pe") == 2
