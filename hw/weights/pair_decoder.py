"""Decodes (zero run, weight) pairs: a run code and an index code in the same cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from thresher.golden.config import Config
from thresher.hw.weights.huffman_decoder import HuffmanDecoder
from thresher.hw.weights.huffman_table import length_layout

__all__ = ["INDEX_SYMBOLS", "PairDecoder", "codebook_write_layout", "pair_layout"]

INDEX_SYMBOLS = 256
_ON_THE_WAY = 8  # pairs between `take` and `o`; five keep a pair a cycle going


def pair_layout(config: Config) -> data.StructLayout:
    """A decoded pair: its weight, if any, is the last of ``covered + 1`` further positions.

    ``bits`` is what the pair took of the weight stream. ``end`` is no pair: there are no more.
    """
    return data.StructLayout(
        {
            "covered": unsigned(config.weight_run_bits),
            "weight": unsigned(1),
            "code": unsigned(config.weight_code_bits),
            "bits": unsigned(5),
            "end": unsigned(1),
        }
    )


def codebook_write_layout(config: Config) -> data.StructLayout:
    """A write to the codebook."""
    return data.StructLayout(
        {"valid": unsigned(1), "index": unsigned(8), "code": unsigned(config.weight_code_bits)}
    )


class PairDecoder(wiring.Component):
    """Decode the pair at the start of a window; three cycles later its run and weight are out.

    Timing contract
    ---------------
    Latency
        ``bits``, ``fits``, ``unused``, ``fault_at`` belong to the window of the same cycle. A pair
        taken in cycle ``t`` is at ``o`` in cycle ``t + 4``.
    Throughput
        One pair a cycle.
    Combinational paths
        ``window`` and ``available`` to ``bits``, ``fits``, ``unused`` and ``fault_at``.
    Reset
        Nothing is on its way; no symbol is used.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    clear : ``In(1)``
        Forget the tables. Needed before new ones.
    runs, indices : ``In(stream.Signature(length_layout()))``
        Code lengths of run and index symbols; see :class:`HuffmanDecoder`.
    codebook : ``In(codebook_write_layout(config))``
        Weight codes by index.
    plain : ``In(1)``
        After a ``clear``: no table of the indices follows, weight codes are sent as they are.
        Only if ``weight_code_bits`` is not above ``code_bits``.
    ready, building : ``Out(1)``
        Both tables can be used; a table is being made.
    runs_malformed, indices_malformed : ``Out(1)``
        The table is whole, but no code.
    window : ``In(32)``, available : ``In(7)``
        The next bits of the stream, 0 beyond ``available``.
    look : ``In(1)``
        They begin with a pair.
    bits : ``Out(5)``
        Length of the pair.
    fits : ``Out(1)``
        The window has a whole pair.
    unused : ``Out(1)``
        The pair holds bits that are no code.
    fault_at : ``Out(4)``
        If the pair does not fit or is unused: the bit at which the faulty code begins.
    room : ``Out(1)``
        A pair can be taken.
    take : ``In(1)``
        Take this pair; only if it ``fits`` and there is ``room``.
    end : ``In(1)``
        Pass on that an element's pairs have ended; only with ``room`` and without ``take``.
    empty : ``Out(1)``
        Nothing is on its way from ``take`` or ``end`` to ``o``.
    flush : ``In(1)``
        Drop those that are.
    o : ``Out(stream.Signature(pair_layout(config)))``
        The pairs that were taken.
    """

    clear: Signal
    runs: stream.Interface
    indices: stream.Interface
    codebook: data.View
    plain: Signal
    ready: Signal
    building: Signal
    runs_malformed: Signal
    indices_malformed: Signal
    window: Signal
    available: Signal
    look: Signal
    bits: Signal
    fits: Signal
    unused: Signal
    fault_at: Signal
    room: Signal
    take: Signal
    end: Signal
    empty: Signal
    flush: Signal
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "runs": In(stream.Signature(length_layout())),
                "indices": In(stream.Signature(length_layout())),
                "codebook": In(codebook_write_layout(config)),
                "plain": In(1),
                "ready": Out(1),
                "building": Out(1),
                "runs_malformed": Out(1),
                "indices_malformed": Out(1),
                "window": In(32),
                "available": In(7),
                "look": In(1),
                "bits": Out(5),
                "fits": Out(1),
                "unused": Out(1),
                "fault_at": Out(4),
                "room": Out(1),
                "take": In(1),
                "end": In(1),
                "empty": Out(1),
                "flush": In(1),
                "o": Out(stream.Signature(pair_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, code_bits = self.config, self.config.code_bits

        m.submodules.run = run = HuffmanDecoder(config.run_symbols, code_bits)
        m.submodules.index = index = HuffmanDecoder(
            INDEX_SYMBOLS, code_bits, min(config.weight_code_bits, code_bits)
        )
        codes: Memory = Memory(shape=config.weight_code_bits, depth=INDEX_SYMBOLS, init=[])
        m.submodules.codes = codes
        connect(m, flipped(self.runs), run.table)
        connect(m, flipped(self.indices), index.table)
        write, read = codes.write_port(), codes.read_port()
        m.d.comb += [
            run.clear.eq(self.clear),
            index.clear.eq(self.clear),
            index.plain.eq(self.plain),
            self.ready.eq(run.ready_to_decode & index.ready_to_decode),
            self.building.eq(run.building | index.building),
            self.runs_malformed.eq(run.malformed),
            self.indices_malformed.eq(index.malformed),
            write.en.eq(self.codebook.valid),
            write.addr.eq(self.codebook.index),
            write.data.eq(self.codebook.code),
        ]

        # Lengths. The index code begins where the run code ends; the escape has none.
        run_fits = Signal()
        index_fault = Signal()
        m.d.comb += [
            run.window.eq(self.window[-code_bits:]),
            index.window.eq((self.window << run.length)[32 - code_bits : 32]),
            self.bits.eq(run.length + Mux(run.final, 0, index.length)),
            run_fits.eq(~run.unused & (run.length <= self.available)),
            index_fault.eq(index.unused & ~run.final),
            self.fits.eq(self.look & ~run.unused & ~index_fault & (self.bits <= self.available)),
            self.unused.eq(self.look & (run.unused | (run_fits & index_fault))),
            self.fault_at.eq(Mux(run_fits, run.length, 0)),
        ]

        # Pipeline: places of the symbols, symbols, weight code. A plain one goes along.
        valid = Signal(3)
        end = Signal(3)
        weight = [Signal(name=f"weight_{stage}") for stage in range(3)]
        bits = [Signal(5, name=f"bits_{stage}") for stage in range(3)]
        covered = Signal(config.weight_run_bits)
        m.d.sync += [
            valid.eq(Mux(self.flush, 0, valid << 1 | (self.take | self.end))),
            end.eq(end << 1 | self.end),
            weight[0].eq(~run.final),
            bits[0].eq(Mux(self.end, 0, self.bits)),
            covered.eq(Mux(weight[1], run.symbol, run.symbol - 1)),  # the escape has no weight
        ]
        for stage in range(2):
            m.d.sync += [weight[stage + 1].eq(weight[stage]), bits[stage + 1].eq(bits[stage])]
        plain = Signal()
        as_sent = [Signal(config.weight_code_bits, name=f"as_sent_{stage}") for stage in range(3)]
        with m.If(self.clear | self.plain):
            m.d.sync += plain.eq(self.plain)
        first_bits = index.window[-min(config.weight_code_bits, code_bits) :]
        m.d.sync += [
            then.eq(now) for then, now in zip(as_sent, [first_bits, *as_sent], strict=False)
        ]
        m.d.comb += read.addr.eq(index.symbol)

        # Queue: takes every pair that comes out, since no more are let in than it can hold.
        layout = pair_layout(config)
        fifo = SyncFIFO(width=layout.size, depth=_ON_THE_WAY)
        m.submodules.queue = ResetInserter(self.flush)(fifo)
        decoded = data.View(layout, fifo.w_data)
        m.d.comb += [
            decoded.covered.eq(covered),
            decoded.weight.eq(weight[2]),
            decoded.code.eq(Mux(plain, as_sent[2], read.data)),
            decoded.bits.eq(bits[2]),
            decoded.end.eq(end[2]),
            fifo.w_en.eq(valid[2]),
            self.o.valid.eq(fifo.r_rdy),
            self.o.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o.ready),
        ]
        on_the_way = Signal(range(_ON_THE_WAY + 1))
        left = self.o.valid & self.o.ready
        m.d.comb += [self.room.eq(on_the_way != _ON_THE_WAY), self.empty.eq(on_the_way == 0)]
        m.d.sync += on_the_way.eq(Mux(self.flush, 0, on_the_way + (self.take | self.end) - left))

        return m
