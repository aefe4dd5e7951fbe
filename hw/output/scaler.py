"""Scaler: multiplies by a fraction ``scale / 2**shift``, rounds and clips.

The arithmetic that the requantiser and average pooling share; defined by
:func:`thresher.golden.requantise.requantise`.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import Rounding
from thresher.hw.layouts import value_layout
from thresher.hw.output.clipper import CLIP_BITS, Clipper

__all__ = ["Scaler", "factor_layout"]

HALF_FACTOR_BITS = 16  # the scale is multiplied in two parts, each of a DSP block's width


def factor_layout(value_bits: int, scale_bits: int) -> data.StructLayout:
    """A value and the fraction that scales it."""
    return data.StructLayout(
        {
            "value": signed(value_bits),
            "scale": unsigned(scale_bits),
            "shift": unsigned(6),
            "last": unsigned(1),
        }
    )


class Scaler(wiring.Component):
    """``clip(round(value * scale / 2**shift), low, high)``.

    The data path, a register after each step::

        value, scale -> two partial products -> their sum -> + half -> >> shift -> clip
                        shift, sign -> half, or the one below it ^     ^ ties to even

    Timing contract
    ---------------
    Latency
        A value accepted in cycle ``t`` is offered in cycle ``t + 5``.
    Throughput
        One value per cycle. While ``o`` is stalled nothing moves.
    Combinational paths
        ``o.ready`` to ``i.ready``. ``o`` is driven from registers alone.
    Reset
        Drops what is in the pipeline. (Only the valid bits are reset.)

    Parameters
    ----------
    config
        Width of the output, ``activation_bits``.
    value_bits, scale_bits
        Widths of the two factors.

    Members
    -------
    rounding : ``In(2)``
        :class:`thresher.golden.descriptors.Rounding`; constant while values are inside.
    low, high : ``In(signed(17))``
        Bounds of the output, as of :class:`Clipper`; constant while values are inside.
    i : ``In(stream.Signature(factor_layout(value_bits, scale_bits)))``
        Values and their fractions; ``last`` is carried along.
    o : ``Out(stream.Signature(value_layout(config)))``
        Results, in order.
    """

    rounding: Signal
    low: Signal
    high: Signal
    i: stream.Interface
    o: stream.Interface

    LATENCY = 5

    def __init__(self, config: Config, value_bits: int, scale_bits: int) -> None:
        self.config = config
        self.value_bits = value_bits
        self.scale_bits = scale_bits
        super().__init__(
            {
                "rounding": In(2),
                "low": In(signed(CLIP_BITS)),
                "high": In(signed(CLIP_BITS)),
                "i": In(stream.Signature(factor_layout(value_bits, scale_bits))),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product_bits = self.value_bits + self.scale_bits
        rounded_bits = max(product_bits, 63) + 1  # half is 2**62 at most

        # All stages move together, into a free output or with its transfer.
        moves = Signal()
        valid = Signal(self.LATENCY)
        last = Signal(self.LATENCY, reset_less=True)
        m.d.comb += [
            moves.eq(~valid[-1] | self.o.ready),
            self.i.ready.eq(moves),
            self.o.valid.eq(valid[-1]),
            self.o.payload.last.eq(last[-1]),
        ]

        # Stage 1: the products with both parts of the scale.
        low_bits = min(HALF_FACTOR_BITS, self.scale_bits)
        partial_low = Signal(signed(self.value_bits + low_bits), reset_less=True)
        partial_high = Signal(signed(product_bits - low_bits + 1), reset_less=True)
        negative = Signal(reset_less=True)
        shift_1 = Signal(6, reset_less=True)
        # Stage 2: the product; and what rounding adds: a half, or the one below it where a half
        # must round down: a negative value's, away from zero. (A product of 0 rounds the same.)
        product = Signal(signed(product_bits), reset_less=True)
        addend = Signal(63, reset_less=True)
        fraction_2 = Signal(63, reset_less=True)
        shift_2 = Signal(6, reset_less=True)
        fraction = Signal(63)
        below_half = Signal(63)
        half = Signal(63)
        # Stage 3: the sum.
        rounded = Signal(signed(rounded_bits), reset_less=True)
        fraction_3 = Signal(63, reset_less=True)
        shift_3 = Signal(6, reset_less=True)
        # Stage 4: the integer, and whether its fraction was exactly a half.
        shifted = Signal(signed(rounded_bits), reset_less=True)
        to_even = Signal(reset_less=True)
        # Stage 5: the result.
        m.submodules.clipper = clipper = Clipper(self.config, rounded_bits)
        result = Signal(signed(self.config.activation_bits), reset_less=True)

        m.d.comb += [
            fraction.eq(Cat(shift_1 > bit for bit in range(63))),
            below_half.eq(fraction[1:]),
            half.eq(fraction & ~below_half),
            clipper.i.eq(Cat(shifted[0] & ~to_even, shifted[1:]).as_signed()),
            clipper.low.eq(self.low),
            clipper.high.eq(self.high),
            self.o.payload.value.eq(result),
        ]
        value, scale = self.i.payload.value, self.i.payload.scale
        with m.If(moves):
            m.d.sync += [
                valid.eq(Cat(self.i.valid, valid)),
                last.eq(Cat(self.i.payload.last, last)),
                partial_low.eq(value * scale[:low_bits]),
                partial_high.eq(value * scale[low_bits:]),
                negative.eq(value < 0),
                shift_1.eq(self.i.payload.shift),
                product.eq(partial_low + (partial_high << low_bits)),
                addend.eq(Mux((self.rounding == Rounding.HALF_AWAY) & negative, below_half, half)),
                fraction_2.eq(fraction),
                shift_2.eq(shift_1),
                rounded.eq(product + addend),
                fraction_3.eq(fraction_2),
                shift_3.eq(shift_2),
                shifted.eq(rounded >> shift_3),
                to_even.eq(
                    (self.rounding == Rounding.HALF_EVEN)
                    & (shift_3 != 0)
                    & ((rounded & fraction_3) == 0)
                ),
                result.eq(clipper.o),
            ]

        return m
