"""Ports of the part that writes a column's rows into memory, however it codes them."""

from typing import Any

from amaranth.hdl import ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import record_layout, write_request_layout

__all__ = ["WriterPorts"]


class WriterPorts(wiring.Component):
    """A part that writes rows into memory, each behind its header.

    Parameters
    ----------
    config
        Sizes of the machine.
    payload
        Of what the rows come as.

    Members
    -------
    i : ``In(stream.Signature(payload))``
        What the rows are; only taken while busy.
    run : ``In(record_layout(RUN))``
        The run; steady while busy.
    channels : ``In(16)``
        Output channels of the column. 0: nothing is written, ``busy`` stays low.
    out_address : ``In(32)``
        First word of the first input's output; steady at ``start``.
    start : ``In(1)``
        Pulse: begin.
    busy : ``Out(1)``
        From the cycle after ``start`` to the acceptance of the last write.
    request : ``Out(stream.Signature(write_request_layout(config)))``
        Writes.
    words_written : ``Out(1)``
        Pulse: a write is accepted.
    """

    i: stream.Interface
    run: Any
    channels: Signal
    out_address: Signal
    start: Signal
    busy: Signal
    request: stream.Interface
    words_written: Signal

    def __init__(self, config: Config, payload: ShapeLike) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(payload)),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "out_address": In(32),
                "start": In(1),
                "busy": Out(1),
                "request": Out(stream.Signature(write_request_layout(config))),
                "words_written": Out(1),
            }
        )
