"""The response side of a row reader: tells headers from words, and where rows end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data

from thresher.hw.activations.row_requests import RowRequests
from thresher.hw.activations.segment_table import count_layout

if TYPE_CHECKING:
    from thresher.hw.activations.row_reader import RowReader

__all__ = ["RowResponses"]


class RowResponses:
    """What comes: words, which go to the queue, and headers with the number of a row's words.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The reader's.
    requests
        The request side, what it shares with this one, and the table for what headers say. Of a
        single segment visits are announced, and rows counted, here.
    """

    here: Any
    count_here: Any
    at_header: Any
    taken: Any

    def __init__(self, m: Module, ports: RowReader, requests: RowRequests) -> None:
        self.m, self.ports, self.requests = m, ports, requests
        self.queues, self.counter, self.due = requests.queues, requests.counter, requests.due
        self.counts = count_layout(ports.config)
        self._receive()
        self._count_words()
        with m.If(~requests.streams):
            self._end_burst()
        with m.Else():
            self._begin_row()
        with m.If(ports.start):
            m.d.sync += [self.taken.eq(self.at_header), self.fresh.eq(1)]
        self.due.count(m, self.here.valid, self.queues, requests.streams)

    def _receive(self) -> None:
        """Take a response, and what it says as a header; with registered links from registers."""
        m, config, response = self.m, self.ports.config, self.ports.response
        self.here = Signal(data.StructLayout({"valid": 1, "data": config.port_bits}))
        self.count_here = Signal(self.counts)
        low = response.payload[: config.count_bits]
        m.d.comb += response.ready.eq(1)
        m.d["sync" if config.registered_links else "comb"] += [
            self.here.valid.eq(response.valid),
            self.here.data.eq(response.payload),
            self.count_here.count.eq(low),
            self.count_here.none.eq(low == 0),
            self.count_here.one.eq(low == 1),
        ]

    def _count_words(self) -> None:
        """Count words: ``taken`` is how many are left of the row, behind which is a header.

        Of several segments it is how many are left of the burst, once the first one has come.
        Whether these are none, or one, is known from registers.
        """
        m, queues, here, count_here = self.m, self.queues, self.here, self.count_here
        write_count = self.requests.table.write_count
        self.wanted = Signal()  # a response that is of this input
        self.at_header = self.counts.const({"none": 1})
        self.taken = Signal(self.counts, init=self.at_header)
        self.fresh = Signal(init=1)  # no word of the burst has come
        self.is_word = Signal()
        remaining: Any = Signal(self.counts)
        m.d.comb += [
            self.wanted.eq(here.valid & self.due.none_stale),
            self.ports.words_read.eq(self.wanted),
            queues.word_in.data.eq(here.data),
            queues.word_in.last.eq(remaining.one),
            queues.words.w_en.eq(self.wanted & self.is_word),
            write_count.addr.eq(queues.burst.segment),
            write_count.data.eq(count_here),
            self.is_word.eq(~remaining.none),
        ]
        first = ~self.requests.streams & self.fresh
        m.d.comb += [
            remaining[name].eq(Mux(first, queues.burst[name], self.taken[name]))
            for name in self.counts.members
        ]
        with m.If(self.wanted):
            m.d.sync += [
                self.taken.count.eq(Mux(self.is_word, remaining.count - 1, count_here.count)),
                self.taken.none.eq(Mux(self.is_word, remaining.one, count_here.none)),
                self.taken.one.eq(Mux(self.is_word, remaining.count == 2, count_here.one)),
                self.fresh.eq(0),
            ]

    def _end_burst(self) -> None:
        """Of several segments: a header, if one follows, ends a burst, and is kept in the table."""
        m, queues, write_count = self.m, self.queues, self.requests.table.write_count
        last_word = queues.word_in.last & ~queues.burst.header
        m.d.comb += [
            write_count.en.eq(self.wanted & ~self.is_word),
            self.due.header_here.eq(write_count.en),
        ]
        with m.If(self.wanted & (~self.is_word | last_word)):
            m.d.comb += queues.bursts.r_en.eq(1)
            m.d.sync += self.fresh.eq(1)

    def _begin_row(self) -> None:
        """Of a single segment: after the words of a row comes the header of the next one."""
        m, visits, counter, taken = self.m, self.queues.visits, self.counter, self.taken
        visit_pushed: Any = Signal.like(self.queues.visit_in)
        header = self.wanted & taken.none
        final_row = Signal()  # the last header has come
        rows_end = Mux(taken.none, counter.last_row, final_row)
        words_end = Mux(taken.none, visit_pushed.empty, taken.one)
        m.d.comb += [
            visit_pushed.empty.eq(self.count_here.none),
            visits.w_data.eq(visit_pushed),
            visits.w_en.eq(header),
            self.due.ends_input.eq(self.wanted & rows_end & words_end),
            counter.row_steps.eq(header),
        ]
        if self.requests.several:
            m.d.comb += [
                visit_pushed.channels.eq(self.requests.table.entry.channels),
                visit_pushed.final.eq(1),
            ]
        with m.If(header):
            m.d.sync += final_row.eq(counter.last_row)
        with m.If(self.due.ends_input):
            m.d.comb += counter.row_restarts.eq(1)
