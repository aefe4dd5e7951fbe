"""Run-length decoder: unpacks words of an activation row into positions that hold a value.

The code is defined in :mod:`thresher.golden.codes.rlc`; this module says how it is unpacked in
time.
"""

from __future__ import annotations

from typing import Any

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
        unpacking = _Unpacking(m, self)
        unpacking.offer_item()
        unpacking.go_on()
        unpacking.take_word()
        unpacking.keep_error()
        return m


class OperandDecoder(RLCDecoder):
    """The decoder of an operand: every element is sent, and ``channel`` is 0.

    As :class:`RLCDecoder` with ``send_zeros``, which it does not have, in less logic.
    """

    DENSE = True


class _Unpacking:
    """The word in hand, where its next element is, and what this cycle does with it."""

    def __init__(self, m: Module, ports: RLCDecoder) -> None:
        self.m, self.ports, self.dense = m, ports, ports.DENSE
        self.send_zeros: Value = Const(1) if self.dense else ports.send_zeros
        self._hold_word()
        self._hold_place()
        self._find_pair()
        self._decide()

    def _hold_word(self) -> None:
        """Have registers for the pairs of a word that are left."""
        fmt = self.ports.config.rlc
        self.held = Signal()
        self.pairs = Signal(fmt.pairs * fmt.pair_bits)
        self.more = Signal(fmt.pairs)  # bit 0: a used pair follows the present one in this word
        self.final_word = Signal()
        self.fill = Signal()  # no pair is left, the rest of the row is zeros
        self.fresh = Signal(init=1)  # the next word begins a visit
        self.run = self.pairs[: fmt.run_bits]
        self.value = Signal(signed(fmt.value_bits))
        self.m.d.comb += self.value.eq(self.pairs[fmt.run_bits : fmt.pair_bits])

    def _hold_place(self) -> None:
        """Have registers for where the next element is."""
        lane_bits = self.ports.config.lane_bits
        self.most = Signal(lane_bits)  # channels of the segment, but one
        self.end = Signal(lane_bits + 1)  # the channel behind them
        # Elements at this x behind the next one; -1: it is not at this x.
        self.left = Signal(signed(lane_bits + 1))
        self.steps_left = Signal(self.ports.config.map_bits)
        # Known from the cycle before: `most` is 0; `steps_left` is 0; it is 1.
        self.no_more = Signal()
        self.no_step, self.one_step = Signal(), Signal()

    def _find_pair(self) -> None:
        """Find where the present pair lands: at this x, at the next one, or farther.

        That is counted by the elements that are left behind it at this x.
        """
        config = self.ports.config
        bits = max(config.lane_bits, config.rlc.run_bits) + 2
        jump = Signal(config.rlc.run_bits)
        there = Signal(signed(bits))
        empty_row = Signal()
        self.here = Signal(signed(bits))
        self.behind = Signal(config.lane_bits)
        self.step = Signal()
        self.past = Signal()
        self.lands = Signal()
        self.m.d.comb += [
            jump.eq(Mux(self.send_zeros, 0, self.run)),
            self.here.eq(self.left - jump),
            there.eq(self.most if self.dense else self.here + self.most + 1),
            empty_row.eq(self.fill & ~self.send_zeros),
            self.step.eq((self.here < 0) & ~empty_row),
            self.past.eq(self.step & self.no_step),
            self.lands.eq(~self.past & ~(self.step & (there < 0))),
            self.behind.eq(Mux(self.here < 0, there, self.here)),
        ]

    def _decide(self) -> None:
        """Decide on this cycle's item, and whether the pair and the word are used up by it."""
        self.hit = Signal()
        self.pair_done = Signal()
        self.fills = Signal()
        self.last = Signal()
        pair_ends, row_ends, final = Signal(), Signal(), Signal()
        self.m.d.comb += [
            pair_ends.eq(~self.send_zeros | self.fill | (self.run == 0)),
            self.hit.eq(self.lands & Mux(self.send_zeros, 1, (self.value != 0) & ~self.fill)),
            row_ends.eq(
                ~self.send_zeros
                | Mux(
                    self.left < 0,
                    self.no_more & self.one_step,
                    (self.left == 0) & self.no_step,
                )
            ),
            final.eq(self.final_word & ~self.more[0]),
            self.fills.eq(self.lands & pair_ends & final & ~row_ends),
            self.pair_done.eq(self.past | (self.lands & pair_ends & ~self.fills)),
            self.last.eq(self.pair_done & final),
        ]

    def offer_item(self) -> None:
        """Output stage: a register, so that payload and valid hold during a stall."""
        m, o = self.m, self.ports.o
        item = o.payload
        is_zero = self.fill | (self.run != 0)
        self.advance = Signal()
        m.d.comb += self.advance.eq(~o.valid | o.ready)
        with m.If(self.advance):
            m.d.sync += [
                o.valid.eq(self.held & (self.hit | (self.step & ~self.past) | self.last)),
                item.value.eq(Mux(self.send_zeros & is_zero, 0, self.value)),
                item.channel.eq(0 if self.dense else self.end - self.behind - 1),
                item.step.eq(self.step & ~self.past),
                item.hit.eq(self.hit),
                item.last.eq(self.last),
            ]

    def go_on(self) -> None:
        """Move to the next element, pair or word."""
        m, pair_bits = self.m, self.ports.config.rlc.pair_bits
        with m.If(self.held & self.advance):
            with m.If(self.lands):
                m.d.sync += self.left.eq(self.behind - 1)
            with m.Elif(~self.past):
                m.d.sync += self.left.eq(self.most)
            with m.If(self.pair_done):
                m.d.sync += [self.pairs.eq(self.pairs >> pair_bits), self.more.eq(self.more >> 1)]
                m.d.sync += self.held.eq(self.more[0])
            with m.Elif(self.send_zeros):
                m.d.sync += self.run.eq(self.run - 1)
            with m.Else():
                m.d.sync += self.run.eq(~self.here)
            with m.If(self.step & ~self.past):
                m.d.sync += [
                    self.steps_left.eq(self.steps_left - 1),
                    self.no_step.eq(self.one_step),
                    self.one_step.eq(self.steps_left == 2),
                ]
            with m.If(self.fills):
                m.d.sync += self.fill.eq(1)

    def take_word(self) -> None:
        """Input stage: free, or freed by the last pair of this cycle."""
        m, config, i = self.m, self.ports.config, self.ports.i
        word = i.payload
        freed: Value = Const(0)
        if not config.registered_links:
            freed = self.advance & self.pair_done & ~self.more[0]
        m.d.comb += i.ready.eq(~self.held | freed)
        with m.If(i.valid & i.ready):
            self._take_pairs(word)
            m.d.sync += [
                self.held.eq(1),
                self.final_word.eq(word.last),
                self.fresh.eq(word.last),
                self.most.eq(word.channels - 1),
                self.no_more.eq(word.channels == 1),
                self.end.eq(word.first_channel + word.channels),
            ]
            with m.If(self.fresh):
                m.d.sync += [
                    self.left.eq(word.channels - 1),
                    self.steps_left.eq(self.ports.width - 1),
                    self.no_step.eq(self.ports.width == 1),
                    self.one_step.eq(self.ports.width == 2),
                ]

    def _take_pairs(self, word: Any) -> None:
        """Take a word's pairs, and find which of them are used."""
        m, fmt = self.m, self.ports.config.rlc
        used = [
            word.data.word_select(pair, fmt.pair_bits).any() | ~word.last
            for pair in range(fmt.pairs)
        ]
        follows = Cat(Cat(*used[pair + 1 :]).any() for pair in range(fmt.pairs))
        m.d.sync += [
            self.pairs.eq(Mux(word.empty, 0, word.data)),
            self.more.eq(Mux(word.empty, 0, follows)),
            self.fill.eq(word.empty | ~Cat(*used).any()),
        ]

    def keep_error(self) -> None:
        """Hold an error until the next start."""
        m, ports = self.m, self.ports
        word = ports.i.payload
        past_end = self.held & self.advance & self.past & ~self.fill
        not_last = ports.i.valid & ports.i.ready & ~word.empty & (word.last != word.data[-1])
        with m.If(ports.start):
            m.d.sync += ports.error.eq(0)
        with m.Elif(past_end | not_last):
            m.d.sync += ports.error.eq(1)
