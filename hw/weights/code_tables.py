"""Reads the tables of a weight stream and makes the decoding tables of both codes, one by one.

The code is defined in :mod:`thresher.golden.codes.huffman`. This does the work of
:mod:`thresher.hw.weights.table_loader` and :mod:`thresher.hw.weights.huffman_table` with one set of
counts and one memory for both alphabets, and keeps weights by the place of their code.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.weights.chunk_reader import CHUNK
from thresher.hw.weights.code_search import LENGTHS, limit_layout
from thresher.hw.weights.table_loader import is_bad_alphabet

__all__ = ["CodeTables", "found_layout"]

_PLACE_BITS = 8


def found_layout(config: Config) -> data.StructLayout:
    """A code that was found: the window at its start, its length, and of which table it is."""
    return data.StructLayout(
        {"window": unsigned(config.code_bits), "length": unsigned(4), "table": unsigned(1)}
    )


class _State(enum.Enum):
    """The field that is read, or the pass over the lengths, from 8 on one over the counts."""

    PRESENT = 0  # whether there are any tables
    SYMBOLS = 1  # the last one, of the runs or the indices
    ZERO = 8  # the counts
    LENGTHS = 2  # count them
    SETTLE = 3  # the last one is counted
    BUILD = 9  # from the counts, a length a cycle: limits, offsets, first places
    CHECK = 4  # whether it is a code
    SORT = 5  # give each run symbol the next place of its length
    CODEBOOK = 6  # give each weight the next place of its index's length


class CodeTables(wiring.Component):
    """Take the fields of the tables, make limits, and find what a code stands for.

    Timing contract
    ---------------
    Latency
        The symbol or weight of a code that is ``found`` in cycle ``t`` is there in ``t + 1``.
    Throughput
        A field a cycle, and, for each of the two tables, 35 cycles; further a cycle for each run
        length.
    Combinational paths
        ``found`` to ``is_escape``; ``window`` and ``got`` to ``done`` and ``bad_alphabet``.
    Reset
        ``known`` is low: nothing can be decoded.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    active : ``In(1)``
        Read. When low, begin anew.
    reads : ``Out(1)``, wanted : ``Out(5)``
        A field is next; its bits.
    window : ``In(16)``
        The next bits of the stream.
    got : ``In(1)``
        The field is there and is taken in this cycle.
    begins : ``Out(1)``
        This field is not within a list.
    bad_alphabet : ``Out(1)``
        There would be more symbols than there can be, or what cannot be plain.
    malformed : ``Out(1)``
        The lengths last read are no code. Nothing further is read.
    done : ``Out(1)``
        All is read; the tables can be used from the next cycle but one.
    known : ``Out(1)``
        There are tables.
    limit : ``Out(limit_layout(code_bits))``
        Limits of the lengths, for the search.
    found : ``In(found_layout(config))``
        A code.
    is_escape : ``Out(1)``
        The code, if of a run, is that of the last run symbol.
    symbol : ``Out(max(weight_code_bits, weight_run_bits))``
        What the code of the cycle before stands for.
    """

    active: Signal
    reads: Signal
    wanted: Signal
    window: Signal
    got: Signal
    begins: Signal
    bad_alphabet: Signal
    malformed: Signal
    done: Signal
    known: Signal
    limit: data.View
    found: data.View
    is_escape: Signal
    symbol: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "active": In(1),
                "reads": Out(1),
                "wanted": Out(5),
                "window": In(CHUNK),
                "got": In(1),
                "begins": Out(1),
                "bad_alphabet": Out(1),
                "malformed": Out(1),
                "done": Out(1),
                "known": Out(1),
                "limit": Out(limit_layout(config.code_bits)),
                "found": In(found_layout(config)),
                "is_escape": Out(1),
                "symbol": Out(max(config.weight_code_bits, config.weight_run_bits)),
            }
        )
        bits = max(len(self.symbol), 4)
        self._value = Signal(bits)  # what the field gave: a length, a run symbol, or a weight
        self._slot = Signal(_PLACE_BITS)  # the symbol to which it belongs
        self._counting = Signal()  # it is a length
        self._placing = Signal()  # it is to be put at the place of its symbol
        self._counted = Signal()  # it was a length
        self._plain = Signal()  # weights are sent as they are

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        state = Signal(_State)
        table = Signal(init=1)  # 0: of the runs, 1: of the indices, or the one read last
        symbol = Signal(_PLACE_BITS)
        last = Signal(_PLACE_BITS)
        length = Signal(range(LENGTHS))  # of the ZERO and BUILD passes
        is_last = Signal()
        m.d.comb += is_last.eq(symbol == last)

        def field(bits: int) -> Value:
            m.d.comb += [self.reads.eq(1), self.wanted.eq(bits)]
            return self.window[-bits:]

        def advance(to: _State) -> None:
            m.d.sync += symbol.eq(symbol + 1)
            with m.If(is_last):
                m.d.sync += [symbol.eq(0), state.eq(to)]

        m.d.sync += [self._counting.eq(0), self._placing.eq(0), self._slot.eq(symbol)]
        with m.Switch(state):
            with m.Case(_State.PRESENT):
                present = field(1)
                m.d.comb += [self.begins.eq(1), self.done.eq(self.got & ~present)]
                with m.If(self.got & present):
                    m.d.sync += [state.eq(_State.SYMBOLS), self.known.eq(0), table.eq(1)]

            with m.Case(_State.SYMBOLS):
                alphabet = field(_PLACE_BITS + 1)
                with m.If(self._placing):
                    m.d.comb += self.reads.eq(0)
                m.d.comb += [
                    self.begins.eq(1),
                    self.bad_alphabet.eq(self.got & is_bad_alphabet(config, alphabet, ~table)),
                ]
                with m.If(self.got):
                    m.d.sync += [last.eq(alphabet[:_PLACE_BITS]), self._plain.eq(alphabet[-1])]
                    m.d.sync += [table.eq(~table), state.eq(_State.ZERO)]

            with m.Case(_State.ZERO):
                m.d.sync += length.eq(length + 1)
                with m.If(length.all()):
                    m.d.sync += state.eq(Mux(self._plain, _State.SETTLE, _State.LENGTHS))

            with m.Case(_State.LENGTHS):
                m.d.comb += self.begins.eq(symbol == 0)
                m.d.sync += [self._value.eq(field(4)), self._counting.eq(self.got)]
                with m.If(self.got):
                    advance(_State.SETTLE)

            with m.Case(_State.SETTLE), m.If(~self._counting & ~self._counted):
                m.d.sync += state.eq(_State.BUILD)

            with m.Case(_State.BUILD):
                m.d.sync += length.eq(length + 1)
                with m.If(length.all()):
                    m.d.sync += state.eq(_State.CHECK)

            with m.Case(_State.CHECK), m.If(~self.malformed):
                m.d.sync += state.eq(Mux(table, _State.CODEBOOK, _State.SORT))
                with m.If(self._plain):
                    m.d.comb += self.done.eq(1)

            with m.Case(_State.SORT):
                m.d.sync += [self._value.eq(symbol), self._placing.eq(1)]
                advance(_State.SYMBOLS)

            with m.Case(_State.CODEBOOK):
                m.d.comb += [self.begins.eq(symbol == 0), self.done.eq(self.got & is_last)]
                m.d.sync += [
                    self._value.eq(field(config.weight_code_bits)),
                    self._placing.eq(self.got),
                ]
                with m.If(self.got):
                    advance(_State.CODEBOOK)

        with m.If(~self.active | self.done):
            m.d.sync += [state.eq(_State.PRESENT), symbol.eq(0), length.eq(0)]
        with m.If(self.done & (state != _State.PRESENT)):
            m.d.sync += self.known.eq(1)

        self._build(m, state, table, symbol, length)
        return m

    def _build(
        self, m: Module, state: Signal, table: Signal, symbol: Signal, length: Signal
    ) -> None:
        """Keep the counts of the lengths, make the tables from them, and look up in these."""
        config, code_bits = self.config, self.config.code_bits

        # The one memory: 256 weights by place, 256 run symbols by place, lengths by symbol. What is
        # written lies two cycles behind the field; meanwhile the length of its symbol is read.
        memory: Memory = Memory(
            shape=unsigned(len(self._value)),
            depth=4 << _PLACE_BITS,
            init=[],
            attrs={"no_rw_check": "1", "ram_style": "block"},
        )
        m.submodules.symbols = memory
        write, read = memory.write_port(), memory.read_port()
        value, slot = Signal.like(self._value), Signal.like(self._slot)
        placed = Signal()
        its_length = Signal(range(LENGTHS))
        m.d.sync += [
            value.eq(self._value),
            slot.eq(self._slot),
            self._counted.eq(self._counting),
            placed.eq(self._placing),
            its_length.eq(Mux(self._counting, self._value, read.data)),
        ]

        # Counts of the length that comes, is built, or is sorted: codes of the length, from the
        # BUILD pass on the next place; and how many windows of code_bits bits they take.
        building = state[-1]
        at = Signal(range(LENGTHS))
        m.d.comb += at.eq(Mux(building, length, its_length))
        counts_layout = data.StructLayout({"number": 9, "windows": code_bits + 1})
        counts: Memory = Memory(shape=counts_layout, depth=LENGTHS, init=[])
        m.submodules.counts = counts
        renew, count = counts.write_port(), counts.read_port(domain="comb")
        one = Signal(code_bits)  # windows of a code of this length
        m.d.comb += [
            one.eq(Cat(at == n for n in range(code_bits, 0, -1))),
            count.addr.eq(at),
            renew.addr.eq(at),
            renew.en.eq(building | ((self._counted | placed) & (at != 0))),
        ]

        # BUILD pass.
        place = Signal(9)
        limit = Signal(code_bits + 2)
        first = Signal(_PLACE_BITS)  # code of this length, modulo 256
        next_limit = Signal(code_bits + 2)
        windows = Signal(code_bits + 1)  # all of them are of plain weights, which have one length
        plain_length = self._plain & (length == config.weight_code_bits)
        m.d.comb += [
            windows.eq(count.data.windows | (plain_length << code_bits)),
            next_limit.eq(limit[:-1] + windows),
        ]
        with m.If(state == _State.BUILD):
            m.d.comb += [renew.data.number.eq(place), renew.data.windows.eq(count.data.windows)]
            m.d.sync += [
                limit.eq(next_limit),
                place.eq(place + count.data.number),
                first.eq((first + count.data.number) << 1),
            ]
        with m.Elif(state != _State.ZERO):
            m.d.comb += [
                renew.data.number.eq(count.data.number + 1),
                renew.data.windows.eq(count.data.windows + one),
            ]

        # Whether it is a code. An only symbol takes all windows, which is not too many.
        single, several, long_single, wrong = Signal(), Signal(), Signal(), Signal()
        with m.If(self._counted & (at != 0)):
            m.d.sync += [
                several.eq(several | single),
                single.eq(~several & ~single),
                long_single.eq(at != 1),
            ]
            with m.If((at > code_bits) | count.data.windows[-1]):
                m.d.sync += wrong.eq(1)
        above = ~single & (limit > 1 << code_bits)  # of the lengths built before
        with m.If((state == _State.BUILD) & above):
            m.d.sync += wrong.eq(1)
        m.d.comb += self.malformed.eq(
            (state == _State.CHECK) & (wrong | above | (single & long_single))
        )
        with m.If(state == _State.ZERO):
            m.d.sync += [flag.eq(0) for flag in (single, several, wrong)]
            m.d.sync += [place.eq(0), first.eq(0)]
        with m.If(state == _State.SETTLE):
            m.d.sync += limit.eq(Mux(single, 1 << code_bits, 0))
        m.d.comb += [
            self.limit.valid.eq(state == _State.BUILD),
            self.limit.table.eq(table),
            self.limit.length.eq(length),
            self.limit.limit.eq(next_limit),
        ]

        # Place of a code: what it is beyond the first of its length, after all shorter ones.
        offsets: Memory = Memory(shape=unsigned(_PLACE_BITS), depth=2 * LENGTHS, init=[])
        m.submodules.offsets = offsets
        offset_write, offset = offsets.write_port(), offsets.read_port(domain="comb")
        found = self.found
        code = (found.window << found.length)[code_bits:][:_PLACE_BITS]
        found_place = Signal(_PLACE_BITS)
        m.d.comb += [
            offset_write.en.eq(state == _State.BUILD),
            offset_write.addr.eq(Cat(length, table)),
            offset_write.data.eq(place - first),
            offset.addr.eq(Cat(found.length, found.table)),
            found_place.eq(code + offset.data),
            self.symbol.eq(read.data),
        ]
        if config.weight_code_bits <= code_bits:
            with m.If(self._plain & found.table):
                m.d.comb += self.symbol.eq(found.window[-config.weight_code_bits :])
        # The escape is told from its place, since what it stands for comes late in a cycle.
        escape_place, escape_used = Signal(_PLACE_BITS), Signal()
        m.d.comb += self.is_escape.eq(escape_used & (found_place == escape_place))
        with m.If((state == _State.ZERO) & ~table):
            m.d.sync += escape_used.eq(0)
        with m.If(placed & ~table & (slot == config.run_symbols - 1)):
            m.d.sync += [escape_place.eq(count.data.number), escape_used.eq(at != 0)]
        sorting = (state == _State.SORT) | (state == _State.CODEBOOK)
        low, high = Const(0, 1), Const(1, 1)
        m.d.comb += [
            read.addr.eq(Cat(found_place, ~found.table, low)),
            write.en.eq(self._counted | (placed & (at != 0))),
            write.data.eq(value),
            write.addr.eq(Cat(count.data.number[:_PLACE_BITS], ~table, low)),
        ]
        with m.If(sorting):
            m.d.comb += read.addr.eq(Cat(symbol, low, high))
        with m.If(self._counted):
            m.d.comb += write.addr.eq(Cat(slot, low, high))
