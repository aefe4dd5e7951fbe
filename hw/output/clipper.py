"""Clipper: the last step of requantisation, and a ReLU or ReLU6 at no further cost.

A ReLU6 is a clip to ``[0, round(6 / scale)]``; the compiler chooses the bounds of each layer.
"""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["CLIP_BITS", "Clipper"]

CLIP_BITS = 17
"""Width of a bound, as in the run record: any activation and one value beyond."""


class Clipper(wiring.Component):
    """``clip(i - origin, low, high)``, of a wide value.

    The comparisons are with ``low + origin`` and ``high + origin``, which are registers, so that
    subtraction and comparisons stand side by side.

    Timing contract
    ---------------
    Combinational from ``i`` to ``o``. ``low``, ``high`` and ``origin`` take effect in the cycle
    after, and must be constant while values come.

    Parameters
    ----------
    config
        Width of the output, ``activation_bits``.
    width
        Width of the input, signed.

    Members
    -------
    i : ``In(signed(width))``
        Any value.
    low, high : ``In(signed(17))``
        Smallest and largest output; both are activations, ``low <= high``.
    origin : ``In(signed(17))``
        Taken off first.
    o : ``Out(signed(config.activation_bits))``
        ``i - origin``, or the bound that it exceeds.
    """

    i: Signal
    low: Signal
    high: Signal
    origin: Signal
    o: Signal

    def __init__(self, config: Config, width: int) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(signed(width)),
                "low": In(signed(CLIP_BITS)),
                "high": In(signed(CLIP_BITS)),
                "origin": In(signed(CLIP_BITS)),
                "o": Out(signed(config.activation_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        least = Signal(signed(CLIP_BITS + 1), reset_less=True)
        greatest = Signal(signed(CLIP_BITS + 1), reset_less=True)
        m.d.sync += [least.eq(self.low + self.origin), greatest.eq(self.high + self.origin)]
        with m.If(self.i < least):
            m.d.comb += self.o.eq(self.low)
        with m.Elif(self.i > greatest):
            m.d.comb += self.o.eq(self.high)
        with m.Else():
            width = self.config.activation_bits  # the difference fits it
            m.d.comb += self.o.eq(self.i[:width] - self.origin[:width])
        return m
