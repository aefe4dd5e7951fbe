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
    END_ROW,
    HIT,
    KIND,
    LAST,
    NEW_WORD,
    OPEN,
    ROW,
    TOKENS,
)
from thresher.golden.cycles.state import (
    ACCEPT,
    AT,
    BUSY,
    COMPLETED,
    CONTROL,
    COUNT,
    DECODED,
    DRAINED,
    ELEMENT_SIZE,
    FILLED,
    FIRST_WALK,
    FREE,
    FREED,
    FULL_RING,
    KEPT,
    OFFERED,
    OPENED,
    PADDING,
    R_VISIT,
    R_WORDS,
    REPEATED,
    STAGE,
    T_COLUMN,
    T_HI,
    T_KIND,
    T_LEFT,
    T_LO,
    T_MARK,
    T_TIME,
    TAKEN,
    VISIT,
    VISIT_HERE,
    VISIT_TAKEN,
    WAITING,
    WALKED,
    WORD,
    WORD_HERE,
    WORD_OF_VISIT,
    WORD_TAKEN,
    WRITTEN,
)

__all__ = ["advance_lanes", "walk", "words_come"]


@compiled
def walk(element, skew, ring_rows, state):
    """Let an element's walker take what waits in its FIFO; it stops at a row not yet drained.

    ``skew`` is the number of elements below this one.
    """
    elements, fifos, done, gone = state.elements, state.fifos, state.done, state.gone
    tokens, rows = state.tokens, state.rows
    e = element * ELEMENT_SIZE
    now = elements[u(e + FREE)]
    filled, waiting = elements[u(e + FILLED)], elements[u(e + WAITING)]
    while waiting > 0:
        slot = 2 * (element * (tokens + PADDING) + (filled - waiting & tokens - 1))
        what = fifos[u(slot + 1)]
        at = max(fifos[u(slot)] + 1, now)
        if what >= 0:
            count = what >> 3 & COUNT
            if elements[u(e + WALKED)] == 0:
                elements[u(e + FIRST_WALK)] = at
            elements[u(e + WALKED)] += count
            now = at + count
        else:
            if what == -OPEN:
                oldest = elements[u(e + OPENED)] - ring_rows
                if oldest >= 0:
                    if oldest >= elements[u(e + DRAINED)]:
                        break
                    free = gone[u(element * rows + (oldest & rows - 1))] - skew + RING_FREE
                    if free > at:
                        elements[u(e + FULL_RING)] += free - at
                        at = free
                elements[u(e + OPENED)] += 1
            else:
                row = u(element * rows + (elements[u(e + COMPLETED)] & rows - 1))
                done[row] = at + FIRST_READ + skew
                gone[row] = 0
                elements[u(e + COMPLETED)] += 1
            now = at + 1
        fifos[u(slot)] = at
        waiting -= 1
    elements[u(e + WAITING)] = waiting
    elements[u(e + FREE)] = now


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
    depth, kernel_width, ring_rows = run.fifo_depth, run.kernel_width, run.ring_rows
    entries, starts, scripts = run.entries, run.starts, run.scripts
    segments, visit_words, first_visit = run.segments, run.visit_words, run.first_visit
    lanes, history, elements, fifos = state.lanes, state.history, state.elements, state.fifos
    tokens = state.tokens
    groups = starts.size // (size * size)
    for lane in range(size):
        if not waits[lane]:
            continue
        waits[lane] = False
        first = lane * (size + 1)
        here_at, last_entry, more = lanes[lane, AT], scripts[lane, 1], lanes[lane, T_LEFT]
        decoded, item = lanes[lane, DECODED], lanes[lane, TAKEN]
        control, stage = lanes[lane, CONTROL], lanes[lane, STAGE]
        repeated, offered = lanes[lane, REPEATED], lanes[lane, OFFERED]
        column, at, kind = lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_KIND]
        lo, hi, mark = lanes[lane, T_LO], lanes[lane, T_HI], lanes[lane, T_MARK]
        while lanes[lane, BUSY]:
            if column == size:
                if elements[u(first * ELEMENT_SIZE + ACCEPT)] >= end:
                    break
                while more == 0:
                    # The next entry of the script.
                    if here_at == last_entry:
                        lanes[lane, BUSY] = 0
                        break
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
                            lo = np.int64(entries[u(here_at), 1])
                            hi = np.int64(entries[u(here_at), 2])
                            mark = np.int64(entries[u(here_at), 3])
                            more = mark >> 3
                            mark &= 7
                        elif kind != BUBBLE or flags & LAST:
                            item = max(max(decoded + 1, control), stage)
                            control = item + 1
                        here_at += 1
                        continue
                    here_at += 1
                    if kind == OPEN or kind == COMPLETE:
                        control = max(control, stage) + 1
                        stage = max(control, repeated)
                        more = 1
                    elif kind == ROW or kind == TOKENS:
                        control += 1
                    elif kind == END_ROW:
                        control = max(control, stage) + 1
                    else:
                        control += run.input_cycles - 1
                if more == 0:
                    break
                # A token of the second stage goes to the output register.
                offered = max(max(offered, stage) + 1, elements[u(first * ELEMENT_SIZE + ACCEPT)])
                more -= 1
                if more == 0:
                    repeated = offered
                column, at = 0, offered

            # The token goes east, column by column, until a full FIFO stops it. It is accepted when
            # the element's register is free: its token went both ways.
            if kind == HIT:
                lo_at, hi_at = (lane * groups + lo) * size, (lane * groups + hi) * size
                while column < size:
                    e = (first + column) * ELEMENT_SIZE
                    waiting = elements[u(e + WAITING)]
                    if waiting >= depth:
                        break
                    start = np.int64(starts[u(lo_at + column)])
                    count = starts[u(hi_at + column)] - start
                    entry = elements[u(e + FILLED)]
                    first_slot = (first + column) * (tokens + PADDING)
                    at = max(
                        max(at + 1, elements[u(e + WRITTEN)]),
                        elements[u(e + ELEMENT_SIZE + ACCEPT)],
                    )
                    elements[u(e + ACCEPT)] = at
                    queued = max(at, fifos[u(2 * (first_slot + (entry - depth & tokens - 1)))]) + 1
                    elements[u(e + WRITTEN)] = queued
                    # Only a token that has taps stays; a place behind the last is free.
                    slot = 2 * (first_slot + (entry & tokens - 1))
                    fifos[u(slot + 1)] = start << 20 | count << 3 | mark
                    some = np.int64(count != 0)
                    elements[u(e + FILLED)] = entry + some
                    if waiting == 0:
                        free = elements[u(e + FREE)]
                        queued = max(queued + 1, free)
                        elements[u(e + FREE)] = queued + count if some else free
                        walked = elements[u(e + WALKED)]
                        elements[u(e + WALKED)] = walked + count
                        if walked == 0 and some:
                            elements[u(e + FIRST_WALK)] = queued
                    else:
                        elements[u(e + WAITING)] = waiting + some
                    fifos[u(slot)] = queued
                    column += 1
                if column < size:
                    break
                lo += kernel_width
                hi += kernel_width
                continue
            while column < size:
                e = (first + column) * ELEMENT_SIZE
                waiting = elements[u(e + WAITING)]
                if waiting >= depth:
                    break
                left = max(elements[u(e + WRITTEN)], elements[u(e + ELEMENT_SIZE + ACCEPT)])
                at = max(at + 1, left)
                elements[u(e + ACCEPT)] = at
                entry = elements[u(e + FILLED)]
                first_slot = (first + column) * (tokens + PADDING)
                queued = max(at, fifos[u(2 * (first_slot + (entry - depth & tokens - 1)))]) + 1
                elements[u(e + WRITTEN)] = queued
                slot = 2 * (first_slot + (entry & tokens - 1))
                elements[u(e + FILLED)] = entry + 1
                elements[u(e + WAITING)] = waiting + 1
                fifos[u(slot)] = queued
                fifos[u(slot + 1)] = -kind
                if waiting == 0:
                    walk(first + column, size - 1 - lane, ring_rows, state)
                column += 1
            if column < size:
                break
        lanes[lane, AT], lanes[lane, T_LEFT], lanes[lane, DECODED] = here_at, more, decoded
        lanes[lane, TAKEN], lanes[lane, CONTROL], lanes[lane, STAGE] = item, control, stage
        lanes[lane, REPEATED], lanes[lane, OFFERED] = repeated, offered
        lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_KIND] = column, at, kind
        lanes[lane, T_LO], lanes[lane, T_HI], lanes[lane, T_MARK] = lo, hi, mark
