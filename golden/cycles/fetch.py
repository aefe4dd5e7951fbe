"""The weight fetchers and their loaders in jitted loops: when each word comes, and the end."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, PLR0917

from __future__ import annotations

from thresher.golden.cycles.compiled import compiled, u
from thresher.golden.cycles.latencies import (
    FIRST_REQUEST,
    HELD,
    READ_AHEAD,
    TAKEN,
    TO_PORT,
    TO_WORD,
)
from thresher.golden.cycles.state import (
    FAR,
    L_ASK,
    L_CHUNK,
    L_LATE,
    L_QUEUED,
    L_TAKEN,
    L_USED,
    L_WORD,
)

__all__ = ["begin_load", "fetch", "load_end", "serve"]


@compiled
def begin_load(at, starts, fetchers):
    """Start the load whose columns' chunks begin at ``starts``, shape (P + 1,), in cycle ``at``."""
    for column in range(fetchers.shape[0]):
        fetchers[column, :] = at
        fetchers[column, L_CHUNK] = starts[column]
        fetchers[column, L_WORD] = 0
        fetchers[column, L_ASK] = at + FIRST_REQUEST
        if starts[column] == starts[column + 1]:
            fetchers[column, L_ASK] = FAR
        for word in range(READ_AHEAD):
            fetchers[column, L_TAKEN + word] = at - TAKEN


@compiled
def serve(column, at, needs, starts, chunks, compact, latency, fetchers):
    """Grant a column's fetcher the port in cycle ``at``: its word goes to the loader's window.

    ``chunks`` are those of a word; ``compact`` says that the loader is a compact one.
    """
    begin, stop = starts[column], starts[column + 1]
    word, put, late = (
        fetchers[column, L_WORD],
        fetchers[column, L_QUEUED],
        fetchers[column, L_LATE],
    )
    accepted = max(at + TO_PORT + latency + TO_WORD, put + (1 if compact and word else 0))
    fetchers[column, L_TAKEN + word % READ_AHEAD] = accepted
    put = max(put, accepted)
    chunk = fetchers[column, L_CHUNK]
    stop = min(stop, chunk + chunks)
    while chunk < stop:
        need = needs[u(chunk)]
        put += 1
        if compact:
            put = max(put, need + late - 1)
        elif chunk - begin >= HELD - 1:
            put = max(put, fetchers[column, L_USED + (chunk - begin - HELD + 1) % HELD] + 1)
        use = max(need + late, put + 1)
        late = use - need
        fetchers[column, L_USED + (chunk - begin) % HELD] = use
        chunk += 1
    word += 1
    fetchers[column, L_WORD], fetchers[column, L_QUEUED] = word, put
    fetchers[column, L_LATE], fetchers[column, L_CHUNK] = late, chunk
    ask = max(at + 1, fetchers[column, L_TAKEN + word % READ_AHEAD] + TAKEN)
    fetchers[column, L_ASK] = FAR if chunk == starts[column + 1] else ask


@compiled
def load_end(cycles, fetchers):
    """Return when the last write of a load is; FAR if words are to be fetched.

    ``cycles`` are those of each column if it never waits.
    """
    end = fetchers[0, L_LATE]
    for column in range(cycles.size):
        if fetchers[column, L_ASK] != FAR:
            return FAR
        end = max(end, fetchers[column, L_LATE] + cycles[column])
    return end


@compiled
def fetch(begin, until, needs, starts, chunks, compact, latency, fetchers, program, grants):
    """Let the fetchers have the port for themselves from ``begin`` to ``until``.

    Each in turn, a word a cycle; behind them the program, whose words are asked for in the cycles
    ``program``. ``grants``, if it has room, takes the cycles of the load's words. Returns their
    number.
    """
    size = fetchers.shape[0]
    count = turn = taken = 0
    at = begin
    while True:
        # The first that asks after the last one served.
        column, nearest = -1, FAR
        for _ in range(size + 1):
            turn = turn + 1 if turn < size else 0
            if turn < size:
                ask = int(fetchers[turn, L_ASK])
            else:
                ask = int(program[taken]) if taken < program.size else FAR
            if ask <= at:
                column, nearest = turn, at
                break
            if ask < nearest:
                column, nearest = turn, ask
        if nearest >= until:
            return count
        at, turn = nearest, column
        if column == size:
            taken += 1
            at += 1
            continue
        if count < grants.size:
            grants[count] = at
        count += 1
        serve(column, at, needs, starts, chunks, compact, latency, fetchers)
        at += 1
