"""Row packer: run-length encoder and row writer in one, a value in several cycles.

The code is defined in :mod:`thresher.golden.codes.rlc`.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib.memory import Memory

from thresher.golden.config import Config
from thresher.hw.activations.writer_ports import WriterPorts
from thresher.hw.layouts import value_layout

__all__ = ["RowPacker"]

_WORD, _HEADER, _INPUT, _NULL = range(4)  # places of the store of addresses


class RowPacker(WriterPorts):
    """What an :class:`RLCEncoder` and a :class:`RowWriter` are together, in less logic.

    A value stays at the input while the pairs of its run are put into the word, or while the word
    is written. The header of a row, a number of words, takes the place of the word when all of
    them are written. One adder does all addresses: of the next word, the row's header, the input.

    Timing contract
    ---------------
    Latency
        The ``last`` value of a row accepted in cycle ``t`` has its word on offer in ``t + 1``.
    Throughput
        A zero takes one cycle, another value one for each of its pairs; with ``registered_links``
        two each. A word takes a cycle and as long as the memory lets it wait, a row four more.
    Combinational paths
        ``i.valid``, ``i.value`` and ``i.last`` to ``i.ready``, without ``registered_links``; none
        to ``request``.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine. A row has at most ``config.row_values`` values.

    Members
    -------
    Those of :class:`~thresher.hw.activations.writer_ports.WriterPorts`; ``i`` are values of
    ``value_layout(config)``, position-major, channels innermost, ``last`` on the final one of a
    row; ``out_address`` is steady while busy.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, value_layout(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        packing = _Packing(m, self)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))

            with m.State("IDLE"), m.If(self.start & (self.channels != 0)):
                m.next = "INPUT"

            packing.begin_input()
            packing.begin_row()
            packing.take_values()
            packing.write_word()
            packing.write_header()
        packing.count_rows()
        packing.count_words()
        packing.count_zeros()
        packing.fill_word()
        return m


class _Packing:
    """The word in hand, the zeros before the value at the input, and where word and row are."""

    def __init__(self, m: Module, ports: RowPacker) -> None:
        self.m, self.ports, self.fmt = m, ports, ports.config.rlc
        self._hold_word()
        self._know_value()
        self._hold_addresses()
        self._hold_place()

    def _hold_word(self) -> None:
        """Have registers for the word that is being filled, or a header."""
        fmt, most = self.fmt, self.ports.config.row_values
        self.pairs = Signal(fmt.pairs * fmt.pair_bits)
        self.slot = Signal(range(fmt.pairs + 1))
        self.zeros = Signal(max(fmt.run_bits + 1, most.bit_length()))  # before the input's value
        self.count = Signal((-(-most // fmt.pairs)).bit_length())  # words of the row
        self.closing = Signal()  # the row's final word
        self.full = Signal()
        self.m.d.comb += [
            self.full.eq(self.slot == fmt.pairs),
            self.ports.request.payload.data.eq(self.pairs),
        ]

    def _know_value(self) -> None:
        """Look at the value at the input, and at the zeros before it.

        With registered links what is known of them is so when both have been there for a cycle.
        """
        i = self.ports.i
        self.puts = Signal()
        self.known, self.non_zero = Signal(), Signal()
        self.continues = Signal()  # the pair is for zeros alone
        linked = self.ports.config.registered_links
        self.m.d["sync" if linked else "comb"] += [
            self.known.eq(i.valid & ~i.ready & ~self.puts if linked else i.valid),
            self.non_zero.eq(i.payload.value != 0),
            self.continues.eq(self.zeros[self.fmt.run_bits :].any()),
        ]

    def _hold_addresses(self) -> None:
        """Have a store of addresses: one is read, and it or what follows it is written."""
        bits = self.ports.config.address_bits
        addresses: Any = Memory(shape=bits, depth=4, init=[])
        self.m.submodules.addresses = addresses
        self.write, self.read = addresses.write_port(), addresses.read_port(domain="comb")
        self.distance = Signal(bits)
        self.steps = Signal()  # by one
        self.m.d.comb += [
            self.ports.request.payload.address.eq(self.read.data),
            self.write.data.eq(self.read.data + self.distance + self.steps),
        ]

    def _hold_place(self) -> None:
        """Have registers for the row and the input, and signals for what becomes of them."""
        ports = self.ports
        self.rows = Signal(ports.config.map_bits, init=1)  # with this one
        self.inputs = Signal(16, init=1)
        self.last_row, self.last_input, self.begins = Signal(), Signal(), Signal()
        self.shows, self.counts, self.accepted = Signal(), Signal(), Signal()
        self.row_begins, self.row_ends = Signal(), Signal()
        self.row_ended, self.taken = Signal(), Signal()
        self.input_begins = Signal()
        self.m.d.sync += [
            self.last_row.eq(self.rows == ports.run.pooled_height),
            self.last_input.eq(self.inputs == ports.run.maps),
        ]
        self.m.d.comb += [
            self.accepted.eq(ports.request.valid & ports.request.ready),
            ports.words_written.eq(self.accepted),
            self.taken.eq(ports.i.valid & ports.i.ready),
        ]

    def _move(self, source: ValueLike, target: int, *, enable: Value | int = 1) -> None:
        """Write the address at ``source``, or what follows it, to ``target``."""
        self.m.d.comb += [
            self.read.addr.eq(source),
            self.write.addr.eq(target),
            self.write.en.eq(enable),
        ]

    def begin_input(self) -> None:
        """Find where the input is, and its first word."""
        m, begins = self.m, self.begins
        with m.State("INPUT"):
            self._move(Mux(begins, _NULL, _INPUT), _INPUT)
            m.d.comb += self.distance.eq(
                Mux(begins, self.ports.out_address, self.ports.run.out_pitch)
            )
            m.next = "FIRST ROW"

        with m.State("FIRST ROW"):
            self._move(_INPUT, _WORD)
            m.d.comb += self.input_begins.eq(1)
            m.next = "ROW"

    def begin_row(self) -> None:
        """Keep the place of the row's header; the first word is behind it."""
        m = self.m
        with m.State("ROW"):
            self._move(_WORD, _HEADER)
            m.d.comb += self.row_begins.eq(1)
            m.next = "STEP"

        with m.State("STEP"):
            self._move(_WORD, _WORD)
            m.d.comb += self.steps.eq(1)
            m.next = "VALUES"

    def take_values(self) -> None:
        """Put the pairs of a value into the word, until it is full or the row ends."""
        m, i, non_zero, full = self.m, self.ports.i, self.non_zero, self.full
        with m.State("VALUES"), m.If(self.known):
            m.d.comb += [
                self.puts.eq(non_zero & ~full),
                i.ready.eq(~non_zero | ~(full | self.continues)),
            ]
            with m.If(non_zero & full):
                m.next = "WORD"
            with m.If(i.ready & i.payload.last):
                m.next = "WORD"
                with m.If(~non_zero & (self.slot == 0)):  # a row of zeros alone
                    m.next = "HEADER"

    def write_word(self) -> None:
        """Write the word; after the row's final one show how many there are."""
        m, request = self.m, self.ports.request
        with m.State("WORD"):
            self._move(_WORD, _WORD, enable=self.accepted)
            m.d.comb += [
                request.valid.eq(1),
                request.payload.data[-1].eq(self.closing),
                self.steps.eq(1),
                self.counts.eq(self.accepted),
            ]
            with m.If(self.accepted):
                m.next = "VALUES"
                with m.If(self.closing):
                    m.next = "COUNT"

        with m.State("COUNT"):
            m.d.comb += self.shows.eq(1)
            m.next = "HEADER"

    def write_header(self) -> None:
        """Write the header, and go on with the next row, if there is one."""
        m, accepted = self.m, self.accepted
        with m.State("HEADER"):
            m.d.comb += [self.ports.request.valid.eq(1), self.read.addr.eq(_HEADER)]
            m.d.comb += self.row_ends.eq(accepted)
            with m.If(accepted):
                m.next = "ROW"
                with m.If(self.last_row):
                    m.next = "INPUT"
                    with m.If(self.last_input):
                        m.next = "IDLE"

    def count_rows(self) -> None:
        """Count where the row and the input are, a cycle late."""
        m, ports, row_ended, last_row = self.m, self.ports, self.row_ended, self.last_row
        m.d.sync += row_ended.eq(self.row_ends)
        with m.If(~ports.busy):
            m.d.sync += self.begins.eq(1)
        with m.Elif(self.input_begins):
            m.d.sync += self.begins.eq(0)
        with m.If(~ports.busy):
            m.d.sync += self.inputs.eq(1)
        with m.Elif(row_ended & last_row):
            m.d.sync += self.inputs.eq(self.inputs + 1)
        with m.If(~ports.busy | (row_ended & last_row)):
            m.d.sync += self.rows.eq(1)
        with m.Elif(row_ended):
            m.d.sync += self.rows.eq(self.rows + 1)

    def count_words(self) -> None:
        """Count the words of the row; the one with its last value is its final one."""
        m = self.m
        with m.If(self.row_begins):
            m.d.sync += [self.count.eq(0), self.closing.eq(0)]
        with m.Elif(self.counts):
            m.d.sync += self.count.eq(self.count + 1)
        with m.Elif(self.taken):
            m.d.sync += self.closing.eq(self.ports.i.payload.last)

    def count_zeros(self) -> None:
        """Count zeros, and take off those that a pair of their own stands for."""
        m, zeros, run_bits = self.m, self.zeros, self.fmt.run_bits
        less = Const(-1, len(zeros) - run_bits)
        with m.If(self.row_begins | (self.taken & self.non_zero)):
            m.d.sync += zeros.eq(0)
        with m.Elif(self.puts | self.taken):
            change = Mux(self.non_zero, Cat(Const(0, run_bits), less), Const(1, len(zeros)))
            m.d.sync += zeros.eq(zeros + change)

    def fill_word(self) -> None:
        """Put the pair into the first free slot; or the number of words, as a header."""
        m, fmt, pairs, slot, count = self.m, self.fmt, self.pairs, self.slot, self.count
        pair = Cat(
            self.zeros[: fmt.run_bits] | self.continues.replicate(fmt.run_bits),
            self.ports.i.payload.value & ~self.continues.replicate(fmt.value_bits),
        )
        with m.If(self.row_begins | self.counts):
            m.d.sync += [pairs.eq(0), slot.eq(0)]
        with m.Elif(self.shows):
            m.d.sync += pairs[: len(count)].eq(count)
        with m.Elif(self.puts):
            m.d.sync += slot.eq(slot + 1)
            for place in range(fmt.pairs):
                with m.If(slot == place):
                    m.d.sync += pairs.word_select(place, fmt.pair_bits).eq(pair)
