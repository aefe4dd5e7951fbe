"""Run-length encoder: packs the values of an output row into words.

The code is defined in :mod:`thresher.golden.codes.rlc`; this module says how it is packed in time.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.layouts import value_layout, word_layout

__all__ = ["RLCEncoder"]


class RLCEncoder(wiring.Component):
    """Pack each row of values into (run, value) pairs, ``config.rlc.pairs`` to a word.

    A word is held until it is known whether another follows: the row's final word has its top bit
    set, and the zeros at the end of a row are not coded.

    Timing contract
    ---------------
    Latency
        The ``last`` value of a row accepted in cycle ``t`` shows the row's last word in ``t + 3``.
    Throughput
        One value a cycle, also from row to row. A run longer than ``max_run`` that a value ends
        costs one cycle for each of its continuation pairs; a run at the end of a row none.
    Combinational paths
        ``o.ready`` to ``i.ready``. ``o`` is driven from registers alone.
    Reset
        The row begun is dropped.

    Parameters
    ----------
    config
        Sizes of the machine; ``config.rlc`` is the format of a word.

    Members
    -------
    i : ``In(stream.Signature(value_layout(config)))``
        Values, position-major, channels innermost; ``last`` on the final one of a row.
    o : ``Out(stream.Signature(word_layout(config)))``
        Words of the rows. A row of zeros only is one item with ``empty`` and ``last``.

    Timing
    ------
    The rows ``0 5`` and ``0``, with 5 the first row's last value::

        cycle    0   1   2   3   4   5
        i.valid  1   1   1   0   0   0
        i.ready  1   1   1   1   1   1
        o.valid  0   0   0   0   1   1
        o.ready  1   1   1   1   1   1
        o.empty  -   -   -   -   0   1
        o.last   -   -   -   -   1   1
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "o": Out(stream.Signature(word_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt = self.config.rlc

        # State: the value at hand, the zeros before it, and the word that is being filled.
        held = Signal()
        present: Any = Signal(value_layout(self.config))
        zeros = Signal(fmt.run_bits)
        continuations = Signal(28 - fmt.run_bits)  # pairs for the zeros beyond the run field
        pairs = Signal(fmt.pairs * fmt.pair_bits)
        slots = Signal(fmt.pairs + 1, init=1)  # one-hot number of pairs in the word
        closing = Signal()  # the word is its row's final one

        # The pair that this cycle would put into the word.
        non_zero = Signal()
        continues = Signal()
        pair = Signal(fmt.pair_bits)
        m.d.comb += [
            non_zero.eq(present.value != 0),
            continues.eq(non_zero & (continuations != 0)),
            pair.eq(Mux(continues, fmt.max_run, Cat(zeros, present.value.as_unsigned()))),
        ]

        # The word leaves when its row is over, or when the next pair finds it full.
        leaves = Signal()
        advance = Signal()
        m.d.comb += [
            leaves.eq(closing | (held & non_zero & slots[-1])),
            advance.eq(~leaves | ~self.o.valid | self.o.ready),
        ]
        with m.If(leaves & advance):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.payload.data.eq(pairs),
                self.o.payload.data[-1].eq(closing & ~slots[0]),
                self.o.payload.empty.eq(slots[0]),
                self.o.payload.last.eq(closing),
                pairs.eq(0),
                slots.eq(1),
                closing.eq(0),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        # Put the pair into the first free slot, of this word or of the one that follows it.
        with m.If(held & advance):
            with m.If(non_zero):
                m.d.sync += slots.eq(Mux(leaves, 2, slots << 1))
                for slot in range(fmt.pairs):
                    here = leaves | slots[0] if slot == 0 else ~leaves & slots[slot]
                    with m.If(here):
                        m.d.sync += pairs.word_select(slot, fmt.pair_bits).eq(pair)
            with m.If(continues):
                m.d.sync += continuations.eq(continuations - 1)
            with m.Else():
                m.d.sync += [zeros.eq(zeros + 1), closing.eq(present.last)]
                with m.If(zeros == fmt.max_run):
                    m.d.sync += continuations.eq(continuations + 1)
                with m.If(non_zero | present.last):
                    m.d.sync += [zeros.eq(0), continuations.eq(0)]

        # Input stage: free, or freed by this cycle.
        m.d.comb += self.i.ready.eq(~held | (advance & ~continues))
        with m.If(self.i.ready):
            m.d.sync += [held.eq(self.i.valid), present.eq(self.i.payload)]

        return m
