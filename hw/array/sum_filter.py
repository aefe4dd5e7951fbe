"""Sum filter at the end of a column: lets the sums of the column's own channels pass."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["SumFilter"]


class SumFilter(wiring.Component):
    """Drop what the elements of a column sent for channels that only wider columns have.

    Timing contract
    ---------------
    Latency
        None.
    Throughput
        One word a cycle, dropped or not.
    Combinational paths
        ``i`` to ``o``, and ``o.ready`` to ``i.ready``.
    Reset
        The next word is of channel 0; with ``start`` too.

    Parameters
    ----------
    config
        Widths.

    Members
    -------
    i, o : streams of ``signed(accumulator_bits)``, in and out
        All sums of each position; those of channels below ``channels``.
    all_channels, channels : ``In(16)``
        Channels of the widest column, at most ``accumulator_depth``, and of this one, at least 1
        and no more; steady from ``start`` on. A column without channels gets no words.
    start : ``In(1)``
        A run starts.
    """

    i: stream.Interface
    o: stream.Interface
    all_channels: Signal
    channels: Signal
    start: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        word = signed(config.accumulator_bits)
        super().__init__(
            {
                "i": In(stream.Signature(word)),
                "o": Out(stream.Signature(word)),
                "all_channels": In(16),
                "channels": In(16),
                "start": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.config.offset_bits + 1
        channel = Signal(bits)  # behind the one at hand
        own = Signal(init=1)
        taken = Signal()
        is_last = Signal()
        m.d.comb += [
            self.o.valid.eq(self.i.valid & own),
            self.o.payload.eq(self.i.payload),
            self.i.ready.eq(self.o.ready | ~own),
            taken.eq(self.i.valid & self.i.ready),
            is_last.eq(channel == self.all_channels[:bits]),
        ]
        with m.If(taken):
            m.d.sync += [channel.eq(channel + 1), own.eq(own & (channel != self.channels[:bits]))]
        with m.If(self.start | (taken & is_last)):
            m.d.sync += [channel.eq(1), own.eq(1)]
        return m
