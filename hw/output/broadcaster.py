"""Broadcaster: an operand of one value a channel, again for each position of a map."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import activation_layout, record_layout

__all__ = ["Broadcaster"]


class Broadcaster(wiring.Component):
    """Pass the operand's values of a map's first position on, and send them for the others, too.

    In runs whose operand is not broadcast, all items pass.

    Timing contract
    ---------------
    Latency
        0 at a map's first position. Its second position is offered two cycles after the last value
        of the first has been taken.
    Throughput
        One value per cycle.
    Combinational paths
        Between ``i`` and ``o``, both ways, but from the second position of a map to its last.
    Reset
        As ``start``.

    Parameters
    ----------
    config
        Width of an activation; ``channel_depth`` values are kept.

    Members
    -------
    i : ``In(stream.Signature(activation_layout(config)))``
        The operand's values, zeros included; of each map those of one position. Items without a
        hit pass, too.
    run : ``In(record_layout(RUN))``
        The run; ``broadcast`` and ``pooled_height`` are used. Constant from ``start`` to the last
        value.
    channels : ``In(16)``
        Values of a position; constant likewise.
    last : ``In(1)``
        The value that is taken at ``o`` in this cycle is a row's last.
    start : ``In(1)``
        Begin with the first position of a map; nothing is taken in this cycle.
    o : ``Out(stream.Signature(activation_layout(config)))``
        Values of all positions.
    """

    i: stream.Interface
    run: data.View
    channels: Signal
    last: Signal
    start: Signal
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(config))),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "last": In(1),
                "start": In(1),
                "o": Out(stream.Signature(activation_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        # Never read and written in the same cycle.
        memory: Memory[Any, Any] = Memory(
            shape=signed(config.activation_bits),
            depth=config.channel_depth,
            init=[],
            attrs={"no_rw_check": "1"},
        )
        m.submodules.values = memory
        write, read = memory.write_port(), memory.read_port()

        # Where in the map: the channel that is next, and the row.
        channel = Signal(config.channel_bits)
        rows = Signal(config.map_bits, init=1)  # with this one
        following = Signal.like(channel)
        final_channel = Signal()
        taken = Signal()
        m.d.comb += [
            final_channel.eq(channel + 1 == self.channels[: config.column_bits]),
            following.eq(Mux(final_channel, 0, channel + 1)),
            taken.eq(self.o.valid & self.o.ready & self.o.payload.hit & self.run.broadcast),
            write.addr.eq(channel),
            write.data.eq(self.i.payload.value),
            read.addr.eq(channel),
        ]
        map_ends = Signal()
        m.d.comb += map_ends.eq(self.last & (rows == self.run.pooled_height[: config.map_bits]))
        with m.If(taken):
            m.d.sync += channel.eq(following)
            with m.If(self.last):
                m.d.sync += rows.eq(Mux(map_ends, 1, rows + 1))

        with m.FSM():
            with m.State("FIRST"):
                m.d.comb += [
                    self.o.valid.eq(self.i.valid),
                    self.o.payload.eq(self.i.payload),
                    self.i.ready.eq(self.o.ready),
                    write.en.eq(taken),
                ]
                with m.If(taken & final_channel & ~map_ends):
                    m.next = "READ"

            with m.State("READ"):
                m.d.comb += read.en.eq(1)
                m.next = "AGAIN"

            with m.State("AGAIN"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.value.eq(read.data),
                    self.o.payload.hit.eq(1),
                    read.en.eq(taken),
                    read.addr.eq(following),
                ]
                with m.If(taken & map_ends):
                    m.next = "FIRST"

        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
