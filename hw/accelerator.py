"""The accelerator: array, loaders, lanes, output stages, memory and control in one component."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode, Pool
from thresher.hw.activations.operand_reader import OperandReader
from thresher.hw.activations.rlc_decoder import OperandDecoder, RLCDecoder
from thresher.hw.activations.rlc_encoder import RLCEncoder
from thresher.hw.activations.row_packer import RowPacker
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.activations.row_writer import RowWriter
from thresher.hw.activations.token_maker import TokenMaker
from thresher.hw.array.array import Array
from thresher.hw.control.counters import Counters
from thresher.hw.control.sequencer import Sequencer
from thresher.hw.layouts import memory_request_layout
from thresher.hw.link import Delay, Link, Queue
from thresher.hw.memory.arbiter import Arbiter
from thresher.hw.memory.stream_fetcher import ProgramFetcher, StreamFetcher
from thresher.hw.output.adder import Adder
from thresher.hw.output.column_scaler import ColumnScaler
from thresher.hw.output.lookup import Lookup
from thresher.hw.output.pool_steps import PoolSettings
from thresher.hw.output.pooler import Pooler
from thresher.hw.output.requantiser import Requantiser
from thresher.hw.output.serial_pooler import SerialPooler
from thresher.hw.parts import place
from thresher.hw.weights.weight_loader import WeightLoader

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
        config = self.config
        lanes = range(config.lanes)
        registered = "sync" if config.registered_links else "comb"

        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.counters = counters = Counters(config)
        program_fetcher = ProgramFetcher(config)
        m.submodules.array = array = Array(config)
        m.submodules.arbiter = arbiter = Arbiter(
            config,
            readers=(2 + config.residual) * config.lanes + 1,
            writers=config.lanes + 1,
        )
        fetchers = [StreamFetcher(config) for _ in lanes]
        loaders = [WeightLoader(config) for _ in lanes]
        readers = [RowReader(config) for _ in lanes]
        decoders = [RLCDecoder(config) for _ in lanes]
        makers = [TokenMaker(config) for _ in lanes]
        requantisers = [Requantiser(config) for _ in lanes]
        lookups = [Lookup(config) for _ in lanes if config.lookup]
        adders = [Adder(config) for _ in lanes if config.residual]
        operand_readers = [OperandReader(config) for _ in lanes if config.residual]
        operand_decoders = [OperandDecoder(config) for _ in lanes if config.residual]
        serial = config.output_cycles > 1  # then a packer does what encoder and writer do
        poolers = [SerialPooler(config) if serial else Pooler(config) for _ in lanes]
        scalers = [ColumnScaler(config) for _ in lanes if serial]
        encoders = [] if serial else [RLCEncoder(config) for _ in lanes]
        writers = [RowPacker(config) if serial else RowWriter(config) for _ in lanes]
        named: dict[str, Sequence[wiring.Component]] = {
            "program_fetcher": [program_fetcher],
            "weight_fetcher": fetchers,
            "weight_loader": loaders,
            "row_reader": readers,
            "rlc_decoder": decoders,
            "token_maker": makers,
            "requantiser": requantisers,
            "lookup": lookups,
            "operand_reader": operand_readers,
            "operand_decoder": operand_decoders,
            "adder": adders,
            "serial_pooler" if serial else "pooler": poolers,
            "column_scaler": scalers,
            "rlc_encoder": encoders,
            "row_packer" if serial else "row_writer": writers,
        }
        for name, parts in named.items():
            for lane, component in enumerate(parts):
                place(m, f"{name}_{lane}", component, platform)

        # Memory: lanes, weights, program; results, counters. A write may wait in its link, and a
        # token likewise.
        waiting: list[list[Value]] = [[] for _ in lanes]
        connect(m, wiring.flipped(self.request), arbiter.request)
        connect(m, wiring.flipped(self.response), arbiter.response)
        for lane in lanes:
            self._connect_reader(m, arbiter, lane, readers[lane])
            self._connect_reader(m, arbiter, config.lanes + lane, fetchers[lane])
            waiting[lane].append(
                self._link(
                    m, f"write_link_{lane}", writers[lane].request, arbiter.write[lane].request
                )
            )
        self._connect_reader(m, arbiter, 2 * config.lanes, program_fetcher)
        for lane, reader in enumerate(operand_readers):
            self._connect_reader(m, arbiter, 2 * config.lanes + 1 + lane, reader)
        counts_wait = self._link(
            m, "counters_link", counters.request, arbiter.write[config.lanes].request
        )

        # Control: the accumulators are cleared once, after reset.
        begin = Signal()
        address = Signal.like(self.program_address)
        cleared = Signal(3)  # is over when the array has said that it is clearing
        clear = Signal()
        m.d.sync += cleared.eq(Cat(1, cleared))
        m.d[registered] += [
            clear.eq(~cleared[0]),
            begin.eq(self.start & self.ready),
            address.eq(self.program_address),
        ]
        begins = Signal()  # and the sequencer does not know
        m.d.comb += [
            begins.eq(begin if config.registered_links else 0),
            array.clear.eq(clear),
            self.ready.eq(
                cleared.all() & ~array.clearing & ~sequencer.busy & ~self.error & ~begins
            ),
            sequencer.start.eq(begin),
            sequencer.halt.eq(self.error),
            arbiter.enable.eq(~self.error),
            program_fetcher.start.eq(begin),
            program_fetcher.address.eq(address),
            program_fetcher.active.eq(sequencer.busy),
            self.done.eq(sequencer.done & ~begins),
        ]
        self._link(m, "program_queue", program_fetcher.o, sequencer.words, begin, kind=Queue)

        # Weights: a loader a column, its stream read ahead of it.
        for lane in lanes:
            loader, fetcher = loaders[lane], fetchers[lane]
            told = self._later(
                m,
                f"load_{lane}",
                load=sequencer.load,
                lane=sequencer.load_lanes[lane],
                start=sequencer.load_start,
                begin=begin,
            )
            connect(m, fetcher.o, loader.words)
            m.d.comb += [
                loader.load.eq(told.load),
                loader.lane.eq(told.lane),
                loader.start.eq(told.start),
                loader.reset_taps.eq(told.begin),
                loader.exhausted.eq(fetcher.exhausted),
                fetcher.start.eq(told.start),
                fetcher.address.eq(told.lane.address),
                fetcher.limit.eq(told.lane.words),
                fetcher.active.eq(loader.busy),
                array.tap[lane].eq(loader.tap),
                array.pointer[lane].eq(loader.pointer),
                requantisers[lane].constant.eq(loader.constant),
            ]
            if config.lookup:
                m.d.comb += lookups[lane].table.eq(loader.lookup)
        loads_busy = Cat(loader.busy for loader in loaders).any()
        fetching = ~Cat(fetcher.idle for fetcher in fetchers).all()
        loads_awake = Signal()
        m.d.comb += [
            sequencer.loads_busy.eq(self._known_late(m, sequencer.load_start, loads_busy, after=1)),
            loads_awake.eq(told.start | told.begin | loads_busy | fetching),
        ]

        # A run: lanes in, columns out.
        running = Signal()
        m.d.comb += [array.run.eq(sequencer.run), array.start.eq(sequencer.run_start)]
        if serial:
            m.submodules.pool_settings = pool_settings = PoolSettings(config)
            m.d.comb += [
                pool_settings.run.eq(sequencer.run),
                pool_settings.start.eq(sequencer.run_start),
            ]
        for lane in lanes:
            told = self._later(
                m,
                f"run_{lane}",
                run=sequencer.run,
                lane=sequencer.run_lanes[lane],
                segment=sequencer.segments[lane],
                half=sequencer.half,
                pool_scale=sequencer.pool_scale,
                start=sequencer.run_start,
                **({"operand": sequencer.operands[lane]} if config.residual else {}),
            )
            run, run_start, record = told.run, told.start, told.lane
            self._link(m, f"word_link_{lane}", readers[lane].o, decoders[lane].i)
            self._link(m, f"item_queue_{lane}", decoders[lane].o, makers[lane].i, kind=Queue)
            # With a shared store an element takes a token in two cycles, as a link does.
            kind = Link if config.shared_store else Queue
            waiting[lane].append(
                self._link(m, f"token_queue_{lane}", makers[lane].o, array.tokens[lane], kind=kind)
            )
            # Values behind a run's last window are dropped as the next one starts.
            self._link(m, f"sum_link_{lane}", array.sums[lane], requantisers[lane].i, run_start)
            outputs = requantisers[lane].o
            if config.lookup:
                self._link(m, f"lookup_link_{lane}", outputs, lookups[lane].i, run_start)
                outputs = lookups[lane].o
            if config.residual:
                self._link(m, f"adder_link_{lane}", outputs, adders[lane].i, run_start)
                connect(m, operand_readers[lane].o, operand_decoders[lane].i)
                self._link(
                    m, f"operand_link_{lane}", operand_decoders[lane].o, adders[lane].operand
                )
                self._link(
                    m, f"added_link_{lane}", adders[lane].sums, poolers[lane].sums, run_start
                )
                outputs = adders[lane].o
                m.d.comb += [
                    operand_readers[lane].operand.eq(told.operand),
                    operand_readers[lane].channels.eq(record.channels),
                    operand_decoders[lane].width.eq(Mux(run.broadcast, 1, run.pooled_width)),
                    operand_decoders[lane].start.eq(run_start),
                ]
            self._link(m, f"pooler_link_{lane}", outputs, poolers[lane].i, run_start)
            packs = writers[lane] if serial else encoders[lane]
            self._link(m, f"encoder_link_{lane}", poolers[lane].o, packs.i)
            for encoder in encoders[lane : lane + 1]:
                connect(m, encoder.o, writers[lane].i)
            m.d.comb += [
                readers[lane].segment.eq(told.segment),
                readers[lane].half.eq(told.half),
                readers[lane].segments.eq(record.segments),
                makers[lane].segments.eq(record.segments),
                decoders[lane].width.eq(run.width),
                decoders[lane].send_zeros.eq(run.send_zeros),
                decoders[lane].start.eq(run_start),
                writers[lane].out_address.eq(record.out_address),
                array.channels[lane].eq(sequencer.run_lanes[lane].channels),
            ]
            for part in (
                readers[lane],
                makers[lane],
                requantisers[lane],
                poolers[lane],
                writers[lane],
            ):
                m.d.comb += [part.run.eq(run), part.start.eq(run_start)]
            for options in (lookups, operand_readers, adders):
                for option in options[lane : lane + 1]:
                    m.d.comb += [option.run.eq(run), option.start.eq(run_start)]
            pooler = poolers[lane]
            if isinstance(pooler, SerialPooler):
                m.d.comb += pooler.setting.eq(pool_settings.o)
                scaler = scalers[lane]
                connect(m, requantisers[lane].sum, scaler.sum)
                connect(m, scaler.activation, requantisers[lane].activation)
                connect(m, pooler.pooled, scaler.pooled)
                connect(m, scaler.result, pooler.result)
                for adder in adders[lane : lane + 1]:
                    connect(m, adder.scale, scaler.operand)
                    connect(m, scaler.scaled, adder.scaled)
                m.d.comb += [
                    scaler.run.eq(run),
                    scaler.start.eq(run_start),
                    scaler.scale.eq(told.pool_scale),
                ]
            else:
                m.d.comb += pooler.scale.eq(told.pool_scale)
            for part in (
                requantisers[lane],
                *(adders[lane : lane + 1] if config.product else ()),
                poolers[lane],
                writers[lane],
            ):
                m.d.comb += part.channels.eq(record.channels)
        operands_awake = Signal()
        reading = Cat(reader.busy for reader in operand_readers).any()
        pools_awake = Signal()
        started = Signal()
        m.d.sync += started.eq(told.start)
        begins_pool = told.start | started | told.pool_scale.valid
        m.d.comb += [
            operands_awake.eq(told.start | told.run.add | reading),
            pools_awake.eq(begins_pool | told.run.add | (told.run.pool != Pool.NONE)),
        ]

        # Whether a run is at work is asked of all parts in the same cycle: what leaves one of them
        # is in another, or waits in a link, in the next.
        at_work = Signal(config.lanes)
        for lane in lanes:
            at_lane: list[Any] = [
                readers[lane],
                makers[lane],
                writers[lane],
                *operand_readers[lane:][:1],
            ]
            m.d[registered] += at_work[lane].eq(
                Cat(*(part.busy for part in at_lane), *waiting[lane]).any()
            )
        # A run does not end before the counters of the one before it are written.
        working = self._known_late(m, sequencer.run_start, at_work.any() | ~array.idle, after=2)
        m.d.comb += sequencer.run_busy.eq(working | (running & counters.busy))
        drained = Signal()
        m.d[registered] += drained.eq(
            ~counters.busy
            & ~counters.finished
            & ~counts_wait
            & arbiter.idle
            & (~sequencer.run_finished if config.registered_links else 1)
        )
        m.d.comb += sequencer.drained.eq(drained)

        # Counters.
        with m.If(sequencer.run_dispatched):
            m.d.sync += running.eq(1)
        with m.Elif(sequencer.run_finished):
            m.d.sync += running.eq(0)

        def total(pulses: Sequence[Value]) -> Value:
            return sum(pulses[1:], start=pulses[0])

        # With registered links what is counted comes a cycle later, all of it.
        grow = Signal.like(counters.increments)
        m.d[registered] += [
            counters.increments.eq(grow),
            counters.clear.eq(begin),
            counters.finished.eq(sequencer.run_finished),
            counters.address.eq(sequencer.run.counters),
        ]
        m.d.comb += [
            grow.cycles.eq(sequencer.run_dispatched | running),
            grow.load_wait.eq(sequencer.load_wait),
            grow.macs.eq(array.macs),
            grow.gated.eq(array.gated),
            grow.tokens.eq(total([maker.tokens_sent for maker in makers])),
            grow.starved.eq(Mux(running, array.starved, 0)),
            grow.ring_full.eq(array.ring_full),
            grow.conflict.eq(array.conflict),
            grow.fifo_full.eq(total([maker.blocked for maker in makers])),
            grow.memory_wait.eq(
                total(
                    [
                        reader.busy & decoder.i.ready & ~decoder.i.valid
                        for reader, decoder in zip(readers, decoders, strict=True)
                    ]
                )
            ),
            grow.words_in.eq(
                total([part.words_read for parts in (readers, operand_readers) for part in parts])
            ),
            grow.words_out.eq(total([writer.words_written for writer in writers])),
        ]

        # Errors: the first one stops the machine.
        unknown = Signal()
        m.d[registered] += unknown.eq(sequencer.unknown)
        with m.If(~self.error):
            for lane in lanes:
                wrong = Cat(part.error for part in (decoders[lane], *operand_decoders[lane:][:1]))
                with m.If(wrong.any()):
                    self._stop(m, ErrorCode.ROW_LENGTH, sequencer.run.layer, lane, 0)
                with m.If(loaders[lane].error != ErrorCode.NONE):
                    self._stop(
                        m, loaders[lane].error, sequencer.load.layer, lane, loaders[lane].position
                    )
            with m.If(unknown):
                self._stop(m, ErrorCode.DESCRIPTOR, 0, 0, 0)
        return m

    def _stop(self, m: Module, code: object, layer: object, lane: int, position: object) -> None:
        m.d.sync += [
            self.error.eq(1),
            self.error_code.eq(code),
            self.error_layer.eq(layer),
            self.error_lane.eq(lane),
            self.error_position.eq(position),
        ]

    def _link(
        self,
        m: Module,
        name: str,
        source: stream.Interface,
        sink: stream.Interface,
        clear: Value | None = None,
        *,
        kind: type[Link | Queue] = Link,
    ) -> Value:
        """Connect two parts, through registers if so configured; return whether they hold an item.

        ``clear`` empties them. A :class:`Link` passes an item in two cycles, a :class:`Queue` one a
        cycle.
        """
        if not self.config.registered_links:
            connect(m, source, sink)
            return Const(0)
        link = kind(source.payload.shape())
        m.submodules[name] = link if clear is None else ResetInserter(clear)(link)
        connect(m, source, link.i)
        connect(m, link.o, sink)
        return link.o.valid

    def _later(self, m: Module, name: str, **values: Any) -> Any:
        """Return the values by name, a cycle later if so configured."""
        if not self.config.registered_links:
            return SimpleNamespace(**values)
        shape = data.StructLayout({key: value.shape() for key, value in values.items()})
        m.submodules[name] = delay = Delay(shape)
        m.d.comb += [delay.i[key].eq(value) for key, value in values.items()]
        return delay.o

    def _known_late(self, m: Module, start: Signal, busy: Value, *, after: int) -> Value:
        """Return whether what ``start`` starts is busy; from the cycle after it on.

        With registered links ``busy`` follows ``start`` after ``after + 1`` cycles, and what is
        returned is that of the cycle before.
        """
        if not self.config.registered_links:
            return busy
        known = Signal()
        started = Signal(after)
        m.d.sync += [
            started.eq(Cat(start, started)),
            known.eq(busy | start | started.any()),
        ]
        return known

    def _connect_reader(
        self,
        m: Module,
        arbiter: Arbiter,
        client: int,
        part: RowReader | OperandReader | StreamFetcher,
    ) -> None:
        self._link(m, f"read_link_{client}", part.request, arbiter.read[client].request)
        response = arbiter.read[client].response
        told: Any = response
        if not isinstance(part, RowReader):  # which has registers of its own for them
            told = self._later(
                m, f"response_{client}", valid=response.valid, payload=response.payload
            )
        m.d.comb += [
            part.response.valid.eq(told.valid),
            part.response.payload.eq(told.payload),
            response.ready.eq(1),
        ]
