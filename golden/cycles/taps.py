"""What a load leaves in the elements, read from the weight streams in a jitted loop."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import compiled, u
from thresher.golden.cycles.latencies import ELEMENT, PIPELINE, STEP

__all__ = ["read_rows"]

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
def read_rows(data, at, runs, indices, nothing, geometry, first, pointers, low, costs, bits):
    """Read the rows of a column from bit ``at`` of its stream on.

    Parameters
    ----------
    data
        Bytes of the stream, WINDOW more than there are.
    runs, indices
        Of both codes: symbol and length of each window, and its width.
    nothing
        Whether an index stands for a tap that adds nothing.
    geometry
        Escape, N (at least 1), kernel_height, kernel_width, row_size, cycles of a pair.
    first
        Number of the first tap.
    pointers
        To write: start pointers of each row, shape (P, groups + 1).
    low
        To write: lowest two bits of each tap's offset; 4: it adds nothing.
    costs, bits
        To write: cycles of each row in the loader, and the bit at which it ends.

    Returns
    -------
    taps, groups
        How many there are, -1 if the stream is not whole; groups of the longest row.
    """
    run_symbols, run_lengths, run_width = runs
    index_symbols, index_lengths, index_width = indices
    escape, channels, kernel_height, kernel_width, row_size, pair_cycles = geometry
    size = 8 * (data.size - WINDOW)
    kernel = kernel_height * kernel_width
    tap = np.int64(0)
    most = np.int64(0)
    step = STEP if pair_cycles > 1 else 0
    for row in range(costs.size):
        if at + GROUPS_BITS + PAIRS_BITS > size:
            return np.int64(-1), most
        groups = _bits(data, at, GROUPS_BITS)
        pairs = _bits(data, at + GROUPS_BITS, PAIRS_BITS)
        at += GROUPS_BITS + PAIRS_BITS
        if groups >= pointers.shape[1]:
            return np.int64(-1), most
        most = max(most, groups)
        pointers[row, 0] = first + tap
        group = opened = np.int64(0)  # of the position; groups whose start pointer is written
        left = channels  # positions that are left of the group
        entered = np.int64(-1)
        last = np.int64(-1)  # group of the last tap
        shift = np.int64(0)  # of the group's first offset
        cost = np.int64(0)
        for _ in range(pairs):
            window = _bits(data, at, run_width + index_width)
            run = run_symbols[u(window >> index_width)]
            if run < 0:
                return np.int64(-1), most
            length = run_lengths[u(window >> index_width)]
            left -= run
            at += length
            if run < escape:
                window = window << length >> run_width & (1 << index_width) - 1
                left -= 1
            # The group of the last position passed.
            while left < 0:
                left += channels
                group += 1
            cost += max(pair_cycles, group - entered + step)
            entered = group
            if run == escape:
                continue
            index = index_symbols[u(window)]
            if index < 0 or at > size or group >= groups:
                return np.int64(-1), most
            at += index_lengths[u(window)]
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
        costs[row] = ELEMENT + cost + PIPELINE + groups - last
        bits[row] = at
    return tap, most
