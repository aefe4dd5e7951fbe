"""Walk the descriptors of a compiled program as the sequencer does."""

from __future__ import annotations

from collections.abc import Iterator

from thresher.golden.compiler import Program
from thresher.golden.descriptors import (
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    Kind,
    Record,
)

__all__ = ["program_records"]

Fields = dict[str, int]


def _unpack(record: Record, words: list[int]) -> Fields:
    values = {}
    for fields, word in zip(record.words, words, strict=True):
        at = 0
        for field in fields:
            value = word >> at & ((1 << field.bits) - 1)
            negative = field.signed and value >> field.bits - 1
            values[field.name] = value - (1 << field.bits) if negative else value
            at += field.bits
    return values


def program_records(program: Program) -> Iterator[tuple[int, Fields, list[Fields]]]:
    """Yield (number of its first 64-bit word, fields, lanes' fields) of each record before END."""
    size = program.config.port_bits // 8
    content = program.image[program.program :].tobytes()
    words = []
    for at in range(0, len(content), size):
        word = int.from_bytes(content[at : at + size], "big")
        words += [word >> 64 * k & (1 << 64) - 1 for k in range(size // 8)]
    at = 0

    def take(record: Record) -> Fields:
        nonlocal at
        at += len(record.words)
        return _unpack(record, words[at - len(record.words) : at])

    while words[at] & 3 != Kind.END:
        first = at
        if words[at] & 3 == Kind.LOAD:
            head = take(LOAD)
            yield first, head, [take(LOAD_LANE) for _ in range(program.config.lanes)]
        else:
            head = take(RUN)
            for _ in range(head["pool_scales"]):
                take(POOL_SCALE)
            lanes = []
            for _ in range(program.config.lanes):
                lane = take(RUN_LANE)
                lanes.append(lane)
                for _ in range(lane["segments"] + head["add"]):
                    take(RUN_SEGMENT)
            yield first, head, lanes
