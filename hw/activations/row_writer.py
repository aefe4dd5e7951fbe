"""Row writer: puts the coded rows of a column's output into memory, each behind its header."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal

from thresher.golden.config import Config
from thresher.hw.activations.writer_ports import WriterPorts
from thresher.hw.layouts import word_layout

__all__ = ["RowWriter"]


class RowWriter(WriterPorts):
    """Write rows of words one after another, a header with the number of its words before each.

    The header is written after the words, when their number is known, at the address kept free
    for it. Input ``m`` begins at ``out_address + m * out_pitch`` and has ``pooled_height`` rows.

    Timing contract
    ---------------
    Latency
        None: a word is offered to the memory in the cycle in which it is offered here.
    Throughput
        One word a cycle within a row; two cycles from a row's last word to the next row's first,
        in the first of which its header is written. An empty row takes two cycles.
    Combinational paths
        ``i`` to ``request``, ``request.ready`` to ``i.ready``.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    Those of :class:`~thresher.hw.activations.writer_ports.WriterPorts`; ``i`` are the rows' words,
    of ``word_layout(config)``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, word_layout(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        base = Signal(self.config.address_bits)  # of this input
        header = Signal.like(base)  # of this row
        address = Signal.like(base)  # of the row's next word
        count = Signal(self.config.count_bits)
        inputs = Signal(16)
        rows = Signal(self.config.map_bits)
        accepted = Signal()
        row_ends = Signal()
        input_ends = Signal()
        run_ends = Signal()
        m.d.comb += [
            input_ends.eq(rows + 1 == self.run.pooled_height),
            run_ends.eq(input_ends & (inputs + 1 == self.run.maps)),
            accepted.eq(self.request.valid & self.request.ready),
            self.words_written.eq(accepted),
        ]

        # An empty row is its header alone, which takes the place of the item.
        is_header = Signal()
        m.d.comb += [
            self.request.payload.address.eq(Mux(is_header, header, address)),
            self.request.payload.data.eq(Mux(is_header, count, self.i.payload.data)),
            row_ends.eq(accepted & is_header),
        ]

        with m.FSM():
            with m.State("IDLE"), m.If(self.start & (self.channels != 0)):
                m.d.sync += [
                    self.busy.eq(1),
                    base.eq(self.out_address),
                    address.eq(self.out_address),
                    inputs.eq(0),
                    rows.eq(0),
                ]
                m.next = "ROW"

            with m.State("ROW"):
                m.d.sync += [header.eq(address), address.eq(address + 1), count.eq(0)]
                m.next = "WORDS"

            with m.State("WORDS"):
                m.d.comb += [
                    is_header.eq(self.i.payload.empty),
                    self.request.valid.eq(self.i.valid),
                    self.i.ready.eq(self.request.ready),
                ]
                with m.If(accepted & ~is_header):
                    m.d.sync += [address.eq(address + 1), count.eq(count + 1)]
                    with m.If(self.i.payload.last):
                        m.next = "HEADER"
                with m.Elif(accepted):
                    m.next = "ROW"
                    with m.If(run_ends):
                        m.next = "IDLE"

            with m.State("HEADER"):
                m.d.comb += [is_header.eq(1), self.request.valid.eq(1)]
                with m.If(accepted):
                    m.next = "ROW"
                    with m.If(run_ends):
                        m.next = "IDLE"

        # The next row follows directly, the next input at its pitch.
        next_base = Signal.like(base)
        m.d.comb += next_base.eq(base + self.run.out_pitch)
        with m.If(row_ends):
            m.d.sync += [rows.eq(rows + 1), self.busy.eq(~run_ends)]
            with m.If(input_ends):
                m.d.sync += [
                    rows.eq(0),
                    inputs.eq(inputs + 1),
                    base.eq(next_base),
                    address.eq(next_base),
                ]

        return m
