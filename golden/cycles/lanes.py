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
    ACCEPT,
    AT,
    COMPLETED,
    CONTROL,
    COUNT,
    DECODED,
    DRAINED,
    FIFO,
    FILLED,
    FREE,
    FREED,
    KEPT,
    OFFERED,
    OPENED,
    R_VISIT,
    R_WORDS,
    REPEATED,
    STAGE,
    T_COLUMN,
    T_ENTRY,
    T_TIME,
    TAKEN,
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

__all__ = ["advance_lanes", "walk", "words_come"]


@compiled
def walk(lane, column, run, state):
    """Let an element's walker take what waits in its FIFO; it stops at a row not yet drained."""
    elements, done, gone, rows = state.elements, state.done, state.gone, state.rows
    size, tokens = run.channels.size, state.tokens
    element, below = lane * (size + 1) + column, size - 1 - lane
    e = element * state.stride
    now = elements[u(e + FREE)]
    filled, waiting = elements[u(e + FILLED)], elements[u(e + WAITING)]
    while waiting > 0:
        slot = e + FIFO + 2 * (filled - waiting & tokens - 1)
        what = elements[u(slot + 1)]
        at = max(elements[u(slot)] + 1, now)
        count = what >> 3 & COUNT
        if count == 0 and what & COMPLETES:
            row = u(element * rows + (elements[u(e + COMPLETED)] & rows - 1))
            done[row] = at + FIRST_READ + below
            gone[row] = 0
            elements[u(e + COMPLETED)] += 1
        elif count == 0:
            oldest = elements[u(e + OPENED)] - run.ring_rows
            if oldest >= 0:
                if oldest >= elements[u(e + DRAINED)]:
                    break
                at = max(at, gone[u(element * rows + (oldest & rows - 1))] - below + RING_FREE)
            elements[u(e + OPENED)] += 1
        now = at + max(1, count)
        elements[u(slot)] = at
        waiting -= 1
    elements[u(e + WAITING)] = waiting
    elements[u(e + FREE)] = now


@compiled
def _go_east(
    lane, column, at, marks, mark, lo, hi, size, depth, tokens, stride, starts, elements
):  # fmt: skip
    """Let a token go east from ``column`` on until a full FIFO stops it.

    It was in the column before in cycle ``at``; both are returned for the column in which it stops.
    In a column it is accepted when the register there is free: its token went both ways. A walker
    that waits for nothing takes it at once, unless it is a marker (``marks``). ``mark`` is that
    of its entry; the taps in a column go from ``starts[lo + column]`` to ``starts[hi + column]``.
    """
    first = lane * (size + 1)
    while column < size:
        e = (first + column) * stride
        waiting = elements[u(e + WAITING)]
        if waiting >= depth:
            break
        start = np.int64(starts[u(lo + column)])
        count = np.int64(starts[u(hi + column)]) - start
        at = max(max(at + 1, elements[u(e + WRITTEN)]), elements[u(e + stride + ACCEPT)])
        elements[u(e + ACCEPT)] = at
        filled = elements[u(e + FILLED)]
        queued = max(at, elements[u(e + FIFO + 2 * (filled - depth & tokens - 1))]) + 1
        elements[u(e + WRITTEN)] = queued
        # Only what has taps, or marks, stays; a place behind the last is free.
        stays = marks or count != 0
        elements[u(e + FILLED)] = filled + stays
        slot = e + FIFO + 2 * (filled & tokens - 1)
        elements[u(slot + 1)] = start << 20 | count << 3 | mark
        if marks or waiting:
            elements[u(e + WAITING)] = waiting + stays
        else:
            free = elements[u(e + FREE)]
            queued = max(queued + 1, free)
            elements[u(e + FREE)] = queued + count if stays else free
        elements[u(slot)] = queued
        column += 1
    return column, at


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
    depth, entries, starts, scripts = run.fifo_depth, run.entries, run.starts, run.scripts
    segments, visit_words, first_visit = run.segments, run.visit_words, run.first_visit
    lanes, history, elements = state.lanes, state.history, state.elements
    tokens, stride = state.tokens, state.stride
    groups = starts.size // (size * size)
    for lane in range(size):
        if not waits[lane]:
            continue
        waits[lane] = False
        first = lane * (size + 1)
        here_at, last_entry = lanes[lane, AT], scripts[lane, 1]
        decoded, item = lanes[lane, DECODED], lanes[lane, TAKEN]
        control, stage = lanes[lane, CONTROL], lanes[lane, STAGE]
        repeated, offered = lanes[lane, REPEATED], lanes[lane, OFFERED]
        column, at, token = lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_ENTRY]
        while True:
            if column == size:
                if elements[u(first * stride + ACCEPT)] >= end:
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
                offered = max(max(offered, stage) + 1, elements[u(first * stride + ACCEPT)])
                repeated = offered
                column, at = 0, offered

            # The token goes east, column by column.
            marks = entries[u(token), 0] & KIND > REPEAT
            begin, groups_before = column, lane * groups
            column, at = _go_east(
                lane, column, at, marks, np.int64(entries[u(token), 3]),
                (groups_before + np.int64(entries[u(token), 1])) * size,
                (groups_before + np.int64(entries[u(token), 2])) * size,
                size, depth, tokens, stride, starts, elements,
            )  # fmt: skip
            if marks:
                for passed in range(begin, column):
                    if elements[u((first + passed) * stride + WAITING)] == 1:
                        walk(lane, passed, run, state)
            if column < size:
                break
        lanes[lane, AT], lanes[lane, DECODED] = here_at, decoded
        lanes[lane, TAKEN], lanes[lane, CONTROL], lanes[lane, STAGE] = item, control, stage
        lanes[lane, REPEATED], lanes[lane, OFFERED] = repeated, offered
        lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_ENTRY] = column, at, token
