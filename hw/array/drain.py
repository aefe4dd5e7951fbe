"""Drain of a processing element: sends the sums of complete rows south."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.array.accumulators import BANKS, bank_access_layout
from thresher.hw.layouts import record_layout

__all__ = ["Drain", "element_run_layout"]

QUEUE_DEPTH = 16  # what a LUT RAM holds at least; long enough to outlast a burst of additions


def element_run_layout() -> data.StructLayout:
    """The fields of a run's record that a processing element uses."""
    fields = record_layout(RUN).members
    names = ("gate", "ring_rows", "channels", "row_size")
    return data.StructLayout({name: fields[name] for name in names})


class Drain(wiring.Component):
    """Read complete rows in order, add the word from the north to each word, send it south.

    The accumulators of rows that follow one another do too, so each bank is read upward by a
    reader of its own, as far as rows are complete, into a queue of its own; the output takes from
    the queues in turn. So a word is read in every cycle in which not both banks are added to.

    Timing contract
    ---------------
    Latency
        A word is offered on ``south`` three cycles after it was asked for.
    Throughput
        One word a cycle when each bank is ``taken`` every other cycle on average and neither
        neighbour waits; a cycle for each accumulator beyond the column's channels, which is read
        and dropped. Rows of a column without channels are done at one a cycle.
    Combinational paths
        ``south.ready`` to ``north.ready``.
    Reset
        All words are dropped, by ``clear`` too. ``start`` begins again at accumulator 0.

    Parameters
    ----------
    config
        Widths and depths.

    Members
    -------
    run : ``In(element_run_layout())``
        ``channels`` and ``row_size`` are used; stable during the run.
    channels : ``In(16)``
        Channels of this column.
    top : ``In(1)``
        There is no element to the north.
    start, clear : ``In(1)``
        A run starts; drop everything.
    complete : ``In(1)``
        One more row is complete, and all its additions are written.
    drained : ``Out(1)``
        One more row is drained.
    request : ``Out(bank_access_layout(config))``, one a bank
        The accumulator to read next.
    taken : ``In(1)``, one a bank
        ``request`` is served.
    word, word_valid : ``In(signed(accumulator_bits))``, ``In(1)``, one a bank
        The accumulator that was read, one cycle after ``taken``.
    north, south : streams of ``signed(accumulator_bits)``
        Sums of the elements above; the same with this one's.
    idle : ``Out(1)``
        No complete row, no word.
    """

    run: data.View[data.StructLayout]
    channels: Signal
    top: Signal
    start: Signal
    clear: Signal
    complete: Signal
    drained: Signal
    request: Sequence[data.View[data.StructLayout]]
    taken: Sequence[Signal]
    word: Sequence[Signal]
    word_valid: Sequence[Signal]
    north: stream.Interface
    south: stream.Interface
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        word = signed(config.accumulator_bits)
        super().__init__(
            {
                "run": In(element_run_layout()),
                "channels": In(16),
                "top": In(1),
                "start": In(1),
                "clear": In(1),
                "complete": In(1),
                "drained": Out(1),
                "request": Out(bank_access_layout(config)).array(BANKS),
                "taken": In(1).array(BANKS),
                "word": In(word).array(BANKS),
                "word_valid": In(1).array(BANKS),
                "north": In(stream.Signature(word)),
                "south": Out(stream.Signature(word)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begin = Signal()
        m.d.comb += begin.eq(self.start | self.clear)

        # Readers: each goes upward in its bank, row by row, while rows are complete.
        queues = []
        waiting = Signal()
        row_read = Signal(BANKS)  # a bank has read its part of a row
        all_rows = [Signal(12, name=f"rows_{bank}") for bank in range(BANKS)]
        m.d.comb += waiting.eq((all_rows[0] != 0) | (all_rows[1] != 0))
        rows_read = [Signal(12, name=f"rows_read_{bank}") for bank in range(BANKS)]
        for bank, request in enumerate(self.request):
            queue = ResetInserter(self.clear)(
                SyncFIFO(width=self.config.accumulator_bits, depth=QUEUE_DEPTH)
            )
            m.submodules[f"queue_{bank}"] = queue
            queues.append(queue)
            rows = all_rows[bank]
            address = Signal(self.config.offset_bits - 1, name=f"address_{bank}")
            place = Signal(17, name=f"place_{bank}")  # of that accumulator in its row
            after = Signal(17, name=f"after_{bank}")
            first = Signal(17, name=f"first_{bank}")  # place of the next row's first one, this next
            skips = Signal(name=f"skips_{bank}")  # the row has no accumulator here
            m.d.comb += [
                queue.w_en.eq(self.word_valid[bank]),
                queue.w_data.eq(self.word[bank]),
                skips.eq((rows != 0) & ((place >= self.run.row_size) | (self.channels == 0))),
                request.valid.eq((rows != 0) & ~skips & (queue.level < QUEUE_DEPTH - 1)),
                request.address.eq(address),
                after.eq(Mux(skips, place, place + BANKS)),
                first.eq(after - self.run.row_size),
            ]
            with m.If(self.taken[bank]):
                m.d.sync += [address.eq(address + 1), place.eq(after)]
            with m.If(skips | (self.taken[bank] & (after >= self.run.row_size))):
                m.d.comb += row_read[bank].eq(1)
                m.d.sync += place.eq(Mux(self.channels == 0, place, first))
            m.d.sync += [
                rows.eq(rows + self.complete - row_read[bank]),
                rows_read[bank].eq(rows_read[bank] + row_read[bank] - self.drained),
            ]
            with m.If(begin):
                m.d.sync += [rows.eq(0), address.eq(0), place.eq(bank), rows_read[bank].eq(0)]
        m.d.comb += self.drained.eq((rows_read[0] != 0) & (rows_read[1] != 0))

        # Sequence of words: banks in turn; in a position those of the column's channels are sent.
        turn = Signal()
        channel = Signal(16)
        last_channel = Signal()
        sent = Signal()
        arrived = Signal()
        word = Signal(signed(self.config.accumulator_bits))
        next_word = Signal()
        m.d.comb += [
            arrived.eq(Mux(turn, queues[1].r_rdy, queues[0].r_rdy)),
            word.eq(Mux(turn, queues[1].r_data, queues[0].r_data)),
            queues[0].r_en.eq(next_word & ~turn),
            queues[1].r_en.eq(next_word & turn),
            sent.eq(channel < self.channels),
            last_channel.eq(channel + 1 == self.run.channels),
        ]
        with m.If(next_word):
            m.d.sync += [turn.eq(~turn), channel.eq(Mux(last_channel, 0, channel + 1))]
        with m.If(begin):
            m.d.sync += [turn.eq(0), channel.eq(0)]

        # Output stage: the oldest word and the one from the north, when both are there.
        free = Signal()
        send = Signal()
        m.d.comb += [
            free.eq(~self.south.valid | self.south.ready),
            send.eq(arrived & sent & free & (self.top | self.north.valid)),
            next_word.eq(send | (arrived & ~sent)),
            self.north.ready.eq(arrived & sent & free & ~self.top & ~self.clear),
            self.idle.eq(
                ~waiting
                & ~queues[0].r_rdy
                & ~queues[1].r_rdy
                & ~self.word_valid[0]
                & ~self.word_valid[1]
                & ~self.south.valid
            ),
        ]
        with m.If(free):
            m.d.sync += self.south.valid.eq(send)
        with m.If(send):
            m.d.sync += self.south.payload.eq(word + Mux(self.top, 0, self.north.payload))
        with m.If(self.clear):
            m.d.sync += self.south.valid.eq(0)
        return m
