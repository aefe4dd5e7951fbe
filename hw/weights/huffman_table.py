"""Makes the tables of a canonical Huffman decoder from the lengths of the codes.

The code is defined in :mod:`thresher.golden.codes.huffman`: shorter codes first, codes of equal
length in the order of their symbols. Hence the codes of one length are consecutive numbers, and two
numbers a length say everything: the first number that is no longer a code of that length (its
*limit*), and what to add to a code to get its *place* in the list of symbols sorted by code (the
length's *offset*).
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = [
    "HuffmanTable",
    "decoding_layout",
    "length_layout",
    "offset_layout",
    "place_layout",
]


def length_layout() -> data.StructLayout:
    """The length of one symbol's code, 0 for a symbol that is not used."""
    return data.StructLayout({"length": unsigned(4), "last": unsigned(1)})


def place_layout(symbols: int) -> data.StructLayout:
    """A write to the list of symbols sorted by code."""
    bits = max(1, (symbols - 1).bit_length())
    return data.StructLayout(
        {"valid": unsigned(1), "place": unsigned(bits), "symbol": unsigned(bits)}
    )


def offset_layout(symbols: int) -> data.StructLayout:
    """A write of the offset of one length."""
    bits = max(1, (symbols - 1).bit_length())
    return data.StructLayout(
        {"valid": unsigned(1), "length": unsigned(4), "offset": unsigned(bits)}
    )


def decoding_layout(code_bits: int) -> data.StructLayout:
    """What the decoding needs; element ``n`` of ``limits`` is of length ``n + 1``.

    ``final_code`` is the code of the last symbol, left-aligned, ``final_mask`` has ones where it
    has bits; both mean nothing unless ``final_used``.
    """
    return data.StructLayout(
        {
            "limits": data.ArrayLayout(unsigned(code_bits + 1), code_bits),
            "single": unsigned(1),
            "final_used": unsigned(1),
            "final_code": unsigned(code_bits),
            "final_mask": unsigned(code_bits),
        }
    )


class _State(enum.Enum):
    LOAD = 0  # take and count the lengths
    BUILD = 1  # from the counts, a length a cycle: limits, offsets, first places
    SORT = 2  # give each symbol, one a cycle, the next place of its length


class HuffmanTable(wiring.Component):
    """Count, build, sort: the three passes from code lengths to decoding tables.

    Timing contract
    ---------------
    Latency
        A table of ``n`` lengths is ready ``n + code_bits + 1`` cycles after its last length.
    Throughput
        A length a cycle.
    Combinational paths
        None.
    Reset
        As ``clear``: no symbol is used.

    Parameters
    ----------
    symbols
        Size of the alphabet; a table may have fewer lengths.
    code_bits
        Longest code.
    plain_bits
        Length of all codes without a table, with ``plain``.

    Members
    -------
    clear : ``In(1)``
        Forget the table. Needed before a new one.
    plain : ``In(1)``
        After a ``clear``: there is no table. Each window begins with a code of ``plain_bits``;
        ``offset`` and ``place`` say nothing of it.
    i : ``In(stream.Signature(length_layout()))``
        Lengths in the order of the symbols; ``last`` with the final one.
    ready : ``Out(1)``
        No table is on its way: ``decoding`` and what was written are whole.
    building : ``Out(1)``
        All lengths are there, the table is being made.
    malformed : ``Out(1)``
        ``ready``, but the table is no code: more codes than there can be, a length above
        ``code_bits``, or one that is not 1 for the only symbol.
    decoding : ``Out(decoding_layout(code_bits))``
        Limits of the lengths, the last symbol's code, whether only one symbol is used.
    offset : ``Out(offset_layout(symbols))``
        Writes to the list of offsets.
    place : ``Out(place_layout(symbols))``
        Writes to the list of symbols sorted by code.
    """

    clear: Signal
    plain: Signal
    i: stream.Interface
    ready: Signal
    building: Signal
    malformed: Signal
    decoding: data.View
    offset: data.View
    place: data.View

    def __init__(self, symbols: int, code_bits: int, plain_bits: int = 0) -> None:
        self.symbols = symbols
        self.code_bits = code_bits
        self.plain_bits = plain_bits
        super().__init__(
            {
                "clear": In(1),
                "plain": In(1),
                "i": In(stream.Signature(length_layout())),
                "ready": Out(1),
                "building": Out(1),
                "malformed": Out(1),
                "decoding": Out(decoding_layout(code_bits)),
                "offset": Out(offset_layout(symbols)),
                "place": Out(place_layout(symbols)),
            }
        )
        self.final_length = Signal(4)
        self.overfull = Signal()

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()

        # State. `numbers` holds for each length the count of its codes, from the BUILD pass on the
        # next place; those that are not `counted` are 0. The lengths are kept for the SORT pass.
        state = Signal(_State)
        symbol = Signal(range(self.symbols))
        end_symbol = Signal(range(self.symbols))
        numbers: Memory = Memory(shape=range(self.symbols + 1), depth=16, init=[])
        m.submodules.numbers = numbers
        counted = Signal(16)
        lengths: Memory = Memory(shape=4, depth=self.symbols, init=[])
        m.submodules.lengths = lengths
        write, read = lengths.write_port(), lengths.read_port()
        m.d.comb += [
            write.addr.eq(symbol),
            write.data.eq(self.i.payload.length),
            self.ready.eq((state == _State.LOAD) & (symbol == 0)),
            self.building.eq(state != _State.LOAD),
        ]

        # The one number of this cycle: of the length that comes, is built, or is sorted.
        built = Signal(4, init=1)
        length = Signal(4)
        number = Signal(range(self.symbols + 1))
        place = Signal(range(self.symbols + 1))  # in the BUILD pass: of the first code
        seen, renewed = numbers.read_port(domain="comb"), numbers.write_port()
        m.d.comb += [
            seen.addr.eq(length),
            number.eq(Mux(counted.bit_select(length, 1), seen.data, 0)),
            renewed.addr.eq(length),
            renewed.data.eq(Mux(state == _State.BUILD, place, number + 1)),
        ]
        with m.If(renewed.en):
            m.d.sync += counted.bit_select(length, 1).eq(1)

        with m.Switch(state):
            with m.Case(_State.LOAD):
                m.d.comb += [self.i.ready.eq(1), length.eq(self.i.payload.length)]
                with m.If(self.i.valid):
                    m.d.comb += [write.en.eq(1), renewed.en.eq(1)]
                    m.d.sync += symbol.eq(symbol + 1)
                    with m.If(self.i.payload.last):
                        m.d.sync += [state.eq(_State.BUILD), symbol.eq(0), end_symbol.eq(symbol)]

            with m.Case(_State.BUILD):
                m.d.comb += [length.eq(built), renewed.en.eq(1)]
                m.d.sync += built.eq(built + 1)
                with m.If(built == self.code_bits):
                    m.d.sync += state.eq(_State.SORT)

            with m.Case(_State.SORT):
                m.d.comb += [
                    length.eq(read.data),
                    read.addr.eq(symbol + 1),
                    self.place.valid.eq(length != 0),
                    self.place.place.eq(number),
                    self.place.symbol.eq(symbol),
                    renewed.en.eq(1),
                ]
                m.d.sync += symbol.eq(symbol + 1)
                with m.If(symbol == end_symbol):
                    m.d.sync += [state.eq(_State.LOAD), symbol.eq(0)]

        self._look_at_lengths(m, write.en, symbol)
        with m.If(state == _State.BUILD):
            self._build_length(m, built, number, place)

        # Below the limits of this length and all longer ones is every window.
        if self.plain_bits:
            with m.If(self.plain):
                m.d.sync += [
                    self.decoding.limits[n - 1][n].eq(1)
                    for n in range(self.plain_bits, self.code_bits + 1)
                ]

        clearable: Elaboratable = ResetInserter(self.clear)(m)
        return clearable

    def _look_at_lengths(self, m: Module, taken: Signal, symbol: Signal) -> None:
        """Note what single lengths say: how many are used, is one out of range, the last one's."""
        length = self.i.payload.length
        several = Signal()
        long_single = Signal()
        too_long = Signal()
        with m.If(taken & (length != 0)):
            m.d.sync += [
                several.eq(several | self.decoding.single),
                long_single.eq(length != 1),
                self.decoding.single.eq(~several & ~self.decoding.single),
            ]
            with m.If(length > self.code_bits):
                m.d.sync += too_long.eq(1)
            with m.If(symbol == self.symbols - 1):
                m.d.sync += [self.final_length.eq(length), self.decoding.final_used.eq(1)]
        m.d.comb += self.malformed.eq(
            self.ready & (too_long | self.overfull | (self.decoding.single & long_single))
        )

    def _build_length(self, m: Module, built: Signal, number: Signal, place: Signal) -> None:
        """From the count of the codes of one length make its limit, offset and first place."""
        # Its first code, and how many codes of this length there can be.
        first = Signal(self.code_bits + 2)
        possible = Signal(self.code_bits + 2, init=2)
        limit = Signal(self.code_bits + 3)
        m.d.comb += [
            limit.eq(first + number),
            self.offset.valid.eq(1),
            self.offset.length.eq(built),
            self.offset.offset.eq(place - first),
        ]
        m.d.sync += [
            first.eq(limit << 1),
            place.eq(place + number),
            possible.eq(possible << 1),
        ]
        decoding = self.decoding
        with m.Switch(built):
            for n in range(self.code_bits):
                with m.Case(n + 1):
                    m.d.sync += decoding.limits[n].eq(limit)
        with m.If(limit > possible):
            m.d.sync += self.overfull.eq(1)

        # The last symbol's code is the last one of its length. Each longer length moves it left.
        with m.If(built <= self.final_length):
            m.d.sync += [decoding.final_code.eq(limit - 1), decoding.final_mask.eq(~0)]
        with m.Else():
            m.d.sync += [
                decoding.final_code.eq(decoding.final_code << 1),
                decoding.final_mask.eq(decoding.final_mask << 1),
            ]
