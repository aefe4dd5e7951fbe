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
        config = self.config
        m.submodules.front_end = front_end = FrontEnd(config)
        m.submodules.multiplier = multiplier = make_multiplier(config)
        m.submodules.accumulators = accumulators = Accumulators(config)
        m.submodules.drain = drain = Drain(config)
        flush = Signal()
        m.d.comb += [
            accumulators.clear.eq(self.clear),
            self.clearing.eq(drain.clearing),
            flush.eq(self.clear | self.clearing),
            front_end.clear.eq(flush),
        ]
        connect(m, flipped(self.i), front_end.i)
        connect(m, front_end.o, flipped(self.o))

        tap_address = Signal(config.tap_bits)
        store = self._shared_store if config.shared_store else self._stores
        tap = store(m, front_end, tap_address)

        # State: the token being walked, or a marker of a complete row; rows that are open.
        walking = Signal()
        completing = Signal()
        at = Signal(config.tap_bits)
        more = Signal(config.tap_bits)  # taps behind this one
        next_more = Signal.like(more)
        is_last = Signal()  # there is none
        base = Signal(config.offset_bits)
        value = Signal(signed(config.activation_bits))
        open_rows = Signal(config.offset_bits + 1)

        # Flags of the stages: a tap, or a marker of a complete row.
        tap_read = Signal()
        tap_counts = Signal()  # whose activation does not gate it
        tap_complete = Signal()
        operands_complete = Signal()
        flags = [walking, completing, tap_read, tap_counts, tap_complete, operands_complete]
        flags += [self.mac, accumulators.add.valid, drain.complete]

        # Walker: one tap a cycle; the next token is taken with the last tap.
        work = front_end.work
        free = Signal()
        is_open = Signal()
        must_wait = Signal()
        take = Signal()
        m.d.comb += [
            free.eq(~walking | is_last),
            is_open.eq(work.payload.marker & work.payload.open),
            must_wait.eq(is_open & (open_rows == self.run.ring_rows[: len(open_rows)])),
            work.ready.eq(free & ~must_wait),
            take.eq(work.valid & work.ready),
            tap_address.eq(at),
            next_more.eq(Mux(free, work.payload.end, more) + Mux(free, ~work.payload.start, -1)),
            self.ring_full.eq(work.valid & free & must_wait),
            self.starved.eq(~work.valid & ~walking & ~completing),
        ]
        m.d.sync += [at.eq(at + 1), more.eq(next_more), is_last.eq(next_more == 0)]
        opens = Signal()
        one = Signal.like(open_rows)  # or -1
        m.d.comb += [
            opens.eq(take & is_open),
            one.eq(Cat(Const(1, 1), drain.drained.replicate(len(one) - 1))),
        ]
        with m.If(opens != drain.drained):
            m.d.sync += open_rows.eq(open_rows + one)
        with m.If(free):
            m.d.sync += [
                walking.eq(take & ~work.payload.marker),
                completing.eq(take & work.payload.marker & ~work.payload.open),
                at.eq(work.payload.start),
                base.eq(work.payload.base),
                value.eq(work.payload.value),
            ]

        # Tap stage: the tap is read, late in the cycle.
        tap_base = Signal.like(base)
        tap_value = Signal.like(value)
        works = Signal()
        m.d.comb += works.eq(tap_counts & ~(self.run.gate & tap.zero))
        m.d.sync += [
            tap_read.eq(walking),
            tap_counts.eq(walking & ~(self.run.gate & (value == 0))),
            tap_complete.eq(completing),
            tap_base.eq(base),
            tap_value.eq(value),
        ]

        # Operand stage: the multiplier works, the accumulator is read. Gated operands stay away.
        m.d.comb += self.gated.eq(self.mac & ~accumulators.add.valid)
        m.d.sync += [
            self.mac.eq(tap_read),
            operands_complete.eq(tap_complete),
            accumulators.add.valid.eq(works),
            accumulators.add.address.eq(tap_base + tap.offset),
        ]
        with m.If(works):
            m.d.sync += [multiplier.activation.eq(tap_value), multiplier.code.eq(tap.code)]

        # Product stage. A marker here has all additions before it written when it takes effect.
        m.d.sync += [
            accumulators.product.eq(Mux(accumulators.add.valid, multiplier.product, 0)),
            drain.complete.eq(operands_complete),
        ]

        # Drain.
        m.d.comb += [
            drain.run.eq(self.run),
            drain.nothing.eq(self.nothing),
            drain.top.eq(self.top),
            drain.start.eq(self.start),
            drain.clear.eq(self.clear),
            self.conflict.eq(
                Cat(request.valid for request in drain.request).any()
                & ~Cat(*accumulators.taken).any()
            ),
            self.idle.eq(
                front_end.idle
                & ~(walking | completing | tap_read | tap_complete)
                & ~(self.mac | operands_complete | drain.complete)
                & accumulators.idle
                & drain.idle
                & ~flush
            ),
        ]
        for bank in range(config.accumulator_banks):
            m.d.comb += [
                accumulators.drain[bank].eq(drain.request[bank]),
                drain.taken[bank].eq(accumulators.taken[bank]),
                drain.word[bank].eq(accumulators.word[bank]),
                drain.word_valid[bank].eq(accumulators.word_valid[bank]),
            ]
        connect(m, flipped(self.north), drain.north)
        connect(m, drain.south, flipped(self.south))

        with m.If(self.start | flush):
            m.d.sync += open_rows.eq(0)
        with m.If(flush):
            m.d.sync += [flag.eq(0) for flag in flags]
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
