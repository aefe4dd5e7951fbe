"""Row reader: fetches a lane's activation rows from memory and strips their headers."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In

from thresher.golden.config import Config
from thresher.hw.activations.reader_ports import ReaderPorts
from thresher.hw.activations.row_progress import RowCounter, RowQueues, WordsDue
from thresher.hw.activations.row_requests import RowRequests
from thresher.hw.activations.row_responses import RowResponses
from thresher.hw.activations.segment_table import segment_write_layout

__all__ = ["RowReader"]


class RowReader(ReaderPorts):
    """Send the words of (input, row, segment) in turn: the visits of a lane.

    A segment's rows lie one after another, each behind a header with the number of its words.

    A single segment is read as one stream, header or not, as far ahead as the word FIFO has room
    (credits); headers are told from words as they come back. So an input's end is known only
    then, and the reader may have asked for a few words beyond it. They are dropped.

    Of several segments a visit's burst is the row's words and the header of the row after it; the
    first header of each segment is read when an input begins. Nothing else is read. Two places
    keep step: requests go out in visit order, and a visit is requested once its header has come
    back, while the visits of the other segments may still be on their way.

    Timing contract
    ---------------
    Latency
        A word is offered in the cycle after its response, with ``config.registered_links`` a
        cycle later.
    Throughput
        With one segment one request a cycle, from row to row and input to input too; a memory that
        answers after ``n`` cycles, which is at least 1, yields ``min(1, 16 / (n + 2))`` words a
        cycle (``n + 3`` with ``config.registered_links``). With several segments one request a
        cycle within a visit, two cycles more from visit to visit.
    Combinational paths
        None between ports.
    Reset
        Idle. The segment table keeps its contents.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    Those of :class:`~thresher.hw.activations.reader_ports.ReaderPorts`, for each visit of a row,
    and further:

    run
        ``maps`` and ``height`` are used, at least 1.
    segments : ``In(16)``
        Segments of the lane; steady while busy. 0: nothing is sent, ``busy`` stays low.
    segment : ``In(segment_write_layout(config))``
        Writes to the segment table, before ``start``, and to the other half at any time.
    half : ``In(1)``
        The half of the table that the run uses; steady while busy.
    response
        Always taken.
    """

    segments: Signal
    segment: Any
    half: Signal

    def __init__(self, config: Config) -> None:
        super().__init__(
            config,
            {"segments": In(16), "segment": In(segment_write_layout(config)), "half": In(1)},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queues = RowQueues(m, self)
        counter = RowCounter(m, self)
        due = WordsDue(m, self)
        requests = RowRequests(m, self, queues, counter, due)
        RowResponses(m, self, requests)
        self._send(m, queues, requests.table.entry.channels)
        m.d.comb += self.busy.eq(~requests.idle | queues.visits.r_rdy)
        return m

    def _send(self, m: Module, queues: RowQueues, channels: Value) -> None:
        """Send the words of a visit, or one empty item; ``channels`` are a single segment's."""
        visits, visit, words = queues.visits, queues.visit, queues.words
        several = self.config.segments > 1
        empty = Signal()
        last = Signal()
        first_channel = Signal(self.config.lane_bits)  # channels of the row's visits before this
        item = self.o.payload
        m.d.comb += [
            empty.eq(visit.empty),
            last.eq(empty | queues.word.last),
            item.data.eq(queues.word.data),
            item.empty.eq(empty),
            item.last.eq(last),
            item.channels.eq(visit.channels if several else channels),
            item.first_channel.eq(first_channel),
            self.o.valid.eq(visits.r_rdy & (empty | words.r_rdy)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += [words.r_en.eq(~empty), visits.r_en.eq(last)]
        if several:
            with m.If(visits.r_en):
                m.d.sync += first_channel.eq(first_channel + visit.channels)
            with m.If(visits.r_en & visit.final):
                m.d.sync += first_channel.eq(0)
