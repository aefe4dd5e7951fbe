"""Serial scaler: the scaler's arithmetic, a product of two digits a cycle.

Defined by :func:`thresher.golden.requantise.requantise`, as :class:`Scaler` is, in a third of its
logic: one multiplier of 18 bits for the product, two for the shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import Rounding
from thresher.hw.layouts import result_layout
from thresher.hw.output.clipper import CLIP_BITS

__all__ = ["SerialScaler", "bounds_layout", "item_layout", "scaled_layout"]

DIGIT = 16  # bits of a digit; the multiplier takes 18, signed


def item_layout(value_bits: int, scale_bits: int) -> data.StructLayout:
    """A value, what scales it, and what becomes of the result: see :class:`SerialScaler`."""
    return data.StructLayout(
        {
            "value": signed(value_bits),
            "scale": unsigned(scale_bits),
            "shift": unsigned(6),
            "rounding": unsigned(2),
            "tag": unsigned(2),
            "last": unsigned(1),
        }
    )


def scaled_layout(bits: int) -> data.StructLayout:
    """A result of ``bits`` bits, and what came with its value."""
    return data.StructLayout({**dict(result_layout(bits).members), "tag": unsigned(2)})


def bounds_layout() -> data.StructLayout:
    """Bounds of a result, as of a Clipper."""
    return data.StructLayout({name: signed(CLIP_BITS) for name in ("low", "high", "origin")})


@dataclass(frozen=True)
class _Pipeline:
    """What all stages have: when they move, and what goes along with a value."""

    moves: Signal
    about: dict[str, Any]  # from the digits to the result
    columns: int


@dataclass(frozen=True)
class _Window:
    """The digits of a result, and what became of the others."""

    digits: Signal
    comes: Signal  # it is whole in the next cycle
    sign: Signal
    sticky: Signal  # a bit below is 1
    beyond: Signal  # a bit above is not the sign


class SerialScaler(wiring.Component):
    """``clip(round(value * scale / 2**shift) - origin, low, high)``, of values of several kinds.

    Both factors are numbers of digits of 16 bits. The products of digits are added up column by
    column, as on paper, so that the digits of the product come out lowest first, of twice the
    product: the lowest bit of the result, once the shift is done, is a half. A product by
    ``2**(16 - shift % 16)`` shifts them within a digit, the rest of the shift chooses digits::

        value, scale -> digits -> product -> + -> digit -> product -> window -> + half -> clip
                                             ^----- >> 16 |                |
                                                          +-> any bit below, above the window

    Bits below the window make an exact half none; bits above it that differ from the sign are out
    of all bounds. Rounding twice adds the half of the first shift, ``2**31`` here, before the first
    column, and does not look below it.

    Timing contract
    ---------------
    Latency
        A value accepted in cycle ``t`` is offered in cycle ``t + 6``.
    Throughput
        A value in as many cycles as there are pairs of digits (two by two: four). While ``o`` is
        stalled nothing moves.
    Combinational paths
        ``o.ready`` and ``i.valid`` to ``i.ready``. ``o`` is driven from registers alone.
    Reset
        Drops what is in the pipeline.

    Parameters
    ----------
    config
        Width of a clipped output, ``activation_bits``.
    value_bits, scale_bits
        Widths of the two factors.
    result_bits
        Width of an output that is neither clipped nor moved by ``origin``, and that every such
        result must fit; at least ``CLIP_BITS + 1``.

    Members
    -------
    bounds : ``In(bounds_layout()).array(2)``
        Bounds of values with tag 0 and tag 1; constant while such values are inside. Others are
        not clipped.
    i : ``In(stream.Signature(item_layout(value_bits, scale_bits)))``
        Values; ``tag`` and ``last`` are carried along.
    o : ``Out(stream.Signature(scaled_layout(result_bits)))``
        Results, in order. Of those that are clipped only ``activation_bits`` are meant.
    """

    bounds: list[data.View]
    i: stream.Interface
    o: stream.Interface

    LATENCY = 6

    def __init__(self, config: Config, value_bits: int, scale_bits: int, result_bits: int) -> None:
        self.config = config
        self.value_digits = -(-(value_bits + 1) // DIGIT)  # of twice the value
        self.scale_digits = -(-scale_bits // DIGIT)
        self.result_bits = result_bits
        super().__init__(
            {
                "bounds": In(bounds_layout()).array(2),
                "i": In(stream.Signature(item_layout(value_bits, scale_bits))),
                "o": Out(stream.Signature(scaled_layout(result_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns = self.value_digits + self.scale_digits - 1
        # What goes along, from the digits to the result.
        about = data.StructLayout(
            {"shift": 6, "twice": 1, "away": 1, "even": 1, "tag": 2, "last": 1}
        )
        stages = ("digits", "product", "sum", "shifted", "window", "rounded", "result")
        along: dict[str, Any] = {
            name: Signal(about, name=f"about_{name}", reset_less=True) for name in stages
        }
        valid = Signal(3)  # of the window, the rounded and the clipped value
        moves = Signal()
        m.d.comb += moves.eq(~valid[-1] | self.o.ready)
        item = self.i.payload
        twice = (item.rounding == Rounding.DOUBLE) & item.shift[5]
        with m.If(moves):
            m.d.sync += [
                along["digits"].shift.eq(item.shift),
                along["digits"].twice.eq(twice),
                along["digits"].away.eq((item.rounding == Rounding.HALF_AWAY) | twice),
                along["digits"].even.eq(item.rounding == Rounding.HALF_EVEN),
                along["digits"].tag.eq(item.tag),
                along["digits"].last.eq(item.last),
            ]
            m.d.sync += [along[after].eq(along[before]) for before, after in pairwise(stages)]

        pipeline = _Pipeline(moves, along, columns)
        ended, total = self._product(m, pipeline)
        window = self._window(m, pipeline, ended, total)
        with m.If(moves):
            m.d.sync += valid.eq(Cat(window.comes, valid))
        self._round(m, pipeline, window)
        m.d.comb += [
            self.o.valid.eq(valid[-1]),
            self.o.payload.last.eq(along["result"].last),
            self.o.payload.tag.eq(along["result"].tag),
        ]
        return m

    def _product(self, m: Module, pipeline: _Pipeline) -> tuple[Signal, Signal]:
        """Add up the products of digits; return which column is ended, and the sum."""
        item = self.i.payload
        moves, columns = pipeline.moves, pipeline.columns

        # Steps, a product each, by columns; those that end one.
        pairs = [
            (first, column - first)
            for column in range(columns)
            for first in range(self.value_digits)
            if 0 <= column - first < self.scale_digits
        ]
        finals = [
            n
            for n in range(len(pairs))
            if n + 1 == len(pairs) or sum(pairs[n]) != sum(pairs[n + 1])
        ]
        step = Signal(range(len(pairs)))
        final = step == len(pairs) - 1
        m.d.comb += self.i.ready.eq(moves & (~self.i.valid | final))
        with m.If(moves & self.i.valid):
            m.d.sync += step.eq(Mux(final, 0, step + 1))

        # Only the highest digit of the value has a sign.
        value = Signal(signed(self.value_digits * DIGIT))
        scale = Signal(self.scale_digits * DIGIT)
        m.d.comb += [value.eq(item.value << 1), scale.eq(item.scale)]
        value_digit = Signal(signed(DIGIT + 1), reset_less=True)
        scale_digit = Signal(DIGIT, reset_less=True)
        product = Signal(signed(2 * DIGIT + 1), reset_less=True)
        flags = data.StructLayout({"valid": 1, "begins": 1, "carries": 1, "ends": columns})
        read: Any = Signal(flags)
        multiplied: Any = Signal(flags)
        top = self.value_digits - 1
        with m.If(moves):
            m.d.sync += [
                read.valid.eq(self.i.valid),
                read.begins.eq(step == 0),
                multiplied.eq(read),
                product.eq(value_digit * scale_digit),
            ]
            with m.Switch(step):
                for n, (first, second) in enumerate(pairs):
                    with m.Case(n):
                        word = value.word_select(first, DIGIT)
                        m.d.sync += [
                            value_digit.eq(word.as_signed() if first == top else word),
                            scale_digit.eq(scale.word_select(second, DIGIT)),
                            read.carries.eq(n - 1 in finals),
                            read.ends.eq(1 << first + second if n in finals else 0),
                        ]

        # The sum of a column; what is above its digit is carried.
        most = min(self.value_digits, self.scale_digits)
        total = Signal(signed(2 * DIGIT + 2 + most.bit_length()), reset_less=True)
        base = Signal.like(total)
        ended = Signal(columns)
        with m.If(multiplied.begins):
            m.d.comb += base.eq(pipeline.about["product"].twice << 31)
        with m.Elif(multiplied.carries):
            m.d.comb += base.eq(total >> DIGIT)
        with m.Else():
            m.d.comb += base.eq(total)
        with m.If(moves):
            m.d.sync += ended.eq(multiplied.ends & multiplied.valid.replicate(columns))
            with m.If(multiplied.valid):
                m.d.sync += total.eq(base + product)
        return ended, total

    def _window(self, m: Module, pipeline: _Pipeline, ended: Signal, total: Signal) -> _Window:
        """Shift, and choose digits."""
        moves, along, columns = pipeline.moves, pipeline.about, pipeline.columns
        low, high = total[:DIGIT], total[DIGIT : 2 * DIGIT].as_signed()
        fine = along["sum"].shift[:4]
        power = Signal(DIGIT + 1)
        m.d.comb += power.eq(Cat(Const(0, 1), *(fine == DIGIT - n for n in range(1, DIGIT + 1))))
        low_shifted = Signal(2 * DIGIT, reset_less=True)
        high_shifted = Signal(signed(2 * DIGIT), reset_less=True)
        before = Signal(DIGIT, reset_less=True)  # the upper half of the digit before
        any_low, any_high = Signal(reset_less=True), Signal(reset_less=True)
        shifted = Signal(columns)  # of which column these are
        with m.If(moves):
            m.d.sync += [
                low_shifted.eq(low * power),
                high_shifted.eq(high * power),
                any_low.eq(low.any()),
                any_high.eq(high.any()),
                shifted.eq(ended),
            ]
            with m.If(shifted.any()):
                m.d.sync += before.eq(Mux(shifted[-1], 0, low_shifted[DIGIT:]))

        # Digits of the shifted number: that of each column, and two more with the last one.
        digit = low_shifted[:DIGIT] | before
        upper = low_shifted[DIGIT:] | high_shifted[:DIGIT]
        highest = high_shifted[DIGIT:]
        minus = high_shifted[-1]
        place = along["shifted"].shift[4:]  # the window begins at the digit behind this one
        twice = along["shifted"].twice
        parts = -(-(self.result_bits + 1) // DIGIT)
        window = Signal(parts * DIGIT, reset_less=True)
        final = shifted[-1]
        for part in range(parts):
            word = window.word_select(part, DIGIT)
            number = Signal(4, name=f"number_{part}")
            m.d.comb += number.eq(place + 1 + part)
            here = Cat(shifted[column] & (number == column) for column in range(columns)).any()
            with m.If(moves & (here | final)):
                with m.If(here):
                    m.d.sync += word.eq(digit)
                with m.Elif(number == columns):
                    m.d.sync += word.eq(upper)
                with m.Elif(number == columns + 1):
                    m.d.sync += word.eq(highest)
                with m.Elif(number > columns + 1):
                    m.d.sync += word.eq(minus.replicate(DIGIT))

        # Bits below the window; below the first shift only of those that round once.
        lost: list[Value] = []
        for column in range(min(columns, 4)):
            dropped: Value = (place > column) & any_low
            if column < 2:
                dropped &= ~twice
            lost.append(
                shifted[column] & (dropped | ((place == column) & low_shifted[:DIGIT].any()))
            )
        if columns < 4:  # the digit above the last column
            dropped = (place > columns) & any_high
            lost.append(final & (dropped | ((place == columns) & high_shifted[:DIGIT].any())))
        # Bits above it: of digits before the sign is known, some 1, some 0; of the last ones.
        ones: list[Value] = []
        nulls: list[Value] = []
        for column in range(parts + 1, columns):
            above = shifted[column] & (place + parts < column)
            ones.append(above & digit.any())
            nulls.append(above & ~digit.all())
        unlike = ((place + parts < columns) & (upper != minus.replicate(DIGIT))) | (
            (place + parts < columns + 1) & (highest != minus.replicate(DIGIT))
        )
        sticky, sign, differs, ready = Signal(), Signal(), Signal(), Signal()
        any_one, any_null = Signal(), Signal()
        first = shifted[0]
        m.d.comb += ready.eq(final)
        with m.If(moves):
            m.d.sync += [
                sticky.eq((sticky & ~first) | Cat(*lost).any()),
                any_one.eq((any_one & ~first) | Cat(*ones, 0).any()),
                any_null.eq((any_null & ~first) | Cat(*nulls, 0).any()),
            ]
            with m.If(final):
                m.d.sync += [sign.eq(minus), differs.eq(unlike)]
        beyond = Signal()
        m.d.comb += beyond.eq(differs | Mux(sign, any_null, any_one))
        return _Window(window, ready, sign, sticky, beyond)

    def _round(self, m: Module, pipeline: _Pipeline, window: _Window) -> None:
        """Round, and clip to the bounds of its tag."""
        moves, about = pipeline.moves, pipeline.about["window"]
        digits, sign = window.digits, window.sign
        # (A half that is below zero and exact is not added, if away from zero.)
        rises = Signal()
        with m.If(about.away):
            m.d.comb += rises.eq(~sign | window.sticky)
        with m.Elif(about.even):
            m.d.comb += rises.eq(window.sticky | digits[1])
        with m.Else():
            m.d.comb += rises.eq(1)
        rounded = Signal(signed(self.result_bits + 1), reset_less=True)
        out, below_all = Signal(reset_less=True), Signal(reset_less=True)
        origin = Mux(
            about.tag[1], 0, Mux(about.tag[0], self.bounds[1].origin, self.bounds[0].origin)
        )
        with m.If(moves):
            m.d.sync += [
                rounded.eq(
                    digits[1:][: self.result_bits].as_signed() - origin + (rises & digits[0])
                ),
                out.eq(
                    window.beyond
                    | (digits[self.result_bits :] != sign.replicate(len(digits) - self.result_bits))
                ),
                below_all.eq(sign),
            ]

        # Clip: beyond an activation's range by the sign alone.
        width = self.config.activation_bits
        tag = pipeline.about["rounded"].tag
        small = rounded[:width].as_signed()
        outside, bottom = Signal(), Signal()
        m.d.comb += [
            outside.eq(
                out | (rounded[width - 1 :] != rounded[-1].replicate(len(rounded) - width + 1))
            ),
            bottom.eq(Mux(out, below_all, rounded[-1])),
        ]
        low, high = (
            Mux(tag[0], *(self.bounds[n][name][:width] for n in (1, 0))).as_signed()
            for name in ("low", "high")
        )
        result = Signal(signed(self.result_bits), reset_less=True)
        m.d.comb += self.o.payload.value.eq(result)
        with m.If(moves):
            m.d.sync += result.eq(rounded)
            with m.If(~tag[1] & Mux(outside, bottom, small < low)):
                m.d.sync += result[:width].eq(low)
            with m.Elif(~tag[1] & Mux(outside, ~bottom, small > high)):
                m.d.sync += result[:width].eq(high)
