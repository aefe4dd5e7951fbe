"""Finds the length of a canonical Huffman code in two steps of three comparisons."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["LENGTHS", "CodeSearch", "limit_layout"]

LENGTHS = 16  # 0 to 15; 15 is no length but says that no code begins like this


def limit_layout(code_bits: int) -> data.StructLayout:
    """A write of the limit of one length in one of the two tables."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "table": unsigned(1),
            "length": unsigned(4),
            "limit": unsigned(code_bits + 1),
        }
    )


class CodeSearch(wiring.Component):
    """Find the length of the code at the start of a window, in two tables.

    The *limit* of a length is the first window, as a number of ``code_bits`` bits, that begins with
    no code of that length or a shorter one. Limits grow with the length, so the length is the
    smallest one above whose limit the window is not. The first step compares with the limits of 3,
    7 and 11 and so finds one of four groups of lengths, the second with the first three of the
    group. A table of one symbol has limits above all windows: its length is 0.

    Timing contract
    ---------------
    Latency
        The first step is taken in the cycle with ``begin``, the second in the next one.
    Throughput
        A code in two cycles.
    Combinational paths
        ``window`` and ``table`` to ``length``.
    Reset
        Ready for a first step; the limits stay.

    Parameters
    ----------
    code_bits
        Longest code, at most 14.

    Members
    -------
    limit : ``In(limit_layout(code_bits))``
        Writes; all sixteen lengths of a table are to be written, that of 15 as of ``code_bits``.
    window : ``In(code_bits)``
        Bits to decode, the first one most significant.
    table : ``In(1)``
        Which table.
    begin : ``In(1)``
        The first step is taken in this cycle; ``window`` and ``table`` stay for the second one.
    hold : ``In(1)``
        The second step goes on in the next cycle.
    fine : ``Out(1)``
        The second step.
    length : ``Out(4)``
        With ``fine``: bits of the code; 15: no code begins like this window.
    """

    limit: data.View
    window: Signal
    table: Signal
    begin: Signal
    hold: Signal
    fine: Signal
    length: Signal

    def __init__(self, code_bits: int) -> None:
        self.code_bits = code_bits
        super().__init__(
            {
                "limit": In(limit_layout(code_bits)),
                "window": In(code_bits),
                "table": In(1),
                "begin": In(1),
                "hold": In(1),
                "fine": Out(1),
                "length": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limit = self.limit
        group = Signal(2)  # 0 in the first step: with `fine` the address of the limits
        place = Signal(2)  # the first of the three limits that is above the window; 3: none
        write_group, write_place = limit.length[2:], limit.length[:2]
        is_last = write_place == 3  # of its group: its limit belongs to the first step

        # Three memories: for each table a word for the first step, and one a group.
        below = []
        for k in range(3):
            memory: Memory = Memory(shape=unsigned(self.code_bits + 1), depth=16, init=[])
            m.submodules[f"limits_{k}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(limit.valid & Mux(is_last, write_group == k, write_place == k)),
                write.addr.eq(Cat(Mux(is_last, 0, write_group), ~is_last, limit.table)),
                write.data.eq(limit.limit),
                read.addr.eq(Cat(group, self.fine, self.table)),
            ]
            below.append(self.window < read.data)
        m.d.comb += [
            place.eq(Mux(below[0], 0, Mux(below[1], 1, Cat(~below[2], Const(1))))),
            self.length.eq((group << 2) | place),
        ]
        with m.If(~self.hold):
            m.d.sync += [self.fine.eq(self.begin), group.eq(Mux(self.begin, place, 0))]
        return m
