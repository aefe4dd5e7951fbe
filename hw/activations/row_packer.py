"""Row packer: run-length encoder and row writer in one, a value in several cycles.

The code is defined in :mod:`thresher.golden.codes.rlc`.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
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
        fmt, most = self.config.rlc, self.config.row_values
        value = self.i.payload.value

        # The word that is being filled, or a header; the zeros before the value at the input.
        pairs = Signal(fmt.pairs * fmt.pair_bits)
        slot = Signal(range(fmt.pairs + 1))
        zeros = Signal(max(fmt.run_bits + 1, most.bit_length()))
        count = Signal((-(-most // fmt.pairs)).bit_length())  # words of the row
        closing = Signal()  # the row's final word
        full = Signal()
        m.d.comb += [full.eq(slot == fmt.pairs), self.request.payload.data.eq(pairs)]

        # With registered links what is known of value and zeros is so when both have been there
        # for a cycle.
        puts = Signal()
        known, non_zero = Signal(), Signal()
        continues = Signal()  # the pair is for zeros alone
        linked = self.config.registered_links
        m.d["sync" if linked else "comb"] += [
            known.eq(self.i.valid & ~self.i.ready & ~puts if linked else self.i.valid),
            non_zero.eq(value != 0),
            continues.eq(zeros[fmt.run_bits :].any()),
        ]

        # Addresses: one is read, and it or what follows it is written.
        addresses: Any = Memory(shape=self.config.address_bits, depth=4, init=[])
        m.submodules.addresses = addresses
        write, read = addresses.write_port(), addresses.read_port(domain="comb")
        distance = Signal(self.config.address_bits)
        steps = Signal()  # by one
        m.d.comb += [
            self.request.payload.address.eq(read.data),
            write.data.eq(read.data + distance + steps),
        ]

        rows = Signal(self.config.map_bits, init=1)  # with this one
        inputs = Signal(16, init=1)
        last_row, last_input, begins = Signal(), Signal(), Signal()
        shows, counts, accepted = Signal(), Signal(), Signal()
        row_begins, row_ends, row_ended, taken = Signal(), Signal(), Signal(), Signal()
        input_begins = Signal()
        m.d.sync += [
            last_row.eq(rows == self.run.pooled_height),
            last_input.eq(inputs == self.run.maps),
        ]
        m.d.comb += [
            accepted.eq(self.request.valid & self.request.ready),
            self.words_written.eq(accepted),
            taken.eq(self.i.valid & self.i.ready),
        ]

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))

            with m.State("IDLE"), m.If(self.start & (self.channels != 0)):
                m.next = "INPUT"

            with m.State("INPUT"):
                m.d.comb += [
                    read.addr.eq(Mux(begins, _NULL, _INPUT)),
                    distance.eq(Mux(begins, self.out_address, self.run.out_pitch)),
                    write.addr.eq(_INPUT),
                    write.en.eq(1),
                ]
                m.next = "FIRST ROW"

            with m.State("FIRST ROW"):
                m.d.comb += [read.addr.eq(_INPUT), write.addr.eq(_WORD), write.en.eq(1)]
                m.d.comb += input_begins.eq(1)
                m.next = "ROW"

            with m.State("ROW"):
                m.d.comb += [read.addr.eq(_WORD), write.addr.eq(_HEADER), write.en.eq(1)]
                m.d.comb += row_begins.eq(1)
                m.next = "STEP"

            with m.State("STEP"):
                m.d.comb += [read.addr.eq(_WORD), write.addr.eq(_WORD), write.en.eq(1)]
                m.d.comb += steps.eq(1)
                m.next = "VALUES"

            with m.State("VALUES"), m.If(known):
                m.d.comb += [
                    puts.eq(non_zero & ~full),
                    self.i.ready.eq(~non_zero | ~(full | continues)),
                ]
                with m.If(non_zero & full):
                    m.next = "WORD"
                with m.If(self.i.ready & self.i.payload.last):
                    m.next = "WORD"
                    with m.If(~non_zero & (slot == 0)):  # a row of zeros alone
                        m.next = "HEADER"

            with m.State("WORD"):
                m.d.comb += [
                    self.request.valid.eq(1),
                    self.request.payload.data[-1].eq(closing),
                    read.addr.eq(_WORD),
                    write.addr.eq(_WORD),
                    write.en.eq(accepted),
                    steps.eq(1),
                    counts.eq(accepted),
                ]
                with m.If(accepted):
                    m.next = "VALUES"
                    with m.If(closing):
                        m.next = "COUNT"

            with m.State("COUNT"):
                m.d.comb += shows.eq(1)
                m.next = "HEADER"

            with m.State("HEADER"):
                m.d.comb += [self.request.valid.eq(1), read.addr.eq(_HEADER)]
                m.d.comb += row_ends.eq(accepted)
                with m.If(accepted):
                    m.next = "ROW"
                    with m.If(last_row):
                        m.next = "INPUT"
                        with m.If(last_input):
                            m.next = "IDLE"

        # Where the row and the input are, a cycle late.
        m.d.sync += row_ended.eq(row_ends)
        with m.If(~self.busy):
            m.d.sync += begins.eq(1)
        with m.Elif(input_begins):
            m.d.sync += begins.eq(0)
        with m.If(~self.busy):
            m.d.sync += inputs.eq(1)
        with m.Elif(row_ended & last_row):
            m.d.sync += inputs.eq(inputs + 1)
        with m.If(~self.busy | (row_ended & last_row)):
            m.d.sync += rows.eq(1)
        with m.Elif(row_ended):
            m.d.sync += rows.eq(rows + 1)
        with m.If(row_begins):
            m.d.sync += [count.eq(0), closing.eq(0)]
        with m.Elif(counts):
            m.d.sync += count.eq(count + 1)
        with m.Elif(taken):
            m.d.sync += closing.eq(self.i.payload.last)

        # Zeros are counted, and those that a pair of their own stands for taken off.
        less = Const(-1, len(zeros) - fmt.run_bits)
        with m.If(row_begins | (taken & non_zero)):
            m.d.sync += zeros.eq(0)
        with m.Elif(puts | taken):
            change = Mux(non_zero, Cat(Const(0, fmt.run_bits), less), Const(1, len(zeros)))
            m.d.sync += zeros.eq(zeros + change)

        # The pair goes into the first free slot; or the number of words, as a header.
        pair = Cat(
            zeros[: fmt.run_bits] | continues.replicate(fmt.run_bits),
            value & ~continues.replicate(fmt.value_bits),
        )
        with m.If(row_begins | counts):
            m.d.sync += [pairs.eq(0), slot.eq(0)]
        with m.Elif(shows):
            m.d.sync += pairs[: len(count)].eq(count)
        with m.Elif(puts):
            m.d.sync += slot.eq(slot + 1)
            for place in range(fmt.pairs):
                with m.If(slot == place):
                    m.d.sync += pairs.word_select(place, fmt.pair_bits).eq(pair)
        return m
