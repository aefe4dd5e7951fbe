"""Requantiser: turns a column's sums into activations.

Defined by :func:`thresher.golden.requantise.requantise`, of ``bias + sum``.
"""

from typing import Any

from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import constant_layout, record_layout, value_layout
from thresher.hw.output.scaler import Scaler, factor_layout

__all__ = ["Requantiser"]


ROOM = 4  # results that a requantiser without a scaler of its own has room for


def _scaler_ports(config: Config) -> dict[str, Any]:
    """Return the ports to a column's scaler, if it is one for all."""
    if config.output_cycles == 1:
        return {}
    return {
        "sum": Out(stream.Signature(factor_layout(config.accumulator_bits + 1, config.scale_bits))),
        "activation": In(stream.Signature(value_layout(config))),
    }


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
    sum, activation : ``Out``, ``In`` of a stream
        With ``output_cycles`` 4, to and from the :class:`~.column_scaler.ColumnScaler`.
    """

    i: stream.Interface
    constant: data.View
    run: data.View
    channels: Signal
    start: Signal
    o: stream.Interface
    sum: stream.Interface
    activation: stream.Interface

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
                **_scaler_ports(config),
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
        factors: stream.Interface
        if config.output_cycles == 1:
            m.submodules.scaler = scaler = Scaler(config, sum_bits, config.scale_bits)
            m.d.comb += [
                scaler.rounding.eq(self.run.rounding),
                scaler.low.eq(self.run.clip_low),
                scaler.high.eq(self.run.clip_high),
            ]
            wiring.connect(m, scaler.o, wiring.flipped(self.o))
            factors = scaler.i
        else:
            factors = self._keep_room(m)

        # The two stages before the scaler move with it; the first takes a sum when it has none if
        # there is time for that.
        moves = Signal()
        begun = Signal()
        takes = Signal()
        valid_1 = Signal()
        m.d.comb += [
            moves.eq(factors.ready),
            # Serial, no constant is read while one is written: a memory's word costs logic then.
            takes.eq(moves if config.output_cycles == 1 else ~valid_1 & ~self.constant.valid),
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
        factor_2 = Signal.like(factors.payload, reset_less=True)
        m.d.comb += [factors.valid.eq(valid_2), factors.payload.eq(factor_2)]
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
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole

    def _keep_room(self, m: Module) -> stream.Interface:
        """Send sums to the column's scaler, as many as there is room for results; return them."""
        sums = stream.Signature(
            factor_layout(self.config.accumulator_bits + 1, self.config.scale_bits)
        ).create(path=("sums",))
        room = Signal(range(ROOM + 1), init=ROOM)
        sent, taken = Signal(), Signal()
        m.submodules.results = results = SyncFIFO(width=self.o.payload.shape().size, depth=ROOM)
        m.d.comb += [
            self.sum.valid.eq(sums.valid & (room != 0)),
            self.sum.payload.eq(sums.payload),
            # A free place at the input of a scaler, when nothing is offered.
            sums.ready.eq(~sums.valid | (self.sum.ready & (room != 0))),
            sent.eq(self.sum.valid & self.sum.ready),
            results.w_data.eq(self.activation.payload),
            results.w_en.eq(self.activation.valid),
            self.activation.ready.eq(1),
            self.o.valid.eq(results.r_rdy),
            self.o.payload.eq(results.r_data),
            results.r_en.eq(self.o.ready),
            taken.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += room.eq(room + taken - sent)
        return sums
