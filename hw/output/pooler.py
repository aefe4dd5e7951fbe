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
        run = self.run
        address_bits = (self.config.pool_depth - 1).bit_length()
        map_bits = self.config.map_bits
        m.submodules.store = store = PartialStore(self.config)
        m.submodules.x = x = WindowAxis(map_bits)
        m.submodules.y = y = WindowAxis(map_bits)
        for axis, name, side in ((x, "x", "width"), (y, "y", "height")):
            m.d.comb += [
                axis.kernel.eq(run[f"pool_{side}"]),
                axis.stride.eq(run[f"pool_stride_{name}"]),
                axis.count.eq(run[f"pooled_{side}"]),
                axis.pad.eq(run[f"pool_pad_{name}"]),
            ]
        lack_bits = self.config.pool_lacks.bit_length()
        m.submodules.cut_x = cut_x = CutAxis(map_bits, lack_bits)
        m.submodules.cut_y = cut_y = CutAxis(map_bits, lack_bits)
        for cut, name in ((cut_x, "x"), (cut_y, "y")):
            m.d.comb += [
                cut.pad.eq(run[f"pool_pad_{name}"]),
                cut.room.eq(run[f"pool_room_{name}"]),
                cut.stride.eq(run[f"pool_stride_{name}"]),
            ]

        # Place in the map.
        channel = Signal(self.config.column_bits)
        position = Signal(self.config.position_bits)
        row = Signal(map_bits)
        final_channel = Signal()
        final_position = Signal()
        final_row = Signal()
        m.d.comb += [
            final_channel.eq(channel + 1 == self.channels),
            final_position.eq(position + 1 == run.out_width),
            final_row.eq(row + 1 == run.out_height),
        ]

        # Window of the current operation, counted from the oldest open one, and the address of its
        # channel 0. Each value begins with the oldest window, that of `corner`.
        window_x = Signal(map_bits)
        window_y = Signal(map_bits)
        newest_x = Signal()
        newest_y = Signal()
        row_size = Signal(address_bits + 1)
        oldest_row = Signal(address_bits)
        following_row = Signal(address_bits)
        corner = Signal(address_bits)
        window = Signal(address_bits)  # valid from a value's second window on
        window_row = Signal(address_bits)  # the same for its second row of windows on
        at_window = Signal(address_bits)
        at_row = Signal(address_bits)
        m.d.comb += [newest_x.eq(window_x + 1 == x.open), newest_y.eq(window_y + 1 == y.open)]
        m.d.comb += [
            at_window.eq(Mux((window_x == 0) & (window_y == 0), corner, window)),
            following_row.eq(oldest_row + row_size),
            at_row.eq(Mux(window_y == 0, corner, window_row)),
        ]

        # Sending: what is left of a row of windows, and the rows left. The oldest row is finished
        # by this input row; its oldest window, by this position (of several, none).
        finishes_row = Signal()
        finishes_window = Signal()
        m.d.comb += [
            finishes_row.eq(Mux(final_row, y.open != 0, y.closing)),
            finishes_window.eq(Mux(final_position, x.open == 1, x.closing)),
        ]
        values_left = Signal(address_bits + 1)
        rows_left = Signal(map_bits)

        steady = x.ready & y.ready  # the place has its windows

        # row_size = pooled_width * channels, a bit of pooled_width a cycle.
        multiplier = Signal(map_bits)
        addend = Signal(address_bits + 1)

        def next_row() -> None:
            """Go to the next input row, the windows that it ended being sent."""
            m.d.comb += [y.step.eq(~final_row), y.restart.eq(final_row)]
            m.d.sync += row.eq(Mux(final_row, 0, row + 1))

        m.d.comb += [
            store.run.eq(run),
            store.value.eq(self.i.payload.value),
            store.overwrite.eq(
                (x.all_begin | (x.newest_begins & newest_x))
                & (y.all_begin | (y.newest_begins & newest_y))
            ),
            store.address.eq(at_window + channel),
            store.last.eq(values_left == 1),
            store.lacks.eq(Mux(run.pool_scales != 0, Cat(cut_x.lacks, cut_y.lacks), 0)),
            store.scale.eq(self.scale),
            cut_y.restart.eq(y.restart),
        ]
        with m.If(store.emit & store.ready):
            m.d.comb += [
                cut_x.step.eq(final_channel),
                cut_x.restart.eq(store.last),
                cut_y.step.eq(store.last),
            ]
            m.d.sync += values_left.eq(Mux(store.last, row_size, values_left - 1))
        wiring.connect(m, store.o, wiring.flipped(self.o))
        if self.config.residual:
            m.d.comb += [
                store.sums.valid.eq(self.sums.valid),
                store.sums.payload.eq(self.sums.payload),
                self.sums.ready.eq(store.sums.ready & ~self.start),
            ]
        with m.FSM(name="phase"):
            with m.State("START"):
                m.d.comb += [x.restart.eq(1), y.restart.eq(1), cut_x.restart.eq(1)]
                m.d.sync += [multiplier.eq(run.pooled_width), addend.eq(self.channels)]
                m.next = "PREPARE"
                with m.If(run.pool == Pool.NONE):
                    m.next = "PASS"
                if self.config.residual:
                    with m.If(run.add):
                        m.next = "ADD"

            with m.State("ADD"):
                pass  # sums go to the store's scaler by themselves

            with m.State("PASS"):
                m.d.comb += [
                    self.o.valid.eq(self.i.valid & ~self.start),
                    self.o.payload.eq(self.i.payload),
                    self.i.ready.eq(self.o.ready & ~self.start),
                ]

            with m.State("PREPARE"):
                m.d.sync += [multiplier.eq(multiplier >> 1), addend.eq(addend << 1)]
                with m.If(multiplier[0]):
                    m.d.sync += row_size.eq(row_size + addend)
                with m.If(multiplier == 0):
                    m.d.sync += values_left.eq(row_size)
                    m.next = "RECEIVE"

            with m.State("RECEIVE"):
                no_window = (x.open == 0) | (y.open == 0)
                done = no_window | (newest_x & newest_y)
                accepted = Signal()
                ready = Signal()
                m.d.comb += [
                    ready.eq(steady & store.ready & ~self.start),
                    store.update.eq(self.i.valid & steady & ~no_window),
                    store.emit.eq(
                        store.update
                        & finishes_row
                        & finishes_window
                        & (window_x == 0)
                        & (window_y == 0)
                    ),
                    self.i.ready.eq(ready & done),
                    accepted.eq(self.i.valid & self.i.ready),
                ]

                # The windows of one value, rows of them outermost.
                with m.If(self.i.valid & ready & ~done):
                    with m.If(newest_x):
                        m.d.sync += [
                            window_x.eq(0),
                            window_y.eq(window_y + 1),
                            window_row.eq(at_row + row_size),
                            window.eq(at_row + row_size),
                        ]
                    with m.Else():
                        m.d.sync += [
                            window_x.eq(window_x + 1),
                            window.eq(at_window + self.channels),
                        ]

                # The next value.
                with m.If(accepted):
                    m.d.sync += [window_x.eq(0), window_y.eq(0), channel.eq(channel + 1)]
                    with m.If(final_channel):
                        m.d.sync += [channel.eq(0), position.eq(position + 1)]
                        m.d.comb += x.step.eq(~final_position)
                        with m.If(x.closing):
                            m.d.sync += corner.eq(corner + self.channels)
                        with m.If(final_position):
                            m.d.comb += x.restart.eq(1)
                            m.d.sync += [position.eq(0), corner.eq(oldest_row)]
                            with m.If(finishes_row & (x.open > 1)):
                                # The windows cut by the map's side, and further rows at its end.
                                m.d.sync += [
                                    window.eq(corner),
                                    rows_left.eq(Mux(final_row, y.open, 1)),
                                ]
                                m.next = "SEND"
                            with m.Elif(finishes_row):
                                m.d.sync += [
                                    oldest_row.eq(following_row),
                                    corner.eq(following_row),
                                    window.eq(following_row),
                                    rows_left.eq(y.open - 1),
                                ]
                                with m.If(final_row & (y.open != 1)):
                                    m.next = "SEND"
                                with m.Else():
                                    next_row()
                            with m.Else():
                                next_row()

            with m.State("SEND"):
                m.d.comb += [store.emit.eq(1), store.address.eq(window)]
                with m.If(store.ready):
                    m.d.sync += [
                        window.eq(window + 1),
                        channel.eq(Mux(final_channel, 0, channel + 1)),
                    ]
                    with m.If(store.last):
                        m.d.sync += [
                            oldest_row.eq(window + 1),
                            corner.eq(window + 1),
                            rows_left.eq(rows_left - 1),
                        ]
                        with m.If(rows_left == 1):
                            next_row()
                            m.next = "RECEIVE"

        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
