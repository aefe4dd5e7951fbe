"""Columns in jitted loops: the drains of their elements, and the words that they send south."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numba
import numpy as np

from thresher.golden.cycles.lanes import walk
from thresher.golden.cycles.latencies import ADD, FIRST_READ, NOTHING_FREE, RING_FREE, SEND
from thresher.golden.cycles.script import MOST_SKIPPED
from thresher.golden.cycles.state import (
    B_END,
    B_LAST,
    B_ROW,
    B_TOKEN,
    B_WORD,
    CHANNEL,
    COMPLETED,
    COUNT,
    DRAINED,
    FILLED,
    NEXT,
    PART,
    QUEUED,
    ROW_NUMBER,
    SENT,
    W_TAIL,
    WAITING,
    X,
    Y,
)

__all__ = ["advance_columns"]

FEW = 4  # tokens that are looked at one by one


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _read(run, state, end, some, have, held):
    """Let the readers of the columns in ``some`` go on until ``end``.

    A word is read when its row is complete, the queue has a place, and no addition goes to its
    bank. A walker that waits for a row goes on behind it. ``have`` are the words that all elements
    of a column have, ``held`` says whether a walker of it waits.
    """
    size, banks, row_size, ring_rows = run.channels.size, run.banks, run.row_size, run.ring_rows
    skips, elements, readers = run.skips, state.elements, state.readers
    taps = skips.size // banks
    times, whats, done, gone = state.times, state.whats, state.done, state.gone
    ready, gave_way = state.ready, state.gave_way
    tokens, rows = times.size // (size * size), done.size // (size * size)
    window = ready.size // size
    for column in range(size):
        if not some[column]:
            continue
        first_place = column * window
        most = state.columns[column, SENT] + window
        have[column] = most
        held[column] = False
        for lane in range(size):
            element = lane * size + column
            late = ADD + size - 1 - lane
            while elements[lane, column, DRAINED] < elements[lane, column, COMPLETED]:
                waits = elements[lane, column, WAITING]
                known = elements[lane, column, FILLED] - waits
                drained = elements[lane, column, COMPLETED]
                limit = min(drained * row_size, most)
                if waits:  # what is added behind this row is not known yet
                    limit = min(limit, (elements[lane, column, DRAINED] + 1) * row_size)
                for bank in range(banks):
                    word, row = readers[element, bank, B_WORD], readers[element, bank, B_ROW]
                    if word >= limit:
                        drained = min(drained, row)
                        continue
                    row_end, now = readers[element, bank, B_END], readers[element, bank, B_LAST]
                    row_slot = element * rows + (row & rows - 1)
                    now = max(now, done[row_slot] - 1)
                    # The first token that may add after that; the reader may have rested.
                    token = max(readers[element, bank, B_TOKEN], known - tokens + 1)
                    above = known
                    while above - token > FEW:
                        middle = token + above >> 1
                        if times[element * tokens + (middle & tokens - 1)] + late > now:
                            above = middle
                        else:
                            token = middle
                    begin = over = now  # of the token's taps, if it has some
                    what = np.int64(0)
                    while word < limit:
                        place = first_place + (word & window - 1)
                        at = max(now, gave_way[place]) + 1
                        while True:
                            while (
                                at >= over and token < known
                            ):  # of which taps are added now or later
                                slot = element * tokens + (token & tokens - 1)
                                what, begin = whats[slot], times[slot] + late
                                over = begin + (what >> 3 & COUNT if what > 0 else 0)
                                token += 1
                            if at < begin or at >= over or not what & 1:
                                break
                            turned = (bank - (what >> 1) & banks - 1) * taps
                            skip = np.int64(skips[turned + (what >> 20) + at - begin])
                            at = min(at + skip, over)
                            if at < over and skip < MOST_SKIPPED:
                                break
                        if at >= end:
                            now = at - 1
                            break
                        now = at
                        ready[place] = max(ready[place], at + SEND)
                        word += banks
                        while word >= row_end:
                            gone[row_slot] = max(gone[row_slot], at)
                            row += 1
                            row_end += row_size
                            row_slot = element * rows + (row & rows - 1)
                            if word < limit:
                                now = max(now, done[row_slot] - 1)
                    readers[element, bank, B_WORD], readers[element, bank, B_ROW] = word, row
                    readers[element, bank, B_END], readers[element, bank, B_LAST] = row_end, now
                    readers[element, bank, B_TOKEN] = token - (now < over)
                    drained = min(drained, row)
                if drained == elements[lane, column, DRAINED]:
                    break
                elements[lane, column, DRAINED] = drained
                if not waits:
                    break
                walk(lane, column, ring_rows, elements, times, whats, done, gone)
            held[column] = held[column] or elements[lane, column, WAITING] > 0
            for bank in range(banks):
                have[column] = min(have[column], readers[element, bank, B_WORD])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _send(run, state, end, some, have, held):
    """Send what all elements of the columns in ``some`` have; keep those that need more."""
    row_size, pooled = run.row_size, run.pool_x.size > 0
    columns, queue, writers = state.columns, state.queue, state.writers
    ready, gave_way = state.ready, state.gave_way
    pool_y, pool_x, out_words = run.pool_y, run.pool_x, run.out_words
    window = ready.size // run.channels.size
    for column in range(some.size):
        if not some[column]:
            continue
        channels = run.channels[column]
        begin = sent = columns[column, SENT]
        next_at, part = columns[column, NEXT], columns[column, PART]
        channel, x, row = columns[column, CHANNEL], columns[column, X], columns[column, ROW_NUMBER]
        tail = writers[column, W_TAIL]
        while sent < have[column]:
            place = column * window + (sent & window - 1)
            at = max(next_at, ready[place])
            if at >= end:
                break
            gave_way[place] = at
            ready[place] = 0
            sent += 1
            next_at = at + 1

            # The row's coded words wait for the port, evenly among its sums.
            part += out_words[column, row]
            while part >= row_size:
                part -= row_size
                queue[column, tail % QUEUED] = 2 * (at + run.through)
                tail += 1

            if channel < channels:
                next_at = at + run.output_cycles
                if pooled:
                    next_at = at + max(run.output_cycles, pool_x[x] * pool_y[columns[column, Y]])
            channel += 1
            if pooled and channel == channels and x == run.out_width - 1:
                next_at += run.pool_rest[columns[column, Y]]
            if channel == run.positions_n:
                channel = 0
                x += 1
                if x == run.out_width:
                    x = 0
                    for _ in range(run.out_headers[row]):
                        queue[column, tail % QUEUED] = 2 * (at + run.through + 1) + 1
                        tail += 1
                    row += 1
                    columns[column, Y] += 1
                    if columns[column, Y] == pool_y.size:
                        columns[column, Y] = 0
        columns[column, SENT], columns[column, NEXT], columns[column, PART] = sent, next_at, part
        columns[column, CHANNEL], columns[column, X], columns[column, ROW_NUMBER] = channel, x, row
        writers[column, W_TAIL] = tail
        some[column] = begin < sent and (held[column] or sent == have[column])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def advance_columns(run, state, end):
    """Let the drains of all columns and their outputs go on until ``end``."""
    size, ring_rows, channels = run.channels.size, run.ring_rows, run.channels
    elements, times, whats = state.elements, state.times, state.whats
    done, gone = state.done, state.gone
    rows = done.size // (size * size)
    some = np.zeros(size, np.bool_)
    for column in range(size):
        if channels[column] == 0:  # nothing to read
            for lane in range(size):
                while elements[lane, column, DRAINED] < elements[lane, column, COMPLETED]:
                    row = elements[lane, column, DRAINED] & rows - 1
                    row += (lane * size + column) * rows
                    gone[row] = done[row] - FIRST_READ + NOTHING_FREE - RING_FREE
                    elements[lane, column, DRAINED] += 1
                    walk(lane, column, ring_rows, elements, times, whats, done, gone)
            continue
        for lane in range(size):
            complete = elements[lane, column, COMPLETED] * run.row_size
            some[column] = some[column] or complete > state.columns[column, SENT]
    have = np.zeros(size, np.int64)
    held = np.zeros(size, np.bool_)
    while some.any():
        _read(run, state, end, some, have, held)
        _send(run, state, end, some, have, held)
