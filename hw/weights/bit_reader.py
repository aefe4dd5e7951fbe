"""Bit reader: shows the next bits of a stream of memory words and drops as many as are taken."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["BitReader"]

_WINDOW = 32
_BUFFER = 3 * _WINDOW  # the smallest that never falls below a window at a window a cycle


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
        chunks = self.config.port_bits // _WINDOW

        # State: a word that goes chunk by chunk, from its top, into a left-aligned buffer.
        word = Signal(self.config.port_bits)
        chunks_left = Signal(range(chunks + 1))
        buffer = Signal(_BUFFER)
        count = Signal(7)
        m.d.comb += [
            self.window.eq(buffer[-_WINDOW:]),
            self.available.eq(count),
            self.drained.eq(chunks_left == 0),
        ]

        # Append a chunk behind the bits that are there, then drop the bits that are taken. Whether
        # and where to append is known without `consume`, which comes late.
        append = Signal()
        chunk = Signal(_WINDOW)
        appended = Signal(_BUFFER)
        m.d.comb += [
            append.eq((count <= _BUFFER - _WINDOW) & (chunks_left != 0)),
            chunk.eq(Mux(append, word[-_WINDOW:], 0)),
            appended.eq(buffer | (Cat(Const(0, _BUFFER - _WINDOW), chunk) >> count)),
        ]
        m.d.sync += [
            buffer.eq(appended << self.consume),
            count.eq(Mux(append, count + _WINDOW, count) - self.consume),
            self.position.eq(self.position + self.consume),
        ]

        # Word: free, or freed by the chunk of this cycle.
        m.d.comb += self.i.ready.eq((chunks_left == 0) | ((chunks_left == 1) & append))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(self.i.payload), chunks_left.eq(chunks)]
        with m.Elif(append):
            m.d.sync += [word.eq(word << _WINDOW), chunks_left.eq(chunks_left - 1)]

        with m.If(self.clear):
            m.d.sync += [buffer.eq(0), count.eq(0), chunks_left.eq(0), self.position.eq(0)]

        return m
