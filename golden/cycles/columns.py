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
from thresher.golden.cycles.state import (
    ASKED,
    B_LAST,
    B_ROW,
    B_WORD,
    BANKS,
    BASE,
    CHANNEL,
    COMPLETED,
    CONTINUED,
    DRAINED,
    FAR,
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
    READER_FIELDS,
    ROW_FIELDS,
    ROW_NUMBER,
    SENT,
    SOUTH_FIELDS,
    TOKEN,
    TOKEN_FIELDS,
    W_TAIL,
    WAITING,
    X,
    Y,
)
from thresher.golden.cycles.vectors import (
    all_bits,
    any_of,
    first_of,
    gather,
    gather_words,
    holds_in,
    largest,
    load,
    load_rows,
    low_bits,
    lowest_place,
    maximum,
    minimum,
    shifted_down,
    shifted_up,
    smallest,
    spread,
    store,
    trailing_zeros,
    unsigned_minimum,
    vector,
    where,
)

__all__ = ["advance_columns"]

WINDOW = 56  # cycles of which a bit each is kept: from any bit of a byte on, a word has one more


@inlined
def _learn_free(lane, column, base, run, state):
    """Learn of an element in which of WINDOW cycles from ``base`` on no tap adds to each bank.

    Of the tokens that have been taken; what is known of those before is kept.
    """
    south, fifos, free, tokens = state.south, state.fifos, state.free, state.tokens
    banks, planes = run.banks, run.planes
    places, wide = vector(state.places), len(state.places)
    late = ADD + run.channels.size - 1 - lane
    e, ring = column * SOUTH_FIELDS * wide + lane, (column * wide + lane) * state.ring
    slot = column * BANKS * wide + lane
    passed = base - south[u(e + BASE * wide)]
    keeps = 0 <= passed < WINDOW
    for bank in range(banks):
        mine = u(slot + bank * wide)
        free[mine] = free[mine] >> u(passed) | ~(~u(0) >> u(passed)) if keeps else ~u(0)

    # The first tokens that may add then: behind those that are over, or among all.
    row = lane * ROW_FIELDS * wide + column
    filled = np.int64(state.east[u(row + FILLED * wide)])
    known = filled - state.east[u(row + WAITING * wide)]
    token = max(0, filled - tokens + wide)
    if passed >= 0:
        token = max(token, south[u(e + TOKEN * wide)])
    above = token if keeps else known
    while above - token > wide:
        middle = token + above >> 1
        if fifos[u(ring + TOKEN_FIELDS * (middle & tokens - 1))] + late > base:
            above = middle
        else:
            token = middle

    first = token
    for bank in range(0, banks, 2):
        one = another = spread(0, places)
        block, over = first & -wide, np.int64(wide)
        while block < known and over == wide:
            when, start, count, mark = load_rows(
                fifos, ring + TOKEN_FIELDS * (block & tokens - 1), places
            )
            begin = when + (late - base)
            taken = places < known - block
            skipped = maximum(begin * -1, 0)
            taps = minimum(count - skipped, WINDOW)
            adds = taken & ((mark & 1) != 0) & (begin < WINDOW) & (taps > 0)
            tap = where(adds, start + skipped, 0)
            byte, shift, at = shifted_down(tap, 3), tap & 7, where(adds, begin + skipped, 0)
            these = low_bits(where(adds, taps, 0))
            turned = bank - shifted_down(mark, 1)
            words = gather_words(planes, byte + (turned & banks - 1) * run.plane)
            one = one | shifted_up(shifted_down(words, shift) & these, at)
            words = gather_words(planes, byte + (turned + 1 & banks - 1) * run.plane)
            another = another | shifted_up(shifted_down(words, shift) & these, at)
            over = first_of((begin + count >= WINDOW) | (taken == 0))
            token = block + over
            block += wide
        free[u(slot + bank * wide)] &= ~u(all_bits(one))
        free[u(slot + (bank + 1) * wide)] &= ~u(all_bits(another))
    south[u(e + BASE * wide)], south[u(e + KNOWN * wide)] = base, known
    south[u(e + TOKEN * wide)] = token


@inlined
def _read_bank(column, bank, limit, end, run, state):
    """Let the readers of a column's bank go on until ``end``, to words before ``limit``.

    All lanes that are at a word take it at a time, each when its row is complete, the queue has a
    place, and no addition goes to the bank. Returns from when on it is to be known of each lane
    when that is; FAR: of no cycle.
    """
    readers, done, gone, south = state.readers, state.done, state.gone, state.south
    ready, gave_way, places = state.ready, state.gave_way, vector(state.places)
    banks, row_size, rows, wide = run.banks, run.row_size, state.rows, len(state.places)
    queue = ready.size // run.channels.size
    r = (column * banks + bank) * READER_FIELDS * wide
    word, row = load(readers, r + B_WORD * wide, places), load(readers, r + B_ROW * wide, places)
    last = load(readers, r + B_LAST * wide, places)
    unknown = spread(FAR, places)
    going = word < limit
    if not any_of(going):
        return unknown
    next_word, next_row = smallest(where(going, word, FAR)), smallest(where(going, row, FAR))
    row_end = (next_row + 1) * row_size
    slot = (column * rows + (next_row & rows - 1)) * wide
    begins = load(done, slot, places)
    base = load(south, (column * SOUTH_FIELDS + BASE) * wide, places)
    stop = minimum(base + WINDOW, end)
    free = load(state.free, (column * BANKS + bank) * wide, places) & low_bits(stop - base)
    while True:
        here = (word == next_word) & (word < limit)
        place = u(column * queue + (next_word & queue - 1))
        at = maximum(maximum(last, begins - 1), gave_way[place]) + 1
        left = shifted_down(free, unsigned_minimum(at - base, 63))
        found = here & (left != 0)
        at = where(left != 0, at + trailing_zeros(left), where(at < base, at, maximum(at, stop)))
        last = where(here, at + where(found, 0, -1), last)
        unknown = where(here & (left == 0) & (at < end), at, unknown)
        ready[place] = max(ready[place], largest(where(found, at, -SEND)) + SEND)
        word = where(found, word + banks, word)
        next_word += banks
        while next_word >= row_end:
            left_at = load(gone, slot, places)
            store(gone, slot, where(found, maximum(left_at, at), left_at))
            next_row += 1
            row_end += row_size
            row = where(found, next_row, row)
            slot = (column * rows + (next_row & rows - 1)) * wide
            begins = load(done, slot, places)
        if not any_of((word >= next_word) & (word < limit)):
            break
    store(readers, r + B_WORD * wide, word)
    store(readers, r + B_ROW * wide, row)
    store(readers, r + B_LAST * wide, last)
    return unknown


@inlined
def _read_column(column, limit, known, end, run, state):
    """Let the readers of a column go on until ``end``, to words before ``limit``."""
    south, readers, places = state.south, state.readers, vector(state.places)
    wide, banks = len(state.places), run.banks
    r, e = column * banks * READER_FIELDS * wide, column * SOUTH_FIELDS * wide
    wants = spread(0, places)
    for bank in range(banks):
        word = load(readers, r + (bank * READER_FIELDS + B_WORD) * wide, places)
        wants = wants | (word < limit)
    if not any_of(wants):
        return
    was, knew = load(south, e + BASE * wide, places), load(south, e + KNOWN * wide, places)
    unknown = where(wants & ((was + WINDOW < end) | (knew != known)), end, FAR)
    bases = minimum(unknown, maximum(was, end - WINDOW))
    while True:
        lanes = holds_in(unknown < FAR)
        store(south, e + ASKED * wide, bases)
        while lanes:
            lane = lowest_place(lanes)
            lanes &= lanes - 1
            _learn_free(lane, column, south[u(e + ASKED * wide + lane)], run, state)
        unknown = _read_bank(column, 0, limit, end, run, state)
        for bank in range(1, banks):
            unknown = minimum(unknown, _read_bank(column, bank, limit, end, run, state))
        if not any_of(unknown < FAR):
            break
        bases = minimum(unknown, end - WINDOW)


@inlined
def _read(run, state, end, some, have, held):
    """Let the readers of the columns in ``some`` go on until ``end``.

    A walker that waits for a row goes on behind it. ``have`` are the words that all elements of a
    column have, ``held`` says whether a walker of it waits.
    """
    size, banks, row_size = run.channels.size, run.banks, run.row_size
    south, east, readers = state.south, state.east, state.readers
    places, wide = vector(state.places), len(state.places)
    lanes = minimum(places, size - 1) * (ROW_FIELDS * wide)
    for column in range(size):
        if not some[column]:
            continue
        most = state.columns[column, SENT] + state.ready.size // size
        e, r = column * SOUTH_FIELDS * wide, column * banks * READER_FIELDS * wide
        while True:
            waiting = gather(east, lanes + (WAITING * wide + column))
            known = gather(east, lanes + (FILLED * wide + column)) - waiting
            completed = load(south, e + COMPLETED * wide, places)
            drained = load(south, e + DRAINED * wide, places)
            limit = minimum(completed * row_size, most)
            # What is added behind a row for which a walker waits is not known yet.
            limit = where(waiting > 0, minimum(limit, (drained + 1) * row_size), limit)
            _read_column(column, limit, known, end, run, state)
            rows, words = completed, load(readers, r + B_WORD * wide, places)
            for bank in range(banks):
                at = r + bank * READER_FIELDS * wide
                rows = minimum(rows, load(readers, at + B_ROW * wide, places))
                words = minimum(words, load(readers, at + B_WORD * wide, places))
            store(south, e + DRAINED * wide, rows)
            walkers = holds_in((rows > drained) & (waiting > 0))
            if walkers == 0:
                break
            while walkers:
                lane = lowest_place(walkers)
                walkers &= walkers - 1
                walk(lane, column, run, state)
        held[column] = any_of(waiting > 0)
        have[column] = smallest(where(places < size, words, most))


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
    south, done, gone, rows = state.south, state.done, state.gone, state.rows
    some, have, held = state.some, state.have, state.held
    places, wide = vector(state.places), len(state.places)
    going = False
    for column in range(size):
        e = column * SOUTH_FIELDS * wide
        complete = load(south, e + COMPLETED * wide, places)
        some[column] = largest(complete) * run.row_size > state.columns[column, SENT]
        if channels[column] == 0:  # nothing to read
            some[column] = False
            for lane in range(size):
                drained = u(e + DRAINED * wide + lane)
                while south[drained] < south[u(e + COMPLETED * wide + lane)]:
                    row = u((column * rows + (south[drained] & rows - 1)) * wide + lane)
                    gone[row] = done[row] - FIRST_READ + NOTHING_FREE - RING_FREE
                    south[drained] += 1
                    walk(lane, column, run, state)
        going = going or some[column]
    while going:
        _read(run, state, end, some, have, held)
        going = _send(run, state, end, some, have, held)
