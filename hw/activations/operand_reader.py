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
        reading = _Reading(m, self)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))

            with m.State("IDLE"), m.If(self.start & self.run.add & (self.channels != 0)):
                m.next = "INPUT"

            reading.read_header()
            reading.read_word()
            reading.offer_word()
        reading.move()
        reading.count_words()
        reading.count_rows()
        return m


class _Reading:
    """The word in hand, where the next one is, and which row and input it is of."""

    def __init__(self, m: Module, ports: OperandReader) -> None:
        self.m, self.ports = m, ports
        self._hold_word()
        self._hold_place()

    def _hold_word(self) -> None:
        """Have registers for a word, and what is known of its row."""
        ports, response, bits = self.ports, self.ports.response, self.ports.config.count_bits
        word = ports.o.payload
        self.held = Signal(ports.config.port_bits, reset_less=True)
        self.words = Signal(bits, reset_less=True)  # of this row
        self.taken = Signal(bits)  # of them
        self.none, self.last_word = Signal(), Signal()
        self.header_comes, self.accepted = Signal(), Signal()
        self.is_zero = response.payload[:bits] == 0
        self.m.d.comb += [
            self.accepted.eq(ports.request.valid & ports.request.ready),
            response.ready.eq(1),
            ports.words_read.eq(response.valid),
            word.data.eq(self.held),
            word.empty.eq(self.none),
            word.last.eq(self.none | self.last_word),
            word.channels.eq(ports.operand.channels),
        ]

    def _hold_place(self) -> None:
        """Have registers for the next word's address, and for the row and the input."""
        config = self.ports.config
        self.address = Signal(config.address_bits)  # of the next word
        self.base = Signal.like(self.address)  # of this input
        self.rows = Signal(config.map_bits, init=1)  # with this one
        self.inputs = Signal(16, init=1)
        self.last_row, self.last_input = Signal(), Signal()
        self.begins = Signal()  # the first input
        self.to_input = Signal()
        self.row_ends, self.row_ended = Signal(), Signal()
        self.m.d.comb += self.ports.request.payload.eq(self.address)

    def read_header(self) -> None:
        """Go to the input, and read the header of a row: the number of its words."""
        m, ports = self.m, self.ports
        with m.State("INPUT"):
            m.d.comb += self.to_input.eq(1)
            m.next = "HEADER"

        with m.State("HEADER"):
            m.d.comb += ports.request.valid.eq(1)
            with m.If(ports.request.ready):
                m.next = "COUNT"

        with m.State("COUNT"):
            m.d.comb += self.header_comes.eq(ports.response.valid)
            with m.If(ports.response.valid):
                m.next = "WORD"
                with m.If(self.is_zero):
                    m.next = "OFFER"

    def read_word(self) -> None:
        """Read the next word of the row."""
        m, ports = self.m, self.ports
        with m.State("WORD"):
            m.d.comb += ports.request.valid.eq(1)
            with m.If(ports.request.ready):
                m.next = "WAIT"

        with m.State("WAIT"), m.If(ports.response.valid):
            m.next = "OFFER"

    def offer_word(self) -> None:
        """Offer the word, or that there is none, and go on with the next row, if there is one."""
        m, o = self.m, self.ports.o
        with m.State("OFFER"):
            m.d.comb += [o.valid.eq(1), self.row_ends.eq(o.ready & o.payload.last)]
            with m.If(o.ready):
                m.next = "WORD"
                with m.If(o.payload.last):
                    m.next = "HEADER"
                    with m.If(self.last_row):
                        m.next = "INPUT"
                        with m.If(self.last_input):
                            m.next = "IDLE"

    def move(self) -> None:
        """Move on to the next word, or from this input to the next one, by one adder."""
        m, ports, to_input, bits = self.m, self.ports, self.to_input, len(self.address)
        address, pitch = ports.operand.address[:bits], ports.operand.pitch[:bits]
        following = Signal.like(self.address)
        to_first, to_next = to_input & self.begins, to_input & ~self.begins
        distance = (address & to_first.replicate(bits)) | (pitch & to_next.replicate(len(pitch)))
        m.d.comb += following.eq(Mux(to_input, self.base, self.address) + distance + ~to_input)
        with m.If(self.accepted | to_input):
            m.d.sync += self.address.eq(following)
        with m.If(~ports.busy):
            m.d.sync += self.base.eq(0)
        with m.Elif(to_input):
            m.d.sync += self.base.eq(following)
        with m.If(~ports.busy):
            m.d.sync += self.begins.eq(1)
        with m.Elif(self.header_comes):
            m.d.sync += self.begins.eq(0)

    def count_words(self) -> None:
        """Keep what comes, and count the words of the row.

        What is counted is steady for a cycle at least before it is asked for.
        """
        m, response = self.m, self.ports.response
        m.d.sync += self.last_word.eq(self.taken == self.words)
        with m.If(response.valid):
            m.d.sync += self.held.eq(response.payload)
        with m.If(self.header_comes):
            m.d.sync += [
                self.words.eq(response.payload),
                self.none.eq(self.is_zero),
                self.taken.eq(0),
            ]
        with m.Elif(self.accepted):  # (the header's request comes before that)
            m.d.sync += self.taken.eq(self.taken + 1)

    def count_rows(self) -> None:
        """Count rows and inputs a cycle late: that keeps the counters away from `o.ready`."""
        m, ports, row_ended, last_row = self.m, self.ports, self.row_ended, self.last_row
        m.d.sync += [
            last_row.eq(ports.run.broadcast | (self.rows == ports.run.pooled_height)),
            self.last_input.eq(self.inputs == ports.run.maps),
            row_ended.eq(self.row_ends),
        ]
        with m.If(~ports.busy):
            m.d.sync += self.inputs.eq(1)
        with m.Elif(row_ended & last_row):
            m.d.sync += self.inputs.eq(self.inputs + 1)
        with m.If(~ports.busy | (row_ended & last_row)):
            m.d.sync += self.rows.eq(1)
        with m.Elif(row_ended):
            m.d.sync += self.rows.eq(self.rows + 1)
