"""Canonical Huffman decoder; its tables are made by :mod:`thresher.hw.weights.huffman_table`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from thresher.hw.weights.huffman_table import HuffmanTable, length_layout

__all__ = ["HuffmanDecoder"]


def _any(values: Iterable[Value]) -> Value:
    """Bitwise or; with at most one value not 0, that value."""
    return reduce(or_, values)


class HuffmanDecoder(wiring.Component):
    """Find the length of the code at the start of a window, and two cycles later its symbol.

    Timing contract
    ---------------
    Latency
        ``length``, ``final``, ``unused`` belong to the window of the same cycle, ``symbol`` to the
        one two cycles before. A table of ``n`` lengths can be used ``n + code_bits + 1`` cycles
        after its last length.
    Throughput
        A symbol a cycle; a table length a cycle.
    Combinational paths
        ``window`` to ``length``, ``final`` and ``unused``.
    Reset
        As ``clear``: no symbol is used.

    Parameters
    ----------
    symbols, code_bits, plain_bits
        As of :class:`~thresher.hw.weights.huffman_table.HuffmanTable`.

    Members
    -------
    clear, building, malformed
        As of the HuffmanTable.
    plain : ``In(1)``
        After a ``clear``: there is no table, the next ``plain_bits`` are what is sent. ``symbol``
        says nothing of it.
    table : ``In(stream.Signature(length_layout()))``
        Lengths in the order of the symbols; ``last`` with the final one.
    ready_to_decode : ``Out(1)``
        No table is on its way; what is decoded is right.
    window : ``In(code_bits)``
        Bits to decode, the first one most significant.
    length : ``Out(4)``
        Bits of the code at the window's start; 0 for the only symbol of its alphabet.
    final : ``Out(1)``
        It is the code of the alphabet's last symbol, ``symbols - 1``.
    unused : ``Out(1)``
        No code begins like this window. Codes fill the windows from 0 upward: if the window ends
        in zeros for want of bits, no continuation of it is a code either.
    symbol : ``Out(range(symbols))``
        Symbol of the window of two cycles before.
    """

    clear: Signal
    plain: Signal
    table: stream.Interface
    ready_to_decode: Signal
    building: Signal
    malformed: Signal
    window: Signal
    length: Signal
    final: Signal
    unused: Signal
    symbol: Signal

    def __init__(self, symbols: int, code_bits: int, plain_bits: int = 0) -> None:
        self.symbols = symbols
        self.code_bits = code_bits
        self.plain_bits = plain_bits
        super().__init__(
            {
                "clear": In(1),
                "plain": In(1),
                "table": In(stream.Signature(length_layout())),
                "ready_to_decode": Out(1),
                "building": Out(1),
                "malformed": Out(1),
                "window": In(code_bits),
                "length": Out(4),
                "final": Out(1),
                "unused": Out(1),
                "symbol": Out(range(symbols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.code_bits

        m.submodules.tables = tables = HuffmanTable(self.symbols, bits, self.plain_bits)
        connect(m, flipped(self.table), tables.i)
        decoding = tables.decoding
        m.d.comb += [
            tables.clear.eq(self.clear),
            tables.plain.eq(self.plain),
            self.ready_to_decode.eq(tables.ready),
            self.building.eq(tables.building),
            self.malformed.eq(tables.malformed),
        ]

        # Symbols sorted by code.
        order: Memory = Memory(shape=self.symbol.shape(), depth=self.symbols, init=[])
        m.submodules.order = order
        write, read = order.write_port(), order.read_port()
        m.d.comb += [
            write.en.eq(tables.place.valid),
            write.addr.eq(tables.place.place),
            write.data.eq(tables.place.symbol),
        ]

        # Length: whether the window's first n bits are below the limit of n. Once below, it stays
        # below for all greater n; the length is the smallest of them.
        below = Signal(bits)
        picked = Signal(bits)
        final_differs = Signal(bits)
        m.d.comb += [
            below.eq(Cat(self.window[bits - n - 1 :] < decoding.limits[n] for n in range(bits))),
            picked.eq(Mux(decoding.single, 0, below & ~(below << 1))),
            self.length.eq(_any(Mux(picked[n], n + 1, 0) for n in range(bits))),
            self.unused.eq(~below[-1] & ~decoding.single),
            final_differs.eq((self.window ^ decoding.final_code) & decoding.final_mask),
            self.final.eq(decoding.final_used & (decoding.single | (final_differs == 0))),
        ]

        # Offsets of the lengths. Length 0, of an only symbol, has offset 0.
        offsets: Memory = Memory(shape=self.symbol.shape(), depth=16, init=[])
        m.submodules.offsets = offsets
        offset_write, offset = offsets.write_port(), offsets.read_port(domain="comb")
        m.d.comb += [
            offset_write.en.eq(tables.offset.valid),
            offset_write.addr.eq(tables.offset.length),
            offset_write.data.eq(tables.offset.offset),
        ]

        # Symbol: a cycle to find its place, a cycle to read it.
        window = Signal(bits)
        length = Signal(4)
        m.d.sync += [window.eq(self.window), length.eq(self.length)]
        code = (window << length)[bits:]
        m.d.comb += [
            offset.addr.eq(length),
            read.addr.eq(code + offset.data),
            self.symbol.eq(read.data),
        ]

        return m
