"""Sequencer: reads the program and starts the loaders and the run that its records ask for."""

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import (
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    Field,
    Kind,
    Record,
)
from thresher.hw.activations.segment_table import segment_write_layout
from thresher.hw.layouts import pool_scale_write_layout, record_layout

__all__ = ["Sequencer"]

_WORD = 64


class Sequencer(wiring.Component):
    """Execute a program: LOAD records go to the loaders, RUN records to the array, END ends.

    A LOAD starts when the loaders are idle and ``needs`` runs are finished, a RUN when the array
    is idle and ``needs`` loads are finished; loads in the order of the program, and runs likewise.
    The record of the next run is read, and kept, while a run computes or waits for its load; a load
    behind it need not wait for it. So the weights of the next pass load while a pass computes, and
    the array goes on from run to run.

    Timing contract
    ---------------
    Latency
        A run whose record has been read starts in the cycle after it is allowed to, else w cycles
        after its first word; a load of w words w cycles after it is allowed to. With
        ``registered_links`` a cycle more of a load, and of a run that waits for one.
    Throughput
        One descriptor word of 64 bits a cycle.
    Combinational paths
        None from inputs to ``load_start``, ``run_start``; ``words.ready`` depends on state only.
    Reset
        Idle.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    start : ``In(1)``
        Begin at the program's first word; the words come on ``words``.
    halt : ``In(1)``
        Take no further record.
    words : ``In(stream.Signature(port_bits))``
        The program.
    load, load_lanes : ``Out``
        Record of the load in hand and of its columns; stable while loaders are busy.
    run, run_lanes : ``Out``
        Record of the run in hand, and of its lanes; stable from ``run_start`` to ``run_finished``.
    segments : ``Out``
        Writes to the half of the segment tables that the run in hand does not use.
    half : ``Out(1)``
        The half that it uses.
    pool_scale : ``Out(pool_scale_write_layout())``
        Writes to the poolers' tables of scales: with ``run_start``, and before it.
    operands : ``Out``
        Each column's operand, ``record_layout(RUN_SEGMENT)``, of a run that adds; stable like
        ``run``. Only with ``config.residual``.
    load_start, run_start : ``Out(1)``
        Pulses.
    loads_busy, run_busy, drained : ``In(1)``
        Loaders at work; the run at work; nothing left to write.
    run_dispatched, run_finished : ``Out(1)``
        Pulses: a run is about to start; the run in hand is done.
    load_wait : ``Out(1)``
        The array is idle for want of a load.
    busy, done, unknown : ``Out(1)``
        Executing; the program has ended (until the next start); a record of unknown kind.
    """

    start: Signal
    halt: Signal
    words: stream.Interface
    load: data.View
    load_lanes: Sequence[data.View]
    load_start: Signal
    loads_busy: Signal
    run: data.View
    run_lanes: Sequence[data.View]
    segments: Sequence[data.View]
    half: Signal
    pool_scale: data.View
    operands: Sequence[data.View]
    run_start: Signal
    run_busy: Signal
    run_finished: Signal
    run_dispatched: Signal
    drained: Signal
    load_wait: Signal
    busy: Signal
    done: Signal
    unknown: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        lanes = config.lanes
        operand = Out(record_layout(RUN_SEGMENT))
        super().__init__(
            {
                "start": In(1),
                "halt": In(1),
                "words": In(stream.Signature(unsigned(config.port_bits))),
                "load": Out(record_layout(LOAD)),
                "load_lanes": Out(record_layout(LOAD_LANE)).array(lanes),
                "load_start": Out(1),
                "loads_busy": In(1),
                "run": Out(record_layout(RUN)),
                "run_lanes": Out(record_layout(RUN_LANE)).array(lanes),
                "segments": Out(segment_write_layout(config)).array(lanes),
                "half": Out(1),
                "pool_scale": Out(pool_scale_write_layout()),
                **({"operands": operand.array(lanes)} if config.residual else {}),
                "run_start": Out(1),
                "run_busy": In(1),
                "run_finished": Out(1),
                "run_dispatched": Out(1),
                "drained": In(1),
                "load_wait": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "unknown": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        program = _Program(m, self)
        states = {
            "IDLE": program.begin,
            "HEADER": program.take_header,
            "LOAD": program.take_load,
            "LOAD LANES": program.take_load_lanes,
            "RUN": program.take_run,
            "POOL SCALES": program.take_pool_scales,
            "RUN LANE": program.take_run_lane,
            "SEGMENTS": program.take_segments,
        }
        if self.config.residual:
            states["OPERAND"] = program.take_operand
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            for name, act in states.items():
                with m.State(name):
                    act()
        program.write_segments()
        return m


class _Program:
    """The words of a program, the record in hand, and what is under way."""

    def __init__(self, m: Module, ports: Sequencer) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        self._cut_words()
        self.index = Signal(8)
        self.lane = Signal(range(max(2, self.config.lanes)))
        self.segment = Signal(16)
        self.left = Signal(16)
        # The next run: its record, of which the first word is `known` and which `waits` when it is
        # whole.
        self.run = Signal.like(ports.run)
        self.run_lanes = [Signal.like(lane) for lane in ports.run_lanes]
        self.operands_out = list(ports.operands) if self.config.residual else []
        self.operands = [Signal.like(one) for one in self.operands_out]
        self.known = Signal()
        self.waits = Signal()
        self._count_finished()
        self._dispatch_run()
        self._send_pool_scale()
        self._allow_load()

    def _cut_words(self) -> None:
        """A memory word holds several descriptor words, lowest first."""
        m, ports = self.m, self.ports
        per_word = self.config.port_bits // _WORD
        self.word = Signal(_WORD)
        self.take = Signal()
        if per_word == 1:
            m.d.comb += [self.word.eq(ports.words.payload), ports.words.ready.eq(self.take)]
        else:
            part = Signal(range(per_word))
            parts = Array(ports.words.payload[k * _WORD : (k + 1) * _WORD] for k in range(per_word))
            m.d.comb += [
                self.word.eq(parts[part]),
                ports.words.ready.eq(self.take & (part == per_word - 1)),
            ]
            with m.If(ports.start):
                m.d.sync += part.eq(0)
            with m.Elif(self.take & ports.words.valid):
                m.d.sync += part.eq(part + 1)
        self.arrived = ports.words.valid
        self.kind = self.word[:2]
        self.needs = self.word[2:18]

    def _count_finished(self) -> None:
        """What is under way, and what is finished.

        A pulse of start is followed by busy a cycle on.
        """
        m, ports = self.m, self.ports
        self.loads_done = Signal(16)
        self.runs_done = Signal(16)
        self.load_pending = load_pending = Signal()
        self.run_pending = run_pending = Signal()
        self.load_idle = ~load_pending & ~ports.loads_busy
        self.run_idle = ~run_pending & ~ports.run_busy
        m.d.comb += ports.run_finished.eq(run_pending & ~ports.run_busy & ~ports.run_start)
        with m.If(ports.run_finished):
            m.d.sync += [run_pending.eq(0), self.runs_done.eq(self.runs_done + 1)]
        with m.If(load_pending & ~ports.loads_busy & ~ports.load_start):
            m.d.sync += [load_pending.eq(0), self.loads_done.eq(self.loads_done + 1)]
        m.d.sync += [ports.load_start.eq(0), ports.run_start.eq(0)]

    def _dispatch_run(self) -> None:
        """The next run becomes the run in hand."""
        m, ports, run = self.m, self.ports, self.run
        short = Signal()  # of loads; with registered links as it was a cycle before
        m.d["sync" if self.config.registered_links else "comb"] += short.eq(
            self.known & (self.loads_done < run.needs)
        )
        m.d.comb += ports.run_dispatched.eq(self.waits & self.run_idle & ~short & ~ports.halt)
        with m.If(ports.run_dispatched):
            m.d.sync += [
                *(now.eq(then) for now, then in zip(ports.run_lanes, self.run_lanes, strict=True)),
                *(now.eq(then) for now, then in zip(self.operands_out, self.operands, strict=True)),
                ports.run.eq(run),
                ports.half.eq(~ports.half),
                ports.run_start.eq(1),
                self.run_pending.eq(1),
                self.known.eq(0),
                self.waits.eq(0),
            ]
        with m.If(self.run_idle & short):
            m.d.comb += ports.load_wait.eq(1)

    def _send_pool_scale(self) -> None:
        """A whole window's scale with the start of its run; before it those of the others."""
        ports = self.ports
        self.cut_scale = cut_scale = Signal()
        fields = data.View(record_layout(POOL_SCALE), self.word[: record_layout(POOL_SCALE).size])
        self.m.d.comb += [
            ports.pool_scale.valid.eq(cut_scale | ports.run_start),
            ports.pool_scale.rows.eq(Mux(cut_scale, fields.rows, 0)),
            ports.pool_scale.columns.eq(Mux(cut_scale, fields.columns, 0)),
            ports.pool_scale.scale.eq(Mux(cut_scale, fields.scale, ports.run.pool_scale)),
        ]

    def _allow_load(self) -> None:
        """Whether a load can begin.

        With registered links from a register, for that chooses what all registers of the queue
        before the sequencer take.
        """
        self.load_can_begin = load_can_begin = Signal()
        self.may_load = may_load = Signal()
        if self.config.registered_links:
            self.m.d.sync += may_load.eq(load_can_begin & ~may_load)
        else:
            self.m.d.comb += may_load.eq(load_can_begin)

    def _capture(self, fields: tuple[Field, ...], target: data.View) -> None:
        at = 0
        for field in fields:
            self.m.d.sync += target[field.name].eq(self.word[at : at + field.bits])
            at += field.bits

    def _capture_next(self, record: Record, target: data.View) -> None:
        with self.m.Switch(self.index):
            for k, fields in enumerate(record.words):
                with self.m.Case(k):
                    self._capture(fields, target)

    def _capture_lane(self, record: Record, targets: Sequence[data.View]) -> None:
        with self.m.Switch(self.lane):
            for k, target in enumerate(targets):
                with self.m.Case(k):
                    self._capture(record.words[0], target)

    def _loading_first(self) -> None:
        """No run is known that could start: the array waits for the load."""
        with self.m.If(self.run_idle & ~self.known):
            self.m.d.comb += self.ports.load_wait.eq(1)

    def _go_to_next_lane(self) -> None:
        m = self.m
        m.d.sync += self.lane.eq(self.lane + 1)
        with m.If(self.lane == self.config.lanes - 1):
            m.d.sync += self.waits.eq(1)
            m.next = "HEADER"
        with m.Else():
            m.next = "RUN LANE"

    def _end_segments(self) -> None:
        if not self.config.residual:
            self._go_to_next_lane()
            return
        with self.m.If(self.run.add):
            self.m.next = "OPERAND"
        with self.m.Else():
            self._go_to_next_lane()

    def begin(self) -> None:
        """Wait for the start."""
        m, ports = self.m, self.ports
        with m.If(ports.start):
            m.d.sync += [self.loads_done.eq(0), self.runs_done.eq(0), ports.done.eq(0)]
            m.next = "HEADER"

    def take_header(self) -> None:
        """Take a record's first word when the record may be read; or end."""
        m, ports = self.m, self.ports
        with m.If(self.arrived & ~ports.halt):
            m.d.sync += [self.index.eq(1), self.lane.eq(0)]
            with m.Switch(self.kind):
                with m.Case(Kind.LOAD):
                    self._loading_first()
                    m.d.comb += self.load_can_begin.eq(
                        self.load_idle & (self.runs_done >= self.needs)
                    )
                    with m.If(self.may_load):
                        m.d.comb += self.take.eq(1)
                        self._capture(LOAD.words[0], ports.load)
                        m.next = "LOAD"
                with m.Case(Kind.RUN):
                    with m.If(self.run_idle & ~self.waits & (self.loads_done < self.needs)):
                        m.d.comb += ports.load_wait.eq(1)
                    with m.If(~self.waits):
                        m.d.comb += self.take.eq(1)
                        m.d.sync += self.known.eq(1)
                        self._capture(RUN.words[0], self.run)
                        m.next = "RUN"
                with (
                    m.Case(Kind.END),
                    m.If(self.load_idle & self.run_idle & ~self.waits & ports.drained),
                ):
                    m.d.sync += ports.done.eq(1)
                    m.next = "IDLE"
                with m.Case(3):
                    m.d.comb += ports.unknown.eq(~self.waits & ~ports.run_start)

    def take_load(self) -> None:
        """Take the rest of a load's record."""
        m = self.m
        m.d.comb += self.take.eq(1)
        self._loading_first()
        self._capture_next(LOAD, self.ports.load)
        with m.If(self.arrived):
            m.d.sync += self.index.eq(self.index + 1)
            with m.If(self.index == len(LOAD.words) - 1):
                m.next = "LOAD LANES"

    def take_load_lanes(self) -> None:
        """Take the columns' records of a load, and start it."""
        m = self.m
        m.d.comb += self.take.eq(1)
        self._loading_first()
        self._capture_lane(LOAD_LANE, list(self.ports.load_lanes))
        with m.If(self.arrived):
            m.d.sync += self.lane.eq(self.lane + 1)
            with m.If(self.lane == self.config.lanes - 1):
                m.d.sync += [self.ports.load_start.eq(1), self.load_pending.eq(1)]
                m.next = "HEADER"

    def take_run(self) -> None:
        """Take the rest of a run's record."""
        m = self.m
        m.d.comb += self.take.eq(1)
        self._capture_next(RUN, self.run)
        with m.If(self.arrived):
            m.d.sync += [self.index.eq(self.index + 1), self.left.eq(self.run.pool_scales)]
            with m.If(self.index == len(RUN.words) - 1):
                m.next = "RUN LANE"
                with m.If(self.run.pool_scales != 0):
                    m.next = "POOL SCALES"

    def take_pool_scales(self) -> None:
        """Pass scales on; the tables are the present run's until it is done."""
        m = self.m
        m.d.comb += self.take.eq(self.run_idle)
        with m.If(self.arrived & self.run_idle):
            m.d.comb += self.cut_scale.eq(1)
            m.d.sync += self.left.eq(self.left - 1)
            with m.If(self.left == 1):
                m.next = "RUN LANE"

    def take_run_lane(self) -> None:
        """Take a lane's record of a run."""
        m = self.m
        m.d.comb += self.take.eq(1)
        self._capture_lane(RUN_LANE, self.run_lanes)
        with m.If(self.arrived):
            m.d.sync += [self.segment.eq(0), self.left.eq(self.word[:16])]
            with m.If(self.word[:16] != 0):
                m.next = "SEGMENTS"
            with m.Else():
                self._end_segments()

    def take_segments(self) -> None:
        """Pass a lane's segments on to its reader."""
        m = self.m
        m.d.comb += self.take.eq(1)
        with m.Switch(self.lane):
            for k in range(self.config.lanes):
                with m.Case(k):
                    m.d.comb += self.ports.segments[k].valid.eq(self.arrived)
        with m.If(self.arrived):
            m.d.sync += [self.segment.eq(self.segment + 1), self.left.eq(self.left - 1)]
            with m.If(self.left == 1):
                self._end_segments()

    def take_operand(self) -> None:
        """Take what a column adds or multiplies by."""
        self.m.d.comb += self.take.eq(1)
        self._capture_lane(RUN_SEGMENT, self.operands)
        with self.m.If(self.arrived):
            self._go_to_next_lane()

    def write_segments(self) -> None:
        """Give all readers what would be written; one of them takes it."""
        for write in self.ports.segments:
            self.m.d.comb += [
                write.index.eq(self.segment),
                write.half.eq(~self.ports.half),
                Cat(*(write.data[field.name] for field in RUN_SEGMENT.words[0])).eq(self.word),
            ]
