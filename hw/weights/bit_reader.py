"""Bit reader: shows the next bits of a stream of memory words and drops as many as are taken."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["BitReader"]

_WINDOW = 32
_CHUNKS = 3  # the fewest that never fall below a window at a window a cycle


def _window(m: Module, bits: Value, offset: Value) -> Value:
    """Return a window of ``bits``, ``offset`` bits from their top, by three small multiplexers."""
    for low, stop in ((3, 5), (1, 3), (0, 1)):
        places = 1 << stop - low
        width = _WINDOW + (1 << low) - 1
        choices = [bits[len(bits) - (place << low) - width :][:width] for place in range(places)]
        bits = Signal(width, name=f"from_bit_{low}")
        with m.Switch(offset[low:stop]):
            for place, choice in enumerate(choices):
                with m.Case(place):
                    m.d.comb += bits.eq(choice)
    return bits


class BitReader(wiring.Component):
    """Show the next 32 bits of a stream of words, the most significant bit first.

    Timing contract
    ---------------
    Latency
        The bits of a word accepted in cycle ``t`` are in the window in cycle ``t + 2``. Bits taken
        in cycle ``t`` have left it in cycle ``t + 1``.
    Throughput
        32 bits a cycle: once the window is full and as long as words come, it stays full.
    Combinational paths
        None; all outputs, ``i.ready`` included, come from registers alone.
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
    window : ``Out(32)``
        The next bits, the first one most significant; 0 beyond ``available``.
    available : ``Out(7)``
        How many bits can be taken: of the window, or all of it if 32 or more.
    drained : ``Out(1)``
        No bits are held but those counted in ``available``.
    consume : ``In(6)``
        How many bits are taken in this cycle, 0 to 32, at most ``available``.
    clear : ``In(1)``
        Drop everything and count from 0.
    position : ``Out(32)``
        Bits taken since ``clear``.
    """

    i: stream.Interface
    window: Signal
    available: Signal
    drained: Signal
    consume: Signal
    clear: Signal
    position: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(config.port_bits)),
                "window": Out(_WINDOW),
                "available": Out(7),
                "drained": Out(1),
                "consume": In(6),
                "clear": In(1),
                "position": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunks_a_word = self.config.port_bits // _WINDOW

        # State: a word that goes chunk by chunk, from its top, into a queue of chunks, and the bit
        # of the first chunk at which the window begins. Chunks that are not there are zeros.
        word = Signal(self.config.port_bits)
        chunks_left = Signal(range(chunks_a_word + 1))
        chunks = [Signal(_WINDOW, name=f"chunk_{place}") for place in range(_CHUNKS)]
        held = Signal(range(_CHUNKS + 1))
        offset = Signal(range(_WINDOW))
        m.d.comb += [
            self.window.eq(_window(m, Cat(chunks[1], chunks[0]), offset)),
            self.drained.eq(chunks_left == 0),
        ]

        # Append a chunk, then drop the first one if the window goes past it. Whether and where to
        # append is known without `consume`, which comes late.
        append = Signal()
        drop = Signal()
        next_offset = Signal(range(2 * _WINDOW))
        chunk = word.word_select((chunks_left - 1)[: (chunks_a_word - 1).bit_length()], _WINDOW)
        appended = [Mux(append & (held == place), chunk, each) for place, each in enumerate(chunks)]
        m.d.comb += [
            append.eq((held != _CHUNKS) & (chunks_left != 0)),
            next_offset.eq(offset + self.consume),
            drop.eq(next_offset[-1]),
        ]
        m.d.sync += [
            offset.eq(next_offset),
            held.eq(held + append - drop),
            self.available.eq(self.available + Mux(append, _WINDOW, 0) - self.consume),
            self.position.eq(self.position + self.consume),
        ]
        for each, stays, follows in zip(chunks, appended, [*appended[1:], Const(0)], strict=True):
            m.d.sync += each.eq(Mux(drop, follows, stays))

        # Word: free, or freed by the chunk of this cycle.
        m.d.comb += self.i.ready.eq((chunks_left == 0) | ((chunks_left == 1) & append))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(self.i.payload), chunks_left.eq(chunks_a_word)]
        with m.Elif(append):
            m.d.sync += chunks_left.eq(chunks_left - 1)

        with m.If(self.clear):
            m.d.sync += [each.eq(0) for each in chunks]
            m.d.sync += [held.eq(0), offset.eq(0), self.available.eq(0)]
            m.d.sync += [chunks_left.eq(0), self.position.eq(0)]

        return m
