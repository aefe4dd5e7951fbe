"""Token maker: turns the positions of a lane's activations into groups of weights to walk.

The sequence is defined in :mod:`thresher.golden.tokens`; here every quotient and product of it is
kept incrementally, but for one product, of channel and groups a channel.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import activation_layout, record_layout, token_layout

__all__ = ["TokenMaker"]


def _position_layout(config: Config) -> data.StructLayout:
    """State of one dimension: a position and what follows from it.

    ``low`` and ``high`` are the first kernel index that meets an output and the one behind the
    last, in y times the groups of a kernel row.
    """
    return data.StructLayout(
        {
            "phase": unsigned(8),  # (input position + pad) % stride
            "place": unsigned(config.map_bits),  # the quotient; no further than the last output
            "groups": unsigned(config.group_bits),  # first one of the phase
            "base": unsigned(config.offset_bits),  # accumulators before this place
            "low": unsigned(config.group_bits),
            "high": unsigned(config.group_bits),
        }
    )


class TokenMaker(wiring.Component):
    """Send the tokens of a lane, and the markers that open and complete output rows.

    For each input row: the markers of the output rows that open with it, the tokens of its
    activations, the markers of the output rows that it completes. A lane without segments sends
    the markers alone. An output row that lies beyond the last input row opens when it completes.

    Timing contract
    ---------------
    Latency
        A hit accepted in cycle ``t`` shows its token in cycle ``t + 3``.
    Throughput
        One item a cycle; a hit at the left or right edge of the map takes one cycle for each
        kernel row that it meets. Three cycles and one for each marker from row to row;
        ``stride_x`` + max(``pad_x``, ``pad_y``) + 2 more from input to input.
    Combinational paths
        ``o.ready`` to ``i.ready``. ``o`` is driven from registers alone.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    i : ``In(stream.Signature(activation_layout(config)))``
        Items of the visits: for each input, row and segment one visit.
    run : ``In(record_layout(RUN))``
        The run; steady while busy.
    segments : ``In(16)``
        Segments of the lane; steady while busy.
    start : ``In(1)``
        Pulse: begin.
    busy : ``Out(1)``
        From the cycle after ``start`` until the last marker has been taken.
    o : ``Out(stream.Signature(token_layout(config)))``
        Tokens. In a marker all other fields are 0.
    tokens_sent : ``Out(1)``
        Pulse: a token that is no marker is accepted.
    blocked : ``Out(1)``
        A token is offered and not accepted.
    """

    i: stream.Interface
    run: Any
    segments: Signal
    start: Signal
    busy: Signal
    o: stream.Interface
    tokens_sent: Signal
    blocked: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(config))),
                "run": In(record_layout(RUN)),
                "segments": In(16),
                "start": In(1),
                "busy": Out(1),
                "o": Out(stream.Signature(token_layout(config))),
                "tokens_sent": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        run = self.run
        map_bits = self.config.map_bits
        layout = _position_layout(self.config)

        # Positions: of this row, of the first position in a row, of the activation at hand.
        y: Any = Signal(layout)
        y_next: Any = Signal(layout)
        x: Any = Signal(layout)
        x_next: Any = Signal(layout)
        x_first: Any = Signal(layout)
        x_from: Any = Signal(layout)
        group_base = Signal(self.config.group_bits)  # of this input or round
        phase_row = Signal(self.config.group_bits)  # groups of stride_x phases
        y_count = Signal(map_bits + 1)  # kernel rows that meet an output
        fresh = Signal()  # the next item is the first of a visit
        preparing = Signal()
        m.d.comb += x_from.eq(Mux(preparing | fresh, x_first, x))
        y_grows, y_shrinks = self._advance(m, y, y_next, y=True, first=group_base, groups=phase_row)
        self._advance(m, x_from, x_next, y=False, first=0, groups=run.phase_groups)

        # First stage: an item or a marker. Second: its groups, and how often they repeat.
        s1: Any = Signal(data.StructLayout({"valid": 1, "marker": 1, "open": 1}))
        s1_item: Any = Signal(activation_layout(self.config))
        s1_free = Signal()
        token: Any = Signal(token_layout(self.config))  # lo, hi without the channel's groups
        channel_groups = Signal(self.config.group_bits)
        repeats = Signal.like(y_count)
        s2_free = Signal()
        o_free = Signal()
        row_low = Signal(self.config.group_bits)
        row_high = Signal.like(row_low)
        row_count = Signal.like(y_count)
        m.d.comb += [
            o_free.eq(~self.o.valid | self.o.ready),
            s2_free.eq((repeats == 0) | (o_free & (repeats == 1))),
            s1_free.eq(~s1.valid | s2_free),
        ]

        whole = Signal()
        m.d.comb += whole.eq((x.low == 0) & (x.high == run.kernel_width))
        with m.If(s2_free):
            met = (x.low != x.high) & (row_count != 0)
            m.d.sync += [
                repeats.eq(Mux(s1.marker | whole, 1, row_count)),
                token.marker.eq(s1.marker),
                token.open.eq(s1.open),
                token.value.eq(s1_item.value),
                token.base.eq(y.base + x.base),
                token.lo.eq(row_low + x.groups + x.low),
                token.hi.eq(Mux(whole, row_high, row_low + x.high) + x.groups),
                channel_groups.eq(s1_item.channel * run.channel_groups),
            ]
            with m.If(~s1.valid | ~(s1.marker | met)):
                m.d.sync += repeats.eq(0)
        with m.Elif(o_free):
            m.d.sync += [
                repeats.eq(repeats - 1),
                token.lo.eq(token.lo + run.kernel_width),
                token.hi.eq(token.hi + run.kernel_width),
            ]

        # Output stage: a register, so that payload and valid hold during a stall.
        with m.If(o_free):
            m.d.sync += [self.o.valid.eq(repeats != 0), self.o.payload.eq(token)]
            with m.If(token.marker):
                m.d.sync += [
                    self.o.payload.lo.eq(0),
                    self.o.payload.hi.eq(0),
                    self.o.payload.base.eq(0),
                    self.o.payload.value.eq(0),
                ]
            with m.Else():
                m.d.sync += [
                    self.o.payload.lo.eq(token.lo + channel_groups),
                    self.o.payload.hi.eq(token.hi + channel_groups),
                ]
        m.d.comb += [
            self.tokens_sent.eq(self.o.valid & self.o.ready & ~self.o.payload.marker),
            self.blocked.eq(self.o.valid & ~self.o.ready),
        ]

        # Sequence of rows. Output row n opens when opens_in <= 0, completes when completes_in <= 1.
        inputs = Signal(16)
        map_base = Signal(self.config.offset_bits)
        row = Signal(map_bits)
        segment = Signal(range(self.config.segments + 1))
        walked = Signal(8)  # of the phases of a row, then of the padding
        walks_padding = Signal()
        opened, completed = Signal(map_bits), Signal(map_bits)
        opens_in, completes_in = Signal(signed(map_bits + 2)), Signal(signed(map_bits + 2))
        y_step = Signal()
        last_row = Signal()
        opens, completes = Signal(), Signal()
        # Rows and inputs are steady for some cycles before it is asked for the last one.
        last_input, last_segment = Signal(), Signal()
        m.d.sync += [
            last_row.eq(row + 1 == run.height),
            last_input.eq(inputs + 1 == run.maps),
        ]

        with m.If(s1_free):
            m.d.sync += [s1.valid.eq(0), s1.marker.eq(0), s1.open.eq(0)]
        for happens, count, wait in (
            (opens, opened, opens_in),
            (completes, completed, completes_in),
        ):
            with m.If(happens):
                m.d.sync += count.eq(count + 1)
            with m.If(happens | y_step):
                m.d.sync += wait.eq(wait + Mux(happens, Cat(run.stride_y, Const(0, 1)), -1))
        with m.If(y_step):
            m.d.sync += [y.eq(y_next), y_count.eq(y_count + y_grows - y_shrinks)]
        with m.If(opens | completes):
            m.d.sync += [s1.valid.eq(1), s1.marker.eq(1), s1.open.eq(opens)]

        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.busy.eq(1), inputs.eq(0), map_base.eq(0)]
                m.d.sync += group_base.eq(run.group_base)
                m.next = "INPUT"

            with m.State("INPUT"):
                m.d.sync += [
                    x_first.eq(0),
                    x_first.high.eq(1),
                    y.eq(0),
                    y.groups.eq(group_base),
                    y.base.eq(map_base),
                    y.high.eq(run.kernel_width),
                    y_count.eq(1),
                    phase_row.eq(0),
                    walked.eq(0),
                    walks_padding.eq(0),
                    row.eq(0),
                    opened.eq(0),
                    completed.eq(0),
                    opens_in.eq(0),
                    completes_in.eq(run.extent_y),
                ]
                m.next = "PAD"

            with m.State("PAD"):
                # Walk over the padding, which divides it by the stride.
                m.d.comb += preparing.eq(1)
                m.d.sync += walked.eq(walked + 1)
                with m.If(walks_padding):
                    with m.If(walked < run.pad_x):
                        m.d.sync += x_first.eq(x_next)
                    m.d.comb += y_step.eq(walked < run.pad_y)
                    with m.If((walked >= run.pad_x) & ~y_step):
                        m.next = "ROW"
                with m.Else():
                    m.d.sync += phase_row.eq(phase_row + run.phase_groups)
                    with m.If(walked + 1 == run.stride_x):
                        m.d.sync += [walked.eq(0), walks_padding.eq(1)]

            with m.State("ROW"):
                m.d.sync += [
                    row_low.eq(y.groups + y.low),
                    row_high.eq(y.groups + y.high),
                    row_count.eq(y_count),
                    segment.eq(0),
                    last_segment.eq(self.segments == 1),
                    fresh.eq(1),
                ]
                m.next = "OPEN"

            with m.State("OPEN"):
                with m.If((opens_in <= 0) & (opened != run.out_height)):
                    m.d.comb += opens.eq(s1_free)
                with m.Elif(self.segments == 0):
                    m.next = "COMPLETE"
                with m.Else():
                    m.next = "TOKENS"

            with m.State("TOKENS"):
                m.d.comb += self.i.ready.eq(s1_free)
                with m.If(self.i.valid & s1_free):
                    m.d.sync += [
                        s1.valid.eq(self.i.payload.hit),
                        s1_item.eq(self.i.payload),
                        x.eq(Mux(self.i.payload.step, x_next, x_from)),
                        fresh.eq(self.i.payload.last),
                    ]
                    with m.If(self.i.payload.last):
                        m.d.sync += [
                            segment.eq(segment + 1),
                            last_segment.eq(segment + 2 == self.segments),
                        ]
                        with m.If(last_segment):
                            m.next = "COMPLETE"

            with m.State("COMPLETE"), m.If(s1_free):
                with m.If((completed != run.out_height) & (last_row | (completes_in <= 1))):
                    m.d.comb += [opens.eq(opened == completed), completes.eq(opened != completed)]
                with m.Elif(~last_row):
                    m.d.comb += y_step.eq(1)
                    m.d.sync += row.eq(row + 1)
                    m.next = "ROW"
                with m.Elif(~last_input):
                    m.d.sync += [
                        inputs.eq(inputs + 1),
                        map_base.eq(map_base + run.map_size),
                        group_base.eq(group_base + run.round_groups),
                    ]
                    m.next = "INPUT"
                with m.Else():
                    m.next = "DRAIN"

            with m.State("DRAIN"), m.If(~s1.valid & (repeats == 0) & o_free):
                m.d.sync += self.busy.eq(0)
                m.next = "IDLE"

        return m

    def _advance(
        self, m: Module, now: Any, after: Any, *, y: bool, first: Any, groups: Any
    ) -> tuple[Signal, Signal]:
        """Set ``after`` to one input position beyond ``now`` in one dimension.

        Returns whether a kernel index more meets an output, and whether the first one ceases to.
        """
        run = self.run
        stride = run.stride_y if y else run.stride_x
        outputs = run.out_height if y else run.out_width
        all_groups = run.phase_groups if y else run.kernel_width
        by = run.kernel_width if y else 1
        grows, shrinks, next_place = Signal(), Signal(), Signal()
        m.d.comb += [
            after.eq(now),
            next_place.eq(now.phase + 1 == stride),
            grows.eq(next_place & (now.high != all_groups)),
            shrinks.eq(next_place & (now.place + 1 == outputs) & (now.low != now.high)),
        ]
        with m.If(next_place):
            m.d.comb += [
                after.phase.eq(0),
                after.groups.eq(first),
                after.base.eq(now.base + (run.row_size if y else run.channels)),
            ]
            with m.If(now.place + 1 != outputs):
                m.d.comb += after.place.eq(now.place + 1)
        with m.Else():
            m.d.comb += [after.phase.eq(now.phase + 1), after.groups.eq(now.groups + groups)]
        with m.If(grows):
            m.d.comb += after.high.eq(now.high + by)
        with m.If(shrinks):
            m.d.comb += after.low.eq(now.low + by)
        return grows, shrinks
