"""Windows along one axis of a map: which of them hold a place, and what the map lacks of them."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CutAxis", "WindowAxis"]

AXIS_BITS = 12


class WindowAxis(wiring.Component):
    """Which pooling windows the current row, or position, lies in; by counting alone.

    Windows of ``kernel`` places begin every ``stride`` places, the first ``pad`` places before
    place 0. They open and close in order, so that those open at one time are neighbours.

    Timing contract
    ---------------
    Latency
        After ``restart`` the axis walks through the padding, one place per cycle, and is ``ready``
        at place 0 after ``pad + 1`` cycles. Outputs follow ``step`` in the next cycle.
    Combinational paths
        None; outputs depend on registers, and ``closing`` on nothing else.

    Parameters
    ----------
    bits
        Width of a number of places.

    Members
    -------
    kernel, stride, count : ``In(bits)``
        Places of a window, between windows, and number of windows; each at least 1.
    pad : ``In(8)``
        Places before place 0.
    restart : ``In(1)``
        Go to the first place.
    step : ``In(1)``
        Go to the next place; only while ``ready``.
    ready : ``Out(1)``
        The place is not in the padding.
    open : ``Out(bits)``
        Number of windows that hold this place.
    newest_begins : ``Out(1)``
        The newest of them begins here.
    all_begin : ``Out(1)``
        All of them begin here, for this is place 0.
    closing : ``Out(1)``
        The oldest of them ends here.
    """

    kernel: Signal
    stride: Signal
    count: Signal
    pad: Signal
    restart: Signal
    step: Signal
    ready: Signal
    open: Signal
    newest_begins: Signal
    all_begin: Signal
    closing: Signal

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(
            {
                "kernel": In(bits),
                "stride": In(bits),
                "count": In(bits),
                "pad": In(8),
                "restart": In(1),
                "step": In(1),
                "ready": Out(1),
                "open": Out(bits),
                "newest_begins": Out(1),
                "all_begin": Out(1),
                "closing": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outside = Signal(8)  # places of padding still ahead
        unopened = Signal(self.bits)
        until_open = Signal(self.bits)  # places before the next window's first
        until_close = Signal(self.bits)  # places before the oldest window's last
        opens = Signal()
        m.d.comb += [
            self.ready.eq(outside == 0),
            self.closing.eq((until_close == 0) & (self.open != 0)),
            opens.eq((until_open == 0) & (unopened != 0)),
        ]
        with m.If(self.restart):
            m.d.sync += [
                outside.eq(self.pad),
                self.open.eq(1),
                unopened.eq(self.count - 1),
                until_open.eq(self.stride - 1),
                until_close.eq(self.kernel - 1),
                self.newest_begins.eq(1),
                self.all_begin.eq(1),
            ]
        with m.Elif(self.step | ~self.ready):
            m.d.sync += [
                self.open.eq(self.open + opens - self.closing),
                unopened.eq(unopened - opens),
                until_open.eq(Mux(until_open == 0, self.stride, until_open) - 1),
                until_close.eq(Mux(until_close == 0, self.stride, until_close) - 1),
                self.newest_begins.eq(opens),
            ]
            with m.If(self.ready):
                m.d.sync += self.all_begin.eq(0)
            with m.Else():
                m.d.sync += outside.eq(outside - 1)
        return m


class CutAxis(wiring.Component):
    """How many places of a window lie outside of the map, window by window.

    Timing contract
    ---------------
    Latency
        Outputs follow ``restart`` and ``step`` in the next cycle.
    Combinational paths
        None.

    Parameters
    ----------
    bits
        Width of a number of places.
    lack_bits
        Width of a number of places outside.

    Members
    -------
    pad : ``In(8)``
        Places of the first window before place 0.
    room : ``In(signed(bits + 1))``
        Places behind the first window; less than 0 if it reaches over the end of the map.
    stride : ``In(bits)``
        Places between windows.
    restart, step : ``In(1)``
        Go to the first window; to the next one.
    lacks : ``Out(lack_bits)``
        Places outside, if ``lack_bits`` hold their number.
    """

    pad: Signal
    room: Signal
    stride: Signal
    restart: Signal
    step: Signal
    lacks: Signal

    def __init__(self, bits: int, lack_bits: int) -> None:
        super().__init__(
            {
                "pad": In(8),
                "room": In(signed(bits + 1)),
                "stride": In(bits),
                "restart": In(1),
                "step": In(1),
                "lacks": Out(lack_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before = Signal.like(self.lacks)
        room = Signal.like(self.room)
        m.d.comb += self.lacks.eq(before + Mux(room < 0, -room, 0))
        with m.If(self.restart):
            m.d.sync += [before.eq(self.pad), room.eq(self.room)]
        with m.Elif(self.step):
            m.d.sync += [
                before.eq(Mux(self.stride < before, before - self.stride, 0)),
                room.eq(room - self.stride),
            ]
        return m
