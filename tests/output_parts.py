"""Parts of the output stage on a bench: what goes in, when it is taken, what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import strategies as st

from thresher.golden.addition import add
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool, Rounding
from thresher.golden.pooling import average_pool, max_pool
from thresher.golden.requantise import requantise
from thresher.hw.layouts import (
    activation_layout,
    lookup_write_layout,
    pool_scale_write_layout,
    record_layout,
    value_layout,
)
from thresher.hw.output.adder import Adder
from thresher.hw.output.column_scaler import ColumnScaler
from thresher.hw.output.lookup import Lookup
from thresher.hw.output.pool_steps import PoolSettings
from thresher.hw.output.pooler import Pooler
from thresher.hw.output.requantiser import Requantiser
from thresher.hw.output.serial_pooler import SerialPooler
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

__all__ = [
    "SERIAL",
    "SMALL",
    "Addition",
    "Product",
    "added",
    "inputs_of",
    "make_pooler",
    "make_requantiser",
    "operand_items",
    "pauses",
    "pooled",
    "pooling_run",
    "requantised",
    "sides",
    "simulate",
]

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
