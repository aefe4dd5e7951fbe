"""Accumulators of a processing element: banks, added to and drained at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed, unsigned
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
    write port, neither transparent; what is read is written back a cycle later, with the product
    or as zero, and an addition takes the sum of the one before it when that hit its address.
    Not forwarded, because a row is drained only when no addition to it is under way, and reused
    only after that: from ``add`` to ``drain`` in the next cycle, and the other way round. So no
    word matters that is read and written in the same cycle, and synthesis is told so
    (``no_rw_check``), which spares a comparator and a bypass a bank; likewise in the other stores.

    Timing contract
    ---------------
    Latency
        ``add`` in cycle ``t`` wants its ``product`` in cycle ``t + 1``; the sum is written at the
        end of that cycle. ``drain[b]`` in cycle ``t`` gives ``word[b]`` in cycle ``t + 1`` and
        zeroes the accumulator at its end.
    Throughput
        One addition a cycle, on any addresses. One drained word a bank a cycle, except that
        ``add`` goes first in its bank: ``taken`` of that bank is low.
    Combinational paths
        ``add`` and ``drain`` to ``taken``.
    Reset
        Accumulators are zero after power-up; a reset does not zero them, nor does ``clear``.

    Parameters
    ----------
    config
        Widths and depths.

    Members
    -------
    add : ``In(access_layout(config))``
        Add to this accumulator.
    product : ``In(signed(activation_bits + weight_bits))``
        What to add, one cycle after ``add``; 0 if there was none.
    drain : ``In(bank_access_layout(config))``, one a bank
        Read this accumulator of the bank and make it zero.
    taken : ``Out(1)``, one a bank
        ``drain`` is served.
    word : ``Out(signed(accumulator_bits))``, one a bank
        The accumulator that was drained in the cycle before.
    word_valid : ``Out(1)``, one a bank
        There was one.
    clear : ``In(1)``
        Drop what was asked for in this cycle.
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
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = self.config.accumulator_banks
        low = self.config.offset_bits - _bank_bits(self.config)  # bits that choose the bank
        word = signed(self.config.accumulator_bits)
        add_bank, add_at = self.add.address[:low], self.add.address[low:]

        # State: whether a word is read for an addition, in which bank, whether it is the one that
        # the addition before wrote, and what that wrote.
        adding = Signal()
        bank_adding = Signal(low)
        hits = Signal()
        held = Signal(word)
        new_sum = Signal(word)

        # Banks. With one bank zeroing is the addition of nothing to a word that is held as zero.
        alone = banks == 1
        read_words: list[Signal] = []
        asked_all: list[Signal] = []
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
            asked = Signal(_bank_bits(self.config), name=f"asked_{bank}")
            m.d.comb += [
                is_added.eq(self.add.valid & (add_bank == bank)),
                self.taken[bank].eq(drain.valid & ~is_added),
                read.addr.eq(Mux(is_added, add_at, drain.address)),
                self.word[bank].eq(read.data),
                is_written.eq(adding & (bank_adding == bank)),
                write.en.eq(is_written | self.word_valid[bank]),
                write.addr.eq(asked),
                write.data.eq(new_sum if alone else Mux(is_written, new_sum, 0)),
            ]
            m.d.sync += [
                asked.eq(read.addr),
                self.word_valid[bank].eq(self.taken[bank] & ~self.clear),
            ]
            read_words.append(read.data)
            asked_all.append(asked)

        # Request stage.
        zeroing = self.taken[0] if alone else Const(0)
        again = adding & (bank_adding == add_bank) & (Array(asked_all)[add_bank] == add_at)
        m.d.sync += [
            adding.eq(self.add.valid & ~self.clear),
            bank_adding.eq(add_bank),
            hits.eq(again | zeroing),
        ]

        # Addition stage: the freshest word of that address, and the product.
        latest = Signal(word)
        m.d.comb += [
            latest.eq(Mux(hits, held, Array(read_words)[bank_adding])),
            new_sum.eq(latest + self.product),
            self.idle.eq(~adding),
        ]
        m.d.sync += held.eq(new_sum)
        with m.If(zeroing):
            m.d.sync += held.eq(0)
        return m
