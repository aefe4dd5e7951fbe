"""Token maker: turns the positions of a lane's activations into groups of weights to walk.

The sequence is defined in :mod:`thresher.golden.tokens`; here every quotient and product of it is
kept incrementally, but for two: of channel and groups a channel, of stride and groups a phase.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.activations.token_places import TokenPlaces
from thresher.hw.activations.token_sequence import TokenSequence
from thresher.hw.activations.token_stages import TokenStages
from thresher.hw.layouts import activation_layout, record_layout, token_layout

__all__ = ["TokenMaker"]


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
        places = TokenPlaces(m, self)
        stages = TokenStages(m, self, places)
        TokenSequence(m, self, places, stages)
        m.d.comb += [
            self.tokens_sent.eq(self.o.valid & self.o.ready & ~self.o.payload.marker),
            self.blocked.eq(self.o.valid & ~self.o.ready),
        ]
        return m
