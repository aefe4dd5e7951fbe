"""Store of a pooler's partial results, and the scaler behind it."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool
from thresher.hw.layouts import pool_scale_write_layout, record_layout, value_layout
from thresher.hw.output.pooler_ports import POOL_SCALE_BITS, SUM_BITS, sum_bits, sums_port
from thresher.hw.output.scaler import Scaler

__all__ = ["PartialStore"]


class PartialStore(wiring.Component):
    """Partial results of windows: combines values into them, and sends finished ones.

    Timing contract
    ---------------
    Latency
        An operation presented while ``ready`` reads in this cycle and is carried out in the next;
        one on the same address may follow at once. A result sent in cycle ``t`` is offered in cycle
        ``t + 8``. A sum accepted in cycle ``t`` is offered as a result in cycle ``t + 6``.
    Throughput
        One operation per cycle. Only a result that the scaler cannot take stops them.
    Combinational paths
        ``o.ready`` to ``ready`` and to ``sums.ready``.

    Parameters
    ----------
    config
        Width of an activation, ``pool_depth``, ``pool_lacks`` and ``residual``.

    Members
    -------
    run : ``In(record_layout(RUN))``
        As of the pooler.
    update, emit : ``In(1)``
        Combine ``value`` into a partial result; send one. Both: send what it has become.
    address, value, overwrite, last, lacks
        Operand: the partial result; what is combined with it, or put in its place if ``overwrite``;
        ``last`` of the result sent; and which of the scales it has.
    scale : ``In(pool_scale_write_layout())``
        As of the pooler.
    ready : ``Out(1)``
        The operation is taken in this cycle.
    sums : ``In(stream.Signature(result_layout(addition_bits(config))))``
        As of the pooler.
    o : ``Out(stream.Signature(value_layout(config)))``
        Results, scaled and clipped.
    """

    run: data.View
    update: Signal
    emit: Signal
    address: Signal
    value: Signal
    overwrite: Signal
    last: Signal
    lacks: Signal
    scale: data.View
    ready: Signal
    sums: stream.Interface
    o: stream.Interface

    LATENCY = 3 + Scaler.LATENCY

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lack_bits = config.pool_lacks.bit_length()
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "update": In(1),
                "emit": In(1),
                "address": In((config.pool_depth - 1).bit_length()),
                "value": In(signed(config.activation_bits)),
                "overwrite": In(1),
                "last": In(1),
                "lacks": In(2 * self.lack_bits),
                "scale": In(pool_scale_write_layout()),
                "ready": Out(1),
                **sums_port(config),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, run = self.config, self.run
        partial_bits = config.activation_bits + SUM_BITS
        average = Signal()
        m.d.comb += average.eq(self.run.pool == Pool.AVERAGE)
        memory: Memory[Any, Any] = Memory(
            shape=signed(partial_bits), depth=self.config.pool_depth, init=[]
        )
        m.submodules.partials = memory
        write, read = memory.write_port(), memory.read_port()
        scales: Memory[Any, Any] = Memory(
            shape=POOL_SCALE_BITS, depth=1 << 2 * self.lack_bits, init=[]
        )
        m.submodules.scales = scales
        scale_write, scale_read = scales.write_port(), scales.read_port(domain="comb")
        m.submodules.scaler = scaler = Scaler(config, sum_bits(config), POOL_SCALE_BITS)
        wiring.connect(m, scaler.o, wiring.flipped(self.o))

        # The operation whose partial result is being read, and the one written just before.
        updates = Signal()
        emits = Signal()
        address = Signal.like(self.address)
        value = Signal.like(self.value)
        overwrite = Signal()
        last = Signal()
        lacks = Signal.like(self.lacks)
        forward = Signal()
        written = Signal(signed(partial_bits))
        partial = Signal(signed(partial_bits))
        moves = Signal()
        m.d.comb += [read.en.eq(self.ready), read.addr.eq(self.address)]
        m.d.comb += [
            self.ready.eq(~emits | moves),
            partial.eq(Mux(forward, written, read.data)),
        ]
        with m.If(self.ready):
            m.d.sync += [
                updates.eq(self.update),
                emits.eq(self.emit),
                forward.eq(write.en & (write.addr == self.address)),
                written.eq(write.data),
            ]
        with m.If(self.ready):
            m.d.sync += [
                address.eq(self.address),
                value.eq(self.value + run.pool_origin),
                overwrite.eq(self.overwrite),
                last.eq(self.last),
                lacks.eq(self.lacks),
            ]

        # Combine. (A stalled operation writes the same again.)
        m.d.comb += [write.en.eq(updates), write.addr.eq(address)]
        with m.If(overwrite):
            m.d.comb += write.data.eq(value)
        with m.Elif(average):
            m.d.comb += write.data.eq(partial + value)
        with m.Else():
            largest = partial[: config.activation_bits].as_signed()  # a maximum is an activation
            m.d.comb += write.data.eq(Mux(largest < value, value, largest))

        # Send, from a register, with the scale of its window. (Sums lack nothing.)
        sends = Signal()
        sent = Signal(signed(partial_bits), reset_less=True)
        sent_last = Signal(reset_less=True)
        sent_lacks = Signal.like(self.lacks)
        factor = Signal.like(scaler.i.payload, reset_less=True)
        factor_valid = Signal()
        with m.If(moves):
            m.d.sync += [
                sends.eq(emits),
                sent.eq(Mux(updates, write.data, partial)),
                sent_last.eq(last),
                sent_lacks.eq(lacks),
                factor_valid.eq(sends),
                factor.value.eq(sent),
                factor.scale.eq(scale_read.data),
                factor.last.eq(sent_last),
            ]
        if config.residual:
            m.d.comb += self.sums.ready.eq(moves & run.add)
            with m.If(moves & run.add):
                m.d.sync += [
                    factor_valid.eq(self.sums.valid),
                    factor.value.eq(self.sums.payload.value),
                    factor.last.eq(self.sums.payload.last),
                ]

        m.d.comb += [
            scale_write.en.eq(self.scale.valid),
            scale_write.addr.eq(
                Cat(self.scale.columns[: self.lack_bits], self.scale.rows[: self.lack_bits])
            ),
            scale_write.data.eq(self.scale.scale),
            scale_read.addr.eq(sent_lacks),
            moves.eq(scaler.i.ready),
            scaler.i.valid.eq(factor_valid),
            scaler.i.payload.eq(factor),
            scaler.i.payload.shift.eq(run.pool_shift),
            scaler.rounding.eq(run.pool_rounding),
            scaler.low.eq(run.pool_low),
            scaler.high.eq(run.pool_high),
            scaler.origin.eq(run.pool_origin),
        ]
        return m
