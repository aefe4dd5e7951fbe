"""A register in an elastic link, so that neither side's logic reaches the other's."""

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Link"]


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
