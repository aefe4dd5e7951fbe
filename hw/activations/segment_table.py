"""Segment table of a row reader: where each segment of a lane lies, and where it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, memory

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN_SEGMENT
from thresher.hw.layouts import record_layout

if TYPE_CHECKING:
    from thresher.hw.activations.row_reader import RowReader

__all__ = ["SegmentTable", "count_layout", "segment_write_layout"]

_FEW = 16  # counts; as LUT RAM more of them would want a wide multiplexer


def segment_write_layout(config: Config) -> data.StructLayout:
    """A write to the segment table, to one of its halves: one of them is of the next run."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "half": unsigned(1),
            "index": unsigned(max(1, (config.segments - 1).bit_length())),
            "data": record_layout(RUN_SEGMENT),
        }
    )


def count_layout(config: Config) -> data.StructLayout:
    """Words of a row, and whether these are 0, or 1, which would be known late in a cycle."""
    return data.StructLayout({"count": config.count_bits, "none": 1, "one": 1})


class SegmentTable:
    """The segments, where each one's next row and input begin, and the words of its next row.

    Nothing is read in the cycle in which it is written.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The reader's; among them are the writes to the table.
    segment, next_input
        What is read: of which segment; of its next input rather than of its next row.

    Attributes
    ----------
    entry, place, count
        What was read in the cycle before: the segment, where the row or input begins, words of the
        row.
    write_place, write_count
        Ports; the places of the inputs are in the upper half.
    """

    def __init__(self, m: Module, ports: RowReader, segment: Signal, next_input: Signal) -> None:
        config, write = ports.config, ports.segment
        address_bits = config.address_bits
        entry_layout = data.StructLayout(
            {
                "address": address_bits,
                "channels": config.lane_bits,
                "pitch": min(20, address_bits),
            }
        )
        unchecked = {"no_rw_check": "1"}
        block = unchecked | ({"ram_style": "block"} if config.segments > _FEW else {})
        two_halves = 2 << len(write.index)
        table: Any = memory.Memory(shape=entry_layout, depth=two_halves, init=[], attrs=unchecked)
        places: Any = memory.Memory(shape=address_bits, depth=two_halves, init=[], attrs=unchecked)
        counts: Any = memory.Memory(
            shape=count_layout(config), depth=config.segments, init=[], attrs=block
        )
        m.submodules.table = table
        m.submodules.places = places
        m.submodules.counts = counts

        write_entry = table.write_port()
        self.write_place, self.write_count = places.write_port(), counts.write_port()
        m.d.comb += [
            write_entry.en.eq(write.valid),
            write_entry.addr.eq(Cat(write.index, write.half)),
        ]
        m.d.comb += [write_entry.data[name].eq(write.data[name]) for name in entry_layout.members]
        self._reads = [memory.read_port() for memory in (table, places, counts)]
        read_entry, read_place, read_count = self._reads
        m.d.comb += [
            read_entry.addr.eq(Cat(segment, ports.half)),
            read_place.addr.eq(Cat(segment, next_input)),
            read_count.addr.eq(segment),
        ]
        m.d.comb += [port.en.eq(0) for port in self._reads]
        self.entry, self.place, self.count = (port.data for port in self._reads)

    def read(self, m: Module) -> None:
        """Read in this cycle."""
        m.d.comb += [port.en.eq(1) for port in self._reads]
