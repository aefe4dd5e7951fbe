"""A register in a link: all items pass, in order, whatever the two sides do."""

from amaranth.hdl import unsigned
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.hw.link import Link
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

WAITS = st.lists(st.integers(0, 4), min_size=20, max_size=20)


def passed(gaps: list[int], stalls: list[int]) -> tuple[list[int], int]:
    """Send 0 to 19 through a link; return what came, and the cycles before the last came."""
    dut = Link(unsigned(8))
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    received: list[int] = []
    cycles = 0

    async def count(ctx: SimulatorContext) -> None:
        nonlocal cycles
        while True:
            await ctx.tick()
            cycles += len(received) < 20

    async def send(ctx: SimulatorContext) -> None:
        await drive_stream(ctx, dut.i, range(20), gaps)

    async def receive(ctx: SimulatorContext) -> None:
        received.extend(await collect_stream(ctx, dut.o, 20, stalls))

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.o)

    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.add_testbench(rules, background=True)
    simulator.add_testbench(count, background=True)
    simulator.run()
    return received, cycles


@settings(max_examples=30, deadline=None)
@given(gaps=WAITS, stalls=WAITS)
def test_everything_passes_in_order(gaps: list[int], stalls: list[int]) -> None:
    received, _ = passed(gaps, stalls)
    assert received == list(range(20))


def test_an_item_takes_two_cycles() -> None:
    _, cycles = passed([], [])
    assert cycles == 2 * 20 - 1
