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
    BASE,
    CHANNEL,
    COMPLETED,
    CONTINUED,
    DRAINED,
    FILLED,
    FREE_AT,
    KNOWN,
    NEVER,
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
    least_repeated,
    load,
    load_rows,
    low_bits,
    lowest_place,
    maximum,
    minimum,
    narrow,
    repeated,
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
def _first_token(token, known, ring, tokens, wide, at, fifos):
    """Return a token, from ``token`` on, before which all are over in cycle ``at``.

    Of those behind it, before ``known``, at most ``wide`` have begun then.
    """
    while known - token > wide:
        middle = token + known >> 1
        if fifos[u(ring + TOKEN_FIELDS * (middle & tokens - 1))] > at:
            known = middle
        else:
            token = middle
    return token


@inlined
def _find_busy(bank, token, known, ring, start_of_window, run, state):
    """Return in which of WINDOW cycles taps add to a bank and to the next one, a bit each.

    Those of an element's tokens from ``token`` to ``known``, as many at a time as a vector has
    places; also the first token that is not over then.
    """
    fifos, tokens, planes, banks = state.fifos, state.tokens, run.planes, run.banks
    places, wide = vector(state.places), len(state.places)
    one = another = low_bits(spread(0, places))
    block, over = token, np.int64(wide)
    while block < known and over == wide:
        # None of them beyond the ring's end.
        block -= max(0, (block & tokens - 1) + wide - tokens)
        when, start, count, mark = load_rows(
            fifos, ring + TOKEN_FIELDS * (block & tokens - 1), places
        )
        begin = when - start_of_window
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
    return u(all_bits(one)), u(all_bits(another)), token


@inlined
def _learn_free(lane, column, base, run, state):
    """Learn of an element in which of WINDOW cycles from ``base`` on no tap adds to each bank.

    Of the tokens that have been taken; what is known of those before is kept.
    """
    south, free, tokens, wide = state.south, state.free, state.tokens, len(state.places)
    late = ADD + run.channels.size - 1 - lane
    e, ring = column * SOUTH_FIELDS * wide + lane, (column * wide + lane) * state.ring
    slot = column * len(state.drains) + lane
    passed = base - south[u(e + BASE * wide)]
    keeps = 0 <= passed < WINDOW

    # Tokens that may add then: behind those that are over, or among all.
    row = lane * ROW_FIELDS * wide + column
    filled = np.int64(state.east[u(row + FILLED * wide)])
    known = filled - state.east[u(row + WAITING * wide)]
    first = max(0, filled - tokens + wide)
    if passed >= 0:
        first = max(first, south[u(e + TOKEN * wide)])
    if not keeps:
        first = _first_token(first, known, ring, tokens, wide, base - late, state.fifos)
    token = first
    for bank in range(0, run.banks, 2):
        one, another, token = _find_busy(bank, first, known, ring, base - late, run, state)
        for mine, busy in ((bank, one), (bank + 1, another)):
            if mine < run.banks:
                at = u(slot + mine * wide)
                kept = free[at] >> u(passed) | ~(~u(0) >> u(passed)) if keeps else ~u(0)
                free[at] = kept & ~busy
    south[u(e + BASE * wide)], south[u(e + KNOWN * wide)] = base, known
    south[u(e + TOKEN * wide)] = token


@inlined
def _begins(column, row, run, state):
    """Return when the first word of each reader's row can be read."""
    places = vector(state.places)
    slot = (row & state.rows - 1) + column * state.rows
    return gather(state.done, slot * len(state.places) + repeated(places, row))


@inlined
def _enter_rows(column, crossing, step, run, state):
    """Let the readers in ``crossing`` leave their rows: their next words are those of ``step``."""
    readers, gone = state.readers, state.gone
    wide, drains, rows = len(state.places), len(state.drains), state.rows
    r = column * READER_FIELDS * drains
    while crossing:
        reader = lowest_place(crossing)
        crossing &= crossing - 1
        row, word = np.int64(readers[u(r + B_ROW * drains + reader)]), step + reader // wide
        while word >= (row + 1) * run.row_size:
            slot = u((column * rows + (row & rows - 1)) * wide + reader % wide)
            gone[slot] = max(gone[slot], readers[u(r + B_LAST * drains + reader)])
            row += 1
        readers[u(r + B_ROW * drains + reader)] = row


@inlined
def _take_words(column, limit, end, run, state):
    """Let a column's readers go on until ``end``, each to words before its lane's ``limit``.

    Those at words of the same step take them at a time, each when its row is complete, the queue
    has a place, and no addition goes to the bank. Returns from when on it is to be known of each
    lane when that is; NEVER: it is known.
    """
    readers, ready, gave_way = state.readers, state.ready, state.gave_way
    bank, wide, drains = vector(state.drains), len(state.places), len(state.drains)
    banks, queue = run.banks, ready.size // (run.channels.size * wide)
    r = column * READER_FIELDS * drains
    step, row = load(readers, r + B_WORD * drains, bank), load(readers, r + B_ROW * drains, bank)
    last, begins = load(readers, r + B_LAST * drains, bank), _begins(column, row, run, state)
    row_end = (row + 1) * run.row_size - bank
    limits = repeated(limit, bank) - bank
    base = repeated(
        load(state.south, (column * SOUTH_FIELDS + BASE) * wide, vector(state.places)), bank
    )
    stop = minimum(base + WINDOW, end)
    free = load(state.free, column * drains, bank) & low_bits(stop - base)
    unknown = spread(NEVER, bank)
    next_step = smallest(where(step < limits, step, NEVER))
    while next_step < NEVER:
        here = (step == next_step) & (step < limits)
        place = (column * queue + (next_step & queue - 1)) * wide
        at = maximum(maximum(last, begins - 1), load(gave_way, place, bank)) + 1
        left = shifted_down(free, unsigned_minimum(at - base, 63))
        some = narrow(left != 0)
        found = here & some
        later = where(at < base, at, maximum(at, stop))
        at = where(some, at + narrow(trailing_zeros(left)), later)
        last = where(here, at + where(some, 0, -1), last)
        unknown = where(here & (some == 0) & (at < end), at, unknown)
        store(ready, place, where(found, at + SEND, load(ready, place, bank)))
        step = where(found, step + banks, step)
        next_step += banks
        crossing = holds_in(found & (step >= row_end))
        if crossing:
            store(readers, r + B_LAST * drains, last)
            _enter_rows(column, crossing, next_step, run, state)
            row = load(readers, r + B_ROW * drains, bank)
            begins, row_end = _begins(column, row, run, state), (row + 1) * run.row_size - bank
        if not any_of((step >= next_step) & (step < limits)):
            break
    store(readers, r + B_WORD * drains, step)
    store(readers, r + B_LAST * drains, last)
    return least_repeated(unknown, vector(state.places))


@inlined
def _read_column(column, limit, known, end, run, state):
    """Let the readers of a column go on until ``end``, each to words before its lane's ``limit``.

    ``known`` are the tokens that each element's walker has taken.
    """
    south, places, bank = state.south, vector(state.places), vector(state.drains)
    wide, drains = len(state.places), len(state.drains)
    e = column * SOUTH_FIELDS * wide
    step = load(state.readers, (column * READER_FIELDS + B_WORD) * drains, bank)
    wants = least_repeated(step + bank - repeated(limit, bank), places) < 0
    if not any_of(wants):
        return
    was, knew = load(south, e + BASE * wide, places), load(south, e + KNOWN * wide, places)
    unknown = where(wants & ((was + WINDOW < end) | (knew != known)), end, NEVER)
    bases = minimum(unknown, maximum(was, end - WINDOW))
    while True:
        lanes = holds_in(unknown < NEVER)
        store(south, e + ASKED * wide, bases)
        while lanes:
            lane = lowest_place(lanes)
            lanes &= lanes - 1
            _learn_free(lane, column, np.int64(south[u(e + ASKED * wide + lane)]), run, state)
        unknown = _take_words(column, limit, end, run, state)
        if not any_of(unknown < NEVER):
            break
        bases = minimum(unknown, end - WINDOW)


@inlined
def _read(run, state, end, some, have, held):
    """Let the readers of the columns in ``some`` go on until ``end``.

    A walker that waits for a row goes on behind it. ``have`` are the words that all elements of a
    column have, ``held`` says whether a walker of it waits.
    """
    size, row_size = run.channels.size, run.row_size
    south, east, readers = state.south, state.east, state.readers
    places, bank = vector(state.places), vector(state.drains)
    wide, drains = len(state.places), len(state.drains)
    queue = state.ready.size // (size * wide)
    lanes = minimum(places, size - 1) * (ROW_FIELDS * wide)
    for column in range(size):
        if not some[column]:
            continue
        most = state.columns[column, SENT] + queue
        e, r = column * SOUTH_FIELDS * wide, column * READER_FIELDS * drains
        while True:
            waiting = gather(east, lanes + (WAITING * wide + column))
            known = gather(east, lanes + (FILLED * wide + column)) - waiting
            completed = load(south, e + COMPLETED * wide, places)
            drained = load(south, e + DRAINED * wide, places)
            limit = minimum(completed * row_size, most)
            # What is added behind a row for which a walker waits is not known yet.
            limit = where(waiting > 0, minimum(limit, (drained + 1) * row_size), limit)
            _read_column(column, limit, known, end, run, state)
            rows = least_repeated(load(readers, r + B_ROW * drains, bank), places)
            rows = minimum(rows, completed)
            store(south, e + DRAINED * wide, rows)
            walkers = holds_in((rows > drained) & (waiting > 0))
            if walkers == 0:
                break
            while walkers:
                lane = lowest_place(walkers)
                walkers &= walkers - 1
                walk(lane, column, run, state)
        held[column] = any_of(waiting > 0)
        words = least_repeated(load(readers, r + B_WORD * drains, bank) + bank, places)
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
    places, wide = vector(state.places), len(state.places)
    window = ready.size // (run.channels.size * wide)
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
            place = (column * window + (sent & window - 1)) * wide
            at = max(next_at, largest(load(ready, place, places)))
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
            store(gave_way, place, spread(at, places))
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
