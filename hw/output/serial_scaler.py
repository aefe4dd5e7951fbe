"""Serial scaler: the scaler's arithmetic, a product of two digits a cycle.

Defined by :func:`thresher.golden.requantise.requantise`, as :class:`Scaler` is, in a third of its
logic: one multiplier of 18 bits, and a shift of half a digit's width less.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import Rounding
from thresher.hw.layouts import result_layout
from thresher.hw.output.clipper import CLIP_BITS
from thresher.hw.output.scaler import Scaler, factor_layout

__all__ = ["SerialScaler", "make_scaler"]

DIGIT = 16  # bits of a digit; the multiplier takes 18, signed


class SerialScaler(wiring.Component):
    """``clip(round(value * 2**headroom * scale / 2**shift) - origin, low, high)``.

    Both factors are numbers of digits of 16 bits. The products of digits are added up column by
    column, as on paper; of the twofold product, whose lowest bit is a half of the result once the
    shift is done, come out a digit a column, lowest first::

        value, scale -> digits -> product -> + -> digit -> window -> >> shift % 16 -> + half -> clip
                                             ^----- >> 16 |
                                                          +-> any bit below, above the window

    The window is the digits from ``shift // 16`` on that the result needs. Bits below it, or below
    the half, make an exact half none; bits above it that differ from the sign are out of all
    bounds. Rounding twice adds the half of the first shift, ``2**31`` here, before the first
    column, and does not look below it.

    Timing contract
    ---------------
    Latency
        A value accepted in cycle ``t`` is offered in cycle ``t + 6``.
    Throughput
        A value in as many cycles as there are pairs of digits (two by two: four), at least two.
        While ``o`` is stalled nothing moves.
    Combinational paths
        ``o.ready`` and ``i.valid`` to ``i.ready``. ``o`` is driven from registers alone.
    Reset
        Drops what is in the pipeline.

    Parameters
    ----------
    config
        Width of the output, ``activation_bits``.
    value_bits, scale_bits, headroom, result_bits
        As of :class:`Scaler`.

    Members
    -------
    rounding, low, high, origin, i, o
        As of :class:`Scaler`.
    """

    rounding: Signal
    low: Signal
    high: Signal
    origin: Signal
    i: stream.Interface
    o: stream.Interface

    LATENCY = 6

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
        zeros, below = divmod(self.headroom + 1, DIGIT)  # digits and bits below the value
        value_digits = -(-(self.value_bits + below) // DIGIT)
        scale_digits = -(-self.scale_bits // DIGIT)
        value = Signal(signed(value_digits * DIGIT))
        scale = Signal(scale_digits * DIGIT)
        m.d.comb += [
            value.eq(self.i.payload.value << below),
            scale.eq(self.i.payload.scale),
        ]

        # Steps, a product each, by columns; those that end one.
        pairs = [
            (first, column - first)
            for column in range(value_digits + scale_digits - 1)
            for first in range(value_digits)
            if 0 <= column - first < scale_digits
        ]
        steps = max(2, len(pairs))
        columns = value_digits + scale_digits - 1
        digits = zeros + columns + 1  # of the twofold product
        ends = [
            n + 1 == len(pairs) or sum(pairs[n]) != sum(pairs[n + 1]) for n in range(len(pairs))
        ]

        step = Signal(range(steps))
        moves = Signal()
        valid = Signal(4)  # of the window, the shifted, the rounded and the clipped value
        takes = Signal()  # a step is done
        m.d.comb += [
            moves.eq(~valid[-1] | self.o.ready),
            takes.eq(moves & self.i.valid),
            self.i.ready.eq(moves & (~self.i.valid | (step == steps - 1))),
            self.o.valid.eq(valid[-1]),
        ]
        with m.If(takes):
            m.d.sync += step.eq(Mux(step == steps - 1, 0, step + 1))

        # The product of two digits; only the highest one of the value has a sign.
        top = value_digits - 1
        value_digit = Signal(signed(DIGIT + 1))
        scale_digit = Signal(DIGIT)
        m.d.comb += [
            value_digit.eq(value[:DIGIT] if top else value),
            scale_digit.eq(scale[:DIGIT]),
        ]
        for digit in range(1, value_digits):
            used = Cat(step == n for n, (first, _) in enumerate(pairs) if first == digit)
            word = value.word_select(digit, DIGIT)
            with m.If(used.any()):
                m.d.comb += value_digit.eq(word.as_signed() if digit == top else word)
        for digit in range(1, scale_digits):
            used = Cat(step == n for n, (_, second) in enumerate(pairs) if second == digit)
            with m.If(used.any()):
                m.d.comb += scale_digit.eq(scale.word_select(digit, DIGIT))
        product = Signal(signed(2 * DIGIT + 1), reset_less=True)
        adds = Signal()  # the product is to be added, of these steps:
        begins = Signal(reset_less=True)
        carries = Signal(reset_less=True)
        shift = Signal(6, reset_less=True)
        last = Signal(reset_less=True)
        ended = Signal(columns)  # a column whose sum is there
        ending = Signal(columns, reset_less=True)
        with m.If(moves):
            m.d.sync += [
                product.eq(value_digit * scale_digit),
                adds.eq(self.i.valid & (step < len(pairs))),
                begins.eq(step == 0),
                carries.eq(Cat(Const(1, 1), *ends)[: len(pairs)].bit_select(step, 1)),
                ended.eq(Mux(adds, ending, 0)),
            ]
            for column in range(columns):
                final = max(n for n, pair in enumerate(pairs) if sum(pair) == column)
                m.d.sync += ending[column].eq(step == final)
            with m.If(self.i.valid & (step == 1)):
                m.d.sync += [shift.eq(self.i.payload.shift), last.eq(self.i.payload.last)]

        # The sum of a column; what is above its digit is carried.
        most = min(value_digits, scale_digits)
        total = Signal(signed(2 * DIGIT + 2 + most.bit_length()), reset_less=True)
        base = Signal.like(total)
        twice_in = (self.rounding == Rounding.DOUBLE) & self.i.payload.shift[5]
        with m.If(begins):
            m.d.comb += base.eq(twice_in << (31 - zeros * DIGIT))
        with m.Elif(carries):
            m.d.comb += base.eq(total >> DIGIT)
        with m.Else():
            m.d.comb += base.eq(total)
        with m.If(moves & adds):
            m.d.sync += total.eq(base + product)

        # The window, and what is below and above it.
        result_bits = self.result_bits or CLIP_BITS + 1
        half_bits = result_bits + 1  # with the half
        window_bits = DIGIT - 1 + half_bits
        window = Signal(window_bits, reset_less=True)
        sticky = Signal(reset_less=True)
        any_one = Signal(reset_less=True)
        any_null = Signal(reset_less=True)
        differs = Signal(reset_less=True)
        sign = Signal(reset_less=True)
        place = shift[4:]  # of the window's lowest digit
        twice = (self.rounding == Rounding.DOUBLE) & shift[5]
        low, high = total[:DIGIT], total[DIGIT : 2 * DIGIT]
        low_sign = total[2 * DIGIT - 1]
        parts = -(-window_bits // DIGIT)
        ends_value = ended[-1]
        for part in range(parts):
            word = window[part * DIGIT : (part + 1) * DIGIT]
            takes_low = Cat(
                ended[column] & (place == zeros + column - part)
                for column in range(columns)
                if 0 <= zeros + column - part <= 3
            ).any()
            takes_zero = ended[0] & (place + part < zeros)
            takes_high = ends_value & (place + part == digits - 1)
            takes_sign = ends_value & (place + part >= digits)
            with m.If(moves):
                with m.If(takes_low):
                    m.d.sync += word.eq(low)
                with m.If(takes_high):
                    m.d.sync += word.eq(high)
                with m.If(takes_sign):
                    m.d.sync += word.eq(low_sign.replicate(DIGIT))
                with m.If(takes_zero):
                    m.d.sync += word.eq(0)

        # Columns below the window; below the first shift only of those that round once.
        dropped: list[Value] = [
            ended[column]
            & (place > zeros + column)
            & (~twice if zeros + column < 2 else Const(1, 1))
            for column in range(columns)
            if zeros + column < 3
        ]
        fresh = Signal()
        m.d.comb += fresh.eq(ended[0])
        drops = Cat(*dropped).any() & low.any()
        if digits - 1 < 3:
            drops |= ends_value & (place > digits - 1) & high.any()
        with m.If(moves):
            m.d.sync += sticky.eq((sticky & ~fresh) | drops)
            with m.If(ends_value):
                m.d.sync += sign.eq(low_sign)

        # Columns of which a part, or all, is above the window.
        if self.result_bits is None:
            cut = window_bits - (parts - 1) * DIGIT  # bits of the window's highest digit
            ones: list[Value] = []
            nulls: list[Value] = []
            for column in range(columns - 1):
                number = zeros + column
                if number >= parts:
                    over = ended[column] & (place + parts <= number)
                    ones.append(over & low.any())
                    nulls.append(over & ~low.all())
                if number >= parts - 1:
                    at = ended[column] & (place + parts - 1 == number)
                    ones.append(at & low[cut:].any())
                    nulls.append(at & ~low[cut:].all())
            # Of the last column the sign is known.
            unlike_low = low ^ low_sign.replicate(DIGIT)
            unlike_high = high ^ low_sign.replicate(DIGIT)
            final = digits - 1
            unlike = (
                ((place + parts <= final) & unlike_high.any())
                | ((place + parts - 1 == final) & unlike_high[cut:].any())
                | ((place + parts < final) & unlike_low.any())
                | ((place + parts == final) & unlike_low[cut:].any())
            )
            with m.If(moves):
                m.d.sync += [
                    any_one.eq((any_one & ~fresh) | Cat(*ones).any()),
                    any_null.eq((any_null & ~fresh) | Cat(*nulls).any()),
                ]
                with m.If(ends_value):
                    m.d.sync += differs.eq(unlike)

        # Shift within a digit.
        fine = Signal(4, reset_less=True)
        away = Signal(reset_less=True)
        window_last = Signal(reset_less=True)
        shifted = Signal(half_bits, reset_less=True)
        inexact = Signal(reset_less=True)
        beyond = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        shifted_away = Signal(reset_less=True)
        shifted_last = Signal(reset_less=True)
        moved: Value = window
        lost: list[Value] = []
        unlike_sign: list[Value] = []
        for level in reversed(range(4)):
            by, distance = fine[level], 1 << level
            lost.append(by & moved[:distance].any())
            unlike_sign.append(~by & (moved[-distance:] ^ sign.replicate(distance)).any())
            moved = Mux(by, moved[distance:], moved[:-distance])
        unlike_sign.append(moved[-1] ^ sign)
        with m.If(moves):
            m.d.sync += [
                fine.eq(shift[:4]),
                away.eq((self.rounding == Rounding.HALF_AWAY) | twice),
                window_last.eq(last),
                shifted.eq(moved),
                inexact.eq(sticky | Cat(*lost).any()),
                negative.eq(sign),
                shifted_away.eq(away),
                shifted_last.eq(window_last),
                valid.eq(Cat(ends_value, valid)),
            ]
            if self.result_bits is None:
                m.d.sync += beyond.eq(
                    Mux(sign, any_null, any_one) | differs | Cat(*unlike_sign).any()
                )

        # Round. (A half that is below zero and exact is not added, if away from zero.)
        rises = Signal()
        with m.If(shifted_away):
            m.d.comb += rises.eq(~negative | inexact)
        with m.Elif(self.rounding == Rounding.HALF_EVEN):
            m.d.comb += rises.eq(inexact | shifted[1])
        with m.Else():
            m.d.comb += rises.eq(1)
        rounded_bits = result_bits + (1 if self.result_bits is None else 0)
        rounded = Signal(signed(rounded_bits), reset_less=True)
        rounded_last = Signal(reset_less=True)
        whole = shifted[1:].as_signed()
        result = Signal.like(self.o.payload.value, reset_less=True)
        result_last = Signal(reset_less=True)
        with m.If(moves):
            m.d.sync += [rounded_last.eq(shifted_last), result_last.eq(rounded_last)]
        m.d.comb += [self.o.payload.value.eq(result), self.o.payload.last.eq(result_last)]
        if self.result_bits is not None:
            with m.If(moves):
                m.d.sync += [rounded.eq(whole + (rises & shifted[0])), result.eq(rounded)]
            return m

        # Clip: beyond an activation's range by the sign alone.
        width = self.config.activation_bits
        out, below_all = Signal(reset_less=True), Signal(reset_less=True)
        small = rounded[:width].as_signed()
        sign_bits = rounded[-1].replicate(rounded_bits - width)
        outside = Signal()
        bottom = Signal()
        m.d.comb += [
            outside.eq(out | (rounded[width - 1 : -1] != sign_bits)),
            bottom.eq(Mux(out, below_all, rounded[-1])),
        ]
        low_bound, high_bound = self.low[:width].as_signed(), self.high[:width].as_signed()
        with m.If(moves):
            m.d.sync += [
                rounded.eq(whole - self.origin + (rises & shifted[0])),
                out.eq(beyond),
                below_all.eq(negative),
                result.eq(small),
            ]
            with m.If(Mux(outside, bottom, small < low_bound)):
                m.d.sync += result.eq(low_bound)
            with m.Elif(Mux(outside, ~bottom, small > high_bound)):
                m.d.sync += result.eq(high_bound)
        return m


def make_scaler(
    config: Config,
    value_bits: int,
    scale_bits: int,
    *,
    headroom: int = 0,
    result_bits: int | None = None,
) -> Scaler | SerialScaler:
    """Return the scaler of a machine: of a value a cycle, or serial (``config.output_cycles``)."""
    kind = Scaler if config.output_cycles == 1 else SerialScaler
    return kind(config, value_bits, scale_bits, headroom=headroom, result_bits=result_bits)
