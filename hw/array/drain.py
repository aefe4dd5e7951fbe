"""Drain of a processing element: sends the sums of complete rows south."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, signed
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
        Channels of this column. A row of all columns has at most ``accumulator_depth`` words.
    top : ``In(1)``
        There is no element to the north; ``north.payload`` is 0.
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

        # Accumulators in the order of their addresses, counted modulo twice the depth: all before
        # `end` are of complete rows, the oldest row that is not drained goes up to `row_end`.
        count = self.config.offset_bits + 1
        end = Signal(count)
        row_end = Signal(count)
        nothing = Signal()  # is sent by this column
        m.d.comb += nothing.eq(self.channels == 0)
        with m.If(self.complete & ~nothing):
            m.d.sync += end.eq(end + self.run.row_size)

        # Readers: each goes upward in its bank as far as rows are complete.
        queues = []
        waiting = Signal(BANKS)
        passed = Signal(BANKS)
        for bank, request in enumerate(self.request):
            queue = ResetInserter(self.clear)(
                SyncFIFO(width=self.config.accumulator_bits, depth=QUEUE_DEPTH)
            )
            m.submodules[f"queue_{bank}"] = queue
            queues.append(queue)
            word_number = Signal(count - 1, name=f"word_number_{bank}")
            at = Cat(Const(bank, 1), word_number)
            m.d.comb += [
                queue.w_en.eq(self.word_valid[bank]),
                queue.w_data.eq(self.word[bank]),
                waiting[bank].eq((at - end)[count - 1]),
                passed[bank].eq(~(at - row_end)[count - 1]),
                request.valid.eq(waiting[bank] & (queue.level < QUEUE_DEPTH - 1)),
                request.address.eq(word_number),
            ]
            with m.If(self.taken[bank]):
                m.d.sync += word_number.eq(word_number + 1)
            with m.If(begin):
                m.d.sync += word_number.eq(0)
        m.d.comb += self.drained.eq(Mux(nothing, self.complete, passed.all()))
        with m.If(self.drained):
            m.d.sync += row_end.eq(row_end + self.run.row_size)
        with m.If(begin):
            m.d.sync += [end.eq(0), row_end.eq(self.run.row_size)]

        # Sequence of words: banks in turn; in a position those of the column's channels are sent.
        turn = Signal()
        channel = Signal(count)
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
                ~waiting.any()
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
            m.d.sync += self.south.payload.eq(word + self.north.payload)
        with m.If(self.clear):
            m.d.sync += self.south.valid.eq(0)
        return m
