"""Columns in jitted loops: the drains of their elements, and the words that they send south."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

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
from thresher.golden.cycles.script import LONGEST
from thresher.golden.cycles.state import (
    B_END,
    B_LAST,
    B_ROW,
    B_TOKEN,
    B_WORD,
    CHANNEL,
    COMPLETED,
    CONTINUED,
    COUNT,
    DRAINED,
    ELEMENT_SIZE,
    FAR,
    FILLED,
    FREE_AT,
    NEXT,
    O_ASKED,
    O_HERE,
    O_LEFT,
    O_PART,
    O_TAKEN,
    O_TOTAL,
    OPERANDS_KEPT,
    PADDING,
    PART,
    QUEUED,
    READER_SIZE,
    ROW_NUMBER,
    SENT,
    W_TAIL,
    WAITING,
    X,
    Y,
)

__all__ = ["advance_columns"]

FEW = 4  # tokens that are looked at one by one


@inlined
def _read(run, state, end, some, have, held):
    """Let the readers of the columns in ``some`` go on until ``end``.

    A word is read when its row is complete, the queue has a place, and no addition goes to its
    bank. A walker that waits for a row goes on behind it. ``have`` are the words that all elements
    of a column have, ``held`` says whether a walker of it waits.
    """
    size, banks, row_size, ring_rows = run.channels.size, run.banks, run.row_size, run.ring_rows
    spans, elements, readers = run.spans, state.elements, state.readers
    fifos, done, gone = state.fifos, state.done, state.gone
    ready, gave_way = state.ready, state.gave_way
    tokens, rows = state.tokens, state.rows
    window = ready.size // size
    for column in range(size):
        if not some[column]:
            continue
        first_place = column * window
        most = state.columns[column, SENT] + window
        least = most
        held[column] = False
        for lane in range(size):
            element = lane * (size + 1) + column
            e = element * ELEMENT_SIZE
            first_token, first_row = element * (tokens + PADDING), element * rows
            late = ADD + size - 1 - lane
            while elements[u(e + DRAINED)] < elements[u(e + COMPLETED)]:
                waits = elements[u(e + WAITING)]
                known = elements[u(e + FILLED)] - waits
                drained = elements[u(e + COMPLETED)]
                limit = min(drained * row_size, most)
                if waits:  # what is added behind this row is not known yet
                    limit = min(limit, (elements[u(e + DRAINED)] + 1) * row_size)
                for bank in range(banks):
                    reader = (element * banks + bank) * READER_SIZE
                    word, row = readers[u(reader + B_WORD)], readers[u(reader + B_ROW)]
                    if word >= limit:
                        drained = min(drained, row)
                        continue
                    row_end, now = readers[u(reader + B_END)], readers[u(reader + B_LAST)]
                    row_slot = u(first_row + (row & rows - 1))
                    now = max(now, done[row_slot] - 1)
                    # The first token that may add after that; the reader may have rested.
                    token = max(readers[u(reader + B_TOKEN)], known - tokens + 1)
                    above = known
                    while above - token > FEW:
                        middle = token + above >> 1
                        if fifos[u(2 * (first_token + (middle & tokens - 1)))] + late > now:
                            above = middle
                        else:
                            token = middle
                    # Of the token before that, its taps: the first one's cycle, the cycle after the
                    # last, and where the span of a cycle is found.
                    begin, over, base, turned = FAR, np.int64(0), np.int64(0), np.int64(0)
                    before = token
                    while word < limit:
                        place = u(first_place + (word & window - 1))
                        at = max(now, gave_way[place]) + 1
                        while True:
                            while at >= over and token < known:
                                slot = 2 * (first_token + (token & tokens - 1))
                                token += 1
                                what = fifos[u(slot + 1)]
                                if what > 0:
                                    begin = fifos[u(slot)] + late
                                    over = begin + (what >> 3 & COUNT)
                                    turned = bank - (what >> 1) & banks - 1
                                    base = (what >> 20) - begin
                                    if not what & 1:
                                        begin = FAR
                            if at < begin or at >= over:
                                break
                            skip = np.int64(spans[u(base + at)])
                            if skip & 3 != turned:
                                break
                            skip >>= 2
                            at = min(at + skip, over)
                            if at < over and skip < LONGEST:
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
                            row_slot = u(first_row + (row & rows - 1))
                            if word < limit:
                                now = max(now, done[row_slot] - 1)
                    if token > before and now < over:
                        token -= 1
                    readers[u(reader + B_WORD)], readers[u(reader + B_ROW)] = word, row
                    readers[u(reader + B_END)], readers[u(reader + B_LAST)] = row_end, now
                    readers[u(reader + B_TOKEN)] = token
                    drained = min(drained, row)
                if drained == elements[u(e + DRAINED)]:
                    break
                elements[u(e + DRAINED)] = drained
                if not waits:
                    break
                walk(element, size - 1 - lane, ring_rows, state)
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
    size, ring_rows, channels = run.channels.size, run.ring_rows, run.channels
    elements, done, gone, rows = state.elements, state.done, state.gone, state.rows
    some, have, held = state.some, state.have, state.held
    going = False
    for column in range(size):
        most = np.int64(0)
        for lane in range(size):
            element = lane * (size + 1) + column
            e = element * ELEMENT_SIZE
            if channels[column] == 0:  # nothing to read
                while elements[u(e + DRAINED)] < elements[u(e + COMPLETED)]:
                    row = u(element * rows + (elements[u(e + DRAINED)] & rows - 1))
                    gone[row] = done[row] - FIRST_READ + NOTHING_FREE - RING_FREE
                    elements[u(e + DRAINED)] += 1
                    walk(element, size - 1 - lane, ring_rows, state)
                continue
            most = max(most, elements[u(e + COMPLETED)])
        some[column] = most * run.row_size > state.columns[column, SENT]
        going = going or some[column]
    while going:
        _read(run, state, end, some, have, held)
        going = _send(run, state, end, some, have, held)
