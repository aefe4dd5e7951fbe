"""A column's weight stream in a jitted loop: which bits the loader takes when, what it writes."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import compiled, u
from thresher.golden.cycles.latencies import (
    BEHIND,
    BUILD,
    CODE,
    COMPACT_CHUNK,
    ESCAPED,
    FINISH,
    OFFERED,
    OFFERED_ESCAPE,
    PIPELINE,
    PUT,
    STEADY,
)

__all__ = ["WINDOW", "read_stream"]

GROUPS_BITS, PAIRS_BITS = 16, 20  # before the pairs of an element, docs/interfaces.md
WINDOW = 5  # bytes that hold the longest pair


@compiled
def _bits(data, at, count):
    """Return ``count`` bits of big-endian bytes from bit ``at`` on, at most 32."""
    value = np.int64(0)
    for k in range(WINDOW):
        value = value << 8 | np.int64(data[u((at >> 3) + k)])
    return value >> 8 * WINDOW - (at & 7) - count & (1 << count) - 1


@compiled
def _need(at, bits, now, needs, known, chunk):
    """Note which chunks bits from ``at`` on need in cycle ``now``; return how many are known.

    A compact loader has the chunk behind the one in which they begin, too.
    """
    reach = (at // chunk + 2) * chunk if chunk == COMPACT_CHUNK else at + bits
    while known * chunk < reach and known < needs.size:
        needs[u(known)] = now
        known += 1
    return known


@compiled
def _field(at, bits, now, needs, known, chunk):
    """Read a field in a cycle; a compact loader waits for one more after a chunk's last bit."""
    if bits == 0:
        return at, now, known
    known = _need(at, bits, now, needs, known, chunk)
    ends = chunk == COMPACT_CHUNK and (at + bits) // chunk > at // chunk
    return at + bits, now + (2 if ends else 1), known


@compiled
def read_stream(data, bits, cycles, runs, indices, nothing, geometry, first, pointers, low, needs):
    """Read the stream of a column.

    Parameters
    ----------
    data
        Bytes of the stream, WINDOW more than there are.
    bits, cycles
        Of each field before the first row: its bits, and cycles that pass after it.
    runs, indices
        Of both codes: symbol and length of each window, and its width.
    nothing
        Whether an index stands for a tap that adds nothing.
    geometry
        Escape, N (at least 1), kernel_height, kernel_width, row_size, bits of a reader's chunk.
    first
        Number of the first tap.
    pointers
        To write: start pointers of each row, shape (P, groups + 1).
    low
        To write: lowest two bits of each tap's offset; 4: it adds nothing.
    needs
        To write: the cycle in which each chunk is needed if none was waited for, shape (chunks,).

    Returns
    -------
    taps, groups, cycles, chunks
        Taps, -1 if the stream is not whole; groups of the longest row; cycles from the first field
        to the last write; chunks that are needed.
    """
    run_symbols, run_lengths, run_width = runs
    index_symbols, index_lengths, index_width = indices
    escape, channels, kernel_height, kernel_width, row_size, chunk = geometry
    size = 8 * (data.size - WINDOW)
    kernel = kernel_height * kernel_width
    compact = chunk == COMPACT_CHUNK
    tap = most = now = known = at = np.int64(0)
    free = begun = np.int64(0)  # when the writer takes another item, and began with the row before
    for k in range(bits.size):
        at, now, known = _field(at, bits[k], now, needs, known, chunk)
        now += cycles[k]
    for row in range(pointers.shape[0]):
        if at + GROUPS_BITS + PAIRS_BITS > size:
            return np.int64(-1), most, now, known
        groups = _bits(data, at, GROUPS_BITS)
        pairs = _bits(data, at + GROUPS_BITS, PAIRS_BITS)
        if groups >= pointers.shape[1]:
            return np.int64(-1), most, now, known
        most = max(most, groups)
        pointers[row, 0] = first + tap
        if not compact:
            now = max(now, begun)  # the fields of one row wait for the writer
        at, now, known = _field(at, GROUPS_BITS, now, needs, known, chunk)
        ended = now
        if compact:
            at, now, known = _field(at, PAIRS_BITS - chunk, now, needs, known, chunk)
            at, now, known = _field(at, chunk, now, needs, known, chunk)
            ended = now - 1
            now += CODE - 1  # the first code's end
        else:
            at, now, known = _field(at, PAIRS_BITS, now, needs, known, chunk)
            begun = max(now, free + PIPELINE)
            if row == 0:
                now += BUILD

        # Pairs. ``now`` is when the next pair's bits are taken; of a compact loader, its first
        # code's. ``free`` is when the writer takes another one, ``gone`` when the decoder is free.
        group = opened = np.int64(0)  # of the position; groups whose start pointer is written
        left = channels  # positions that are left of the group
        entered = np.int64(0 if compact else -1)
        last = np.int64(-1)  # group of the last tap
        shift = np.int64(0)  # of the group's first offset
        gone = now
        free = now if compact else max(free, now)
        for _ in range(pairs):
            window = _bits(data, at, run_width + index_width)
            run = run_symbols[u(window >> index_width)]
            if run < 0:
                return np.int64(-1), most, now, known
            length = run_lengths[u(window >> index_width)]
            index = np.int64(0)
            if run < escape:
                window = window << length >> run_width & (1 << index_width) - 1
                index = index_symbols[u(window)]
                if index < 0:
                    return np.int64(-1), most, now, known
            left -= run
            if run < escape:
                left -= 1
            # The group of the last position passed.
            while left < 0:
                left += channels
                group += 1

            if compact:
                # Two codes, one after the other; an escape has no bits of an index.
                now = max(now, gone)
                known = _need(at, length, now - STEADY, needs, known, chunk)
                ends = (at + length) // chunk - at // chunk
                at += length
                now += CODE + ends
                if run < escape:
                    length = index_lengths[u(window)]
                    known = _need(at, length, now - STEADY, needs, known, chunk)
                    ends = (at + length) // chunk - at // chunk
                    at += length
                    gone = max(now + OFFERED, free)
                    ended = now
                    now += CODE + ends
                else:
                    gone = max(now + OFFERED_ESCAPE, free)
                    now += ESCAPED
                free = gone + PUT + group - entered
            else:
                if run < escape:
                    length += index_lengths[u(window)]
                known = _need(at, length, now, needs, known, chunk)
                at += length
                free = max(now, free) + 1
                if group > entered + 1:
                    free += group - entered - 1
                now = max(now + 1, free - BEHIND)
            entered = group
            if run == escape:
                continue
            if at > size or group >= groups:
                return np.int64(-1), most, now, known
            if group > last:
                last = group
                while opened < group:
                    opened += 1
                    pointers[row, opened] = first + tap
                place = group % kernel
                shift = place // kernel_width * row_size + place % kernel_width * channels
            low[u(tap)] = 4 if nothing[index] else channels - 1 - left - shift & 3
            tap += 1
        pointers[row, opened + 1 :] = first + tap
        if compact:
            now = max(ended + FINISH, free) + groups - max(last, 0) + 1
        else:
            free = max(now, free) + groups - last
            now = max(now + 1, free - BEHIND)
    if not compact:
        now = free + PIPELINE
    return tap, most, now, known
