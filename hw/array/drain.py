"""Drain of a processing element: sends the sums of complete rows south."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.array.accumulators import access_layout
from thresher.hw.layouts import record_layout

__all__ = ["Drain"]

QUEUE_DEPTH = 4  # the word being read, one that is asked for, and two for a stall between them


class Drain(wiring.Component):
    """Read complete rows in order, add the word from the north to each word, send it south.

    Timing contract
    ---------------
    Latency
        A word is offered on ``south`` three cycles after it was asked for.
    Throughput
        One word a cycle when ``taken`` is high and neither neighbour waits. Rows of a column
        without channels are done at one a cycle.
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
    run : ``In(record_layout(RUN))``
        ``out_width``, ``channels``, ``row_size`` are used; stable during the run.
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
    request : ``Out(access_layout(config))``
        The accumulator to read next.
    taken : ``In(1)``
        ``request`` is served.
    word, word_valid : ``In(signed(accumulator_bits))``, ``In(1)``
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
    request: data.View[data.StructLayout]
    taken: Signal
    word: Signal
    word_valid: Signal
    north: stream.Interface
    south: stream.Interface
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        word = signed(config.accumulator_bits)
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "top": In(1),
                "start": In(1),
                "clear": In(1),
                "complete": In(1),
                "drained": Out(1),
                "request": Out(access_layout(config)),
                "taken": In(1),
                "word": In(word),
                "word_valid": In(1),
                "north": In(stream.Signature(word)),
                "south": Out(stream.Signature(word)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address_bits = self.config.offset_bits
        m.submodules.queue = queue = ResetInserter(self.clear)(
            SyncFIFO(width=self.config.accumulator_bits, depth=QUEUE_DEPTH)
        )

        # State: complete rows, and the place in the first of them.
        rows = Signal(range(1 << 12))
        row_at = Signal(address_bits)  # first accumulator of the row, ...
        position_at = Signal(address_bits)  # ... and of the position
        position = Signal(12)
        channel = Signal(16)

        # Row sequence: positions, channels innermost.
        last_channel = Signal()
        last_position = Signal()
        next_row_at = Signal(address_bits)
        m.d.comb += [
            last_channel.eq(channel + 1 == self.channels),
            last_position.eq(position + 1 == self.run.out_width),
            next_row_at.eq(row_at + self.run.row_size),
            self.request.valid.eq(
                (rows != 0) & (self.channels != 0) & (queue.level < QUEUE_DEPTH - 1)
            ),
            self.request.address.eq(position_at + channel),
        ]
        with m.If((rows != 0) & (self.channels == 0)):
            m.d.comb += self.drained.eq(1)
        with m.Elif(self.taken):
            m.d.comb += self.drained.eq(last_channel & last_position)
            m.d.sync += channel.eq(channel + 1)
            with m.If(last_channel):
                m.d.sync += [
                    channel.eq(0),
                    position.eq(position + 1),
                    position_at.eq(position_at + self.run.channels),
                ]
                with m.If(last_position):
                    m.d.sync += [
                        position.eq(0),
                        position_at.eq(next_row_at),
                        row_at.eq(next_row_at),
                    ]
        m.d.sync += rows.eq(rows + self.complete - self.drained)

        # Output stage: the oldest word and the one from the north, when both are there.
        free = Signal()
        send = Signal()
        m.d.comb += [
            queue.w_en.eq(self.word_valid),
            queue.w_data.eq(self.word),
            free.eq(~self.south.valid | self.south.ready),
            send.eq(queue.r_rdy & free & (self.top | self.north.valid)),
            queue.r_en.eq(send),
            self.north.ready.eq(queue.r_rdy & free & ~self.top & ~self.clear),
            self.idle.eq((rows == 0) & ~self.word_valid & ~queue.r_rdy & ~self.south.valid),
        ]
        with m.If(free):
            m.d.sync += self.south.valid.eq(send)
        with m.If(send):
            m.d.sync += self.south.payload.eq(queue.r_data + Mux(self.top, 0, self.north.payload))

        with m.If(self.start | self.clear):
            m.d.sync += [s.eq(0) for s in (rows, row_at, position_at, position, channel)]
        with m.If(self.clear):
            m.d.sync += self.south.valid.eq(0)
        return m
