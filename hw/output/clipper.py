"""Clipper: the last step of requantisation, and a ReLU or ReLU6 at no further cost.

A ReLU6 is a clip to ``[0, round(6 / scale)]``; the compiler chooses the bounds of each layer.
Defined by :func:`thresher.golden.requantise.clip`.
"""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["CLIP_BITS", "Clipper"]

CLIP_BITS = 17
"""Width of a bound, as in the run record: any activation and one value beyond."""


class Clipper(wiring.Component):
    """Limit a wide value to ``low`` .. ``high``.

    Timing contract
    ---------------
    Combinational, from all inputs to ``o``; no state.

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
    o : ``Out(signed(config.activation_bits))``
        ``i``, or the bound that it exceeds.
    """

    i: Signal
    low: Signal
    high: Signal
    o: Signal

    def __init__(self, config: Config, width: int) -> None:
        super().__init__(
            {
                "i": In(signed(width)),
                "low": In(signed(CLIP_BITS)),
                "high": In(signed(CLIP_BITS)),
                "o": Out(signed(config.activation_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.i < self.low):
            m.d.comb += self.o.eq(self.low)
        with m.Elif(self.i > self.high):
            m.d.comb += self.o.eq(self.high)
        with m.Else():
            m.d.comb += self.o.eq(self.i)
        return m
