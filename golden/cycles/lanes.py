"""Lanes in jitted loops: decoder, token maker, and the tokens' way through a row of elements."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917, SIM109, PLR1714, PLW3301

from __future__ import annotations

import numba
import numpy as np

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
    FILLED,
    FIRST_WALK,
    FREE,
    FREED,
    FULL_RING,
    KEPT,
    OFFERED,
    OPENED,
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def walk(lane, column, ring_rows, elements, times, whats, done, gone):
    """Let an element's walker take what waits in its FIFO; it stops at a row not yet drained."""
    size = elements.shape[0]
    skew = size - 1 - lane  # elements below this one
    element = lane * size + column
    tokens, rows = times.size // (size * size), done.size // (size * size)
    now = elements[lane, column, FREE]
    filled, waiting = elements[lane, column, FILLED], elements[lane, column, WAITING]
    while waiting > 0:
        slot = element * tokens + (filled - waiting & tokens - 1)
        what = whats[slot]
        at = max(times[slot] + 1, now)
        if what >= 0:
            count = what >> 3 & COUNT
            if elements[lane, column, WALKED] == 0:
                elements[lane, column, FIRST_WALK] = at
            elements[lane, column, WALKED] += count
            now = at + count
        else:
            if what == -OPEN:
                oldest = elements[lane, column, OPENED] - ring_rows
                if oldest >= 0:
                    if oldest >= elements[lane, column, DRAINED]:
                        break
                    free = gone[element * rows + (oldest & rows - 1)] - skew + RING_FREE
                    if free > at:
                        elements[lane, column, FULL_RING] += free - at
                        at = free
                elements[lane, column, OPENED] += 1
            else:
                row = element * rows + (elements[lane, column, COMPLETED] & rows - 1)
                done[row] = at + FIRST_READ + skew
                gone[row] = 0
                elements[lane, column, COMPLETED] += 1
            now = at + 1
        times[slot] = at
        waiting -= 1
    elements[lane, column, WAITING] = waiting
    elements[lane, column, FREE] = now


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def advance_lanes(run, state, end, waits):
    """Let the lanes in ``waits`` go on until ``end``; keep there those that wait for a word."""
    size = run.channels.size
    depth, kernel_width, ring_rows = run.fifo_depth, run.kernel_width, run.ring_rows
    entries, starts, script_start = run.entries, run.starts, run.script_start
    segments, visit_words, first_visit = run.segments, run.visit_words, run.first_visit
    lanes, history, done, gone = state.lanes, state.history, state.done, state.gone
    all_elements, times, whats = state.elements, state.times, state.whats
    tokens = times.size // (size * size)
    groups = starts.size // (size * size)
    for lane in range(size):
        if not waits[lane]:
            continue
        waits[lane] = False
        elements = all_elements[lane]
        here_at, last_entry, more = lanes[lane, AT], script_start[lane + 1], lanes[lane, T_LEFT]
        decoded, item = lanes[lane, DECODED], lanes[lane, TAKEN]
        control, stage = lanes[lane, CONTROL], lanes[lane, STAGE]
        repeated, offered = lanes[lane, REPEATED], lanes[lane, OFFERED]
        column, at, kind = lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_KIND]
        lo, hi, mark = lanes[lane, T_LO], lanes[lane, T_HI], lanes[lane, T_MARK]
        while lanes[lane, BUSY]:
            if column == size:
                if elements[0, ACCEPT] >= end:
                    break
                while more == 0:
                    # The next entry of the script.
                    if here_at == last_entry:
                        lanes[lane, BUSY] = 0
                        break
                    flags = np.int64(entries[here_at, 0])
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
                        here_at += 1
                        decoded = ready
                        if kind == BUBBLE and not flags & LAST:
                            continue
                        # The token maker takes the item.
                        item = max(max(decoded + 1, control), stage)
                        control = item + 1
                        if kind == HIT:
                            stage = max(item + 1, repeated)
                            lo, hi = (
                                np.int64(entries[here_at - 1, 1]),
                                np.int64(entries[here_at - 1, 2]),
                            )
                            mark = np.int64(entries[here_at - 1, 3])
                            more = mark >> 3
                            mark &= 7
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
                offered = max(max(offered, stage) + 1, elements[0, ACCEPT])
                more -= 1
                if more == 0:
                    repeated = offered
                column, at = 0, offered

            # The token goes east, column by column, until a full FIFO stops it. It is accepted when
            # the element's register is free: its token went both ways.
            lo_at, hi_at = (lane * groups + lo) * size, (lane * groups + hi) * size
            while column < size:
                waiting = elements[column, WAITING]
                if waiting >= depth:
                    break
                at = max(max(at + 1, elements[column, WRITTEN]), elements[column + 1, ACCEPT])
                elements[column, ACCEPT] = at
                entry = elements[column, FILLED]
                first_slot = (lane * size + column) * tokens
                queued = max(at, times[first_slot + (entry - depth & tokens - 1)]) + 1
                elements[column, WRITTEN] = queued
                slot = first_slot + (entry & tokens - 1)
                if kind == HIT:
                    start = np.int64(starts[lo_at + column])
                    count = starts[hi_at + column] - start
                    if count:
                        elements[column, FILLED] = entry + 1
                        if waiting == 0:
                            queued = max(queued + 1, elements[column, FREE])
                            elements[column, FREE] = queued + count
                            walked = elements[column, WALKED]
                            elements[column, WALKED] = walked + count
                            if walked == 0:
                                elements[column, FIRST_WALK] = queued
                        else:
                            elements[column, WAITING] = waiting + 1
                        times[slot] = queued
                        whats[slot] = start << 20 | count << 3 | mark
                else:
                    elements[column, FILLED] = entry + 1
                    elements[column, WAITING] = waiting + 1
                    times[slot] = queued
                    whats[slot] = -kind
                    if waiting == 0:
                        walk(lane, column, ring_rows, all_elements, times, whats, done, gone)
                column += 1
            if column < size:
                break
            lo += kernel_width
            hi += kernel_width
        lanes[lane, AT], lanes[lane, T_LEFT], lanes[lane, DECODED] = here_at, more, decoded
        lanes[lane, TAKEN], lanes[lane, CONTROL], lanes[lane, STAGE] = item, control, stage
        lanes[lane, REPEATED], lanes[lane, OFFERED] = repeated, offered
        lanes[lane, T_COLUMN], lanes[lane, T_TIME], lanes[lane, T_KIND] = column, at, kind
        lanes[lane, T_LO], lanes[lane, T_HI], lanes[lane, T_MARK] = lo, hi, mark
