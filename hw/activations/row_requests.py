"""The request side of a row reader: what it asks for, visit after visit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from thresher.hw.activations.row_progress import RowCounter, RowQueues, WordsDue
from thresher.hw.activations.segment_table import SegmentTable

if TYPE_CHECKING:
    from thresher.hw.activations.row_reader import RowReader

__all__ = ["RowRequests"]


class RowRequests:
    """The place in the sequence of visits, the burst at hand, and the next request.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The reader's.
    queues
        Receive the bursts and visits, of several segments.
    counter
        Of rows and inputs; of a single segment the responses count its rows.
    due
        What is asked for.

    Attributes
    ----------
    idle
        Nothing is asked for, and no response is due.
    streams
        The segment is a single one.
    table
        The segment table, of which the visit's segment is read.
    """

    def __init__(
        self, m: Module, ports: RowReader, queues: RowQueues, counter: RowCounter, due: WordsDue
    ) -> None:
        self.m, self.ports, self.several = m, ports, ports.config.segments > 1
        self.queues, self.counter, self.due = queues, counter, due
        self.streams: Value = Signal() if self.several else Const(1)
        self._describe_visit()
        self._count_burst()
        self._move()
        with m.FSM() as fsm:
            with m.State("IDLE"):
                self._begin_run()
            with m.State("LOOK_UP"):
                self._look_up()
            with m.State("BEGIN"):
                m.d.comb += [self.planning.eq(1), self.moves.eq(1)]
                m.next = "STREAM"
            with m.State("STREAM"):
                self._stream()
            with m.State("END"):
                self._end_stream()
            if self.several:
                with m.State("PLAN"):
                    self._plan_burst()
                with m.State("REQUEST"):
                    self._request_burst()
        self.idle = fsm.ongoing("IDLE")

    def _describe_visit(self) -> None:
        """Say what is known of the visit, whose segment has been looked up."""
        m, config, queues = self.m, self.ports.config, self.queues
        self.segment = Signal.like(self.ports.segment.index)
        self.segments = self.ports.segments[: len(self.segment) + 1]
        self.headers_only = Signal()  # an input begins: the first header of each segment
        self.first_input = Signal()
        self.last_segment = Signal()
        self.table = table = SegmentTable(m, self.ports, self.segment, self.headers_only)
        self.count = Signal(config.count_bits)
        self.no_words, self.one_word = Signal(), Signal()
        self.begins_at = Signal(config.address_bits)  # the burst
        m.d.comb += [
            self.count.eq(Mux(self.headers_only, 0, table.count.count)),
            self.no_words.eq(self.headers_only | table.count.none),
            self.one_word.eq(table.count.one & ~self.headers_only),
            self.begins_at.eq(
                Mux(self.first_input & self.headers_only, table.entry.address, table.place)
            ),
            queues.burst_in.count.eq(self.count),
            queues.burst_in.none.eq(self.no_words),
            queues.burst_in.one.eq(self.one_word),
            queues.burst_in.header.eq(self.headers_only | ~self.counter.last_row),
            queues.burst_in.segment.eq(self.segment),
            queues.visit_in.empty.eq(self.no_words),
        ]
        if self.several:
            m.d.comb += [
                queues.visit_in.channels.eq(table.entry.channels),
                queues.visit_in.final.eq(self.last_segment),
            ]
        # Segments are steady for some cycles before it is asked for the last one.
        m.d.sync += self.last_segment.eq(self.segment + 1 == self.segments)

    def _count_burst(self) -> None:
        """Count the requests of the burst that are left."""
        m, request = self.m, self.ports.request
        header = self.queues.burst_in.header
        bits = self.ports.config.count_bits
        self.planning, self.requesting = Signal(), Signal()
        left = Signal(bits + 1)
        self.none_left, self.one_left = Signal(), Signal()  # known from registers
        with m.If(self.planning | (self.requesting & request.ready)):
            m.d.sync += left.eq(
                Mux(self.planning, self.count, left)
                + Cat(~self.planning | header, (~self.planning).replicate(bits))
            )
        with m.If(self.planning):
            m.d.sync += [
                self.none_left.eq(~header & self.no_words),
                self.one_left.eq(Mux(header, self.no_words, self.one_word)),
            ]
        with m.Elif(self.requesting & request.ready):
            m.d.sync += [self.none_left.eq(self.one_left), self.one_left.eq(left == 2)]

    def _move(self) -> None:
        """Move to the next request: to the burst's beginning, the next input's, or one further."""
        m, request, table = self.m, self.ports.request, self.table
        address = Signal(self.ports.config.address_bits)
        base = Signal.like(address)  # of the segment's input
        pitch = Signal.like(table.entry.pitch)
        self.next_base = Signal.like(address)
        self.advanced = Signal.like(address)  # behind the next request, if there is one
        self.moves, self.moves_on = Signal(), Signal()  # to a burst, or to the next input
        m.d.comb += [
            self.next_base.eq(base + pitch),
            self.advanced.eq(address + ~self.none_left),
            request.payload.eq(address),
        ]
        with m.If(self.moves):
            m.d.sync += [
                address.eq(self.begins_at),
                base.eq(self.begins_at),
                pitch.eq(table.entry.pitch),
            ]
        with m.Elif(self.moves_on):
            m.d.sync += [address.eq(self.next_base), base.eq(self.next_base)]
        with m.Elif(request.valid & request.ready):
            m.d.sync += address.eq(self.advanced)
        self.base_segment = Signal.like(self.segment)  # whose next base is yet to be written
        self.new_base = Signal()

    def _begin_run(self) -> None:
        """Wait for a run that has segments."""
        m = self.m
        with m.If(self.ports.start & (self.ports.segments != 0)):
            m.d.sync += [self.segment.eq(0), self.first_input.eq(1), self.headers_only.eq(1)]
            m.d.comb += self.counter.row_restarts.eq(1)
            if self.several:
                m.d.sync += self.streams.eq(self.ports.segments == 1)
            m.next = "LOOK_UP"

    def _look_up(self) -> None:
        """Read what the table says of the visit, once its header is here."""
        m, write_place = self.m, self.table.write_place
        # Headers may be on their way for every visit since the one that asked for this
        # visit's own; in the last row, which asks for none, for those after this one.
        newer = Mux(self.counter.last_row, self.segment, 0)
        m.d.comb += [
            write_place.en.eq(self.new_base),
            write_place.addr.eq(Cat(self.base_segment, Const(1, 1))),
            write_place.data.eq(self.next_base),
        ]
        m.d.sync += self.new_base.eq(0)
        # Read until the header is here, so that its coming is not in the ports' enable.
        self.table.read(m)
        with m.If(self.headers_only | (self.due.headers + newer < self.segments)):
            m.next = "BEGIN"
            if self.several:
                with m.If(~self.streams):
                    m.next = "PLAN"

    def _stream(self) -> None:
        """Ask for a single segment's words, on and on, until the last input ends."""
        m, request, due = self.m, self.ports.request, self.due
        # A request that waits when its input ends keeps its address.
        offered = due.stale_request | (due.credits != 0)
        waits = offered & ~request.ready
        m.d.comb += request.valid.eq(offered)
        m.d.comb += self.moves_on.eq((due.ends_input | due.stale_request) & ~waits)
        with m.If(due.ends_input | request.ready):
            m.d.sync += due.stale_request.eq(waits)
        with m.If(due.ends_input):
            m.d.comb += self.counter.input_steps.eq(1)
            with m.If(self.counter.last_input):
                m.next = "END"

    def _end_stream(self) -> None:
        """Wait for what is due: an offered request is not withdrawn, its answer is dropped."""
        m, request, due = self.m, self.ports.request, self.due
        m.d.comb += request.valid.eq(due.stale_request)
        with m.If(request.ready):
            m.d.sync += due.stale_request.eq(0)
        with m.If(~due.stale_request & (due.due == 0)):
            m.next = "IDLE"

    def _plan_burst(self) -> None:
        """Announce a burst and its visit, when there is room for them."""
        m, bursts, visits = self.m, self.queues.bursts, self.queues.visits
        header = self.queues.burst_in.header
        with m.If(bursts.w_rdy & self.queues.visits_free):
            m.d.comb += [
                self.planning.eq(1),
                self.moves.eq(1),
                bursts.w_en.eq(~self.no_words | header),
                visits.w_en.eq(~self.headers_only),
                self.due.header_asked.eq(header),
            ]
            m.d.sync += [self.base_segment.eq(self.segment), self.new_base.eq(self.headers_only)]
            m.next = "REQUEST"

    def _request_burst(self) -> None:
        """Ask for a burst's words; then go to the next visit."""
        m, request, write_place = self.m, self.ports.request, self.table.write_place
        m.d.comb += [
            self.requesting.eq(~self.none_left & (self.due.credits != 0)),
            request.valid.eq(self.requesting),
            write_place.addr.eq(self.segment),
            write_place.data.eq(self.advanced),
        ]
        with m.If(self.none_left | (self.one_left & self.requesting & request.ready)):
            m.d.comb += write_place.en.eq(1)
            m.d.sync += self.segment.eq(self.segment + 1)
            m.next = "LOOK_UP"
            with m.If(self.last_segment):
                self._end_row()

    def _end_row(self) -> None:
        """Go to the first segment of the next row, or of the next input."""
        m, counter = self.m, self.counter
        m.d.sync += [self.segment.eq(0), self.headers_only.eq(0)]
        m.d.comb += counter.row_steps.eq(~self.headers_only)
        with m.If(~self.headers_only & counter.last_row):
            m.d.comb += [counter.row_restarts.eq(1), counter.input_steps.eq(1)]
            m.d.sync += [self.first_input.eq(0), self.headers_only.eq(1)]
            with m.If(counter.last_input):
                m.next = "IDLE"
