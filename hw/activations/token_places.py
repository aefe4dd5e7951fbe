"""Where in its map a token maker is, and what follows from that, kept incrementally."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data

from thresher.golden.config import Config

if TYPE_CHECKING:
    from thresher.hw.activations.token_maker import TokenMaker

__all__ = ["TokenPlaces"]


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


class TokenPlaces:
    """Positions of this row, of the first one in a row, and of the activation at hand.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The token maker's.

    Attributes
    ----------
    y, x, x_next
        Position of the row, of the activation before, and of the one on offer.
    row_low, row_span, row_more
        Of the row: its first group, groups, and kernel rows that meet an output, but one; -1: none.
    fresh
        The next activation is the first of a visit, or the padding is walked over.
    preparing
        The padding is walked over.
    starts, begins, input_steps
        A run starts; an input begins, or goes on to the next one.
    y_step, x_first_step, row_begins
        The row, and the first position in a row, are one further; the row is steady.
    """

    y: Any
    x: Any
    x_next: Any

    def __init__(self, m: Module, ports: TokenMaker) -> None:
        self.m, self.run, self.config = m, ports.run, ports.config
        self.starts, self.begins, self.input_steps = Signal(), Signal(), Signal()
        self.y_step, self.x_first_step, self.row_begins = Signal(), Signal(), Signal()
        self.fresh, self.preparing = Signal(), Signal()
        self.kernel_width = self.run.kernel_width[: self.config.group_bits]
        self.group_base = Signal(self.config.group_bits)  # of this input or round
        self._move_x(ports.i.payload.step)
        self._move_y()
        self._measure_row()

    def _move_x(self, step: Value) -> None:
        """Move on within a row, from its first position, which is behind the padding."""
        m, layout = self.m, _position_layout(self.config)
        self.x = Signal(layout)
        self.x_next = Signal(layout)
        x_first: Any = Signal(layout)
        x_from: Any = Signal(layout)
        steps = Signal()
        m.d.comb += [
            x_from.eq(Mux(self.fresh, x_first, self.x)),
            steps.eq(self.preparing | step),
        ]
        self._advance(
            x_from,
            self.x_next,
            y=False,
            steps=steps,
            first=Const(0),
            groups=self.run.phase_groups,
        )
        with m.If(self.x_first_step):
            m.d.sync += x_first.eq(self.x_next)
        with m.If(self.begins):
            m.d.sync += [x_first.eq(0), x_first.high.eq(1), self.fresh.eq(1)]

    def _move_y(self) -> None:
        """Move from row to row and from input to input."""
        m, run, y_step = self.m, self.run, self.y_step
        layout = _position_layout(self.config)
        self.y = Signal(layout)
        y = self.y
        y_next: Any = Signal(layout)
        map_base = Signal(self.config.offset_bits)
        phase_row = Signal(self.config.group_bits)  # groups of stride_x phases
        self.y_more = Signal(signed(self.config.map_bits + 1))  # as row_more, of y
        m.d.sync += phase_row.eq(run.stride_x * run.phase_groups)
        grows, shrinks = self._advance(
            y, y_next, y=True, steps=Const(1), first=self.group_base, groups=phase_row
        )
        with m.If(y_step):
            m.d.sync += y.eq(y_next)
        with m.If(y_step & (grows != shrinks)):
            more = Cat(Const(1, 1), shrinks.replicate(self.config.map_bits))
            m.d.sync += self.y_more.eq(self.y_more + more)
        with m.If(self.begins):
            m.d.sync += [
                y.eq(0),
                y.groups.eq(self.group_base),
                y.base.eq(map_base),
                y.high.eq(self.kernel_width),
                self.y_more.eq(0),
            ]
        with m.If(self.input_steps):
            m.d.sync += [
                map_base.eq(map_base + run.map_size),
                self.group_base.eq(self.group_base + run.round_groups),
            ]
        with m.If(self.starts):
            m.d.sync += [map_base.eq(0), self.group_base.eq(run.group_base)]

    def _measure_row(self) -> None:
        """Work out a row's groups, and its kernel rows."""
        m, y = self.m, self.y
        self.row_low = Signal(self.config.group_bits)
        self.row_span = Signal(self.config.group_bits)
        self.row_more = Signal.like(self.y_more)
        with m.If(self.row_begins):
            m.d.sync += [
                self.row_low.eq(y.groups + y.low),
                self.row_span.eq(y.high - y.low),
                self.row_more.eq(self.y_more),
            ]

    def _advance(
        self, now: Any, after: Any, *, y: bool, steps: Value, first: Value, groups: Value
    ) -> tuple[Signal, Signal]:
        """Set ``after`` to one input position beyond ``now``, if it steps, in one dimension.

        Returns whether a kernel index more meets an output, and whether the first one ceases to.
        Each field is one sum, with nothing to choose behind it.
        """
        m, run = self.m, self.run
        bits = self.config.group_bits
        last_phase = Signal(8)  # of a run, from registers
        last_place = Signal(self.config.map_bits)
        m.d.sync += [
            last_phase.eq((run.stride_y if y else run.stride_x) - 1),
            last_place.eq((run.out_height if y else run.out_width) - 1),
        ]
        all_groups = (run.phase_groups if y else run.kernel_width)[:bits]
        by: Value = self.kernel_width if y else Const(1, 1)
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
