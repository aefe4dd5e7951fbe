"""The sequencer's time line: which records wait for which, and what shares the memory port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thresher.golden.config import Config
from thresher.golden.cycles.latencies import DONE, FIRST_WORD, READ_AHEAD, START
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


def _record_cycles(words: int, since_load: int, load: LoadCycles, config: Config) -> int:
    """Return the cycles for which a RUN's words are read.

    They are a word a cycle, being read ahead, unless a load has just started: while its first
    words are read at once, a word of the program comes in its turn among those of the columns.
    """
    per_word = config.port_bits // 64
    late = -(-words // per_word) - READ_AHEAD
    in_turn = min(late * (config.lanes + 1), load.burst - since_load)
    return max(words, in_turn + words % per_word)


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
    now = run_free = FIRST_WORD + latency
    loads_free = dispatch = 0
    started: list[tuple[int, LoadCycles]] = []
    load_ends: list[int] = []
    run_ends: list[int] = []
    passes: list[RunCycles] = []
    waits: list[int] = []
    for number, step in enumerate(steps):
        if isinstance(step, LoadStep):
            begin = max(now, loads_free, run_ends[step.needs - 1] if step.needs else 0)
            now = begin + step.words
            started.append((now, step.load))
            loads_free = now + step.load.cycles + 1
            load_ends.append(loads_free)
            continue
        # Its record is read when the run before it has left its place.
        begin = max(now, dispatch + START)
        record = step.words
        if started:
            since, load = started[-1]
            record = _record_cycles(step.words, begin - since, load, config)
        now = max(begin + record, run_free + step.held if step.held else 0)
        loaded = load_ends[step.needs - 1] if step.needs else 0
        dispatch = max(now, run_free, loaded)
        idle = dispatch if loaded >= now else max(loaded, begin)
        waits.append(max(0, idle - run_free))

        # Loads under way, and those that start while this runs.
        start = dispatch + START
        traffic = started[-1][1].traffic(started[-1][0] - start) if started else []
        begin, free, runs = now, loads_free, 0
        for after in steps[number + 1 :]:
            if isinstance(after, RunStep):
                runs += 1
                begin = max(begin, start) + after.words
                continue
            if runs > 1 or after.needs > len(run_ends):
                break
            begin = max(begin, free) + after.words
            traffic += after.load.traffic(begin - start)
            free = begin + after.load.cycles + 1
        result = step.predict(START, [span for span in traffic if span[1] > 0])
        passes.append(result)
        run_free = dispatch + result.cycles
        run_ends.append(run_free)
    cycles = max(now, loads_free, run_free) + counter_words(config.port_bits) + DONE
    return ProgramCycles(cycles, passes, waits)
