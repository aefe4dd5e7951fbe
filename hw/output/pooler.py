"""Pooler: max and average pooling of a column's activations, on the fly.

Defined by :func:`thresher.golden.pooling.max_pool` and
:func:`thresher.golden.pooling.average_pool`. Its scaler also scales the sums of an addition, for a
run does one or the other.
"""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from thresher.golden.config import Config
from thresher.golden.descriptors import Pool
from thresher.hw.layouts import pool_scale_write_layout
from thresher.hw.output.partial_store import PartialStore
from thresher.hw.output.pooler_ports import PoolerPorts
from thresher.hw.output.window_axes import CutAxis, WindowAxis

__all__ = ["Pooler"]


class Pooler(PoolerPorts):
    """Combine each activation into the windows that hold it; send rows of finished windows.

    With ``output_cycles`` 4 a :class:`~thresher.hw.output.serial_pooler.SerialPooler` is in its
    place.

    Partial results of the pooled rows under way lie in a memory, a ring of rows. Each value is
    combined into one window a cycle: read, then combined and written, with forwarding::

        i -> address, + origin -> memory -> max, + or overwrite -> memory
                                    |
                                    +-> scale, round, clip -> o
                               sums ---^

    A window is sent with its last value, as long as this is the order of the output. The windows
    that are left at the end of an input row, cut by an edge of the map, are sent while the input
    waits: those that end at the last position, if there are several; and, at the end of the map,
    all rows of windows after the first one.

    Timing contract
    ---------------
    Latency
        Without pooling 0 cycles. Otherwise a window's last value, accepted in cycle ``t``, lets its
        result be offered in cycle ``t + 8``, if the value lies in no other window. A sum accepted
        in cycle ``t`` is offered as a result in cycle ``t + 6``.
    Throughput
        Receives a value per cycle, or one in ``n`` cycles if it lies in ``n`` windows, and rests
        for ``pool_pad_x`` cycles after each row. Windows left at the end of a row are sent at a
        result per cycle. One sum per cycle.
    Combinational paths
        Without pooling and addition between ``i`` and ``o``, both ways. Otherwise ``o.ready`` to
        ``i.ready`` and ``sums.ready``, and ``o`` is driven from registers alone.
    Reset
        As ``start``.

    Parameters
    ----------
    config
        Width of an activation; depth of the memory (``pool_depth``): at least ``pooled_width *
        channels`` words for each pooled row that is under way at one time; ``pool_lacks``;
        ``residual``.

    Members
    -------
    Those of :class:`~thresher.hw.output.pooler_ports.PoolerPorts`, and further:

    scale : ``In(pool_scale_write_layout())``
        Writes to the table of scales, before or with ``start``: of windows by what they lack, at
        most ``pool_lacks`` rows and columns, if ``pool_scales`` is not 0; else of all windows that
        of (0, 0), which is 1 for maxima. It is also that of sums. Where windows lack more rows, or
        columns, all rows, or columns, of the table are to be alike.
    """

    scale: data.View

    def __init__(self, config: Config) -> None:
        super().__init__(config, {"scale": In(pool_scale_write_layout())})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        pooling = _Pooling(m, self)
        with m.FSM(name="phase"):
            with m.State("START"):
                pooling.start()
            with m.State("ADD"):
                pass  # sums go to the store's scaler by themselves
            with m.State("PASS"):
                m.d.comb += [
                    self.o.valid.eq(self.i.valid & ~self.start),
                    self.o.payload.eq(self.i.payload),
                    self.i.ready.eq(self.o.ready & ~self.start),
                ]
            with m.State("PREPARE"):
                pooling.prepare()
            with m.State("RECEIVE"):
                pooling.receive()
            with m.State("SEND"):
                pooling.send()
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole


class _Pooling:
    """The parts of a pooler, where it is in the map, and what it does in each phase."""

    def __init__(self, m: Module, ports: Pooler) -> None:
        self.m, self.ports = m, ports
        self._place_parts()
        self._count_places()
        self._address_windows()
        self._find_finished()
        # row_size = pooled_width * channels, a bit of pooled_width a cycle.
        self.multiplier = Signal(ports.config.map_bits)
        self.addend = Signal.like(self.row_size)
        self._serve_store()

    def _place_parts(self) -> None:
        """Place the store and, for each axis, what knows of its windows."""
        m, run, config = self.m, self.ports.run, self.ports.config
        m.submodules.store = self.store = PartialStore(config)
        m.submodules.x = self.x = WindowAxis(config.map_bits)
        m.submodules.y = self.y = WindowAxis(config.map_bits)
        for axis, name, side in ((self.x, "x", "width"), (self.y, "y", "height")):
            m.d.comb += [
                axis.kernel.eq(run[f"pool_{side}"]),
                axis.stride.eq(run[f"pool_stride_{name}"]),
                axis.count.eq(run[f"pooled_{side}"]),
                axis.pad.eq(run[f"pool_pad_{name}"]),
            ]
        lack_bits = config.pool_lacks.bit_length()
        m.submodules.cut_x = self.cut_x = CutAxis(config.map_bits, lack_bits)
        m.submodules.cut_y = self.cut_y = CutAxis(config.map_bits, lack_bits)
        for cut, name in ((self.cut_x, "x"), (self.cut_y, "y")):
            m.d.comb += [
                cut.pad.eq(run[f"pool_pad_{name}"]),
                cut.room.eq(run[f"pool_room_{name}"]),
                cut.stride.eq(run[f"pool_stride_{name}"]),
            ]

    def _count_places(self) -> None:
        """Place in the map."""
        run, config = self.ports.run, self.ports.config
        self.channel = Signal(config.column_bits)
        self.position = Signal(config.position_bits)
        self.row = Signal(config.map_bits)
        self.final_channel = Signal()
        self.final_position = Signal()
        self.final_row = Signal()
        self.m.d.comb += [
            self.final_channel.eq(self.channel + 1 == self.ports.channels),
            self.final_position.eq(self.position + 1 == run.out_width),
            self.final_row.eq(self.row + 1 == run.out_height),
        ]

    def _address_windows(self) -> None:
        """Window of the current operation, counted from the oldest open one, and its address.

        That is the address of its channel 0. Each value begins with the oldest window, that of
        ``corner``.
        """
        map_bits = self.ports.config.map_bits
        address_bits = (self.ports.config.pool_depth - 1).bit_length()
        self.window_x = Signal(map_bits)
        self.window_y = Signal(map_bits)
        self.newest_x = Signal()
        self.newest_y = Signal()
        self.row_size = Signal(address_bits + 1)
        self.oldest_row = Signal(address_bits)
        self.following_row = Signal(address_bits)
        self.corner = Signal(address_bits)
        self.window = Signal(address_bits)  # valid from a value's second window on
        self.window_row = Signal(address_bits)  # the same for its second row of windows on
        self.at_window = Signal(address_bits)
        self.at_row = Signal(address_bits)
        self.m.d.comb += [
            self.newest_x.eq(self.window_x + 1 == self.x.open),
            self.newest_y.eq(self.window_y + 1 == self.y.open),
            self.at_window.eq(
                Mux((self.window_x == 0) & (self.window_y == 0), self.corner, self.window)
            ),
            self.following_row.eq(self.oldest_row + self.row_size),
            self.at_row.eq(Mux(self.window_y == 0, self.corner, self.window_row)),
        ]

    def _find_finished(self) -> None:
        """What is to be sent: what is left of a row of windows, and the rows left.

        The oldest row is finished by this input row; its oldest window, by this position (of
        several, none).
        """
        x, y = self.x, self.y
        self.finishes_row = Signal()
        self.finishes_window = Signal()
        self.m.d.comb += [
            self.finishes_row.eq(Mux(self.final_row, y.open != 0, y.closing)),
            self.finishes_window.eq(Mux(self.final_position, x.open == 1, x.closing)),
        ]
        self.values_left = Signal.like(self.row_size)
        self.rows_left = Signal(self.ports.config.map_bits)

    def _serve_store(self) -> None:
        """Give the store its operands and sums, and pass its results on."""
        m, ports, store, x, y = self.m, self.ports, self.store, self.x, self.y
        cut_x, cut_y = self.cut_x, self.cut_y
        m.d.comb += [
            store.run.eq(ports.run),
            store.value.eq(ports.i.payload.value),
            store.overwrite.eq(
                (x.all_begin | (x.newest_begins & self.newest_x))
                & (y.all_begin | (y.newest_begins & self.newest_y))
            ),
            store.address.eq(self.at_window + self.channel),
            store.last.eq(self.values_left == 1),
            store.lacks.eq(Mux(ports.run.pool_scales != 0, Cat(cut_x.lacks, cut_y.lacks), 0)),
            store.scale.eq(ports.scale),
            cut_y.restart.eq(y.restart),
        ]
        with m.If(store.emit & store.ready):
            m.d.comb += [
                cut_x.step.eq(self.final_channel),
                cut_x.restart.eq(store.last),
                cut_y.step.eq(store.last),
            ]
            m.d.sync += self.values_left.eq(Mux(store.last, self.row_size, self.values_left - 1))
        wiring.connect(m, store.o, wiring.flipped(ports.o))
        if ports.config.residual:
            m.d.comb += [
                store.sums.valid.eq(ports.sums.valid),
                store.sums.payload.eq(ports.sums.payload),
                ports.sums.ready.eq(store.sums.ready & ~ports.start),
            ]

    def start(self) -> None:
        """Begin a map."""
        m, run = self.m, self.ports.run
        m.d.comb += [self.x.restart.eq(1), self.y.restart.eq(1), self.cut_x.restart.eq(1)]
        m.d.sync += [self.multiplier.eq(run.pooled_width), self.addend.eq(self.ports.channels)]
        m.next = "PREPARE"
        with m.If(run.pool == Pool.NONE):
            m.next = "PASS"
        if self.ports.config.residual:
            with m.If(run.add):
                m.next = "ADD"

    def prepare(self) -> None:
        """Work out how many values a row of windows has."""
        m = self.m
        m.d.sync += [
            self.multiplier.eq(self.multiplier >> 1),
            self.addend.eq(self.addend << 1),
        ]
        with m.If(self.multiplier[0]):
            m.d.sync += self.row_size.eq(self.row_size + self.addend)
        with m.If(self.multiplier == 0):
            m.d.sync += self.values_left.eq(self.row_size)
            m.next = "RECEIVE"

    def receive(self) -> None:
        """Combine a value with each of its windows, then take the next one."""
        m, i, store = self.m, self.ports.i, self.store
        steady = self.x.ready & self.y.ready  # the place has its windows
        no_window = (self.x.open == 0) | (self.y.open == 0)
        done = no_window | (self.newest_x & self.newest_y)
        accepted = Signal()
        ready = Signal()
        m.d.comb += [
            ready.eq(steady & store.ready & ~self.ports.start),
            store.update.eq(i.valid & steady & ~no_window),
            store.emit.eq(
                store.update
                & self.finishes_row
                & self.finishes_window
                & (self.window_x == 0)
                & (self.window_y == 0)
            ),
            i.ready.eq(ready & done),
            accepted.eq(i.valid & i.ready),
        ]
        with m.If(i.valid & ready & ~done):
            self._next_window()
        with m.If(accepted):
            m.d.sync += [self.window_x.eq(0), self.window_y.eq(0)]
            self._next_value()

    def _next_window(self) -> None:
        """Go to the next window of a value, rows of them outermost."""
        m = self.m
        with m.If(self.newest_x):
            m.d.sync += [
                self.window_x.eq(0),
                self.window_y.eq(self.window_y + 1),
                self.window_row.eq(self.at_row + self.row_size),
                self.window.eq(self.at_row + self.row_size),
            ]
        with m.Else():
            m.d.sync += [
                self.window_x.eq(self.window_x + 1),
                self.window.eq(self.at_window + self.ports.channels),
            ]

    def _next_value(self) -> None:
        """Go to the next value: of this position, this row, or the next row."""
        m, x = self.m, self.x
        m.d.sync += self.channel.eq(self.channel + 1)
        with m.If(self.final_channel):
            m.d.sync += [self.channel.eq(0), self.position.eq(self.position + 1)]
            m.d.comb += x.step.eq(~self.final_position)
            with m.If(x.closing):
                m.d.sync += self.corner.eq(self.corner + self.ports.channels)
            with m.If(self.final_position):
                m.d.comb += x.restart.eq(1)
                m.d.sync += [self.position.eq(0), self.corner.eq(self.oldest_row)]
                self._end_row()

    def _end_row(self) -> None:
        """Go to the next input row, or send what this one has finished first."""
        m, x, y = self.m, self.x, self.y
        with m.If(self.finishes_row & (x.open > 1)):
            # The windows cut by the map's side, and further rows at its end.
            m.d.sync += [
                self.window.eq(self.corner),
                self.rows_left.eq(Mux(self.final_row, y.open, 1)),
            ]
            m.next = "SEND"
        with m.Elif(self.finishes_row):
            m.d.sync += [
                self.oldest_row.eq(self.following_row),
                self.corner.eq(self.following_row),
                self.window.eq(self.following_row),
                self.rows_left.eq(y.open - 1),
            ]
            with m.If(self.final_row & (y.open != 1)):
                m.next = "SEND"
            with m.Else():
                self._next_row()
        with m.Else():
            self._next_row()

    def _next_row(self) -> None:
        """Go to the next input row, the windows that it ended being sent."""
        m, y = self.m, self.y
        m.d.comb += [y.step.eq(~self.final_row), y.restart.eq(self.final_row)]
        m.d.sync += self.row.eq(Mux(self.final_row, 0, self.row + 1))

    def send(self) -> None:
        """Send a finished value of the rows of windows that are left."""
        m, store, window = self.m, self.store, self.window
        m.d.comb += [store.emit.eq(1), store.address.eq(window)]
        with m.If(store.ready):
            m.d.sync += [
                window.eq(window + 1),
                self.channel.eq(Mux(self.final_channel, 0, self.channel + 1)),
            ]
            with m.If(store.last):
                m.d.sync += [
                    self.oldest_row.eq(window + 1),
                    self.corner.eq(window + 1),
                    self.rows_left.eq(self.rows_left - 1),
                ]
                with m.If(self.rows_left == 1):
                    self._next_row()
                    m.next = "RECEIVE"
