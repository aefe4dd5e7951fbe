"""Reads the tables of a weight stream: code lengths of runs and indices, and the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.weights.huffman_table import length_layout
from thresher.hw.weights.pair_decoder import codebook_write_layout

__all__ = ["RUN_LENGTHS_AT", "TableLoader", "is_bad_alphabet"]

RUN_LENGTHS_AT = 10


def is_bad_alphabet(config: Config, field: Value, index: Value) -> Value:
    """Whether an alphabet's field, plain 1 and last symbol 8, is none of the runs or the index."""
    bits = config.weight_run_bits
    plain_index = Const(int(config.weight_code_bits > config.code_bits)) & field[8]
    return Mux(index, plain_index, field[bits:].any())


class _State(enum.Enum):
    """The field that is read."""

    TABLES = 0  # whether there are any
    RUN_SYMBOLS = 1
    RUN_LENGTHS = 2
    INDEX_SYMBOLS = 3
    INDEX_LENGTHS = 4
    CODEBOOK = 5


class TableLoader(wiring.Component):
    """Take the fields of the tables, one a cycle, from a bit reader to a pair decoder.

    Timing contract
    ---------------
    Latency
        Each field is passed on in the cycle in which it is read, a length in the next.
    Throughput
        A field a cycle.
    Combinational paths
        ``window`` and ``got`` to all outputs but ``wanted``, ``runs`` and ``indices``.
    Reset
        As with ``active`` low: the next field is the first one.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    active : ``In(1)``
        Read. When low, begin anew.
    wanted : ``Out(6)``
        Bits of the next field.
    window : ``In(32)``
        The next bits of the stream.
    got : ``In(1)``
        The field is there and is taken in this cycle.
    clear : ``Out(1)``
        New tables follow, the decoder's are to be forgotten.
    plain : ``Out(1)``
        Weights are sent as they are.
    runs, indices : ``Out(stream.Signature(length_layout()))``
        Code lengths. Always accepted: ``ready`` is not looked at.
    codebook : ``Out(codebook_write_layout(config))``
        Weight codes by index.
    bad_alphabet : ``Out(1)``
        There would be more symbols than there can be, or what cannot be plain.
    done : ``Out(1)``
        This field is the last one.
    section_at : ``Out(12)``
        Where the lengths or entries to which the field belongs begin, in bits from the first field.
    index_lengths_at : ``Out(12)``
        Where the index lengths began, of the tables read last.
    """

    active: Signal
    wanted: Signal
    window: Signal
    got: Signal
    clear: Signal
    plain: Signal
    runs: stream.Interface
    indices: stream.Interface
    codebook: data.View
    bad_alphabet: Signal
    done: Signal
    section_at: Signal
    index_lengths_at: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        lengths = stream.Signature(length_layout())
        super().__init__(
            {
                "active": In(1),
                "wanted": Out(6),
                "window": In(32),
                "got": In(1),
                "clear": Out(1),
                "plain": Out(1),
                "runs": Out(lengths),
                "indices": Out(lengths),
                "codebook": Out(codebook_write_layout(config)),
                "bad_alphabet": Out(1),
                "done": Out(1),
                "section_at": Out(12),
                "index_lengths_at": Out(12),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        state = Signal(_State)
        symbol = Signal(8)
        last = Signal(8)
        is_last = symbol == last
        indices_at = self.index_lengths_at

        @contextmanager
        def field(bits: int, section_at: ValueLike) -> Iterator[Value]:
            m.d.comb += [self.wanted.eq(bits), self.section_at.eq(section_at)]
            with m.If(self.got):
                yield self.window[-bits:]

        # Lengths are passed on a cycle later, so that none is looked up while it is being read.
        m.d.sync += [self.runs.valid.eq(0), self.indices.valid.eq(0)]
        with m.Switch(state):
            with m.Case(_State.TABLES), field(1, 0) as present:
                m.d.comb += [self.clear.eq(present), self.done.eq(~present)]
                with m.If(present):
                    m.d.sync += state.eq(_State.RUN_SYMBOLS)

            with m.Case(_State.RUN_SYMBOLS), field(9, 1) as alphabet:
                m.d.comb += self.bad_alphabet.eq(is_bad_alphabet(config, alphabet, Const(0)))
                m.d.sync += [
                    last.eq(alphabet[:8]),
                    indices_at.eq((alphabet[:8] << 2) + RUN_LENGTHS_AT + 4 + 9),
                    state.eq(_State.RUN_LENGTHS),
                ]

            with m.Case(_State.RUN_LENGTHS), field(4, RUN_LENGTHS_AT) as length:
                m.d.sync += [
                    self.runs.valid.eq(1),
                    self.runs.payload.length.eq(length),
                    self.runs.payload.last.eq(is_last),
                    symbol.eq(symbol + 1),
                ]
                with m.If(is_last):
                    m.d.sync += [symbol.eq(0), state.eq(_State.INDEX_SYMBOLS)]

            with m.Case(_State.INDEX_SYMBOLS), field(9, indices_at - 9) as alphabet:
                m.d.comb += [
                    self.bad_alphabet.eq(is_bad_alphabet(config, alphabet, Const(1))),
                    self.plain.eq(alphabet[8]),
                    self.done.eq(alphabet[8]),
                ]
                m.d.sync += [last.eq(alphabet[:8]), state.eq(_State.INDEX_LENGTHS)]

            with m.Case(_State.INDEX_LENGTHS), field(4, indices_at) as length:
                m.d.sync += [
                    self.indices.valid.eq(1),
                    self.indices.payload.length.eq(length),
                    self.indices.payload.last.eq(is_last),
                    symbol.eq(symbol + 1),
                ]
                with m.If(is_last):
                    m.d.sync += [symbol.eq(0), state.eq(_State.CODEBOOK)]

            with (
                m.Case(_State.CODEBOOK),
                field(config.weight_code_bits, indices_at + 4 + (last << 2)) as code,
            ):
                m.d.comb += [
                    self.codebook.valid.eq(1),
                    self.codebook.index.eq(symbol),
                    self.codebook.code.eq(code),
                    self.done.eq(is_last),
                ]
                m.d.sync += symbol.eq(symbol + 1)

        with m.If(~self.active | self.done):
            m.d.sync += [state.eq(_State.TABLES), symbol.eq(0)]

        return m
