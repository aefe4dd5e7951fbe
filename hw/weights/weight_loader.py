"""Loads one column: reads its weight stream and writes constants, taps and start pointers.

The stream is defined in docs/interfaces.md and :mod:`thresher.golden.codes.weights`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import enum
from amaranth.lib.wiring import connect, flipped

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.hw.weights.bit_reader import BitReader
from thresher.hw.weights.compact_loader import CompactLoader
from thresher.hw.weights.loader_ports import LoaderPorts
from thresher.hw.weights.pair_decoder import PairDecoder
from thresher.hw.weights.table_loader import RUN_LENGTHS_AT, TableLoader
from thresher.hw.weights.tap_writer import TapWriter

__all__ = ["WeightLoader"]


class _State(enum.Enum):
    """The field that is read, or what is waited for."""

    IDLE = 0
    SHARED = 1  # whether scale and shift of the first channel are those of all
    BIAS_TOP = 2  # what a bias has above 32 bits
    BIAS = 3
    SCALE = 4
    SHIFT = 5
    LOOKUP = 6  # whether there is a lookup table
    ENTRIES = 7  # of the lookup table
    TABLES = 8  # of the codes, with the codebook
    GROUPS = 9
    PAIRS = 10
    BUILD = 11  # until the tables are ready
    DECODE = 12  # pairs
    FINISH = 13  # until the last element's taps and pointers are written
    FAIL = 14  # until the pairs before the fault are written


def _first_field(config: Config) -> _State:
    """Return the state of the first field of a channel's constants."""
    return _State.BIAS_TOP if config.accumulator_bits > 32 else _State.BIAS


class WeightLoader(LoaderPorts):
    """Decode the weight stream of a column into its processing elements' stores.

    Timing contract
    ---------------
    Latency
        ``busy`` is high from the cycle after ``start`` until the last write strobe has been out.
    Throughput
        A field (constant, table entry, code length, count) a cycle and a pair a cycle, plus a cycle
        for each group entered beyond the first one of a pair and each pointer after an element's
        last pair, or three cycles an element if that is more. With ``config.pair_cycles`` 6 as
        :class:`~thresher.hw.weights.compact_loader.CompactLoader`, which is then what is built.
        Decoding waits for the tables: they are ready ``K + code_bits + 2`` cycles after the last of
        ``K`` index lengths, while ``K`` codebook entries are read.
    Combinational paths
        None to ``words`` or the writes. A start with a word on offer discards that word.
    Reset
        As ``reset_taps``, and idle.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    Those of :class:`~thresher.hw.weights.loader_ports.LoaderPorts`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.config.pair_cycles > 1:
            m.submodules.compact = compact = CompactLoader(self.config)
            connect(m, flipped(self), compact)
            return m
        loading = _Loading(m, self)
        loading.load_constants()
        if self.config.lookup:
            loading.load_lookup()
        with m.Switch(loading.state):
            loading.load_tables()
            loading.begin_element()
            loading.decode_pairs()
            loading.end()
        loading.find_past_end()
        loading.start()
        return m


class _Loading:
    """The parts of a loader, the field that is read, and the element that is decoded.

    A state names the bits that it wants, and goes on when it has got them.
    """

    def __init__(self, m: Module, ports: WeightLoader) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        m.submodules.reader = self.reader = BitReader(self.config)
        m.submodules.tables = self.tables = TableLoader(self.config)
        m.submodules.decoder = self.decoder = PairDecoder(self.config)
        m.submodules.writer = self.writer = TapWriter(self.config)
        self.state = Signal(_State)
        self.starting = Signal()
        self._connect_parts()
        self._read_words()
        self._want_fields()
        self._count_elements()

    def _connect_parts(self) -> None:
        """Connect what needs no logic in between."""
        m, ports = self.m, self.ports
        reader, tables, decoder, writer = self.reader, self.tables, self.decoder, self.writer
        connect(m, tables.runs, decoder.runs)
        connect(m, tables.indices, decoder.indices)
        connect(m, decoder.o, writer.i)
        m.d.comb += [
            tables.window.eq(reader.window),
            decoder.clear.eq(tables.clear),
            decoder.codebook.eq(tables.codebook),
            decoder.plain.eq(tables.plain),
            decoder.window.eq(reader.window),
            decoder.available.eq(reader.available),
            decoder.flush.eq(ports.start & ~ports.busy),
            writer.load.eq(ports.load),
            writer.reset_taps.eq(ports.reset_taps),
            writer.stop.eq(~ports.busy),
            ports.tap.eq(writer.tap),
            ports.pointer.eq(writer.pointer),
        ]

    def _read_words(self) -> None:
        """Read words while busy; else discard them."""
        ports, reader, state = self.ports, self.reader, self.state
        ending = (state == _State.FAIL) | (state == _State.FINISH)
        self.m.d.comb += [
            ports.busy.eq(state != _State.IDLE),
            self.starting.eq(ports.start & ~ports.busy),
            reader.clear.eq(self.starting),
            reader.i.valid.eq(ports.words.valid & ports.busy),
            reader.i.payload.eq(ports.words.payload),
            ports.words.ready.eq(reader.i.ready | ~ports.busy),
            ports.words_wanted.eq(ports.busy & ~ending),
        ]

    def _want_fields(self) -> None:
        """Take the bits that a state wants; it is a fault if the stream ends before them."""
        m, ports, reader, decoder = self.m, self.ports, self.reader, self.decoder
        self.wanted = Signal(6)
        self.got = Signal()
        self.dry = Signal()
        self.fault = Signal(ErrorCode)
        m.d.comb += [
            self.got.eq((self.wanted != 0) & (self.wanted <= reader.available)),
            self.tables.got.eq(self.got & self.tables.active),
            reader.consume.eq(Mux(decoder.take, decoder.bits, Mux(self.got, self.wanted, 0))),
            self.dry.eq(ports.exhausted & ~ports.words.valid & reader.drained),
        ]
        with m.If((self.wanted != 0) & ~self.got & self.dry):
            in_bias = self.state == _State.BIAS
            bias_top = Mux(in_bias, max(0, self.config.accumulator_bits - 32), 0)
            self._fail(ErrorCode.STREAM_SHORT, reader.position - bias_top)

    @contextmanager
    def _field(self, bits: int) -> Iterator[Value]:
        """Want so many bits; what is in the context happens with them."""
        self.m.d.comb += self.wanted.eq(bits)
        with self.m.If(self.got):
            yield self.reader.window[-bits:]

    def _fail(self, code: ErrorCode, at: Value) -> None:
        """End at a fault: the pairs before it are still written, unless one is a fault itself."""
        self.m.d.sync += [
            self.fault.eq(code),
            self.ports.position.eq(at),
            self.state.eq(_State.FAIL),
        ]

    def _count_elements(self) -> None:
        """Count elements. Decoding does not wait for the writer, but is one ahead at most."""
        m, writer = self.m, self.writer
        row = writer.element.row
        self.tables_at = Signal(32)  # where the lookup table, and then the other tables begin
        self.pairs_left = Signal(20)
        self.pairs_at = Signal(32)
        self.groups = Signal(16)
        self.row_read, self.next_row = Signal.like(row), Signal.like(row)
        self.ahead = Signal()  # the writer has not begun with the element that is read
        self.writing = Signal()
        m.d.comb += writer.start.eq(self.ahead & (~self.writing | writer.done))
        with m.If(writer.done):
            m.d.sync += self.writing.eq(0)
        with m.If(writer.start):
            m.d.sync += [
                self.ahead.eq(0),
                self.writing.eq(1),
                writer.element.groups.eq(self.groups),
                row.eq(self.next_row),
                self.next_row.eq(self.next_row + 1),
            ]

    def load_constants(self) -> None:
        """Read bias, scale and shift of one channel after another and write them together."""
        m, config, state = self.m, self.config, self.state
        lane, constant = self.ports.lane, self.ports.constant
        top = Signal(max(0, config.accumulator_bits - 32))
        channel = Signal(16)
        shared = Signal()
        whole = Signal()  # the channel's last field

        m.d.sync += constant.valid.eq(whole)
        with m.Switch(state):
            with m.Case(_State.SHARED), self._field(1) as bit:
                m.d.sync += [shared.eq(bit), state.eq(_first_field(config))]
                with m.If(lane.channels == 0):
                    m.d.sync += state.eq(_State.LOOKUP)

            with m.Case(_State.BIAS_TOP), self._field(len(top)) as bits:
                m.d.sync += [top.eq(bits), state.eq(_State.BIAS)]

            with m.Case(_State.BIAS), self._field(config.accumulator_bits - len(top)) as bits:
                m.d.sync += [constant.bias.eq(Cat(bits, top)), state.eq(_State.SCALE)]
                m.d.comb += whole.eq(shared & (channel != 0))

            with m.Case(_State.SCALE), self._field(config.scale_bits) as bits:
                m.d.sync += [constant.scale.eq(bits), state.eq(_State.SHIFT)]

            with m.Case(_State.SHIFT), self._field(6) as bits:
                m.d.sync += constant.shift.eq(bits)
                m.d.comb += whole.eq(1)

        with m.If(whole):
            m.d.sync += [
                constant.address.eq(self.ports.load.channel_base + channel),
                channel.eq(channel + 1),
                state.eq(_first_field(config)),
            ]
            with m.If(channel == lane.channels - 1):
                m.d.sync += state.eq(_State.LOOKUP)
        with m.If(~self.ports.busy):
            m.d.sync += channel.eq(0)

    def load_lookup(self) -> None:
        """Read the lookup table and write it, an entry after another."""
        m, lookup = self.m, self.ports.lookup
        entry = Signal(self.config.activation_bits)
        m.d.sync += lookup.valid.eq(0)
        with m.If(self.state == _State.ENTRIES), self._field(len(entry)) as value:
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

    def load_tables(self) -> None:
        """States: whether there is a lookup table; that it is not cut off; the codes' tables."""
        m, state, reader, tables = self.m, self.state, self.reader, self.tables
        with m.Case(_State.LOOKUP), self._field(1) as present:
            m.d.sync += [self.tables_at.eq(reader.position + 1), state.eq(_State.TABLES)]
            with m.If(present):
                if self.config.lookup:
                    m.d.sync += state.eq(_State.ENTRIES)
                else:
                    self._fail(ErrorCode.CODE_UNUSED, reader.position)

        with m.Case(_State.ENTRIES), m.If(~self.got & self.dry):
            self._fail(ErrorCode.STREAM_SHORT, self.tables_at)  # the table as a whole

        with m.Case(_State.TABLES):
            m.d.comb += [tables.active.eq(1), self.wanted.eq(tables.wanted)]
            with m.If(tables.done):
                m.d.sync += state.eq(_State.GROUPS)
            with m.If(tables.section_at == 0):
                m.d.sync += self.tables_at.eq(reader.position)
            with m.Elif(~self.got & self.dry):
                self._fail(ErrorCode.STREAM_SHORT, self.tables_at + tables.section_at)
            with m.If(tables.bad_alphabet):
                self._fail(ErrorCode.CODE_UNUSED, reader.position)

    def begin_element(self) -> None:
        """States: an element's groups and pairs; before the first one the tables must be ready."""
        m, state, decoder = self.m, self.state, self.decoder
        with m.Case(_State.GROUPS), m.If(~self.ahead), self._field(16) as number:
            m.d.sync += [self.groups.eq(number), state.eq(_State.PAIRS)]

        with m.Case(_State.PAIRS), self._field(20) as pairs:
            m.d.sync += [
                self.pairs_left.eq(pairs),
                self.pairs_at.eq(self.reader.position + 20),
                self.ahead.eq(1),
                state.eq(Mux(self.row_read == 0, _State.BUILD, _State.DECODE)),
            ]

        with m.Case(_State.BUILD), m.If(decoder.ready):
            m.d.sync += state.eq(_State.DECODE)
            with m.If(decoder.runs_malformed | decoder.indices_malformed):
                m.d.sync += state.eq(_State.FAIL)

    def decode_pairs(self) -> None:
        """State: an element's pairs."""
        m, state, decoder, pairs_left = self.m, self.state, self.decoder, self.pairs_left
        fault_at = self.reader.position + decoder.fault_at
        with m.Case(_State.DECODE):
            m.d.comb += decoder.look.eq(pairs_left != 0)
            with m.If(pairs_left == 0):
                m.d.comb += decoder.end.eq(decoder.room)
                with m.If(decoder.room):
                    m.d.sync += [self.row_read.eq(self.row_read + 1), state.eq(_State.GROUPS)]
                    with m.If(self.row_read == self.config.lanes - 1):
                        m.d.sync += state.eq(_State.FINISH)
            with m.Elif(decoder.fits):
                m.d.comb += decoder.take.eq(decoder.room)
                m.d.sync += pairs_left.eq(pairs_left - decoder.room)
            with m.Elif(decoder.unused):
                self._fail(ErrorCode.CODE_UNUSED, fault_at)
            with m.Elif(self.dry):
                self._fail(ErrorCode.STREAM_SHORT, fault_at)

    def end(self) -> None:
        """States: all is read, or there was a fault; malformed tables are one, found late."""
        m, ports, decoder = self.m, self.ports, self.decoder
        with m.Case(_State.FINISH), m.If(~self.writing & ~self.ahead):
            m.d.sync += self.state.eq(_State.IDLE)

        with m.Case(_State.FAIL), m.If(decoder.empty & ~decoder.building):
            m.d.sync += [ports.error.eq(self.fault), self.state.eq(_State.IDLE)]
            with m.If(decoder.runs_malformed | decoder.indices_malformed):
                lengths_at = Mux(
                    decoder.runs_malformed, RUN_LENGTHS_AT, self.tables.index_lengths_at
                )
                m.d.sync += [
                    ports.error.eq(ErrorCode.CODE_UNUSED),
                    ports.position.eq(self.tables_at + lengths_at),
                ]

    def find_past_end(self) -> None:
        """End at a pair past the end: it is found at the writer, where its position is counted."""
        m, ports, writer = self.m, self.ports, self.writer
        written_at = Signal(32)
        with m.If(writer.start):
            m.d.sync += written_at.eq(self.pairs_at)
        with m.Elif(writer.i.valid & writer.i.ready):
            m.d.sync += written_at.eq(written_at + writer.i.payload.bits)
        with m.If(ports.busy & writer.past_end):
            m.d.sync += [
                ports.error.eq(ErrorCode.RUN_PAST_END),
                ports.position.eq(written_at),
                self.state.eq(_State.IDLE),
            ]

    def start(self) -> None:
        """Begin a load."""
        m = self.m
        with m.If(self.starting | self.ports.reset_taps):
            m.d.sync += self.ports.error.eq(ErrorCode.NONE)
        with m.If(self.starting):
            m.d.sync += self.state.eq(_State.SHARED)
            m.d.sync += [
                each.eq(0) for each in (self.row_read, self.next_row, self.ahead, self.writing)
            ]
