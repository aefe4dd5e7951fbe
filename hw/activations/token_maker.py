"""Token maker: turns the positions of a lane's activations into groups of weights to walk.

The sequence is defined in :mod:`thresher.golden.tokens`; here every quotient and product of it is
kept incrementally, but for two: of channel and groups a channel, of stride and groups a phase.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
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
        max(``pad_x``, ``pad_y``) + 2 more from input to input.
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
        group_bits = self.config.group_bits
        layout = _position_layout(self.config)
        kernel_width = run.kernel_width[:group_bits]

        # Positions: of this row, of the first position in a row, of the activation at hand.
        y: Any = Signal(layout)
        x: Any = Signal(layout)
        x_first: Any = Signal(layout)
        x_from: Any = Signal(layout)
        y_next: Any = Signal(layout)
        x_next: Any = Signal(layout)
        group_base = Signal(group_bits)  # of this input or round
        phase_row = Signal(group_bits)  # groups of stride_x phases
        y_more = Signal(signed(map_bits + 1))  # kernel rows that meet an output, but one
        fresh = Signal()  # the next item is the first of a visit, or the padding is walked over
        preparing = Signal()
        steps = Signal()
        m.d.comb += [
            x_from.eq(Mux(fresh, x_first, x)),
            steps.eq(preparing | self.i.payload.step),
        ]
        m.d.sync += phase_row.eq(run.stride_x * run.phase_groups)
        y_grows, y_shrinks = self._advance(
            m, y, y_next, y=True, steps=Const(1), first=group_base, groups=phase_row
        )
        self._advance(
            m, x_from, x_next, y=False, steps=steps, first=Const(0), groups=run.phase_groups
        )

        # First stage: an item or a marker. Second: its groups, and how often they repeat; those
        # before the channel's come late, from a multiplier, and are apart. Third: the token.
        s1: Any = Signal(data.StructLayout({"valid": 1, "marker": 1, "open": 1}))
        s1_item: Any = Signal(activation_layout(self.config))
        s1_free = Signal()
        s1_empty = Signal()  # for a marker; with registered links known from a register
        s2: Any = Signal(
            data.StructLayout(
                {
                    "valid": unsigned(1),
                    "marker": unsigned(1),
                    "open": unsigned(1),
                    "row": unsigned(group_bits),
                    "low": unsigned(group_bits),
                    "high": unsigned(group_bits),
                    "base": unsigned(self.config.offset_bits),
                    "value": signed(self.config.activation_bits),
                }
            )
        )
        offset = Signal(group_bits)  # groups before the channel's
        repeats = Signal(map_bits)  # that follow
        is_last = Signal()  # none does
        s2_free = Signal()
        o_free = Signal()
        row_low = Signal(group_bits)
        row_span = Signal(group_bits)
        row_more = Signal.like(y_more)
        m.d.comb += [
            o_free.eq(~self.o.valid | self.o.ready),
            s2_free.eq(~s2.valid | (o_free & is_last)),
            s1_free.eq(~s1.valid | s2_free),
            s1_empty.eq(~s1.valid if self.config.registered_links else s1_free),
        ]

        whole = Signal()
        met = Signal()
        m.d.comb += [
            whole.eq((x.low == 0) & (x.high == kernel_width)),
            met.eq((x.low != x.high) & (row_more >= 0)),
        ]
        with m.If(s2_free):
            m.d.sync += [
                s2.valid.eq(s1.valid & (s1.marker | met)),
                s2.marker.eq(s1.marker),
                s2.open.eq(s1.open),
                s2.value.eq(s1_item.value),
                s2.base.eq(y.base + x.base),
                s2.row.eq(row_low + x.groups),
                s2.low.eq(x.low),
                s2.high.eq(Mux(whole, row_span, x.high)),
                offset.eq(s1_item.channel * run.channel_groups),
                repeats.eq(Mux(s1.marker | whole, 0, row_more)),
                is_last.eq(s1.marker | whole | (row_more == 0)),
            ]
        with m.Elif(o_free):
            m.d.sync += [
                repeats.eq(repeats - 1),
                is_last.eq(repeats == 1),
                s2.row.eq(s2.row + kernel_width),
            ]

        # Output stage: a register, so that payload and valid hold during a stall.
        token = self.o.payload
        first_group = Signal(group_bits)
        m.d.comb += first_group.eq(s2.row + offset)
        with m.If(o_free):
            m.d.sync += [
                self.o.valid.eq(s2.valid),
                token.marker.eq(s2.marker),
                token.open.eq(s2.open),
                token.value.eq(s2.value),
                token.base.eq(s2.base),
                token.lo.eq(first_group + s2.low),
                token.hi.eq(first_group + s2.high),
            ]
        with m.If(o_free & s2.marker):
            m.d.sync += [field.eq(0) for field in (token.value, token.base, token.lo, token.hi)]
        m.d.comb += [
            self.tokens_sent.eq(self.o.valid & self.o.ready & ~self.o.payload.marker),
            self.blocked.eq(self.o.valid & ~self.o.ready),
        ]

        # Sequence of rows. Output row n opens when opens_in <= 0, completes when completes_in <= 1.
        # What is counted is driven outside of the states, so that each counter is one adder.
        map_base = Signal(self.config.offset_bits)
        walked = Signal(8)  # of the padding
        x_walked, y_walked = Signal(), Signal()
        opened, completed = Signal(map_bits), Signal(map_bits)
        opens_in, completes_in = Signal(signed(map_bits + 2)), Signal(signed(map_bits + 2))
        opens, completes = Signal(), Signal()
        starts, begins, y_step, x_first_step = Signal(), Signal(), Signal(), Signal()
        row_begins, row_steps, visit_ends, input_steps = Signal(), Signal(), Signal(), Signal()
        last_row, last_input = Signal(), Signal()

        with m.If(s1_free):
            m.d.sync += [s1.valid.eq(0), s1.marker.eq(0), s1.open.eq(0)]
        for happens, count, wait, first in (
            (opens, opened, opens_in, 0),
            (completes, completed, completes_in, run.extent_y),
        ):
            with m.If(happens):
                m.d.sync += count.eq(count + 1)
            with m.If(happens | y_step):
                m.d.sync += wait.eq(wait + Mux(happens, Cat(run.stride_y, Const(0, 1)), -1))
            with m.If(begins):
                m.d.sync += [count.eq(0), wait.eq(first)]
        with m.If(opens | completes):
            m.d.sync += [s1.valid.eq(1), s1.marker.eq(1), s1.open.eq(opens)]

        with m.If(y_step):
            m.d.sync += y.eq(y_next)
        with m.If(y_step & (y_grows != y_shrinks)):
            m.d.sync += y_more.eq(y_more + Cat(Const(1, 1), y_shrinks.replicate(map_bits)))
        with m.If(x_first_step):
            m.d.sync += x_first.eq(x_next)
        with m.If(begins):
            m.d.sync += [
                x_first.eq(0),
                x_first.high.eq(1),
                y.eq(0),
                y.groups.eq(group_base),
                y.base.eq(map_base),
                y.high.eq(kernel_width),
                y_more.eq(0),
                fresh.eq(1),
            ]
        last_segment = self._count_segments(m, row_begins, visit_ends)
        self._count_rows(m, begins, row_steps, last_row)
        self._count_inputs(m, starts, input_steps, last_input)
        with m.If(input_steps):
            m.d.sync += [
                map_base.eq(map_base + run.map_size),
                group_base.eq(group_base + run.round_groups),
            ]
        with m.If(starts):
            m.d.sync += [map_base.eq(0), group_base.eq(run.group_base)]

        # Whether a row opens or completes; with registered links from a register, for then a marker
        # waits until there is nothing in the first stage, which is two cycles after the one before.
        may_open, may_complete, none_is_open = Signal(), Signal(), Signal()
        m.d["sync" if self.config.registered_links else "comb"] += [
            may_open.eq(_passed(opens_in) & (opened != run.out_height[:map_bits])),
            may_complete.eq(
                (completed != run.out_height[:map_bits])
                & (last_row | completes_in[-1] | ~completes_in[1:].any())
            ),
            none_is_open.eq(opened == completed),
        ]

        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.comb += starts.eq(1)
                m.d.sync += self.busy.eq(1)
                m.next = "INPUT"

            with m.State("INPUT"):
                m.d.comb += begins.eq(1)
                m.next = "PAD"

            with m.State("PAD"):
                # Walk over the padding, which divides it by the stride.
                m.d.comb += [
                    preparing.eq(1),
                    x_first_step.eq(~x_walked & (walked != run.pad_x)),
                    y_step.eq(~y_walked & (walked != run.pad_y)),
                ]
                with m.If(~x_first_step & ~y_step):
                    m.next = "ROW"

            with m.State("ROW"):
                m.d.comb += row_begins.eq(1)
                m.d.sync += fresh.eq(1)
                m.next = "OPEN"

            with m.State("OPEN"):
                with m.If(may_open):
                    m.d.comb += opens.eq(s1_empty)
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
                        x.eq(x_next),
                        fresh.eq(self.i.payload.last),
                    ]
                    m.d.comb += visit_ends.eq(self.i.payload.last)
                    with m.If(visit_ends & last_segment):
                        m.next = "COMPLETE"

            with m.State("COMPLETE"), m.If(s1_empty):
                with m.If(may_complete):
                    m.d.comb += [opens.eq(none_is_open), completes.eq(~none_is_open)]
                with m.Elif(~last_row):
                    m.d.comb += [y_step.eq(1), row_steps.eq(1)]
                    m.next = "ROW"
                with m.Elif(~last_input):
                    m.d.comb += input_steps.eq(1)
                    m.next = "INPUT"
                with m.Else():
                    m.next = "DRAIN"

            with m.State("DRAIN"), m.If(~s1.valid & ~s2.valid & o_free):
                m.d.sync += self.busy.eq(0)
                m.next = "IDLE"

        # A row's kernel rows; the padding that was walked over.
        with m.If(row_begins):
            m.d.sync += [
                row_low.eq(y.groups + y.low),
                row_span.eq(y.high - y.low),
                row_more.eq(y_more),
            ]
        with m.If(preparing):
            m.d.sync += [
                walked.eq(walked + 1),
                x_walked.eq(~x_first_step),
                y_walked.eq(~y_step),
            ]
        with m.If(begins):
            m.d.sync += [walked.eq(0), x_walked.eq(0), y_walked.eq(0)]
        return m

    def _count_segments(self, m: Module, begins: Signal, steps: Signal) -> Signal:
        """Count the visits of a row; return whether this is the last one."""
        segments = self.segments[: self.config.segments.bit_length()]
        behind = Signal.like(segments)  # number of the next one
        is_last = Signal()
        with m.If(steps):
            m.d.sync += [behind.eq(behind + 1), is_last.eq(behind + 1 == segments)]
        with m.If(begins):
            m.d.sync += [behind.eq(1), is_last.eq(segments == 1)]
        return is_last

    def _count_rows(self, m: Module, begins: Signal, steps: Signal, is_last: Signal) -> None:
        """Count the rows of an input; they are steady for some cycles before the last is asked."""
        row = Signal(self.config.map_bits)
        behind = Signal.like(row)
        m.d.comb += behind.eq(row + 1)
        m.d.sync += is_last.eq(behind == self.run.height[: len(row)])
        with m.If(steps):
            m.d.sync += row.eq(behind)
        with m.If(begins):
            m.d.sync += row.eq(0)

    def _count_inputs(self, m: Module, begins: Signal, steps: Signal, is_last: Signal) -> None:
        """Count inputs likewise."""
        inputs = Signal(16)
        behind = Signal.like(inputs)
        m.d.comb += behind.eq(inputs + 1)
        m.d.sync += is_last.eq(behind == self.run.maps)
        with m.If(steps):
            m.d.sync += inputs.eq(behind)
        with m.If(begins):
            m.d.sync += inputs.eq(0)

    def _advance(
        self, m: Module, now: Any, after: Any, *, y: bool, steps: Value, first: Value, groups: Value
    ) -> tuple[Signal, Signal]:
        """Set ``after`` to one input position beyond ``now``, if it steps, in one dimension.

        Returns whether a kernel index more meets an output, and whether the first one ceases to.
        Each field is one sum, with nothing to choose behind it.
        """
        run = self.run
        bits = self.config.group_bits
        last_phase = Signal(8)  # of a run, from registers
        last_place = Signal(self.config.map_bits)
        m.d.sync += [
            last_phase.eq((run.stride_y if y else run.stride_x) - 1),
            last_place.eq((run.out_height if y else run.out_width) - 1),
        ]
        all_groups = (run.phase_groups if y else run.kernel_width)[:bits]
        by: Value = run.kernel_width[:bits] if y else Const(1, 1)
        size = run.row_size if y else run.channels
        next_phase, next_place, at_end = Signal(), Signal(), Signal()
        grows, shrinks = Signal(), Signal()
        m.d.comb += [
            next_place.eq(steps & (now.phase == last_phase)),
            next_phase.eq(steps & (now.phase != last_phase)),
            at_end.eq(now.place == last_place),
            grows.eq(next_place & (now.high != all_groups)),
            shrinks.eq(next_place & at_end & (now.low != now.high)),
            after.phase.eq(Mux(next_place, 0, now.phase) + next_phase),
            after.groups.eq(Mux(next_place, first, now.groups) + Mux(next_phase, groups, 0)),
            after.base.eq(now.base + Mux(next_place, size, 0)),
            after.place.eq(now.place + (next_place & ~at_end)),
            after.high.eq(now.high + Mux(grows, by, 0)),
            after.low.eq(now.low + Mux(shrinks, by, 0)),
        ]
        return grows, shrinks


def _passed(wait: Signal) -> Value:
    """Whether a count is 0 or less."""
    return wait[-1] | ~wait.any()
