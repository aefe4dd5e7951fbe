"""Output stage: equal to the reference under any flow control, and on time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thresher.golden.addition import ADD_HEADROOM, add
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool, Rounding
from thresher.golden.pooling import average_pool, lacking, max_pool
from thresher.golden.product import multiply
from thresher.golden.requantise import requantise
from thresher.hw.layouts import (
    activation_layout,
    lookup_write_layout,
    pool_scale_write_layout,
    record_layout,
    value_layout,
)
from thresher.hw.output.adder import Adder
from thresher.hw.output.clipper import Clipper
from thresher.hw.output.column_scaler import ColumnScaler
from thresher.hw.output.lookup import Lookup
from thresher.hw.output.pool_steps import PoolSettings
from thresher.hw.output.pooler import Pooler
from thresher.hw.output.requantiser import Requantiser
from thresher.hw.output.serial_pooler import SerialPooler
from thresher.sim.runner import run_cocotb
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

SMALL = Config(
    lanes=1,
    activation_bits=5,
    accumulator_bits=16,
    scale_bits=8,
    channel_depth=16,
    pool_depth=64,
)
SERIAL = replace(SMALL, output_cycles=4)
pauses = st.lists(st.integers(0, 3), max_size=24)
Value = tuple[int, bool]


class Serial(wiring.Component):
    """Parts of a column with ``output_cycles`` 4 and the scaler that they share."""

    i: stream.Interface
    constant: Any
    run: Any
    channels: Signal
    start: Signal
    scale: Any
    sums: stream.Interface
    o: stream.Interface

    def __init__(self, config: Config, part: Requantiser | SerialPooler) -> None:
        self.config = config
        self.part = part
        members = dict(part.signature.members)
        for name in ("sum", "activation", "pooled", "result", "setting"):
            members.pop(name, None)
        if isinstance(part, SerialPooler):
            members["scale"] = In(pool_scale_write_layout())
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.part = part = self.part
        m.submodules.scaler = scaler = ColumnScaler(self.config)
        m.submodules.settings = settings = PoolSettings(self.config)
        wiring.connect(m, wiring.flipped(self.i), part.i)
        wiring.connect(m, part.o, wiring.flipped(self.o))
        m.d.comb += part.channels.eq(self.channels)
        if isinstance(part, Requantiser):
            connect_scaler(m, scaler, requantiser=part)
            m.d.comb += part.constant.eq(self.constant)
        else:
            connect_scaler(m, scaler, pooler=part)
            wiring.connect(m, wiring.flipped(self.sums), part.sums)
            m.d.comb += [scaler.scale.eq(self.scale), part.setting.eq(settings.o)]
        for one in (part, settings, scaler):
            m.d.comb += [one.run.eq(self.run), one.start.eq(self.start)]
        return m


def connect_scaler(
    m: Module,
    scaler: ColumnScaler,
    *,
    requantiser: Requantiser | None = None,
    pooler: SerialPooler | None = None,
    adder: Adder | None = None,
) -> None:
    """Connect parts to the scaler that they share."""
    if requantiser is not None:
        wiring.connect(m, requantiser.sum, scaler.sum)
        wiring.connect(m, scaler.activation, requantiser.activation)
    if pooler is not None:
        wiring.connect(m, pooler.pooled, scaler.pooled)
        wiring.connect(m, scaler.result, pooler.result)
    if adder is not None:
        wiring.connect(m, adder.scale, scaler.operand)
        wiring.connect(m, scaler.scaled, adder.scaled)


def make_pooler(config: Config) -> Pooler | Serial:
    """The pooler of a machine."""
    return Pooler(config) if config.output_cycles == 1 else Serial(config, SerialPooler(config))


def make_requantiser(config: Config) -> Requantiser | Serial:
    """The requantiser of a machine."""
    part = Requantiser(config)
    return part if config.output_cycles == 1 else Serial(config, part)


Part = Requantiser | Pooler | Serial | Lookup | Adder


class Addition(wiring.Component):
    """Lookup, adder and pooler of a column, as the accelerator connects them."""

    i: stream.Interface
    table: Any
    operand: stream.Interface
    run: Any
    channels: Signal
    start: Signal
    scale: Any
    o: stream.Interface

    LOOKUP = True

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "table": In(lookup_write_layout(config)),
                "operand": In(stream.Signature(activation_layout(config))),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "start": In(1),
                "scale": In(pool_scale_write_layout()),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.adder = adder = Adder(self.config)
        serial = self.config.output_cycles > 1
        pooler = SerialPooler(self.config) if serial else Pooler(self.config)
        m.submodules.pooler = pooler
        parts: list[Any] = [adder, pooler]
        if self.LOOKUP:
            m.submodules.lookup = lookup = Lookup(self.config)
            wiring.connect(m, wiring.flipped(self.i), lookup.i)
            wiring.connect(m, lookup.o, adder.i)
            m.d.comb += lookup.table.eq(self.table)
            parts.append(lookup)
        else:
            wiring.connect(m, wiring.flipped(self.i), adder.i)
        wiring.connect(m, wiring.flipped(self.operand), adder.operand)
        wiring.connect(m, adder.o, pooler.i)
        wiring.connect(m, adder.sums, pooler.sums)
        wiring.connect(m, pooler.o, wiring.flipped(self.o))
        m.d.comb += [
            adder.channels.eq(self.channels),
            pooler.channels.eq(self.channels),
        ]
        if isinstance(pooler, SerialPooler):
            m.submodules.scaler = scaler = ColumnScaler(self.config)
            m.submodules.settings = settings = PoolSettings(self.config)
            connect_scaler(m, scaler, pooler=pooler, adder=adder)
            m.d.comb += [scaler.scale.eq(self.scale), pooler.setting.eq(settings.o)]
            parts += [scaler, settings]
        else:
            m.d.comb += pooler.scale.eq(self.scale)
        for part in parts:
            m.d.comb += [part.run.eq(self.run), part.start.eq(self.start)]
        return m


class Product(Addition):
    """Adder and pooler of a column, without a lookup."""

    LOOKUP = False


async def write_scales(ctx: SimulatorContext, port: Any, scales: Sequence[Sequence[int]]) -> None:
    """Fill the pooler's table."""
    for rows, line in enumerate(scales):
        for columns, scale in enumerate(line):
            ctx.set(port, {"valid": 1, "rows": rows, "columns": columns, "scale": scale})
            await ctx.tick()
    ctx.set(port, {"valid": 0})


def simulate(  # noqa: PLR0915  # a testbench a port
    dut: Part | Addition,
    inputs: Sequence[Any],
    count: int,
    *,
    run: Mapping[str, int],
    channels: int,
    constants: Sequence[Mapping[str, int]] = (),
    table: Sequence[int] = (),
    cut_scales: Sequence[Sequence[int]] | None = None,
    operands: Sequence[Mapping[str, int]] = (),
    output: str = "o",
    gaps: list[int] = [],  # noqa: B006  # read only
    stalls: Sequence[int] = (),
    runs: int = 1,
) -> tuple[list[Value], list[int], list[int]]:
    """Results, and the cycles of transfers at ``i`` and at ``o``; ``start`` before each run."""
    results: list[Value] = []
    accepted: list[int] = []
    sent: list[int] = []
    out = getattr(dut, output)

    async def testbench(ctx: SimulatorContext) -> None:
        for address, value in enumerate(table):
            ctx.set(dut.table, {"valid": 1, "address": address, "value": value})  # type: ignore[union-attr]
            await ctx.tick()
        if table:
            ctx.set(dut.table, {"valid": 0})  # type: ignore[union-attr]
        for constant in constants:
            ctx.set(dut.constant, {"valid": 1, **constant})  # type: ignore[union-attr]
            await ctx.tick()
        if constants:
            ctx.set(dut.constant, {"valid": 0})  # type: ignore[union-attr]
        if hasattr(dut, "scale"):
            await write_scales(ctx, dut.scale, cut_scales or [[run.get("pool_scale", 1)]])
        ctx.set(dut.run, run)
        if hasattr(dut, "channels"):
            ctx.set(dut.channels, channels)
        for _ in range(runs):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            received = await collect_stream(ctx, out, count, stalls, max_idle=20_000)
            for payload in received:
                results.append((payload.value, bool(payload.last)))
        ctx.set(out.ready, 1)
        for _ in range(20):
            _, _, valid = await ctx.tick().sample(out.valid)
            assert not valid, "more results than asked for"

    async def producer(ctx: SimulatorContext) -> None:
        for _ in range(runs):
            await ctx.tick().until(dut.start)
            await drive_stream(ctx, dut.i, inputs, gaps)

    async def operand_producer(ctx: SimulatorContext) -> None:
        for _ in range(runs):
            await ctx.tick().until(dut.start)
            await drive_stream(ctx, dut.operand, operands, gaps[1:] + gaps[:1])  # type: ignore[union-attr]

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, out)

    async def clock(ctx: SimulatorContext) -> None:
        cycle = 0
        ports = (dut.i.valid, dut.i.ready, out.valid, out.ready)
        while True:
            _, _, *levels = await ctx.tick().sample(*ports)
            if levels[0] and levels[1]:
                accepted.append(cycle)
            if levels[2] and levels[3]:
                sent.append(cycle)
            cycle += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(producer)
    if operands:
        simulator.add_testbench(operand_producer)
    simulator.add_testbench(testbench)
    simulator.add_testbench(rules, background=True)
    simulator.add_testbench(clock, background=True)
    simulator.run()
    return results, accepted, sent


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


def requantised(
    sums: Sequence[int], constants: Sequence[Mapping[str, int]], run: Mapping[str, int]
) -> list[Value]:
    """The reference's results, in stream order."""
    channels = len(constants)
    biased = np.asarray(sums).reshape(-1, channels) + [c["bias"] for c in constants]
    values = requantise(
        biased,
        [c["scale"] for c in constants],
        [c["shift"] for c in constants],
        Rounding(run["rounding"]),
        (run["clip_low"], run["clip_high"]),
    ).ravel()
    row = run["out_width"] * channels
    return [(value, index % row == row - 1) for index, value in enumerate(values.tolist())]


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


def pooled(
    maps: np.ndarray[Any, Any],
    run: Mapping[str, int],
    cut_scales: Sequence[Sequence[int]] | None = None,
) -> list[Value]:
    """The reference's results for maps (map, channel, row, position), in stream order."""
    geometry = (
        (run["pool_height"], run["pool_width"]),
        (run["pool_stride_y"], run["pool_stride_x"]),
        (run["pool_pad_y"], run["pool_pad_x"]),
        (run["pooled_height"], run["pooled_width"]),
    )
    if run["pool"] == Pool.MAX:
        values = max_pool(maps, *geometry)
    else:
        values = average_pool(
            maps,
            *geometry,
            scale=run["pool_scale"],
            shift=run["pool_shift"],
            rounding=Rounding(run["pool_rounding"]),
            origin=run["pool_origin"],
            clip=(run["pool_low"], run["pool_high"]),
            cut_scales=cut_scales,
        )
    stream = values.transpose(0, 2, 3, 1)
    row = stream.shape[2] * stream.shape[3]
    return [(value, index % row == row - 1) for index, value in enumerate(stream.ravel().tolist())]


def inputs_of(maps: np.ndarray[Any, Any]) -> list[dict[str, int]]:
    """Values in stream order; ``last`` as the requantiser sets it."""
    stream = maps.transpose(0, 2, 3, 1)
    row = stream.shape[2] * stream.shape[3]
    return [
        {"value": value, "last": index % row == row - 1}
        for index, value in enumerate(stream.ravel().tolist())
    ]


def pooling_run(**fields: int) -> dict[str, int]:
    """A run's fields of pooling: 2 x 2 maxima, unless given otherwise."""
    run = {
        "pool": Pool.MAX,
        "pool_height": 2,
        "pool_width": 2,
        "pool_stride_y": 2,
        "pool_stride_x": 2,
        "pool_pad_y": 0,
        "pool_pad_x": 0,
        "pool_low": -16,
        "pool_high": 15,
        "pool_scale": 1,
        "pool_shift": 0,
        "pool_rounding": 0,
        "pool_origin": 0,
    }
    run |= fields
    for side, axis in (("height", "y"), ("width", "x")):
        room = run.get(f"out_{side}", 0) + run[f"pool_pad_{axis}"] - run[f"pool_{side}"]
        run[f"pool_room_{axis}"] = room
    return run


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Length of a map's side, and kernel, stride, padding and number of the windows along it."""
    length = draw(st.integers(1, 6))
    kernel = draw(st.integers(1, 9))
    stride = draw(st.integers(1, 4))
    pad = draw(st.integers(0, kernel - 1))
    most = (length - 1 + pad) // stride + 1  # windows that begin within the map
    return length, kernel, stride, pad, draw(st.integers(1, most))


@settings(max_examples=30, deadline=None)
@given(
    y=sides(),
    x=sides(),
    channels=st.integers(1, 3),
    maps=st.integers(1, 2),
    pool=st.sampled_from([Pool.MAX, Pool.AVERAGE]),
    rounding=st.sampled_from(Rounding),
    output_cycles=st.sampled_from([1, 4]),
    pool_lacks=st.sampled_from([3, 7]),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
@example(  # rows left to send behind a value that lies in no window
    y=(2, 2, 1, 0, 2),
    x=(2, 1, 1, 0, 1),
    channels=2,
    maps=2,
    pool=Pool.MAX,
    rounding=Rounding.HALF_UP,
    output_cycles=4,
    pool_lacks=3,
    seed=0,
    gaps=[],
    stalls=[],
)
def test_pooler_equals_golden(
    *,
    y: tuple[int, int, int, int, int],
    x: tuple[int, int, int, int, int],
    channels: int,
    maps: int,
    pool: Pool,
    rounding: Rounding,
    output_cycles: int,
    pool_lacks: int,
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice([-16, -5, 0, 2, 15], 2, replace=False)).tolist()
    mean: dict[str, int] = {}
    origin, cut_scales, written = 0, None, None
    if pool is Pool.AVERAGE:
        origin = int(rng.choice([0, -9, 3, 15]))
        mean = {
            "pool_rounding": rounding,
            "pool_scale": int(rng.choice([1, 3, 28, 57])),
            "pool_shift": int(rng.integers(0, 8)),
            "pool_origin": origin,
            "pool_low": bounds[0],
            "pool_high": bounds[1],
        }
        most = [lacking(side[0], *side[1:]).max() for side in (y, x)]
        if rng.random() < 0.8:
            # Windows that lack more than the table tells apart have one scale.
            alike = [lacks > pool_lacks or rng.random() < 0.2 for lacks in most]
            size = [1 if one else lacks + 1 for one, lacks in zip(alike, most, strict=True)]
            table = rng.integers(0, 100, size)
            cut_scales = table.tolist()
            for axis in (0, 1):
                table = table.repeat(pool_lacks + 1 if alike[axis] else 1, axis)
            written = table.tolist()
            mean |= {"pool_scale": cut_scales[0][0], "pool_scales": table.size - 1}
    low, high = max(-16, -16 - origin), min(15, 15 - origin)
    values = rng.integers(low, high, (maps, channels, y[0], x[0]), endpoint=True)
    fields: dict[str, int] = {}
    for side, axis, (length, kernel, stride, pad, count) in (("height", "y", y), ("width", "x", x)):
        fields |= {
            f"out_{side}": length,
            f"pool_{side}": kernel,
            f"pool_stride_{axis}": stride,
            f"pool_pad_{axis}": pad,
            f"pooled_{side}": count,
        }
    run = pooling_run(pool=pool, **mean, **fields)
    live = min(-(-y[1] // y[2]), y[4])
    depth = 1 << max(4, (live * x[4] * channels - 1).bit_length())  # as small as it may be
    config = Config(
        lanes=1,
        activation_bits=5,
        pool_depth=depth,
        pool_lacks=pool_lacks,
        output_cycles=output_cycles,
    )
    expected = pooled(values, run, cut_scales)
    results, _, _ = simulate(
        make_pooler(config),
        inputs_of(values),
        len(expected),
        run=run,
        channels=channels,
        cut_scales=written,
        gaps=gaps,
        stalls=stalls,
    )
    assert results == expected


def test_a_global_average_and_a_second_run() -> None:
    values = np.random.default_rng(1).integers(-16, 15, (1, 3, 7, 7), endpoint=True)
    run = pooling_run(
        pool=Pool.AVERAGE,
        out_height=7,
        out_width=7,
        pool_height=7,
        pool_width=7,
        pooled_height=1,
        pooled_width=1,
        pool_scale=round(2**20 / 49),
        pool_shift=20,
    )
    expected = pooled(values, run)
    results, _, _ = simulate(Pooler(SMALL), inputs_of(values), 3, run=run, channels=3, runs=2)
    assert results == expected * 2


def test_without_pooling_values_pass_at_full_rate() -> None:
    values = np.random.default_rng(2).integers(-16, 15, (1, 2, 3, 5), endpoint=True)
    inputs = inputs_of(values)
    results, accepted, sent = simulate(
        Pooler(SMALL), inputs, len(inputs), run={"pool": Pool.NONE}, channels=2
    )
    assert results == [(item["value"], item["last"]) for item in inputs]
    assert accepted == sent == list(range(accepted[0], accepted[0] + len(inputs)))


@pytest.mark.parametrize("pool", [Pool.MAX, Pool.AVERAGE])
def test_disjoint_windows_take_a_value_per_cycle(pool: Pool) -> None:
    values = np.random.default_rng(3).integers(-16, 15, (2, 3, 4, 6), endpoint=True)
    run = pooling_run(pool=pool, out_height=4, out_width=6, pooled_height=2, pooled_width=3)
    expected = pooled(values, run)
    results, accepted, sent = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=3
    )
    assert results == expected
    assert accepted == list(range(accepted[0], accepted[0] + values.size))
    # Values 3 to 5 of each 6, of odd rows, are the last ones of their windows.
    final = [cycle for n, cycle in enumerate(accepted) if n // 18 % 2 and n // 3 % 2]
    assert sent == [cycle + 8 for cycle in final]


def test_overlapping_windows_take_a_cycle_per_value_and_window() -> None:
    values = np.random.default_rng(4).integers(-16, 15, (1, 2, 5, 5), endpoint=True)
    run = pooling_run(
        out_height=5,
        out_width=5,
        pool_height=3,
        pool_width=3,
        pooled_height=2,
        pooled_width=2,
    )
    expected = pooled(values, run)
    results, accepted, _ = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=2
    )
    assert results == expected
    windows = np.array([1, 1, 2, 1, 1])
    cycles = np.outer(windows, windows).repeat(2)
    assert np.diff([accepted[0] - 1, *accepted]).tolist() == cycles.tolist()


def test_windows_cut_by_the_edges_are_sent_at_one_per_cycle() -> None:
    values = np.random.default_rng(5).integers(-16, 15, (1, 3, 2, 2), endpoint=True)
    run = pooling_run(
        out_height=2,
        out_width=2,
        pool_stride_y=1,
        pool_stride_x=1,
        pooled_height=2,
        pooled_width=2,
    )
    expected = pooled(values, run)
    results, _, sent = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=3
    )
    assert results == expected
    assert sent == list(range(sent[0], sent[0] + len(expected)))


def test_all_rows_of_windows_cut_by_the_end_of_the_map_are_sent() -> None:
    values = np.random.default_rng(6).integers(-16, 15, (2, 2, 5, 2), endpoint=True)
    run = pooling_run(
        out_height=5,
        out_width=2,
        pool_height=4,
        pool_stride_y=1,
        pooled_height=5,
        pooled_width=1,
    )
    expected = pooled(values, run)
    results, _, _ = simulate(Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=2)
    assert results == expected


def added(outputs: Sequence[int], operands: Sequence[int], run: Mapping[str, int]) -> list[int]:
    """The reference's sums of outputs and operands."""
    plain, scaled = (outputs, operands) if run["scale_operand"] else (operands, outputs)
    values = add(
        plain,
        scaled,
        operand_scale=run["operand_scale"],
        operand_shift=run["operand_shift"],
        scale=run["pool_scale"],
        shift=run["pool_shift"],
        rounding=Rounding(run["pool_rounding"]),
        clip=(run["pool_low"], run["pool_high"]),
    )
    return list(values.tolist())


def operand_items(values: Sequence[int], rng: np.random.Generator) -> list[dict[str, int]]:
    """Values as the decoder sends them, with an item of no value here and there."""
    items = []
    for value in values:
        if rng.random() < 0.1:
            items.append({"value": 1, "step": 1, "hit": 0})
        items.append({"value": value, "step": 1, "hit": 1})
    return items


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([5, 9, 10]),
    output_cycles=st.sampled_from([1, 4]),
    rounding=st.sampled_from(Rounding),
    scale_operand=st.integers(0, 1),
    lookup=st.integers(0, 1),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
def test_addition_equals_golden(
    *,
    bits: int,
    output_cycles: int,
    rounding: Rounding,
    scale_operand: int,
    lookup: int,
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    config = Config(lanes=1, activation_bits=bits, pool_depth=16, output_cycles=output_cycles)
    half, count = 1 << bits - 1, 24
    extremes = [-half, -half, half - 1, half - 1, 0, -half, half - 1, -half]
    outputs = [*extremes[:4], *rng.integers(-half, half, count - 4).tolist()]
    operands = [*extremes[4:], *rng.integers(-half, half, count - 4).tolist()]
    table = rng.integers(-half, half, 2 * half).tolist()
    bounds = np.sort(rng.choice([-half, -3, 0, 4, half - 1], 2, replace=False)).tolist()
    operand_shift = int(rng.choice([0, 1, 20, 30, 31, 40, 63]))
    run = {
        "add": 1,
        "lookup": lookup,
        "scale_operand": scale_operand,
        "operand_scale": int(rng.integers(0, min(1 << operand_shift, (1 << 31) - 1) + 1)),
        "operand_shift": operand_shift,
        "pool_scale": int(rng.choice([1, 3, (1 << 31) - 1, int(rng.integers(1 << 31))])),
        "pool_shift": int(rng.choice([19, 20, 48, 50, int(rng.integers(64))])),
        "pool_rounding": rounding,
        "pool_low": bounds[0],
        "pool_high": bounds[1],
        "clip_low": 1,  # the requantiser's alone, as is this:
        "rounding": int(rng.integers(4)),
    }
    looked_up = [table[value % (2 * half)] for value in outputs] if lookup else outputs
    results, _, _ = simulate(
        Addition(config),
        [{"value": value, "last": n % 6 == 5} for n, value in enumerate(outputs)],
        count,
        run=run,
        channels=2,
        table=table if lookup else (),
        operands=operand_items(operands, rng),
        gaps=gaps,
        stalls=stalls,
    )
    expected = added(looked_up, operands, run)
    assert results == [(value, n % 6 == 5) for n, value in enumerate(expected)]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([5, 9, 10, 16]),
    output_cycles=st.sampled_from([1, 4]),
    rounding=st.sampled_from(Rounding),
    broadcast=st.integers(0, 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
def test_products_equal_golden(
    *,
    bits: int,
    output_cycles: int,
    rounding: Rounding,
    broadcast: int,
    shape: tuple[int, int, int, int],
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    """Of the outputs and an operand of their shape, or of one value a channel of each map."""
    rng = np.random.default_rng(seed)
    config = Config(
        lanes=1,
        activation_bits=bits,
        channel_depth=16,
        pool_depth=16,
        output_cycles=output_cycles,
        lookup=int(bits <= 10),
    )
    half = 1 << bits - 1
    maps, height, width, channels = shape
    outputs = rng.integers(-half, half, shape)
    operands = rng.integers(-half, half, (maps, 1, 1, channels) if broadcast else shape)
    for values in (outputs, operands):
        extreme = rng.random(values.shape) < 0.3
        values[extreme] = rng.choice([-half, 0, half - 1], int(extreme.sum()))
    bounds = np.sort(rng.choice([-half, -3, 0, 4, half - 1], 2, replace=False)).tolist()
    run = {
        "add": 1,
        "multiply": 1,
        "broadcast": broadcast,
        "operand_shift": ADD_HEADROOM,
        "pooled_height": height,
        "pooled_width": width,
        "pool_scale": int(rng.choice([1, 3, (1 << 31) - 1, int(rng.integers(1 << 31))])),
        "pool_shift": int(rng.choice([0, 1, bits, 30, 31 + bits, int(rng.integers(64))])),
        "pool_rounding": rounding,
        "pool_low": bounds[0],
        "pool_high": bounds[1],
    }
    results, _, _ = simulate(
        Product(config),
        [
            {"value": value, "last": n % (width * channels) == width * channels - 1}
            for n, value in enumerate(outputs.ravel().tolist())
        ],
        outputs.size,
        run=run,
        channels=channels,
        operands=operand_items(operands.ravel().tolist(), rng),
        gaps=gaps,
        stalls=stalls,
    )
    expected = multiply(
        outputs,
        operands,
        scale=run["pool_scale"],
        shift=run["pool_shift"],
        rounding=rounding,
        clip=(bounds[0], bounds[1]),
    )
    assert [value for value, _ in results] == expected.ravel().tolist()
    assert [n for n, (_, last) in enumerate(results, 1) if last] == [
        *range(width * channels, outputs.size + 1, width * channels)
    ]


def test_a_broadcast_operand_is_there_in_each_cycle_but_two_of_a_map() -> None:
    run = {"add": 1, "multiply": 1, "broadcast": 1, "operand_shift": ADD_HEADROOM}
    run |= {"pooled_height": 2, "pooled_width": 4, "pool_scale": 1, "pool_low": -16, "pool_high": 9}
    inputs = [{"value": n % 3, "last": n % 12 == 11} for n in range(48)]
    operands = [{"value": value, "hit": 1} for value in (1, 2, 3, -1, -2, -3)]
    results, accepted, sent = simulate(
        Adder(SMALL), inputs, 48, run=run, channels=3, operands=operands, output="sums"
    )
    assert [value for value, _ in results] == [0, 2, 6] * 8 + [0, -2, -6] * 8
    waits = {3: 2, 27: 2}  # the second position of each map
    assert np.diff(accepted[1:]).tolist() == [waits.get(n, 1) for n in range(2, 48)]
    assert sent[1:] == [cycle + Adder.LATENCY for cycle in accepted[1:]]


@pytest.mark.parametrize("pool", [Pool.NONE, Pool.MAX])
def test_a_run_that_does_not_add_passes_the_adder(pool: Pool) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(-16, 15, (1, 2, 4, 4), endpoint=True)
    run = pooling_run(pool=pool, out_height=4, out_width=4, pooled_height=2, pooled_width=2)
    table = rng.permutation(np.arange(-16, 16))
    inputs = inputs_of(values)
    looked_up = inputs_of(table[values % 32])
    expected = (
        pooled(table[values % 32], run)
        if pool
        else [(item["value"], bool(item["last"])) for item in looked_up]
    )
    results, accepted, _ = simulate(
        Addition(SMALL),
        inputs,
        len(expected),
        run=run | {"lookup": 1},
        channels=2,
        table=table.tolist(),
        runs=2,
    )
    assert results == expected * 2
    assert np.diff(accepted[1 : len(inputs)]).tolist() == [1] * (len(inputs) - 2)


def test_a_pair_takes_a_cycle_and_twelve_to_its_result() -> None:
    run = {"add": 1, "scale_operand": 1, "operand_scale": 1, "operand_shift": 1}
    run |= {"pool_scale": 1, "pool_shift": 19, "pool_low": -16, "pool_high": 15}
    values = list(range(-8, 8))
    inputs = [{"value": value, "last": 0} for value in values]
    operands = [{"value": -value, "hit": 1} for value in values]
    for dut, output, latency in (
        (Adder(SMALL), "sums", Adder.LATENCY),
        (Addition(SMALL), "o", Lookup.LATENCY + Adder.LATENCY + 6),
    ):
        results, accepted, sent = simulate(
            dut, inputs, 16, run=run, channels=1, operands=operands, output=output
        )
        assert [value for value, _ in results] == [0] * 16
        # The first input waits for its operand.
        assert np.diff(accepted[1:]).tolist() == [1] * 14
        assert sent[1:] == [cycle + latency for cycle in accepted[1:]]
    assert (Adder.LATENCY, Lookup.LATENCY) == (6, 1)


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


@pytest.mark.cocotb
def test_pooler_verilog_equals_golden(tmp_path: Path) -> None:
    config: dict[str, Any] = {"lanes": 1, "pool_depth": 64}
    count = run_cocotb(
        Pooler(Config(**config)),
        test_module="cocotb_pooler",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(config)},
    )
    assert count == 4


@pytest.mark.cocotb
def test_adder_verilog_equals_golden(tmp_path: Path) -> None:
    config: dict[str, Any] = {"lanes": 1}
    count = run_cocotb(
        Adder(Config(**config)),
        test_module="cocotb_adder",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(config)},
    )
    assert count == 8
