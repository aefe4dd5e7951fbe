"""Walks through the groups of a processing element and writes its taps and start pointers."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import LOAD
from thresher.hw.layouts import pointer_write_layout, record_layout, tap_write_layout
from thresher.hw.weights.pair_decoder import pair_layout

__all__ = ["GroupOffset", "TapWriter", "element_layout"]


def element_layout(config: Config) -> data.StructLayout:
    """A processing element of a column: its row, and how many groups it has."""
    return data.StructLayout(
        {"row": unsigned(max(1, (config.lanes - 1).bit_length())), "groups": unsigned(16)}
    )


class GroupOffset(wiring.Component):
    """Accumulator offset of one group after another: minus (ky * row_size + kx * channels).

    Timing contract
    ---------------
    Latency
        ``offset`` is that of the next group in the cycle after ``advance``.
    Throughput
        One group a cycle.
    Combinational paths
        None.
    Reset
        As ``clear``: the offset is that of a stride phase's first group, 0.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    load : ``In(record_layout(LOAD))``
        Sizes of the kernel, of a position and of a row; stable from ``clear`` on.
    clear, advance : ``In(1)``
        Go to the first, to the next group.
    offset : ``Out(offset_bits)``
        Offset modulo the depth of the accumulators.
    """

    load: data.View
    clear: Signal
    advance: Signal
    offset: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "load": In(record_layout(LOAD)),
                "clear": In(1),
                "advance": In(1),
                "offset": Out(config.offset_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Groups and rows of groups that follow this one in its stride phase.
        columns_left = Signal(12)
        rows_left = Signal(12)
        row_offset = Signal(self.config.offset_bits)

        with m.If(self.advance):
            with m.If(columns_left != 0):
                m.d.sync += [
                    columns_left.eq(columns_left - 1),
                    self.offset.eq(self.offset - self.load.channels),
                ]
            with m.Else():
                m.d.sync += columns_left.eq(self.load.kernel_width - 1)
                with m.If(rows_left != 0):
                    m.d.sync += [
                        rows_left.eq(rows_left - 1),
                        row_offset.eq(row_offset - self.load.row_size),
                        self.offset.eq(row_offset - self.load.row_size),
                    ]
                with m.Else():
                    m.d.sync += [
                        rows_left.eq(self.load.kernel_height - 1),
                        row_offset.eq(0),
                        self.offset.eq(0),
                    ]

        with m.If(self.clear):
            m.d.sync += [
                columns_left.eq(self.load.kernel_width - 1),
                rows_left.eq(self.load.kernel_height - 1),
                row_offset.eq(0),
                self.offset.eq(0),
            ]

        return m


class TapWriter(wiring.Component):
    """Write the taps of the pairs, and a start pointer for each group that they enter.

    Timing contract
    ---------------
    Latency
        A pair accepted in cycle ``t`` is written in cycle ``t + 1``.
    Throughput
        A pair a cycle; each group entered beyond the first one of a pair costs a cycle, and so does
        each pointer after the last pair, one at least.
    Combinational paths
        ``i.valid`` and ``i.payload`` to ``i.ready``, ``done`` and ``past_end``.
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
    element : ``In(element_layout(config))``
        The element; stable from the cycle after ``start`` until ``done``.
    reset_taps : ``In(1)``
        All elements' taps begin at address 0 again.
    start : ``In(1)``
        Begin with the element; with ``done`` of the one before or later.
    i : ``In(stream.Signature(pair_layout(config)))``
        Its pairs, and an ``end``.
    done : ``Out(1)``
        The ``end`` is taken: all pointers are written, or are in the next cycle.
    stop : ``In(1)``
        Drop pairs, write nothing.
    past_end : ``Out(1)``
        The pair at ``i`` goes past the end of the groups; it is not taken.
    tap : ``Out(tap_write_layout(config))``
        Writes to the tap stores.
    pointer : ``Out(pointer_write_layout(config))``
        Writes to the start pointers.
    """

    load: data.View
    element: data.View
    reset_taps: Signal
    start: Signal
    i: stream.Interface
    done: Signal
    stop: Signal
    past_end: Signal
    tap: data.View
    pointer: data.View

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "load": In(record_layout(LOAD)),
                "element": In(element_layout(config)),
                "reset_taps": In(1),
                "start": In(1),
                "i": In(stream.Signature(pair_layout(config))),
                "done": Out(1),
                "stop": In(1),
                "past_end": Out(1),
                "tap": Out(tap_write_layout(config)),
                "pointer": Out(pointer_write_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        channels, pair = self.load.channels, self.i.payload

        # State: `entered` groups, the next free position `n` of the last of them, offsets of the
        # last and of the next one. A step of a pair to another group but not yet its own leaves the
        # pair `covered`: n is then its last position.
        entered = Signal(17)
        n = Signal(18)
        covered = Signal()
        offset = Signal(config.offset_bits)
        m.submodules.next_offset = next_offset = GroupOffset(config)
        m.d.comb += [next_offset.load.eq(self.load), next_offset.clear.eq(self.start)]
        addresses = Array(Signal(config.tap_bits, name=f"address_{i}") for i in range(config.lanes))
        address = addresses[self.element.row]

        # Where the pair's last position lies: in this group, the next, or one further on.
        at = Signal(18)
        at_next = Signal(18)
        left = Signal()
        far = Signal()
        full = Signal()  # all groups are entered: what remains is the pointer behind the last one
        m.d.comb += [
            at.eq(n + Mux(covered, 0, pair.covered)),
            at_next.eq(at - channels),
            left.eq(at >= channels),
            far.eq(at >= channels << 1),
            full.eq(entered >= self.element.groups),
            self.done.eq(self.i.valid & pair.end & full),
        ]

        # Step: enter at most one group and, if the pair is not further on, take the pair.
        enter = Signal()
        put = Signal()
        m.d.comb += self.past_end.eq(self.i.valid & ~pair.end & left & full)
        with m.If(self.stop):
            m.d.comb += self.i.ready.eq(1)
        with m.Elif(self.i.valid & pair.end):
            m.d.comb += [enter.eq(1), self.i.ready.eq(full)]
        with m.Elif(self.i.valid & ~self.past_end):
            m.d.comb += [
                enter.eq(left),
                self.i.ready.eq(~far),
                put.eq(~far & pair.weight),
            ]
            m.d.sync += [
                n.eq(Mux(left, at_next, at) + ~far),
                covered.eq(far),
            ]

        # Writes. A group's pointer is the address of its first tap, which may be written with it.
        m.d.sync += [
            self.tap.valid.eq(put),
            self.tap.row.eq(self.element.row),
            self.tap.address.eq(address),
            self.tap.tap.code.eq(pair.code),
            self.tap.tap.zero.eq(pair.code == 0),
            self.tap.tap.offset.eq(Mux(left, next_offset.offset + at_next, offset + at)),
            self.pointer.valid.eq(enter),
            self.pointer.row.eq(self.element.row),
            self.pointer.address.eq(self.load.group_base + entered),
            self.pointer.value.eq(address),
        ]
        m.d.comb += next_offset.advance.eq(enter)
        with m.If(put):
            m.d.sync += address.eq(address + 1)
        with m.If(enter):
            m.d.sync += [entered.eq(entered + 1), offset.eq(next_offset.offset)]

        # An element begins at the end of a group before its first one, which is thus entered.
        with m.If(self.start):
            m.d.sync += [entered.eq(0), n.eq(channels), covered.eq(0)]
        with m.If(self.reset_taps):
            m.d.sync += [each.eq(0) for each in addresses]

        return m
