"""The order in which a token maker does what: rows, their activations and their markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from thresher.hw.activations.token_places import TokenPlaces
from thresher.hw.activations.token_stages import TokenStages

if TYPE_CHECKING:
    from thresher.hw.activations.token_maker import TokenMaker

__all__ = ["TokenSequence"]


class TokenSequence:
    """The states of a token maker, and what is counted.

    What is counted is driven outside of the states, so that each counter is one adder.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The token maker's.
    places
        Are told to move.
    stages
        Receive items and markers.
    """

    def __init__(
        self, m: Module, ports: TokenMaker, places: TokenPlaces, stages: TokenStages
    ) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        self.places, self.stages = places, stages
        self._count_padding()
        self._count_segments()
        self._count_rows()
        self._count_inputs()
        self._count_outputs()
        with m.FSM():
            with m.State("IDLE"), m.If(ports.start):
                m.d.comb += places.starts.eq(1)
                m.d.sync += ports.busy.eq(1)
                m.next = "INPUT"
            with m.State("INPUT"):
                m.d.comb += places.begins.eq(1)
                m.next = "PAD"
            with m.State("PAD"):
                self._walk_padding()
            with m.State("ROW"):
                m.d.comb += places.row_begins.eq(1)
                m.d.sync += places.fresh.eq(1)
                m.next = "OPEN"
            with m.State("OPEN"):
                self._open_outputs()
            with m.State("TOKENS"):
                self._take_items()
            with m.State("COMPLETE"), m.If(stages.first_empty):
                self._complete_outputs()
            with m.State("DRAIN"), m.If(stages.empty):
                m.d.sync += ports.busy.eq(0)
                m.next = "IDLE"

    def _count_padding(self) -> None:
        """Count the padding that was walked over."""
        m, places = self.m, self.places
        self.walked = Signal(8)
        self.x_walked, self.y_walked = Signal(), Signal()
        with m.If(places.preparing):
            m.d.sync += [
                self.walked.eq(self.walked + 1),
                self.x_walked.eq(~places.x_first_step),
                self.y_walked.eq(~places.y_step),
            ]
        with m.If(places.begins):
            m.d.sync += [self.walked.eq(0), self.x_walked.eq(0), self.y_walked.eq(0)]

    def _count_segments(self) -> None:
        """Count the visits of a row."""
        m = self.m
        segments = self.ports.segments[: self.config.segments.bit_length()]
        behind = Signal.like(segments)  # number of the next one
        self.visit_ends = Signal()
        self.last_segment = Signal()
        with m.If(self.visit_ends):
            m.d.sync += [behind.eq(behind + 1), self.last_segment.eq(behind + 1 == segments)]
        with m.If(self.places.row_begins):
            m.d.sync += [behind.eq(1), self.last_segment.eq(segments == 1)]

    def _count_rows(self) -> None:
        """Count the rows of an input; they are steady for some cycles before the last is asked."""
        m = self.m
        row = Signal(self.config.map_bits)
        behind = Signal.like(row)
        self.row_steps = Signal()
        self.last_row = Signal()
        m.d.comb += behind.eq(row + 1)
        m.d.sync += self.last_row.eq(behind == self.ports.run.height[: len(row)])
        with m.If(self.row_steps):
            m.d.sync += row.eq(behind)
        with m.If(self.places.begins):
            m.d.sync += row.eq(0)

    def _count_inputs(self) -> None:
        """Count inputs likewise."""
        m = self.m
        inputs = Signal(16)
        behind = Signal.like(inputs)
        self.last_input = Signal()
        m.d.comb += behind.eq(inputs + 1)
        m.d.sync += self.last_input.eq(behind == self.ports.run.maps)
        with m.If(self.places.input_steps):
            m.d.sync += inputs.eq(behind)
        with m.If(self.places.starts):
            m.d.sync += inputs.eq(0)

    def _count_outputs(self) -> None:
        """Count output rows: row n opens when opens_in <= 0, completes when completes_in <= 1.

        With registered links it is known from a register whether one does, for then a marker waits
        until there is nothing in the first stage, which is two cycles after the one before.
        """
        m, run, stages, map_bits = self.m, self.ports.run, self.stages, self.config.map_bits
        opened, completed = Signal(map_bits), Signal(map_bits)
        opens_in, completes_in = Signal(signed(map_bits + 2)), Signal(signed(map_bits + 2))
        for happens, count, wait, first in (
            (stages.opens, opened, opens_in, 0),
            (stages.completes, completed, completes_in, run.extent_y),
        ):
            with m.If(happens):
                m.d.sync += count.eq(count + 1)
            with m.If(happens | self.places.y_step):
                m.d.sync += wait.eq(wait + Mux(happens, Cat(run.stride_y, Const(0, 1)), -1))
            with m.If(self.places.begins):
                m.d.sync += [count.eq(0), wait.eq(first)]
        self.may_open, self.may_complete = Signal(), Signal()
        self.none_is_open = Signal()
        m.d["sync" if self.config.registered_links else "comb"] += [
            self.may_open.eq(_passed(opens_in) & (opened != run.out_height[:map_bits])),
            self.may_complete.eq(
                (completed != run.out_height[:map_bits])
                & (self.last_row | completes_in[-1] | ~completes_in[1:].any())
            ),
            self.none_is_open.eq(opened == completed),
        ]

    def _walk_padding(self) -> None:
        """Walk over the padding, which divides it by the stride."""
        m, places, run = self.m, self.places, self.ports.run
        m.d.comb += [
            places.preparing.eq(1),
            places.x_first_step.eq(~self.x_walked & (self.walked != run.pad_x)),
            places.y_step.eq(~self.y_walked & (self.walked != run.pad_y)),
        ]
        with m.If(~places.x_first_step & ~places.y_step):
            m.next = "ROW"

    def _open_outputs(self) -> None:
        """Send the markers of the output rows that open with this row."""
        m, stages = self.m, self.stages
        with m.If(self.may_open):
            m.d.comb += stages.opens.eq(stages.first_empty)
        with m.Elif(self.ports.segments == 0):
            m.next = "COMPLETE"
        with m.Else():
            m.next = "TOKENS"

    def _take_items(self) -> None:
        """Take the row's items, visit after visit."""
        m, i, places, stages = self.m, self.ports.i, self.places, self.stages
        m.d.comb += i.ready.eq(stages.first_free)
        with m.If(i.valid & stages.first_free):
            m.d.sync += [
                stages.first.valid.eq(i.payload.hit),
                stages.item.eq(i.payload),
                places.x.eq(places.x_next),
                places.fresh.eq(i.payload.last),
            ]
            m.d.comb += self.visit_ends.eq(i.payload.last)
            with m.If(self.visit_ends & self.last_segment):
                m.next = "COMPLETE"

    def _complete_outputs(self) -> None:
        """Send the markers of the output rows that this row completes, then go to the next row."""
        m, places, stages = self.m, self.places, self.stages
        with m.If(self.may_complete):
            m.d.comb += [
                stages.opens.eq(self.none_is_open),
                stages.completes.eq(~self.none_is_open),
            ]
        with m.Elif(~self.last_row):
            m.d.comb += [places.y_step.eq(1), self.row_steps.eq(1)]
            m.next = "ROW"
        with m.Elif(~self.last_input):
            m.d.comb += places.input_steps.eq(1)
            m.next = "INPUT"
        with m.Else():
            m.next = "DRAIN"


def _passed(wait: Signal) -> Value:
    """Whether a count is 0 or less."""
    return wait[-1] | ~wait.any()
