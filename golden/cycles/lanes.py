"""Lanes in jitted loops: decoder, token maker, and the tokens' way through a row of elements."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917, SIM109, PLR1714, PLW3301

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import compiled, inlined, u
from thresher.golden.cycles.latencies import FIRST_READ, RING_FREE
from thresher.golden.cycles.script import (
    BUBBLE,
    COMPLETE,
    COMPLETES,
    END_ROW,
    HIT,
    KIND,
    LAST,
    NEW_WORD,
    OPEN,
    REPEAT,
    ROW,
    TOKENS,
)
from thresher.golden.cycles.state import (
    AT,
    COMPLETED,
    CONTROL,
    COUNT,
    DECODED,
    DRAINED,
    FILLED,
    FREE,
    FREED,
    KEPT,
    MARK,
    OFFERED,
    OPENED,
    R_VISIT,
    R_WORDS,
    REPEATED,
    ROW_FIELDS,
    SOUTH_FIELDS,
    STAGE,
    T_COLUMN,
    T_ENTRY,
    T_TIME,
    TAKEN,
    TOKEN_FIELDS,
    VISIT,
    VISIT_HERE,
    VISIT_TAKEN,
    WAITING,
    WORD,
    WORD_HERE,
    WORD_OF_VISIT,
    WORD_TAKEN,
    WRITTEN,
)
from thresher.golden.cycles.vectors import (
    first_of,
    gather,
    largest,
    load,
    maximum,
    next_places,
    put_rows,
    running_maximum,
    store,
    vector,
    where,
)

__all__ = ["advance_lanes", "walk", "words_come"]


@compiled
def walk(lane, column, run, state):
    """Let an element's walker take what waits in its FIFO; it stops at a row not yet drained."""
    south, done, gone, rows = state.south, state.done, state.gone, state.rows
    east, fifos, tokens = state.east, state.fifos, state.tokens
    size, wide = run.channels.size, len(state.places)
    element, below = column * wide + lane, size - 1 - lane
    e, r = column * SOUTH_FIELDS * wide + lane, lane * ROW_FIELDS * wide + column
    now = np.int64(east[u(r + FREE * wide)])
    filled, waiting = np.int64(east[u(r + FILLED * wide)]), np.int64(east[u(r + WAITING * wide)])
    while waiting > 0:
        slot = element * state.ring + TOKEN_FIELDS * (filled - waiting & tokens - 1)
        at = max(fifos[u(slot)] + 1, now)
        count = np.int64(fifos[u(slot + COUNT)])
        if count == 0 and fifos[u(slot + MARK)] & COMPLETES:
            complete = np.int64(south[u(e + COMPLETED * wide)])
            row = u((column * rows + (complete & rows - 1)) * wide + lane)
            done[row] = at + FIRST_READ + below
            gone[row] = 0
            south[u(e + COMPLETED * wide)] = complete + 1
        elif count == 0:
            oldest = np.int64(south[u(e + OPENED * wide)]) - run.ring_rows
            if oldest >= 0:
                if oldest >= south[u(e + DRAINED * wide)]:
                    break
                row = u((column * rows + (oldest & rows - 1)) * wide + lane)
                at = max(at, gone[row] - below + RING_FREE)
            south[u(e + OPENED * wide)] += 1
        now = at + max(1, count)
        fifos[u(slot)] = at
        waiting -= 1
    east[u(r + WAITING * wide)] = waiting
    east[u(r + FREE * wide)] = now


@inlined
def _go_east(lane, column, at, entry, marks, run, state):
    """Let a token go east from ``column`` on until a full FIFO stops it.

    It was in the column before in cycle ``at``; both are returned for the column in which it stops.
    In a column it is accepted when the register there is free: its token went both ways. A walker
    that waits for nothing takes it at once, unless it is a marker (``marks``).
    """
    east, fifos, starts, tokens = state.east, state.fifos, run.starts, state.tokens
    size, wide = run.channels.size, len(state.places)
    places = vector(state.places)
    row = lane * ROW_FIELDS * wide
    accept, written = load(east, row, places), load(east, row + WRITTEN * wide, places)
    filled, waiting = (
        load(east, row + FILLED * wide, places),
        load(east, row + WAITING * wide, places),
    )
    free = load(east, row + FREE * wide, places)
    comes = places >= column
    stop = min(first_of((waiting >= run.fifo_depth) & comes), size)
    comes = comes & (places < stop)

    # Accepted a cycle after the column before, or later.
    own = maximum(written, next_places(accept)) - places
    arrived = running_maximum(where(comes, maximum(own, at + 1 - column), 0)) + places
    ring = (places * wide + lane) * state.ring
    before = gather(fifos, ring + (filled - run.fifo_depth & tokens - 1) * TOKEN_FIELDS)
    queued = maximum(arrived, before) + 1

    # Only what has taps, or marks, stays; a place behind the last is free.
    first = lane * run.pointers
    mark = run.entries[u(entry), 3]
    start = load(starts, (first + np.int64(run.entries[u(entry), 1])) * size, places)
    count = load(starts, (first + np.int64(run.entries[u(entry), 2])) * size, places) - start
    stays = comes & (count != 0)
    waits = waiting != 0
    if marks:
        stays, waits = comes, comes
    taken = maximum(queued + 1, free)
    slots = ring + (filled & tokens - 1) * TOKEN_FIELDS
    put_rows(fifos, slots, where(waits, queued, taken), start, count, mark)

    store(east, row, where(comes, arrived, accept))
    store(east, row + WRITTEN * wide, where(comes, queued, written))
    store(east, row + FREE * wide, where(stays & (waits == 0), taken + count, free))
    store(east, row + FILLED * wide, filled - stays)
    store(east, row + WAITING * wide, waiting - (stays & waits))
    if stop < size:
        at = largest(where(comes, arrived, at))
    return stop, at


@inlined
def _take_word(lane, ready, segments, visit_words, first_visit, lanes, history):
    """Let the decoder take a word; return when it can send the first item of it, -1: not here."""
    visit = lanes[lane, VISIT]
    if visit >= lanes[lane, R_VISIT]:
        return np.int64(-1)
    count = visit_words[first_visit[lane] + visit]
    word = max(history[lane, visit % KEPT, VISIT_HERE], lanes[lane, DECODED])
    if count:
        if lanes[lane, WORD] >= lanes[lane, R_WORDS]:
            return np.int64(-1)
        word = max(word, history[lane, lanes[lane, WORD] % KEPT, WORD_HERE])
        history[lane, lanes[lane, FREED] % KEPT, WORD_TAKEN] = word
        lanes[lane, FREED] += 1
        lanes[lane, WORD] += 1
        lanes[lane, WORD_OF_VISIT] += 1
    if lanes[lane, WORD_OF_VISIT] == count:
        lanes[lane, WORD_OF_VISIT] = 0
        history[lane, visit % KEPT, VISIT_TAKEN] = word
        lanes[lane, VISIT] += 1
        if segments[lane] == 1:  # the header's place
            history[lane, lanes[lane, FREED] % KEPT, WORD_TAKEN] = word
            lanes[lane, FREED] += 1
    return max(ready, word + 1)


@inlined
def words_come(run, state, end, waits):
    """Keep in ``waits`` the lanes to whose decoder the word that they need comes before ``end``."""
    lanes, history = state.lanes, state.history
    some = False
    for lane in range(waits.size):
        if not waits[lane]:
            continue
        visit = lanes[lane, VISIT]
        word = lanes[lane, WORD]
        comes = visit < lanes[lane, R_VISIT] and history[lane, visit % KEPT, VISIT_HERE] < end
        if comes and run.visit_words[run.first_visit[lane] + visit]:
            comes = word < lanes[lane, R_WORDS] and history[lane, word % KEPT, WORD_HERE] < end
        waits[lane] = comes
        some = some or comes
    return some


@inlined
def advance_lanes(run, state, end, waits):
    """Let the lanes in ``waits`` go on until ``end``; keep there those that wait for a word."""
    size = run.channels.size
    entries, scripts = run.entries, run.scripts
    segments, visit_words, first_visit = run.segments, run.visit_words, run.first_visit
    lanes, history, east = state.lanes, state.history, state.east
    wide = len(state.places)
    for lane in range(size):
        if not waits[lane]:
            continue
        waits[lane] = False
        row = lane * ROW_FIELDS * wide
        here_at, last_entry = lanes[lane, AT], scripts[lane, 1]
        decoded, item = lanes[lane, DECODED], lanes[lane, TAKEN]
        control, stage = lanes[lane, CONTROL], lanes[lane, STAGE]
        repeated, offered = lanes[lane, REPEATED], lanes[lane, OFFERED]
        column, at, token = lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_ENTRY]
        while True:
            if column == size:
                if east[u(row)] >= end:
                    break
                token = -1
                while here_at < last_entry:
                    # The next entry of the script.
                    flags = np.int64(entries[u(here_at), 0])
                    kind = flags & KIND
                    if kind <= HIT:
                        # The decoder: a word, if one begins, and one cycle.
                        ready = max(decoded + 1, item)
                        if flags & NEW_WORD:
                            lanes[lane, DECODED] = decoded
                            ready = _take_word(
                                lane, ready, segments, visit_words, first_visit, lanes, history
                            )
                            if ready < 0:
                                waits[lane] = True
                                break
                        decoded = ready
                        if kind == HIT:
                            # The token maker takes the item.
                            item = max(max(decoded + 1, control), stage)
                            control = item + 1
                            stage = max(item + 1, repeated)
                            if entries[u(here_at), 2]:
                                token = here_at
                        elif kind != BUBBLE or flags & LAST:
                            item = max(max(decoded + 1, control), stage)
                            control = item + 1
                    elif kind == REPEAT:
                        token = here_at
                    elif kind == OPEN or kind == COMPLETE:
                        control = max(control, stage) + 1
                        stage = max(control, repeated)
                        token = here_at
                    elif kind == ROW or kind == TOKENS:
                        control += 1
                    elif kind == END_ROW:
                        control = max(control, stage) + 1
                    else:
                        control += run.input_cycles - 1
                    here_at += 1
                    if token >= 0:
                        break
                if token < 0:
                    break
                # A token of the second stage goes to the output register.
                offered = max(max(offered, stage) + 1, east[u(row)])
                repeated = offered
                column, at = 0, offered

            # The token goes east, column by column.
            marks = entries[u(token), 0] & KIND > REPEAT
            begin = column
            column, at = _go_east(lane, column, at, token, marks, run, state)
            if marks:
                for passed in range(begin, column):
                    if east[u(row + WAITING * wide + passed)] == 1:
                        walk(lane, passed, run, state)
            if column < size:
                break
        lanes[lane, AT], lanes[lane, DECODED] = here_at, decoded
        lanes[lane, TAKEN], lanes[lane, CONTROL], lanes[lane, STAGE] = item, control, stage
        lanes[lane, REPEATED], lanes[lane, OFFERED] = repeated, offered
        lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_ENTRY] = column, at, token
