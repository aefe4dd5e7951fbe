"""Registers in links: all items pass, in order, whatever the two sides do."""

import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.golden.config import Config
from thresher.hw.link import Delay, Link, Links, Queue
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

WAITS = st.lists(st.integers(0, 4), min_size=20, max_size=20)
KINDS = pytest.mark.parametrize("kind", [Link, Queue])


def passed(
    kind: type[Link | Queue], gaps: list[int], stalls: list[int], count: int = 20
) -> tuple[list[int], int]:
    """Send 0 to 19 through a link; return what came, and the cycles before the last came."""
    dut = kind(unsigned(8))
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    received: list[int] = []
    cycles = 0

    async def watch(ctx: SimulatorContext) -> None:
        nonlocal cycles
        while True:
            await ctx.tick()
            cycles += len(received) < count

    async def send(ctx: SimulatorContext) -> None:
        await drive_stream(ctx, dut.i, range(count), gaps)

    async def receive(ctx: SimulatorContext) -> None:
        received.extend(await collect_stream(ctx, dut.o, count, stalls))

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.o)

    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.add_testbench(rules, background=True)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    return received, cycles


@KINDS
@settings(max_examples=30, deadline=None)
@given(gaps=WAITS, stalls=WAITS)
def test_everything_passes_in_order(
    kind: type[Link | Queue], gaps: list[int], stalls: list[int]
) -> None:
    received, _ = passed(kind, gaps, stalls)
    assert received == list(range(20))


def test_an_item_takes_two_cycles_in_a_link() -> None:
    _, cycles = passed(Link, [], [])
    assert cycles == 2 * 20 - 1


def test_an_item_takes_a_cycle_in_a_queue() -> None:
    _, cycles = passed(Queue, [], [])
    assert cycles == 20


def test_a_queue_holds_two_items_and_says_whether_it_holds_one() -> None:
    dut = Queue(unsigned(8))

    async def fill(ctx: SimulatorContext) -> None:
        ctx.set(dut.i.valid, 1)
        held = []
        for item in (7, 8, 9, 10):
            ctx.set(dut.i.payload, item)
            held.append((ctx.get(dut.i.ready), ctx.get(dut.o.valid)))
            await ctx.tick()
        assert held == [(1, 0), (1, 1), (0, 1), (0, 1)]
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        left = []
        for _ in range(3):
            left.append((ctx.get(dut.o.valid), ctx.get(dut.o.payload)))
            await ctx.tick()
        assert left[:2] == [(1, 7), (1, 8)]
        assert not left[2][0]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(fill)
    simulator.run()


def test_a_delay_gives_the_value_of_the_cycle_before() -> None:
    dut = Delay(data.StructLayout({"one": 3, "other": 8}))

    async def drive(ctx: SimulatorContext) -> None:
        before = {"one": 0, "other": 0}
        for cycle in range(20):
            now = {"one": cycle % 8, "other": cycle * 77 % 256}
            ctx.set(dut.i, now)
            assert {name: ctx.get(dut.o[name]) for name in now} == before
            await ctx.tick()
            before = now

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()


LINKED = Config(lanes=1, output_cycles=4, registered_links=1)


class Told(wiring.Component):
    """What a part is told by ``later``, and what is known of it by ``known_late``."""

    start: In(1)
    value: In(8)
    busy: In(1)
    told_start: Out(1)
    told_value: Out(8)
    known: Out(1)

    def __init__(self, config: Config, after: int) -> None:
        self.config, self.after = config, after
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        links = Links(m, self.config)
        told = links.later("told", start=self.start, value=self.value)
        known = links.known_late(self.start, self.busy, after=self.after)
        m.d.comb += [
            self.told_start.eq(told.start),
            self.told_value.eq(told.value),
            self.known.eq(known),
        ]
        m.d.sync += Signal().eq(self.start)  # a clock without registers in the links, too
        return m


@pytest.mark.parametrize("duration", [1, 2, 7])
@pytest.mark.parametrize("after", [1, 2])
def test_what_starts_is_known_to_be_busy_without_a_gap(after: int, duration: int) -> None:
    dut = Told(LINKED, after)
    seen: list[tuple[int, int, int]] = []

    async def drive(ctx: SimulatorContext) -> None:
        for cycle in range(20):
            ctx.set(dut.start, cycle == 3)
            ctx.set(dut.value, cycle)
            ctx.set(dut.busy, 0 <= cycle - (3 + after + 1) < duration)
            seen.append((ctx.get(dut.told_start), ctx.get(dut.told_value), ctx.get(dut.known)))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    told, values, known = zip(*seen, strict=True)
    assert told == tuple(cycle == 4 for cycle in range(20))
    assert values == (0, *range(19))
    # From the cycle after the start to the one after the last busy one.
    assert known == tuple(4 <= cycle < 3 + after + 2 + duration for cycle in range(20))


def test_without_registers_all_is_told_and_known_at_once() -> None:
    dut = Told(Config(lanes=1), 1)

    async def drive(ctx: SimulatorContext) -> None:
        for cycle in range(8):
            start, busy = cycle & 1, cycle >> 1 & 1
            ctx.set(dut.start, start)
            ctx.set(dut.value, cycle)
            ctx.set(dut.busy, busy)
            told = (ctx.get(dut.told_start), ctx.get(dut.told_value), ctx.get(dut.known))
            assert told == (start, cycle, busy)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
