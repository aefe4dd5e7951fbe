"""Drain of a processing element: sends the sums of complete rows south."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.array.accumulators import bank_access_layout
from thresher.hw.layouts import record_layout

__all__ = ["Drain", "element_run_layout"]

PLACE_BITS = 4  # a queue is what a LUT RAM holds; long enough to outlast a burst of additions


def element_run_layout() -> data.StructLayout:
    """The fields of a run's record that a processing element uses."""
    fields = record_layout(RUN).members
    names = ("gate", "ring_rows", "row_size")
    return data.StructLayout({name: fields[name] for name in names})


class Drain(wiring.Component):
    """Read complete rows in order, add the word from the north to each word, send it south.

    The accumulators of rows that follow one another do too, so each bank is read upward by a
    reader of its own, as far as rows are complete, into a queue of its own; the output takes from
    the queues in turn. So a word is read in every cycle in which not all banks are added to.

    Timing contract
    ---------------
    Latency
        A word is offered on ``south`` three cycles after it was asked for.
    Throughput
        One word a cycle when each bank is ``taken`` every other cycle on average and neither
        neighbour waits. With ``nothing`` rows are done at one a cycle.
    Combinational paths
        ``south.ready`` to ``north.ready``.
    Reset
        All words are dropped, by ``clear`` too, which then has all accumulators read, and so
        zeroed. ``start`` begins again at accumulator 0.

    Parameters
    ----------
    config
        Widths and depths.

    Members
    -------
    run : ``In(element_run_layout())``
        ``row_size``, at most ``accumulator_depth``, is used; stable during the run.
    nothing : ``In(1)``
        The column has no channels: its rows are not read. Stable likewise.
    top : ``In(1)``
        There is no element to the north; ``north.payload`` is 0.
    start, clear : ``In(1)``
        A run starts; drop everything.
    clearing : ``Out(1)``
        All accumulators are read, one of each bank a cycle, from the cycle after ``clear``;
        ``taken`` must be high.
    complete : ``In(1)``
        One more row is complete, and all its additions are written.
    drained : ``Out(1)``
        One more row is drained.
    request : ``Out(bank_access_layout(config))``, one a bank
        The accumulator to read next.
    taken : ``In(1)``, one a bank
        ``request`` is served.
    word, word_valid : ``In(signed(accumulator_bits))``, ``In(1)``, one a bank
        The accumulator that was read, one cycle after ``taken``.
    north, south : streams of ``signed(accumulator_bits)``
        Sums of the elements above; the same with this one's.
    idle : ``Out(1)``
        No complete row, no word.
    """

    run: data.View[data.StructLayout]
    nothing: Signal
    top: Signal
    start: Signal
    clear: Signal
    clearing: Signal
    complete: Signal
    drained: Signal
    request: Sequence[data.View[data.StructLayout]]
    taken: Sequence[Signal]
    word: Sequence[Signal]
    word_valid: Sequence[Signal]
    north: stream.Interface
    south: stream.Interface
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        word = signed(config.accumulator_bits)
        super().__init__(
            {
                "run": In(element_run_layout()),
                "nothing": In(1),
                "top": In(1),
                "start": In(1),
                "clear": In(1),
                "clearing": Out(1),
                "complete": In(1),
                "drained": Out(1),
                "request": Out(bank_access_layout(config)).array(config.accumulator_banks),
                "taken": In(1).array(config.accumulator_banks),
                "word": In(word).array(config.accumulator_banks),
                "word_valid": In(1).array(config.accumulator_banks),
                "north": In(stream.Signature(word)),
                "south": Out(stream.Signature(word)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begin = Signal()
        swept = Signal()
        m.d.comb += begin.eq(self.start | self.clear | swept)
        with m.If(self.clear):
            m.d.sync += self.clearing.eq(1)
        with m.Elif(swept):
            m.d.sync += self.clearing.eq(0)

        # Accumulators in the order of their addresses, counted modulo twice the depth: all before
        # `end` are of complete rows, the oldest row that is not drained goes up to `row_end`.
        count = self.config.offset_bits + 1
        end = Signal(count)
        row_end = Signal(count)
        with m.If(self.complete & ~self.nothing):
            m.d.sync += end.eq(end + self.run.row_size)

        # Readers: each goes upward in its bank as far as rows are complete. Words are numbered in a
        # bank as they are asked for, one cycle later as they arrive in its queue, and, over all
        # banks, as they leave; the queues' places follow from these numbers.
        banks = self.config.accumulator_banks
        bank_bits = (banks - 1).bit_length()
        number_bits = max(count - bank_bits, PLACE_BITS + 1)
        left = Signal(PLACE_BITS + 1 + bank_bits)  # modulo twice the queues
        turn = left[:bank_bits]
        passed = Signal(banks)
        arrived_all = []
        words = []
        asked = Signal(banks)  # for all words of complete rows
        for bank, request in enumerate(self.request):
            queue: Memory = Memory(
                shape=signed(self.config.accumulator_bits), depth=1 << PLACE_BITS, init=[]
            )
            m.submodules[f"queue_{bank}"] = queue
            write, read = queue.write_port(), queue.read_port(domain="comb")
            number = Signal(number_bits, name=f"number_{bank}")
            arrived = Signal(PLACE_BITS + 1, name=f"arrived_{bank}")
            queued = Signal(PLACE_BITS + 1, name=f"queued_{bank}")
            at = Cat(Const(bank, bank_bits), number)[:count]
            complete = (end + banks - 1 - bank)[
                bank_bits:count
            ]  # number of the first one that is not
            m.d.comb += [
                queued.eq(number - left[bank_bits:]),
                asked[bank].eq(at[bank_bits:] == complete),
                request.valid.eq(self.clearing | (~asked[bank] & ~queued[-1])),
                request.address.eq(number),
                write.en.eq(self.word_valid[bank]),
                write.addr.eq(arrived),
                write.data.eq(self.word[bank]),
                read.addr.eq(left[bank_bits:]),
            ]
            if banks == 1:  # no other bank lets the end of the row wait
                m.d.comb += passed.eq(at == row_end)
            else:
                m.d.comb += passed[bank].eq(~(at - row_end)[count - 1])
            m.d.sync += arrived.eq(number)
            with m.If(self.taken[bank]):
                m.d.sync += number.eq(number + 1)
            with m.If(begin):
                m.d.sync += number.eq(0)
            with m.If(begin | self.clearing):
                m.d.sync += arrived.eq(0)
            if bank == 0:
                m.d.comb += swept.eq(self.clearing & number[: len(request.address)].all())
            arrived_all.append(arrived)
            words.append(read.data)
        begun = Signal()  # in the cycle before: now the first row's end is found
        m.d.comb += self.drained.eq(Mux(self.nothing, self.complete, passed.all() & ~begun))
        m.d.sync += begun.eq(begin)
        with m.If(self.drained | begun):
            m.d.sync += row_end.eq(row_end + self.run.row_size)
        with m.If(begin):
            m.d.sync += [end.eq(0), row_end.eq(0)]

        # Output stage: the oldest word, from the banks in turn, and the one from the north, when
        # both are there.
        arrived = Signal()
        word = Signal(signed(self.config.accumulator_bits))
        free = Signal()
        send = Signal()
        m.d.comb += [
            arrived.eq(Array(arrived_all)[turn] != left[bank_bits:]),
            word.eq(Array(words)[turn]),
            free.eq(~self.south.valid | self.south.ready),
            send.eq(arrived & free & (self.top | self.north.valid)),
            self.north.ready.eq(arrived & free & ~self.top & ~self.clear),
            self.idle.eq(asked.all() & (left[:count] == end[: len(left)]) & ~self.south.valid),
        ]
        with m.If(free):
            m.d.sync += self.south.valid.eq(send)
        with m.If(send):
            m.d.sync += [self.south.payload.eq(word + self.north.payload), left.eq(left + 1)]
        with m.If(self.clear):
            m.d.sync += self.south.valid.eq(0)
        with m.If(begin):
            m.d.sync += left.eq(0)
        return m
