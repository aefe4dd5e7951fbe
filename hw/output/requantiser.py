"""Requantiser: turns a column's sums into activations.

Defined by :func:`thresher.golden.requantise.requantise`, of ``bias + sum``.
"""

from typing import Any

from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import constant_layout, record_layout, value_layout
from thresher.hw.output.scaler import Scaler
from thresher.hw.output.serial_scaler import make_scaler

__all__ = ["Requantiser"]


class Requantiser(wiring.Component):
    """``clip(round((sum + bias) * scale >> shift))``, with the constants of each channel.

    Timing contract
    ---------------
    Latency
        A sum accepted in cycle ``t`` is offered as an activation in cycle ``t + 7``; with
        ``output_cycles`` 4 in twelve cycles at most, if nothing is before it.
    Throughput
        One value per cycle, or in ``output_cycles``. While ``o`` is stalled nothing moves. Nothing
        is accepted in the cycle after ``start``.
    Combinational paths
        ``o.ready`` to ``i.ready``, with ``output_cycles`` 4 none. ``o`` is driven from registers
        alone.
    Reset
        As ``start``, and the constants stay.

    Parameters
    ----------
    config
        Widths, and the depth of the constants memory.

    Members
    -------
    i : ``In(stream.Signature(signed(config.accumulator_bits)))``
        Sums: rows, positions, channels, the last of them innermost.
    constant : ``In(constant_layout(config))``
        A write of one channel's constants, whenever ``valid``; not to a channel of this run.
    run : ``In(record_layout(RUN))``
        The run; ``out_width``, ``channel_base``, ``round_groups``, ``rounding``, ``clip_low`` and
        ``clip_high`` are used. In a run of rounds each row has channels, and so constants, of its
        own. Constant from ``start`` to the last value.
    channels : ``In(16)``
        Channels of this column, constant likewise.
    start : ``In(1)``
        Begin with the first channel of a row. What is in the pipeline is dropped, and nothing is
        accepted in this cycle.
    o : ``Out(stream.Signature(value_layout(config)))``
        Activations in the same order; ``last`` is high on the final one of an output row.
    """

    i: stream.Interface
    constant: data.View
    run: data.View
    channels: Signal
    start: Signal
    o: stream.Interface

    LATENCY = 2 + Scaler.LATENCY

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(signed(config.accumulator_bits))),
                "constant": In(constant_layout(config)),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "start": In(1),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        sum_bits = config.accumulator_bits + 1
        constants = data.StructLayout(
            {name: constant_layout(config)[name].shape for name in ("bias", "scale", "shift")}
        )
        # Loads write the constants of other channels than those of the run.
        memory: Memory[Any, Any] = Memory(
            shape=constants, depth=config.channel_depth, init=[], attrs={"no_rw_check": "1"}
        )
        m.submodules.constants = memory
        write, read = memory.write_port(), memory.read_port()
        m.submodules.scaler = scaler = make_scaler(config, sum_bits, config.scale_bits)

        # The two stages before the scaler move with it; the first takes a sum when it has none if
        # there is time for that.
        moves = Signal()
        begun = Signal()
        takes = Signal()
        valid_1 = Signal()
        m.d.comb += [
            moves.eq(scaler.i.ready),
            takes.eq(moves if config.output_cycles == 1 else ~valid_1),
            self.i.ready.eq(takes & begun & ~self.start),
        ]

        # Channel and position of the sum at the input: how many follow, of its position and row.
        channels_left = Signal(config.column_bits)
        positions_left = Signal(config.position_bits)
        channel = Signal(config.channel_bits)
        final_channel = Signal()
        final_position = Signal()
        m.d.comb += [
            final_channel.eq(channels_left == 0),
            final_position.eq(positions_left == 0),
        ]
        m.d.sync += begun.eq(1)
        with m.If(~begun | (self.i.valid & self.i.ready & final_channel)):
            m.d.sync += channels_left.eq(self.channels - 1)
            with m.If(begun & self.run.round_groups.any()):
                m.d.sync += channel.eq(channel + 1)
            with m.Else():
                m.d.sync += channel.eq(self.run.channel_base)
            with m.If(~begun | final_position):
                m.d.sync += positions_left.eq(self.run.out_width - 1)
            with m.Else():
                m.d.sync += positions_left.eq(positions_left - 1)
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [channels_left.eq(channels_left - 1), channel.eq(channel + 1)]

        # Stage 1: the sum, and its constants out of the memory.
        last_1 = Signal(reset_less=True)
        sum_1 = Signal(signed(config.accumulator_bits), reset_less=True)
        m.d.comb += [
            write.en.eq(self.constant.valid),
            write.addr.eq(self.constant.address),
            read.en.eq(takes),
            read.addr.eq(channel),
        ]
        m.d.comb += [
            write.data[name].eq(self.constant[name]) for name in ("bias", "scale", "shift")
        ]

        # Stage 2: the bias is added.
        valid_2 = Signal()
        factor_2 = Signal.like(scaler.i.payload, reset_less=True)
        m.d.comb += [scaler.i.valid.eq(valid_2), scaler.i.payload.eq(factor_2)]
        with m.If(moves):
            m.d.sync += [
                valid_1.eq(0),
                valid_2.eq(valid_1),
                factor_2.value.eq(sum_1 + read.data.bias),
                factor_2.scale.eq(read.data.scale),
                factor_2.shift.eq(read.data.shift),
                factor_2.last.eq(last_1),
            ]

        with m.If(takes):
            m.d.sync += [
                valid_1.eq(self.i.valid & begun),
                last_1.eq(final_channel & final_position),
                sum_1.eq(self.i.payload),
            ]

        m.d.comb += [
            scaler.rounding.eq(self.run.rounding),
            scaler.low.eq(self.run.clip_low),
            scaler.high.eq(self.run.clip_high),
        ]
        wiring.connect(m, scaler.o, wiring.flipped(self.o))
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
