"""Column scaler: one serial scaler for all that a column scales.

Defined by :func:`thresher.golden.requantise.requantise`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Cat, Elaboratable, Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import (
    operand_layout,
    pool_factor_layout,
    pool_scale_write_layout,
    record_layout,
    value_layout,
)
from thresher.hw.output.clipper import CLIP_BITS
from thresher.hw.output.pooler_ports import POOL_SCALE_BITS, sum_bits
from thresher.hw.output.scaler import factor_layout
from thresher.hw.output.serial_scaler import SerialScaler

__all__ = ["ColumnScaler"]


class _Client(IntEnum):
    """Whose value it is, as its tag."""

    REQUANTISER = 0
    POOLER = 1
    ADDER = 2


class ColumnScaler(wiring.Component):
    """Scale the requantiser's sums, the pooler's results and sums, and the adder's operands.

    The pooler comes first, then the adder: what is farther along goes on. Results come in the order
    of the values. Those of requantiser and adder must be taken at once, since the pooler's may be
    behind them: they only send a value whose result they have room for. The pooler's wait for
    the encoder, which does not wait for any of the others.

    Timing contract
    ---------------
    Latency
        A value accepted in cycle ``t`` is offered in cycle ``t + 6``.
    Throughput
        A value in four cycles (accumulators of 31 bits and more: six; of 47 and more: eight).
    Combinational paths
        From the valid of all values to their ready, and from ``result.ready`` to these.
    Reset
        As ``start``; the scales stay.

    Parameters
    ----------
    config
        Widths, ``pool_lacks`` and ``residual``.

    Members
    -------
    run : ``In(record_layout(RUN))``
        The run: ``rounding``, ``clip_*``, ``pool_*``, ``operand_*``. Constant from ``start`` on.
    start : ``In(1)``
        Drop what is inside; nothing is accepted in this cycle.
    scale : ``In(pool_scale_write_layout())``
        As of the pooler.
    sum, activation : ``In``, ``Out`` of a stream
        A requantiser's sum with its constants, ``factor_layout``; and what it becomes,
        ``value_layout``.
    pooled, result : ``In``, ``Out`` of a stream
        What a pooler sends, ``pool_factor_layout``; and what it becomes, ``value_layout``.
    operand, scaled : ``In``, ``Out`` of a stream
        An adder's value, ``operand_layout``; and what it becomes, with the headroom. Only with
        ``config.residual``.
    """

    run: data.View
    start: Signal
    scale: data.View
    sum: stream.Interface
    activation: stream.Interface
    pooled: stream.Interface
    result: stream.Interface
    operand: stream.Interface
    scaled: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.activation_bits
        adder: dict[str, Any] = {}
        if config.residual:
            adder["operand"] = In(stream.Signature(operand_layout(config)))
            adder["scaled"] = Out(stream.Signature(signed(width + ADD_HEADROOM)))
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "start": In(1),
                "scale": In(pool_scale_write_layout()),
                "sum": In(
                    stream.Signature(factor_layout(config.accumulator_bits + 1, config.scale_bits))
                ),
                "activation": Out(stream.Signature(value_layout(config))),
                "pooled": In(stream.Signature(pool_factor_layout(config, sum_bits(config)))),
                "result": Out(stream.Signature(value_layout(config))),
                **adder,
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, run = self.config, self.run
        adds = bool(config.residual)
        width, lack_bits = config.activation_bits, config.pool_lacks.bit_length()
        m.submodules.scaler = scaler = SerialScaler(
            config,
            max(config.accumulator_bits + 1, sum_bits(config)),
            max(config.scale_bits, POOL_SCALE_BITS),
            width + ADD_HEADROOM if adds else CLIP_BITS + 1,
        )
        scales: Memory[Any, Any] = Memory(shape=POOL_SCALE_BITS, depth=1 << 2 * lack_bits, init=[])
        m.submodules.scales = scales
        write, read = scales.write_port(), scales.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.scale.valid),
            write.addr.eq(Cat(self.scale.columns[:lack_bits], self.scale.rows[:lack_bits])),
            write.data.eq(self.scale.scale),
            read.addr.eq(self.pooled.payload.lacks),
        ]

        # Whose turn it is: chosen when nothing is under way, and kept until it is accepted.
        turn, kept = Signal(2), Signal(2)
        under_way = Signal()
        item = scaler.i.payload
        with m.If(under_way):
            m.d.comb += turn.eq(kept)
        with m.Elif(self.pooled.valid):
            m.d.comb += turn.eq(_Client.POOLER)
        if adds:
            with m.Elif(self.operand.valid):
                m.d.comb += turn.eq(_Client.ADDER)
        m.d.comb += [
            scaler.i.valid.eq(self.sum.valid | self.pooled.valid),
            item.tag.eq(turn),
            item.rounding.eq(run.pool_rounding),
            item.shift.eq(run.pool_shift),
            item.scale.eq(read.data),
            item.value.eq(self.pooled.payload.value),
            item.last.eq(self.pooled.payload.last),
            self.pooled.ready.eq(scaler.i.ready & (turn == _Client.POOLER)),
            self.sum.ready.eq(scaler.i.ready & (turn == _Client.REQUANTISER)),
        ]
        with m.If(turn == _Client.REQUANTISER):
            m.d.comb += [
                item.rounding.eq(run.rounding),
                item.shift.eq(self.sum.payload.shift),
                item.scale.eq(self.sum.payload.scale),
                item.value.eq(self.sum.payload.value),
                item.last.eq(self.sum.payload.last),
            ]
        if adds:
            m.d.comb += [
                scaler.i.valid.eq(self.sum.valid | self.pooled.valid | self.operand.valid),
                self.operand.ready.eq(scaler.i.ready & (turn == _Client.ADDER)),
            ]
            with m.If(turn == _Client.ADDER):
                m.d.comb += [
                    item.shift.eq(run.operand_shift),
                    # (Of a product the scale is 0.)
                    item.scale.eq(run.operand_scale | self.operand.payload.factor),
                    item.value.eq(self.operand.payload.value << ADD_HEADROOM),
                ]
        m.d.sync += [under_way.eq(scaler.i.valid & ~scaler.i.ready), kept.eq(turn)]

        # Results to whose they are.
        result = scaler.o.payload
        for client, name in ((0, "clip"), (1, "pool")):
            m.d.comb += [
                scaler.bounds[client].low.eq(run[f"{name}_low"]),
                scaler.bounds[client].high.eq(run[f"{name}_high"]),
            ]
        m.d.comb += [
            scaler.bounds[1].origin.eq(run.pool_origin),
            scaler.o.ready.eq((result.tag != _Client.POOLER) | self.result.ready),
        ]
        for client, port in ((_Client.REQUANTISER, self.activation), (_Client.POOLER, self.result)):
            m.d.comb += [
                port.valid.eq(scaler.o.valid & (result.tag == client)),
                port.payload.value.eq(result.value),
                port.payload.last.eq(result.last),
            ]
        if adds:
            m.d.comb += [
                self.scaled.valid.eq(scaler.o.valid & (result.tag == _Client.ADDER)),
                self.scaled.payload.eq(result.value),
            ]
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
