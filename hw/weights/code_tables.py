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

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reading = _Reading(m, self)
        with m.Switch(reading.state):
            reading.begin_table()
            reading.read_lengths()
            reading.wait_for_limits()
            reading.place_symbols()
        reading.begin_anew()
        making = _Making(m, self, reading)
        making.make_limits()
        making.check()
        making.make_offsets()
        making.tell_escape()
        making.place()
        making.look_up()
        return m


class _Reading:
    """The field that is read, and the symbol to which it belongs; or the pass that is made."""

    def __init__(self, m: Module, ports: CodeTables) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        self.state = Signal(_State)
        self.table = Signal(init=1)  # 0: of the runs, 1: of the indices, or the one read last
        self.plain = Signal()  # weights are sent as they are
        self.symbol = Signal(_PLACE_BITS)
        self.last = Signal(_PLACE_BITS)
        self.is_last = Signal()
        self.length = Signal(range(LENGTHS))  # of the ZERO and BUILD passes
        self._hold_field()

    def _hold_field(self) -> None:
        """Have registers for what the field of the cycle before gave."""
        m = self.m
        self.value = Signal(max(len(self.ports.symbol), 4))  # a length, a run symbol, or a weight
        self.slot = Signal(_PLACE_BITS)  # the symbol to which it belongs
        self.counting = Signal()  # it is a length
        self.placing = Signal()  # it is to be put at the place of its symbol
        self.counted = Signal()  # it was a length
        m.d.comb += self.is_last.eq(self.symbol == self.last)
        m.d.sync += [
            self.counting.eq(0),
            self.placing.eq(0),
            self.slot.eq(self.symbol),
            self.counted.eq(self.counting),
        ]

    def _field(self, bits: int) -> Value:
        """Want so many bits; return those that are there if it is ``got``."""
        self.m.d.comb += [self.ports.reads.eq(1), self.ports.wanted.eq(bits)]
        return self.ports.window[-bits:]

    def _advance(self, to: _State) -> None:
        """Go on to the next symbol, after the last one to a state."""
        m, symbol = self.m, self.symbol
        m.d.sync += symbol.eq(symbol + 1)
        with m.If(self.is_last):
            m.d.sync += [symbol.eq(0), self.state.eq(to)]

    def begin_table(self) -> None:
        """Read whether there are tables, and how many symbols the next one has."""
        m, ports, state, table = self.m, self.ports, self.state, self.table
        with m.Case(_State.PRESENT):
            present = self._field(1)
            m.d.comb += [ports.begins.eq(1), ports.done.eq(ports.got & ~present)]
            with m.If(ports.got & present):
                m.d.sync += [state.eq(_State.SYMBOLS), ports.known.eq(0), table.eq(1)]

        with m.Case(_State.SYMBOLS):
            alphabet = self._field(_PLACE_BITS + 1)
            with m.If(self.placing):
                m.d.comb += ports.reads.eq(0)
            m.d.comb += [
                ports.begins.eq(1),
                ports.bad_alphabet.eq(ports.got & is_bad_alphabet(self.config, alphabet, ~table)),
            ]
            with m.If(ports.got):
                m.d.sync += [self.last.eq(alphabet[:_PLACE_BITS]), self.plain.eq(alphabet[-1])]
                m.d.sync += [table.eq(~table), state.eq(_State.ZERO)]

    def read_lengths(self) -> None:
        """Zero the counts, then read the lengths of all symbols."""
        m, ports, state, length = self.m, self.ports, self.state, self.length
        with m.Case(_State.ZERO):
            m.d.sync += length.eq(length + 1)
            with m.If(length.all()):
                m.d.sync += state.eq(Mux(self.plain, _State.SETTLE, _State.LENGTHS))

        with m.Case(_State.LENGTHS):
            m.d.comb += ports.begins.eq(self.symbol == 0)
            m.d.sync += [self.value.eq(self._field(4)), self.counting.eq(ports.got)]
            with m.If(ports.got):
                self._advance(_State.SETTLE)

        with m.Case(_State.SETTLE), m.If(~self.counting & ~self.counted):
            m.d.sync += state.eq(_State.BUILD)

    def wait_for_limits(self) -> None:
        """Let the limits be made; stay if the lengths are no code."""
        m, ports, state, length = self.m, self.ports, self.state, self.length
        with m.Case(_State.BUILD):
            m.d.sync += length.eq(length + 1)
            with m.If(length.all()):
                m.d.sync += state.eq(_State.CHECK)

        with m.Case(_State.CHECK), m.If(~ports.malformed):
            m.d.sync += state.eq(Mux(self.table, _State.CODEBOOK, _State.SORT))
            with m.If(self.plain):
                m.d.comb += ports.done.eq(1)

    def place_symbols(self) -> None:
        """Give each run symbol, or each weight that is read, its place."""
        m, ports = self.m, self.ports
        with m.Case(_State.SORT):
            m.d.sync += [self.value.eq(self.symbol), self.placing.eq(1)]
            self._advance(_State.SYMBOLS)

        with m.Case(_State.CODEBOOK):
            m.d.comb += [
                ports.begins.eq(self.symbol == 0),
                ports.done.eq(ports.got & self.is_last),
            ]
            m.d.sync += [
                self.value.eq(self._field(self.config.weight_code_bits)),
                self.placing.eq(ports.got),
            ]
            with m.If(ports.got):
                self._advance(_State.CODEBOOK)

    def begin_anew(self) -> None:
        """Begin anew when all is read; the tables are known if there were any."""
        m, ports, state = self.m, self.ports, self.state
        with m.If(~ports.active | ports.done):
            m.d.sync += [state.eq(_State.PRESENT), self.symbol.eq(0), self.length.eq(0)]
        with m.If(ports.done & (state != _State.PRESENT)):
            m.d.sync += ports.known.eq(1)


def _at_place(place: Value, table: Value) -> Value:
    """Address of the weight or the run symbol with that place."""
    return Cat(place, ~table, Const(0, 1))


def _at_symbol(symbol: Value) -> Value:
    """Address of the length of that symbol."""
    return Cat(symbol, Const(0, 1), Const(1, 1))


class _Making:
    """The counts of the lengths, the tables that are made from them, and the place of a code.

    What is written lies two cycles behind the field; meanwhile the length of its symbol is read.
    """

    def __init__(self, m: Module, ports: CodeTables, reading: _Reading) -> None:
        self.m, self.ports, self.reading, self.config = m, ports, reading, ports.config
        self.state, self.table = reading.state, reading.table
        self._hold_symbols()
        self._hold_counts()
        self._hold_places()

    def _hold_symbols(self) -> None:
        """Have the one memory: 256 weights by place, 256 run symbols by place, lengths by symbol.

        And registers for what is written to it.
        """
        reading = self.reading
        memory: Memory = Memory(
            shape=unsigned(len(reading.value)),
            depth=4 << _PLACE_BITS,
            init=[],
            attrs={"no_rw_check": "1", "ram_style": "block"},
        )
        self.m.submodules.symbols = memory
        self.write, self.read = memory.write_port(), memory.read_port()
        self.value, self.slot = Signal.like(reading.value), Signal.like(reading.slot)
        self.placed = Signal()
        self.its_length = Signal(range(LENGTHS))
        self.m.d.sync += [
            self.value.eq(reading.value),
            self.slot.eq(reading.slot),
            self.placed.eq(reading.placing),
            self.its_length.eq(Mux(reading.counting, reading.value, self.read.data)),
        ]

    def _hold_counts(self) -> None:
        """Have counts of the length that comes, is built, or is sorted.

        Codes of the length, from the BUILD pass on the next place; and how many windows of
        ``code_bits`` bits they take.
        """
        code_bits, building, at = self.config.code_bits, self.state[-1], Signal(range(LENGTHS))
        self.at = at
        self.m.d.comb += at.eq(Mux(building, self.reading.length, self.its_length))
        layout = data.StructLayout({"number": 9, "windows": code_bits + 1})
        counts: Memory = Memory(shape=layout, depth=LENGTHS, init=[])
        self.m.submodules.counts = counts
        renew, count = counts.write_port(), counts.read_port(domain="comb")
        self.m.d.comb += [
            count.addr.eq(at),
            renew.addr.eq(at),
            renew.en.eq(building | ((self.reading.counted | self.placed) & (at != 0))),
        ]
        self.count, self.renewed = count.data, renew.data

    def _hold_places(self) -> None:
        """Have registers for the length that is built, and the place of the code that is found."""
        self.next_place = Signal(9)
        self.first = Signal(_PLACE_BITS)  # code of this length, modulo 256
        self.limit = Signal(self.config.code_bits + 2)
        self.found_place = Signal(_PLACE_BITS)

    def make_limits(self) -> None:
        """Make limits in the BUILD pass, a length a cycle; else count what has a length."""
        m, ports, config, count = self.m, self.ports, self.config, self.count
        code_bits, length = config.code_bits, self.reading.length
        next_limit = Signal(code_bits + 2)
        windows = Signal(code_bits + 1)  # all of them are of plain weights, which have one length
        plain_length = self.reading.plain & (length == config.weight_code_bits)
        one = Signal(code_bits)  # windows of a code of this length
        m.d.comb += [
            one.eq(Cat(self.at == n for n in range(code_bits, 0, -1))),
            windows.eq(count.windows | (plain_length << code_bits)),
            next_limit.eq(self.limit[:-1] + windows),
            ports.limit.valid.eq(self.state == _State.BUILD),
            ports.limit.table.eq(self.table),
            ports.limit.length.eq(length),
            ports.limit.limit.eq(next_limit),
        ]
        with m.If(self.state == _State.BUILD):
            m.d.comb += [
                self.renewed.number.eq(self.next_place),
                self.renewed.windows.eq(count.windows),
            ]
            m.d.sync += [
                self.limit.eq(next_limit),
                self.next_place.eq(self.next_place + count.number),
                self.first.eq((self.first + count.number) << 1),
            ]
        with m.Elif(self.state != _State.ZERO):
            m.d.comb += [
                self.renewed.number.eq(count.number + 1),
                self.renewed.windows.eq(count.windows + one),
            ]
        with m.If(self.state == _State.ZERO):
            m.d.sync += [self.next_place.eq(0), self.first.eq(0)]

    def check(self) -> None:
        """Find whether it is a code. An only symbol takes all windows, which is not too many."""
        m, state, at, code_bits = self.m, self.state, self.at, self.config.code_bits
        single, several, long_single, wrong = Signal(), Signal(), Signal(), Signal()
        with m.If(self.reading.counted & (at != 0)):
            m.d.sync += [
                several.eq(several | single),
                single.eq(~several & ~single),
                long_single.eq(at != 1),
            ]
            with m.If((at > code_bits) | self.count.windows[-1]):
                m.d.sync += wrong.eq(1)
        above = ~single & (self.limit > 1 << code_bits)  # of the lengths built before
        with m.If((state == _State.BUILD) & above):
            m.d.sync += wrong.eq(1)
        m.d.comb += self.ports.malformed.eq(
            (state == _State.CHECK) & (wrong | above | (single & long_single))
        )
        with m.If(state == _State.ZERO):
            m.d.sync += [flag.eq(0) for flag in (single, several, wrong)]
        with m.If(state == _State.SETTLE):
            m.d.sync += self.limit.eq(Mux(single, 1 << code_bits, 0))

    def make_offsets(self) -> None:
        """Find the place of a code: how far it is from the first of its length, after shorter ones.

        ``offsets`` has, for each length, the place of the first code less that code.
        """
        found = self.ports.found
        offsets: Memory = Memory(shape=unsigned(_PLACE_BITS), depth=2 * LENGTHS, init=[])
        self.m.submodules.offsets = offsets
        write, offset = offsets.write_port(), offsets.read_port(domain="comb")
        code = (found.window << found.length)[self.config.code_bits :][:_PLACE_BITS]
        self.m.d.comb += [
            write.en.eq(self.state == _State.BUILD),
            write.addr.eq(Cat(self.reading.length, self.table)),
            write.data.eq(self.next_place - self.first),
            offset.addr.eq(Cat(found.length, found.table)),
            self.found_place.eq(code + offset.data),
        ]

    def tell_escape(self) -> None:
        """Tell the escape from its place, since what it stands for comes late in a cycle."""
        m, table = self.m, self.table
        place, used = Signal(_PLACE_BITS), Signal()
        m.d.comb += self.ports.is_escape.eq(used & (self.found_place == place))
        with m.If((self.state == _State.ZERO) & ~table):
            m.d.sync += used.eq(0)
        with m.If(self.placed & ~table & (self.slot == self.config.run_symbols - 1)):
            m.d.sync += [place.eq(self.count.number), used.eq(self.at != 0)]

    def place(self) -> None:
        """Write a length by its symbol, a symbol or weight by its place."""
        m, write, counted = self.m, self.write, self.reading.counted
        m.d.comb += [
            write.en.eq(counted | (self.placed & (self.at != 0))),
            write.data.eq(self.value),
            write.addr.eq(_at_place(self.count.number[:_PLACE_BITS], self.table)),
        ]
        with m.If(counted):
            m.d.comb += write.addr.eq(_at_symbol(self.slot))

    def look_up(self) -> None:
        """Read what a code stands for; while symbols are sorted, their lengths."""
        m, found, bits = self.m, self.ports.found, self.config.weight_code_bits
        sorting = (self.state == _State.SORT) | (self.state == _State.CODEBOOK)
        m.d.comb += [
            self.read.addr.eq(_at_place(self.found_place, found.table)),
            self.ports.symbol.eq(self.read.data),
        ]
        with m.If(sorting):
            m.d.comb += self.read.addr.eq(_at_symbol(self.reading.symbol))
        if bits <= self.config.code_bits:
            with m.If(self.reading.plain & found.table):
                m.d.comb += self.ports.symbol.eq(found.window[-bits:])
