"""The fetchers of a load and their port in a jitted loop: when each word comes, and the end."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import allocating, u
from thresher.golden.cycles.latencies import (
    CHUNK,
    COMPACT_CHUNK,
    FIRST_REQUEST,
    HELD,
    READ_AHEAD,
    TAKEN,
    TO_PORT,
    TO_WORD,
)
from thresher.golden.cycles.state import FAR

__all__ = ["fetch"]


@allocating
def fetch(needs, starts, cycles, port_bits, compact, latency):
    """Let all columns fetch their streams at once, a word a cycle, each in turn.

    Parameters
    ----------
    needs
        The cycle in which each chunk is needed, see :func:`read_stream`; columns one after another.
    starts
        First chunk of each column, shape (P + 1,).
    cycles
        Of each column, if it never waits: shape (P,).
    port_bits, compact, latency
        Of the port; whether the loader is a compact one; of the memory.

    Returns
    -------
    end, grants
        From the start pulse to the last write; when each word takes the port, in order.
    """
    size = cycles.size
    chunks = port_bits // (COMPACT_CHUNK if compact else CHUNK)
    way = TO_PORT + latency + TO_WORD
    total = np.int64(0)
    for column in range(size):
        total += (starts[column + 1] - starts[column] + chunks - 1) // chunks
    grants = np.zeros(total, np.int64)

    # Of each column: its next chunk, when it asks, how late it is, when its last chunk went into
    # the window's queue and its last ones were used, and when the last words left the fetcher.
    next_chunk = starts[:size].copy()
    asks = np.full(size, FIRST_REQUEST)
    late = np.zeros(size, np.int64)
    queued = np.zeros(size, np.int64)
    used = np.zeros((size, HELD), np.int64)
    taken = np.full((size, READ_AHEAD), -TAKEN)
    words = np.zeros(size, np.int64)
    for column in range(size):
        if starts[column] == starts[column + 1]:
            asks[column] = FAR

    at = turn = 0
    for number in range(total):
        # The first that asks after the last one served.
        at += 1
        column, nearest = -1, FAR
        for _ in range(size):
            turn = turn + 1 if turn + 1 < size else 0
            ask = int(asks[u(turn)])
            if ask <= at:
                column, nearest = turn, at
                break
            if ask < nearest:
                column, nearest = turn, ask
        at, turn = nearest, column
        grants[u(number)] = at

        # The word goes into the window chunk by chunk.
        begin = starts[column]
        word = words[column]
        accepted = max(at + way, queued[column] + (1 if compact and word else 0))
        taken[column, word % READ_AHEAD] = accepted
        words[column] = word + 1
        put, lag = max(queued[column], accepted), late[column]
        chunk = next_chunk[column]
        stop = min(chunk + chunks, starts[column + 1])
        while chunk < stop:
            need = needs[u(chunk)]
            put += 1
            if compact:
                put = max(put, need + lag - 1)
            elif chunk - begin >= HELD - 1:
                put = max(put, used[column, (chunk - begin - HELD + 1) % HELD] + 1)
            use = max(need + lag, put + 1)
            lag = use - need
            used[column, (chunk - begin) % HELD] = use
            chunk += 1
        queued[column], late[column], next_chunk[column] = put, lag, chunk
        asks[column] = max(at + 1, taken[column, (word + 1) % READ_AHEAD] + TAKEN)
        if chunk == starts[column + 1]:
            asks[column] = FAR
    end = np.int64(0)
    for column in range(size):
        end = max(end, cycles[column] + late[column])
    return end, grants
