"""The queues of a run in jitted loops: when each token, tap, row and word moves.

Times are cycles, counted from the run's start pulse. Every constant is a latency that a docstring
of the hardware states; the comment beside it says which.
"""

# numba's decorators are untyped; each function is a part of the machine, with its state as arrays.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917, PLR1714, PLR1730, PLW3301, SIM109

from __future__ import annotations

import numba
import numpy as np

__all__ = ["CHUNK", "row_words", "run_lanes", "write_script"]

# What a lane does: an entry a cycle of its decoder, or a step of its token maker's sequence.
BUBBLE, STEP, HIT, OPEN, COMPLETE, ROW, TOKENS, END_ROW, NEW_MAP = range(9)
KIND = 15
NEW_WORD = 16  # with BUBBLE, STEP, HIT: a word begins
LAST = 32  # with them: a visit ends

BANKS = 2  # accumulator banks, chosen by the lowest address bit
WINDOW = 16  # cycles for which lanes, then columns go on by turns
CHUNK = 4  # cycles over which additions to a bank are counted
QUEUE = 14  # words of a drain's queue at most, less one that goes while the next is on its way
WORDS = 16  # words that a row reader asks for at most
VISITS = 4  # its visits, of several segments
RECENT = 32  # words and visits that are remembered; more than WORDS
ADD = (
    3  # walker takes a token to its first addition; PE: `mac` in t + 5 of a token of t, t + 2 here
)
FIRST_READ = 5  # walker takes a `complete` to the row's first read; PE: `south` in t + 10
SEND = 2  # a drain's read to its word's way south; Drain: offered three cycles after
QUEUED = 256  # words of a column that wait for the port, remembered
HEADERS = 512  # headers that have come, remembered; at least twice the segments of a lane
FAR = 1 << 60


@numba.njit(cache=True)
def _hit(y, x, channel, zero, geometry, y_table, x_table, m, gate, at, los, his, marks):
    """Write what a hit meets: its groups, how often they repeat, the bank of its base."""
    (row_size, positions, map_size, channel_groups, phase_groups, kernel_width) = geometry[:6]
    stride_x, round_groups = geometry[6:]
    place_y, phase_y, low_y, high_y = y_table[y]
    place_x, phase_x, low_x, high_x = x_table[x]
    repeats = 0
    if low_y <= high_y and low_x <= high_x:
        first = m * round_groups + channel * channel_groups
        first += (phase_y * stride_x + phase_x) * phase_groups
        first += low_y * kernel_width
        if low_x == 0 and high_x == kernel_width - 1:
            repeats = 1
            los[at] = first
            his[at] = first + (high_y - low_y + 1) * kernel_width
        else:
            repeats = high_y - low_y + 1
            los[at] = first + low_x
            his[at] = first + high_x + 1
    base = m * map_size + place_y * row_size + place_x * positions
    marks[at] = repeats * 4 + (base & 1) * 2 + (0 if gate and zero else 1)


@numba.njit(cache=True)
def write_script(
    mask,
    segments,
    maps,
    y_table,
    x_table,
    markers,
    geometry,
    send_zeros,
    gate,
    max_run,
    pairs,
    kinds,
    los,
    his,
    marks,
    visit_words,
):
    """Write a lane's script; with ``kinds`` empty only count its entries.

    Parameters
    ----------
    mask
        Whether each value is not zero, in the order of the visits: map, row, segment, position,
        channel.
    segments
        Channels of each segment.
    y_table, x_table
        Place, phase, first and last kernel index of each input row and position.
    markers
        For each input row: rows that open before its tokens, rows that complete after them, and
        how many of these open there, too.
    geometry
        row_size, N, map_size, channel_groups, phase_groups, kernel_width, stride_x, round_groups.
    """
    fill = kinds.size > 0
    height, width = y_table.shape[0], x_table.shape[0]
    count = at = visit = 0
    for m in range(maps):
        if m:
            if fill:
                kinds[count] = NEW_MAP
            count += 1
        for y in range(height):
            if fill:
                kinds[count] = ROW
                kinds[count + 1 : count + 1 + markers[y, 0]] = OPEN
                kinds[count + 1 + markers[y, 0]] = TOKENS
            count += markers[y, 0] + 2
            first_channel = 0
            for s in range(segments.size):
                channels = segments[s]
                size = width * channels
                begin = count
                coded = -1  # element of the pair before
                pair = 0
                x = 0
                for e in range(size):
                    zero = mask[at + e] == 0
                    if zero:
                        if send_zeros:
                            if fill:
                                kinds[count] = HIT
                                _hit(
                                    y,
                                    e // channels,
                                    first_channel + e % channels,
                                    True,
                                    geometry,
                                    y_table,
                                    x_table,
                                    m,
                                    gate,
                                    count,
                                    los,
                                    his,
                                    marks,
                                )
                            count += 1
                        continue
                    # The pairs of the zeros before it, and its own.
                    last = coded
                    while coded < e:
                        last = coded
                        coded = min(coded + max_run + 1, e)
                        if send_zeros:
                            if fill and pair % pairs == 0:
                                kinds[begin + last + 1] |= NEW_WORD
                        else:
                            here = coded // channels
                            flag = NEW_WORD if pair % pairs == 0 else 0
                            for _ in range(here - x - 1):
                                if fill:
                                    kinds[count] = STEP | flag
                                flag = 0
                                count += 1
                            if fill:
                                if coded == e:
                                    kinds[count] = HIT | flag
                                else:
                                    kinds[count] = (STEP if here > x else BUBBLE) | flag
                            if coded < e:
                                count += 1
                            x = here
                        pair += 1
                    if fill:
                        if send_zeros:
                            kinds[count] |= HIT
                        _hit(
                            y,
                            e // channels,
                            first_channel + e % channels,
                            False,
                            geometry,
                            y_table,
                            x_table,
                            m,
                            gate,
                            count,
                            los,
                            his,
                            marks,
                        )
                    count += 1
                if count == begin:
                    if fill:
                        kinds[count] = BUBBLE
                    count += 1
                if fill:
                    kinds[begin] |= NEW_WORD
                    kinds[count - 1] |= LAST
                    visit_words[visit] = (pair + pairs - 1) // pairs
                visit += 1
                at += size
                first_channel += channels
            for k in range(markers[y, 1]):
                if k >= markers[y, 1] - markers[y, 2]:
                    if fill:
                        kinds[count] = OPEN
                    count += 1
                if fill:
                    kinds[count] = COMPLETE
                count += 1
            if fill:
                kinds[count] = END_ROW
            count += 1
    return count


# State of a lane.
(
    AT, DECODED, TAKEN, CONTROL, STAGE, REPEATED, OFFERED, ACCEPTED, WORD, VISIT, WORD_OF_VISIT,
    R_TIME, R_BURST, R_PHASE, R_LEFT, R_HEADERS, R_ASKED, R_VISIT, R_EMPTY, R_WORDS, R_STALE, R_END,
    FREED,
    T_LEFT, T_COLUMN, T_TIME, T_LO, T_HI, T_MARK, T_KIND, LANE_FIELDS,
) = range(31)  # fmt: skip
# State of a row writer: words that wait for the port, when it is free for one, headers to come.
W_HEAD, W_TAIL, W_FREE, W_CHARGED, W_HEADERS, W_LAST, WRITER_FIELDS = range(7)
# State of an element.
(
    OPENED, COMPLETED, AVAILABLE, DRAINED, READ_0, READ_1, FULL_RING, FIRST_WALK, WALKED, LAST_WALK,
    PE_FIELDS,
) = range(11)  # fmt: skip


@numba.njit(cache=True)
def row_words(mask, rows, max_run, pairs):
    """Return the words of each row's code, headers excluded; rows of equal size."""
    counts = np.zeros(rows, np.int64)
    size = mask.size // max(1, rows)
    for row in range(rows):
        zeros = count = 0
        for at in range(row * size, (row + 1) * size):
            if mask[at]:
                count += zeros // (max_run + 1) + 1
                zeros = 0
            else:
                zeros += 1
        counts[row] = (count + pairs - 1) // pairs
    return counts


@numba.njit(cache=True)
def _next_read(
    lane,
    bursts,
    segments,
    visit_words,
    first_visit,
    height,
    lanes,
    visit_here,
    visit_taken,
    word_taken,
    header_here,
):
    """Return when a lane's row reader asks for its next word; FAR if the decoder decides that.

    Of a single segment headers and words are one stream. Of several, a burst has the phases 0
    LOOK_UP, 1 PLAN, 2 REQUEST. ``R_LEFT`` is what is left to ask for: 2 a word, 1 a header.
    """
    state = lanes[lane]
    count = segments[lane]
    while state[R_BURST] < bursts[lane]:
        if count == 1 and state[R_LEFT] == 0:
            state[R_LEFT] = 2 * visit_words[first_visit[lane] + state[R_BURST]] + 1
        elif count == 1 or (state[R_PHASE] == 2 and state[R_LEFT] > 0):
            # A place must be free: of a word that was taken, or of a header.
            oldest = state[R_ASKED] + state[R_STALE] - WORDS
            if oldest < 0:
                return state[R_TIME]
            if oldest >= state[FREED]:
                return FAR
            return max(state[R_TIME], word_taken[lane, oldest % RECENT] + 1)
        elif state[R_PHASE] == 0:
            burst = state[R_BURST] % (count * (height + 1))
            if burst >= count:
                last_row = burst // count == height
                needed = state[R_HEADERS] + (burst % count if last_row else 0) - count
                if needed >= 0:
                    state[R_TIME] = max(state[R_TIME], header_here[lane, needed % HEADERS] + 1)
            state[R_PHASE] = 1
            state[R_TIME] += 1
        elif state[R_PHASE] == 1:
            waits = state[R_VISIT] - VISITS
            if waits >= 0:
                if waits >= state[VISIT]:
                    return FAR
                state[R_TIME] = max(state[R_TIME], visit_taken[lane, waits % RECENT] + 1)
            burst = state[R_BURST] % (count * (height + 1))
            words = 0
            if burst >= count:
                visit_here[lane, state[R_VISIT] % RECENT] = state[R_TIME] + 1
                words = visit_words[first_visit[lane] + state[R_VISIT]]
                state[R_VISIT] += 1
            state[R_LEFT] = words * 2 + (0 if burst // count == height else 1)
            state[R_PHASE] = 2
            state[R_TIME] += 1
        else:
            if state[R_EMPTY]:  # REQUEST takes a cycle even if it has nothing to ask for
                state[R_TIME] += 1
            state[R_EMPTY] = 1
            state[R_PHASE] = 0
            state[R_BURST] += 1
    return FAR


@numba.njit(cache=True)
def _asked(lane, since, at, latency, height, segments, lanes, visit_here, word_here, header_here):
    """A lane's row reader that asks since a cycle is granted the port in cycle ``at``."""
    state = lanes[lane]
    here = at + 1 + latency
    state[R_TIME] = at + 1
    state[R_EMPTY] = 0
    if segments[lane] > 1:
        if state[R_LEFT] >= 2:
            word_here[lane, state[R_WORDS] % RECENT] = here + 1
            state[R_WORDS] += 1
            state[R_ASKED] += 1
            state[R_LEFT] -= 2
        else:
            header_here[lane, state[R_HEADERS] % HEADERS] = here
            state[R_HEADERS] += 1
            state[R_LEFT] = 0
        return
    if state[R_STALE]:
        # Beyond an input's end until its last word has come.
        if since < state[R_END]:
            state[R_STALE] += 1
            return
        state[R_STALE] = 0
    state[R_ASKED] += 1
    if state[R_LEFT] & 1:
        visit_here[lane, state[R_VISIT] % RECENT] = here + 1
        state[R_VISIT] += 1
        state[R_LEFT] -= 1
    else:
        word_here[lane, state[R_WORDS] % RECENT] = here + 1
        state[R_WORDS] += 1
        state[R_LEFT] -= 2
    if state[R_LEFT] == 0:
        state[R_BURST] += 1
        if state[R_BURST] % height == 0:
            state[R_END] = here + 1
            state[R_STALE] = 1


@numba.njit(cache=True)
def _due(at, traffic, port):
    """Return the words of loads that have fallen due; each span's words fall due evenly."""
    while port[1] < traffic.shape[0] and at >= traffic[port[1], 1]:
        port[2] += traffic[port[1], 2]
        port[1] += 1
    if port[1] == traffic.shape[0]:
        return port[2]
    begin, end, words = traffic[port[1]]
    return port[2] + words * max(0, at - begin) // max(1, end - begin)


@numba.njit(cache=True)
def _share_port(
    begin,
    latency,
    slack,
    bursts,
    segments,
    visit_words,
    first_visit,
    height,
    lanes,
    visit_here,
    visit_taken,
    word_taken,
    header_here,
    word_here,
    port,
    traffic,
    fetched,
    asks,
    queue,
    writers,
    owed,
):
    """Grant the port for a chunk of cycles: row readers, weight fetchers, writers, in turn.

    Returns how many columns have written all they have to.
    """
    size = segments.size
    end = begin + WINDOW
    clients = 3 * size
    for lane in range(size):
        if asks[lane] == FAR and segments[lane]:  # it may have waited for the decoder
            asks[lane] = _next_read(
                lane,
                bursts,
                segments,
                visit_words,
                first_visit,
                height,
                lanes,
                visit_here,
                visit_taken,
                word_taken,
                header_here,
            )
        asks[size + lane] = FAR
        head, tail = writers[lane, W_HEAD], writers[lane, W_TAIL]
        asks[2 * size + lane] = FAR
        if head < tail:
            asks[2 * size + lane] = max(queue[lane, head % QUEUED] >> 1, writers[lane, W_FREE])
    finished = 0
    at = begin
    loads = traffic.shape[0] > 0
    while at < end:
        if loads:
            due = _due(at, traffic, port)
            for column in range(size):
                if fetched[column] * size + column < due:
                    asks[size + column] = at
        client = -1
        nearest = end
        for turn in range(clients):
            k = port[0] + 1 + turn
            if k >= clients:
                k -= clients
            if asks[k] <= at:
                client = k
                break
            nearest = min(nearest, asks[k])
        if client < 0:
            at = at + 1 if loads and port[1] < traffic.shape[0] else nearest
            continue
        port[0] = client
        if client < size:
            _asked(
                client,
                asks[client],
                at,
                latency,
                height,
                segments,
                lanes,
                visit_here,
                word_here,
                header_here,
            )
            asks[client] = _next_read(
                client,
                bursts,
                segments,
                visit_words,
                first_visit,
                height,
                lanes,
                visit_here,
                visit_taken,
                word_taken,
                header_here,
            )
        elif client < 2 * size:
            fetched[client - size] += 1
            asks[client] = FAR
        else:
            column = client - 2 * size
            writer = writers[column]
            head = writer[W_HEAD]
            item = queue[column, head % QUEUED]
            _charge(column, at, slack, writers, queue, owed)
            writer[W_CHARGED] = 0
            writer[W_HEAD] = head + 1
            writer[W_FREE] = at + 1 + (item & 1)
            if item & 1:
                writer[W_HEADERS] -= 1
                writer[W_LAST] = at
                if writer[W_HEADERS] == 0:
                    finished += 1
            asks[client] = FAR
            if head + 1 < writer[W_TAIL]:
                asks[client] = max(queue[column, (head + 1) % QUEUED] >> 1, writer[W_FREE])
        at += 1
    for column in range(size):
        if writers[column, W_HEAD] < writers[column, W_TAIL]:
            _charge(column, end, slack, writers, queue, owed)
    return finished


@numba.njit(cache=True)
def _charge(column, at, slack, writers, queue, owed):
    """Let a column stand still for as long as its oldest word has waited too long."""
    writer = writers[column]
    head = writer[W_HEAD]
    late = at - (queue[column, head % QUEUED] >> 1) - slack
    more = late - writer[W_CHARGED]
    if more > 0:
        owed[column] += more
        writer[W_CHARGED] = late
        for k in range(head + 1, writer[W_TAIL]):
            queue[column, k % QUEUED] += 2 * more


@numba.njit(cache=True)
def _additions(pe, begin, rested, seen, walked, walks, adds):
    """Return the additions to both banks in the chunk from ``begin`` on.

    A walker that waited for a row of the chunk before goes on within that chunk: what it added
    there was not known, and counts now, unless the column ``rested`` then.
    """
    zero = one = 0
    end = begin + CHUNK
    mask = walks.shape[1] - 1
    k = max(seen[pe], walked[pe] - walks.shape[1])
    while k < walked[pe]:
        slot = k & mask
        first = walks[pe, slot, 0]
        if first >= end:
            break
        size = walks[pe, slot, 2]
        start = walks[pe, slot, 1]
        if rested and first < begin:
            gone = min(size, begin - first)
            first, size, start = first + gone, size - gone, start + gone
        to = start + min(size, end - first)
        if walks[pe, slot, 3]:
            one += adds[to, 0] - adds[start, 0]
            zero += adds[to, 1] - adds[start, 1]
        else:
            zero += adds[to, 0] - adds[start, 0]
            one += adds[to, 1] - adds[start, 1]
        if first + size > end:
            # The rest of the walk belongs to the next chunk.
            walks[pe, slot, 0] = end
            walks[pe, slot, 1] = to
            walks[pe, slot, 2] = size - (to - start)
            break
        k += 1
    seen[pe] = k
    return zero, one


@numba.njit(cache=True)
def _walk(
    pe,
    skew,
    ring_rows,
    ring_mask,
    row_mask,
    pes,
    entries,
    taken,
    free,
    filled,
    known,
    row_done,
    row_drained,
    walked,
    walks,
):
    """Let an element's walker take what waits in its FIFO; it stops at a row not yet drained."""
    while known[pe] < filled[pe]:
        slot = known[pe] & ring_mask
        size = entries[pe, slot, 1]
        at = max(entries[pe, slot, 0] + 1, free[pe])
        if size >= 0:
            mark = entries[pe, slot, 3]
            if pes[pe, FIRST_WALK] < 0:
                pes[pe, FIRST_WALK] = at
            if mark & 1:
                place = walked[pe] & (walks.shape[1] - 1)
                walks[pe, place, 0] = at + ADD + skew
                walks[pe, place, 1] = entries[pe, slot, 2]
                walks[pe, place, 2] = size
                walks[pe, place, 3] = mark >> 1
                walked[pe] += 1
            free[pe] = at + size
            pes[pe, WALKED] += size
        else:
            if size == -OPEN:
                oldest = pes[pe, OPENED] - ring_rows
                if oldest >= 0:
                    if oldest >= pes[pe, DRAINED]:
                        return
                    drained = row_drained[pe, oldest & row_mask] + 1
                    if drained > at:
                        pes[pe, FULL_RING] += drained - at
                        at = drained
                pes[pe, OPENED] += 1
            else:
                row_done[pe, pes[pe, COMPLETED] & row_mask] = at + FIRST_READ + skew
                pes[pe, COMPLETED] += 1
            free[pe] = at + 1
        taken[pe, slot] = at
        known[pe] += 1


@numba.njit(cache=True)
def _words_of_bank(words, bank):
    """How many of the first ``words`` words lie in a bank."""
    return (words + 1 - bank) >> 1


@numba.njit(cache=True)
def run_lanes(
    kinds,
    los,
    his,
    marks,
    script_start,
    segments,
    visit_words,
    first_visit,
    height,
    maps,
    pointers,
    adds,
    column_channels,
    row_size,
    positions_n,
    rows,
    out_width,
    ring_rows,
    depth,
    kernel_width,
    pad_cycles,
    latency,
    row_slots,
    pool_y,
    pool_x,
    pool_rest,
    out_words,
    out_headers,
    through,
    slack,
    traffic,
):
    """Run all lanes, elements and columns of a run, from its start pulse.

    Parameters
    ----------
    kinds, los, his, marks, script_start
        Scripts of the lanes, one behind the other, see :func:`write_script`.
    segments, visit_words, first_visit
        Segments of each lane; words of each visit, first visit of each lane.
    pointers
        Start pointers of the elements, shape (P, groups + 1, P), by row and column.
    adds
        How many taps before this one add to an even, to an odd accumulator, if the base is even;
        shape (taps + 1, 2).
    pad_cycles
        Cycles from the token maker's INPUT to its first ROW.
    row_slots
        Rows that are remembered, a power of two.
    pool_y, pool_x, pool_rest
        Windows that each output row, position lies in; cycles after each row. Empty: no pooling.
    out_words, out_headers
        Words that each column writes for the windows that each output row ends, shape (P, rows),
        and the headers, shape (rows,).
    through
        Cycles from a word's sending to the last word of its row on offer to the port.
    slack
        Values that a column can still take while a word waits for the port: those of a word.
    traffic
        Spans of time in which loads take words, shape (spans, 3): begin, end, words.

    Returns
    -------
    written
        Cycle of each column's last write; -1 without channels.
    pes
        State of the elements at the end, shape (P * P, PE_FIELDS).
    """
    size = column_channels.size
    ring = 2 * depth
    ring_mask, row_mask = ring - 1, row_slots - 1
    lanes = np.zeros((size, LANE_FIELDS), np.int64)
    pes = np.zeros((size * size, PE_FIELDS), np.int64)
    entries = np.zeros((size * size, ring, 4), np.int64)
    taken = np.zeros((size * size, ring), np.int64)
    row_done = np.zeros((size * size, row_slots), np.int64)
    row_drained = np.zeros((size * size, row_slots), np.int64)
    word_here = np.zeros((size, RECENT), np.int64)
    word_taken = np.zeros((size, RECENT), np.int64)
    visit_here = np.zeros((size, RECENT), np.int64)
    visit_taken = np.zeros((size, RECENT), np.int64)
    header_here = np.zeros((size, HEADERS), np.int64)
    port = np.zeros(3, np.int64)  # client served last; span of the loads, words before it
    fetched = np.zeros(size, np.int64)
    asks = np.full(3 * size, FAR)
    queue = np.zeros((size, QUEUED), np.int64)
    writers = np.zeros((size, WRITER_FIELDS), np.int64)
    bursts = np.zeros(size, np.int64)
    busy = np.ones(size, np.bool_)
    accepts = np.zeros(size * size, np.int64)
    written = np.zeros(size * size, np.int64)
    free = np.zeros(size * size, np.int64)
    filled = np.zeros(size * size, np.int64)
    known = np.zeros(size * size, np.int64)
    walked = np.zeros(size * size, np.int64)
    seen = np.zeros(size * size, np.int64)
    # Walks that may lie ahead: those of a full FIFO, and of a chunk of tokens of one tap.
    walk_mask = 2 * ring + 4 * WINDOW - 1
    while walk_mask & (walk_mask + 1):
        walk_mask |= walk_mask + 1
    walks = np.zeros((size * size, walk_mask + 1, 4), np.int64)
    sent = np.zeros(size, np.int64)
    rested = np.ones(size, np.bool_)
    debts = np.zeros((size * size, 2), np.int64)
    owed = np.zeros(size, np.int64)
    words = rows * row_size
    reads = np.zeros((size, 2, 3), np.int64)
    pes[:, FIRST_WALK] = -1
    for lane in range(size):
        state = lanes[lane]
        state[AT] = script_start[lane]
        state[T_COLUMN] = size
        state[CONTROL] = 1 + pad_cycles  # INPUT in the cycle after the start pulse
        state[R_TIME] = 1
        bursts[lane] = segments[lane] * (height + 1) * maps
        if segments[lane] == 1:  # LOOK_UP, BEGIN, STREAM; a visit a row
            state[R_TIME] = 3
            bursts[lane] = height * maps
    left = 0
    for column in range(size):
        writers[column, W_LAST] = -1
        if column_channels[column]:
            left += 1
            writers[column, W_HEADERS] = out_headers.sum()

    now = -1
    while left:
        now += 1
        end = (now + 1) * WINDOW
        left -= _share_port(
            end - WINDOW,
            latency,
            slack,
            bursts,
            segments,
            visit_words,
            first_visit,
            height,
            lanes,
            visit_here,
            visit_taken,
            word_taken,
            header_here,
            word_here,
            port,
            traffic,
            fetched,
            asks,
            queue,
            writers,
            owed,
        )
        for turn in range(size):
            lane = (turn + now) % size
            if not busy[lane]:
                continue
            state = lanes[lane]
            skew = size - 1 - lane
            first_pe = lane * size
            accepted, offered = state[ACCEPTED], state[OFFERED]
            stage, repeated = state[STAGE], state[REPEATED]
            decoded, item, control = state[DECODED], state[TAKEN], state[CONTROL]
            here_at, more = state[AT], state[T_LEFT]
            column, at, kind = state[T_COLUMN], state[T_TIME], state[T_KIND]
            lo, hi, mark = state[T_LO], state[T_HI], state[T_MARK]
            last_entry = script_start[lane + 1]
            while True:
                if column == size:
                    if accepted >= end:
                        break
                    if more == 0:
                        # The next entry of the script.
                        if here_at == last_entry:
                            busy[lane] = False
                            break
                        entry_kind = np.int64(kinds[here_at])
                        kind = np.int64(entry_kind & KIND)
                        if kind <= HIT:
                            # The decoder: a word, if one begins, and one cycle.
                            ready = max(decoded + 1, item)
                            if entry_kind & NEW_WORD:
                                visit = state[VISIT]
                                if visit >= state[R_VISIT]:
                                    break
                                count = visit_words[first_visit[lane] + visit]
                                if count == 0:
                                    word = max(visit_here[lane, visit % RECENT], decoded)
                                else:
                                    if state[WORD] >= state[R_WORDS]:
                                        break
                                    word = max(
                                        visit_here[lane, visit % RECENT],
                                        word_here[lane, state[WORD] % RECENT],
                                        decoded,
                                    )
                                    word_taken[lane, state[FREED] % RECENT] = word
                                    state[FREED] += 1
                                    state[WORD] += 1
                                    state[WORD_OF_VISIT] += 1
                                ready = max(ready, word + 1)
                                if state[WORD_OF_VISIT] == count:
                                    state[WORD_OF_VISIT] = 0
                                    visit_taken[lane, visit % RECENT] = word
                                    state[VISIT] += 1
                                    if segments[lane] == 1:  # the header's place
                                        word_taken[lane, state[FREED] % RECENT] = word
                                        state[FREED] += 1
                            here_at += 1
                            decoded = ready
                            if kind == BUBBLE and not entry_kind & LAST:
                                continue
                            # The token maker takes the item.
                            item = max(max(decoded + 1, control), stage)
                            control = item + 1
                            if kind != HIT:
                                continue
                            stage = max(item + 1, repeated)
                            mark = marks[here_at - 1]
                            more = mark >> 2
                            mark &= 3
                            lo, hi = los[here_at - 1], his[here_at - 1]
                        else:
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
                                control += pad_cycles
                        continue
                    # A token of the second stage goes to the output register.
                    offered = max(max(offered, stage) + 1, accepted)
                    more -= 1
                    if more == 0:
                        repeated = offered
                    column, at = 0, offered

                # The token goes east, column by column, until a full FIFO stops it.
                stopped = False
                while column < size:
                    pe = first_pe + column
                    entry = filled[pe]
                    # Accepted when the element's register is free: its token went both ways.
                    here = max(at + 1, written[pe])
                    if column < size - 1:
                        here = max(here, accepts[pe + 1])
                    queued = here + 1
                    if entry >= depth:
                        if entry - depth >= known[pe]:
                            stopped = True
                            break
                        queued = max(queued, taken[pe, (entry - depth) & ring_mask] + 1)
                    accepts[pe] = here
                    written[pe] = queued
                    if kind == HIT:
                        start = pointers[lane, lo, column]
                        count = pointers[lane, hi, column] - start
                        if count:
                            slot = entry & ring_mask
                            filled[pe] = entry + 1
                            if known[pe] == entry and entry:
                                begins = max(queued + 1, free[pe])
                                if mark & 1:
                                    place = walked[pe] & walk_mask
                                    walks[pe, place, 0] = begins + ADD + skew
                                    walks[pe, place, 1] = start
                                    walks[pe, place, 2] = count
                                    walks[pe, place, 3] = mark >> 1
                                    walked[pe] += 1
                                free[pe] = begins + count
                                pes[pe, WALKED] += count
                                if pes[pe, FIRST_WALK] < 0:
                                    pes[pe, FIRST_WALK] = begins
                                taken[pe, slot] = begins
                                known[pe] = entry + 1
                            else:
                                entries[pe, slot, 0] = queued
                                entries[pe, slot, 1] = count
                                entries[pe, slot, 2] = start
                                entries[pe, slot, 3] = mark
                    else:
                        slot = entry & ring_mask
                        filled[pe] = entry + 1
                        entries[pe, slot, 0] = queued
                        entries[pe, slot, 1] = -kind
                        _walk(
                            pe,
                            skew,
                            ring_rows,
                            ring_mask,
                            row_mask,
                            pes,
                            entries,
                            taken,
                            free,
                            filled,
                            known,
                            row_done,
                            row_drained,
                            walked,
                            walks,
                        )
                    if column == 0:
                        accepted = here
                    at = here
                    column += 1
                if stopped:
                    break
                lo += kernel_width
                hi += kernel_width
            state[ACCEPTED], state[OFFERED] = accepted, offered
            state[STAGE], state[REPEATED] = stage, repeated
            state[DECODED], state[TAKEN], state[CONTROL] = decoded, item, control
            state[AT], state[T_LEFT] = here_at, more
            state[T_COLUMN], state[T_TIME], state[T_KIND] = column, at, kind
            state[T_LO], state[T_HI], state[T_MARK] = lo, hi, mark

        # Columns: a chunk of cycles, seen from the southernmost element.
        for turn in range(size):
            column = (turn + now) % size  # the port is shared out in turn
            channels = column_channels[column]
            if channels == 0:
                for lane in range(size):
                    pe = lane * size + column
                    while pes[pe, DRAINED] < pes[pe, COMPLETED]:
                        # All rows are done at one a cycle.
                        done = row_done[pe, pes[pe, DRAINED] & row_mask] - (size - 1 - lane)
                        row_drained[pe, pes[pe, DRAINED] & row_mask] = done + 1
                        pes[pe, DRAINED] += 1
                        _walk(
                            pe,
                            size - 1 - lane,
                            ring_rows,
                            ring_mask,
                            row_mask,
                            pes,
                            entries,
                            taken,
                            free,
                            filled,
                            known,
                            row_done,
                            row_drained,
                            walked,
                            walks,
                        )
                continue
            if sent[column] == words:
                continue
            idle = True
            for lane in range(size):
                if pes[lane * size + column, COMPLETED] * row_size > sent[column]:
                    idle = False
            if idle:
                rested[column] = True
                owed[column] = max(0, owed[column] - WINDOW)
                continue

            for begin in range(end - WINDOW, end, CHUNK):
                if sent[column] == words:
                    break
                # What the output could send, if the elements have it.
                most = max(0, CHUNK - owed[column])
                if not pool_x.size:
                    owed[column] = max(0, owed[column] - CHUNK)
                else:
                    budget = CHUNK - owed[column]
                    most = 0
                    at = sent[column]
                    while budget > 0 and at < words:
                        place = at // positions_n
                        x, y = place % out_width, (place // out_width) % pool_y.size
                        channel = at % positions_n
                        if channel >= channels:
                            most += positions_n - channel
                            at += positions_n - channel
                            continue
                        cost = max(1, pool_x[x] * pool_y[y])
                        step = min(channels - channel, (budget + cost - 1) // cost)
                        most += step
                        at += step
                        budget -= step * cost
                        if x == out_width - 1 and at % positions_n in (0, channels):
                            budget -= pool_rest[y]
                    most = min(most, CHUNK)
                    owed[column] = max(0, -budget)
                goal = min(sent[column] + most, words)
                late = 0  # cycles of this chunk before the row that all wait for is complete
                for lane in range(size):
                    pe = lane * size + column
                    state = pes[pe]
                    zero, one = _additions(pe, begin, rested[column], seen, walked, walks, adds)
                    debts[pe, 0] += zero
                    debts[pe, 1] += one
                    # Rows complete before the chunk, and within it.
                    ripe = state[AVAILABLE]
                    while ripe < state[COMPLETED] and row_done[pe, ripe & row_mask] <= begin:
                        ripe += 1
                    ready = ripe * row_size
                    wait = 0
                    if ripe < state[COMPLETED]:
                        wait = row_done[pe, ripe & row_mask] - begin
                        if wait >= CHUNK:
                            wait = 0
                        else:
                            ripe += 1
                            while (
                                ripe < state[COMPLETED]
                                and row_done[pe, ripe & row_mask] < begin + CHUNK
                            ):
                                ripe += 1
                    if ready <= sent[column] and ripe * row_size > ready:
                        late = max(late, wait)
                    if ripe * row_size > ready:  # its words come after that, one a cycle
                        goal = min(goal, max(ready, sent[column]) + CHUNK - wait)
                    state[AVAILABLE] = ripe
                    for bank in range(2):
                        read = state[READ_0 + bank]
                        budget = max(0, CHUNK - debts[pe, bank])
                        debts[pe, bank] = max(0, debts[pe, bank] - CHUNK)
                        reads[lane, bank, 0] = read
                        reads[lane, bank, 1] = max(budget, 1)
                        reads[lane, bank, 2] = wait
                        before = _words_of_bank(ready, bank) - read
                        if before < 0:
                            before = 0
                        can = min(budget, before)
                        if ripe * row_size > ready and budget > can:
                            rest = ((CHUNK - wait) * budget + CHUNK - 1) // CHUNK
                            after = _words_of_bank(ripe * row_size, bank) - read - can
                            can += max(0, min(after, min(rest, budget - can)))
                        room = _words_of_bank(goal, bank) + QUEUE - read
                        state[READ_0 + bank] += max(0, min(can, room))
                    goal = min(goal, min(2 * state[READ_0], 2 * state[READ_1] + 1))
                rested[column] = False
                goal = max(goal, sent[column])
                goal = min(goal, sent[column] + CHUNK - late)

                # The rows' words wait for the port, each behind its row's, the header last.
                at = sent[column]
                writer = writers[column]
                while at < goal:
                    row = at // row_size
                    over = (row + 1) * row_size
                    to = min(over, goal)
                    count = out_words[column, row]
                    due = count * (to - row * row_size) // row_size
                    due -= count * (at - row * row_size) // row_size
                    ready = begin + late + SEND + through + at - sent[column]
                    for k in range(due):
                        offer = ready + (k + 1) * (to - at) // due - 1
                        queue[column, writer[W_TAIL] % QUEUED] = 2 * offer
                        writer[W_TAIL] += 1
                    if to == over:
                        for _ in range(out_headers[row]):
                            offer = ready + to - at
                            queue[column, writer[W_TAIL] % QUEUED] = 2 * offer + 1
                            writer[W_TAIL] += 1
                    at = to
                sent[column] = goal

                # No queue holds more than it can; rows that are read.
                for lane in range(size):
                    pe = lane * size + column
                    state = pes[pe]
                    for bank in range(2):
                        state[READ_0 + bank] = min(
                            state[READ_0 + bank], _words_of_bank(goal, bank) + QUEUE
                        )
                    while state[DRAINED] < state[AVAILABLE]:
                        over = (state[DRAINED] + 1) * row_size
                        beyond = max(
                            _words_of_bank(over, 0) - state[READ_0],
                            _words_of_bank(over, 1) - state[READ_1],
                        )
                        if beyond > 0:
                            break
                        # The last word of the row is the k-th that its bank reads in this chunk, at
                        # even distances over the cycles that are free for it.
                        done = row_done[pe, state[DRAINED] & row_mask]
                        for bank in range(2):
                            k = _words_of_bank(over, bank) - reads[lane, bank, 0]
                            if k > 0:
                                room = reads[lane, bank, 1]
                                if state[READ_0 + bank] == _words_of_bank(goal, bank) + QUEUE:
                                    room = max(1, state[READ_0 + bank] - reads[lane, bank, 0])
                                from_ = 0
                                if done > begin:
                                    from_ = reads[lane, bank, 2]
                                done = max(done, begin + from_ + (k * CHUNK + room - 1) // room - 1)
                        done = min(
                            done, max(begin + CHUNK, row_done[pe, state[DRAINED] & row_mask])
                        )
                        row_drained[pe, state[DRAINED] & row_mask] = done + 1 - (size - 1 - lane)
                        state[DRAINED] += 1
                        if known[pe] < filled[pe]:
                            _walk(
                                pe,
                                size - 1 - lane,
                                ring_rows,
                                ring_mask,
                                row_mask,
                                pes,
                                entries,
                                taken,
                                free,
                                filled,
                                known,
                                row_done,
                                row_drained,
                                walked,
                                walks,
                            )
    pes[:, LAST_WALK] = free
    return writers[:, W_LAST].copy(), pes
