"""Ports of the part that loads a column, however it does so."""

from amaranth.hdl import Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import LOAD, LOAD_LANE
from thresher.hw.layouts import (
    constant_layout,
    lookup_write_layout,
    pointer_write_layout,
    record_layout,
    tap_write_layout,
)

__all__ = ["LoaderPorts"]


class LoaderPorts(wiring.Component):
    """A part that decodes a column's weight stream into its stores.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    load : ``In(record_layout(LOAD))``, lane : ``In(record_layout(LOAD_LANE))``
        The load's record and this column's; stable while ``busy``.
    start : ``In(1)``
        Begin a load. Ignored while ``busy``.
    reset_taps : ``In(1)``
        Start of the machine: the tap addresses of all elements begin at 0.
    busy : ``Out(1)``
        A load is under way.
    words : ``In(stream.Signature(port_bits))``
        Words of the column's stream from its first one on. While not ``busy`` they are discarded.
    words_wanted : ``Out(1)``
        More words may be needed.
    exhausted : ``In(1)``
        No word comes after the one that ``words`` offers, if it does.
    tap, pointer, constant, lookup : ``Out``
        Writes; ``lookup`` only with ``config.lookup``. See :mod:`thresher.hw.layouts`.
    error : ``Out(4)``
        ``ErrorCode`` of the load that ended early; held until ``start`` or ``reset_taps``.
    position : ``Out(32)``
        With an error: the bit of the stream at which the faulty field, symbol or pair begins.
    """

    load: data.View
    lane: data.View
    start: Signal
    reset_taps: Signal
    busy: Signal
    words: stream.Interface
    words_wanted: Signal
    exhausted: Signal
    tap: data.View
    pointer: data.View
    constant: data.View
    lookup: data.View
    error: Signal
    position: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "load": In(record_layout(LOAD)),
                "lane": In(record_layout(LOAD_LANE)),
                "start": In(1),
                "reset_taps": In(1),
                "busy": Out(1),
                "words": In(stream.Signature(config.port_bits)),
                "words_wanted": Out(1),
                "exhausted": In(1),
                "tap": Out(tap_write_layout(config)),
                "pointer": Out(pointer_write_layout(config)),
                "constant": Out(constant_layout(config)),
                **({"lookup": Out(lookup_write_layout(config))} if config.lookup else {}),
                "error": Out(4),
                "position": Out(32),
            }
        )
