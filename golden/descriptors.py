"""Descriptors: the records that tell the machine what to load and what to run.

A program is a sequence of 64-bit descriptor words, packed ``port_bits / 64`` to a memory word,
lowest bits first, without alignment between records. Each record is a list of words, each word a
list of fields from bit 0 up; no field crosses a word. Compiler and sequencer read these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "COUNTERS",
    "COUNTER_BITS",
    "LOAD",
    "LOAD_LANE",
    "POOL_SCALE",
    "RUN",
    "RUN_LANE",
    "RUN_SEGMENT",
    "ErrorCode",
    "Field",
    "Kind",
    "Pool",
    "Record",
    "Rounding",
    "counter_words",
]

COUNTER_BITS = 32


class Kind(IntEnum):
    """First field of every record."""

    END = 0
    LOAD = 1
    RUN = 2


class Rounding(IntEnum):
    """How a requantised value that lies between two integers is rounded.

    ``DOUBLE`` rounds twice, as the reference kernels of TFLite: a shift of more than 31 is a shift
    of 31 that rounds half up, and one by the rest that rounds half away from zero; a shift of
    31 or less rounds half up.
    """

    HALF_UP = 0
    HALF_AWAY = 1
    HALF_EVEN = 2
    DOUBLE = 3


class Pool(IntEnum):
    """Pooling of the output stage."""

    NONE = 0
    MAX = 1
    AVERAGE = 2


class ErrorCode(IntEnum):
    """Why the machine stopped with ``error``."""

    NONE = 0
    CODE_UNUSED = 1  # a weight stream holds bits that are no code
    STREAM_SHORT = 2  # a weight stream ends inside a symbol or before its last pair
    RUN_PAST_END = 3  # a weight's run goes past the end of its processing element's groups
    ROW_LENGTH = 4  # an activation row does not match its length
    DESCRIPTOR = 5  # a record of unknown kind


@dataclass(frozen=True)
class Field:
    """A named bit field of a descriptor word."""

    name: str
    bits: int
    what: str
    signed: bool = False


@dataclass(frozen=True)
class Record:
    """A fixed layout: words of fields."""

    name: str
    words: tuple[tuple[Field, ...], ...]

    def __post_init__(self) -> None:
        for word in self.words:
            if sum(field.bits for field in word) > 64:
                raise ValueError(f"a word of {self.name} has more than 64 bits")

    def pack(self, values: Mapping[str, int]) -> list[int]:
        """Return the record's words; every field must be given and in range.

        Raises
        ------
        ValueError
            If a field is missing, unknown, or does not fit; the message names it.
        """
        names = {field.name for word in self.words for field in word}
        if names != set(values):
            raise ValueError(f"{self.name} fields differ: {sorted(names ^ set(values))}")
        packed = []
        for word in self.words:
            bits = at = 0
            for field in word:
                value = int(values[field.name])
                low = -(1 << field.bits - 1) if field.signed else 0
                high = (1 << field.bits - field.signed) - 1
                if not low <= value <= high:
                    raise ValueError(
                        f"{self.name}.{field.name} must be in {low}..{high}, not {value}"
                    )
                bits |= (value & ((1 << field.bits) - 1)) << at
                at += field.bits
            packed.append(bits)
        return packed


LOAD = Record(
    "load",
    (
        (
            Field("kind", 2, "Kind.LOAD"),
            Field("needs", 16, "runs that must be finished before this load starts"),
            Field("layer", 16, "number of the layer pass, reported with an error"),
        ),
        (
            Field("channels", 16, "N, output channels of the widest column"),
            Field("row_size", 16, "accumulators of one output row, out_width x N"),
            Field("kernel_height", 12, "rows of kernel groups, of one stride phase"),
            Field("kernel_width", 12, "columns of kernel groups, of one stride phase"),
        ),
        (
            Field("group_base", 16, "first start pointer of this pass"),
            Field("channel_base", 16, "first channel constant of this pass"),
        ),
    ),
)

LOAD_LANE = Record(  # once a column
    "load_lane",
    (
        (
            Field("address", 32, "first word of the column's weight stream"),
            Field("channels", 12, "output channels of this column, 0 to N"),
            Field("words", 20, "words of the column's weight stream"),
        ),
    ),
)

RUN = Record(
    "run",
    (
        (
            Field("kind", 2, "Kind.RUN"),
            Field("needs", 16, "loads that must be finished before this run starts"),
            Field("layer", 16, "number of the layer pass, reported with an error"),
            Field("maps", 16, "inputs that follow one another, or rounds"),
            Field("send_zeros", 1, "zero activations are sent as tokens"),
            Field("gate", 1, "multiplications by zero are not carried out, but take their cycle"),
            Field("lookup", 1, "the clipped outputs go through the lookup table"),
            Field("add", 1, "a stored operand is added to the outputs; excludes pooling"),
            Field("scale_operand", 1, "the operand is scaled and the output is plain, or converse"),
            Field("multiply", 1, "with add: the outputs are multiplied by the operand instead"),
            Field("broadcast", 1, "the operand is one value a channel, for each position"),
        ),
        (
            Field("height", 12, "input rows"),
            Field("width", 12, "input positions a row"),
            Field("out_height", 12, "output rows before pooling"),
            Field("out_width", 12, "output positions a row before pooling"),
            Field("ring_rows", 12, "output rows that the accumulators hold"),
        ),
        (
            Field("stride_y", 8, "stride in y"),
            Field("stride_x", 8, "stride in x"),
            Field("pad_y", 8, "rows of zeros above the map"),
            Field("pad_x", 8, "positions of zeros before a row"),
            Field("kernel_height", 12, "rows of kernel groups, of one stride phase"),
            Field("kernel_width", 12, "columns of kernel groups, of one stride phase"),
        ),
        (
            Field("channels", 16, "N, output channels of the widest column"),
            Field("row_size", 16, "accumulators of one output row, out_width x N"),
            Field("map_size", 16, "out_height x row_size, modulo the accumulator depth"),
            Field("extent_y", 16, "rows of the dilated kernel"),
        ),
        (
            Field("group_base", 16, "first start pointer of this pass"),
            Field("channel_groups", 16, "groups of one input channel"),
            Field("phase_groups", 16, "groups of one stride phase"),
            Field("channel_base", 16, "first channel constant of this pass"),
        ),
        (
            Field("clip_low", 17, "smallest output of the requantiser", signed=True),
            Field("clip_high", 17, "largest output of the requantiser", signed=True),
            Field("rounding", 2, "Rounding of the requantiser"),
            Field("pool", 2, "Pool"),
            Field("pool_pad_y", 8, "rows of padding above the pooled map"),
            Field("pool_pad_x", 8, "positions of padding before a pooled row"),
        ),
        (
            Field("pool_height", 12, "rows of a pooling window"),
            Field("pool_width", 12, "positions of a pooling window"),
            Field("pool_stride_y", 12, "stride of pooling in y"),
            Field("pool_stride_x", 12, "stride of pooling in x"),
            Field("round_groups", 16, "groups of a round; 0: maps are inputs, not rounds"),
        ),
        (
            Field("pooled_height", 12, "rows written; out_height without pooling"),
            Field("pooled_width", 12, "positions a row written; out_width without pooling"),
            Field("pool_scale", 31, "multiplier of a whole window's, or an addition's, sum; or 1"),
            Field("pool_shift", 6, "right shift of the product"),
            Field("pool_rounding", 2, "Rounding of average pooling and of addition"),
        ),
        (
            Field("pool_low", 17, "smallest result of pooling or addition", signed=True),
            Field("pool_high", 17, "largest result of pooling or addition", signed=True),
            Field("pool_origin", 17, "average pooling: added to values, taken off the mean", True),
            Field("pool_scales", 8, "POOL_SCALE records that follow"),
        ),
        (
            Field("pool_room_y", 13, "rows of the map below the first window", signed=True),
            Field("pool_room_x", 13, "positions of a row behind the first window", signed=True),
            Field("operand_scale", 31, "addition: multiplier of the scaled one; product: 0"),
            Field("operand_shift", 6, "addition: right shift of that product; product: 20"),
        ),
        (
            Field("counters", 32, "address of the counters, written when finished"),
            Field("out_pitch", 32, "words from one input's output to the next input's"),
        ),
    ),
)

# A run without any of these has one scale for all windows.
POOL_SCALE = Record(
    "pool_scale",
    (
        (
            Field("columns", 4, "columns of the window that lie outside of the map"),
            Field("rows", 4, "rows of the window that lie outside of the map"),
            Field("scale", 31, "multiplier of the sum of such a window"),
        ),
    ),
)

RUN_LANE = Record(  # once a lane, each followed by its segments
    "run_lane",
    (
        (
            Field("segments", 16, "segments that this lane reads; 0 for a lane without input"),
            Field("channels", 16, "output channels of this column, 0 to N"),
            Field("out_address", 32, "first word that this column writes"),
        ),
    ),
)

# RUN_LANE's segments are followed, if the run adds, by one more RUN_SEGMENT: the operand that this
# column adds or multiplies by, which has its channels in the same order (channels 0: none).
RUN_SEGMENT = Record(
    "run_segment",
    (
        (
            Field("address", 28, "header of the segment's first row, of the first input"),
            Field("channels", 16, "channels of the segment"),
            Field("pitch", 20, "words from one input's segment to the next input's"),
        ),
    ),
)

# What the machine writes when a run is finished, 32 bits each, in this order, `port_bits / 32` to a
# memory word, lowest bits first.
COUNTERS = (
    ("cycles", "from the start, the record being read, to the last write"),
    ("load_wait", "cycles for which the run waited for a load, the array being idle"),
    ("macs", "multiplications whose cycle was spent, over all processing elements"),
    ("gated", "those of them that were gated: an operand was zero"),
    ("tokens", "segments sent into the array, over all lanes"),
    ("starved", "element-cycles without a tap to walk, the FIFO empty"),
    ("ring_full", "element-cycles waiting for an accumulator row to drain"),
    ("conflict", "element-cycles in which draining gave way to a hit on its bank"),
    ("fifo_full", "lane-cycles in which a token was not accepted"),
    ("memory_wait", "lane-cycles in which the RLC decoder waited for a word"),
    ("words_in", "activation words read, headers included"),
    ("words_out", "activation words written, headers included"),
)


def counter_words(port_bits: int) -> int:
    """Return the memory words that a run's counters take."""
    return -(-len(COUNTERS) * COUNTER_BITS // port_bits)
