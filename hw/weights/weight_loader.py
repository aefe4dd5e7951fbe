"""Loads one column: reads its weight stream and writes constants, taps and start pointers.

The stream is defined in docs/interfaces.md and :mod:`thresher.golden.codes.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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


Field = Callable[[int], AbstractContextManager[Value]]


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
        config = self.config
        if config.pair_cycles > 1:
            m.submodules.compact = compact = CompactLoader(config)
            connect(m, flipped(self), compact)
            return m

        m.submodules.reader = reader = BitReader(config)
        m.submodules.tables = tables = TableLoader(config)
        m.submodules.decoder = decoder = PairDecoder(config)
        m.submodules.writer = writer = TapWriter(config)
        state = Signal(_State)
        starting = Signal()
        m.d.comb += [
            self.busy.eq(state != _State.IDLE),
            starting.eq(self.start & ~self.busy),
            reader.clear.eq(starting),
            reader.i.valid.eq(self.words.valid & self.busy),
            reader.i.payload.eq(self.words.payload),
            self.words.ready.eq(reader.i.ready | ~self.busy),
        ]
        self._connect_parts(m, reader, tables, decoder, writer)

        # Fields: a state names the bits that it wants, and goes on when it has got them.
        wanted = Signal(6)
        got = Signal()
        dry = Signal()
        m.d.comb += [
            got.eq((wanted != 0) & (wanted <= reader.available)),
            tables.got.eq(got & tables.active),
            reader.consume.eq(Mux(decoder.take, decoder.bits, Mux(got, wanted, 0))),
            dry.eq(self.exhausted & ~self.words.valid & reader.drained),
        ]

        @contextmanager
        def field(bits: int) -> Iterator[Value]:
            m.d.comb += wanted.eq(bits)
            with m.If(got):
                yield reader.window[-bits:]

        # Faults. The pairs before a fault are still written, unless one of them is a fault itself.
        fault = Signal(ErrorCode)

        def fail(code: ErrorCode, at: Value) -> None:
            m.d.sync += [fault.eq(code), self.position.eq(at), state.eq(_State.FAIL)]

        with m.If((wanted != 0) & ~got & dry):
            bias_top = Mux(state == _State.BIAS, max(0, config.accumulator_bits - 32), 0)
            fail(ErrorCode.STREAM_SHORT, reader.position - bias_top)

        self._load_constants(m, state, field)
        tables_at = Signal(32)  # where the lookup table, and then the other tables begin
        if config.lookup:
            self._load_lookup(m, state, field)

        # Elements. Decoding does not wait for the tap writer, but is one element ahead at most.
        pairs_left = Signal(20)
        row = writer.element.row
        row_read, next_row = Signal.like(row), Signal.like(row)
        groups = Signal(16)
        pairs_at = Signal(32)
        ahead = Signal()  # the writer has not begun with the element that is read
        writing = Signal()
        m.d.comb += writer.start.eq(ahead & (~writing | writer.done))
        with m.If(writer.done):
            m.d.sync += writing.eq(0)
        with m.If(writer.start):
            m.d.sync += [ahead.eq(0), writing.eq(1), writer.element.groups.eq(groups)]
            m.d.sync += [row.eq(next_row), next_row.eq(next_row + 1)]

        # States.
        with m.Switch(state):
            with m.Case(_State.LOOKUP), field(1) as present:
                m.d.sync += [tables_at.eq(reader.position + 1), state.eq(_State.TABLES)]
                with m.If(present):
                    if config.lookup:
                        m.d.sync += state.eq(_State.ENTRIES)
                    else:
                        fail(ErrorCode.CODE_UNUSED, reader.position)

            with m.Case(_State.ENTRIES), m.If(~got & dry):  # the table as a whole is cut off
                fail(ErrorCode.STREAM_SHORT, tables_at)

            with m.Case(_State.TABLES):
                m.d.comb += [tables.active.eq(1), wanted.eq(tables.wanted)]
                with m.If(tables.done):
                    m.d.sync += state.eq(_State.GROUPS)
                with m.If(tables.section_at == 0):
                    m.d.sync += tables_at.eq(reader.position)
                with m.Elif(~got & dry):
                    fail(ErrorCode.STREAM_SHORT, tables_at + tables.section_at)
                with m.If(tables.bad_alphabet):
                    fail(ErrorCode.CODE_UNUSED, reader.position)

            with m.Case(_State.GROUPS), m.If(~ahead), field(16) as number:
                m.d.sync += [groups.eq(number), state.eq(_State.PAIRS)]

            with m.Case(_State.PAIRS), field(20) as pairs:
                m.d.sync += [pairs_left.eq(pairs), pairs_at.eq(reader.position + 20), ahead.eq(1)]
                m.d.sync += state.eq(Mux(row_read == 0, _State.BUILD, _State.DECODE))

            with m.Case(_State.BUILD), m.If(decoder.ready):
                m.d.sync += state.eq(_State.DECODE)
                with m.If(decoder.runs_malformed | decoder.indices_malformed):
                    m.d.sync += state.eq(_State.FAIL)

            with m.Case(_State.DECODE):
                m.d.comb += decoder.look.eq(pairs_left != 0)
                with m.If(pairs_left == 0):
                    m.d.comb += decoder.end.eq(decoder.room)
                    with m.If(decoder.room):
                        m.d.sync += [row_read.eq(row_read + 1), state.eq(_State.GROUPS)]
                        with m.If(row_read == config.lanes - 1):
                            m.d.sync += state.eq(_State.FINISH)
                with m.Elif(decoder.fits):
                    m.d.comb += decoder.take.eq(decoder.room)
                    m.d.sync += pairs_left.eq(pairs_left - decoder.room)
                with m.Elif(decoder.unused):
                    fail(ErrorCode.CODE_UNUSED, reader.position + decoder.fault_at)
                with m.Elif(dry):
                    fail(ErrorCode.STREAM_SHORT, reader.position + decoder.fault_at)

            with m.Case(_State.FINISH), m.If(~writing & ~ahead):
                m.d.sync += state.eq(_State.IDLE)

            with m.Case(_State.FAIL), m.If(decoder.empty & ~decoder.building):
                m.d.sync += [self.error.eq(fault), state.eq(_State.IDLE)]
                with m.If(decoder.runs_malformed | decoder.indices_malformed):
                    m.d.sync += [
                        self.error.eq(ErrorCode.CODE_UNUSED),
                        self.position.eq(
                            tables_at
                            + Mux(decoder.runs_malformed, RUN_LENGTHS_AT, tables.index_lengths_at)
                        ),
                    ]

        # A pair past the end is found at the writer; where it began is counted there.
        written_at = Signal(32)
        with m.If(writer.start):
            m.d.sync += written_at.eq(pairs_at)
        with m.Elif(writer.i.valid & writer.i.ready):
            m.d.sync += written_at.eq(written_at + writer.i.payload.bits)
        with m.If(self.busy & writer.past_end):
            m.d.sync += [
                self.error.eq(ErrorCode.RUN_PAST_END),
                self.position.eq(written_at),
                state.eq(_State.IDLE),
            ]

        with m.If(starting | self.reset_taps):
            m.d.sync += self.error.eq(ErrorCode.NONE)
        with m.If(starting):
            m.d.sync += [each.eq(0) for each in (row_read, next_row, ahead, writing)]
            m.d.sync += state.eq(_State.SHARED)
        ending = (state == _State.FAIL) | (state == _State.FINISH)
        m.d.comb += self.words_wanted.eq(self.busy & ~ending)

        return m

    def _connect_parts(
        self,
        m: Module,
        reader: BitReader,
        tables: TableLoader,
        decoder: PairDecoder,
        writer: TapWriter,
    ) -> None:
        """Connect what needs no logic in between."""
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
            decoder.flush.eq(self.start & ~self.busy),
            writer.load.eq(self.load),
            writer.reset_taps.eq(self.reset_taps),
            writer.stop.eq(~self.busy),
            self.tap.eq(writer.tap),
            self.pointer.eq(writer.pointer),
        ]

    def _load_constants(self, m: Module, state: Signal, field: Field) -> None:
        """Read bias, scale and shift of one channel after another and write them together."""
        config, constant = self.config, self.constant
        top = Signal(max(0, config.accumulator_bits - 32))
        channel = Signal(16)
        shared = Signal()
        whole = Signal()  # the channel's last field

        m.d.sync += constant.valid.eq(whole)
        with m.Switch(state):
            with m.Case(_State.SHARED), field(1) as bit:
                m.d.sync += [shared.eq(bit), state.eq(_first_field(config))]
                with m.If(self.lane.channels == 0):
                    m.d.sync += state.eq(_State.LOOKUP)

            with m.Case(_State.BIAS_TOP), field(len(top)) as bits:
                m.d.sync += [top.eq(bits), state.eq(_State.BIAS)]

            with m.Case(_State.BIAS), field(config.accumulator_bits - len(top)) as bits:
                m.d.sync += [constant.bias.eq(Cat(bits, top)), state.eq(_State.SCALE)]
                m.d.comb += whole.eq(shared & (channel != 0))

            with m.Case(_State.SCALE), field(config.scale_bits) as bits:
                m.d.sync += [constant.scale.eq(bits), state.eq(_State.SHIFT)]

            with m.Case(_State.SHIFT), field(6) as bits:
                m.d.sync += constant.shift.eq(bits)
                m.d.comb += whole.eq(1)

        with m.If(whole):
            m.d.sync += [
                constant.address.eq(self.load.channel_base + channel),
                channel.eq(channel + 1),
                state.eq(_first_field(config)),
            ]
            with m.If(channel == self.lane.channels - 1):
                m.d.sync += state.eq(_State.LOOKUP)
        with m.If(~self.busy):
            m.d.sync += channel.eq(0)

    def _load_lookup(self, m: Module, state: Signal, field: Field) -> None:
        """Read the lookup table and write it, an entry after another."""
        lookup = self.lookup
        entry = Signal(self.config.activation_bits)
        m.d.sync += lookup.valid.eq(0)
        with m.If(state == _State.ENTRIES), field(self.config.activation_bits) as value:
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
