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
from thresher.hw.activations.row_reader import segment_write_layout
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
        config = self.config

        # A memory word holds several descriptor words, lowest first.
        per_word = config.port_bits // _WORD
        word = Signal(_WORD)
        take = Signal()
        if per_word == 1:
            m.d.comb += [word.eq(self.words.payload), self.words.ready.eq(take)]
        else:
            part = Signal(range(per_word))
            parts = Array(self.words.payload[k * _WORD : (k + 1) * _WORD] for k in range(per_word))
            m.d.comb += [
                word.eq(parts[part]),
                self.words.ready.eq(take & (part == per_word - 1)),
            ]
            with m.If(self.start):
                m.d.sync += part.eq(0)
            with m.Elif(take & self.words.valid):
                m.d.sync += part.eq(part + 1)
        arrived = self.words.valid

        index = Signal(8)
        lane = Signal(range(max(2, config.lanes)))
        segment = Signal(16)
        left = Signal(16)

        def capture(fields: tuple[Field, ...], target: data.View) -> None:
            at = 0
            for field in fields:
                m.d.sync += target[field.name].eq(word[at : at + field.bits])
                at += field.bits

        def capture_next(record: Record, target: data.View) -> None:
            with m.Switch(index):
                for k, fields in enumerate(record.words):
                    with m.Case(k):
                        capture(fields, target)

        def capture_lane(record: Record, targets: Sequence[data.View]) -> None:
            with m.Switch(lane):
                for k, target in enumerate(targets):
                    with m.Case(k):
                        capture(record.words[0], target)

        def go_to_next_lane() -> None:
            m.d.sync += lane.eq(lane + 1)
            with m.If(lane == config.lanes - 1):
                m.d.sync += waits.eq(1)
                m.next = "HEADER"
            with m.Else():
                m.next = "RUN LANE"

        def end_segments() -> None:
            if not config.residual:
                go_to_next_lane()
                return
            with m.If(run.add):
                m.next = "OPERAND"
            with m.Else():
                go_to_next_lane()

        # The next run: its record, of which the first word is `known` and which `waits` when it is
        # whole.
        run = Signal.like(self.run)
        run_lanes = [Signal.like(lane) for lane in self.run_lanes]
        operands_out = list(self.operands) if config.residual else []
        operands = [Signal.like(one) for one in operands_out]
        known = Signal()
        waits = Signal()

        def loading_first() -> None:
            """No run is known that could start: the array waits for the load."""
            with m.If(run_idle & ~known):
                m.d.comb += self.load_wait.eq(1)

        # What is under way, and what is finished. A pulse of start is followed by busy a cycle on.
        kind = word[:2]
        needs = word[2:18]
        loads_done = Signal(16)
        runs_done = Signal(16)
        load_pending = Signal()
        run_pending = Signal()
        load_idle = ~load_pending & ~self.loads_busy
        run_idle = ~run_pending & ~self.run_busy
        m.d.comb += self.run_finished.eq(run_pending & ~self.run_busy & ~self.run_start)
        with m.If(self.run_finished):
            m.d.sync += [run_pending.eq(0), runs_done.eq(runs_done + 1)]
        with m.If(load_pending & ~self.loads_busy & ~self.load_start):
            m.d.sync += [load_pending.eq(0), loads_done.eq(loads_done + 1)]
        m.d.sync += [self.load_start.eq(0), self.run_start.eq(0)]

        # The next run becomes the run in hand.
        short = Signal()  # of loads; with registered links as it was a cycle before
        m.d["sync" if config.registered_links else "comb"] += short.eq(
            known & (loads_done < run.needs)
        )
        m.d.comb += self.run_dispatched.eq(waits & run_idle & ~short & ~self.halt)
        with m.If(self.run_dispatched):
            m.d.sync += [
                *(now.eq(then) for now, then in zip(self.run_lanes, run_lanes, strict=True)),
                *(now.eq(then) for now, then in zip(operands_out, operands, strict=True)),
                self.run.eq(run),
                self.half.eq(~self.half),
                self.run_start.eq(1),
                run_pending.eq(1),
                known.eq(0),
                waits.eq(0),
            ]
        with m.If(run_idle & short):
            m.d.comb += self.load_wait.eq(1)

        # A whole window's scale with the start of its run; before it those of the others.
        cut_scale = Signal()
        fields = data.View(record_layout(POOL_SCALE), word[: record_layout(POOL_SCALE).size])
        m.d.comb += [
            self.pool_scale.valid.eq(cut_scale | self.run_start),
            self.pool_scale.rows.eq(Mux(cut_scale, fields.rows, 0)),
            self.pool_scale.columns.eq(Mux(cut_scale, fields.columns, 0)),
            self.pool_scale.scale.eq(Mux(cut_scale, fields.scale, self.run.pool_scale)),
        ]

        # Whether a load can begin; with registered links from a register, for that chooses what all
        # registers of the queue before the sequencer take.
        load_can_begin, may_load = Signal(), Signal()
        if config.registered_links:
            m.d.sync += may_load.eq(load_can_begin & ~may_load)
        else:
            m.d.comb += may_load.eq(load_can_begin)

        # The record in hand.
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [loads_done.eq(0), runs_done.eq(0), self.done.eq(0)]
                m.next = "HEADER"
            with m.State("HEADER"), m.If(arrived & ~self.halt):
                m.d.sync += [index.eq(1), lane.eq(0)]
                with m.Switch(kind):
                    with m.Case(Kind.LOAD):
                        loading_first()
                        m.d.comb += load_can_begin.eq(load_idle & (runs_done >= needs))
                        with m.If(may_load):
                            m.d.comb += take.eq(1)
                            capture(LOAD.words[0], self.load)
                            m.next = "LOAD"
                    with m.Case(Kind.RUN):
                        with m.If(run_idle & ~waits & (loads_done < needs)):
                            m.d.comb += self.load_wait.eq(1)
                        with m.If(~waits):
                            m.d.comb += take.eq(1)
                            m.d.sync += known.eq(1)
                            capture(RUN.words[0], run)
                            m.next = "RUN"
                    with m.Case(Kind.END), m.If(load_idle & run_idle & ~waits & self.drained):
                        m.d.sync += self.done.eq(1)
                        m.next = "IDLE"
                    with m.Case(3):
                        m.d.comb += self.unknown.eq(~waits & ~self.run_start)
            with m.State("LOAD"):
                m.d.comb += take.eq(1)
                loading_first()
                capture_next(LOAD, self.load)
                with m.If(arrived):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == len(LOAD.words) - 1):
                        m.next = "LOAD LANES"
            with m.State("LOAD LANES"):
                m.d.comb += take.eq(1)
                loading_first()
                capture_lane(LOAD_LANE, list(self.load_lanes))
                with m.If(arrived):
                    m.d.sync += lane.eq(lane + 1)
                    with m.If(lane == config.lanes - 1):
                        m.d.sync += [self.load_start.eq(1), load_pending.eq(1)]
                        m.next = "HEADER"
            with m.State("RUN"):
                m.d.comb += take.eq(1)
                capture_next(RUN, run)
                with m.If(arrived):
                    m.d.sync += [index.eq(index + 1), left.eq(run.pool_scales)]
                    with m.If(index == len(RUN.words) - 1):
                        m.next = "RUN LANE"
                        with m.If(run.pool_scales != 0):
                            m.next = "POOL SCALES"
            with m.State("POOL SCALES"):  # the tables are the present run's until it is done
                m.d.comb += take.eq(run_idle)
                with m.If(arrived & run_idle):
                    m.d.comb += cut_scale.eq(1)
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "RUN LANE"
            with m.State("RUN LANE"):
                m.d.comb += take.eq(1)
                capture_lane(RUN_LANE, run_lanes)
                with m.If(arrived):
                    m.d.sync += [segment.eq(0), left.eq(word[:16])]
                    with m.If(word[:16] != 0):
                        m.next = "SEGMENTS"
                    with m.Else():
                        end_segments()
            with m.State("SEGMENTS"):
                m.d.comb += take.eq(1)
                with m.Switch(lane):
                    for k in range(config.lanes):
                        with m.Case(k):
                            m.d.comb += self.segments[k].valid.eq(arrived)
                with m.If(arrived):
                    m.d.sync += [segment.eq(segment + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        end_segments()
            if config.residual:
                with m.State("OPERAND"):
                    m.d.comb += take.eq(1)
                    capture_lane(RUN_SEGMENT, operands)
                    with m.If(arrived):
                        go_to_next_lane()
        for write in self.segments:
            m.d.comb += [
                write.index.eq(segment),
                write.half.eq(~self.half),
                Cat(*(write.data[field.name] for field in RUN_SEGMENT.words[0])).eq(word),
            ]
        return m
