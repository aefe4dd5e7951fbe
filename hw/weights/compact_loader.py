"""Loads one column like :mod:`thresher.hw.weights.weight_loader`, in a third of its logic."""

from __future__ import annotations

from typing import Protocol

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


class Field(Protocol):
    """Want bits; return those that are there if it is ``got``. It is not the rest of a list."""

    def __call__(self, bits: int, *, begin: Value | int = 1) -> Value: ...


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
        config = self.config
        m.submodules.reader = reader = ChunkReader(config)
        m.submodules.tables = tables = CodeTables(config)
        m.submodules.decoder = decoder = CompactDecoder(config)
        m.submodules.writer = writer = CompactWriter(config)
        state = Signal(_State)
        starting = Signal()
        m.d.comb += [
            self.busy.eq(state != _State.IDLE),
            starting.eq(self.start & ~self.busy),
            reader.clear.eq(starting),
            reader.i.valid.eq(self.words.valid & self.busy),
            reader.i.payload.eq(self.words.payload),
            reader.exhausted.eq(self.exhausted),
            self.words.ready.eq(reader.i.ready | ~self.busy),
        ]
        self._connect_parts(m, reader, tables, decoder, writer)

        # Fields: a state names the bits that it wants, and goes on when it has got them.
        decoding = Signal()
        reads = Signal()
        wanted = Signal(5)
        got = Signal()
        begins = Signal()  # a field that is not the next one of a list or the rest of a number
        m.d.comb += [
            decoding.eq(state == _State.DECODE),
            reader.reads.eq(reads),
            reader.wanted.eq(wanted),
            reader.bits.eq(Mux(decoding, decoder.bits, wanted)),
            got.eq(reads & reader.enough),
            reader.take.eq(got | decoder.take),
            tables.got.eq(got & tables.active),
        ]

        def field(bits: int, *, begin: Value | int = 1) -> Value:
            m.d.comb += [reads.eq(1), wanted.eq(bits), begins.eq(begin)]
            return reader.window[-bits:]

        # Where the field, list, pair or code begins is kept in case that it is faulty.
        fault = Signal(ErrorCode)
        with m.If(self.busy & (begins | decoder.take)):
            m.d.sync += self.position.eq(reader.position)

        def fail(code: ErrorCode) -> None:
            m.d.sync += [fault.eq(code), state.eq(_State.FAIL)]

        # Pairs that are left come in two parts, and become fewer, by one adder.
        pairs_left = Signal(20)
        top_comes, rest_comes, less = Signal(), Signal(), Signal()
        rest = Mux(rest_comes, reader.window, pairs_left[:16])
        top = Mux(top_comes, reader.window[-4:], pairs_left[16:])
        m.d.comb += less.eq(decoding & decoder.last)
        with m.If(top_comes | rest_comes | less):
            m.d.sync += pairs_left.eq(Cat(rest, top) + less.replicate(20))
        no_pairs = Signal()
        with m.If(rest_comes):
            m.d.sync += no_pairs.eq((reader.window == 0) & (top == 0))
        with m.Elif(less):
            m.d.sync += no_pairs.eq(pairs_left == 1)

        # States.
        row = writer.row
        last_row = row == config.lanes - 1
        with m.Switch(state):
            with m.Case(_State.LOOKUP):
                present = field(1)
                with m.If(got):
                    m.d.sync += state.eq(_State.TABLES)
                    with m.If(present):
                        if config.lookup:
                            m.d.sync += state.eq(_State.ENTRIES)
                        else:
                            fail(ErrorCode.CODE_UNUSED)

            with m.Case(_State.TABLES):
                m.d.comb += [
                    tables.active.eq(1),
                    reads.eq(tables.reads),
                    wanted.eq(tables.wanted),
                    begins.eq(tables.begins),
                ]
                with m.If(tables.done):
                    m.d.sync += state.eq(_State.GROUPS)
                with m.If(tables.bad_alphabet | tables.malformed):
                    fail(ErrorCode.CODE_UNUSED)

            with m.Case(_State.GROUPS):
                m.d.comb += writer.groups.eq(field(16))
                with m.If(got):
                    m.d.comb += writer.start.eq(1)
                    m.d.sync += state.eq(_State.PAIRS_TOP)

            with m.Case(_State.PAIRS_TOP):
                m.d.comb += top_comes.eq(1)
                field(4)
                with m.If(got):
                    m.d.sync += state.eq(_State.PAIRS)

            with m.Case(_State.PAIRS):
                m.d.comb += rest_comes.eq(1)
                field(16, begin=0)
                with m.If(got):
                    m.d.sync += state.eq(_State.DECODE)

            with m.Case(_State.DECODE):
                m.d.comb += decoder.look.eq(~no_pairs)
                with m.If(no_pairs):
                    m.d.sync += state.eq(_State.FINISH)
                with m.If(decoder.unused):
                    fail(ErrorCode.CODE_UNUSED)
                with m.Elif(reader.overrun):
                    fail(ErrorCode.STREAM_SHORT)

            with m.Case(_State.FINISH), m.If(decoder.empty & writer.idle):
                m.d.comb += writer.finish.eq(1)
                with m.If(writer.done):
                    m.d.sync += [row.eq(row + 1), state.eq(_State.GROUPS)]
                    with m.If(last_row):
                        m.d.sync += state.eq(_State.IDLE)

            with m.Case(_State.FAIL), m.If(decoder.empty & writer.idle):
                m.d.sync += [self.error.eq(fault), state.eq(_State.IDLE)]
        self._load_constants(m, state, field, got)
        if config.lookup:
            self._load_lookup(m, state, field, got)

        with m.If(reader.lacking & reads):
            fail(ErrorCode.STREAM_SHORT)
        with m.If(self.busy & writer.past_end):
            m.d.sync += [
                self.error.eq(ErrorCode.RUN_PAST_END),
                self.position.eq(writer.at),
                state.eq(_State.IDLE),
            ]
        with m.If(starting | self.reset_taps):
            m.d.sync += self.error.eq(ErrorCode.NONE)
        with m.If(starting):
            m.d.sync += [row.eq(0), state.eq(_State.SHARED)]
        ending = (state == _State.FAIL) | ((state == _State.FINISH) & last_row)
        m.d.comb += self.words_wanted.eq(self.busy & ~ending)
        return m

    def _connect_parts(
        self,
        m: Module,
        reader: ChunkReader,
        tables: CodeTables,
        decoder: CompactDecoder,
        writer: CompactWriter,
    ) -> None:
        """Connect what needs no logic in between."""
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
            decoder.flush.eq(~self.busy),
            writer.load.eq(self.load),
            writer.reset_taps.eq(self.reset_taps),
            writer.stop.eq(~self.busy),
            self.tap.eq(writer.tap),
            self.pointer.eq(writer.pointer),
        ]

    def _load_constants(self, m: Module, state: Signal, field: Field, got: Signal) -> None:
        """Read bias, scale and shift of one channel after another, and the lookup table."""
        constant = self.constant
        part = Signal(2)  # of a bias or a scale, the highest one first
        channel = Signal(12)
        shared, known = Signal(), Signal()  # scale and shift are to be, are those of all channels
        whole = Signal()  # the channel's last field

        last = Signal()  # part

        def read_parts(target: Signal, then: _State) -> None:
            """Read a number of several chunks, the first of which may have fewer bits."""
            parts = -(-len(target) // CHUNK)
            with m.Switch(part):
                for k in range(parts):
                    low = (parts - 1 - k) * CHUNK
                    piece = target[low : low + CHUNK]
                    with m.Case(k):
                        bits = field(len(piece), begin=k == 0)
                        with m.If(got):
                            m.d.sync += piece.eq(bits)
                            if k == parts - 1:
                                m.d.sync += [part.eq(0), state.eq(then)]
                                m.d.comb += last.eq(1)
                            else:
                                m.d.sync += part.eq(k + 1)

        m.d.sync += constant.valid.eq(whole)
        with m.Switch(state):
            with m.Case(_State.SHARED):
                m.d.sync += [shared.eq(field(1)), known.eq(0)]
                with m.If(got):
                    m.d.sync += state.eq(_State.CHANNEL)

            with m.Case(_State.CHANNEL):
                m.d.sync += state.eq(Mux(channel == self.lane.channels, _State.LOOKUP, _State.BIAS))

            with m.Case(_State.BIAS):
                read_parts(constant.bias, _State.SCALE)
                m.d.comb += whole.eq(last & known)

            with m.Case(_State.SCALE):
                read_parts(constant.scale, _State.SHIFT)

            with m.Case(_State.SHIFT):
                shift = field(6)
                with m.If(got):
                    m.d.sync += [constant.shift.eq(shift), known.eq(shared)]
                    m.d.comb += whole.eq(1)

        with m.If(whole):
            m.d.sync += [
                constant.address.eq(self.load.channel_base + channel),
                channel.eq(channel + 1),
                state.eq(_State.CHANNEL),
            ]
        with m.If(~self.busy):
            m.d.sync += [channel.eq(0), part.eq(0)]

    def _load_lookup(self, m: Module, state: Signal, field: Field, got: Signal) -> None:
        """Read the lookup table and write it, an entry after another."""
        lookup, bits = self.lookup, self.config.activation_bits
        entry = Signal(bits)
        m.d.sync += lookup.valid.eq(0)
        with m.If(state == _State.ENTRIES):
            value = field(bits, begin=entry == 0)
            with m.If(got):
                m.d.sync += [
                    lookup.valid.eq(1),
                    lookup.address.eq(entry),
                    lookup.value.eq(value),
                    entry.eq(entry + 1),
                ]
                with m.If(entry.all()):
                    m.d.sync += state.eq(_State.TABLES)
        with m.If(~self.busy):
            m.d.sync += entry.eq(0)
