"""Multipliers of a processing element: four ways to build one signature.

What a weight code means, for each kind, is defined in :mod:`thresher.golden.multipliers`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config, MultiplierKind

__all__ = [
    "ExactMultiplier",
    "LUTMultiplier",
    "Multiplier",
    "MultiplierSignature",
    "ShiftMultiplier",
    "make_multiplier",
]


class MultiplierSignature(wiring.Signature):
    """Ports of every multiplier; ``product`` follows the operands combinationally.

    Members
    -------
    activation : ``In(signed(activation_bits))``
    code : ``In(weight_code_bits)``
    product : ``Out(signed(activation_bits + weight_bits))``
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "activation": In(signed(config.activation_bits)),
                "code": In(config.weight_code_bits),
                "product": Out(signed(config.activation_bits + config.weight_bits)),
            }
        )


class Multiplier(wiring.Component):
    """Base of the multipliers.

    Timing contract
    ---------------
    Latency
        None; a combinational path from ``activation`` and ``code`` to ``product``.

    Parameters
    ----------
    config
        Widths; ``config.multiplier`` is the kind.
    """

    activation: Signal
    code: Signal
    product: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(MultiplierSignature(config))


class ExactMultiplier(Multiplier):
    """The product operator; synthesis chooses, for example one DSP block."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.product.eq(self.activation * self.code.as_signed())
        return m


class ShiftMultiplier(Multiplier):
    """A sum of one or two shifted, perhaps negated, copies of the activation.

    The number of terms follows from ``config.multiplier``. Codes of weights outside of
    ``-2**(weight_bits - 1) .. 2**(weight_bits - 1)`` give the product's low bits.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms = 2 if self.config.multiplier is MultiplierKind.SHIFT else 1
        term_bits = self.config.weight_code_bits // terms

        # Each term: -x is ~x + 1, and the 1 of both terms joins the one sum as a carry.
        shifted: list[Value] = []
        carries: list[Value] = []
        for index in range(terms):
            code = self.code.word_select(index, term_bits)
            non_zero, negative, exponent = code[0], code[1], code[2:]
            term = Signal(signed(len(self.product)), name=f"term_{index}")
            carry = Signal(name=f"carry_{index}")
            magnitude = Signal(signed(len(self.product)), name=f"magnitude_{index}")
            m.d.comb += [
                magnitude.eq(self.activation << exponent),
                term.eq(Mux(non_zero, magnitude ^ negative.replicate(len(magnitude)), 0)),
                carry.eq(non_zero & negative),
            ]
            shifted.append(term)
            carries.append(carry)
        m.d.comb += self.product.eq(sum(shifted[1:], shifted[0]) + sum(carries[1:], carries[0]))
        return m


class LUTMultiplier(Multiplier):
    """Exact, from small tables: the product of each pair of radix-16 digits is looked up.

    The operands are cut into digits of four bits from the lowest up; the highest digit of each is
    signed and has the bits that are left. A table has at most 256 products of eight bits.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products: list[Value] = []
        for i, a in enumerate(_digits(self.activation)):
            for j, b in enumerate(_digits(self.code)):
                a_top = i == (len(self.activation) - 1) // 4
                b_top = j == (len(self.code) - 1) // 4
                packed = 0
                for entry in range(1 << len(a) + len(b)):
                    left = _digit_value(entry % (1 << len(a)), len(a), a_top)
                    right = _digit_value(entry >> len(a), len(b), b_top)
                    packed |= (left * right & 0xFF) << 8 * entry
                table = Const(packed, 8 << len(a) + len(b))
                entry_bits = Signal(8, name=f"product_{i}_{j}")
                m.d.comb += entry_bits.eq(table.word_select(Cat(a, b), 8))
                signed_entry = entry_bits.as_signed() if a_top or b_top else entry_bits
                products.append(signed_entry << 4 * (i + j))
        m.d.comb += self.product.eq(sum(products[1:], products[0]))
        return m


def _digits(operand: Value) -> list[Value]:
    """Cut ``operand`` into slices of four bits, lowest first."""
    return [operand[low : low + 4] for low in range(0, len(operand), 4)]


def _digit_value(bits: int, width: int, is_signed: bool) -> int:
    """Value of a digit of ``width`` bits."""
    return bits - (1 << width) if is_signed and bits >> (width - 1) else bits


def make_multiplier(config: Config) -> Multiplier:
    """Return a multiplier of kind ``config.multiplier``."""
    match config.multiplier:
        case MultiplierKind.EXACT:
            return ExactMultiplier(config)
        case MultiplierKind.LUT:
            return LUTMultiplier(config)
        case _:
            return ShiftMultiplier(config)
