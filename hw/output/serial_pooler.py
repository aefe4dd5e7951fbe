"""Serial pooler: pooling in several steps a value, by one adder and two small memories.

Defined as :class:`thresher.hw.output.pooler.Pooler` is, by :mod:`thresher.golden.pooling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from amaranth.hdl import (
    Cat,
    Const,
    Elaboratable,
    Module,
    Mux,
    ResetInserter,
    Signal,
    Value,
    ValueLike,
)
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool
from thresher.hw.layouts import pool_factor_layout, record_layout, value_layout
from thresher.hw.output.pool_steps import PoolSteps, Setting, State, Y, pool_setting_layout
from thresher.hw.output.pooler import sum_bits, sums_port
from thresher.hw.output.serial_partials import SerialPartials

__all__ = ["SerialPooler"]


class Step(IntEnum):
    """The steps. Each is followed by the one behind it, unless it says otherwise."""

    START = 0
    SIZE = 1
    ADD_CHANNELS = 2
    COUNT_WINDOWS = 3
    KEEP_SIZE = 4
    FIRST_ROW_LEFT = 5
    FIRST_RESULT = 6
    ROW_ENDS = 7
    ROW = 8
    MAP = 9
    BEFORE_X = 10
    BEHIND_X = 11
    BEFORE_Y = 12
    BEHIND_Y = 13
    BEGIN = 14
    BEGIN_COUNT = 15
    BEGIN_OPENS = 16
    BEGIN_CLOSES = 17
    BEGIN_OUTSIDE = 18
    OPEN = 19
    UNOPENED = 20
    UNTIL_OPEN = 21
    UNTIL_CLOSE = 22
    WALK = 23
    PLACE = 24
    WINDOWS_X = 25
    WINDOWS_Y = 26
    WINDOW_ROW = 27
    VALUE = 28
    NEXT_WINDOW = 29
    WINDOW = 30
    NEXT_ROW = 31
    FIRST_WINDOW = 32
    ADD_ROW = 33
    BEFORE_ROW = 34
    COUNT_CHANNEL = 35
    TAKE = 36
    PLACE_ENDS = 37
    PLACE_IS_DONE = 38
    MOVE = 39
    SEND = 40
    NEXT_RESULT = 41
    COUNT_RESULT = 42
    COUNT_SENT = 43
    RESULT_IS_SENT = 44
    WINDOW_IS_SENT = 45
    ROW_IS_SENT = 46
    MORE_ROWS = 47


class _Axis:
    """What is known of a place, of one axis."""

    def __init__(self, name: str, lack_bits: int) -> None:
        self.open = Signal(name=f"{name}_open")  # some windows hold it
        self.opens = Signal(name=f"{name}_opens")  # the next place would be a window's first one
        self.closes = Signal(name=f"{name}_closes")  # it would be the oldest window's last one
        self.more = Signal(name=f"{name}_more")  # windows come
        self.begins = Signal(name=f"{name}_begins")  # the newest window begins here
        self.all_begin = Signal(name=f"{name}_all_begin")  # all of them
        self.newest = Signal(name=f"{name}_newest")  # the window in hand is the newest one
        self.lacks = Signal(lack_bits, name=f"{name}_lacks")  # places of the window to be sent


class _Known:
    """What is known of place, row and map, and is kept when a step finds it out."""

    def __init__(self, m: Module, steps: PoolSteps, lack_bits: int) -> None:
        self.x, self.y = x, y = _Axis("x", lack_bits), _Axis("y", lack_bits)
        self.axis_y = axis_y = Signal()  # the axis in hand
        self.walks = Signal()  # through padding
        self.several = Signal()  # windows hold the place
        self.zero = Signal()  # of what is counted
        self.row_sent = Signal()  # the result was its row's last one
        self.all_sent = Signal()  # of the row of windows that this row of the map ends
        self.final_place, self.final_row = Signal(), Signal(init=1)
        self.new_map = Signal(init=1)

        # A step changes these.
        self.counts, self.counts_row, self.counts_rows = Signal(), Signal(), Signal()
        self.open_changes, self.unopened_changes = Signal(), Signal()
        self.until_open_changes, self.until_close_changes = Signal(), Signal()
        self.left_x_changes, self.left_y_changes = Signal(), Signal()
        self.begins = Signal()
        for changes, kept, value in (
            (self.counts, self.zero, steps.zero),
            (self.counts_row, self.row_sent, steps.zero),
            (self.counts_rows, self.final_row, steps.one),
            (self.left_x_changes, x.newest, steps.zero),
            (self.left_y_changes, y.newest, steps.zero),
        ):
            with m.If(changes):
                m.d.sync += kept.eq(value)

        # Of the axis in hand, as it was a cycle before, for that is steady when it is asked for: a
        # window opens at the next place; one closes at this one.
        self.opens, self.closes = Signal(), Signal()
        self.until_open_ends, self.until_close_ends = Signal(), Signal()
        m.d.sync += [
            self.until_open_ends.eq(Mux(axis_y, y.opens, x.opens)),
            self.until_close_ends.eq(Mux(axis_y, y.closes, x.closes)),
            self.opens.eq(Mux(axis_y, y.opens & y.more, x.opens & x.more)),
            self.closes.eq(Mux(axis_y, y.closes & y.open, x.closes & x.open)),
        ]
        for axis, this in ((x, ~axis_y), (y, axis_y)):
            with m.If(self.open_changes & this):
                m.d.sync += [
                    axis.open.eq(~steps.zero),
                    axis.begins.eq(self.begins | self.opens),
                    axis.all_begin.eq(self.begins | (self.walks & axis.all_begin)),
                ]
            with m.If(self.unopened_changes & this):
                m.d.sync += axis.more.eq(~steps.one)
            with m.If(self.until_open_changes & this):
                m.d.sync += axis.opens.eq(steps.one)
            with m.If(self.until_close_changes & this):
                m.d.sync += axis.closes.eq(steps.one)


class SerialPooler(wiring.Component):
    """What a :class:`~thresher.hw.output.pooler.Pooler` is, in less logic.

    All that changes lies in a memory, and all that is constant in another one; a step adds one of
    the first and one of the second, or one, and puts the sum into the first::

        state --------------------------+-> + -> state, address of a window
        settings -> less, or one -------^
        address -> partial results -> partial, value -> one of them 0, if a maximum -> + -> memory
                                         +-> the column's scaler -> o

    A value is combined into the windows that hold it, one after another. When its place is the
    last one of a window that is the next in the order of the output, that window is sent; at the
    end of a row of the map all that is left of a finished row of windows, and at the end of the map
    all that is left. The results of a map lie in the memory in the order in which they are sent.

    Timing contract
    ---------------
    Latency
        Without pooling 0 cycles. Otherwise a pooled row begins ten to twenty cycles after its
        first place's last value.
    Throughput
        Receives a value in four cycles for each window that it lies in, and two more if they are
        several, and sends one in five, the input waiting. Rests for eleven cycles after each place,
        and for eight and five a place of padding after each row. After ``start`` three cycles for
        each pooled place of a row and thirty pass until the first value. A sum in four cycles.
    Combinational paths
        Without pooling and addition between ``i`` and ``o``, both ways. Otherwise ``pooled.ready``
        to ``sums.ready``, and between ``result`` and ``o``.
    Reset
        As ``start``.

    Parameters
    ----------
    config
        As of the Pooler; ``output_cycles`` is 4.

    Members
    -------
    setting : ``In(pool_setting_layout(config))``
        What :class:`PoolSettings` sends.
    i, run, channels, start, sums, o
        As of the Pooler; ``last`` of ``i`` is that of a row of the map.
    pooled, result : ``Out``, ``In`` of a stream
        To and from the :class:`~.column_scaler.ColumnScaler`, which has the scales.
    """

    i: stream.Interface
    run: data.View
    channels: Signal
    start: Signal
    setting: data.View
    sums: stream.Interface
    o: stream.Interface
    pooled: stream.Interface
    result: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "start": In(1),
                "setting": In(pool_setting_layout(config)),
                **sums_port(config),
                "o": Out(stream.Signature(value_layout(config))),
                "pooled": Out(stream.Signature(pool_factor_layout(config, sum_bits(config)))),
                "result": In(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.steps = steps = PoolSteps(self.config)
        m.submodules.partials = partials = SerialPartials(self.config)
        m.d.comb += [
            steps.setting.eq(self.setting),
            steps.channels.eq(self.channels),
            partials.run.eq(self.run),
            partials.value.eq(self.i.payload.value),
            partials.address.eq(steps.result),
        ]
        if self.config.residual:
            m.d.comb += [
                partials.sums.valid.eq(self.sums.valid),
                partials.sums.payload.eq(self.sums.payload),
                self.sums.ready.eq(partials.sums.ready & ~self.start),
            ]
        wiring.connect(m, partials.pooled, wiring.flipped(self.pooled))
        m.d.comb += [
            self.o.valid.eq(self.result.valid),
            self.o.payload.eq(self.result.payload),
            self.result.ready.eq(self.o.ready),
        ]
        # Without pooling values pass.
        passes: Value = self.run.pool == Pool.NONE
        if self.config.residual:
            passes &= ~self.run.add
        with m.If(passes):
            m.d.comb += [
                self.o.valid.eq(self.i.valid & ~self.start),
                self.o.payload.eq(self.i.payload),
                self.i.ready.eq(self.o.ready & ~self.start),
            ]

        sequence = _Sequence(m, self, steps, partials)
        with m.Switch(sequence.step):
            sequence.prepare()
            sequence.begin_rows()
            sequence.find_lacks()
            sequence.begin_axis()
            sequence.move_axis()
            sequence.visit_windows()
            sequence.take_value()
            sequence.end_place()
            sequence.send_results()
        sequence.emit()
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole


def _either(first: ValueLike, second: ValueLike) -> ValueLike:
    """Return what is 1 if one of two bits is."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, int):
            return 1 if one else other
    return Value.cast(first) | second


def _bit(value: ValueLike | None, bit: int) -> int | None:
    """Bit of a value, 0 if it is not constant, None if it does not matter."""
    if value is None:
        return None
    return value >> bit & 1 if isinstance(value, int) else 0


def _choose(index: Value, leaves: list[int | None]) -> Value | int | None:
    """Choose a leaf by ``index``, its highest bit first; None if none of them matters."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    low, high = _choose(index, leaves[:half]), _choose(index, leaves[half:])
    if low is None or high is None:
        return high if low is None else low
    if isinstance(low, int) and isinstance(high, int) and low == high:
        return low
    return Mux(index[half.bit_length() - 1], high, low)


class _Sequence:
    """The steps and their order."""

    def __init__(
        self, m: Module, pooler: SerialPooler, steps: PoolSteps, partials: SerialPartials
    ) -> None:
        self.m, self.pooler, self.steps, self.partials = m, pooler, steps, partials
        self.lack_bits = pooler.config.pool_lacks.bit_length()
        self.known = known = _Known(m, steps, self.lack_bits)
        x, y = known.x, known.y
        self.step = Signal(range(len(Step)))
        self.now = Step.START
        # What is said of each step; of steps of which nothing is said, by default.
        self.said: dict[int, tuple[Signal, int | None, dict[int, ValueLike]]] = {}
        self.waits, self.jumps = Signal(), Signal()  # stays at this step; leaves their order
        self.target, self.following = Signal.like(self.step), Signal.like(self.step)
        self.begins, self.takes = Signal(), Signal()
        # What is read and written; whether that is of the axis in hand, or nothing, or the stride.
        self.read, self.write, self.constant = Signal(5), Signal(5), Signal(4)
        self.of_axis, self.loads, self.strides = Signal(), Signal(), Signal()
        of_y = Cat(Const(0, 3), self.of_axis & known.axis_y)
        m.d.comb += [
            self.following.eq(
                Mux(self.jumps, self.target, Mux(self.waits, self.step, self.step + 1))
            ),
            steps.read.eq(self.read | self.loads.replicate(5) | of_y),
            steps.write.eq(self.write | of_y),
            steps.constant.eq((self.constant & ~Cat(self.strides.replicate(3), 0)) | of_y),
        ]
        m.d.sync += self.step.eq(self.following)
        m.d.comb += [
            partials.begin.eq(self.begins),
            partials.overwrite.eq(
                (x.all_begin | (x.begins & x.newest)) & (y.all_begin | (y.begins & y.newest))
            ),
            partials.last.eq(known.row_sent),
            partials.lacks.eq(Mux(pooler.run.pool_scales != 0, Cat(x.lacks, y.lacks), 0)),
        ]
        with m.If(self.takes):
            m.d.comb += pooler.i.ready.eq(~pooler.start)

    @contextmanager
    def at(self, step: Step) -> Iterator[None]:
        """Say what a step does."""
        self.now = step
        with self.m.Case(step):
            yield

    def says(self, signal: Signal, value: ValueLike = 1, default: int | None = 0) -> None:
        """Give a signal a value at this step; ``default`` None: at others it does not matter."""
        _, _, values = self.said.setdefault(id(signal), (signal, default, {}))
        values[self.now] = value

    def go(self, to: Step, when: ValueLike = 1) -> None:
        """Take another step than the next one, unless an earlier call has said so."""
        jumps, target = (
            self.said[id(signal)][2].get(self.now) if id(signal) in self.said else None
            for signal in (self.jumps, self.target)
        )
        if jumps is None or target is None:
            self.says(self.jumps, when)
            self.says(self.target, to, default=None)
        else:
            self.says(self.jumps, Value.cast(jumps) | when)
            self.says(self.target, Mux(jumps, target, to), default=None)

    def work(
        self,
        target: State | None,
        source: State,
        setting: Setting | None = None,
        *,
        adds: ValueLike = 0,
        subtracts: ValueLike = 0,
        more: ValueLike = 0,
        less: ValueLike = 0,
        loads: ValueLike = 0,
        strides: ValueLike = 0,
        enable: ValueLike = 1,
        y: bool | None = False,
    ) -> None:
        """Put ``source`` with ``setting`` added, or subtracted, or one more or less, to ``target``.

        With ``loads`` the source is 0, with ``strides`` the setting is the stride. State and
        setting are those of y, if ``y``, or if it is None and y is the axis in hand.
        """
        of_y = Y if y else 0
        self.says(self.read, source | of_y, default=None)
        self.says(self.steps.enable, 0 if target is None else enable)
        if target is not None:
            self.says(self.write, target | of_y, default=None)
        if setting is not None:
            self.says(self.constant, setting | of_y, default=None)
        self.says(self.of_axis, int(y is None))
        self.says(self.loads, loads)
        self.says(self.strides, strides)
        self.says(self.steps.gate, _either(adds, subtracts))
        self.says(self.steps.invert, _either(less, subtracts))
        self.says(self.steps.carry, _either(more, subtracts))

    def load(
        self, target: State, setting: Setting | None = None, *, more: ValueLike = 0, **how: Any
    ) -> None:
        """Put a setting, or one, or nothing, to ``target``."""
        self.work(target, State.NULL, setting, adds=int(setting is not None), more=more, **how)

    def emit(self) -> None:
        """Add what was said, each bit as a function of the step.

        The functions are of the following step, and kept: what is said of a step is there as it
        begins, and what it depends on is chosen by a bit for the steps where it does.
        """
        chosen: dict[frozenset[int], Signal] = {}

        def keep(leaves: list[int | None], name: str) -> Signal:
            kept = Signal(init=leaves[0] or 0, name=name)
            found = _choose(self.following, leaves)
            self.m.d.sync += kept.eq(0 if found is None else found)
            return kept

        for signal, default, values in self.said.values():
            depends: dict[int, tuple[Value, set[int]]] = {}
            for step, value in values.items():
                if not isinstance(value, int):
                    depends.setdefault(id(value), (Value.cast(value), set()))[1].add(step)
            bits: list[ValueLike] = []
            for k in range(len(signal)):
                leaves = [
                    _bit(values.get(step, default), k) if step < len(Step) else None
                    for step in range(1 << len(self.step))
                ]
                bit: Value = Const(0)
                if 1 in leaves:
                    bit = keep(leaves, f"{signal.name}_{k}")
                for value, steps in depends.values():
                    if k < len(value):
                        key = frozenset(steps)
                        if key not in chosen:
                            there = [int(n in steps) for n in range(len(leaves))]
                            chosen[key] = keep([*there], f"chosen_{len(chosen)}")
                        bit |= chosen[key] & value[k]
                bits.append(bit)
            self.m.d.comb += signal.eq(Cat(*bits))

    def prepare(self) -> None:
        """Compute the size of a pooled row, once all settings are there."""
        known = self.known
        with self.at(Step.START):
            self.load(State.AT)
            self.says(
                self.waits,
                (self.pooler.run.pool == Pool.NONE)
                | ~self.pooler.setting.valid
                | ~self.pooler.setting.index.all(),
            )
        with self.at(Step.SIZE):
            self.load(State.ROW, Setting.COUNT)
        with self.at(Step.ADD_CHANNELS):
            self.work(State.AT, State.AT, Setting.CHANNELS, adds=1)
        with self.at(Step.COUNT_WINDOWS):
            self.work(State.ROW, State.ROW, less=1)
            self.says(known.counts)
        with self.at(Step.KEEP_SIZE):
            self.work(None, State.AT)
            self.says(self.steps.keeps_size)
            self.go(Step.ADD_CHANNELS, ~known.zero)
        with self.at(Step.FIRST_ROW_LEFT):
            self.load(State.ROW_LEFT, Setting.ROW_SIZE)
        with self.at(Step.FIRST_RESULT):
            self.load(State.SEND)

    def begin_rows(self) -> None:
        """Begin a row of the map, or the map, when the one before is over."""
        m, known = self.m, self.known
        with self.at(Step.ROW_ENDS):
            self.work(State.CORNER, State.SEND)
            m.d.sync += [known.all_sent.eq(0), known.axis_y.eq(1)]
            self.go(Step.MAP, known.final_row)
        with self.at(Step.ROW):
            self.work(State.ROWS, State.ROWS, less=1)
            self.says(known.counts_rows)
            self.go(Step.OPEN)
        with self.at(Step.MAP):
            self.load(State.ROWS, Setting.HEIGHT)
            self.says(known.counts_rows)
            m.d.sync += known.new_map.eq(1)

    def find_lacks(self) -> None:
        """Find what the next window to be sent lacks."""
        m, known = self.m, self.known
        axes = (
            (known.x, known.row_sent | known.new_map, Step.BEFORE_X, Step.BEHIND_X),
            (known.y, known.new_map, Step.BEFORE_Y, Step.BEHIND_Y),
        )
        for axis, first, before, behind in axes:
            later = ~first
            how: dict[str, Any] = {
                "adds": 1,
                "subtracts": later,
                "loads": first,
                "strides": later,
                "y": axis is known.y,
            }
            result = self.steps.result
            with self.at(before):
                self.work(State.BEFORE, State.BEFORE, Setting.PAD, **how)
                m.d.sync += axis.lacks.eq(Mux(result[-1], 0, result))
            with self.at(behind):
                self.work(State.ROOM, State.ROOM, Setting.ROOM, **how)
                m.d.sync += axis.lacks.eq(
                    axis.lacks + Mux(result[-1], -result[: self.lack_bits], 0)
                )
                if axis is known.y:
                    m.d.sync += known.new_map.eq(0)
                self.go(Step.WINDOW_IS_SENT, later)

    def begin_axis(self) -> None:
        """Go to the first place of an axis."""
        m, known = self.m, self.known
        with self.at(Step.BEGIN):
            self.load(State.OPEN, more=1, y=None)
            self.says(known.open_changes)
            self.says(known.begins)
        with self.at(Step.BEGIN_COUNT):
            self.load(State.UNOPENED, Setting.COUNT, y=None)
            self.says(known.unopened_changes)
        with self.at(Step.BEGIN_OPENS):
            self.load(State.UNTIL_OPEN, Setting.STRIDE, y=None)
            self.says(known.until_open_changes)
        with self.at(Step.BEGIN_CLOSES):
            self.load(State.UNTIL_CLOSE, Setting.KERNEL, y=None)
            self.says(known.until_close_changes)
        with self.at(Step.BEGIN_OUTSIDE):
            self.load(State.OUTSIDE, Setting.PAD, y=None)
            self.says(known.counts)
            m.d.sync += known.walks.eq(1)
            self.go(Step.WALK)

    def move_axis(self) -> None:
        """Go to the next place of an axis, or through the padding."""
        m, known = self.m, self.known
        with self.at(Step.OPEN):
            opens, closes = known.opens & ~known.closes, known.closes & ~known.opens
            self.work(State.OPEN, State.OPEN, more=opens, less=closes, y=None)
            self.says(known.open_changes)
        with self.at(Step.UNOPENED):
            self.work(State.UNOPENED, State.UNOPENED, less=known.opens, y=None)
            self.says(known.unopened_changes)
        with self.at(Step.UNTIL_OPEN):
            ends = known.until_open_ends
            self.work(
                State.UNTIL_OPEN,
                State.UNTIL_OPEN,
                Setting.STRIDE,
                adds=ends,
                less=~ends,
                loads=ends,
                y=None,
            )
            self.says(known.until_open_changes)
        with self.at(Step.UNTIL_CLOSE):
            ends = known.until_close_ends
            self.work(
                State.UNTIL_CLOSE,
                State.UNTIL_CLOSE,
                Setting.STRIDE,
                adds=ends,
                less=~ends,
                loads=ends,
                y=None,
            )
            self.says(known.until_close_changes)
        with self.at(Step.WALK):
            self.work(State.OUTSIDE, State.OUTSIDE, less=1, y=None)
            self.says(known.counts)
            over = known.zero | ~known.walks
            with m.If(over):
                m.d.sync += [known.walks.eq(0), known.axis_y.eq(0)]
            self.go(Step.OPEN, ~over)
            self.go(Step.BEGIN, known.axis_y)

    def visit_windows(self) -> None:
        """Combine a value into the windows of its place, rows of them outermost."""
        m, known = self.m, self.known
        x, y = known.x, known.y
        with self.at(Step.PLACE):
            self.load(State.CHANNELS, Setting.CHANNELS)
        with self.at(Step.WINDOWS_X):
            self.work(State.LEFT, State.OPEN, less=1)
            self.says(known.left_x_changes)
        with self.at(Step.WINDOWS_Y):
            self.work(State.LEFT, State.OPEN, less=1, y=True)
            self.says(known.left_y_changes)
        with self.at(Step.WINDOW_ROW):
            self.work(State.ROW, State.CORNER)
            m.d.sync += known.several.eq(~x.newest | ~y.newest)
        with self.at(Step.VALUE):
            none = ~x.open | ~y.open
            self.work(State.AT, State.CORNER)
            moves = self.pooler.i.valid & (self.partials.ready | none)
            self.says(self.waits, ~moves)
            self.says(self.begins, moves & ~none & ~self.pooler.start)
            self.go(Step.COUNT_CHANNEL, moves & (none | (x.newest & y.newest)))
            self.go(Step.NEXT_ROW, moves & x.newest)
        with self.at(Step.NEXT_WINDOW):
            self.work(State.LEFT, State.LEFT, less=1)
            self.says(known.left_x_changes)
        with self.at(Step.WINDOW):
            self.work(State.AT, State.AT, Setting.CHANNELS, adds=1, enable=self.partials.ready)
            self.says(self.begins, self.partials.ready)
            self.says(self.waits, ~self.partials.ready)
            self.go(Step.NEXT_WINDOW, self.partials.ready & ~x.newest)
            self.go(Step.COUNT_CHANNEL, self.partials.ready & y.newest)
        with self.at(Step.NEXT_ROW):
            self.work(State.LEFT, State.LEFT, less=1, y=True)
            self.says(known.left_y_changes)
        with self.at(Step.FIRST_WINDOW):
            self.work(State.LEFT, State.OPEN, less=1)
            self.says(known.left_x_changes)
        with self.at(Step.ADD_ROW):
            self.work(State.ROW, State.ROW, Setting.ROW_SIZE, adds=1)
        with self.at(Step.BEFORE_ROW):
            self.work(State.AT, State.ROW, Setting.CHANNELS, subtracts=1)
            self.go(Step.WINDOW)

    def take_value(self) -> None:
        """Take the value."""
        m, known = self.m, self.known
        with self.at(Step.COUNT_CHANNEL):
            self.work(State.CHANNELS, State.CHANNELS, less=1)
            self.says(known.counts)
        with self.at(Step.TAKE):
            self.work(State.CORNER, State.CORNER, more=1)
            self.says(self.takes)
            m.d.sync += known.final_place.eq(self.pooler.i.payload.last)
            self.go(Step.WINDOWS_X, ~known.zero & known.several)
            self.go(Step.VALUE, ~known.zero)

    def end_place(self) -> None:
        """Leave a place, when what it finishes is sent."""
        known = self.known
        x, y = known.x, known.y
        finishes = y.open & (y.closes | known.final_row)
        with self.at(Step.PLACE_ENDS):
            self.load(State.CHANNELS, Setting.CHANNELS)
            self.go(
                Step.SEND,
                finishes & Mux(known.final_place, ~known.all_sent, x.open & x.closes),
            )
        with self.at(Step.PLACE_IS_DONE):
            self.work(None, State.NULL)
            self.go(Step.ROW_IS_SENT, known.final_place)
        with self.at(Step.MOVE):  # the corner stays ahead if its window is over
            back = ~(x.open & x.closes)
            self.work(State.CORNER, State.CORNER, Setting.CHANNELS, subtracts=back)
            self.go(Step.OPEN)

    def send_results(self) -> None:
        """Send a window, or all that is left of a row of windows."""
        m, known = self.m, self.known
        y = known.y
        with self.at(Step.SEND):
            self.work(None, State.SEND)
            self.says(self.begins, self.partials.ready)
            self.says(self.partials.sends)
            self.says(self.waits, ~self.partials.ready)
        with self.at(Step.NEXT_RESULT):
            self.work(State.SEND, State.SEND, more=1)
        with self.at(Step.COUNT_RESULT):
            self.work(State.ROW_LEFT, State.ROW_LEFT, less=1)
            self.says(known.counts_row)
        with self.at(Step.COUNT_SENT):
            self.work(State.CHANNELS, State.CHANNELS, less=1)
            self.says(known.counts)
        with self.at(Step.RESULT_IS_SENT):
            self.load(State.CHANNELS, Setting.CHANNELS, enable=known.zero)
            self.go(Step.BEFORE_X, known.zero)
            self.go(Step.SEND)
        with self.at(Step.WINDOW_IS_SENT):
            self.load(State.ROW_LEFT, Setting.ROW_SIZE, enable=known.row_sent)
            m.d.sync += known.all_sent.eq(known.row_sent)
            self.go(Step.SEND, known.final_place & ~known.row_sent)
            self.go(Step.PLACE_IS_DONE)
        with self.at(Step.ROW_IS_SENT):  # at the end of the map all the others follow
            self.work(State.OPEN, State.OPEN, less=1, enable=known.final_row, y=True)
            self.says(known.counts)
            self.go(Step.ROW_ENDS, ~known.final_row)
        with self.at(Step.MORE_ROWS):
            self.work(None, State.NULL)
            self.go(Step.ROW_ENDS, known.zero | ~y.open)
            self.go(Step.SEND)
