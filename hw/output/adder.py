"""Adder: a stored operand is added to a column's outputs on their way out, or multiplies them.

Defined by :func:`thresher.golden.addition.add` and :func:`thresher.golden.product.multiply`. The
last step, scaling the sum or the product, is the pooler's, whose scaler neither needs otherwise.
"""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import (
    activation_layout,
    operand_layout,
    record_layout,
    result_layout,
    value_layout,
)
from thresher.hw.output.broadcaster import Broadcaster
from thresher.hw.output.scaler import Scaler

__all__ = ["Adder", "addition_bits"]

OPERAND_SCALE_BITS = 31


def addition_bits(config: Config) -> int:
    """Width of a sum: one of the two has 20 fractional bits, the other 19."""
    return config.activation_bits + ADD_HEADROOM + 1


def _scaler_ports(config: Config) -> dict[str, Any]:
    """Return the ports to a column's scaler, if it is one for all."""
    if config.output_cycles == 1:
        return {}
    return {
        "scale": Out(stream.Signature(operand_layout(config))),
        "scaled": In(stream.Signature(signed(config.activation_bits + ADD_HEADROOM))),
    }


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
        Adding, a pair accepted in cycle ``t`` is offered as a sum in cycle ``t + 6``; with
        ``output_cycles`` 4 in twelve at the earliest. Otherwise 0.
    Throughput
        One pair per cycle; with ``output_cycles`` 4 one in twelve, for the scaler has the output,
        the operand and the sum to scale. While ``sums`` is stalled nothing moves.
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
    scale, scaled : ``Out``, ``In`` of a stream
        With ``output_cycles`` 4, to and from the :class:`~.column_scaler.ColumnScaler`.
    """

    i: stream.Interface
    operand: stream.Interface
    run: data.View
    channels: Signal
    start: Signal
    sums: stream.Interface
    o: stream.Interface
    scale: stream.Interface
    scaled: stream.Interface

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
                **_scaler_ports(config),
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

        # A pair moves when both are there; without addition the outputs pass.
        moves = Signal()
        pair: Any = Signal(self._pair_layout())
        comes = Signal()
        m.d.comb += [
            comes.eq(self.i.valid & operand.valid & item.hit & run.add),
            operand.ready.eq(moves & (self.i.valid | ~item.hit)),
            self.i.ready.eq(Mux(run.add, moves & operand.valid & item.hit, self.o.ready)),
            self.o.valid.eq(self.i.valid & ~run.add),
            self.o.payload.eq(self.i.payload),
        ]

        # The one to be scaled, and the plain one, which goes along with it.
        unscaled: Value = Mux(run.scale_operand, self.i.payload.value, item.value)
        if self.config.product:
            unscaled = Mux(run.multiply, -self.i.payload.value, unscaled)
            # And half, which inverts the sign bit.
            m.d.comb += pair.factor.eq(Mux(run.multiply, item.value ^ (1 << width - 1), 0))
        m.d.comb += [
            pair.scaled.eq(Mux(run.scale_operand, item.value, self.i.payload.value)),
            pair.plain.eq(unscaled),
            pair.last.eq(self.i.payload.last),
        ]
        if self.config.output_cycles == 1:
            self._add_each(m, moves, comes, pair)
        else:
            self._add_singly(m, moves, comes, pair)
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole

    def _pair_layout(self) -> data.StructLayout:
        width, product = self.config.activation_bits, self.config.product
        return data.StructLayout(
            {
                "scaled": signed(width),
                "plain": signed(width + product),
                "factor": unsigned(width if product else 0),
                "last": 1,
            }
        )

    def _sum(self, scaled: Value, plain: Value) -> Value:
        """Return the sum, or the product."""
        added: Value = plain << ADD_HEADROOM - 1
        if self.config.product:
            added = Mux(self.run.multiply, plain << self.config.activation_bits - 1, added)
        return scaled + added

    def _add_each(self, m: Module, moves: Signal, comes: Signal, pair: Any) -> None:
        """A sum a cycle, with a scaler of its own."""
        run, width = self.run, self.config.activation_bits
        m.submodules.scaler = scaler = Scaler(
            self.config,
            width,
            OPERAND_SCALE_BITS,
            headroom=ADD_HEADROOM,
            result_bits=width + ADD_HEADROOM,
        )
        m.d.comb += moves.eq(scaler.i.ready & run.add & ~self.start)

        # Stage 1.
        valid = Signal()
        first: Any = Signal(self._pair_layout(), reset_less=True)
        stages = [
            Signal.like(pair.plain, reset_less=True, name=f"plain_{stage}")
            for stage in range(1, self.LATENCY)
        ]
        with m.If(scaler.i.ready):
            m.d.sync += [valid.eq(comes), first.eq(pair)]
            m.d.sync += [after.eq(before) for before, after in pairwise([first.plain, *stages])]
        m.d.comb += [
            scaler.i.valid.eq(valid),
            scaler.i.payload.value.eq(first.scaled),
            scaler.i.payload.scale.eq(run.operand_scale | first.factor),
            scaler.i.payload.shift.eq(run.operand_shift),
            scaler.i.payload.last.eq(first.last),
            scaler.rounding.eq(run.pool_rounding),
        ]

        # The sum, behind the scaler's last register.
        m.d.comb += [
            self.sums.valid.eq(scaler.o.valid),
            self.sums.payload.value.eq(self._sum(scaler.o.payload.value, stages[-1])),
            self.sums.payload.last.eq(scaler.o.payload.last),
            scaler.o.ready.eq(self.sums.ready),
        ]

    def _add_singly(self, m: Module, moves: Signal, comes: Signal, pair: Any) -> None:
        """A pair at a time, scaled by the column's scaler, while the next one waits."""
        next_one: Any = Signal(self._pair_layout(), reset_less=True)
        scaling: Any = Signal(self._pair_layout(), reset_less=True)
        waits, under_way = Signal(), Signal()  # for the scaler; for its result
        total = Signal.like(self.sums.payload, reset_less=True)
        m.d.comb += [
            # There is room for the sum when a pair is scaled.
            moves.eq(self.run.add & ~waits & ~self.start),
            self.scale.valid.eq(waits & ~under_way & ~self.sums.valid),
            self.scale.payload.value.eq(next_one.scaled),
            self.scale.payload.factor.eq(next_one.factor),
            self.scaled.ready.eq(1),
            self.sums.payload.eq(total),
        ]
        with m.If(moves):
            m.d.sync += [waits.eq(comes), next_one.eq(pair)]
        with m.If(self.scale.valid & self.scale.ready):
            m.d.sync += [waits.eq(0), under_way.eq(1), scaling.eq(next_one)]
        with m.If(self.scaled.valid):
            m.d.sync += [
                under_way.eq(0),
                self.sums.valid.eq(1),
                total.value.eq(self._sum(self.scaled.payload, scaling.plain)),
                total.last.eq(scaling.last),
            ]
        with m.Elif(self.sums.ready):
            m.d.sync += self.sums.valid.eq(0)
