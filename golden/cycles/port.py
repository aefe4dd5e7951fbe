"""The memory port in jitted loops: row readers, weight fetchers and row writers in turn."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import compiled, inlined
from thresher.golden.cycles.fetch import begin_load, load_end, serve
from thresher.golden.cycles.latencies import (
    PROGRAM_AHEAD,
    TAKEN,
    TO_PORT,
    TO_WORD,
    VISITS,
    WORDS,
)
from thresher.golden.cycles.state import (
    FAR,
    FREE_AT,
    FREED,
    HEADERS,
    KEPT,
    L_ASK,
    LEFT,
    NEXT,
    O_ASKED,
    O_HERE,
    O_LEFT,
    O_TAKEN,
    O_TIME,
    O_TOTAL,
    OPERANDS_KEPT,
    QUEUED,
    R_ASKED,
    R_BURST,
    R_BURSTS,
    R_EMPTY,
    R_END,
    R_HEADERS,
    R_LEFT,
    R_PHASE,
    R_STALE,
    R_TIME,
    R_VISIT,
    R_WORDS,
    VISIT,
    VISIT_HERE,
    VISIT_TAKEN,
    W_FREE,
    W_HEAD,
    W_HEADERS,
    W_LAST,
    W_TAIL,
    WORD_HERE,
    WORD_TAKEN,
)
from thresher.golden.cycles.vectors import (
    holds_in,
    load,
    lowest_place,
    minimum,
    smallest,
    vector,
)

__all__ = ["share_port"]


@compiled
def _place(lane, now, lanes, history):
    """Return when a word has a place: that of one that was taken, or of a header; FAR: not yet."""
    oldest = lanes[lane, R_ASKED] + lanes[lane, R_STALE] - WORDS
    if oldest < 0:
        return now
    if oldest >= lanes[lane, FREED]:
        return FAR
    return max(now, history[lane, oldest % KEPT, WORD_TAKEN] + 1)


@compiled
def _next_read(lane, segments, visit_words, first_visit, height, lanes, history, headers):
    """Return when a lane's row reader asks for its next word; FAR if the decoder decides that.

    Of a single segment headers and words are one stream. Of several, a burst has the phases 0
    LOOK_UP, 1 PLAN, 2 REQUEST. ``R_LEFT`` is what is left to ask for: 2 a word, 1 a header.
    """
    count = segments[lane]
    now = lanes[lane, R_TIME]
    while lanes[lane, R_BURST] < lanes[lane, R_BURSTS]:
        if count == 1 and lanes[lane, R_LEFT] == 0:
            words = visit_words[first_visit[lane] + lanes[lane, R_BURST]]
            lanes[lane, R_LEFT] = 2 * words + 1
        elif count == 1 or (lanes[lane, R_PHASE] == 2 and lanes[lane, R_LEFT] > 0):
            lanes[lane, R_TIME] = now
            return _place(lane, now, lanes, history)
        elif lanes[lane, R_PHASE] == 0:
            burst = lanes[lane, R_BURST] % (count * (height + 1))
            if burst >= count:
                last_row = burst // count == height
                needed = lanes[lane, R_HEADERS] + (burst % count if last_row else 0) - count
                if needed >= 0:
                    now = max(now, headers[lane, needed % HEADERS] + 1)
            lanes[lane, R_PHASE] = 1
            now += 1
        elif lanes[lane, R_PHASE] == 1:
            waits = lanes[lane, R_VISIT] - VISITS
            if waits >= 0:
                if waits >= lanes[lane, VISIT]:
                    lanes[lane, R_TIME] = now
                    return FAR
                now = max(now, history[lane, waits % KEPT, VISIT_TAKEN] + 1)
            burst = lanes[lane, R_BURST] % (count * (height + 1))
            words = 0
            if burst >= count:
                history[lane, lanes[lane, R_VISIT] % KEPT, VISIT_HERE] = now + 1
                words = visit_words[first_visit[lane] + lanes[lane, R_VISIT]]
                lanes[lane, R_VISIT] += 1
            lanes[lane, R_LEFT] = words * 2 + (0 if burst // count == height else 1)
            lanes[lane, R_PHASE] = 2
            now += 1
        else:
            if lanes[lane, R_EMPTY]:  # REQUEST takes a cycle even if it has nothing to ask for
                now += 1
            lanes[lane, R_EMPTY] = 1
            lanes[lane, R_PHASE] = 0
            lanes[lane, R_BURST] += 1
    lanes[lane, R_TIME] = now
    # Beyond the last input's end, too, until its last word has come.
    ask = _place(lane, now, lanes, history) if count == 1 else FAR
    return ask if ask < lanes[lane, R_END] else FAR


@compiled
def _read(lane, asked, at, latency, segments, height, lanes, history, headers):
    """Grant a lane's row reader, which asked since ``asked``, the port in cycle ``at``."""
    here = at + 1 + latency
    lanes[lane, R_TIME] = at + 1
    lanes[lane, R_EMPTY] = 0
    single = segments[lane] == 1
    if single and lanes[lane, R_STALE]:
        # Beyond an input's end until its last word has come.
        if asked < lanes[lane, R_END]:
            lanes[lane, R_STALE] += 1
            return
        lanes[lane, R_STALE] = 0
    if lanes[lane, R_LEFT] >= 2 and not (single and lanes[lane, R_LEFT] & 1):
        history[lane, lanes[lane, R_WORDS] % KEPT, WORD_HERE] = here + 1
        lanes[lane, R_WORDS] += 1
        lanes[lane, R_ASKED] += 1
        lanes[lane, R_LEFT] -= 2
    elif single:  # the header of this row, before its words
        history[lane, lanes[lane, R_VISIT] % KEPT, VISIT_HERE] = here + 1
        lanes[lane, R_VISIT] += 1
        lanes[lane, R_ASKED] += 1
        lanes[lane, R_LEFT] -= 1
    else:  # that of the segment's next row, behind them
        headers[lane, lanes[lane, R_HEADERS] % HEADERS] = here
        lanes[lane, R_HEADERS] += 1
        lanes[lane, R_LEFT] = 0
    if single and lanes[lane, R_LEFT] == 0:
        lanes[lane, R_BURST] += 1
        if lanes[lane, R_BURST] % height == 0:
            lanes[lane, R_END] = here + 1
            lanes[lane, R_STALE] = 1


@compiled
def _next_write(column, queue, writers):
    """Return when a column's row writer asks next; FAR if it has no word."""
    head = writers[column, W_HEAD]
    if head == writers[column, W_TAIL]:
        return FAR
    return max(queue[column, head % QUEUED] >> 1, writers[column, W_FREE])


@compiled
def _next_operand(column, run, operands):
    """Return when a column asks for the next word of its operand; FAR if it has no place."""
    asked = operands[column, O_ASKED]
    needed = asked - run.operands_ahead
    if needed >= operands[column, O_TAKEN] or asked >= operands[column, O_TOTAL]:
        return FAR
    if needed < 0:
        return operands[column, O_TIME]
    return max(operands[column, O_TIME], operands[column, O_LEFT + needed % OPERANDS_KEPT] + 1)


@compiled
def _next_of_program(run, port, words, load_times):
    """Return when the program's next word is asked for; FAR if there is none.

    Not before the one before it had the port, nor before its place is free. The words of a load's
    record leave theirs when the load before is done.
    """
    word = port[3]
    if word >= run.program.size:
        return FAR
    ask = int(run.program[word])
    if word:
        ask = max(ask, words[word - 1, 0] + 1)
    if word >= PROGRAM_AHEAD:
        ask = max(ask, words[word - PROGRAM_AHEAD, 1] + TAKEN)
    for number in range(max(1, port[1]), min(port[1] + 2, run.load_begins.shape[0])):
        behind = word - PROGRAM_AHEAD - run.load_begins[number, 2]
        if behind >= 0:
            ask = max(ask, min(FAR, load_times[number - 1, 1] + behind + TAKEN))
    return ask


@compiled
def _read_program(at, run, port, words):
    """Grant the program's next word the port in cycle ``at``; it is taken behind the one before."""
    word = port[3]
    words[word, 0] = at
    words[word, 1] = at + TO_PORT + run.latency + TO_WORD
    if word:
        words[word, 1] = max(words[word, 1], words[word - 1, 1] + 1)
    port[3] += 1


@compiled
def _charge(column, at, queue, writers, columns):
    """Let a column stand still while the word behind the one that the encoder offers has no place.

    The one on offer, or the one behind a header that is, goes in cycle ``at`` or later.
    """
    head, tail = writers[column, W_HEAD], writers[column, W_TAIL]
    after = head + 1 + (queue[column, head % QUEUED] & 1)
    if after < tail and queue[column, after % QUEUED] & 1:
        after += 1
    if after >= tail:
        return
    more = at + 1 - (queue[column, after % QUEUED] >> 1)
    if more > 0:
        columns[column, FREE_AT] = max(columns[column, FREE_AT], columns[column, NEXT]) + more
        for k in range(after, tail):
            queue[column, k % QUEUED] += 2 * more


@compiled
def _write(column, at, queue, writers, columns):
    """Grant a column's row writer the port in cycle ``at``."""
    head = writers[column, W_HEAD]
    is_header = queue[column, head % QUEUED] & 1
    _charge(column, at, queue, writers, columns)
    writers[column, W_HEAD] = head + 1
    writers[column, W_FREE] = at + 1 + is_header
    if is_header:
        writers[column, W_HEADERS] -= 1
        writers[column, W_LAST] = at


@compiled
def _go_on_loading(run, state, end):
    """Start the loads that start before ``end``, one after another; set what their columns ask."""
    port, asks, times, fetchers = state.port, state.asks, state.load_times, state.fetchers
    size = fetchers.shape[0]
    while port[1] < run.load_begins.shape[0]:
        load = port[1]
        if times[load, 0] == FAR:
            start, record = run.load_begins[load, 0], run.load_begins[load, 3]
            if port[3] < record:
                break
            if record > 0:
                start = max(start, state.program[record - 1, 1] + 1)
            if load:
                start = max(start, times[load - 1, 1] + run.load_begins[load, 1])
            if start >= end:
                break
            times[load, 0] = start
            begin_load(start, run.load_starts[load], fetchers)
        times[load, 1] = load_end(run.load_cycles[load], fetchers)
        if times[load, 1] == FAR:
            break
        times[load, 1] += run.load_rest
        port[1] += 1
    for column in range(size):
        loading = port[1] < run.load_begins.shape[0] and times[port[1], 0] != FAR
        asks[size + column] = fetchers[column, L_ASK] if loading else FAR


@inlined
def _first_ask(asks, wide, places):
    """Return since when a client asks, the first one."""
    first = load(asks, 0, places)
    for block in range(0, asks.size, wide):
        first = minimum(first, load(asks, block, places))
    return smallest(first)


@inlined
def _next_client(asks, last, at, wide, places):
    """Return the next client in turn behind ``last`` that asks in cycle ``at``, -1: none."""
    behind = first = np.int64(-1)
    for block in range(0, asks.size, wide):
        who = holds_in(load(asks, block, places) <= at)
        if first < 0 and who:
            first = block + lowest_place(who)
        who &= -1 << min(max(0, last + 1 - block), 63)
        if behind < 0 and who:
            behind = block + lowest_place(who)
    return first if behind < 0 else behind


@inlined
def share_port(run, state, begin, end):
    """Grant the port from ``begin`` to ``end``: row readers, weight fetchers, writers, in turn.

    What a client asked for before ``begin`` was not known then, since lanes, columns and port go on
    by turns; it takes the first cycle since that nobody has taken.
    """
    segments, visit_words, first_visit = run.segments, run.visit_words, run.first_visit
    lanes, history, headers = state.lanes, state.history, state.headers
    queue, writers, columns = state.queue, state.writers, state.columns
    asks, port, granted, fetchers = state.asks, state.port, state.granted, state.fetchers
    height, latency = run.height, run.latency
    size = segments.size
    adds = run.operand_words.size > 0
    first_operand = 2 * size + 1
    first_writer = first_operand + (size if adds else 0)
    wide, places = len(state.places), vector(state.places)
    port[2] = end
    asks[2 * size] = _next_of_program(run, port, state.program, state.load_times)
    if port[1] < run.load_begins.shape[0]:
        _go_on_loading(run, state, end)
    for k in range(size):
        if asks[k] == FAR and segments[k]:  # it may have waited for the decoder
            asks[k] = _next_read(
                k, segments, visit_words, first_visit, height, lanes, history, headers
            )
        asks[first_writer + k] = _next_write(k, queue, writers)
        if adds:
            asks[first_operand + k] = _next_operand(k, run, state.operands)

    at = min(begin, max(_first_ask(asks, wide, places), end - LEFT))
    while at < end:
        client = _next_client(asks, port[0], at, wide, places)
        if client < 0:
            at = min(end, _first_ask(asks, wide, places))
            continue
        if granted[at % LEFT] != at:
            port[4] += 1
            granted[at % LEFT] = at
            port[0] = client
            if client < size:
                _read(client, asks[client], at, latency, segments, height, lanes, history, headers)
                asks[client] = _next_read(
                    client, segments, visit_words, first_visit, height, lanes, history, headers
                )
            elif client < 2 * size:
                column = client - size
                serve(
                    column, at, run.needs, run.load_starts[port[1]], run.chunks, run.compact,
                    run.fetch_latency, fetchers,
                )  # fmt: skip
                asks[client] = fetchers[column, L_ASK]
            elif client == 2 * size:
                _read_program(at, run, port, state.program)
                asks[client] = _next_of_program(run, port, state.program, state.load_times)
            elif client < first_writer:
                column = client - first_operand
                asked = state.operands[column, O_ASKED]
                here = at + TO_PORT + latency + TO_WORD
                state.operands[column, O_HERE + asked % OPERANDS_KEPT] = here
                state.operands[column, O_ASKED] = asked + 1
                state.operands[column, O_TIME] = at + 1
                asks[client] = _next_operand(column, run, state.operands)
            else:
                column = client - first_writer
                _write(column, at, queue, writers, columns)
                asks[client] = _next_write(column, queue, writers)
        at += 1
    for column in range(size):
        if writers[column, W_HEAD] < writers[column, W_TAIL]:
            _charge(column, end, queue, writers, columns)
