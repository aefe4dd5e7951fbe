"""The sequencer's time line: which records wait for which, and what shares the memory port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

from thresher.golden.config import Config
from thresher.golden.cycles.latencies import (
    DONE,
    FIRST_ASK,
    LINKED_READ,
    LINKED_START,
    READ_AHEAD,
    START,
    TAKEN,
    TO_PORT,
    TO_WORD,
)
from thresher.golden.cycles.loads import LoadCycles
from thresher.golden.cycles.runs import RunCycles, Traffic
from thresher.golden.descriptors import counter_words

__all__ = ["LoadStep", "ProgramCycles", "RunStep", "sequence"]


@dataclass(frozen=True)
class LoadStep:
    """A LOAD: the runs that it needs, its descriptor words, and how long it takes."""

    needs: int
    words: int
    load: LoadCycles


@dataclass(frozen=True)
class RunStep:
    """A RUN: the loads that it needs, its descriptor words, and what predicts it.

    ``predict`` takes the cycles from dispatch to start and the traffic of loads after the start;
    ``held`` words of the record are not read before the run before is finished; about ``guess``
    cycles are expected.
    """

    needs: int
    words: int
    predict: Callable[[int, Traffic], RunCycles]
    held: int = 0
    guess: int = 0


@dataclass(frozen=True)
class ProgramCycles:
    """A program, predicted.

    Parameters
    ----------
    cycles
        From start to done.
    passes
        Each run, in order.
    load_wait
        Cycles that each run waited for a load, as the counter of that name.
    """

    cycles: int
    passes: list[RunCycles]
    load_wait: list[int]


class _Program:
    """The program's words: read eight ahead, in turn with a load's first words."""

    def __init__(self, config: Config, latency: int) -> None:
        self._per_word = config.port_bits // 64
        self._lanes = config.lanes
        self._way = TO_PORT + latency + TO_WORD + LINKED_READ * config.registered_links
        self._at = 0  # descriptor words taken
        self._here = 0  # when the memory word in hand came
        self._asks = FIRST_ASK  # when the next one can be asked for
        self._left: list[int] = []  # when each memory word had been taken
        self._busy = (0, 0)  # when a load takes every word

    def begin_load(self, start: int, load: LoadCycles) -> None:
        """Let a load take the port, each column in its turn, and the program in its own."""
        self._busy = (start, start + load.burst)

    def copy(self) -> _Program:
        """Return the same, to go on from here more than once."""
        other = copy(self)
        other._left = self._left[-READ_AHEAD:]
        return other

    def read(self, words: int, begin: int) -> int:
        """Take words from cycle ``begin`` on, one a cycle; return the cycle after the last."""
        now = begin
        for _ in range(words):
            if self._at % self._per_word == 0:
                if len(self._left) >= READ_AHEAD:
                    self._asks = max(self._asks, self._left[-READ_AHEAD] + TAKEN)
                first, end = self._busy
                served = self._asks + (self._lanes if first <= self._asks < end else 0)
                self._asks = served + 1
                self._here = served + self._way
            now = max(now, self._here) + 1
            self._at += 1
            if self._at % self._per_word == 0:
                self._left.append(now - 1)
        return now


def sequence(
    steps: Sequence[LoadStep | RunStep], config: Config, *, latency: int = 4
) -> ProgramCycles:
    """Go through the records of a program in order.

    Parameters
    ----------
    steps
        The records, without the END.
    config
        The machine.
    latency
        Of the memory.

    Examples
    --------
    >>> run = RunCycles(cycles=300, start=0, tail=0, walking=0, ring_full=0)
    >>> steps = [LoadStep(0, 5, LoadCycles(100, 10, 0)), RunStep(1, 12, lambda *_: run)]
    >>> sequence(steps, Config(lanes=1)).cycles
    424
    """
    program = _Program(config, latency)
    now = loads_free = dispatch = 0
    run_free = FIRST_ASK + TO_PORT + latency + TO_WORD
    starts = START + LINKED_START * config.registered_links  # after its dispatch
    started: list[tuple[int, LoadCycles]] = []
    load_ends: list[int] = []
    run_ends: list[int] = []
    passes: list[RunCycles] = []
    waits: list[int] = []
    for number, step in enumerate(steps):
        if isinstance(step, LoadStep):
            begin = max(now, loads_free, run_ends[step.needs - 1] if step.needs else 0)
            now = program.read(step.words, begin)
            program.begin_load(now, step.load)
            started.append((now, step.load))
            loads_free = now + step.load.cycles + 1
            load_ends.append(loads_free)
            continue
        # Its record is read when the run before it has left its place.
        begin = max(now, dispatch + START)
        now = max(program.read(step.words, begin), run_free + step.held if step.held else 0)
        loaded = load_ends[step.needs - 1] if step.needs else 0
        dispatch = max(now, run_free, loaded)
        idle = dispatch if loaded >= now else max(loaded, begin)
        waits.append(max(0, idle - run_free))

        # Loads under way, and those that start while this runs.
        start = dispatch + starts
        traffic = started[-1][1].traffic(started[-1][0] - start) if started else []
        begin, free, runs, ahead = now, loads_free, 0, program.copy()
        for after in steps[number + 1 :]:
            if isinstance(after, RunStep):
                runs += 1
                begin = ahead.read(after.words, max(begin, start))
                continue
            if runs > 1 or after.needs > len(run_ends):
                break
            begin = ahead.read(after.words, max(begin, free))
            ahead.begin_load(begin, after.load)
            traffic += after.load.traffic(begin - start)
            free = begin + after.load.cycles + 1
        result = step.predict(starts, [span for span in traffic if span[1] > 0])
        passes.append(result)
        run_free = dispatch + result.cycles
        run_ends.append(run_free)
    cycles = max(now, loads_free, run_free) + counter_words(config.port_bits) + DONE
    return ProgramCycles(cycles, passes, waits)
