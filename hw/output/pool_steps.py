"""Steps of the serial pooler: the store of what changes, the constants of a run, and the adder."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import record_layout

__all__ = [
    "PoolSettings",
    "PoolSteps",
    "Setting",
    "State",
    "Y",
    "pool_setting_layout",
    "step_bits",
]


class Setting(IntEnum):
    """Constants of a run, in the order in which they are sent; those of y are 8 further on."""

    STRIDE = 0
    KERNEL = 1
    COUNT = 2  # of windows
    PAD = 3
    ROOM = 4
    CHANNELS = 5  # each column's own
    ROW_SIZE = 6  # pooled_width x channels, which the pooler writes itself
    HEIGHT = 13  # rows of the map


class State(IntEnum):
    """What the steps work on; what belongs to an axis is 8 further on for y."""

    OPEN = 0  # windows that hold this place
    UNOPENED = 1  # windows to come, and one
    UNTIL_OPEN = 2  # places up to the next window's first one
    UNTIL_CLOSE = 3  # places up to the oldest window's last one, and that
    BEFORE = 4  # places of the window to be sent that lie before the map, or less than 0
    ROOM = 5  # places of the map behind it, or less than 0
    LEFT = 6  # windows of the value that come after this one
    OUTSIDE = 7  # places of padding still ahead
    CORNER = 16  # address of the value's place in the oldest window
    ROW = 17  # address of its place in the oldest window of this row of windows
    AT = 18  # address of its place in this window
    SEND = 19  # address of the next result
    ROW_LEFT = 20  # results of a row of windows to be sent
    CHANNELS = 21  # channels of this place to come, or to be sent
    ROWS = 22  # rows of the map to come, with this one
    NULL = 23


Y = 8
"""Distance of what belongs to the axis y from that of x."""


def step_bits(config: Config) -> int:
    """Width of a step's numbers: places with a sign, addresses, channels."""
    address_bits = (config.pool_depth - 1).bit_length()
    return max(config.map_bits + 1, address_bits + 1, config.column_bits)


def pool_setting_layout(config: Config) -> data.StructLayout:
    """A constant on its way to the poolers."""
    return data.StructLayout({"valid": 1, "index": 4, "value": step_bits(config)})


class PoolSettings(wiring.Component):
    """Send the poolers of all columns the constants of a run, one a cycle.

    Timing contract
    ---------------
    Latency
        The first one comes two cycles after ``start``.
    Throughput
        One a cycle, sixteen in all.
    Combinational paths
        None.
    Reset
        Idle.

    Parameters
    ----------
    config
        Widths.

    Members
    -------
    run : ``In(record_layout(RUN))``
        The run: ``out_height``, ``pool*``. Steady from ``start`` on.
    start : ``In(1)``
        Pulse: begin.
    o : ``Out(pool_setting_layout(config))``
        Constants, by :class:`Setting`.
    """

    run: data.View
    start: Signal
    o: data.View

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "start": In(1),
                "o": Out(pool_setting_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        run, bits = self.run, step_bits(self.config)
        values: list[Any] = [0] * 16
        for y, axis, side in ((0, "x", "width"), (Y, "y", "height")):
            values[y + Setting.STRIDE] = run[f"pool_stride_{axis}"]
            values[y + Setting.KERNEL] = run[f"pool_{side}"]
            values[y + Setting.COUNT] = run[f"pooled_{side}"]
            values[y + Setting.PAD] = run[f"pool_pad_{axis}"]
            values[y + Setting.ROOM] = run[f"pool_room_{axis}"]
        values[Setting.HEIGHT] = run.out_height
        table = Array(Signal(signed(bits), name=f"value_{n}") for n in range(16))
        m.d.comb += [signal.eq(value) for signal, value in zip(table, values, strict=True)]
        index = Signal(4)
        active = Signal()
        with m.If(self.start):
            m.d.sync += [index.eq(0), active.eq(1)]
        with m.Elif(active):
            m.d.sync += [index.eq(index + 1), active.eq(index != 15)]
        m.d.sync += [
            self.o.valid.eq(active & ~self.start),
            self.o.index.eq(index),
            self.o.value.eq(table[index]),
        ]
        return m


class PoolSteps(wiring.Component):
    """State and constants, and the adder: ``result = state + constant``, or the like.

    A step takes a cycle. ``result`` is ``state[read] + ((constant & gate) ^ invert) + carry``, and
    goes to ``state[write]``. Nothing is reset; :attr:`State.NULL` is never written, and is 0.

    Timing contract
    ---------------
    Combinational from the step to ``result``, ``zero`` and ``one``.

    Parameters
    ----------
    config
        Widths.

    Members
    -------
    setting : ``In(pool_setting_layout(config))``
        What :class:`PoolSettings` sends.
    channels : ``In(16)``
        The column's own constant.
    read, write, enable, constant, gate, invert, carry : ``In``
        The step.
    keeps_size : ``In(1)``
        ``result`` becomes a constant, :attr:`Setting.ROW_SIZE`.
    result : ``Out(step_bits(config))``
        The sum.
    zero, one : ``Out(1)``
        It is 0; it is 1.
    """

    setting: data.View
    channels: Signal
    read: Signal
    write: Signal
    enable: Signal
    constant: Signal
    gate: Signal
    invert: Signal
    carry: Signal
    keeps_size: Signal
    result: Signal
    zero: Signal
    one: Signal

    def __init__(self, config: Config) -> None:
        self.bits = step_bits(config)
        super().__init__(
            {
                "setting": In(pool_setting_layout(config)),
                "channels": In(16),
                "read": In(5),
                "write": In(5),
                "enable": In(1),
                "constant": In(4),
                "gate": In(1),
                "invert": In(1),
                "carry": In(1),
                "keeps_size": In(1),
                "result": Out(self.bits),
                "zero": Out(1),
                "one": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        states: Any = Memory(shape=self.bits, depth=32, init=[])  # State.NULL is never written
        constants: Any = Memory(shape=self.bits, depth=16, init=[])
        m.submodules.states, m.submodules.constants = states, constants
        read, write = states.read_port(domain="comb"), states.write_port()
        constant, sent = constants.read_port(domain="comb"), constants.write_port()
        own = self.setting.index == Setting.CHANNELS
        m.d.comb += [
            read.addr.eq(self.read),
            constant.addr.eq(self.constant),
            self.result.eq(
                read.data
                + (
                    (constant.data & self.gate.replicate(self.bits))
                    ^ self.invert.replicate(self.bits)
                )
                + self.carry
            ),
            self.zero.eq(~self.result[1:].any() & ~self.result[0]),
            self.one.eq(~self.result[1:].any() & self.result[0]),
            write.addr.eq(self.write),
            write.data.eq(self.result),
            write.en.eq(self.enable),
            sent.en.eq(self.setting.valid | self.keeps_size),
            sent.addr.eq(Mux(self.keeps_size, Setting.ROW_SIZE, self.setting.index)),
            sent.data.eq(
                Mux(self.keeps_size, self.result, Mux(own, self.channels, self.setting.value))
            ),
        ]
        return m
