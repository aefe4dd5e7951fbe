"""Ports of the part that reads rows of activations from memory, whatever it reads them for."""

from typing import Any

from amaranth.hdl import Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import record_layout, row_word_layout

__all__ = ["ReaderPorts"]


class ReaderPorts(wiring.Component):
    """A part that reads coded rows.

    Parameters
    ----------
    config
        Sizes of the machine.
    ports
        Ports that say which rows.

    Members
    -------
    run : ``In(record_layout(RUN))``
        The run; steady while busy.
    start : ``In(1)``
        Pulse: begin.
    busy : ``Out(1)``
        From the cycle after ``start`` until the last row has been taken and no response is due.
    request : ``Out(stream.Signature(unsigned(config.address_bits)))``
        Reads.
    response : ``In(stream.Signature(unsigned(config.port_bits)))``
        Their words, in order.
    o : ``Out(stream.Signature(row_word_layout(config)))``
        Words of the rows: at least one item a row (``empty``, of any ``data``, if the row has no
        word), ``last`` on its final one.
    words_read : ``Out(1)``
        Pulse: a word or a header of a row has come.
    """

    run: Any
    start: Signal
    busy: Signal
    request: stream.Interface
    response: stream.Interface
    o: stream.Interface
    words_read: Signal

    def __init__(self, config: Config, ports: dict[str, wiring.Member]) -> None:
        self.config = config
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                **ports,
                "start": In(1),
                "busy": Out(1),
                "request": Out(stream.Signature(unsigned(config.address_bits))),
                "response": In(stream.Signature(unsigned(config.port_bits))),
                "o": Out(stream.Signature(row_word_layout(config))),
                "words_read": Out(1),
            }
        )
