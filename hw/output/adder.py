"""Adder: a stored operand is added to a column's outputs on their way out, or multiplies them.

Defined by :func:`thresher.golden.addition.add` and :func:`thresher.golden.product.multiply`. The
last step, scaling the sum or the product, is the pooler's, whose scaler neither needs otherwise.
"""

from itertools import pairwise

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, Value, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import activation_layout, record_layout, result_layout, value_layout
from thresher.hw.output.broadcaster import Broadcaster
from thresher.hw.output.scaler import Scaler
from thresher.hw.output.serial_scaler import make_scaler

__all__ = ["Adder", "addition_bits"]

OPERAND_SCALE_BITS = 31


def addition_bits(config: Config) -> int:
    """Width of a sum: one of the two has 20 fractional bits, the other 19."""
    return config.activation_bits + ADD_HEADROOM + 1


class Adder(wiring.Component):
    """``plain * 2**19 + round(scaled * 2**20 * operand_scale / 2**operand_shift)``.

    One of the two is an output of the column, the other the operand's value in the same place;
    ``run.scale_operand`` says which is scaled. In runs that do not add, the outputs pass::

        i, operand -> which is which -> scaler, five stages -> + -> sums
                            |                                  |
                            +-> plain, carried along ----------+

    In runs that multiply, ``output * operand``. The scaler multiplies by factors that are not
    negative: it gives ``output * (operand + half)``, and what is carried along and added is
    ``-output * half``, with ``half = 2**(activation_bits - 1)``.

    Timing contract
    ---------------
    Latency
        Adding, a pair accepted in cycle ``t`` is offered as a sum in cycle ``t + 6``; ``t + 8``
        with ``output_cycles`` 4. Otherwise 0.
    Throughput
        One pair per cycle; with ``output_cycles`` 4 as many cycles as its serial scaler takes, two
        of activations of up to 11 bits, and four of the pooler's. While ``sums`` is stalled
        nothing moves.
    Combinational paths
        Adding, ``sums.ready`` to ``i.ready`` and ``operand.ready``, and from the valid of each of
        these two to the ready of the other; ``sums`` is driven from registers through an adder.
        Otherwise between ``i`` and ``o``, both ways.
    Reset
        As ``start``.

    Parameters
    ----------
    config
        Width of an activation; ``product``: whether it multiplies.

    Members
    -------
    i : ``In(stream.Signature(value_layout(config)))``
        Outputs of the column.
    operand : ``In(stream.Signature(activation_layout(config)))``
        The operand's values, zeros included, in the order of the outputs, or of each map's first
        position alone (``run.broadcast``); items without a hit are dropped. Only looked at in runs
        that add.
    run : ``In(record_layout(RUN))``
        The run; ``add``, ``scale_operand``, ``operand_scale``, ``operand_shift``,
        ``pool_rounding``, and with ``config.product`` ``multiply``, ``broadcast`` and
        ``pooled_height`` are used. Constant from ``start`` to the last value.
    channels : ``In(16)``
        Channels of the column; constant likewise. Only with ``config.product``.
    start : ``In(1)``
        Drop what is inside; no pair is accepted in this cycle.
    sums : ``Out(stream.Signature(result_layout(addition_bits(config))))``
        Sums, of 19 fractional bits, or products, of none; ``last`` is that of ``i``.
    o : ``Out(stream.Signature(value_layout(config)))``
        What passes.
    """

    i: stream.Interface
    operand: stream.Interface
    run: data.View
    channels: Signal
    start: Signal
    sums: stream.Interface
    o: stream.Interface

    LATENCY = 1 + Scaler.LATENCY

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "operand": In(stream.Signature(activation_layout(config))),
                "run": In(record_layout(RUN)),
                **({"channels": In(16)} if config.product else {}),
                "start": In(1),
                "sums": Out(stream.Signature(result_layout(addition_bits(config)))),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        run, operand = self.run, self.operand
        width = self.config.activation_bits
        if self.config.product:
            m.submodules.broadcaster = broadcaster = Broadcaster(self.config)
            wiring.connect(m, wiring.flipped(self.operand), broadcaster.i)
            m.d.comb += [
                broadcaster.run.eq(run),
                broadcaster.channels.eq(self.channels),
                broadcaster.last.eq(self.i.payload.last),
                broadcaster.start.eq(self.start),
            ]
            operand = broadcaster.o
        item = operand.payload
        m.submodules.scaler = scaler = make_scaler(
            self.config,
            width,
            OPERAND_SCALE_BITS,
            headroom=ADD_HEADROOM,
            result_bits=width + ADD_HEADROOM,
        )

        # A pair moves when both are there; without addition the outputs pass.
        moves = Signal()
        pair = Signal()
        m.d.comb += [
            moves.eq(scaler.i.ready & run.add & ~self.start),
            pair.eq(self.i.valid & operand.valid & item.hit),
            operand.ready.eq(moves & (self.i.valid | ~item.hit)),
            self.i.ready.eq(Mux(run.add, moves & operand.valid & item.hit, self.o.ready)),
            self.o.valid.eq(self.i.valid & ~run.add),
            self.o.payload.eq(self.i.payload),
        ]

        # Stage 1: the one to be scaled, and the plain one, which goes along with it.
        valid = Signal()
        scaled = Signal(signed(width), reset_less=True)
        last = Signal(reset_less=True)
        plain = Signal(signed(width + self.config.product))
        with m.If(scaler.i.ready):
            m.d.sync += [
                valid.eq(pair & run.add),
                scaled.eq(Mux(run.scale_operand, item.value, self.i.payload.value)),
                last.eq(self.i.payload.last),
            ]
        unscaled: Value = Mux(run.scale_operand, self.i.payload.value, item.value)
        scale: Value = run.operand_scale
        if self.config.product:
            factor = Signal(width, reset_less=True)  # and half, which inverts the sign bit
            with m.If(scaler.i.ready):
                m.d.sync += factor.eq(Mux(run.multiply, item.value ^ (1 << width - 1), 0))
            unscaled = Mux(run.multiply, -self.i.payload.value, unscaled)
            scale = run.operand_scale | factor
        if self.config.output_cycles == 1:
            stages = [
                Signal.like(plain, reset_less=True, name=f"plain_{stage}")
                for stage in range(self.LATENCY)
            ]
            with m.If(scaler.i.ready):
                m.d.sync += [after.eq(before) for before, after in pairwise([unscaled, *stages])]
            m.d.comb += plain.eq(stages[-1])
        else:
            m.submodules.plain = waiting = fifo.SyncFIFO(width=len(plain), depth=8)  # never full
            m.d.comb += [
                waiting.w_data.eq(unscaled),
                waiting.w_en.eq(scaler.i.ready & pair & run.add),
                waiting.r_en.eq(scaler.o.valid & scaler.o.ready),
                plain.eq(waiting.r_data),
            ]
        m.d.comb += [
            scaler.i.valid.eq(valid),
            scaler.i.payload.value.eq(scaled),
            scaler.i.payload.scale.eq(scale),
            scaler.i.payload.shift.eq(run.operand_shift),
            scaler.i.payload.last.eq(last),
            scaler.rounding.eq(run.pool_rounding),
        ]

        # The sum, behind the scaler's last register.
        added: Value = plain << ADD_HEADROOM - 1
        if self.config.product:
            added = Mux(run.multiply, plain << width - 1, added)
        m.d.comb += [
            self.sums.valid.eq(scaler.o.valid),
            self.sums.payload.value.eq(scaler.o.payload.value + added),
            self.sums.payload.last.eq(scaler.o.payload.last),
            scaler.o.ready.eq(self.sums.ready),
        ]

        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
