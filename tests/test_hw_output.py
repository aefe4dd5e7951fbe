"""Requantiser, clipper and lookup table equal golden, at their rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from output_parts import SERIAL, SMALL, make_requantiser, pauses, pooling_run, requantised, simulate

from thresher.golden.config import Config
from thresher.golden.descriptors import Rounding
from thresher.hw.output.clipper import Clipper
from thresher.hw.output.lookup import Lookup
from thresher.hw.output.pooler import Pooler
from thresher.hw.output.requantiser import Requantiser
from thresher.sim.runner import run_cocotb
from thresher.sim.streams import collect_stream, drive_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext


@given(
    value=st.integers(-(1 << 19), (1 << 19) - 1),
    bounds=st.tuples(*[st.integers(-16, 15)] * 2),
    origin=st.sampled_from([0, -16, 15, -(1 << 16), (1 << 16) - 1]),
)
@settings(max_examples=30, deadline=None)
def test_clipper_limits_to_its_bounds(value: int, bounds: tuple[int, int], origin: int) -> None:
    dut = Clipper(SMALL, 20)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.low, min(bounds))
        ctx.set(dut.high, max(bounds))
        ctx.set(dut.origin, origin)
        await ctx.tick()
        for item in (value, *(bound + origin + step for bound in bounds for step in (-1, 0, 1))):
            ctx.set(dut.i, item)
            assert ctx.get(dut.o) == np.clip(item - origin, min(bounds), max(bounds))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@settings(max_examples=40, deadline=None)
@given(
    rounding=st.sampled_from(Rounding),
    width=st.integers(1, 4),
    channels=st.integers(1, 3),
    seed=st.integers(0, 1 << 32),
    shifts=st.sampled_from([(0, 3), (1, 9), (10, 24), (0, 63)]),
    config=st.sampled_from([SMALL, SERIAL]),
    gaps=pauses,
    stalls=pauses,
)
def test_requantiser_equals_golden(
    *,
    rounding: Rounding,
    width: int,
    channels: int,
    seed: int,
    shifts: tuple[int, int],
    config: Config,
    gaps: list[int],
    stalls: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    count = 3 * width * channels
    sums = rng.integers(-(1 << rng.integers(1, 16)), 1 << rng.integers(1, 16), count).clip(
        -(1 << 15), (1 << 15) - 1
    )
    base = int(rng.integers(0, 16))
    constants = [
        {
            "address": (base + n) % 16,
            "bias": int(rng.integers(-(1 << rng.integers(1, 16)), 1 << rng.integers(1, 15))),
            "scale": int(rng.choice([0, 1, 2, 255, int(rng.integers(0, 256))])),
            "shift": int(rng.integers(*shifts, endpoint=True)),
        }
        for n in range(channels)
    ]
    run = {
        "out_width": width,
        "channel_base": base,
        "rounding": rounding,
        "clip_low": -16,
        "clip_high": 15,
    }
    results, _, _ = simulate(
        make_requantiser(config),
        sums.tolist(),
        count,
        run=run,
        channels=channels,
        constants=constants,
        gaps=gaps,
        stalls=stalls,
    )
    assert results == requantised(sums.tolist(), constants, run)


def test_each_round_has_constants_of_its_own() -> None:
    rng = np.random.default_rng(1)
    sums = rng.integers(-100, 100, 12).tolist()
    constants = [
        {"address": (9 + n) % 16, "bias": 3 * n, "scale": 20 + n, "shift": 8} for n in range(12)
    ]
    run = {"out_width": 1, "channel_base": 9, "round_groups": 5, "clip_low": -16, "clip_high": 15}
    results, _, _ = simulate(
        Requantiser(SMALL), sums, 12, run=run, channels=3, constants=constants, runs=2
    )
    rounding = {"rounding": Rounding.HALF_UP}
    wanted = [value for value, _ in requantised(sums, constants, run | rounding)]
    assert results == [(value, n % 3 == 2) for n, value in enumerate(wanted)] * 2


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("shift", [0, 1, 2, 5])
@pytest.mark.parametrize("output_cycles", [1, 4])
def test_exact_halves_and_their_neighbours(
    rounding: Rounding, shift: int, output_cycles: int
) -> None:
    config = Config(activation_bits=16, channel_depth=16, output_cycles=output_cycles)
    sums = list(range(-70, 71))
    constants = [{"address": 0, "bias": 0, "scale": 1, "shift": shift}]
    run = {"out_width": 141, "rounding": rounding, "clip_low": -32768, "clip_high": 32767}
    results, _, _ = simulate(
        make_requantiser(config), sums, 141, run=run, channels=1, constants=constants
    )
    assert results == requantised(sums, constants, run)


@pytest.mark.parametrize("shift", [30, 31, 32, 33, 34, 40])
@pytest.mark.parametrize("output_cycles", [1, 4])
def test_rounding_twice_at_the_halves_of_both_shifts(shift: int, output_cycles: int) -> None:
    config = Config(activation_bits=16, channel_depth=16, output_cycles=output_cycles)
    sums = [
        sign * ((whole << shift) + (half << shift - 1) + step)
        for whole in range(3)
        for half in range(2)
        for step in (-(1 << 30), -1, 0, 1, 1 << 30, (1 << 30) - 1)
        for sign in (1, -1)
    ]
    # Products of these sums: multiples of a quarter of 2**31 on both sides of each half.
    scale = 1 << 29
    sums = [max(-(1 << 31), min((1 << 31) - 1, value // scale)) for value in sums]
    constants = [{"address": 0, "bias": 0, "scale": scale, "shift": shift}]
    run = {
        "out_width": len(sums),
        "rounding": Rounding.DOUBLE,
        "clip_low": -32768,
        "clip_high": 32767,
    }
    results, _, _ = simulate(
        make_requantiser(config), sums, len(sums), run=run, channels=1, constants=constants
    )
    assert results == requantised(sums, constants, run)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("output_cycles", [1, 4])
def test_extremes_of_the_default_widths(rounding: Rounding, output_cycles: int) -> None:
    config = Config(channel_depth=16, output_cycles=output_cycles)
    low, high = -(1 << 31), (1 << 31) - 1
    constants = [
        {"address": n, "bias": bias, "scale": scale, "shift": shift}
        for n, (bias, scale, shift) in enumerate(
            (bias, scale, shift)
            for bias in (low, high)
            for scale, shift in ((high, 63), (high, 62), (high, 31), (1, 0))
        )
    ]
    sums = [low] * 8 + [high] * 8 + [0] * 8
    run = {"out_width": 3, "rounding": rounding, "clip_low": -256, "clip_high": 255}
    results, _, _ = simulate(
        make_requantiser(config), sums, 24, run=run, channels=8, constants=constants
    )
    assert results == requantised(sums, constants, run)


def test_requantiser_takes_a_value_per_cycle_and_seven_cycles() -> None:
    constants = [{"address": 0, "bias": 0, "scale": 1, "shift": 0}]
    run = {"out_width": 20, "clip_low": -16, "clip_high": 15}
    # `collect_stream` is ready from cycle to cycle.
    results, accepted, sent = simulate(
        Requantiser(SMALL), range(-10, 10), 20, run=run, channels=1, constants=constants
    )
    assert [value for value, _ in results] == list(range(-10, 10))
    assert accepted == list(range(accepted[0], accepted[0] + 20))
    assert sent == [cycle + Requantiser.LATENCY for cycle in accepted]
    assert Requantiser.LATENCY == 7


def test_serial_requantiser_takes_a_value_in_four_cycles() -> None:
    config = Config(channel_depth=16, output_cycles=4, accumulator_bits=28)
    constants = [{"address": 0, "bias": 0, "scale": 1, "shift": 0}]
    run = {"out_width": 20, "clip_low": -16, "clip_high": 15}
    results, accepted, sent = simulate(
        make_requantiser(config), range(-10, 10), 20, run=run, channels=1, constants=constants
    )
    assert [value for value, _ in results] == list(range(-10, 10))
    assert np.diff(accepted).tolist()[2:] == [4] * 17
    assert np.diff(sent).tolist() == [4] * 19


@pytest.mark.parametrize("config", [SMALL, SERIAL])
def test_start_drops_what_is_inside(config: Config) -> None:
    dut = make_requantiser(config)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.run, {"out_width": 2, "clip_high": 15})
        ctx.set(dut.channels, 2)
        await drive_stream(ctx, dut.i, [1, 2, 3])
        ctx.set(dut.start, 1)
        assert not ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.o.ready, 1)
        await drive_stream(ctx, dut.i, [0] * 4)
        lasts = [payload.last for payload in await collect_stream(ctx, dut.o, 4)]
        assert lasts == [0, 0, 0, 1]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@settings(max_examples=20, deadline=None)
@given(lookup=st.integers(0, 1), seed=st.integers(0, 1 << 32), gaps=pauses, stalls=pauses)
def test_lookup_equals_its_table(
    *, lookup: int, seed: int, gaps: list[int], stalls: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-16, 16, 32).tolist()
    values = rng.integers(-16, 16, 40).tolist()
    inputs = [{"value": value, "last": n % 7 == 6} for n, value in enumerate(values)]
    results, _, _ = simulate(
        Lookup(SMALL),
        inputs,
        40,
        run={"lookup": lookup},
        channels=1,
        table=table,
        gaps=gaps,
        stalls=stalls,
    )
    outputs = [table[value % 32] for value in values] if lookup else values
    assert results == [(value, n % 7 == 6) for n, value in enumerate(outputs)]


@pytest.mark.parametrize("lookup", [0, 1])
def test_lookup_takes_a_value_per_cycle_and_one_cycle(lookup: int) -> None:
    inputs = [{"value": value} for value in range(-16, 16)]
    _, accepted, sent = simulate(
        Lookup(SMALL), inputs, 32, run={"lookup": lookup}, channels=1, table=[0] * 32
    )
    assert accepted == list(range(accepted[0], accepted[0] + 32))
    assert sent == [cycle + Lookup.LATENCY for cycle in accepted]


@pytest.mark.parametrize("part", [Requantiser, Pooler])
def test_valid_does_not_wait_for_ready(part: type[Requantiser] | type[Pooler]) -> None:
    dut = part(SMALL)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(
            dut.run,
            pooling_run(out_height=2, out_width=2, pooled_height=2, pooled_width=2, pool_height=1)
            | {"pool_width": 1, "pool_stride_x": 1, "pool_stride_y": 1},
        )
        ctx.set(dut.channels, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        first: Any = 1 if isinstance(dut, Requantiser) else {"value": 1}
        ctx.set(dut.i.payload, first)
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.o.valid)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.cocotb
def test_requantiser_verilog_equals_golden(tmp_path: Path) -> None:
    config: dict[str, Any] = {"lanes": 1, "channel_depth": 16}
    count = run_cocotb(
        Requantiser(Config(**config)),
        test_module="cocotb_requantiser",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(config)},
    )
    assert count == 4
