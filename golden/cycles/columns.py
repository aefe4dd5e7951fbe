"""Columns in jitted loops: the drains of their elements, and the words that they send south."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc,call-arg"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from thresher.golden.cycles.compiled import inlined, u
from thresher.golden.cycles.lanes import walk
from thresher.golden.cycles.latencies import (
    ADD,
    FIRST_READ,
    NOTHING_FREE,
    POOL_RESULT,
    POOL_SENT,
    REQUANTISER,
    RING_FREE,
    SEND,
    SOUTH,
)
from thresher.golden.cycles.state import (
    B_END,
    B_LAST,
    B_ROW,
    B_WORD,
    BANKS,
    BASE,
    CHANNEL,
    COMPLETED,
    CONTINUED,
    COUNT,
    DRAINED,
    FAR,
    FIFO,
    FILLED,
    FREE_AT,
    KNOWN,
    NEXT,
    O_ASKED,
    O_HERE,
    O_LEFT,
    O_PART,
    O_TAKEN,
    O_TOTAL,
    OPERANDS_KEPT,
    PART,
    QUEUED,
    READER_SIZE,
    ROW_NUMBER,
    SENT,
    STOP,
    TOKEN,
    TURN,
    W_TAIL,
    WAITING,
    X,
    Y,
)

__all__ = ["advance_columns"]

FEW = 4  # tokens that are looked at one by one
WINDOW = 57  # cycles of which a bit each is kept: those of a word of a plane


@inlined
def _find_free(lane, column, base, stop, known, run, state):
    """Keep of an element in which cycles no tap adds to each bank, a bit a cycle.

    Those from ``base`` to ``stop``, at most WINDOW. ``known`` tokens have been taken.
    """
    elements, planes = state.elements, run.planes
    banks, tokens, size = run.banks, state.tokens, run.channels.size
    element, late = lane * (size + 1) + column, ADD + size - 1 - lane
    e = element * state.stride

    # The first token that may add then: behind those of the cycles before, or among all.
    token = max(0, elements[u(e + FILLED)] - tokens + 1)
    if base >= elements[u(e + STOP)]:
        token = max(token, elements[u(e + TOKEN)])
    above = known
    while above - token > FEW:
        middle = token + above >> 1
        if elements[u(e + FIFO + 2 * (middle & tokens - 1))] + late > base:
            above = middle
        else:
            token = middle
    cycles, first = stop - base, token
    for bank in range(0, banks, 2):
        free = another = ~u(0)
        token = first
        while token < known:
            slot = e + FIFO + 2 * (token & tokens - 1)
            begin = elements[u(slot)] + late - base
            if begin >= cycles:
                break
            what = elements[u(slot + 1)]
            end = begin + (what >> 3 & COUNT)
            if what & 1 and end > 0:
                skipped = max(0, -begin)
                tap = (what >> 20) + skipped
                shift = u(tap & 7)
                some = ~(~u(0) << u(min(WINDOW, end - begin - skipped)))
                word, turned = (tap >> 3) * banks, bank - (what >> 1)
                adds = planes[u(word + (turned & banks - 1))] >> shift & some
                free &= ~(adds << u(begin + skipped))
                adds = planes[u(word + (turned + 1 & banks - 1))] >> shift & some
                another &= ~(adds << u(begin + skipped))
            if end >= cycles:
                break
            token += 1
        state.free[u(element * BANKS + bank)] = free
        state.free[u(element * BANKS + bank + 1)] = another
    elements[u(e + BASE)], elements[u(e + STOP)] = base, stop
    elements[u(e + KNOWN)], elements[u(e + TOKEN)] = known, token


@inlined
def _read(run, state, end, some, have, held):
    """Let the readers of the columns in ``some`` go on until ``end``.

    A word is read when its row is complete, the queue has a place, and no addition goes to its
    bank. A walker that waits for a row goes on behind it. ``have`` are the words that all elements
    of a column have, ``held`` says whether a walker of it waits.
    """
    size, banks, row_size = run.channels.size, run.banks, run.row_size
    elements, readers, done, gone = state.elements, state.readers, state.done, state.gone
    ready, gave_way = state.ready, state.gave_way
    rows = state.rows
    queue = ready.size // size
    for column in range(size):
        if not some[column]:
            continue
        first_place = column * queue
        most = state.columns[column, SENT] + queue
        least = most
        held[column] = False
        for lane in range(size):
            element = lane * (size + 1) + column
            e = element * state.stride
            first_row = element * rows
            while elements[u(e + DRAINED)] < elements[u(e + COMPLETED)]:
                waits = elements[u(e + WAITING)]
                known = elements[u(e + FILLED)] - waits
                drained = elements[u(e + COMPLETED)]
                limit = min(drained * row_size, most)
                if waits:  # what is added behind this row is not known yet
                    limit = min(limit, (elements[u(e + DRAINED)] + 1) * row_size)
                base, stop = elements[u(e + BASE)], elements[u(e + STOP)]
                if known != elements[u(e + KNOWN)]:
                    base = FAR
                for bank in range(banks):
                    reader = (element * banks + bank) * READER_SIZE
                    word, row = readers[u(reader + B_WORD)], readers[u(reader + B_ROW)]
                    if word >= limit:
                        drained = min(drained, row)
                        continue
                    row_end, now = readers[u(reader + B_END)], readers[u(reader + B_LAST)]
                    row_slot = u(first_row + (row & rows - 1))
                    now = max(now, done[row_slot] - 1)
                    free = state.free[u(element * BANKS + bank)]
                    while word < limit:
                        place = u(first_place + (word & queue - 1))
                        at = max(now, gave_way[place]) + 1
                        if at >= end:
                            now = at - 1
                            break
                        if at < base or at >= stop:
                            base = min(at, end - TURN)
                            stop = min(base + WINDOW, end)
                            _find_free(lane, column, base, stop, known, run, state)
                            free = state.free[u(element * BANKS + bank)]
                        left = free >> u(at - base) & ~(~u(0) << u(stop - at))
                        if left == 0:
                            now = stop - 1
                            continue
                        now = at + np.int64(trailing_zeros(left))
                        ready[place] = max(ready[place], now + SEND)
                        word += banks
                        while word >= row_end:
                            gone[row_slot] = max(gone[row_slot], now)
                            row += 1
                            row_end += row_size
                            row_slot = u(first_row + (row & rows - 1))
                            if word < limit:
                                now = max(now, done[row_slot] - 1)
                    readers[u(reader + B_WORD)], readers[u(reader + B_ROW)] = word, row
                    readers[u(reader + B_END)], readers[u(reader + B_LAST)] = row_end, now
                    drained = min(drained, row)
                if drained == elements[u(e + DRAINED)]:
                    break
                elements[u(e + DRAINED)] = drained
                if not waits:
                    break
                walk(lane, column, run, state)
            held[column] = held[column] or elements[u(e + WAITING)] > 0
            for bank in range(banks):
                least = min(least, readers[u((element * banks + bank) * READER_SIZE + B_WORD)])
        have[column] = least


@inlined
def _send(run, state, end, some, have, held):
    """Send what all elements of the columns in ``some`` have; keep those that need more.

    Returns whether some do.
    """
    row_size, pooled = run.row_size, run.pool_x.size > 0
    columns, queue, writers = state.columns, state.queue, state.writers
    ready, gave_way = state.ready, state.gave_way
    pool_y, pool_x, out_words = run.pool_y, run.pool_x, run.out_words
    adds, operands = run.operand_words.size > 0, state.operands
    window = ready.size // run.channels.size
    going = False
    for column in range(some.size):
        if not some[column]:
            continue
        channels = run.channels[column]
        begin = sent = columns[column, SENT]
        next_at, free_at, part = (
            columns[column, NEXT],
            columns[column, FREE_AT],
            columns[column, PART],
        )
        channel, x, row = columns[column, CHANNEL], columns[column, X], columns[column, ROW_NUMBER]
        tail = writers[column, W_TAIL]
        while sent < have[column]:
            place = column * window + (sent & window - 1)
            at = max(next_at, ready[place])
            if channel < channels:  # others are dropped
                at = max(at, free_at)
            if adds:
                # Its operand comes in time, or the column stands still.
                word = operands[column, O_TAKEN]
                if word < operands[column, O_ASKED]:
                    here = operands[column, O_HERE + word % OPERANDS_KEPT]
                    at = max(at, here - SOUTH - REQUANTISER)
                elif channel < channels and word < operands[column, O_TOTAL]:
                    break
            if at >= end:
                break
            gave_way[place] = at
            ready[place] = 0
            sent += 1
            next_at = at + 1

            if adds:
                waiting = operands[column, O_PART] + run.operand_words[column, row]
                while waiting >= row_size:
                    waiting -= row_size
                    word = operands[column, O_TAKEN]
                    operands[column, O_LEFT + word % OPERANDS_KEPT] = at + SOUTH + REQUANTISER
                    operands[column, O_TAKEN] = word + 1
                operands[column, O_PART] = waiting

            # The row's coded words wait for the port, evenly among its sums.
            part += out_words[column, row]
            while part >= row_size:
                part -= row_size
                queue[column, tail % QUEUED] = 2 * (at + run.through)
                tail += 1

            if channel < channels:
                free_at = at + run.output_cycles
                stalls = columns[column, CONTINUED] + run.out_continued[column, row]
                while stalls >= row_size:
                    stalls -= row_size
                    free_at += 1
                columns[column, CONTINUED] = stalls
                if pooled:
                    windows = pool_x[x] * pool_y[columns[column, Y]]
                    cycles = windows * run.pool_window
                    if windows > 1:
                        cycles += run.pool_several
                    free_at = at + max(run.output_cycles, cycles)
            channel += 1
            if pooled and channel == channels:
                free_at += run.pool_place
                if run.pool_ends[columns[column, Y]]:
                    free_at += run.pool_sends[x] * (POOL_RESULT * channels + POOL_SENT)
                if x == run.out_width - 1:
                    free_at += run.pool_rest[columns[column, Y]]
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
        columns[column, FREE_AT] = free_at
        columns[column, CHANNEL], columns[column, X], columns[column, ROW_NUMBER] = channel, x, row
        writers[column, W_TAIL] = tail
        some[column] = begin < sent and (held[column] or sent == have[column])
        going = going or some[column]
    return going


@inlined
def advance_columns(run, state, end):
    """Let the drains of all columns and their outputs go on until ``end``."""
    size, channels = run.channels.size, run.channels
    elements, done, gone, rows = state.elements, state.done, state.gone, state.rows
    some, have, held = state.some, state.have, state.held
    going = False
    for column in range(size):
        most = np.int64(0)
        for lane in range(size):
            element = lane * (size + 1) + column
            e = element * state.stride
            if channels[column] == 0:  # nothing to read
                while elements[u(e + DRAINED)] < elements[u(e + COMPLETED)]:
                    row = u(element * rows + (elements[u(e + DRAINED)] & rows - 1))
                    gone[row] = done[row] - FIRST_READ + NOTHING_FREE - RING_FREE
                    elements[u(e + DRAINED)] += 1
                    walk(lane, column, run, state)
                continue
            most = max(most, elements[u(e + COMPLETED)])
        some[column] = most * run.row_size > state.columns[column, SENT]
        going = going or some[column]
    while going:
        _read(run, state, end, some, have, held)
        going = _send(run, state, end, some, have, held)
