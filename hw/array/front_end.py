"""Front end of a processing element: forks tokens east, and looks up where their taps lie."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.layouts import pointer_write_layout, token_layout

__all__ = ["FrontEnd", "work_layout"]


def work_layout(config: Config) -> data.StructLayout:
    """A token whose pointers are looked up: taps ``start`` up to, not including, ``end``."""
    return data.StructLayout(
        {
            "marker": unsigned(1),
            "open": unsigned(1),
            "start": unsigned(config.tap_bits),
            "end": unsigned(config.tap_bits),
            "base": unsigned(config.offset_bits),
            "value": signed(config.activation_bits),
        }
    )


class _Held(NamedTuple):
    """One token, and which of its two copies are still to go; the own one goes into the FIFO."""

    token: Any
    east: Signal
    own: Signal
    full: Signal  # the FIFO
    put: Signal  # the own copy goes, or is dropped, in this cycle


class FrontEnd(wiring.Component):
    """Take tokens, pass a copy of each to the east, queue those that have taps, and the markers.

    A token is forked when it is received, before anything is done with it. So an element that
    waits never holds back, from the elements east of it, a token that it has itself taken in.

    Timing contract
    ---------------
    Latency
        A token accepted in cycle ``t`` is offered on ``o`` in cycle ``t + 1``, and on ``work``
        in cycle ``t + 2``, with ``config.shared_store`` ``t + 3``, if the FIFO was empty.
    Throughput
        One token a cycle, with ``config.shared_store`` one in two cycles. A token without taps is
        dropped before the FIFO.
    Combinational paths
        ``o.ready``, ``clear`` and ``busy`` to ``i.ready``.
    Reset
        All tokens are dropped, by ``clear`` too; start pointers stay.

    Parameters
    ----------
    config
        Widths and depths.

    Members
    -------
    i : ``In(stream.Signature(token_layout(config)))``
        Tokens from the west.
    o : ``Out(stream.Signature(token_layout(config)))``
        The same tokens, to the east.
    pointer : ``In(pointer_write_layout(config))``
        Writes of start pointers; ``row`` is ignored.
    work : ``Out(stream.Signature(work_layout(config)))``
        Tokens with taps, and markers, in order.
    clear : ``In(1)``
        Drop all tokens and accept none.
    look : ``Out(group_bits)``, busy : ``In(1)``, looked_up : ``In(tap_bits)``
        Only with ``config.shared_store``: which pointer to read; something else is done in this
        cycle; the pointer that was read in the cycle before. ``pointer`` is then not used.
    idle : ``Out(1)``
        No token is held.
    """

    i: stream.Interface
    o: stream.Interface
    pointer: data.View[data.StructLayout]
    work: stream.Interface
    clear: Signal
    look: Signal
    busy: Signal
    looked_up: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        port = {
            "look": Out(config.group_bits),
            "busy": In(1),
            "looked_up": In(config.tap_bits),
        }
        super().__init__(
            {
                "i": In(stream.Signature(token_layout(config))),
                "o": Out(stream.Signature(token_layout(config))),
                "pointer": In(pointer_write_layout(config)),
                "work": Out(stream.Signature(work_layout(config))),
                "clear": In(1),
                **(port if config.shared_store else {}),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        work = work_layout(self.config)

        # State: one token, and which of its two copies are still to go. The own one goes into the
        # FIFO, unless there is nothing to do for it.
        token: Any = Signal(token_layout(self.config))
        east = Signal()
        own = Signal()
        put = Signal()
        entry: Any = Signal(work)

        # The FIFO. Words are numbered as they come and as they go, modulo twice the depth. Whether
        # a token has taps is known late in a cycle, so it is counted in the next one; until then
        # it is put in any case, and the next one in its place if it has none.
        fifo: Memory = Memory(shape=work, depth=self.config.fifo_depth, init=[])
        m.submodules.fifo = fifo
        fifo_write, fifo_read = fifo.write_port(), fifo.read_port(domain="comb")
        counted = Signal(range(2 * self.config.fifo_depth))
        was_put, was_marker = Signal(), Signal()  # in the cycle before
        differ = Signal(-(-self.config.tap_bits // 2))  # its pointers, two bits in each
        came_late = Signal()
        came = Signal.like(counted)
        gone = Signal.like(counted)
        held_words = Signal.like(counted)
        takes = Signal()
        m.d.sync += [
            counted.eq(came),
            was_put.eq(put),
            was_marker.eq(token.marker),
            differ.eq(
                Cat(
                    entry.start[bit : bit + 2] != entry.end[bit : bit + 2]
                    for bit in range(0, self.config.tap_bits, 2)
                )
            ),
        ]
        m.d.comb += [
            came_late.eq(was_put & (was_marker | differ.any())),
            came.eq(counted + came_late),
            fifo_write.addr.eq(came),
            fifo_read.addr.eq(gone),
            held_words.eq(came - gone),
            takes.eq(self.work.valid & self.work.ready),
            self.work.valid.eq((counted != gone) | came_late),
            self.work.payload.eq(fifo_read.data),
        ]
        with m.If(takes):
            m.d.sync += gone.eq(gone + 1)

        # Whether it is full, by one level from registers, since that goes on to the element to the
        # west: of the words that are counted there are as many as it holds, or one less.
        full, all_filled, one_free = Signal(), Signal(), Signal()
        depth = self.config.fifo_depth
        m.d.comb += full.eq(all_filled | (one_free & came_late))
        m.d.sync += [
            all_filled.eq(~takes & (held_words == depth)),
            one_free.eq(Mux(takes, held_words == depth, held_words == depth - 1)),
        ]
        with m.If(self.clear):
            m.d.sync += [counted.eq(0), was_put.eq(0), gone.eq(0)]
            m.d.sync += [all_filled.eq(0), one_free.eq(0)]

        # Input stage, and the pointers of the token whose own copy is still to go.
        held = _Held(token, east, own, full, put)
        if self.config.shared_store:
            first, behind = self._look_up_in_turn(m, held)
        else:
            first, behind = self._look_up_at_once(m, held)

        # Output stage, east: the token as it came.
        m.d.comb += [self.o.valid.eq(east), self.o.payload.eq(token)]

        # Output stage, own.
        m.d.comb += [
            entry.marker.eq(token.marker),
            entry.open.eq(token.open),
            entry.start.eq(first),
            entry.end.eq(behind),
            entry.base.eq(token.base),
            entry.value.eq(token.value),
            fifo_write.data.eq(entry),
            fifo_write.en.eq(put),
            self.idle.eq(~east & ~own & ~self.work.valid),
        ]
        return m

    def _accept(self, m: Module, held: _Held) -> Signal:
        """Take the next token when there is none, or the last one goes; return whether."""
        token, east, own, _, put = held
        accept = Signal()
        m.d.comb += accept.eq(self.i.valid & self.i.ready)
        with m.If(self.clear):
            m.d.sync += [east.eq(0), own.eq(0)]
        with m.Elif(accept):
            m.d.sync += [token.eq(self.i.payload), east.eq(1), own.eq(1)]
        with m.Else():
            m.d.sync += [east.eq(east & ~self.o.ready), own.eq(own & ~put)]
        return accept

    def _look_up_at_once(self, m: Module, held: _Held) -> tuple[Value, Value]:
        """Read both pointers as the token comes in; they stay beside it as long as it stays."""
        _, east, own, full, put = held
        pointers: Memory = Memory(
            shape=unsigned(self.config.tap_bits),
            depth=self.config.group_depth,
            init=[],
            attrs={"no_rw_check": "1"},
        )
        m.submodules.pointers = pointers
        write = pointers.write_port()
        first, behind = pointers.read_port(), pointers.read_port()
        m.d.comb += [
            write.addr.eq(self.pointer.address),
            write.data.eq(self.pointer.value),
            write.en.eq(self.pointer.valid),
        ]
        accept = self._accept(m, held)
        m.d.comb += [
            put.eq(own & ~full),
            self.i.ready.eq((~east | self.o.ready) & (~own | ~full) & ~self.clear),
            first.addr.eq(self.i.payload.lo),
            first.en.eq(accept),
            behind.addr.eq(self.i.payload.hi),
            behind.en.eq(accept),
        ]
        return first.data, behind.data

    def _look_up_in_turn(self, m: Module, held: _Held) -> tuple[Value, Value]:
        """Read the first pointer as the token comes in, the other when there is room for it."""
        token, east, own, full, put = held
        accepted = Signal()  # in the cycle before
        first = Signal(self.config.tap_bits)
        looks = Signal()
        accept = self._accept(m, held)
        m.d.comb += [
            self.i.ready.eq((~east | self.o.ready) & (~own | put) & ~self.busy & ~self.clear),
            looks.eq(own & ~put & ~full & ~self.busy),
            self.look.eq(Mux(own & ~put, token.hi, self.i.payload.lo)),
        ]
        m.d.sync += [accepted.eq(accept), put.eq(looks & ~self.clear)]
        with m.If(accepted):
            m.d.sync += first.eq(self.looked_up)
        return first, self.looked_up
