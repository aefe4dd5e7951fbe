"""Array of processing elements: tokens travel east along rows, sums south along columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.array.drain import element_run_layout
from thresher.hw.array.pe import PE
from thresher.hw.array.sum_filter import SumFilter
from thresher.hw.layouts import (
    pointer_place,
    pointer_write_layout,
    record_layout,
    store_write_layout,
    tap_write_layout,
    token_layout,
)
from thresher.hw.link import Delay, Link, Queue
from thresher.hw.parts import place

__all__ = ["Array"]


def column_layout(config: Config) -> data.StructLayout:
    """What a column is told: its loader's writes, its channels and those of all, the run."""
    separate = {"tap": tap_write_layout(config), "pointer": pointer_write_layout(config)}
    return data.StructLayout(
        {
            **({"store": store_write_layout(config)} if config.shared_store else separate),
            "channels": 16,
            "nothing": 1,
            "all_channels": 16,
            "run": element_run_layout(),
            "start": 1,
            "clear": 1,
        }
    )


class Column(Delay):
    """What a column is told, a cycle later."""


class Array(wiring.Component):
    """P x P processing elements; ``pe_r_c`` is in row r (input lane), column c (output lane).

    All elements are one module; what differs, such as the row that a loader writes, is wired here.

    Timing contract
    ---------------
    Latency
        Element ``pe_r_c`` receives a token ``c`` cycles after the array; a word of ``pe_r_c``
        needs a further ``P - 1 - r`` cycles down its column. See :class:`PE` for the rest.
        Event counts come two cycles after their events.
    Throughput
        One token a cycle and lane, one sum a cycle and column.
    Combinational paths
        From the ready of the easternmost token register through all columns to ``tokens[r].ready``;
        ``sums[c].ready`` through all rows of column ``c``. One level of logic an element.
    With ``config.registered_links``
        Writes, channels, run, ``start`` and ``clear`` come to the elements a cycle later, and
        ``idle`` is that of the cycle before. A :class:`Queue` stands in a row (with
        ``config.shared_store`` a :class:`Link`), and a :class:`Link` in a column, behind every
        second element but the last: a cycle more for tokens and sums, a sum in two cycles, and the
        combinational paths end there.
    Reset
        As for :class:`PE`.

    Parameters
    ----------
    config
        Lanes, widths, depths, kind of the multiplier.

    Members
    -------
    tokens : ``In(stream.Signature(token_layout(config))).array(P)``
        Tokens of each row.
    sums : ``Out(stream.Signature(signed(accumulator_bits))).array(P)``
        Sums of each column, row after row, positions in order, channels innermost.
    tap, pointer : ``In(tap_write_layout(config)).array(P)``, likewise ``pointer_write_layout``
        Writes of each column's loader; ``row`` selects the element.
    channels : ``In(16).array(P)``
        Channels of each column.
    run : ``In(record_layout(RUN))``
        The run; stable from ``start`` until ``idle``.
    start, clear : ``In(1)``
        A run starts; drop everything and zero the accumulators.
    clearing : ``Out(1)``
        Accumulators are being zeroed.
    macs, gated, starved, ring_full, conflict : ``Out(range(P * P + 1))``
        Number of elements with that event.
    idle : ``Out(1)``
        All elements are idle.
    """

    tokens: list[stream.Interface]
    sums: list[stream.Interface]
    tap: list[data.View[data.StructLayout]]
    pointer: list[data.View[data.StructLayout]]
    channels: list[Signal]
    run: data.View[data.StructLayout]
    start: Signal
    clear: Signal
    clearing: Signal
    macs: Signal
    gated: Signal
    starved: Signal
    ring_full: Signal
    conflict: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        lanes = config.lanes
        count = Out(range(config.multipliers + 1))
        word = signed(config.accumulator_bits)
        super().__init__(
            {
                "tokens": In(stream.Signature(token_layout(config))).array(lanes),
                "sums": Out(stream.Signature(word)).array(lanes),
                "tap": In(tap_write_layout(config)).array(lanes),
                "pointer": In(pointer_write_layout(config)).array(lanes),
                "channels": In(16).array(lanes),
                "run": In(record_layout(RUN)),
                "start": In(1),
                "clear": In(1),
                "clearing": Out(1),
                "macs": count,
                "gated": count,
                "starved": count,
                "ring_full": count,
                "conflict": count,
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = range(self.config.lanes)
        last = self.config.lanes - 1
        pe = [[PE(self.config) for _ in lanes] for _ in lanes]
        config = self.config
        run: Any = Signal(element_run_layout(), name="element_run")
        m.d.comb += [run[name].eq(self.run[name]) for name in run.shape().members]
        told = [self._column(m, column, run, platform) for column in lanes]
        waiting: list[list[Value]] = [[] for _ in lanes]  # in the links of each row, or above it

        # At the bottom of a column, what it does not want.
        filters = [SumFilter(config) for _ in lanes]
        for column, sum_filter in enumerate(filters):
            place(m, f"sum_filter_{column}", sum_filter, platform)
            m.d.comb += [
                sum_filter.all_channels.eq(told[column].all_channels),
                sum_filter.channels.eq(told[column].channels),
                sum_filter.start.eq(told[column].start | told[column].clear),
            ]

        for row in lanes:
            for column in lanes:
                element = pe[row][column]
                place(m, f"pe_{row}_{column}", element, platform)

                # Neighbours or edges.
                if column == 0:
                    connect(m, flipped(self.tokens[row]), element.i)
                elif config.registered_links and column % 2 == 0:
                    passes = (Link if config.shared_store else Queue)(token_layout(config))
                    m.submodules[f"passes_{row}_{column}"] = passes
                    connect(m, pe[row][column - 1].o, passes.i)
                    connect(m, passes.o, element.i)
                    waiting[row].append(passes.o.valid)
                else:
                    connect(m, pe[row][column - 1].o, element.i)
                if column == last:
                    m.d.comb += element.o.ready.eq(1)
                if row == 0:
                    m.d.comb += element.top.eq(1)
                elif config.registered_links and row % 2 == 0:
                    link = Link(element.north.payload.shape())
                    m.submodules[f"link_{row}_{column}"] = link
                    connect(m, pe[row - 1][column].south, link.i)
                    connect(m, link.o, element.north)
                    waiting[row].append(link.o.valid)
                else:
                    connect(m, pe[row - 1][column].south, element.north)
                if row == last:
                    connect(m, element.south, filters[column].i)
                    connect(m, filters[column].o, flipped(self.sums[column]))

                # Writes of the column's loader, and what is common.
                for name in ("store",) if config.shared_store else ("tap", "pointer"):
                    port, write = getattr(element, name), getattr(told[column], name)
                    m.d.comb += [
                        port.eq(write),
                        port.valid.eq(write.valid & (write.row == row)),
                    ]
                m.d.comb += [
                    element.nothing.eq(told[column].nothing),
                    element.run.eq(told[column].run),
                    element.start.eq(told[column].start),
                    element.clear.eq(told[column].clear),
                ]

        # Event counts: of each row, then of all.
        events = {
            "mac": self.macs,
            "gated": self.gated,
            "starved": self.starved,
            "ring_full": self.ring_full,
            "conflict": self.conflict,
        }
        for name, total in events.items():
            counts = []
            for row in lanes:
                counts.append(count := Signal(range(last + 2), name=f"{name}_{row}"))
                m.d.sync += count.eq(_sum([getattr(element, name) for element in pe[row]]))
            m.d.sync += total.eq(_sum(counts))

        idle = Signal(config.lanes)
        for row in lanes:
            busy = Cat(*(~element.idle for element in pe[row]), *waiting[row]).any()
            m.d["sync" if config.registered_links else "comb"] += idle[row].eq(~busy)
        m.d.comb += [self.idle.eq(idle.all()), self.clearing.eq(pe[0][0].clearing)]
        return m

    def _column(self, m: Module, column: int, run: Any, platform: object) -> Any:
        """Return what a column is told, through a register if so configured."""
        channels = self.channels[column]
        if self.config.shared_store:
            writes = {"store": self._shared_write(m, column)}
        else:
            writes = {"tap": self.tap[column], "pointer": self.pointer[column]}
        values = {
            **writes,
            "channels": channels,
            "nothing": channels == 0,
            "all_channels": self.run.channels,
            "run": run,
            "start": self.start,
            "clear": self.clear,
        }
        if not self.config.registered_links:
            return SimpleNamespace(**values)
        register = Column(column_layout(self.config))
        place(m, f"column_{column}", register, platform)
        m.d.comb += [register.i[name].eq(value) for name, value in values.items()]
        return register.o

    def _shared_write(self, m: Module, column: int) -> Any:
        """Return the writes of a column's loader, at most one at a time, as those of one memory."""
        tap, pointer = self.tap[column], self.pointer[column]
        layout = store_write_layout(self.config)
        write: Any = Signal(layout, name=f"write_{column}")
        m.d.comb += [
            write.valid.eq(tap.valid | pointer.valid),
            write.row.eq(pointer.row),
            write.address.eq(pointer_place(self.config, pointer.address)),
            write.data.eq(pointer.value),
        ]
        with m.If(tap.valid):
            m.d.comb += [
                write.row.eq(tap.row),
                write.address.eq(tap.address),
                write.data.eq(tap.tap),
            ]
        return write


def _sum(values: list[Value] | list[Signal]) -> Value:
    """Sum as a balanced tree."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return _sum(values[:half]) + _sum(values[half:])
