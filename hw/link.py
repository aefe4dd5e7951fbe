"""Registers between parts, so that neither side's logic reaches the other's."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Delay", "Link", "Queue"]


class Delay(wiring.Component):
    """Give a value a cycle later.

    One a lane of what is the same for all, so that each has registers near it. (As a part of its
    own, which is synthesised apart: registers of one value would be merged.)

    Timing contract
    ---------------
    Latency
        One cycle.
    Combinational paths
        None.
    Reset
        The value is 0.

    Parameters
    ----------
    shape
        Of the value.

    Members
    -------
    i, o : ``In``, ``Out`` of ``shape``
        The value, and that of the cycle before.
    """

    i: data.View
    o: data.View

    def __init__(self, shape: data.StructLayout) -> None:
        super().__init__({"i": In(shape), "o": Out(shape)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


class Link(wiring.Component):
    """Hold one item: taken when there is none, and offered from the next cycle on.

    Timing contract
    ---------------
    Latency
        An item accepted in cycle ``t`` is offered in cycle ``t + 1``.
    Throughput
        One item in two cycles.
    Combinational paths
        None: ``i.ready`` and ``o`` are driven from registers.
    Reset
        Drops the item.

    Parameters
    ----------
    shape
        Of an item.

    Members
    -------
    i, o : ``In``, ``Out`` of ``stream.Signature(shape)``
        The two sides.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: data.StructLayout | Shape) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal.like(self.i.payload, reset_less=True)
        m.d.comb += [self.i.ready.eq(~self.o.valid), self.o.payload.eq(held)]
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), held.eq(self.i.payload)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


class Queue(wiring.Component):
    """Hold two items, so that one a cycle passes.

    Timing contract
    ---------------
    Latency
        An item accepted in cycle ``t`` is offered in cycle ``t + 1`` if none was held.
    Throughput
        One item a cycle.
    Combinational paths
        None: ``i.ready`` and ``o`` are driven from registers.
    Reset
        Drops both items.

    Parameters
    ----------
    shape
        Of an item.

    Members
    -------
    i, o : ``In``, ``Out`` of ``stream.Signature(shape)``
        The two sides. An item is held if, and only if, ``o.valid``.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: data.StructLayout | Shape) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first = Signal.like(self.i.payload, reset_less=True)
        second = Signal.like(self.i.payload, reset_less=True)
        two = Signal()
        ready = Signal(init=1)  # not two: a register of its own, since that chooses all bits
        m.d.comb += [self.i.ready.eq(ready), self.o.payload.eq(first)]
        with m.If(~two):
            m.d.sync += second.eq(self.i.payload)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(two | self.i.valid),
                first.eq(Mux(two, second, self.i.payload)),
                two.eq(0),
                ready.eq(1),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += [two.eq(1), ready.eq(0)]
        return m
