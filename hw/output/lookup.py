"""Lookup: any function of a column's outputs, by a table.

Defined by the table itself, as :class:`thresher.golden.codes.weights.ColumnStream` has it.
"""

from typing import Any

from amaranth.hdl import Const, Elaboratable, Module, Mux, ResetInserter, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import lookup_write_layout, record_layout, value_layout

__all__ = ["Lookup"]


class Lookup(wiring.Component):
    """Replace each value by its entry of the table, in runs that look up; else pass it on.

    Timing contract
    ---------------
    Latency
        A value accepted in cycle ``t`` is offered in cycle ``t + 1``, looked up or not.
    Throughput
        One value per cycle. While ``o`` is stalled nothing moves, nor, with ``output_cycles`` 4,
        while the table is written.
    Combinational paths
        ``o.ready`` to ``i.ready``. ``o`` is driven from registers and the memory's output.
    Reset
        As ``start``, and the table stays.

    Parameters
    ----------
    config
        Width of an activation; the table has an entry for each.

    Members
    -------
    i : ``In(stream.Signature(value_layout(config)))``
        Values.
    table : ``In(lookup_write_layout(config))``
        A write of one entry, whenever ``valid``; not in a run that looks up. The address is the
        two's complement of the input.
    run : ``In(record_layout(RUN))``
        The run; ``lookup`` is used. Constant from ``start`` to the last value.
    start : ``In(1)``
        Drop what is inside; nothing is accepted in this cycle.
    o : ``Out(stream.Signature(value_layout(config)))``
        Outputs in the same order; ``last`` is carried along.
    """

    i: stream.Interface
    table: data.View
    run: data.View
    start: Signal
    o: stream.Interface

    LATENCY = 1

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "table": In(lookup_write_layout(config)),
                "run": In(record_layout(RUN)),
                "start": In(1),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        width = self.config.activation_bits
        # A load of a table waits for runs that look up.
        memory: Memory[Any, Any] = Memory(
            shape=signed(width), depth=1 << width, init=[], attrs={"no_rw_check": "1"}
        )
        m.submodules.entries = memory
        write, read = memory.write_port(), memory.read_port()

        # Serial, nothing is read while the table is written: that costs logic beside the memory.
        waits: Value = Const(0) if self.config.output_cycles == 1 else self.table.valid
        moves = Signal()
        item = Signal.like(self.i.payload, reset_less=True)
        m.d.comb += [
            moves.eq((~self.o.valid | self.o.ready) & ~waits),
            self.i.ready.eq(moves & ~self.start),
            write.en.eq(self.table.valid),
            write.addr.eq(self.table.address),
            write.data.eq(self.table.value),
            read.en.eq(moves),
            read.addr.eq(self.i.payload.value),
            self.o.payload.value.eq(Mux(self.run.lookup, read.data, item.value)),
            self.o.payload.last.eq(item.last),
        ]
        with m.If(moves):
            m.d.sync += [self.o.valid.eq(self.i.valid), item.eq(self.i.payload)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
