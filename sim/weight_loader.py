"""Run :class:`~thresher.hw.weights.weight_loader.WeightLoader` as if it were a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amaranth.hdl import Const, Value
from amaranth.sim import Simulator

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.hw.weights.weight_loader import WeightLoader

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

__all__ = ["Load", "Loaded", "simulate_loads"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one load is given.

    Parameters
    ----------
    data
        Weight stream, whole words.
    load, lane
        Fields of the two records; those left out are 0.
    gaps
        Idle cycles before each word, over and over.
    surplus
        Words that are offered behind the stream; otherwise it is ``exhausted``.
    reset_taps
        Whether the machine is started before the load.
    """

    data: bytes
    load: Mapping[str, int]
    lane: Mapping[str, int]
    gaps: Sequence[int] = (0,)
    surplus: int = 0
    reset_taps: bool = False


@dataclass
class Loaded:
    """What one load has written, in the order of writing, and reported.

    Attributes
    ----------
    constants
        (address, bias, scale, shift).
    taps, tap_cycles
        (row, address, offset, code), and the cycles since ``start`` in which they were written.
    pointers
        (row, address, value).
    lookup
        (address, value).
    error, position, cycles, words_taken
        How the load ended, and after how many cycles and words.
    """

    constants: list[tuple[int, ...]] = field(default_factory=list)
    taps: list[tuple[int, ...]] = field(default_factory=list)
    pointers: list[tuple[int, ...]] = field(default_factory=list)
    lookup: list[tuple[int, ...]] = field(default_factory=list)
    tap_cycles: list[int] = field(default_factory=list)
    error: ErrorCode = ErrorCode.NONE
    position: int = 0
    cycles: int = 0
    words_taken: int = 0


def simulate_loads(
    config: Config, loads: Sequence[Load], *, max_cycles: int = 20_000
) -> list[Loaded]:
    """Carry out loads one after another on one loader.

    Raises
    ------
    TimeoutError
        If a load does not end within ``max_cycles`` cycles.
    """
    dut = WeightLoader(config)
    results: list[Loaded] = []

    async def testbench(ctx: SimulatorContext) -> None:
        for load in loads:
            if load.reset_taps:
                ctx.set(dut.reset_taps, 1)
                await ctx.tick()
                ctx.set(dut.reset_taps, 0)
            results.append(await _one_load(ctx, dut, load, max_cycles))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


async def _one_load(
    ctx: SimulatorContext, dut: WeightLoader, load: Load, max_cycles: int
) -> Loaded:
    size = dut.config.port_bits // 8
    words = [int.from_bytes(load.data[at : at + size]) for at in range(0, len(load.data), size)]
    words += [(1 << dut.config.port_bits) - 1] * load.surplus
    result = Loaded()
    ctx.set(dut.load, dict(load.load))
    ctx.set(dut.lane, dict(load.lane))
    ctx.set(dut.exhausted, 0)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    assert ctx.get(dut.busy), "busy must follow start"

    taken = 0
    gap = load.gaps[0]
    for cycle in range(max_cycles):
        ctx.set(dut.words.valid, taken < len(words) and gap == 0)
        ctx.set(dut.words.payload, words[taken] if taken < len(words) and gap == 0 else 0)
        ctx.set(dut.exhausted, taken >= len(words) - (gap == 0) and not load.surplus)
        _record(ctx, dut, result, cycle)
        _, _, transfer, busy = await ctx.tick().sample(dut.words.valid & dut.words.ready, dut.busy)
        gap = max(0, gap - 1)
        if not busy:
            break
        if transfer:
            taken += 1
            gap = load.gaps[taken % len(load.gaps)]
    else:
        raise TimeoutError(f"still busy after {max_cycles} cycles")
    ctx.set(dut.words.valid, 0)
    result.error = ErrorCode(ctx.get(dut.error))
    result.position = ctx.get(dut.position)
    result.cycles, result.words_taken = cycle, taken
    return result


def _record(ctx: SimulatorContext, dut: WeightLoader, result: Loaded, cycle: int) -> None:
    """Note the writes of this cycle; there is none when not busy."""
    constant, tap, pointer = dut.constant, dut.tap, dut.pointer
    if ctx.get(constant.valid):
        values = (constant.address, constant.bias, constant.scale, constant.shift)
        result.constants.append((*map(ctx.get, values),))
    if ctx.get(tap.valid):
        result.taps.append((*map(ctx.get, (tap.row, tap.address, tap.tap.offset, tap.tap.code)),))
        result.tap_cycles.append(cycle)
    if ctx.get(pointer.valid):
        result.pointers.append((*map(ctx.get, (pointer.row, pointer.address, pointer.value)),))
    looked_up: Value = Const(0)
    if dut.config.lookup:
        looked_up = dut.lookup.valid
        if ctx.get(looked_up):
            result.lookup.append((*map(ctx.get, (dut.lookup.address, dut.lookup.value)),))
    if ctx.get(constant.valid | tap.valid | pointer.valid | looked_up):
        assert ctx.get(dut.busy), "written while not busy"
