"""Runs predicted on all cores, ahead of their turn in the program."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from thresher.golden.config import Config
from thresher.golden.cycles.runs import PortLoads, RunCycles
from thresher.golden.cycles.sequence import LoadStep, ProgramCycles, RunStep, sequence

__all__ = ["sequence_ahead"]

Predict = Callable[[int, PortLoads], RunCycles]


def sequence_ahead(
    steps: Sequence[LoadStep | RunStep], config: Config, *, latency: int = 4
) -> ProgramCycles:
    """Go through the records of a program, as :func:`sequence` does, with the same result.

    A run depends on those before it by the loads that share its port, and by nothing else. Which
    loads share it is first worked out with the guesses of the steps; all runs are predicted with
    that, by a thread a core, and a run is predicted again if it shares the port with others.

    Parameters
    ----------
    steps
        The records, without the END; ``predict`` is called by several threads.
    config
        The machine.
    latency
        Of the memory.
    """
    asked: list[tuple[int, PortLoads]] = []

    def guess(step: RunStep) -> RunStep:
        def predict(record: int, shared: PortLoads) -> RunCycles:
            asked.append((record, shared))
            return RunCycles(cycles=step.guess, walking=0)

        return replace(step, predict=predict)

    guesses = [guess(step) if isinstance(step, RunStep) else step for step in steps]
    sequence(guesses, config, latency=latency)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        given = iter(asked)

        def ahead(step: RunStep) -> RunStep:
            expected = next(given)
            future: Future[RunCycles] = threads.submit(step.predict, *expected)

            def predict(record: int, shared: PortLoads) -> RunCycles:
                if (record, shared) == expected:
                    return future.result()
                future.cancel()
                return step.predict(record, shared)

            return replace(step, predict=predict)

        taken = [ahead(step) if isinstance(step, RunStep) else step for step in steps]
        try:
            return sequence(taken, config, latency=latency)
        finally:
            threads.shutdown(cancel_futures=True)
