"""Scaler: multiplies by a fraction ``scale / 2**shift``, rounds and clips.

The arithmetic that the requantiser, average pooling and addition share; defined by
:func:`thresher.golden.requantise.requantise`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import Rounding
from thresher.hw.layouts import result_layout
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
    """``clip(round(value * 2**headroom * scale / 2**shift) - origin, low, high)``.

    The data path, a register after each step::

        value, scale -> two partial products -> their sum -> + addend -> >> shift -> clip
                         shift, sign, rounding -> addend ---^               ^ ties to even

    The addend is a half, ``2**(shift - 1)``, or one less where a half must round down: a negative
    value's, away from zero. Rounding twice is one addition too, for floors of floors are floors:
    a half of the first shift, ``2**30``, and ``2**31`` times the addend of the second shift::

        ((p + 2**30 >> 31) + a) >> rest  ==  (p + 2**30 + (a << 31)) >> (31 + rest)

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
    headroom
        Zeros that are put below the value.
    result_bits
        Width of an output that is neither clipped nor moved by ``origin``, and that every result
        must fit; by default it is an activation, clipped.

    Members
    -------
    rounding : ``In(2)``
        :class:`thresher.golden.descriptors.Rounding`; constant while values are inside.
    low, high : ``In(signed(17))``
        Bounds of the output, as of :class:`Clipper`; constant while values are inside.
    origin : ``In(signed(17))``
        Taken off the rounded value; constant likewise.
    i : ``In(stream.Signature(factor_layout(value_bits, scale_bits)))``
        Values and their fractions; ``last`` is carried along.
    o : ``Out(stream.Signature(result_layout(bits)))``
        Results, in order; ``bits`` are ``activation_bits`` or ``result_bits``.
    """

    rounding: Signal
    low: Signal
    high: Signal
    origin: Signal
    i: stream.Interface
    o: stream.Interface

    LATENCY = 5

    def __init__(
        self,
        config: Config,
        value_bits: int,
        scale_bits: int,
        *,
        headroom: int = 0,
        result_bits: int | None = None,
    ) -> None:
        self.config = config
        self.value_bits = value_bits
        self.scale_bits = scale_bits
        self.headroom = headroom
        self.result_bits = result_bits
        super().__init__(
            {
                "rounding": In(2),
                "low": In(signed(CLIP_BITS)),
                "high": In(signed(CLIP_BITS)),
                "origin": In(signed(CLIP_BITS)),
                "i": In(stream.Signature(factor_layout(value_bits, scale_bits))),
                "o": Out(stream.Signature(result_layout(result_bits or config.activation_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product_bits = self.value_bits + self.scale_bits
        # The addend is at most 2**62 + 2**30.
        rounded_bits = max(product_bits + self.headroom, 63) + 1

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
        # Stage 2: the product, and what rounding adds. (Of a negative value's product that is, or
        # is rounded to, 0 the smaller addend makes 0 as well.)
        product = Signal(signed(product_bits), reset_less=True)
        addend = Signal(63, reset_less=True)
        fraction_2 = Signal(63, reset_less=True)
        shift_2 = Signal(6, reset_less=True)
        fraction = Signal(63)
        below_half = Signal(63)
        half = Signal(63)
        low_part = Signal(31)
        high_part = Signal(32)
        double = Signal()
        # Stage 3: the sum.
        rounded = Signal(signed(rounded_bits), reset_less=True)
        fraction_3 = Signal(63, reset_less=True)
        shift_3 = Signal(6, reset_less=True)
        # Stage 4: the integer, and whether its fraction was exactly a half.
        shifted = Signal(signed(rounded_bits), reset_less=True)
        to_even = Signal(reset_less=True)
        even = Signal(signed(rounded_bits))
        # Stage 5: the result.
        result = Signal.like(self.o.payload.value, reset_less=True)
        clipped = Signal.like(result)

        m.d.comb += [
            fraction.eq(Const((1 << 63) - 1, 63) >> ~shift_1),  # ~shift_1 is 63 - shift_1
            below_half.eq(fraction[1:]),
            half.eq(fraction & ~below_half),
            double.eq((self.rounding == Rounding.DOUBLE) & (shift_1 > 31)),
            low_part.eq(Mux((self.rounding == Rounding.HALF_AWAY) & negative, below_half, half)),
            high_part.eq(
                Mux(
                    ((self.rounding == Rounding.HALF_AWAY) | double) & negative,
                    below_half[31:],
                    half[31:],
                )
            ),
            even.eq(Cat(shifted[0] & ~to_even, shifted[1:]).as_signed()),
            self.o.payload.value.eq(result),
        ]
        if self.result_bits is None:
            m.submodules.clipper = clipper = Clipper(self.config, rounded_bits)
            m.d.comb += [
                clipper.i.eq(even),
                clipper.low.eq(self.low),
                clipper.high.eq(self.high),
                clipper.origin.eq(self.origin),
                clipped.eq(clipper.o),
            ]
        else:
            m.d.comb += clipped.eq(even)
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
                addend.eq(Cat(low_part[:30], low_part[30] | double, high_part)),
                fraction_2.eq(fraction),
                shift_2.eq(shift_1),
                rounded.eq((product << self.headroom) + addend),
                fraction_3.eq(fraction_2),
                shift_3.eq(shift_2),
                shifted.eq(rounded >> shift_3),
                to_even.eq(
                    (self.rounding == Rounding.HALF_EVEN)
                    & (shift_3 != 0)
                    & ((rounded & fraction_3) == 0)
                ),
                result.eq(clipped),
            ]

        return m
