"""The sequencer's time line: which records wait for which, and what shares the memory port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from thresher.golden.config import Config
from thresher.golden.cycles.latencies import (
    DONE,
    FIRST_ASK,
    FIRST_REQUEST,
    LINKED_LOAD,
    LINKED_READ,
    LINKED_START,
    PROGRAM_AHEAD,
    START,
    TAKEN,
    TO_PORT,
    TO_WORD,
)
from thresher.golden.cycles.loads import NOTHING, Fetchers, Load, load_rest, shifted
from thresher.golden.cycles.runs import LoadsAfter, PortLoads, RunCycles
from thresher.golden.cycles.state import FAR
from thresher.golden.descriptors import counter_words

__all__ = ["LoadStep", "ProgramCycles", "RunStep", "sequence"]


@dataclass(frozen=True)
class LoadStep:
    """A LOAD: the runs that it needs, its descriptor words, and how long it takes."""

    needs: int
    words: int
    load: Load


@dataclass(frozen=True)
class RunStep:
    """A RUN: the loads that it needs, its descriptor words, and what predicts it.

    ``predict`` takes the cycles from dispatch to start and the loads that share the port;
    ``held`` words of the record are not read before the run before is finished; about ``guess``
    cycles are expected.
    """

    needs: int
    words: int
    predict: Callable[[int, PortLoads], RunCycles]
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
    """The program's words: read sixteen ahead, in turn with a load's first words.

    They are asked for whether a record takes them or not, beyond the program's end, too. Beside a
    run the port is shared there, see :meth:`go_on`.
    """

    def __init__(self, config: Config, latency: int) -> None:
        self._per_word = config.port_bits // 64
        self._lanes = config.lanes
        self._way = TO_PORT + latency + TO_WORD + LINKED_READ * config.registered_links
        self._at = 0  # descriptor words taken
        self._comes: list[int] = []  # when each memory word that is asked for and not taken comes
        self._granted: list[int] = []  # when the words to be asked for next got the port
        self._asks = FIRST_ASK  # when the next one can be asked for
        self._left: list[int] = []  # when each memory word had been taken
        self.asked: list[int] = []  # when each is asked for, until someone grants it
        self._busy = (0, 0)  # when a load takes every word

    def begin_load(self, start: int, load: Load) -> None:
        """Let a load take the port, each column in its turn, and the program in its own."""
        self._busy = (start + FIRST_REQUEST, start + FIRST_REQUEST + load.burst)

    def copy(self) -> _Program:
        """Return the same, to go on from here more than once, with the port for itself."""
        other = copy(self)
        other._comes, other._granted = list(self._comes), list(self._granted)
        other._left = self._left[-PROGRAM_AHEAD:]
        other._busy = (0, 0)
        other.asked = list(self.asked)
        return other

    def _ask(self) -> None:
        """Ask for the next memory word, when there is a place for it."""
        left = PROGRAM_AHEAD - len(self._comes)  # words ago its place was another one's
        if len(self._left) >= left:
            self._asks = max(self._asks, self._left[-left] + TAKEN)
        if self._granted:
            served = self._granted.pop(0)
        else:
            self.asked.append(self._asks)
            first, end = self._busy
            served = self._asks + (self._lanes if first <= self._asks < end else 0)
        self._asks = served + 1
        self._comes.append(served + self._way)

    def ask_ahead(self) -> None:
        """Ask for all memory words for which there is a place."""
        while len(self._comes) < PROGRAM_AHEAD:
            self._ask()

    @property
    def words_asked(self) -> int:
        """Memory words that are asked for."""
        return self._at // self._per_word + len(self._comes)

    @property
    def words_begun(self) -> int:
        """Memory words of which a part is taken."""
        return -(-self._at // self._per_word)

    def go_on(self, asked: Sequence[int], granted: Sequence[int]) -> None:
        """Take over when a run ``granted`` the port to words.

        The first of these is the first one that was ``asked`` for after its start, as it was
        expected here; the others follow.
        """
        if asked:
            self._asks = asked[0]
            del self._comes[-len(asked) :]
        self._granted += granted

    def read(self, words: int, begin: int) -> int:
        """Take words from cycle ``begin`` on, one a cycle; return the cycle after the last."""
        now = begin
        for _ in range(words):
            if not self._comes:
                self._ask()
            now = max(now, self._comes[0]) + 1
            self._at += 1
            if self._at % self._per_word == 0:
                self._comes.pop(0)
                self._left.append(now - 1)
        return now


class _Loads:
    """The loads of a program, in absolute time."""

    def __init__(self, config: Config, latency: int, program: _Program) -> None:
        self._fetchers, self._program = Fetchers(config, latency), program
        self._rest = load_rest(config)
        self.all: list[Load] = []
        self.starts: list[int] = []
        self._ends: list[int | None] = []  # the cycle after

    def begin(self, load: Load, at: int) -> None:
        """Start a load; the one before it is done."""
        self._fetchers.begin(load, at)
        self._add(load, at, None)

    def _add(self, load: Load, start: int, end: int | None) -> None:
        self.all.append(load)
        self.starts.append(start)
        self._ends.append(end)

    def end(self, count: int) -> int:
        """Return the cycle after the first ``count`` loads, the last of which may be under way."""
        if count == 0:
            return 0
        end = self._ends[count - 1]
        if end is None:
            self._fetch(FAR)
            self._note()
            end = self._ends[count - 1]
            assert end is not None, "all words are fetched"
        return end

    def least_end(self) -> int:
        """Return a cycle before which the last load that has started is not done."""
        if not self.all:
            return 0
        end = self._ends[-1]
        return self.starts[-1] + self.all[-1].cycles if end is None else end

    def _fetch(self, until: int) -> None:
        """Let the load go on without a run, beside the program."""
        self._program.ask_ahead()
        asked = [ask for ask in self._program.asked if ask >= self._fetchers.at]
        self._fetchers.fetch(until, np.array(asked, np.int64))

    def _note(self) -> None:
        end = self._fetchers.end()
        self._ends[-1] = None if end is None else end + self._rest

    def share(
        self, start: int, follow: Sequence[tuple[Load, int, int, int, int]], ahead: _Program
    ) -> PortLoads:
        """Return what shares the port of a run that starts at ``start``.

        ``follow`` are loads behind its record: when theirs can have been read, its words, and
        memory words before it and up to its end. ``ahead`` is the program, read on beside the run.
        """
        if self.all and self._ends[-1] is None:
            self._fetch(start)
            self._note()
        program = tuple(ask - start for ask in ahead.asked if ask >= start)
        before = ahead.words_asked - len(program)
        loads = [load for load, *_ in follow]
        begins = [
            (read - start, words, first - before, end - before)
            for _, read, words, first, end in follow
        ]
        if not (self.all and self._ends[-1] is None):
            last = self.end(len(self.all)) - start
            begins = [
                (max(read, last + words), words, first, end) for read, words, first, end in begins
            ]
            return PortLoads(tuple(loads), tuple(begins), None, program)
        state = shifted(self._fetchers.state, -start)
        return PortLoads((self.all[-1], *loads), ((0, 0, 0, 0), *begins), state.tobytes(), program)

    def go_on(self, start: int, shared: PortLoads, after: LoadsAfter | None, until: int) -> None:
        """Take over what became of a run's loads, or let them go on alone ``until`` its end."""
        if after is None:
            after = self._alone(start, shared, until)
        for number, (begin, end) in enumerate(after.times):
            last = None if end is None else start + end
            if number == 0 and shared.state is not None:
                self._ends[-1] = last
            else:
                self._add(shared.loads[number], start + begin, last)
        if after.times:
            self._fetchers.take(self.all[-1], after.state, start, start + after.at)

    def _alone(self, start: int, shared: PortLoads, until: int) -> LoadsAfter:
        """Let the loads go on without the run."""
        fetchers = self._fetchers
        times: list[tuple[int, int | None]] = []
        end: int | None = 0
        for number, (load, (ready, words, *_)) in enumerate(
            zip(shared.loads, shared.begins, strict=True)
        ):
            begin = 0
            if number or shared.state is None:
                begin = max(ready, (end or 0) + words) if number else ready
                if end is None or start + begin >= until:
                    break
                fetchers.begin(load, start + begin)
            fetchers.fetch(until, NOTHING)
            last = fetchers.end()
            end = None if last is None else last + self._rest - start
            times.append((begin, end))
        return LoadsAfter(times, shifted(fetchers.state, -start), until - start)


def _loads_behind(
    steps: Sequence[LoadStep | RunStep],
    program: _Program,
    loads: _Loads,
    *,
    now: int,
    start: int,
    seen: int,
    finished: int,
    known: int,
) -> list[tuple[Load, int, int, int, int]]:
    """Return the loads that may start while a run goes on: see :meth:`_Loads.share`.

    Parameters
    ----------
    steps, program
        Behind the run; ``program`` reads their words.
    loads
        Those that have started.
    now, start
        When the run's record has been read, and the run starts.
    seen, finished
        Loads before ``steps``; runs that are finished.
    known
        Cycles after which the sequencer knows that a load may begin.
    """
    follow: list[tuple[Load, int, int, int, int]] = []
    begin, known_run, done = now, False, loads.least_end()
    for step in steps:
        if isinstance(step, RunStep):
            if known_run:  # its record is read when that one has started
                break
            known_run = True
            begin = program.read(step.words, max(begin, start))
            continue
        if step.needs > finished:
            break
        # Its record is read when the load before it is done; some have been.
        started = seen < len(loads.all)
        first = program.words_begun
        begin = program.read(step.words, known + (begin if started else max(begin, done)))
        if not started:
            done = begin + step.load.cycles
            follow.append((step.load, begin, known + step.words, first, program.words_begun))
        seen += 1
    return follow


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
    >>> import numpy as np
    >>> from thresher.golden.cycles.loads import Stream, make_load
    >>> run = RunCycles(cycles=300, walking=0)
    >>> load = make_load([Stream(100, np.array([0]))], Config(lanes=1))
    >>> steps = [LoadStep(0, 5, load), RunStep(1, 12, lambda *_: run)]
    >>> sequence(steps, Config(lanes=1)).cycles
    435
    """
    program = _Program(config, latency)
    loads = _Loads(config, latency, program)
    now = dispatch = 0
    run_free = FIRST_ASK + TO_PORT + latency + TO_WORD
    starts = START + LINKED_START * config.registered_links  # after its dispatch
    load_known = LINKED_LOAD * config.registered_links
    load_count = 0
    run_ends: list[int] = []
    passes: list[RunCycles] = []
    waits: list[int] = []
    for number, step in enumerate(steps):
        if isinstance(step, LoadStep):
            if load_count < len(loads.all):  # it has started while the run before it goes on
                program.read(step.words, now)
                now = loads.starts[load_count]
            else:
                begin = max(
                    now, loads.end(load_count), run_ends[step.needs - 1] if step.needs else 0
                )
                now = program.read(step.words, begin + load_known)
                loads.begin(step.load, now)
            program.begin_load(now, step.load)
            load_count += 1
            continue
        # Its record is read when the run before it has left its place.
        begin = max(now, dispatch + START)
        now = max(program.read(step.words, begin), run_free + step.held if step.held else 0)
        loaded = loads.end(step.needs) + load_known
        dispatch = max(now, run_free, loaded)
        idle = dispatch if loaded >= now else max(loaded, begin)
        waits.append(max(0, idle - run_free))

        # Loads under way, and those that may start while this runs.
        start = dispatch + starts
        program.ask_ahead()
        ahead = program.copy()
        follow = _loads_behind(
            steps[number + 1 :], ahead, loads, now=now, start=start, seen=load_count,
            finished=len(run_ends), known=load_known,
        )  # fmt: skip
        ahead.ask_ahead()
        shared = loads.share(start, follow, ahead)
        asked = [ask for ask in program.asked if ask >= start]
        program.asked.clear()
        result = step.predict(starts, shared)
        passes.append(result)
        run_free = dispatch + result.cycles
        loads.go_on(start, shared, result.loads, run_free)
        if result.loads is not None:
            program.go_on(asked, [start + at for at in result.loads.program])
        run_ends.append(run_free)
    end = max(now, loads.end(load_count), run_free)
    return ProgramCycles(end + counter_words(config.port_bits) + DONE, passes, waits)
