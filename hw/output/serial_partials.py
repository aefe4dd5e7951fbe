"""Partial results of the serial pooler: values are combined into them, and finished ones sent."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool
from thresher.hw.layouts import pool_factor_layout, record_layout
from thresher.hw.output.pool_steps import step_bits
from thresher.hw.output.pooler_ports import SUM_BITS, sum_bits, sums_port

__all__ = ["SerialPartials"]


class SerialPartials(wiring.Component):
    """Combine a value into the partial result of a window, or send one to the scaler.

    Timing contract
    ---------------
    Latency
        Of an operation that begins in cycle ``t`` the partial result is read in ``t + 1`` and
        written in ``t + 4``.
    Throughput
        An operation in four cycles; of results, as many as the scaler takes.
    Combinational paths
        ``pooled.ready`` to ``sums.ready``.
    Reset
        Drops what is inside.

    Parameters
    ----------
    config
        Width of an activation, ``pool_depth``, ``pool_lacks`` and ``residual``.

    Members
    -------
    run : ``In(record_layout(RUN))``
        As of the pooler.
    begin, sends : ``In(1)``
        An operation, only while ``ready``: combine ``value``, or send the result.
    address, value, overwrite, lacks : ``In``
        Operand: the partial result; what is combined with it, or put in its place if ``overwrite``;
        which of the scales it has.
    last : ``In(1)``
        That of the result sent, from three cycles after ``begin`` to the next one.
    ready : ``Out(1)``
        An operation can begin.
    sums, pooled
        As of the pooler.
    """

    run: data.View
    begin: Signal
    sends: Signal
    address: Signal
    value: Signal
    overwrite: Signal
    last: Signal
    lacks: Signal
    ready: Signal
    sums: stream.Interface
    pooled: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lack_bits = config.pool_lacks.bit_length()
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "begin": In(1),
                "sends": In(1),
                "address": In(step_bits(config)),
                "value": In(signed(config.activation_bits)),
                "overwrite": In(1),
                "last": In(1),
                "lacks": In(2 * self.lack_bits),
                "ready": Out(1),
                **sums_port(config),
                "pooled": Out(stream.Signature(pool_factor_layout(config, sum_bits(config)))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, run = self.config, self.run
        width = config.activation_bits
        partial_bits = width + SUM_BITS
        memory: Memory[Any, Any] = Memory(
            shape=signed(partial_bits), depth=config.pool_depth, init=[]
        )
        m.submodules.partials = memory
        write, read = memory.write_port(), memory.read_port()

        # Stages: begun, read, held, combined; or waiting for the scaler.
        stage = Signal(4)
        waits = Signal()
        taken, moves = Signal(), Signal()
        sends, overwrite = Signal(), Signal()
        address = Signal((config.pool_depth - 1).bit_length(), reset_less=True)
        lacks = Signal.like(self.lacks)
        value = Signal(signed(width))
        partial = Signal(signed(partial_bits))
        m.d.comb += [
            self.ready.eq(~stage[:3].any() & ~waits),
            read.addr.eq(address),
            read.en.eq(stage[0] & ~write.en),  # never both: that needs no logic beside the memory
            write.addr.eq(address),
            write.data.eq(partial + value),
            write.en.eq(stage[3] & ~sends),
        ]
        m.d.sync += stage.eq(Cat(self.begin, stage[:3]))
        with m.If(self.begin):
            m.d.sync += [
                address.eq(self.address),
                sends.eq(self.sends),
                overwrite.eq(self.overwrite & ~self.sends),
                lacks.eq(self.lacks),
            ]

        # A sum; or the larger of two, the other being 0. (A maximum is an activation.)
        keeps = Signal()
        larger = Signal()
        m.d.comb += [
            keeps.eq(overwrite | sends | (run.pool != Pool.MAX)),
            larger.eq(partial[:width].as_signed() < value),
        ]
        with m.If(stage[1] & overwrite):
            m.d.sync += partial.eq(0)
        with m.Elif(stage[1]):
            m.d.sync += partial.eq(read.data)
        with m.Elif(stage[2] & ~keeps & larger):
            m.d.sync += partial.eq(0)
        with m.If(self.begin):
            m.d.sync += value.eq(self.value + run.pool_origin)
        with m.Elif(stage[2] & ~keeps & ~larger):
            m.d.sync += value.eq(0)

        # A result goes to the scaler, and what its window lacks with it. (Sums lack nothing.)
        factor = Signal.like(self.pooled.payload, reset_less=True)
        m.d.comb += [
            moves.eq(~self.pooled.valid | self.pooled.ready),
            taken.eq(moves & waits),
            self.pooled.payload.eq(factor),
        ]
        with m.If(stage[1] & sends):
            m.d.sync += waits.eq(1)
        with m.Elif(taken):
            m.d.sync += waits.eq(0)
        with m.If(moves):
            m.d.sync += [
                self.pooled.valid.eq(waits),
                factor.value.eq(partial),
                factor.lacks.eq(lacks),
                factor.last.eq(self.last),
            ]
        if config.residual:
            m.d.comb += self.sums.ready.eq(moves & run.add)
            with m.If(moves & run.add):
                m.d.sync += [
                    self.pooled.valid.eq(self.sums.valid),
                    factor.value.eq(self.sums.payload.value),
                    factor.last.eq(self.sums.payload.last),
                ]
        return m
