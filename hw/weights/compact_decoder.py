"""Decodes (zero run, weight) pairs with one search for both codes."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.weights.chunk_reader import CHUNK
from thresher.hw.weights.code_search import CodeSearch, limit_layout
from thresher.hw.weights.code_tables import found_layout

__all__ = ["CompactDecoder", "walked_pair_layout"]


def walked_pair_layout(config: Config) -> data.StructLayout:
    """A decoded pair: ``zeros`` zeros, then the weight, if any; it begins at bit ``at``."""
    return data.StructLayout(
        {
            "zeros": unsigned(config.weight_run_bits),
            "weight": unsigned(1),
            "code": unsigned(config.weight_code_bits),
            "at": unsigned(32),
        }
    )


class CompactDecoder(wiring.Component):
    """Decode pairs, the run's code in three cycles and then the index's in three.

    Timing contract
    ---------------
    Latency
        A pair whose last code is taken in cycle ``t`` is at ``o`` in cycle ``t + 2``, an escape in
        cycle ``t + 1``.
    Throughput
        A pair in six cycles, an escape in five, and one more for each chunk that ends with it.
    Combinational paths
        ``o.ready`` to ``take``.
    Reset
        Nothing is on its way.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    look : ``In(1)``
        The window begins with a pair.
    known : ``In(1)``
        There are tables.
    limit : ``In(limit_layout(code_bits))``
        Writes for the search.
    window : ``In(16)``, steady : ``In(1)``
        The next bits; all that come are there.
    short : ``In(1)``
        Not all bits that were taken were there.
    bits : ``Out(5)``
        Length of a code.
    take : ``Out(1)``
        It is taken in this cycle, good or not.
    position : ``In(32)``
        Where the window begins in the stream.
    last : ``Out(1)``
        The pair ends in this cycle.
    unused : ``Out(1)``
        What was taken in the cycle before is no code.
    found : ``Out(found_layout(config))``, is_escape : ``In(1)``, symbol : ``In``
        A code to look up; whether it is the escape; what it stands for, a cycle later.
    empty : ``Out(1)``
        No pair is on its way to ``o``.
    flush : ``In(1)``
        Drop those that are.
    o : ``Out(stream.Signature(walked_pair_layout(config)))``
        The pairs.
    """

    look: Signal
    known: Signal
    limit: data.View
    window: Signal
    steady: Signal
    short: Signal
    bits: Signal
    take: Signal
    position: Signal
    last: Signal
    unused: Signal
    found: data.View
    is_escape: Signal
    symbol: Signal
    empty: Signal
    flush: Signal
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "look": In(1),
                "known": In(1),
                "limit": In(limit_layout(config.code_bits)),
                "window": In(CHUNK),
                "steady": In(1),
                "short": In(1),
                "bits": Out(5),
                "take": Out(1),
                "position": In(32),
                "last": Out(1),
                "unused": Out(1),
                "found": Out(found_layout(config)),
                "is_escape": In(1),
                "symbol": In(max(config.weight_code_bits, config.weight_run_bits)),
                "empty": Out(1),
                "flush": In(1),
                "o": Out(stream.Signature(walked_pair_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.search = search = CodeSearch(config.code_bits)

        # State: the code in hand; its window, which is one cycle behind; an index that was found
        # and is being looked up; the pair on offer.
        index = Signal()
        window = Signal(config.code_bits)
        is_window = Signal()
        escape = Signal()
        indexed = Signal()
        pair = self.o.payload
        fine = search.fine
        waits = Signal()
        m.d.comb += [
            search.limit.eq(self.limit),
            search.window.eq(window),
            search.table.eq(index),
            search.begin.eq(self.look & is_window & ~fine & ~self.flush),
            search.hold.eq(fine & waits & ~self.flush),
            self.bits.eq(search.length),
            pair.code.eq(self.symbol),
            self.empty.eq(~indexed & ~self.o.valid),
        ]

        # A run waits until the pair before it has gone, whose weight is looked up meanwhile. With
        # the index the run is looked up; there is none after an escape.
        m.d.comb += [
            waits.eq(~index & self.o.valid & ~self.o.ready),
            self.take.eq(fine & ~waits & ~(index & escape)),
            self.last.eq(fine & index),
        ]
        m.d.sync += [
            self.unused.eq(self.take & (search.length.all() | ~self.known)),
            indexed.eq(self.last & ~escape),
            window.eq(self.window[-config.code_bits :]),
            is_window.eq(self.look & self.steady & ~self.take & ~self.unused & ~self.short),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(indexed & ~self.unused & ~self.short):
            m.d.sync += [self.o.valid.eq(1), pair.weight.eq(1)]
        with m.If(fine & ~waits):
            m.d.sync += index.eq(~index)
        with m.If(~fine):
            m.d.sync += escape.eq(self.is_escape)
        with m.If(self.take):
            m.d.sync += [
                self.found.window.eq(search.window),
                self.found.length.eq(search.length),
                self.found.table.eq(index),
            ]
        with m.If(self.take & ~index):
            m.d.sync += pair.at.eq(self.position)
        with m.If(self.last):
            m.d.sync += [pair.zeros.eq(self.symbol), pair.weight.eq(0), self.o.valid.eq(escape)]

        with m.If(self.flush):
            m.d.sync += [flag.eq(0) for flag in (index, indexed, self.o.valid)]
        return m
