"""Run-length decoder: unpacks words of an activation row into positions that hold a value.

The code is defined in :mod:`thresher.golden.codes.rlc`; this module says how it is unpacked in
time.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.layouts import activation_layout, row_word_layout

__all__ = ["OperandDecoder", "RLCDecoder"]


class RLCDecoder(wiring.Component):
    """Turn the words of a visit (one row of one segment) into items: steps in x, and hits.

    A hit is a value at the present x and at ``channel``, which counts over all segments of the
    lane. ``step`` advances x by one *before* the item's hit; x starts at 0 in each visit. A run
    that crosses several positions sends items without a hit, one a position.

    Timing contract
    ---------------
    Latency
        A word accepted in cycle ``t`` shows its first item in cycle ``t + 2``.
    Throughput
        One pair a cycle, also from one word to the next and from visit to visit. A pair takes one
        cycle more for each position beyond the first that its run crosses. With ``send_zeros``
        one element of the row a cycle. With ``config.registered_links`` a cycle passes after the
        last pair of a word.
    Combinational paths
        ``o.ready`` to ``i.ready``, but none with ``config.registered_links``. ``o`` is driven from
        registers alone.
    Reset
        The word and the item held are dropped.

    Parameters
    ----------
    config
        Sizes of the machine; ``config.rlc`` is the format of a word.

    Members
    -------
    i : ``In(stream.Signature(row_word_layout(config)))``
        Words of a visit, at least one item; ``last`` on its final one.
    o : ``Out(stream.Signature(activation_layout(config)))``
        Items, at least one a visit, ``last`` on its final one. Trailing zeros send nothing.
    width : ``In(12)``
        Positions of a row.
    send_zeros : ``In(1)``
        Every element of the row is a hit, the zeros too.
    start : ``In(1)``
        Clears ``error``.
    error : ``Out(1)``
        A row went past its end, or the word with its top bit set was not its last. What goes past
        the end is dropped; each visit still ends with ``last``.

    Timing
    ------
    Two channels, a row of the pairs ``(0, 7) (2, 5)``, then an empty row::

        cycle    0   1   2   3   4   5
        i.valid  1   1   1   0   0   0
        i.ready  1   0   1   1   1   1
        o.valid  0   0   1   1   1   0
        o.ready  1   1   1   1   1   1
        o.value  -   -   7   5   -   -
        o.step   -   -   0   1   0   -
        o.last   -   -   0   1   1   -
    """

    i: stream.Interface
    o: stream.Interface
    width: Signal
    send_zeros: Signal
    start: Signal
    error: Signal

    DENSE = False  # whether zeros are always sent, and channels need not be known

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(row_word_layout(config))),
                "o": Out(stream.Signature(activation_layout(config))),
                "width": In(12),
                **({} if self.DENSE else {"send_zeros": In(1)}),
                "start": In(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt = self.config.rlc
        word, item = self.i.payload, self.o.payload
        send_zeros: Value = Const(1) if self.DENSE else self.send_zeros

        # State: the pairs of a word that are left, and where the next element is.
        held = Signal()
        pairs = Signal(fmt.pairs * fmt.pair_bits)
        more = Signal(fmt.pairs)  # bit 0: a used pair follows the present one in this word
        final_word = Signal()
        fill = Signal()  # no pair is left, the rest of the row is zeros
        fresh = Signal(init=1)  # the next word begins a visit
        lane_bits = self.config.lane_bits
        most = Signal(lane_bits)  # channels of the segment, but one
        end = Signal(lane_bits + 1)  # the channel behind them
        left = Signal(signed(lane_bits + 1))  # elements at this x behind the next; -1: it is not
        steps_left = Signal(self.config.map_bits)
        # Known from the cycle before: `most` is 0; `steps_left` is 0; it is 1.
        no_more, no_step, one_step = Signal(), Signal(), Signal()

        # Where the present pair lands: at this x, at the next one, or farther. Counted by the
        # elements that are left behind it at this x.
        run = pairs[: fmt.run_bits]
        value = Signal(signed(fmt.value_bits))
        jump = Signal(fmt.run_bits)
        here = Signal(signed(max(lane_bits, fmt.run_bits) + 2))
        there = Signal(signed(max(lane_bits, fmt.run_bits) + 2))
        behind = Signal(lane_bits)
        step = Signal()
        past = Signal()
        lands = Signal()
        empty_row = Signal()
        m.d.comb += [
            value.eq(pairs[fmt.run_bits : fmt.pair_bits]),
            jump.eq(Mux(send_zeros, 0, run)),
            here.eq(left - jump),
            there.eq(most if self.DENSE else here + most + 1),
            empty_row.eq(fill & ~send_zeros),
            step.eq((here < 0) & ~empty_row),
            past.eq(step & no_step),
            lands.eq(~past & ~(step & (there < 0))),
            behind.eq(Mux(here < 0, there, here)),
        ]

        # What this cycle does: an item, and whether the pair and the word are used up by it.
        hit = Signal()
        pair_ends = Signal()
        row_ends = Signal()
        pair_done = Signal()
        fills = Signal()
        final = Signal()
        last = Signal()
        m.d.comb += [
            pair_ends.eq(~send_zeros | fill | (run == 0)),
            hit.eq(lands & Mux(send_zeros, 1, (value != 0) & ~fill)),
            row_ends.eq(
                ~send_zeros
                | Mux(
                    left < 0,
                    no_more & one_step,
                    (left == 0) & no_step,
                )
            ),
            final.eq(final_word & ~more[0]),
            fills.eq(lands & pair_ends & final & ~row_ends),
            pair_done.eq(past | (lands & pair_ends & ~fills)),
            last.eq(pair_done & final),
        ]

        # Output stage: a register, so that payload and valid hold during a stall.
        advance = Signal()
        m.d.comb += advance.eq(~self.o.valid | self.o.ready)
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(held & (hit | (step & ~past) | last)),
                item.value.eq(Mux(send_zeros & (fill | (run != 0)), 0, value)),
                item.channel.eq(0 if self.DENSE else end - behind - 1),
                item.step.eq(step & ~past),
                item.hit.eq(hit),
                item.last.eq(last),
            ]

        # Move to the next element, pair or word.
        with m.If(held & advance):
            with m.If(lands):
                m.d.sync += left.eq(behind - 1)
            with m.Elif(~past):
                m.d.sync += left.eq(most)
            with m.If(pair_done):
                m.d.sync += [pairs.eq(pairs >> fmt.pair_bits), more.eq(more >> 1)]
                m.d.sync += held.eq(more[0])
            with m.Elif(send_zeros):
                m.d.sync += run.eq(run - 1)
            with m.Else():
                m.d.sync += run.eq(~here)
            with m.If(step & ~past):
                m.d.sync += [
                    steps_left.eq(steps_left - 1),
                    no_step.eq(one_step),
                    one_step.eq(steps_left == 2),
                ]
            with m.If(fills):
                m.d.sync += fill.eq(1)

        # Input stage: free, or freed by the last pair of this cycle.
        used = [
            word.data.word_select(pair, fmt.pair_bits).any() | ~word.last
            for pair in range(fmt.pairs)
        ]
        freed = Const(0) if self.config.registered_links else advance & pair_done & ~more[0]
        m.d.comb += self.i.ready.eq(~held | freed)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                held.eq(1),
                pairs.eq(Mux(word.empty, 0, word.data)),
                more.eq(
                    Mux(
                        word.empty,
                        0,
                        Cat(Cat(*used[pair + 1 :]).any() for pair in range(fmt.pairs)),
                    )
                ),
                final_word.eq(word.last),
                fill.eq(word.empty | ~Cat(*used).any()),
                fresh.eq(word.last),
                most.eq(word.channels - 1),
                no_more.eq(word.channels == 1),
                end.eq(word.first_channel + word.channels),
            ]
            with m.If(fresh):
                m.d.sync += [
                    left.eq(word.channels - 1),
                    steps_left.eq(self.width - 1),
                    no_step.eq(self.width == 1),
                    one_step.eq(self.width == 2),
                ]

        # Errors are held until the next start.
        with m.If(self.start):
            m.d.sync += self.error.eq(0)
        with m.Elif(
            (held & advance & past & ~fill)
            | (self.i.valid & self.i.ready & ~word.empty & (word.last != word.data[-1]))
        ):
            m.d.sync += self.error.eq(1)

        return m


class OperandDecoder(RLCDecoder):
    """The decoder of an operand: every element is sent, and ``channel`` is 0.

    As :class:`RLCDecoder` with ``send_zeros``, which it does not have, in less logic.
    """

    DENSE = True
