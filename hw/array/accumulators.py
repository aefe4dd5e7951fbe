"""Accumulators of a processing element: banks, added to and drained at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["Accumulators", "access_layout", "bank_access_layout"]


def access_layout(config: Config) -> data.StructLayout:
    """A request for the accumulator at ``address``."""
    return data.StructLayout({"valid": unsigned(1), "address": unsigned(config.offset_bits)})


def bank_access_layout(config: Config) -> data.StructLayout:
    """A request for the accumulator at ``address`` of one bank."""
    return data.StructLayout({"valid": unsigned(1), "address": unsigned(_bank_bits(config))})


def _bank_bits(config: Config) -> int:
    """Width of an address in a bank."""
    return (config.accumulator_depth // config.accumulator_banks - 1).bit_length()


class Accumulators(wiring.Component):
    """Add a product to one accumulator, and read and zero others, in every cycle.

    The lowest address bit chooses the bank, if there are two. A bank has one read port and one
    write port, neither transparent; an addition takes the sum of the two before it when they hit
    its address.
    Not forwarded, because a row is drained only when no addition to it is under way, and reused
    only after that: from ``add`` to ``drain`` within two cycles, and the other way round. So no
    word matters that is read and written in the same cycle, and synthesis is told so
    (``no_rw_check``), which spares a comparator and a bypass a bank; likewise in the other stores.

    Timing contract
    ---------------
    Latency
        ``add`` in cycle ``t`` wants its ``product`` in cycle ``t + 1``; the sum is written at the
        end of cycle ``t + 2``. ``drain[b]`` in cycle ``t`` gives ``word[b]`` in cycle ``t + 1`` and
        zeroes the accumulator at the end of cycle ``t + 2``.
    Throughput
        One addition a cycle, on any addresses. One drained word a bank a cycle, except that
        ``add`` goes first in its bank: ``taken`` of that bank is low.
    Combinational paths
        ``add`` and ``drain`` to ``taken``.
    Reset
        Accumulators are zero after power-up; a reset does not zero them, but ``clear`` does.

    Parameters
    ----------
    config
        Widths and depths.

    Members
    -------
    add : ``In(access_layout(config))``
        Add to this accumulator.
    product : ``In(signed(activation_bits + weight_bits))``
        What to add, one cycle after ``add``.
    drain : ``In(bank_access_layout(config))``, one a bank
        Read this accumulator of the bank and make it zero.
    taken : ``Out(1)``, one a bank
        ``drain`` is served.
    word : ``Out(signed(accumulator_bits))``, one a bank
        The accumulator that was drained in the cycle before.
    word_valid : ``Out(1)``, one a bank
        There was one.
    clear : ``In(1)``
        Zero all accumulators, beginning with the next cycle, one address of each bank a cycle.
    clearing : ``Out(1)``
        That is going on; ``add`` and ``drain`` must not be used.
    idle : ``Out(1)``
        No addition is under way.
    """

    add: data.View[data.StructLayout]
    product: Signal
    drain: Sequence[data.View[data.StructLayout]]
    taken: Sequence[Signal]
    word: Sequence[Signal]
    word_valid: Sequence[Signal]
    clear: Signal
    clearing: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "add": In(access_layout(config)),
                "product": In(signed(config.activation_bits + config.weight_bits)),
                "drain": In(bank_access_layout(config)).array(config.accumulator_banks),
                "taken": Out(1).array(config.accumulator_banks),
                "word": Out(signed(config.accumulator_bits)).array(config.accumulator_banks),
                "word_valid": Out(1).array(config.accumulator_banks),
                "clear": In(1),
                "clearing": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access = access_layout(self.config)
        banks = self.config.accumulator_banks
        low = self.config.offset_bits - _bank_bits(self.config)  # bits that choose the bank
        word = signed(self.config.accumulator_bits)

        # State: the addition whose word is read, the one whose sum is written, and the sum of the
        # one before; the sweep.
        adding: Any = Signal(access)
        writing: Any = Signal(access)
        hits_writing = Signal()
        hits_written = Signal()
        sum_writing = Signal(word)
        sum_written = Signal(word)
        sweep = Signal(_bank_bits(self.config))

        # Request stage: additions go first.
        m.d.sync += [
            adding.eq(self.add),
            hits_writing.eq(adding.valid & (adding.address == self.add.address)),
            hits_written.eq(writing.valid & (writing.address == self.add.address)),
        ]

        # Banks.
        read_words: list[Signal] = []
        sums: list[Signal] = []
        for bank, drain in enumerate(self.drain):
            memory: Memory = Memory(
                shape=word,
                depth=self.config.accumulator_depth // banks,
                init=[],
                attrs={"no_rw_check": "1"},
            )
            m.submodules[f"bank_{bank}"] = memory
            read = memory.read_port()
            write = memory.write_port()
            is_added = Signal(name=f"is_added_{bank}")
            is_written = Signal(name=f"is_written_{bank}")
            zeroing: Any = Signal(bank_access_layout(self.config), name=f"zeroing_{bank}")
            zeroing_address = Signal(_bank_bits(self.config), name=f"zeroing_address_{bank}")
            at = Mux(is_written, writing.address[low:], zeroing.address)
            sum_or_zero = Signal(
                word, name=f"sum_or_zero_{bank}"
            )  # 0 unless an addition is written
            sums.append(sum_or_zero)
            m.d.comb += [
                is_added.eq(self.add.valid & (self.add.address[:low] == bank)),
                self.taken[bank].eq(drain.valid & ~is_added),
                read.addr.eq(Mux(is_added, self.add.address[low:], drain.address)),
                self.word[bank].eq(read.data),
                is_written.eq(writing.valid & (writing.address[:low] == bank)),
                write.en.eq(self.clearing | is_written | zeroing.valid),
                write.addr.eq(Mux(self.clearing, sweep, at)),
                write.data.eq(sum_or_zero),
            ]
            # A word is taken when no addition reads here, so none writes when it is zeroed.
            m.d.sync += [
                self.word_valid[bank].eq(self.taken[bank]),
                zeroing_address.eq(drain.address),
                zeroing.valid.eq(self.word_valid[bank]),
                zeroing.address.eq(zeroing_address),
            ]
            with m.If(self.clear):
                m.d.sync += [self.word_valid[bank].eq(0), zeroing.valid.eq(0)]
            read_words.append(read.data)

        # Addition stage: the freshest word of that address, and the product.
        latest = Signal(word)
        m.d.comb += latest.eq(Array(read_words)[adding.address[:low]])
        with m.If(hits_writing):
            m.d.comb += latest.eq(sum_writing)
        with m.Elif(hits_written):
            m.d.comb += latest.eq(sum_written)
        new_sum = Signal(word)
        m.d.comb += new_sum.eq(latest + self.product)
        for bank, sum_or_zero in enumerate(sums):
            written_next = adding.valid & (adding.address[:low] == bank) & ~self.clear
            m.d.sync += sum_or_zero.eq(Mux(written_next, new_sum, 0))
        m.d.sync += [
            sum_writing.eq(new_sum),
            sum_written.eq(sum_writing),
            writing.eq(adding),
        ]
        m.d.comb += self.idle.eq(~adding.valid & ~writing.valid)

        # Sweep.
        with m.If(self.clearing):
            m.d.sync += sweep.eq(sweep + 1)
            with m.If(sweep.all()):
                m.d.sync += self.clearing.eq(0)
        with m.If(self.clear):
            m.d.sync += [self.clearing.eq(1), sweep.eq(0)]
            m.d.sync += [adding.valid.eq(0), writing.valid.eq(0)]
        return m
