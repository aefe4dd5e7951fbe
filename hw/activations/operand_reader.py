"""Operand reader: fetches the rows of the operand that a column adds to its outputs."""

from dataclasses import replace

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, RUN_SEGMENT
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.layouts import record_layout, row_word_layout

__all__ = ["OperandReader"]


class OperandReader(wiring.Component):
    """A row reader of one segment, with as many rows as the column writes.

    Timing contract
    ---------------
    Latency, throughput
        As of :class:`~thresher.hw.activations.row_reader.RowReader` with one segment.
    Combinational paths
        None between ports.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    run : ``In(record_layout(RUN))``
        The run; ``add``, ``maps`` and ``pooled_height`` are used. Steady while busy.
    channels : ``In(16)``
        Channels of the column; without any, nothing is read. Steady while busy.
    operand : ``In(record_layout(RUN_SEGMENT))``
        Where the operand lies; taken at ``start``.
    start : ``In(1)``
        Pulse: begin, if the run adds.
    busy : ``Out(1)``
        From the cycle after ``start`` until the last row has been taken.
    request, response, o, words_read
        As of the row reader.
    """

    run: data.View
    channels: Signal
    operand: data.View
    start: Signal
    busy: Signal
    request: stream.Interface
    response: stream.Interface
    o: stream.Interface
    words_read: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "operand": In(record_layout(RUN_SEGMENT)),
                "start": In(1),
                "busy": Out(1),
                "request": Out(stream.Signature(unsigned(config.address_bits))),
                "response": In(stream.Signature(unsigned(config.port_bits))),
                "o": Out(stream.Signature(row_word_layout(config))),
                "words_read": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = RowReader(replace(self.config, segments=1))
        connect(m, rows.request, wiring.flipped(self.request))
        connect(m, wiring.flipped(self.response), rows.response)
        connect(m, rows.o, wiring.flipped(self.o))
        m.d.comb += [
            rows.run.height.eq(self.run.pooled_height),
            rows.run.maps.eq(self.run.maps),
            rows.segments.eq(self.run.add & (self.channels != 0)),
            rows.segment.valid.eq(self.start),
            rows.segment.data.eq(self.operand),
            rows.start.eq(self.start),
            self.busy.eq(rows.busy),
            self.words_read.eq(rows.words_read),
        ]
        return m
