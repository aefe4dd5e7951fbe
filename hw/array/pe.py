"""Processing element: walks the taps of tokens and accumulates their products."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from thresher.golden.config import Config
from thresher.hw.array.accumulators import Accumulators
from thresher.hw.array.drain import Drain, element_run_layout
from thresher.hw.array.front_end import FrontEnd
from thresher.hw.array.multipliers import make_multiplier
from thresher.hw.layouts import (
    pointer_place,
    pointer_write_layout,
    store_write_layout,
    tap_layout,
    tap_write_layout,
    token_layout,
)

__all__ = ["PE"]


class PE(wiring.Component):
    """Multiply each token's activation by each of its taps' weights; send complete rows south.

    ::

                              north
                                |
        i --> FrontEnd ------> Drain ----> south
        o <--  |  FIFO          ^
               v                |
             walker -> tap -> operands -> product -> Accumulators

    Timing contract
    ---------------
    Latency
        The first tap of a token accepted in cycle ``t`` counts as ``mac`` in cycle ``t + 5``, and
        its sum is written at the end of cycle ``t + 6``. When a ``complete`` marker is accepted
        in cycle ``t``, the row's first word is offered on ``south`` in cycle ``t + 10``. Both
        if the walker is free by then.
    Throughput
        One token a cycle from ``i`` to ``o``; one tap a cycle, without a bubble between tokens;
        one token without taps a cycle (with ``config.shared_store`` a token in two cycles). A
        marker costs the walker one cycle. One word a cycle south, less those cycles in which
        ``conflict`` is high.
    Combinational paths
        ``o.ready`` to ``i.ready``, ``south.ready`` to ``north.ready``.
    Reset
        All tokens, rows and words are dropped; taps, pointers and accumulators stay. After a run
        that was cut short, ``clear`` for one cycle drops them and zeroes the accumulators.

    Parameters
    ----------
    config
        Widths, depths, kind of the multiplier.

    Members
    -------
    i, o : streams of ``token_layout(config)``, in and out
        Tokens from the west, and to the east.
    north, south : streams of ``signed(accumulator_bits)``, in and out
        Sums of the elements above; the same with this one's: all accumulators of a row.
    top : ``In(1)``
        There is no element to the north; ``north.payload`` is 0. Constant.
    tap, pointer : ``In(tap_write_layout(config))``, ``In(pointer_write_layout(config))``
        Writes of the loader; ``row`` is ignored. Not with ``config.shared_store``.
    store : ``In(store_write_layout(config))``
        Both, with ``config.shared_store``; ``row`` is ignored.
    run : ``In(element_run_layout())``
        Of the run; stable from ``start`` until ``idle``.
    nothing : ``In(1)``
        This column has no channels, and sends no words; stable likewise.
    start : ``In(1)``
        A run starts, with its first row at accumulator 0; no token before it.
    clear : ``In(1)``
        Drop everything and zero the accumulators.
    clearing : ``Out(1)``
        That is going on, ``accumulator_depth / accumulator_banks`` cycles from the cycle after
        ``clear``; no token is accepted.
    mac : ``Out(1)``
        A tap's cycle in the multiplier.
    gated : ``Out(1)``
        Likewise, but an operand is zero and ``run.gate`` keeps the multiplier still.
    starved : ``Out(1)``
        The walker has neither tap nor marker, and the FIFO is empty.
    ring_full : ``Out(1)``
        The walker waits for a row to be drained.
    conflict : ``Out(1)``
        The drain gives way to a hit on its bank.
    idle : ``Out(1)``
        Nothing is held, under way, or to be drained.

    Timing
    ------
    A row of one word: ``open``, a token with two taps, ``complete``; a stall in cycle 13::

        cycle          0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
        i.valid        1  1  1  0  0  0  0  0  0  0  0  0  0  0  0  0
        i.ready        1  1  1  1  1  1  1  1  1  1  1  1  1  1  1  1
        o.valid        0  1  1  1  0  0  0  0  0  0  0  0  0  0  0  0
        mac            0  0  0  0  0  0  1  1  0  0  0  0  0  0  0  0
        starved        1  1  0  0  0  0  0  1  1  1  1  1  1  1  1  1
        south.valid    0  0  0  0  0  0  0  0  0  0  0  0  0  1  1  0
        south.ready    1  1  1  1  1  1  1  1  1  1  1  1  1  0  1  1
        south.payload  -  -  -  -  -  -  -  -  -  -  -  -  - 35 35  -
        idle           1  0  0  0  0  0  0  0  0  0  0  0  0  0  0  1
    """

    i: stream.Interface
    o: stream.Interface
    north: stream.Interface
    south: stream.Interface
    top: Signal
    tap: data.View[data.StructLayout]
    pointer: data.View[data.StructLayout]
    store: data.View[data.StructLayout]
    run: data.View[data.StructLayout]
    nothing: Signal
    start: Signal
    clear: Signal
    clearing: Signal
    mac: Signal
    gated: Signal
    starved: Signal
    ring_full: Signal
    conflict: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        word = signed(config.accumulator_bits)
        writes = {
            "tap": In(tap_write_layout(config)),
            "pointer": In(pointer_write_layout(config)),
        }
        if config.shared_store:
            writes = {"store": In(store_write_layout(config))}
        super().__init__(
            {
                "i": In(stream.Signature(token_layout(config))),
                "o": Out(stream.Signature(token_layout(config))),
                "north": In(stream.Signature(word)),
                "south": Out(stream.Signature(word)),
                "top": In(1),
                **writes,
                "run": In(element_run_layout()),
                "nothing": In(1),
                "start": In(1),
                "clear": In(1),
                "clearing": Out(1),
                "mac": Out(1),
                "gated": Out(1),
                "starved": Out(1),
                "ring_full": Out(1),
                "conflict": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        element = _Element(m, self)
        store = self._shared_store if self.config.shared_store else self._stores
        tap = store(m, element.front_end, element.at)
        element.take_token()
        element.count_rows()
        element.walk()
        element.read_tap()
        element.read_operands(tap)
        element.multiply()
        element.drain_rows()
        element.clear()
        return m

    def _stores(self, m: Module, front_end: FrontEnd, address: Signal) -> Any:
        """Add a memory of the taps; return the one at ``address``, a cycle later."""
        config = self.config
        taps: Memory = Memory(
            shape=tap_layout(config), depth=config.tap_depth, init=[], attrs={"no_rw_check": "1"}
        )
        m.submodules.taps = taps
        write, read = taps.write_port(), taps.read_port()
        m.d.comb += [
            write.addr.eq(self.tap.address),
            write.data.eq(self.tap.tap),
            write.en.eq(self.tap.valid),
            front_end.pointer.eq(self.pointer),
            read.addr.eq(address),
        ]
        return read.data

    def _shared_store(self, m: Module, front_end: FrontEnd, address: Signal) -> Any:
        """Likewise of taps and start pointers: a port for the taps, one for all else."""
        config = self.config
        tap: Any = Signal(tap_layout(config))
        layout = self.store.shape()
        address_bits = layout["address"].width
        store: Memory = Memory(
            shape=layout["data"].shape,
            depth=1 << address_bits,
            init=[],
            attrs={"no_rw_check": "1"},
        )
        m.submodules.store = store
        write, read, other = store.write_port(), store.read_port(), store.read_port()
        m.d.comb += [
            read.addr.eq(address),
            other.addr.eq(
                Mux(self.store.valid, self.store.address, pointer_place(config, front_end.look))
            ),
            write.addr.eq(other.addr),
            write.data.eq(self.store.data),
            write.en.eq(self.store.valid),
            front_end.busy.eq(self.store.valid),
            front_end.looked_up.eq(other.data),
            tap.eq(read.data),
        ]
        return tap


class _Element:
    """The parts of an element, the token being walked, and the stages behind it."""

    def __init__(self, m: Module, ports: PE) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        m.submodules.front_end = self.front_end = FrontEnd(self.config)
        m.submodules.multiplier = self.multiplier = make_multiplier(self.config)
        m.submodules.accumulators = self.accumulators = Accumulators(self.config)
        m.submodules.drain = self.drain = Drain(self.config)
        connect(m, flipped(ports.i), self.front_end.i)
        connect(m, self.front_end.o, flipped(ports.o))
        self._hold_token()
        self._hold_stages()

    def _hold_token(self) -> None:
        """Have registers for the token being walked, or a marker of a complete row."""
        config = self.config
        self.walking = Signal()
        self.completing = Signal()
        self.at = Signal(config.tap_bits)
        self.more = Signal(config.tap_bits)  # taps behind this one
        self.is_last = Signal()  # there is none
        self.base = Signal(config.offset_bits)
        self.value = Signal(signed(config.activation_bits))
        self.open_rows = Signal(config.offset_bits + 1)
        self.free = Signal()  # for the next one
        self.take = Signal()
        self.is_open = Signal()

    def _hold_stages(self) -> None:
        """Have registers for the stages: a tap, or a marker of a complete row."""
        self.tap_read = Signal()
        self.tap_counts = Signal()  # whose activation does not gate it
        self.tap_complete = Signal()
        self.tap_base = Signal.like(self.base)
        self.tap_value = Signal.like(self.value)
        self.operands_complete = Signal()

    def take_token(self) -> None:
        """Take the next token with the last tap, unless it opens a row and the ring is full."""
        work, ports = self.front_end.work, self.ports
        must_wait = Signal()
        rows = ports.run.ring_rows[: len(self.open_rows)]
        self.m.d.comb += [
            self.free.eq(~self.walking | self.is_last),
            self.is_open.eq(work.payload.marker & work.payload.open),
            must_wait.eq(self.is_open & (self.open_rows == rows)),
            work.ready.eq(self.free & ~must_wait),
            self.take.eq(work.valid & work.ready),
            ports.ring_full.eq(work.valid & self.free & must_wait),
            ports.starved.eq(~work.valid & ~self.walking & ~self.completing),
        ]

    def count_rows(self) -> None:
        """Count rows that are open, by one adder."""
        m, open_rows, drained = self.m, self.open_rows, self.drain.drained
        opens = Signal()
        one = Signal.like(open_rows)  # or -1
        m.d.comb += [
            opens.eq(self.take & self.is_open),
            one.eq(Cat(Const(1, 1), drained.replicate(len(one) - 1))),
        ]
        with m.If(opens != drained):
            m.d.sync += open_rows.eq(open_rows + one)

    def walk(self) -> None:
        """Go on to the next tap, a tap a cycle, or to the first one of the next token."""
        m, work, free, more = self.m, self.front_end.work, self.free, self.more
        next_more = Signal.like(more)
        m.d.comb += next_more.eq(
            Mux(free, work.payload.end, more) + Mux(free, ~work.payload.start, -1)
        )
        m.d.sync += [
            self.at.eq(self.at + 1),
            more.eq(next_more),
            self.is_last.eq(next_more == 0),
        ]
        with m.If(free):
            m.d.sync += [
                self.walking.eq(self.take & ~work.payload.marker),
                self.completing.eq(self.take & work.payload.marker & ~work.payload.open),
                self.at.eq(work.payload.start),
                self.base.eq(work.payload.base),
                self.value.eq(work.payload.value),
            ]

    def read_tap(self) -> None:
        """Tap stage: the tap is read, late in the cycle."""
        gated = self.ports.run.gate & (self.value == 0)
        self.m.d.sync += [
            self.tap_read.eq(self.walking),
            self.tap_counts.eq(self.walking & ~gated),
            self.tap_complete.eq(self.completing),
            self.tap_base.eq(self.base),
            self.tap_value.eq(self.value),
        ]

    def read_operands(self, tap: Any) -> None:
        """Operand stage: the multiplier works, the accumulator is read.

        Gated operands stay away.
        """
        m, ports, add = self.m, self.ports, self.accumulators.add
        works = Signal()
        m.d.comb += [
            works.eq(self.tap_counts & ~(ports.run.gate & tap.zero)),
            ports.gated.eq(ports.mac & ~add.valid),
        ]
        m.d.sync += [
            ports.mac.eq(self.tap_read),
            self.operands_complete.eq(self.tap_complete),
            add.valid.eq(works),
            add.address.eq(self.tap_base + tap.offset),
        ]
        with m.If(works):
            m.d.sync += [
                self.multiplier.activation.eq(self.tap_value),
                self.multiplier.code.eq(tap.code),
            ]

    def multiply(self) -> None:
        """Product stage.

        A marker here has all additions before it written when it takes effect.
        """
        accumulators = self.accumulators
        self.m.d.sync += [
            accumulators.product.eq(Mux(accumulators.add.valid, self.multiplier.product, 0)),
            self.drain.complete.eq(self.operands_complete),
        ]

    def drain_rows(self) -> None:
        """Let the drain read the accumulators, and send what it makes of them south."""
        m, ports, drain, accumulators = self.m, self.ports, self.drain, self.accumulators
        m.d.comb += [
            drain.run.eq(ports.run),
            drain.nothing.eq(ports.nothing),
            drain.top.eq(ports.top),
            drain.start.eq(ports.start),
            drain.clear.eq(ports.clear),
            ports.conflict.eq(
                Cat(request.valid for request in drain.request).any()
                & ~Cat(*accumulators.taken).any()
            ),
        ]
        for bank in range(self.config.accumulator_banks):
            m.d.comb += [
                accumulators.drain[bank].eq(drain.request[bank]),
                drain.taken[bank].eq(accumulators.taken[bank]),
                drain.word[bank].eq(accumulators.word[bank]),
                drain.word_valid[bank].eq(accumulators.word_valid[bank]),
            ]
        connect(m, flipped(ports.north), drain.north)
        connect(m, drain.south, flipped(ports.south))

    def clear(self) -> None:
        """Drop everything while the accumulators are cleared; see whether anything is held."""
        m, ports, drain = self.m, self.ports, self.drain
        flush = Signal()
        m.d.comb += [
            self.accumulators.clear.eq(ports.clear),
            ports.clearing.eq(drain.clearing),
            flush.eq(ports.clear | ports.clearing),
            self.front_end.clear.eq(flush),
            ports.idle.eq(
                self.front_end.idle
                & ~(self.walking | self.completing | self.tap_read | self.tap_complete)
                & ~(ports.mac | self.operands_complete | drain.complete)
                & self.accumulators.idle
                & drain.idle
                & ~flush
            ),
        ]
        with m.If(ports.start | flush):
            m.d.sync += self.open_rows.eq(0)
        with m.If(flush):
            flags = [self.walking, self.completing, self.tap_read, self.tap_counts]
            flags += [self.tap_complete, ports.mac, self.accumulators.add.valid]
            flags += [self.operands_complete, drain.complete]
            m.d.sync += [flag.eq(0) for flag in flags]
