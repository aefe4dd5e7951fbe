"""Operand reader: fetches the rows of the operand that a column adds to its outputs."""

from dataclasses import replace

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, connect

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN_SEGMENT
from thresher.hw.activations.reader_ports import ReaderPorts
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.layouts import record_layout

__all__ = ["OperandReader"]


class OperandReader(ReaderPorts):
    """A reader of one segment, with as many rows as the column writes, or with one a map.

    Timing contract
    ---------------
    Latency, throughput
        As of :class:`~thresher.hw.activations.row_reader.RowReader` with one segment. With
        ``output_cycles`` 4 a word is asked for when the one before has been taken, and is offered
        in the cycle after its response; so is a row's header, which takes as long.
    Combinational paths
        None between ports.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    Those of :class:`~thresher.hw.activations.reader_ports.ReaderPorts`, and further:

    run
        ``add``, ``broadcast``, ``maps`` and ``pooled_height`` are used.
    channels : ``In(16)``
        Channels of the column; without any, nothing is read. Steady while busy.
    operand : ``In(record_layout(RUN_SEGMENT))``
        Where the operand lies; taken at ``start``.
    start
        Nothing is read if the run does not add.
    """

    channels: Signal
    operand: data.View

    def __init__(self, config: Config) -> None:
        super().__init__(config, {"channels": In(16), "operand": In(record_layout(RUN_SEGMENT))})

    def elaborate(self, platform: object) -> Module:
        return self._read_ahead() if self.config.output_cycles == 1 else self._read_singly()

    def _read_ahead(self) -> Module:
        """A row reader, many words ahead."""
        m = Module()
        m.submodules.rows = rows = RowReader(replace(self.config, segments=1))
        connect(m, rows.request, wiring.flipped(self.request))
        connect(m, wiring.flipped(self.response), rows.response)
        connect(m, rows.o, wiring.flipped(self.o))
        m.d.comb += [
            rows.run.height.eq(Mux(self.run.broadcast, 1, self.run.pooled_height)),
            rows.run.maps.eq(self.run.maps),
            rows.segments.eq(self.run.add & (self.channels != 0)),
            rows.segment.valid.eq(self.start),
            rows.segment.data.eq(self.operand),
            rows.start.eq(self.start),
            self.busy.eq(rows.busy),
            self.words_read.eq(rows.words_read),
        ]
        return m

    def _read_singly(self) -> Module:
        """One word at a time, in less logic: a word of four values and more lasts long enough."""
        m = Module()
        config, word = self.config, self.o.payload
        address = Signal(config.address_bits)  # of the next word
        base = Signal.like(address)  # of this input
        held = Signal(config.port_bits, reset_less=True)
        words = Signal(config.count_bits, reset_less=True)  # of this row
        taken = Signal(config.count_bits)  # of them
        rows = Signal(config.map_bits, init=1)  # with this one
        inputs = Signal(16, init=1)
        none, last_word, last_row, last_input = Signal(), Signal(), Signal(), Signal()
        begins = Signal()  # the first input
        header_comes, accepted, row_ends, row_ended = Signal(), Signal(), Signal(), Signal()

        # One adder: on to the next word, or from this input to the next one.
        to_input = Signal()
        following = Signal.like(address)
        to_first, to_next = to_input & begins, to_input & ~begins
        bits = config.address_bits
        distance = (self.operand.address[:bits] & to_first.replicate(bits)) | (
            self.operand.pitch[:bits] & to_next.replicate(min(bits, len(self.operand.pitch)))
        )
        m.d.comb += following.eq(Mux(to_input, base, address) + distance + ~to_input)

        m.d.comb += [
            accepted.eq(self.request.valid & self.request.ready),
            self.request.payload.eq(address),
            self.response.ready.eq(1),
            self.words_read.eq(self.response.valid),
            word.data.eq(held),
            word.empty.eq(none),
            word.last.eq(none | last_word),
            word.channels.eq(self.operand.channels),
        ]
        is_zero = self.response.payload[: config.count_bits] == 0
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))

            with m.State("IDLE"), m.If(self.start & self.run.add & (self.channels != 0)):
                m.next = "INPUT"

            with m.State("INPUT"):
                m.d.comb += to_input.eq(1)
                m.next = "HEADER"

            with m.State("HEADER"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "COUNT"

            with m.State("COUNT"):
                m.d.comb += header_comes.eq(self.response.valid)
                with m.If(self.response.valid):
                    m.next = "WORD"
                    with m.If(is_zero):
                        m.next = "OFFER"

            with m.State("WORD"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "WAIT"

            with m.State("WAIT"), m.If(self.response.valid):
                m.next = "OFFER"

            with m.State("OFFER"):
                m.d.comb += [self.o.valid.eq(1), row_ends.eq(self.o.ready & word.last)]
                with m.If(self.o.ready):
                    m.next = "WORD"
                    with m.If(word.last):
                        m.next = "HEADER"
                        with m.If(last_row):
                            m.next = "INPUT"
                            with m.If(last_input):
                                m.next = "IDLE"

        # What is counted is steady for a cycle at least before it is asked for.
        m.d.sync += [
            last_word.eq(taken == words),
            last_row.eq(self.run.broadcast | (rows == self.run.pooled_height)),
            last_input.eq(inputs == self.run.maps),
        ]
        with m.If(self.response.valid):
            m.d.sync += held.eq(self.response.payload)
        with m.If(header_comes):
            m.d.sync += [words.eq(self.response.payload), none.eq(is_zero), taken.eq(0)]
        with m.Elif(accepted):  # (the header's request comes before that)
            m.d.sync += taken.eq(taken + 1)
        with m.If(accepted | to_input):
            m.d.sync += address.eq(following)
        with m.If(~self.busy):
            m.d.sync += base.eq(0)
        with m.Elif(to_input):
            m.d.sync += base.eq(following)
        with m.If(~self.busy):
            m.d.sync += begins.eq(1)
        with m.Elif(header_comes):
            m.d.sync += begins.eq(0)

        # Rows and inputs are counted a cycle late: that keeps the counters away from `o.ready`.
        m.d.sync += row_ended.eq(row_ends)
        with m.If(~self.busy):
            m.d.sync += inputs.eq(1)
        with m.Elif(row_ended & last_row):
            m.d.sync += inputs.eq(inputs + 1)
        with m.If(~self.busy | (row_ended & last_row)):
            m.d.sync += rows.eq(1)
        with m.Elif(row_ended):
            m.d.sync += rows.eq(rows + 1)
        return m
