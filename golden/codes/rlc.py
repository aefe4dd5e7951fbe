"""Run-length code of activations: (zero run, value) pairs packed into memory words."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RLCFormat"]


@dataclass(frozen=True, kw_only=True)
class RLCFormat:
    """Widths of an activation word; the one place where they are checked.

    Parameters
    ----------
    run_bits
        Bits of the unsigned run field, 1 to 16.
    value_bits
        Bits of the two's complement value field, 2 to 16.
    word_bits
        Bits of a word. Pair ``p`` occupies bits ``p * pair_bits`` upward, run lowest; the most
        significant bit of the word is ``last``.
    """

    run_bits: int = 5
    value_bits: int = 16
    word_bits: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.run_bits <= 16:
            raise ValueError(f"run_bits must be in 1..16, not {self.run_bits!r}")
        if not 2 <= self.value_bits <= 16:
            raise ValueError(f"value_bits must be in 2..16, not {self.value_bits!r}")
        if self.word_bits not in {64, 128, 256}:
            raise ValueError(f"word_bits must be 64, 128 or 256, not {self.word_bits!r}")

    @property
    def pair_bits(self) -> int:
        """Bits of one pair."""
        return self.run_bits + self.value_bits

    @property
    def pairs(self) -> int:
        """Pairs in a word."""
        return (self.word_bits - 1) // self.pair_bits

    @property
    def max_run(self) -> int:
        """Largest number of zeros that one pair carries before its value."""
        return (1 << self.run_bits) - 1
