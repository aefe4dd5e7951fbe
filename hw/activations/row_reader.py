"""Row reader: fetches a lane's activation rows from memory and strips their headers."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, memory
from amaranth.lib.wiring import In

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN_SEGMENT
from thresher.hw.activations.reader_ports import ReaderPorts
from thresher.hw.layouts import record_layout

__all__ = ["RowReader", "segment_write_layout"]

_WORDS = 16  # depth of the word FIFO
_VISITS = 4  # visits of several segments that may be requested but not sent


def segment_write_layout(config: Config) -> data.StructLayout:
    """A write to the segment table, to one of its halves: one of them is of the next run."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "half": unsigned(1),
            "index": unsigned(max(1, (config.segments - 1).bit_length())),
            "data": record_layout(RUN_SEGMENT),
        }
    )


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
        depth = self.config.segments
        address_bits = self.config.address_bits
        count_bits = self.config.count_bits
        channel_bits = self.config.lane_bits

        # Segment table; where each segment's next row begins, and in the upper half its next input;
        # words of its next row.
        table_layout = data.StructLayout(
            {"address": address_bits, "channels": channel_bits, "pitch": min(20, address_bits)}
        )
        # Nothing is read in the cycle in which it is written. As LUT RAM many counts would want a
        # wide multiplexer.
        unchecked = {"no_rw_check": "1"}
        block = unchecked | ({"ram_style": "block"} if depth > _WORDS else {})
        two_halves = 2 << len(self.segment.index)
        table: Any = memory.Memory(shape=table_layout, depth=two_halves, init=[], attrs=unchecked)
        places: Any = memory.Memory(shape=address_bits, depth=two_halves, init=[], attrs=unchecked)
        # Beside a count is whether it is 0, or 1, which would be known late in a cycle.
        count_layout = data.StructLayout({"count": count_bits, "none": 1, "one": 1})
        counts: Any = memory.Memory(shape=count_layout, depth=depth, init=[], attrs=block)
        m.submodules.table = table
        m.submodules.places = places
        m.submodules.counts = counts
        write_table, read_table = table.write_port(), table.read_port()
        write_place, read_place = places.write_port(), places.read_port()
        write_count, read_count = counts.write_port(), counts.read_port()
        m.d.comb += [
            write_table.en.eq(self.segment.valid),
            write_table.addr.eq(Cat(self.segment.index, self.segment.half)),
        ]
        m.d.comb += [
            write_table.data[name].eq(self.segment.data[name])
            for name in ("address", "channels", "pitch")
        ]

        # What is on its way: bursts that the responses answer, visits that the output sends.
        burst_layout = data.StructLayout(
            dict(count_layout.members) | {"header": 1, "segment": self.segment.index.shape()}
        )
        word_layout = data.StructLayout({"data": self.config.port_bits, "last": 1})
        visit_layout = data.StructLayout({"empty": 1})
        if depth > 1:
            visit_layout = data.StructLayout({"empty": 1, "channels": channel_bits, "final": 1})
        m.submodules.bursts = bursts = fifo.SyncFIFO(width=burst_layout.size, depth=2 * _VISITS)
        m.submodules.visits = visits = fifo.SyncFIFO(width=visit_layout.size, depth=_WORDS)
        m.submodules.words = words = fifo.SyncFIFO(width=word_layout.size, depth=_WORDS)
        burst_in: Any = Signal(burst_layout)
        burst: Any = Signal(burst_layout)
        visit_in: Any = Signal(visit_layout)
        visit: Any = Signal(visit_layout)
        word_in: Any = Signal(word_layout)
        word_out: Any = Signal(word_layout)
        m.d.comb += [
            words.w_data.eq(word_in),
            word_out.eq(words.r_data),
            bursts.w_data.eq(burst_in),
            burst.eq(bursts.r_data),
            visits.w_data.eq(visit_in),
            visit.eq(visits.r_data),
        ]

        # Requests: the place in the sequence of visits, and the burst at hand.
        segment = Signal.like(self.segment.index)
        segments = self.segments[: len(segment) + 1]
        headers_only = Signal()  # an input begins: the first header of each segment
        address = Signal(address_bits)
        left = Signal(count_bits + 1)  # requests of the burst
        none_left, one_left = Signal(), Signal()  # known from registers
        credits = Signal(range(_WORDS + 1), init=_WORDS)
        headers = Signal(range(2 * _VISITS + 1))  # asked for and not yet here
        header_asked, header_here = Signal(), Signal()
        row_steps, row_restarts, input_steps = Signal(), Signal(), Signal()
        last_row, last_input = self._count(m, row_steps, row_restarts, input_steps)
        last_segment = Signal()
        first_input = Signal()
        count = Signal(count_bits)
        no_words, one_word = Signal(), Signal()
        begins_at = Signal(address_bits)  # the burst
        base = Signal(address_bits)  # of the segment's input
        next_base = Signal(address_bits)
        pitch = Signal.like(read_table.data.pitch)
        advanced = Signal(address_bits)  # behind the next request, if there is one
        base_segment = Signal.like(segment)  # whose next base is yet to be written
        new_base = Signal()
        for port in (read_table, read_place, read_count):
            m.d.comb += [port.addr.eq(segment), port.en.eq(0)]
        m.d.comb += [
            read_table.addr.eq(Cat(segment, self.half)),
            read_place.addr.eq(Cat(segment, headers_only)),
        ]
        m.d.comb += [
            count.eq(Mux(headers_only, 0, read_count.data.count)),
            no_words.eq(headers_only | read_count.data.none),
            one_word.eq(read_count.data.one & ~headers_only),
            begins_at.eq(Mux(first_input & headers_only, read_table.data.address, read_place.data)),
            next_base.eq(base + pitch),
            advanced.eq(address + ~none_left),
            burst_in.count.eq(count),
            burst_in.none.eq(no_words),
            burst_in.one.eq(one_word),
            burst_in.header.eq(headers_only | ~last_row),
            burst_in.segment.eq(segment),
            visit_in.empty.eq(no_words),
            self.request.payload.eq(address),
        ]
        if depth > 1:
            m.d.comb += [
                visit_in.channels.eq(read_table.data.channels),
                visit_in.final.eq(last_segment),
            ]

        # Segments are steady for some cycles before it is asked for the last one.
        m.d.sync += last_segment.eq(segment + 1 == segments)
        planning, requesting = Signal(), Signal()
        with m.If(planning | (requesting & self.request.ready)):
            m.d.sync += left.eq(
                Mux(planning, count, left)
                + Cat(~planning | burst_in.header, (~planning).replicate(count_bits))
            )
        with m.If(planning):
            m.d.sync += [
                none_left.eq(~burst_in.header & no_words),
                one_left.eq(Mux(burst_in.header, no_words, one_word)),
            ]
        with m.Elif(requesting & self.request.ready):
            m.d.sync += [none_left.eq(one_left), one_left.eq(left == 2)]
        # A single segment: words that are asked for, those of them that are beyond an input's end,
        # and a request of such a one that waits.
        streams: Value = Signal() if depth > 1 else Const(1)
        due = Signal(range(_WORDS + 1))
        stale = Signal(range(_WORDS + 1))
        none_stale = Signal(init=1)
        stale_request = Signal()
        moves, moves_on = Signal(), Signal()  # the next request, to a burst or to the next input
        ends_input = Signal()
        visits_free = Signal()
        m.d.comb += visits_free.eq(visits.r_level < _VISITS)
        with m.FSM() as requests:
            with m.State("IDLE"), m.If(self.start & (self.segments != 0)):
                m.d.sync += [segment.eq(0), first_input.eq(1), headers_only.eq(1)]
                m.d.comb += row_restarts.eq(1)
                if depth > 1:
                    m.d.sync += streams.eq(self.segments == 1)
                m.next = "LOOK_UP"

            with m.State("LOOK_UP"):
                # Headers may be on their way for every visit since the one that asked for this
                # visit's own; in the last row, which asks for none, for those after this one.
                newer = Mux(last_row, segment, 0)
                m.d.comb += [
                    write_place.en.eq(new_base),
                    write_place.addr.eq(Cat(base_segment, Const(1, 1))),
                    write_place.data.eq(next_base),
                ]
                m.d.sync += new_base.eq(0)
                # Read until the header is here, so that its coming is not in the ports' enable.
                for port in (read_table, read_place, read_count):
                    m.d.comb += port.en.eq(1)
                with m.If(headers_only | (headers + newer < segments)):
                    m.next = "BEGIN"
                    if depth > 1:
                        with m.If(~streams):
                            m.next = "PLAN"

            with m.State("BEGIN"):
                m.d.comb += [planning.eq(1), moves.eq(1)]
                m.next = "STREAM"

            with m.State("STREAM"):
                # A request that waits when its input ends keeps its address.
                offered = stale_request | (credits != 0)
                waits = offered & ~self.request.ready
                m.d.comb += self.request.valid.eq(offered)
                m.d.comb += moves_on.eq((ends_input | stale_request) & ~waits)
                with m.If(ends_input | self.request.ready):
                    m.d.sync += stale_request.eq(waits)
                with m.If(ends_input):
                    m.d.comb += input_steps.eq(1)
                    with m.If(last_input):
                        m.next = "END"

            with m.State("END"):
                # A request that is offered is not withdrawn; its answer, and others, are dropped.
                m.d.comb += self.request.valid.eq(stale_request)
                with m.If(self.request.ready):
                    m.d.sync += stale_request.eq(0)
                with m.If(~stale_request & (due == 0)):
                    m.next = "IDLE"

            if depth > 1:
                with m.State("PLAN"), m.If(bursts.w_rdy & visits_free):
                    m.d.comb += [
                        planning.eq(1),
                        moves.eq(1),
                        bursts.w_en.eq(~no_words | burst_in.header),
                        visits.w_en.eq(~headers_only),
                        header_asked.eq(burst_in.header),
                    ]
                    m.d.sync += [
                        base_segment.eq(segment),
                        new_base.eq(headers_only),
                    ]
                    m.next = "REQUEST"

                with m.State("REQUEST"):
                    m.d.comb += [
                        requesting.eq(~none_left & (credits != 0)),
                        self.request.valid.eq(requesting),
                        write_place.addr.eq(segment),
                        write_place.data.eq(advanced),
                    ]
                    with m.If(none_left | (one_left & requesting & self.request.ready)):
                        m.d.comb += write_place.en.eq(1)
                        m.d.sync += segment.eq(segment + 1)
                        m.next = "LOOK_UP"
                        with m.If(last_segment):
                            m.d.sync += [segment.eq(0), headers_only.eq(0)]
                            m.d.comb += row_steps.eq(~headers_only)
                            with m.If(~headers_only & last_row):
                                m.d.comb += row_restarts.eq(1)
                                m.d.comb += input_steps.eq(1)
                                m.d.sync += [first_input.eq(0), headers_only.eq(1)]
                                with m.If(last_input):
                                    m.next = "IDLE"

        # The next request: at the burst's beginning, at the next input's, or one further.
        with m.If(moves):
            m.d.sync += [
                address.eq(begins_at),
                base.eq(begins_at),
                pitch.eq(read_table.data.pitch),
            ]
        with m.Elif(moves_on):
            m.d.sync += [address.eq(next_base), base.eq(next_base)]
        with m.Elif(self.request.valid & self.request.ready):
            m.d.sync += address.eq(advanced)

        # A response, and what it says as a header; with registered links from registers.
        here: Any = Signal(data.StructLayout({"valid": 1, "data": self.config.port_bits}))
        count_here: Any = Signal(count_layout)
        low = self.response.payload[:count_bits]
        m.d.comb += self.response.ready.eq(1)
        m.d["sync" if self.config.registered_links else "comb"] += [
            here.valid.eq(self.response.valid),
            here.data.eq(self.response.payload),
            count_here.count.eq(low),
            count_here.none.eq(low == 0),
            count_here.one.eq(low == 1),
        ]

        # Responses: words go to the FIFO, `taken` is how many are left of the row, or of the burst
        # once the first one has come. Whether these are none, or one, is known from registers.
        asked = Signal()
        wanted = Signal()  # a response that is of this input
        at_header: Any = count_layout.const({"none": 1})
        taken: Any = Signal(count_layout, init=at_header)
        remaining: Any = Signal(count_layout)
        fresh = Signal(init=1)  # no word of the burst has come
        is_word = Signal()
        m.d.comb += [
            asked.eq(self.request.valid & self.request.ready),
            wanted.eq(here.valid & none_stale),
            self.words_read.eq(wanted),
            word_in.data.eq(here.data),
            words.w_en.eq(wanted & is_word),
            write_count.addr.eq(burst.segment),
            write_count.data.eq(count_here),
            is_word.eq(~remaining.none),
            word_in.last.eq(remaining.one),
        ]
        m.d.comb += [
            remaining[name].eq(Mux(~streams & fresh, burst[name], taken[name]))
            for name in count_layout.members
        ]
        with m.If(wanted):
            m.d.sync += [
                taken.count.eq(Mux(is_word, remaining.count - 1, count_here.count)),
                taken.none.eq(Mux(is_word, remaining.one, count_here.none)),
                taken.one.eq(Mux(is_word, remaining.count == 2, count_here.one)),
                fresh.eq(0),
            ]

        # Of several segments: a header, if one follows, ends a burst and is its segment's count.
        with m.If(~streams):
            m.d.comb += [
                write_count.en.eq(wanted & ~is_word),
                header_here.eq(write_count.en),
            ]
            with m.If(wanted & (~is_word | (word_in.last & ~burst.header))):
                m.d.comb += bursts.r_en.eq(1)
                m.d.sync += fresh.eq(1)

        # Of a single segment: after the words of a row comes the header of the next one.
        with m.Else():
            visit_pushed: Any = Signal(visit_layout)
            final_row = Signal()  # the last header has come
            rows_end = Mux(taken.none, last_row, final_row)
            words_end = Mux(taken.none, visit_pushed.empty, taken.one)
            m.d.comb += [
                visit_pushed.empty.eq(count_here.none),
                visits.w_data.eq(visit_pushed),
                visits.w_en.eq(wanted & taken.none),
                ends_input.eq(wanted & rows_end & words_end),
                row_steps.eq(wanted & taken.none),
            ]
            if depth > 1:
                m.d.comb += [
                    visit_pushed.channels.eq(read_table.data.channels),
                    visit_pushed.final.eq(1),
                ]
            with m.If(wanted & taken.none):
                m.d.sync += final_row.eq(last_row)
            with m.If(ends_input):
                m.d.comb += row_restarts.eq(1)
        with m.If(self.start):
            m.d.sync += [taken.eq(at_header), fresh.eq(1)]

        # Words asked for. At an input's end all that are due are stale. A header's place is free
        # again when it has come, of a single segment when its visit is sent.
        due_next = Signal.like(due)
        stale_here = here.valid & ~none_stale
        freed = Signal(2)
        m.d.comb += [
            due_next.eq(due + asked - here.valid),
            freed.eq(
                (header_here | stale_here)
                + (visits.r_en & visits.r_rdy & streams)
                + (words.r_en & words.r_rdy)
            ),
        ]
        m.d.sync += [
            due.eq(due_next),
            headers.eq(headers + header_asked - header_here),
            credits.eq(credits + freed - asked),
        ]
        with m.If(ends_input):
            m.d.sync += [stale.eq(due_next), none_stale.eq((due == 1) & ~asked)]
        with m.Else():
            m.d.sync += [
                stale.eq(stale + (asked & stale_request) - stale_here),
                none_stale.eq(
                    (none_stale | (here.valid & (stale == 1))) & ~(asked & stale_request)
                ),
            ]

        # Output: the words of a visit, or one empty item.
        empty = Signal()
        last = Signal()
        first_channel = Signal(channel_bits)
        word = self.o.payload
        m.d.comb += [
            empty.eq(visit.empty),
            last.eq(empty | word_out.last),
            word.data.eq(word_out.data),
            word.empty.eq(empty),
            word.last.eq(last),
            word.channels.eq(visit.channels if depth > 1 else read_table.data.channels),
            word.first_channel.eq(first_channel),
            self.o.valid.eq(visits.r_rdy & (empty | words.r_rdy)),
            self.busy.eq(~requests.ongoing("IDLE") | visits.r_rdy),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += [words.r_en.eq(~empty), visits.r_en.eq(last)]
        if depth > 1:  # channels of the row's visits before this one
            with m.If(visits.r_en):
                m.d.sync += first_channel.eq(first_channel + visit.channels)
            with m.If(visits.r_en & visit.final):
                m.d.sync += first_channel.eq(0)

        return m

    def _count(
        self, m: Module, row_steps: Signal, row_restarts: Signal, input_steps: Signal
    ) -> tuple[Signal, Signal]:
        """Count rows and inputs; return whether these are the last ones, of inputs a cycle late."""
        last_row, last_input = Signal(), Signal()
        row = Signal(self.config.map_bits)  # the next one
        inputs = Signal(16)
        next_row, next_input = Signal.like(row), Signal.like(inputs)
        height = self.run.height[: len(row)]
        m.d.comb += [next_row.eq(row + 1), next_input.eq(inputs + 1)]
        with m.If(row_steps):
            m.d.sync += [row.eq(next_row), last_row.eq(next_row == height)]
        with m.If(row_restarts):
            m.d.sync += [row.eq(1), last_row.eq(height == 1)]
        m.d.sync += last_input.eq(next_input == self.run.maps)
        with m.If(input_steps):
            m.d.sync += inputs.eq(next_input)
        with m.If(self.start):
            m.d.sync += inputs.eq(0)
        return last_row, last_input
