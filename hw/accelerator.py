"""The accelerator: array, loaders, lanes, output stages, memory and control in one component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode, Pool
from thresher.hw.activations.operand_reader import OperandReader
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.array.array import Array
from thresher.hw.control.counters import Counters
from thresher.hw.control.sequencer import Sequencer
from thresher.hw.lane import Lane
from thresher.hw.layouts import memory_request_layout
from thresher.hw.link import Links, Queue
from thresher.hw.memory.arbiter import Arbiter
from thresher.hw.memory.stream_fetcher import ProgramFetcher, StreamFetcher
from thresher.hw.output.pool_steps import PoolSettings
from thresher.hw.parts import place

__all__ = ["CLOCKS", "Accelerator"]

CLOCKS = {
    "loads_awake": ("stream_fetcher", "weight_loader"),
    "operands_awake": ("adder", "operand_decoder", "operand_reader"),
    "pools_awake": ("pooler",),
}
"""Signals of the accelerator that tell when parts have anything to do, each with the parts' kinds.

While such a signal is low, these parts would do the same with their clock stopped.
"""


class Accelerator(wiring.Component):
    """Run a compressed network that lies in memory, layer after layer.

    Timing contract
    ---------------
    Latency
        ``done`` or ``error`` rises when the last word is written, or on the first error.
    Throughput
        Each processing element does one multiplication a cycle while it has tokens with taps.
    Combinational paths
        None between ports, but for those of the memory port's own handshake.
    Reset
        ``ready`` rises after the accumulators were cleared, the words of a bank in cycles.

    With ``config.registered_links`` what the sequencer says to the lanes, the columns and the
    loaders comes a cycle later, and so do the loaders' writes; what the sequencer is told of their
    work is that of the cycle before, or, of a run, of two cycles before: of all parts that of the
    same cycle, so that nothing on its way is overlooked.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    start : ``In(1)``
        Pulse while ``ready``: execute the program at word ``program_address``.
    program_address : ``In(address_bits)``
        Address of the first descriptor.
    ready, done, error : ``Out(1)``
        Can start; has finished the last program; has stopped on an error, until reset.
    error_code, error_layer, error_lane, error_position : ``Out``
        What (:class:`~thresher.golden.descriptors.ErrorCode`), in which pass, lane or column, and
        at which bit of a weight stream.
    request : ``Out(stream.Signature(memory_request_layout(config)))``
        The memory port: reads and writes of whole words.
    response : ``In(stream.Signature(port_bits))``
        One a read request, in order; always accepted.
    """

    start: Signal
    program_address: Signal
    ready: Signal
    done: Signal
    error: Signal
    error_code: Signal
    error_layer: Signal
    error_lane: Signal
    error_position: Signal
    request: stream.Interface
    response: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "program_address": In(config.address_bits),
                "ready": Out(1),
                "done": Out(1),
                "error": Out(1),
                "error_code": Out(4),
                "error_layer": Out(16),
                "error_lane": Out(5),
                "error_position": Out(32),
                "request": Out(stream.Signature(memory_request_layout(config))),
                "response": In(stream.Signature(unsigned(config.port_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = _Parts(m, self.config, platform)
        begin = Signal()
        counters_wait = self._connect_memory(m, parts)
        self._connect_control(m, parts, begin)
        self._connect_loaders(m, parts, begin)
        self._connect_lanes(m, parts)
        running = self._follow_run(m, parts, counters_wait)
        self._count(m, parts, begin, running)
        self._stop_at_errors(m, parts)
        return m

    def _connect_memory(self, m: Module, parts: _Parts) -> Value:
        """Connect the memory's clients: lanes, weights, program, operands; results, counters.

        Returns whether what the counters write waits in a link. So may a result.
        """
        arbiter, links = parts.arbiter, parts.links
        lanes = self.config.lanes
        connect(m, wiring.flipped(self.request), arbiter.request)
        connect(m, wiring.flipped(self.response), arbiter.response)
        for lane in parts.lanes:
            self._connect_reader(m, parts, lane.index, lane.reader)
            self._connect_reader(m, parts, lanes + lane.index, lane.fetcher)
            sink = arbiter.write[lane.index].request
            lane.waiting.append(links.link(f"write_link_{lane.index}", lane.writer.request, sink))
        self._connect_reader(m, parts, 2 * lanes, parts.program_fetcher)
        for lane in parts.lanes:
            if lane.addition is not None:
                self._connect_reader(m, parts, 2 * lanes + 1 + lane.index, lane.addition.reader)
        return links.link("counters_link", parts.counters.request, arbiter.write[lanes].request)

    def _connect_reader(
        self, m: Module, parts: _Parts, client: int, part: RowReader | OperandReader | StreamFetcher
    ) -> None:
        """Connect a client of the memory that reads."""
        port = parts.arbiter.read[client]
        parts.links.link(f"read_link_{client}", part.request, port.request)
        told: Any = port.response
        if not isinstance(part, RowReader):  # which has registers of its own for them
            told = parts.links.later(
                f"response_{client}", valid=port.response.valid, payload=port.response.payload
            )
        m.d.comb += [
            part.response.valid.eq(told.valid),
            part.response.payload.eq(told.payload),
            port.response.ready.eq(1),
        ]

    def _connect_control(self, m: Module, parts: _Parts, begin: Signal) -> None:
        """Let a program begin: the accumulators are cleared once before, after reset."""
        sequencer, fetcher, array = parts.sequencer, parts.program_fetcher, parts.array
        address = Signal.like(self.program_address)
        cleared = Signal(3)  # is over when the array has said that it is clearing
        clear = Signal()
        m.d.sync += cleared.eq(Cat(1, cleared))
        m.d[parts.links.domain] += [
            clear.eq(~cleared[0]),
            begin.eq(self.start & self.ready),
            address.eq(self.program_address),
        ]
        begins = Signal()  # and the sequencer does not know
        m.d.comb += [
            begins.eq(begin if self.config.registered_links else 0),
            array.clear.eq(clear),
            self.ready.eq(
                cleared.all() & ~array.clearing & ~sequencer.busy & ~self.error & ~begins
            ),
            sequencer.start.eq(begin),
            sequencer.halt.eq(self.error),
            parts.arbiter.enable.eq(~self.error),
            fetcher.start.eq(begin),
            fetcher.address.eq(address),
            fetcher.active.eq(sequencer.busy),
            self.done.eq(sequencer.done & ~begins),
        ]
        parts.links.link("program_queue", fetcher.o, sequencer.words, begin, kind=Queue)

    def _connect_loaders(self, m: Module, parts: _Parts, begin: Signal) -> None:
        """Let the columns be loaded, each by a loader of its own."""
        sequencer, links = parts.sequencer, parts.links
        for lane in parts.lanes:
            told = links.later(
                f"load_{lane.index}",
                load=sequencer.load,
                lane=sequencer.load_lanes[lane.index],
                start=sequencer.load_start,
                begin=begin,
            )
            lane.connect_loader(told, parts.array)
        loads_busy = Cat(lane.loader.busy for lane in parts.lanes).any()
        fetching = ~Cat(lane.fetcher.idle for lane in parts.lanes).all()
        loads_awake = Signal()
        m.d.comb += [  # what one lane is told, all are
            sequencer.loads_busy.eq(links.known_late(sequencer.load_start, loads_busy, after=1)),
            loads_awake.eq(told.start | told.begin | loads_busy | fetching),
        ]

    def _connect_lanes(self, m: Module, parts: _Parts) -> None:
        """Let runs go through the lanes, the array and the columns."""
        config, sequencer, array = self.config, parts.sequencer, parts.array
        m.d.comb += [array.run.eq(sequencer.run), array.start.eq(sequencer.run_start)]
        setting = None
        if config.output_cycles > 1:
            m.submodules.pool_settings = pool_settings = PoolSettings(config)
            m.d.comb += [
                pool_settings.run.eq(sequencer.run),
                pool_settings.start.eq(sequencer.run_start),
            ]
            setting = pool_settings.o
        for lane in parts.lanes:
            operand = {"operand": sequencer.operands[lane.index]} if config.residual else {}
            told = parts.links.later(
                f"run_{lane.index}",
                run=sequencer.run,
                lane=sequencer.run_lanes[lane.index],
                segment=sequencer.segments[lane.index],
                half=sequencer.half,
                pool_scale=sequencer.pool_scale,
                start=sequencer.run_start,
                **operand,
            )
            lane.connect_run(told, array, setting)
            m.d.comb += array.channels[lane.index].eq(sequencer.run_lanes[lane.index].channels)
        reads = [lane.addition.reader.busy for lane in parts.lanes if lane.addition]
        operands_awake = Signal()
        pools_awake = Signal()
        started = Signal()
        m.d.sync += started.eq(told.start)  # what one lane is told, all are
        begins_pool = told.start | started | told.pool_scale.valid
        m.d.comb += [
            operands_awake.eq(told.start | told.run.add | Cat(reads).any()),
            pools_awake.eq(begins_pool | told.run.add | (told.run.pool != Pool.NONE)),
        ]

    def _follow_run(self, m: Module, parts: _Parts, counters_wait: Value) -> Signal:
        """Tell the sequencer whether a run is at work; return whether it is, for the counters.

        Whether it is is asked of all parts in the same cycle: what leaves one of them is in
        another, or waits in a link, in the next.
        """
        sequencer, counters, links = parts.sequencer, parts.counters, parts.links
        running = Signal()
        at_work = Signal(self.config.lanes)
        for lane in parts.lanes:
            m.d[links.domain] += at_work[lane.index].eq(lane.busy)
        # A run does not end before the counters of the one before it are written.
        busy = at_work.any() | ~parts.array.idle
        working = links.known_late(sequencer.run_start, busy, after=2)
        m.d.comb += sequencer.run_busy.eq(working | (running & counters.busy))
        drained = Signal()
        m.d[links.domain] += drained.eq(
            ~counters.busy
            & ~counters.finished
            & ~counters_wait
            & parts.arbiter.idle
            & (~sequencer.run_finished if self.config.registered_links else 1)
        )
        m.d.comb += sequencer.drained.eq(drained)
        with m.If(sequencer.run_dispatched):
            m.d.sync += running.eq(1)
        with m.Elif(sequencer.run_finished):
            m.d.sync += running.eq(0)
        return running

    def _count(self, m: Module, parts: _Parts, begin: Signal, running: Signal) -> None:
        """Count what happens; with registered links all of it comes a cycle later."""
        sequencer, counters, array = parts.sequencer, parts.counters, parts.array
        lanes = parts.lanes
        grow = Signal.like(counters.increments)
        m.d[parts.links.domain] += [
            counters.increments.eq(grow),
            counters.clear.eq(begin),
            counters.finished.eq(sequencer.run_finished),
            counters.address.eq(sequencer.run.counters),
        ]
        waits = [lane.reader.busy & lane.decoder.i.ready & ~lane.decoder.i.valid for lane in lanes]
        reads = [lane.reader.words_read for lane in lanes]
        reads += [lane.addition.reader.words_read for lane in lanes if lane.addition]
        m.d.comb += [
            grow.cycles.eq(sequencer.run_dispatched | running),
            grow.load_wait.eq(sequencer.load_wait),
            grow.macs.eq(array.macs),
            grow.gated.eq(array.gated),
            grow.tokens.eq(_total([lane.maker.tokens_sent for lane in lanes])),
            grow.starved.eq(Mux(running, array.starved, 0)),
            grow.ring_full.eq(array.ring_full),
            grow.conflict.eq(array.conflict),
            grow.fifo_full.eq(_total([lane.maker.blocked for lane in lanes])),
            grow.memory_wait.eq(_total(waits)),
            grow.words_in.eq(_total(reads)),
            grow.words_out.eq(_total([lane.writer.words_written for lane in lanes])),
        ]

    def _stop_at_errors(self, m: Module, parts: _Parts) -> None:
        """Stop the machine at the first error."""
        sequencer = parts.sequencer
        unknown = Signal()
        m.d[parts.links.domain] += unknown.eq(sequencer.unknown)
        with m.If(~self.error):
            for lane in parts.lanes:
                with m.If(lane.wrong):
                    self._stop(m, ErrorCode.ROW_LENGTH, sequencer.run.layer, lane.index)
                loader = lane.loader
                with m.If(loader.error != ErrorCode.NONE):
                    self._stop(m, loader.error, sequencer.load.layer, lane.index, loader.position)
            with m.If(unknown):
                self._stop(m, ErrorCode.DESCRIPTOR)

    def _stop(
        self, m: Module, code: object, layer: object = 0, lane: int = 0, position: object = 0
    ) -> None:
        """Say which error it is, and where."""
        m.d.sync += [
            self.error.eq(1),
            self.error_code.eq(code),
            self.error_layer.eq(layer),
            self.error_lane.eq(lane),
            self.error_position.eq(position),
        ]


class _Parts:
    """The parts of the accelerator, each placed in its module."""

    def __init__(self, m: Module, config: Config, platform: object) -> None:
        m.submodules.sequencer = self.sequencer = Sequencer(config)
        m.submodules.counters = self.counters = Counters(config)
        m.submodules.array = self.array = Array(config)
        m.submodules.arbiter = self.arbiter = Arbiter(
            config,
            readers=(2 + config.residual) * config.lanes + 1,
            writers=config.lanes + 1,
        )
        self.links = Links(m, config)
        self.program_fetcher = ProgramFetcher(config)
        self.lanes = [Lane(self.links, lane) for lane in range(config.lanes)]
        place(m, "program_fetcher_0", self.program_fetcher, platform)
        for name in self.lanes[0].parts:  # one kind after another
            for lane in self.lanes:
                place(m, f"{name}_{lane.index}", lane.parts[name], platform)


def _total(pulses: Sequence[Value]) -> Value:
    """Return how many of the pulses there are."""
    return sum(pulses[1:], start=pulses[0])
