"""Walks through the groups of a processing element, one a cycle, and writes its stores."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import LOAD
from thresher.hw.layouts import pointer_write_layout, record_layout, tap_write_layout
from thresher.hw.weights.compact_decoder import walked_pair_layout

__all__ = ["CompactWriter"]


class CompactWriter(wiring.Component):
    """Write the taps of the pairs, and a start pointer for each group that they enter.

    As :class:`~thresher.hw.weights.tap_writer.TapWriter`, but a pair enters its groups one after
    another and is then put; N is at most ``accumulator_depth``.

    Timing contract
    ---------------
    Latency
        A pair accepted in cycle ``t`` that enters ``g`` groups is written in cycle ``t + g + 2``.
    Throughput
        A pair that enters ``g`` groups in ``g + 2`` cycles; a pointer after the last pair a cycle.
    Combinational paths
        None.
    Reset
        No element is under way; all tap addresses are 0.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    load : ``In(record_layout(LOAD))``
        The load; stable while an element is under way.
    row : ``In``, groups : ``In(16)``
        The element, stable from ``start`` until ``done``, and its groups, taken with ``start``.
    reset_taps : ``In(1)``
        All elements' taps begin at address 0 again.
    start : ``In(1)``
        Begin with the element.
    i : ``In(stream.Signature(walked_pair_layout(config)))``
        Its pairs.
    finish : ``In(1)``
        No more pairs come: write the remaining pointers.
    done : ``Out(1)``
        All pointers are written.
    idle : ``Out(1)``
        No pair is held.
    stop : ``In(1)``
        Drop pairs, write nothing.
    past_end : ``Out(1)``
        The pair goes past the end of the groups.
    at : ``Out(32)``
        Where the pair began in the stream.
    tap, pointer : ``Out``
        Writes to the tap stores, to the start pointers.
    """

    load: data.View
    row: Signal
    groups: Signal
    reset_taps: Signal
    start: Signal
    i: stream.Interface
    finish: Signal
    done: Signal
    idle: Signal
    stop: Signal
    past_end: Signal
    at: Signal
    tap: data.View
    pointer: data.View

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "load": In(record_layout(LOAD)),
                "row": In(max(1, (config.lanes - 1).bit_length())),
                "groups": In(16),
                "reset_taps": In(1),
                "start": In(1),
                "i": In(stream.Signature(walked_pair_layout(config))),
                "finish": In(1),
                "done": Out(1),
                "idle": Out(1),
                "stop": In(1),
                "past_end": Out(1),
                "at": Out(32),
                "tap": Out(tap_write_layout(config)),
                "pointer": Out(pointer_write_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        # State: an element whose first group is not yet entered; a pair; its last position, counted
        # from the group entered last; pointers left to write after the first.
        first = Signal()
        held = Signal()
        pair: Any = Signal(walked_pair_layout(config))
        n = Signal(max(min(16, config.offset_bits + 1), config.weight_run_bits) + 1)
        left = Signal(16)
        none_left, one_left = Signal(init=1), Signal()  # behind the first cycle

        # One adder: the positions of a pair are added, or those of a group taken away.
        further = Signal(len(n) + 1)
        added = Mux(held, ~self.load.channels, self.i.payload.zeros)[: len(n)]
        carry = held | self.i.payload.weight
        m.d.comb += further.eq((Cat(Const(1, 1), n) + Cat(carry, added))[1:])

        # Step: accept a pair, enter a group with it, or put it; or enter what is left.
        enter = Signal()
        put = Signal()
        beyond = held & further[-1]  # of the group
        m.d.comb += [
            self.i.ready.eq(~held & ~first),
            self.past_end.eq(held & (none_left | (further[-1] & one_left))),
            enter.eq(first | (beyond & ~self.past_end) | (self.finish & ~held & ~none_left)),
            put.eq(held & ~further[-1] & ~self.past_end),
            self.done.eq(~first & none_left),
            self.idle.eq(~held),
            self.at.eq(pair.at),
        ]
        with m.If((self.i.valid & self.i.ready) | beyond):
            m.d.sync += n.eq(further)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [pair.eq(self.i.payload), held.eq(1)]
        with m.If(put | self.stop):
            m.d.sync += held.eq(0)
        with m.If(self.start | (enter & ~first)):
            m.d.sync += left.eq(
                Mux(self.start, self.groups, left) + (~self.start).replicate(len(left))
            )
        with m.If(first):
            m.d.sync += [none_left.eq(left == 0), one_left.eq(left == 1)]
        with m.Elif(enter):
            m.d.sync += [none_left.eq(one_left), one_left.eq(left == 2)]
        m.d.sync += first.eq(self.start)
        with m.If(self.start):
            m.d.sync += n.eq(~0)

        # Tap address of each row, 0 until its first tap.
        addresses: Memory = Memory(shape=unsigned(config.tap_bits), depth=config.lanes, init=[])
        m.submodules.addresses = addresses
        write, read = addresses.write_port(), addresses.read_port(domain="comb")
        begun = Signal(config.lanes)
        address = Signal(config.tap_bits)
        m.d.comb += [
            read.addr.eq(self.row),
            write.addr.eq(self.row),
            write.data.eq(address + 1),
            write.en.eq(put & pair.weight),
        ]
        with m.If(self.start):
            m.d.sync += address.eq(Mux(begun.bit_select(self.row, 1), read.data, 0))
        with m.If(write.en):
            m.d.sync += [address.eq(write.data), begun.bit_select(self.row, 1).eq(1)]
        with m.If(self.reset_taps):
            m.d.sync += begun.eq(0)

        # Writes. A group's pointer is the address of its first tap.
        pointer_at = Signal(config.group_bits)
        offset = self._offset(m, first, enter)
        with m.If(self.start | enter):
            m.d.sync += pointer_at.eq(
                Mux(self.start, self.load.group_base, pointer_at) + ~self.start
            )
        m.d.sync += [
            self.tap.valid.eq(write.en & ~self.stop),
            self.tap.row.eq(self.row),
            self.tap.address.eq(address),
            self.tap.tap.code.eq(pair.code),
            self.tap.tap.zero.eq(pair.code == 0),
            self.tap.tap.offset.eq(offset + n),
            self.pointer.valid.eq(enter & ~self.stop),
            self.pointer.row.eq(self.row),
            self.pointer.address.eq(pointer_at),
            self.pointer.value.eq(address),
        ]
        return m

    def _offset(self, m: Module, first: Signal, enter: Signal) -> Signal:
        """Return the offset of the group entered last: -(ky * row_size + kx * channels)."""
        config, load = self.config, self.load
        bits = min(12, config.group_bits + 1)
        row, column = Signal(bits), Signal(bits)
        next_row, next_column = Signal(bits), Signal(bits)
        row_offset, offset = Signal(config.offset_bits), Signal(config.offset_bits)
        next_row_offset = Signal(config.offset_bits)
        m.d.comb += [
            next_row.eq(row + 1),
            next_column.eq(column + 1),
            next_row_offset.eq(row_offset - load.row_size),
        ]
        next_offset = Signal(config.offset_bits)
        ends_row, ends_phase = Signal(), Signal()
        m.d.comb += [
            next_offset.eq(Mux(ends_row, next_row_offset, offset - load.channels)),
            ends_row.eq(enter & (next_column == load.kernel_width[:bits])),
            ends_phase.eq(ends_row & (next_row == load.kernel_height[:bits])),
        ]
        with m.If(enter):
            m.d.sync += [column.eq(next_column), offset.eq(next_offset)]
        with m.If(ends_row):
            m.d.sync += [row.eq(next_row), row_offset.eq(next_row_offset)]
        with m.If(first | ends_row):
            m.d.sync += column.eq(0)
        with m.If(first | ends_phase):
            m.d.sync += [row.eq(0), row_offset.eq(0), offset.eq(0)]
        return offset
