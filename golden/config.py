"""Sizes of a machine: the one place where they are chosen and checked.

The same :class:`Config` parametrises the hardware, the compiler that lays out a network for it,
and the golden prediction of its counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from thresher.golden.codes.rlc import RLCFormat

__all__ = ["LOOKUP_BITS", "PRESETS", "Config", "MultiplierKind", "Skip", "preset_sizes"]

LOOKUP_BITS = 10
"""Widest activation that can be looked up."""


PRESETS = {
    # ULX3S with an ECP5-85F: a memory of the FPGA is 1024 x 18 or 512 x 36 bits. Taps are 17 bits.
    # The board's memory has 32 MB, and 16 bits a cycle.
    "ulx3s": {
        "tap_depth": 1024,
        "group_depth": 1024,
        "accumulator_depth": 512,
        "accumulator_banks": 1,
        "accumulator_bits": 28,
        "channel_depth": 512,
        "pool_depth": 512,
        "pair_cycles": 6,
        "output_cycles": 4,
        "registered_links": 1,
        "map_bits": 10,
        "count_bits": 14,
        "port_bits": 64,
        "address_bits": 22,
    },
}
"""Sizes for a device, by name: parameters of :class:`Config`."""

_WIDTHS = {
    "activation_bits": (4, 16),
    "weight_bits": (2, 9),
    "accumulator_bits": (16, 48),
    "scale_bits": (8, 31),
    "run_bits": (1, 16),
    "weight_run_bits": (1, 8),
    "address_bits": (8, 28),
    "map_bits": (9, 12),
    "count_bits": (8, 20),
}
_DEPTHS = {
    "tap_depth": (16, 1 << 20),
    "group_depth": (16, 1 << 16),
    "accumulator_depth": (16, 1 << 16),
    "fifo_depth": (2, 64),
    "channel_depth": (16, 1 << 16),
    "pool_depth": (16, 1 << 16),
    "segments": (1, 256),
}
_PRESETS_OF_LANES: dict[tuple[str, int], dict[str, int]] = {
    # Two memories an element, so that 64 of them leave enough for the lanes.
    ("ulx3s", 8): {"tap_depth": 512, "group_depth": 512, "shared_store": 1, "product": 0},
}


def preset_sizes(name: str, lanes: int) -> dict[str, int]:
    """Return the parameters of preset ``name`` for a machine of so many lanes."""
    return PRESETS[name] | _PRESETS_OF_LANES.get((name, lanes), {})


class MultiplierKind(StrEnum):
    """The multiplier of every processing element.

    ``SHIFT`` takes each weight as a sum of two signed powers of two, ``SHIFT1`` as one.
    """

    EXACT = "exact"
    SHIFT = "shift"
    SHIFT1 = "shift1"
    LUT = "lut"


class Skip(StrEnum):
    """Which multiplications by zero take no cycle; a mode of a run, not of the hardware."""

    NONE = "none"
    GATE = "gate"
    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    BOTH = "both"

    @property
    def skips_weights(self) -> bool:
        """Zero weights are left out of the tap stores."""
        return self in {Skip.WEIGHTS, Skip.BOTH}

    @property
    def skips_activations(self) -> bool:
        """Zero activations are not sent as tokens."""
        return self in {Skip.ACTIVATIONS, Skip.BOTH}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that is fixed when the hardware is generated.

    Parameters
    ----------
    lanes
        P, one of 1, 2, 4, 8, 16. The array has P x P processing elements.
    multiplier
        Kind of the multiplier in every processing element.
    activation_bits
        Width of an activation, signed, zero point removed; 4 to 16.
    weight_bits
        Width of a weight, signed; 2 to 9.
    accumulator_bits
        Width of an accumulator, signed; 16 to 48.
    scale_bits
        Width of the requantiser's unsigned multiplier; 8 to 31.
    run_bits
        Width of an activation pair's zero run; 1 to 16.
    weight_run_bits
        log2 of the number of run symbols of a weight stream; the last is the escape; 1 to 8.
    code_bits
        Longest Huffman code; 4 to 15, with ``pair_cycles`` 6 to 14.
    port_bits
        Width of a memory word: 64, 128 or 256. 0 chooses 64 up to P = 4, 128 at 8, 256 at 16.
    address_bits
        Width of a memory address, in words; 8 to 28.
    tap_depth, group_depth, accumulator_depth, fifo_depth
        Words of a processing element's tap store, start-pointer store, accumulators, token FIFO.
        Powers of two. 0 chooses a default by P for the first three.
    accumulator_banks
        Banks of the accumulators: 2, so that a bank is drained while the other is added to; 4, so
        that the drain seldom waits; or 1, which saves memory and logic and is drained when nothing
        is added.
    channel_depth, pool_depth, segments
        Words of a column's constants and pooling row, segments of a lane; powers of two.
    pool_lacks
        Rows, and columns, of a window outside of the map on which the divisor of an average may
        depend: 3, 7 or 15. A column's table of scales has ``(pool_lacks + 1)**2`` of them.
    pair_cycles
        Cycles that decoding a pair of a weight stream takes: 1, or 6, for less logic and a faster
        clock.
    output_cycles
        Cycles that an output value takes: 1, or 4, with a fourth of the multipliers and a third of
        the logic (six and eight of accumulators above 30 and 46 bits).
    registered_links
        Whether registers stand in the links of the lanes, of the array, of the output stages, to
        the memory and to the sequencer, 1 or 0: a faster clock, and an item in two cycles at most,
        of items and tokens one a cycle. Only with ``output_cycles`` 4, since otherwise an output
        takes one.
    map_bits
        Width of a map's height and width, and of its results'; 9 to 12.
    count_bits
        Width of a number of words of an activation row; 8 to 20.
    shared_store
        Whether the taps and the start pointers of a processing element share one memory, 1 or 0;
        then a token takes two cycles. Only with ``pair_cycles`` 6, since a loader of a pair a cycle
        writes both at once.
    residual, lookup
        Whether the columns can add a stored operand, and look outputs up: 1 or 0. The table of a
        lookup has a word for each activation, of at most 10 bits.
    product
        Whether the columns that can add a stored operand can multiply by it, too: 1 or 0. It is 0
        if ``residual`` is.

    Raises
    ------
    ValueError
        If a parameter is out of its range; the message names it and shows the value.
    """

    lanes: int = 4
    multiplier: MultiplierKind = MultiplierKind.EXACT
    activation_bits: int = 9
    weight_bits: int = 8
    accumulator_bits: int = 32
    scale_bits: int = 31
    run_bits: int = 5
    weight_run_bits: int = 5
    code_bits: int = 12
    port_bits: int = 0
    address_bits: int = 24
    tap_depth: int = 0
    group_depth: int = 0
    accumulator_depth: int = 0
    fifo_depth: int = 16
    accumulator_banks: int = 2
    channel_depth: int = 1024
    pool_depth: int = 2048
    pool_lacks: int = 3
    segments: int = 64
    pair_cycles: int = 1
    output_cycles: int = 1
    registered_links: int = 0
    map_bits: int = 12
    count_bits: int = 20
    shared_store: int = 0
    residual: int = 1
    lookup: int = 1
    product: int = 1

    def __post_init__(self) -> None:
        if self.lanes not in {1, 2, 4, 8, 16}:
            raise ValueError(f"lanes must be 1, 2, 4, 8 or 16, not {self.lanes!r}")
        self._choose_sizes()
        if self.port_bits not in {64, 128, 256}:
            raise ValueError(f"port_bits must be 64, 128 or 256, not {self.port_bits!r}")
        longest = 15 if self.pair_cycles == 1 else 14
        for name, (low, high) in (_WIDTHS | {"code_bits": (4, longest)}).items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")
        self._check_choices()
        if self.activation_bits > LOOKUP_BITS:
            object.__setattr__(self, "lookup", 0)
        if not self.residual:
            object.__setattr__(self, "product", 0)
        for name, (low, high) in _DEPTHS.items():
            value = getattr(self, name)
            if not low <= value <= high or value & (value - 1):
                raise ValueError(f"{name} must be a power of two in {low}..{high}, not {value!r}")

    def _choose_sizes(self) -> None:
        """Replace sizes of 0 by those that suit the lanes."""
        chosen = {
            "multiplier": MultiplierKind(self.multiplier),
            "port_bits": self.port_bits or {8: 128, 16: 256}.get(self.lanes, 64),
            "tap_depth": self.tap_depth or {1: 65536, 2: 16384}.get(self.lanes, 4096),
            "group_depth": self.group_depth or {1: 16384, 2: 8192, 4: 4096}.get(self.lanes, 2048),
            "accumulator_depth": self.accumulator_depth or {1: 4096, 4: 1024}.get(self.lanes, 2048),
        }
        for name, value in chosen.items():
            object.__setattr__(self, name, value)

    def _check_choices(self) -> None:
        """Check what has few possible values, some of which need others."""
        choices = {
            "accumulator_banks": ((1, 2, 4), "1, 2 or 4"),
            "pool_lacks": ((3, 7, 15), "3, 7 or 15"),
            "pair_cycles": ((1, 6), "1 or 6"),
            "output_cycles": ((1, 4), "1 or 4"),
            "registered_links": (
                (0, int(self.output_cycles != 1)),
                "0, or 1 with output_cycles 4",
            ),
            "shared_store": (
                (0, int(self.pair_cycles != 1)),
                "0, or 1 with pair_cycles 6",
            ),
            "residual": ((0, 1), "0 or 1"),
            "lookup": ((0, 1), "0 or 1"),
            "product": ((0, 1), "0 or 1"),
        }
        for name, (allowed, text) in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {text}, not {getattr(self, name)!r}")

    @cached_property
    def rlc(self) -> RLCFormat:
        """Format of an activation word; it fills one memory word."""
        return RLCFormat(
            run_bits=self.run_bits, value_bits=self.activation_bits, word_bits=self.port_bits
        )

    @property
    def multipliers(self) -> int:
        """Number of multipliers, P x P."""
        return self.lanes * self.lanes

    @property
    def weight_code_bits(self) -> int:
        """Width of a weight as the multiplier takes it; see ``golden.multipliers``."""
        exponent_bits = (self.weight_bits - 1).bit_length()
        term_bits = 2 + exponent_bits  # non-zero, sign, exponent
        match self.multiplier:
            case MultiplierKind.SHIFT:
                return 2 * term_bits
            case MultiplierKind.SHIFT1:
                return term_bits
            case _:
                return self.weight_bits

    @property
    def offset_bits(self) -> int:
        """Width of an accumulator address."""
        return (self.accumulator_depth - 1).bit_length()

    @property
    def tap_bits(self) -> int:
        """Width of a tap address."""
        return (self.tap_depth - 1).bit_length()

    @property
    def group_bits(self) -> int:
        """Width of a start-pointer address."""
        return (self.group_depth - 1).bit_length()

    @property
    def channel_bits(self) -> int:
        """Width of an address of a column's constants."""
        return (self.channel_depth - 1).bit_length()

    @property
    def column_bits(self) -> int:
        """Width of a number of channels of a column: 0 to ``channel_depth``."""
        return min(12, self.channel_bits + 1)

    @property
    def lane_bits(self) -> int:
        """Width of a number of channels of a lane, which have a group each, or of a column."""
        return max(self.group_bits, self.column_bits)

    @property
    def position_bits(self) -> int:
        """Width of a number of output positions of a row; they have an accumulator each."""
        return min(12, self.offset_bits + 1)

    @property
    def row_values(self) -> int:
        """Most values of a row that a column writes: the accumulators or the pooler hold them."""
        return max(self.accumulator_depth, self.pool_depth)

    @property
    def run_symbols(self) -> int:
        """Run symbols of a weight stream; the last one is the escape."""
        return 1 << self.weight_run_bits
