"""Chunk reader: shows the next 16 bits of a stream of memory words; a small bit reader."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["CHUNK", "ChunkReader"]

CHUNK = 16


class ChunkReader(wiring.Component):
    """Show the next 16 bits of a stream of words, the most significant bit first.

    Two chunks of 16 bits, one behind the other, with the window somewhere in them; a word stands
    behind and gives a chunk after another.

    Timing contract
    ---------------
    Latency
        The bits of a word accepted in cycle ``t`` are in the window in cycle ``t + 3`` at the
        latest if nothing is held. Bits taken in cycle ``t`` have left it in cycle ``t + 1``.
    Throughput
        16 bits in two cycles: with the last bit of a chunk a cycle passes in which nothing is
        ``enough`` or ``steady``.
    Combinational paths
        ``exhausted`` and ``i.valid`` to ``steady``.
    Reset
        As ``clear``: all bits are dropped and ``position`` is 0. A word offered in that cycle is
        not kept.

    Parameters
    ----------
    config
        Sizes; only ``port_bits`` matters.

    Members
    -------
    i : ``In(stream.Signature(port_bits))``
        Memory words.
    exhausted : ``In(1)``
        No word follows the one at ``i``, if there is one.
    window : ``Out(16)``
        The next bits, the first one most significant; 0 for those that are not there.
    steady : ``Out(1)``
        The window is full, or no bits come any more.
    reads : ``In(1)``, wanted : ``In(5)``
        A number of bits, 1 to 16, is wanted, and stays so until they are taken.
    enough : ``Out(1)``, lacking : ``Out(1)``
        So many are there; will never be there, told from the second cycle on.
    bits : ``In(5)``, take : ``In(1)``
        Drop so many, 0 to 16, when ``steady`` or if they are there.
    overrun : ``Out(1)``
        Not all bits that were taken were there. Nothing more can be read until ``clear``.
    clear : ``In(1)``
        Drop everything and count from 0.
    position : ``Out(32)``
        Bits taken since ``clear``.
    """

    i: stream.Interface
    exhausted: Signal
    window: Signal
    steady: Signal
    reads: Signal
    wanted: Signal
    enough: Signal
    lacking: Signal
    bits: Signal
    take: Signal
    overrun: Signal
    clear: Signal
    position: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(config.port_bits)),
                "exhausted": In(1),
                "window": Out(CHUNK),
                "steady": Out(1),
                "reads": In(1),
                "wanted": In(5),
                "enough": Out(1),
                "lacking": Out(1),
                "bits": In(5),
                "take": In(1),
                "overrun": Out(1),
                "clear": In(1),
                "position": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunks_a_word = self.config.port_bits // CHUNK

        # State: a word and how many of its chunks are left, two chunks and whether they are there,
        # the bit of the first at which the window begins, chunks dropped. A chunk that is not
        # there is 0. A load has at most 2**20 words.
        word = Signal(self.config.port_bits)
        left = Signal(range(chunks_a_word + 1))
        first, second = Signal(CHUNK), Signal(CHUNK)
        first_there, second_there = Signal(), Signal()
        offset = Signal(range(2 * CHUNK))  # with its top bit the first chunk is past
        dropped = Signal(20 + (chunks_a_word - 1).bit_length() + 1)

        # Window: two small multiplexers, one after the other.
        coarse = Signal(CHUNK + 3)
        both = Cat(second, first)
        with m.Switch(offset[2:4]):
            for place in range(4):
                with m.Case(place):
                    m.d.comb += coarse.eq(both[CHUNK - 3 - 4 * place :][: CHUNK + 3])
        with m.Switch(offset[:2]):
            for place in range(4):
                with m.Case(place):
                    m.d.comb += self.window.eq(coarse[3 - place :][:CHUNK])

        drop = offset[-1]
        end = Signal(range(2 * CHUNK))
        full, ended = Signal(), Signal()
        few = Signal()  # are left, but enough
        waits = self.reads & ended & ~self.enough
        fits = first_there & (end <= CHUNK)
        m.d.sync += [few.eq(waits & fits), self.lacking.eq(waits & ~fits)]
        m.d.comb += [
            end.eq(offset[:-1] + self.wanted),
            full.eq(~drop & first_there & second_there),
            self.enough.eq(full | few),
            self.steady.eq(full | ended),
            ended.eq(
                self.exhausted & ~self.i.valid & (left == 0) & (first_there | ~second_there) & ~drop
            ),
            self.overrun.eq((offset[:-1] != 0) & ~Mux(drop, second_there, first_there)),
            self.position.eq(Cat(offset[:-1], dropped)),
        ]

        # Chunks go on as soon as there is room for them.
        goes_on, comes = Signal(), Signal()
        chunk = word.word_select((left - 1)[: (chunks_a_word - 1).bit_length()], CHUNK)
        m.d.comb += [
            goes_on.eq(drop | ~first_there),
            comes.eq((left != 0) & (goes_on | ~second_there)),
            self.i.ready.eq(left == 0),
        ]
        with m.If(self.take):
            m.d.sync += offset.eq(offset[:-1] + self.bits)
        with m.Elif(drop):
            m.d.sync += [offset[-1].eq(0), dropped.eq(dropped + 1)]
        with m.If(goes_on):
            m.d.sync += [first.eq(second), first_there.eq(second_there)]
        with m.If(goes_on | ~second_there):
            m.d.sync += [second.eq(Mux(left != 0, chunk, 0)), second_there.eq(left != 0)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(self.i.payload), left.eq(chunks_a_word)]
        with m.Elif(comes):
            m.d.sync += left.eq(left - 1)

        with m.If(self.clear):
            m.d.sync += [first.eq(0), second.eq(0), first_there.eq(0), second_there.eq(0)]
            m.d.sync += [left.eq(0), offset.eq(0), dropped.eq(0)]
        return m
