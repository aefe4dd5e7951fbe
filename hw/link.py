"""Registers between parts, so that neither side's logic reaches the other's."""

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from thresher.golden.config import Config

__all__ = ["Delay", "Link", "Links", "Queue"]


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


class Links:
    """Connect the parts of a module, through registers with ``config.registered_links``.

    Parameters
    ----------
    m
        The module.
    config
        Sizes of the machine.

    Attributes
    ----------
    domain
        Of what comes a cycle later with registered links: "sync", or "comb" without.
    """

    def __init__(self, m: Module, config: Config) -> None:
        self.m, self.config = m, config
        self.domain = "sync" if config.registered_links else "comb"

    def link(
        self,
        name: str,
        source: stream.Interface,
        sink: stream.Interface,
        clear: Value | None = None,
        *,
        kind: type[Link | Queue] = Link,
    ) -> Value:
        """Connect two parts; return whether an item is held between them.

        ``clear`` drops it. A :class:`Link` passes an item in two cycles, a :class:`Queue` one a
        cycle.
        """
        if not self.config.registered_links:
            connect(self.m, source, sink)
            return Const(0)
        link = kind(source.payload.shape())
        self.m.submodules[name] = link if clear is None else ResetInserter(clear)(link)
        connect(self.m, source, link.i)
        connect(self.m, link.o, sink)
        return link.o.valid

    def later(self, name: str, **values: Any) -> Any:
        """Return the values by name, with registered links a cycle later."""
        if not self.config.registered_links:
            return SimpleNamespace(**values)
        shape = data.StructLayout({key: value.shape() for key, value in values.items()})
        self.m.submodules[name] = delay = Delay(shape)
        self.m.d.comb += [delay.i[key].eq(value) for key, value in values.items()]
        return delay.o

    def known_late(self, start: Signal, busy: Value, *, after: int) -> Value:
        """Return whether what ``start`` starts is busy; from the cycle after it on.

        With registered links ``busy`` follows ``start`` after ``after + 1`` cycles, and what is
        returned is that of the cycle before.
        """
        if not self.config.registered_links:
            return busy
        known = Signal()
        started = Signal(after)
        self.m.d.sync += [
            started.eq(Cat(start, started)),
            known.eq(busy | start | started.any()),
        ]
        return known
