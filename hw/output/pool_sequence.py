"""The serial pooler's program: which step does what, and which one follows."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, ValueLike
from amaranth.lib import data

from thresher.golden.descriptors import Pool
from thresher.hw.output.pool_progress import Known, Step
from thresher.hw.output.pool_steps import PoolSteps, Setting, State, Y
from thresher.hw.output.pooler_ports import PoolerPorts
from thresher.hw.output.serial_partials import SerialPartials
from thresher.hw.output.step_program import StepProgram, either

__all__ = ["PoolSequence"]


class PoolSequence(StepProgram):
    """The serial pooler's steps and their order.

    Parameters
    ----------
    m
        Receives the logic.
    ports, setting
        The pooler's; of ``ports.i`` the program drives ``ready``.
    steps, partials
        What the steps work on.
    """

    def __init__(
        self,
        m: Module,
        ports: PoolerPorts,
        setting: data.View,
        steps: PoolSteps,
        partials: SerialPartials,
    ) -> None:
        self.ports, self.setting = ports, setting
        self.steps, self.partials = steps, partials
        self.lack_bits = ports.config.pool_lacks.bit_length()
        self.known = known = Known(m, steps, self.lack_bits)
        super().__init__(m, Step)
        x, y = known.x, known.y
        self.begins, self.takes = Signal(), Signal()
        # What is read and written; whether that is of the axis in hand, or nothing, or the stride.
        self.read, self.write, self.constant = Signal(5), Signal(5), Signal(4)
        self.of_axis, self.loads, self.strides = Signal(), Signal(), Signal()
        of_y = Cat(Const(0, 3), self.of_axis & known.axis_y)
        m.d.comb += [
            steps.read.eq(self.read | self.loads.replicate(5) | of_y),
            steps.write.eq(self.write | of_y),
            steps.constant.eq((self.constant & ~Cat(self.strides.replicate(3), 0)) | of_y),
            partials.begin.eq(self.begins),
            partials.overwrite.eq(
                (x.all_begin | (x.begins & x.newest)) & (y.all_begin | (y.begins & y.newest))
            ),
            partials.last.eq(known.row_sent),
            partials.lacks.eq(Mux(ports.run.pool_scales != 0, Cat(x.lacks, y.lacks), 0)),
        ]
        with m.If(self.takes):
            m.d.comb += ports.i.ready.eq(~ports.start)

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
        self.says(self.steps.gate, either(adds, subtracts))
        self.says(self.steps.invert, either(less, subtracts))
        self.says(self.steps.carry, either(more, subtracts))

    def load(
        self, target: State, setting: Setting | None = None, *, more: ValueLike = 0, **how: Any
    ) -> None:
        """Put a setting, or one, or nothing, to ``target``."""
        self.work(target, State.NULL, setting, adds=int(setting is not None), more=more, **how)

    def prepare(self) -> None:
        """Compute the size of a pooled row, once all settings are there."""
        known = self.known
        with self.at(Step.START):
            self.load(State.AT)
            self.says(
                self.waits,
                (self.ports.run.pool == Pool.NONE)
                | ~self.setting.valid
                | ~self.setting.index.all(),
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
        for step, until, ends, changes in (
            (Step.UNTIL_OPEN, State.UNTIL_OPEN, known.until_open_ends, known.until_open_changes),
            (
                Step.UNTIL_CLOSE,
                State.UNTIL_CLOSE,
                known.until_close_ends,
                known.until_close_changes,
            ),
        ):
            with self.at(step):
                self.work(until, until, Setting.STRIDE, adds=ends, less=~ends, loads=ends, y=None)
                self.says(changes)
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
            moves = self.ports.i.valid & (self.partials.ready | none)
            self.says(self.waits, ~moves)
            self.says(self.begins, moves & ~none & ~self.ports.start)
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
            m.d.sync += known.final_place.eq(self.ports.i.payload.last)
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
