"""What the two sides of a row reader share: what is on its way, and how far the run has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, fifo

from thresher.hw.activations.segment_table import count_layout

if TYPE_CHECKING:
    from thresher.hw.activations.row_reader import RowReader

__all__ = ["RowCounter", "RowQueues", "WordsDue"]

_WORDS = 16  # depth of the word FIFO
_VISITS = 4  # visits of several segments that may be requested but not sent


class RowQueues:
    """Bursts that the responses answer, visits that the output sends, and words of theirs.

    Of each the queue, what goes in and what comes out.
    """

    burst_in: Any
    burst: Any
    visit_in: Any
    visit: Any
    word_in: Any
    word: Any

    def __init__(self, m: Module, ports: RowReader) -> None:
        config = ports.config
        burst_layout = data.StructLayout(
            dict(count_layout(config).members)
            | {"header": 1, "segment": ports.segment.index.shape()}
        )
        word_layout = data.StructLayout({"data": config.port_bits, "last": 1})
        visit_layout = data.StructLayout({"empty": 1})
        if config.segments > 1:
            visit_layout = data.StructLayout({"empty": 1, "channels": config.lane_bits, "final": 1})
        self.bursts = fifo.SyncFIFO(width=burst_layout.size, depth=2 * _VISITS)
        self.visits = fifo.SyncFIFO(width=visit_layout.size, depth=_WORDS)
        self.words = fifo.SyncFIFO(width=word_layout.size, depth=_WORDS)
        m.submodules.bursts = self.bursts
        m.submodules.visits = self.visits
        m.submodules.words = self.words
        self.burst_in = Signal(burst_layout)
        self.burst = Signal(burst_layout)
        self.visit_in = Signal(visit_layout)
        self.visit = Signal(visit_layout)
        self.word_in = Signal(word_layout)
        self.word = Signal(word_layout)
        self.visits_free = Signal()  # a visit of several segments may be requested
        m.d.comb += [
            self.visits_free.eq(self.visits.r_level < _VISITS),
            self.words.w_data.eq(self.word_in),
            self.word.eq(self.words.r_data),
            self.bursts.w_data.eq(self.burst_in),
            self.burst.eq(self.bursts.r_data),
            self.visits.w_data.eq(self.visit_in),
            self.visit.eq(self.visits.r_data),
        ]


class RowCounter:
    """Rows and inputs: what counts them, and whether these are the last ones."""

    def __init__(self, m: Module, ports: RowReader) -> None:
        self.row_steps, self.row_restarts = Signal(), Signal()
        self.input_steps = Signal()
        self.last_row = Signal()
        self.last_input = Signal()  # a cycle late
        row = Signal(ports.config.map_bits)  # the next one
        inputs = Signal(16)
        next_row, next_input = Signal.like(row), Signal.like(inputs)
        height = ports.run.height[: len(row)]
        m.d.comb += [next_row.eq(row + 1), next_input.eq(inputs + 1)]
        with m.If(self.row_steps):
            m.d.sync += [row.eq(next_row), self.last_row.eq(next_row == height)]
        with m.If(self.row_restarts):
            m.d.sync += [row.eq(1), self.last_row.eq(height == 1)]
        m.d.sync += self.last_input.eq(next_input == ports.run.maps)
        with m.If(self.input_steps):
            m.d.sync += inputs.eq(next_input)
        with m.If(ports.start):
            m.d.sync += inputs.eq(0)


class WordsDue:
    """Words that are asked for and have not come, and how many more may be.

    When an input of a single segment ends, all that are due are stale: they lie beyond it, and are
    dropped as they come.
    """

    def __init__(self, m: Module, ports: RowReader) -> None:
        self.asked = Signal()
        self.credits = Signal(range(_WORDS + 1), init=_WORDS)
        self.headers = Signal(range(2 * _VISITS + 1))  # asked for and not yet here
        self.header_asked, self.header_here = Signal(), Signal()
        self.due = Signal(range(_WORDS + 1))
        self.stale = Signal(range(_WORDS + 1))
        self.none_stale = Signal(init=1)
        self.stale_request = Signal()  # waits
        self.ends_input = Signal()
        m.d.comb += self.asked.eq(ports.request.valid & ports.request.ready)

    def count(self, m: Module, comes: Value, queues: RowQueues, streams: Value) -> None:
        """Count them; ``comes`` says that a word does.

        A header's place is free again when it has come, of a single segment when its visit is sent.
        """
        asked, due, stale = self.asked, self.due, self.stale
        visits, words = queues.visits, queues.words
        due_next = Signal.like(due)
        freed = Signal(2)
        stale_here = comes & ~self.none_stale
        stale_asked = asked & self.stale_request
        m.d.comb += [
            due_next.eq(due + asked - comes),
            freed.eq(
                (self.header_here | stale_here)
                + (visits.r_en & visits.r_rdy & streams)
                + (words.r_en & words.r_rdy)
            ),
        ]
        m.d.sync += [
            due.eq(due_next),
            self.headers.eq(self.headers + self.header_asked - self.header_here),
            self.credits.eq(self.credits + freed - asked),
        ]
        with m.If(self.ends_input):
            m.d.sync += [stale.eq(due_next), self.none_stale.eq((due == 1) & ~asked)]
        with m.Else():
            m.d.sync += [
                stale.eq(stale + stale_asked - stale_here),
                self.none_stale.eq((self.none_stale | (comes & (stale == 1))) & ~stale_asked),
            ]
