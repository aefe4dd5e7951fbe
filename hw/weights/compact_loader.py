"""Loads one column like :mod:`thresher.hw.weights.weight_loader`, in a third of its logic."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import enum
from amaranth.lib.wiring import connect

from thresher.golden.descriptors import ErrorCode
from thresher.hw.weights.chunk_reader import CHUNK, ChunkReader
from thresher.hw.weights.code_tables import CodeTables
from thresher.hw.weights.compact_decoder import CompactDecoder
from thresher.hw.weights.compact_writer import CompactWriter
from thresher.hw.weights.loader_ports import LoaderPorts

__all__ = ["CompactLoader"]


class _State(enum.Enum):
    """The field that is read, or what is waited for."""

    IDLE = 0
    SHARED = 1  # whether scale and shift of the first channel are those of all
    CHANNEL = 2  # whether there is another one
    BIAS = 3
    SCALE = 4
    SHIFT = 5
    LOOKUP = 6  # whether there is a lookup table
    ENTRIES = 7  # of the lookup table
    TABLES = 8
    GROUPS = 9
    PAIRS_TOP = 10  # what the number of pairs has above 16 bits
    PAIRS = 11
    DECODE = 12  # pairs
    FINISH = 13  # until the element's taps and pointers are written
    FAIL = 14  # until the pairs before the fault are written


class CompactLoader(LoaderPorts):
    """Decode the weight stream of a column, 16 bits at most a cycle, a code in three.

    What a :class:`~thresher.hw.weights.weight_loader.WeightLoader` does, in less logic: one search
    and one set of counts for both codes, one memory for run symbols, weights, and lengths, and a
    pair in six cycles. All positions of errors are captured, not computed.

    Timing contract
    ---------------
    Latency
        ``busy`` is high from the cycle after ``start`` until the last write strobe has been out.
    Throughput
        16 bits of a constant, a table entry, a code length, a count a cycle; a pair that enters
        ``g`` groups in ``max(6, g + 2)`` cycles; a pointer after an element's last pair a cycle; up
        to 14 cycles more an element. Making the tables takes 70 cycles more, and one a run length.
    Combinational paths
        None to ``words`` or the writes. A start with a word on offer discards that word.
    Reset
        As ``reset_taps``, and idle.

    Parameters
    ----------
    config
        Sizes; ``pair_cycles`` is 6.

    Members
    -------
    Those of :class:`~thresher.hw.weights.loader_ports.LoaderPorts`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        loading = _Loading(m, self)
        with m.Switch(loading.state):
            loading.load_tables()
            loading.begin_element()
            loading.decode_pairs()
            loading.end()
        loading.load_constants()
        if self.config.lookup:
            loading.load_lookup()
        loading.find_faults()
        loading.start()
        return m


class _Loading:
    """The parts of a loader, the field that is read, and the pairs that are left.

    A state names the bits that it wants, and goes on when it has got them.
    """

    def __init__(self, m: Module, ports: CompactLoader) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        m.submodules.reader = self.reader = ChunkReader(self.config)
        m.submodules.tables = self.tables = CodeTables(self.config)
        m.submodules.decoder = self.decoder = CompactDecoder(self.config)
        m.submodules.writer = self.writer = CompactWriter(self.config)
        self.state = Signal(_State)
        self.starting = Signal()
        self.last_row = self.writer.row == self.config.lanes - 1
        self._read_words()
        self._connect_parts()
        self._want_fields()
        self._count_pairs()

    def _read_words(self) -> None:
        """Read words while busy; else discard them."""
        ports, reader, state = self.ports, self.reader, self.state
        ending = (state == _State.FAIL) | ((state == _State.FINISH) & self.last_row)
        self.m.d.comb += [
            ports.busy.eq(state != _State.IDLE),
            self.starting.eq(ports.start & ~ports.busy),
            reader.clear.eq(self.starting),
            reader.i.valid.eq(ports.words.valid & ports.busy),
            reader.i.payload.eq(ports.words.payload),
            reader.exhausted.eq(ports.exhausted),
            ports.words.ready.eq(reader.i.ready | ~ports.busy),
            ports.words_wanted.eq(ports.busy & ~ending),
        ]

    def _connect_parts(self) -> None:
        """Connect what needs no logic in between."""
        m, ports, reader = self.m, self.ports, self.reader
        tables, decoder, writer = self.tables, self.decoder, self.writer
        connect(m, decoder.o, writer.i)
        m.d.comb += [
            tables.window.eq(reader.window),
            tables.found.eq(decoder.found),
            decoder.is_escape.eq(tables.is_escape),
            decoder.symbol.eq(tables.symbol),
            decoder.limit.eq(tables.limit),
            decoder.known.eq(tables.known),
            decoder.window.eq(reader.window),
            decoder.steady.eq(reader.steady),
            decoder.short.eq(reader.overrun),
            decoder.position.eq(reader.position),
            decoder.flush.eq(~ports.busy),
            writer.load.eq(ports.load),
            writer.reset_taps.eq(ports.reset_taps),
            writer.stop.eq(~ports.busy),
            ports.tap.eq(writer.tap),
            ports.pointer.eq(writer.pointer),
        ]

    def _want_fields(self) -> None:
        """Take the bits that a state or the decoder wants."""
        m, reader, decoder = self.m, self.reader, self.decoder
        self.decoding = Signal()
        self.reads = Signal()
        self.wanted = Signal(5)
        self.got = Signal()
        self.begins = Signal()  # a field that is not the next one of a list or the rest of a number
        self.fault = Signal(ErrorCode)
        m.d.comb += [
            self.decoding.eq(self.state == _State.DECODE),
            reader.reads.eq(self.reads),
            reader.wanted.eq(self.wanted),
            reader.bits.eq(Mux(self.decoding, decoder.bits, self.wanted)),
            self.got.eq(self.reads & reader.enough),
            reader.take.eq(self.got | decoder.take),
            self.tables.got.eq(self.got & self.tables.active),
        ]
        # Where the field, list, pair or code begins is kept in case that it is faulty.
        with m.If(self.ports.busy & (self.begins | decoder.take)):
            m.d.sync += self.ports.position.eq(reader.position)

    def _field(self, bits: int, *, begin: Value | int = 1) -> Value:
        """Want bits; return those that are there if it is ``got``. It is not the rest of a list."""
        self.m.d.comb += [self.reads.eq(1), self.wanted.eq(bits), self.begins.eq(begin)]
        return self.reader.window[-bits:]

    def _fail(self, code: ErrorCode) -> None:
        """End at a fault: the pairs before it are still written."""
        self.m.d.sync += [self.fault.eq(code), self.state.eq(_State.FAIL)]

    def _count_pairs(self) -> None:
        """Count pairs that are left: they come in two parts, and become fewer, by one adder."""
        m, window, pairs_left = self.m, self.reader.window, Signal(20)
        self.top_comes, self.rest_comes = Signal(), Signal()
        self.no_pairs = Signal()
        less = Signal()
        rest = Mux(self.rest_comes, window, pairs_left[:16])
        top = Mux(self.top_comes, window[-4:], pairs_left[16:])
        m.d.comb += less.eq(self.decoding & self.decoder.last)
        with m.If(self.top_comes | self.rest_comes | less):
            m.d.sync += pairs_left.eq(Cat(rest, top) + less.replicate(20))
        with m.If(self.rest_comes):
            m.d.sync += self.no_pairs.eq((window == 0) & (top == 0))
        with m.Elif(less):
            m.d.sync += self.no_pairs.eq(pairs_left == 1)

    def load_tables(self) -> None:
        """Read whether there is a lookup table, and, behind it, the code tables."""
        m, state, tables = self.m, self.state, self.tables
        with m.Case(_State.LOOKUP):
            present = self._field(1)
            with m.If(self.got):
                m.d.sync += state.eq(_State.TABLES)
                with m.If(present):
                    if self.config.lookup:
                        m.d.sync += state.eq(_State.ENTRIES)
                    else:
                        self._fail(ErrorCode.CODE_UNUSED)

        with m.Case(_State.TABLES):
            m.d.comb += [
                tables.active.eq(1),
                self.reads.eq(tables.reads),
                self.wanted.eq(tables.wanted),
                self.begins.eq(tables.begins),
            ]
            with m.If(tables.done):
                m.d.sync += state.eq(_State.GROUPS)
            with m.If(tables.bad_alphabet | tables.malformed):
                self._fail(ErrorCode.CODE_UNUSED)

    def begin_element(self) -> None:
        """Read the numbers of groups and of pairs of an element."""
        m, state, writer = self.m, self.state, self.writer
        with m.Case(_State.GROUPS):
            m.d.comb += writer.groups.eq(self._field(16))
            with m.If(self.got):
                m.d.comb += writer.start.eq(1)
                m.d.sync += state.eq(_State.PAIRS_TOP)

        with m.Case(_State.PAIRS_TOP):
            m.d.comb += self.top_comes.eq(1)
            self._field(4)
            with m.If(self.got):
                m.d.sync += state.eq(_State.PAIRS)

        with m.Case(_State.PAIRS):
            m.d.comb += self.rest_comes.eq(1)
            self._field(16, begin=0)
            with m.If(self.got):
                m.d.sync += state.eq(_State.DECODE)

    def decode_pairs(self) -> None:
        """Decode the pairs of an element."""
        m = self.m
        with m.Case(_State.DECODE):
            m.d.comb += self.decoder.look.eq(~self.no_pairs)
            with m.If(self.no_pairs):
                m.d.sync += self.state.eq(_State.FINISH)
            with m.If(self.decoder.unused):
                self._fail(ErrorCode.CODE_UNUSED)
            with m.Elif(self.reader.overrun):
                self._fail(ErrorCode.STREAM_SHORT)

    def end(self) -> None:
        """End an element, or at a fault, when what has been decoded is written."""
        m, state, writer = self.m, self.state, self.writer
        with m.Case(_State.FINISH), m.If(self.decoder.empty & writer.idle):
            m.d.comb += writer.finish.eq(1)
            with m.If(writer.done):
                m.d.sync += [writer.row.eq(writer.row + 1), state.eq(_State.GROUPS)]
                with m.If(self.last_row):
                    m.d.sync += state.eq(_State.IDLE)

        with m.Case(_State.FAIL), m.If(self.decoder.empty & writer.idle):
            m.d.sync += [self.ports.error.eq(self.fault), state.eq(_State.IDLE)]

    def load_constants(self) -> None:
        """Read bias, scale and shift of one channel after another."""
        m, state, constant = self.m, self.state, self.ports.constant
        channel = Signal(12)
        shared, known = Signal(), Signal()  # scale and shift are to be, are those of all channels
        whole = Signal()  # the channel's last field
        self.part = Signal(2)  # of a bias or a scale, the highest one first
        self.last_part = Signal()
        m.d.sync += constant.valid.eq(whole)
        with m.Switch(state):
            with m.Case(_State.SHARED):
                m.d.sync += [shared.eq(self._field(1)), known.eq(0)]
                with m.If(self.got):
                    m.d.sync += state.eq(_State.CHANNEL)

            with m.Case(_State.CHANNEL):
                none_left = channel == self.ports.lane.channels
                m.d.sync += state.eq(Mux(none_left, _State.LOOKUP, _State.BIAS))

            with m.Case(_State.BIAS):
                self._read_parts(constant.bias, _State.SCALE)
                m.d.comb += whole.eq(self.last_part & known)

            with m.Case(_State.SCALE):
                self._read_parts(constant.scale, _State.SHIFT)

            with m.Case(_State.SHIFT):
                shift = self._field(6)
                with m.If(self.got):
                    m.d.sync += [constant.shift.eq(shift), known.eq(shared)]
                    m.d.comb += whole.eq(1)

        with m.If(whole):
            m.d.sync += [
                constant.address.eq(self.ports.load.channel_base + channel),
                channel.eq(channel + 1),
                state.eq(_State.CHANNEL),
            ]
        with m.If(~self.ports.busy):
            m.d.sync += [channel.eq(0), self.part.eq(0)]

    def _read_parts(self, target: Value, then: _State) -> None:
        """Read a number of several chunks, the first of which may have fewer bits."""
        m, part, parts = self.m, self.part, -(-len(target) // CHUNK)
        with m.Switch(part):
            for k in range(parts):
                low = (parts - 1 - k) * CHUNK
                piece = target[low : low + CHUNK]
                with m.Case(k):
                    bits = self._field(len(piece), begin=k == 0)
                    with m.If(self.got):
                        m.d.sync += piece.eq(bits)
                        if k == parts - 1:
                            m.d.sync += [part.eq(0), self.state.eq(then)]
                            m.d.comb += self.last_part.eq(1)
                        else:
                            m.d.sync += part.eq(k + 1)

    def load_lookup(self) -> None:
        """Read the lookup table and write it, an entry after another."""
        m, lookup, bits = self.m, self.ports.lookup, self.config.activation_bits
        entry = Signal(bits)
        m.d.sync += lookup.valid.eq(0)
        with m.If(self.state == _State.ENTRIES):
            value = self._field(bits, begin=entry == 0)
            with m.If(self.got):
                m.d.sync += [
                    lookup.valid.eq(1),
                    lookup.address.eq(entry),
                    lookup.value.eq(value),
                    entry.eq(entry + 1),
                ]
                with m.If(entry.all()):
                    m.d.sync += self.state.eq(_State.TABLES)
        with m.If(~self.ports.busy):
            m.d.sync += entry.eq(0)

    def find_faults(self) -> None:
        """Find an end of the stream within a field, and a pair past the end."""
        m, ports, writer = self.m, self.ports, self.writer
        with m.If(self.reader.lacking & self.reads):
            self._fail(ErrorCode.STREAM_SHORT)
        with m.If(ports.busy & writer.past_end):
            m.d.sync += [
                ports.error.eq(ErrorCode.RUN_PAST_END),
                ports.position.eq(writer.at),
                self.state.eq(_State.IDLE),
            ]

    def start(self) -> None:
        """Begin a load."""
        m, starting = self.m, self.starting
        with m.If(starting | self.ports.reset_taps):
            m.d.sync += self.ports.error.eq(ErrorCode.NONE)
        with m.If(starting):
            m.d.sync += [self.writer.row.eq(0), self.state.eq(_State.SHARED)]
