"""Where the serial pooler is: its step, and what is known of place, row and map."""

from enum import IntEnum

from amaranth.hdl import Module, Mux, Signal

from thresher.hw.output.pool_steps import PoolSteps

__all__ = ["Axis", "Known", "Step"]


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


class Axis:
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


class Known:
    """What is known of place, row and map, and is kept when a step finds it out."""

    def __init__(self, m: Module, steps: PoolSteps, lack_bits: int) -> None:
        self.x, self.y = x, y = Axis("x", lack_bits), Axis("y", lack_bits)
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
