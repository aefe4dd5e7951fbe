"""What a lane does in a run, entry by entry: words, items, tokens and markers, without times."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201, PLR0912, PLR0915, PLR0917

from __future__ import annotations

import numpy as np

from thresher.golden.cycles.compiled import allocating

__all__ = [
    "BUBBLE", "COMPLETE", "COMPLETES", "END_ROW", "HIT", "KIND", "LAST", "NEW_MAP", "NEW_WORD",
    "OPEN", "REPEAT", "ROW", "STEP", "TOKENS", "read_mask", "row_words", "write_planes",
    "write_script",
]  # fmt: skip

# An entry is a cycle of the decoder, or a step of the token maker's sequence.
BUBBLE, STEP, HIT, REPEAT, OPEN, COMPLETE, ROW, TOKENS, END_ROW, NEW_MAP = range(10)
KIND = 15
COMPLETES = 2  # last number of a COMPLETE's entry
NEW_WORD = 16  # with BUBBLE, STEP, HIT: a word begins
LAST = 32  # with them: a visit ends
HEADER_MASK = (1 << 20) - 1  # of a row's header: its words


@allocating
def read_mask(image, at, word, rows, count, run_bits, pair_bits, pairs):
    """Return which of the values of a map's coded rows are not zero, shape (rows * count,).

    ``image`` are bytes, ``at`` the first header's, ``word`` is the bytes of a word; each row has
    ``count`` values in pairs of ``pair_bits``, see :mod:`thresher.golden.codes.rlc`.
    """
    mask = np.zeros(rows * count, np.uint8)
    for row in range(rows):
        words = np.int64(0)
        for k in range(word - 3, word):
            words = words << 8 | np.int64(image[at + k])
        at += word
        value_at, end = row * count, (row + 1) * count
        for _ in range(words & HEADER_MASK):
            for pair in range(pairs):
                # Its lowest bit lies in byte ``lowest`` of the word, which is big-endian.
                lowest = at + word - 1 - (pair * pair_bits >> 3)
                bits = np.int64(0)
                for k in range(max(at, lowest - 4), lowest + 1):
                    bits = bits << 8 | np.int64(image[k])
                bits = bits >> (pair * pair_bits & 7) & (1 << pair_bits) - 1
                value_at += bits & (1 << run_bits) - 1
                if value_at >= end:
                    break
                mask[value_at] = bits >> run_bits != 0
                value_at += 1
            at += word
    return mask


@allocating
def row_words(mask, rows, max_run, pairs):
    """Return the words of each row's code, headers excluded, and its continuation pairs.

    The rows are of equal size.
    """
    counts, continued = np.zeros((2, rows), np.int64)
    size = mask.size // max(1, rows)
    for row in range(rows):
        zeros = count = 0
        for at in range(row * size, (row + 1) * size):
            if mask[at]:
                continued[row] += zeros // (max_run + 1)
                count += zeros // (max_run + 1) + 1
                zeros = 0
            else:
                zeros += 1
        counts[row] = (count + pairs - 1) // pairs
    return counts, continued


@allocating
def write_planes(taps, banks, gate):
    """Return for each bank which taps add to it, a bit each, the lowest of a byte first.

    uint8, shape (banks, taps / 8 + 9): 64 bits can be read from any tap's byte on.
    ``taps`` are the lowest two bits of their offsets, and 4 more if their weight is zero; the base
    lies in bank 0. Taps of weight zero add nothing with ``gate``.
    """
    planes = np.zeros((banks, (taps.size >> 3) + 9), np.uint8)
    for tap in range(taps.size):
        if not (gate and taps[tap] & 4):
            planes[taps[tap] & banks - 1, tap >> 3] |= 1 << (tap & 7)
    return planes


@allocating
def write_script(
    mask, segments, maps, y_table, x_table, markers, geometry, pointers, send_zeros, gate,
    max_run, pairs,
):  # fmt: skip
    """Write a lane's script.

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
    pointers
        Start pointers, one more than groups.

    Returns
    -------
    entries
        Kind and flags; of a HIT and the REPEATs behind it the groups ``lo``, ``hi`` (0: no token),
        and the lowest two bits of the base * 2 + whether it adds. Shape (entries, 4).
    visit_words
        Words of each visit.
    taken
        How often each group is taken, shape (groups,).
    """
    (row_size, positions, map_size, channel_groups, phase_groups, kernel_width) = geometry[:6]
    stride_x, round_groups = geometry[6:]
    height, width = y_table.shape[0], x_table.shape[0]
    visit_words = np.zeros(segments.size * height * maps, np.int64)
    ones = mask.size
    if not send_zeros:
        ones = mask.size // (max_run + 1)
        for value in mask:
            ones += value
    steps = visit_words.size * (width + 1)
    repeated = 0  # at most
    for _, _, low_y, high_y in y_table:
        for _, _, low_x, high_x in x_table:
            if low_x > 0 or high_x < kernel_width - 1:
                repeated += max(0, high_y - low_y) * segments.sum()
    steps += (repeated + markers.sum() + 4 * height + 1) * maps
    entries = np.zeros((ones + steps, 4), np.int32)
    taken = np.zeros(pointers, np.int64)  # less those of the group before
    los, his, marks, repeats = np.zeros((4, width), np.int64)
    places = np.zeros(width * segments.max() if segments.size else 0, np.int64)  # of a row's values
    count = at = visit = 0
    for m in range(maps):
        if m:
            entries[count, 0] = NEW_MAP
            count += 1
        for y in range(height):
            entries[count, 0] = ROW
            count += 1
            for _ in range(markers[y, 0]):
                entries[count, 0] = OPEN
                count += 1
            entries[count, 0] = TOKENS
            count += 1

            # What a hit of channel 0 meets at each position of this row.
            place_y, phase_y, low_y, high_y = y_table[y]
            for x in range(width):
                place_x, phase_x, low_x, high_x = x_table[x]
                first = m * round_groups + (phase_y * stride_x + phase_x) * phase_groups
                first += low_y * kernel_width
                repeats[x] = 0
                los[x], his[x] = first + low_x, first + high_x + 1
                if low_y <= high_y and low_x <= high_x:
                    repeats[x] = high_y - low_y + 1
                    if low_x == 0 and high_x == kernel_width - 1:
                        los[x], his[x] = first, first + repeats[x] * kernel_width
                        repeats[x] = 1
                base = m * map_size + place_y * row_size + place_x * positions
                marks[x] = (base & 3) * 2

            first_channel = 0
            for channels in segments:
                begin = count
                coded = -1  # element of the pair before
                pair = here = channel = x = 0  # here: position of the decoder
                for e in range(width * channels):
                    value = mask[at + e]
                    places[e] = count
                    if value or send_zeros:
                        flag = 0
                        # The pairs of the zeros before it, and its own.
                        while value and coded < e:
                            last = coded
                            coded = min(coded + max_run + 1, e)
                            flag = NEW_WORD if pair % pairs == 0 else 0
                            pair += 1
                            if send_zeros:
                                entries[places[last + 1], 0] |= flag
                                continue
                            to = x if coded == e else coded // channels
                            for _ in range(to - here - 1):
                                entries[count, 0] = STEP | flag
                                flag = 0
                                count += 1
                            if coded < e:
                                entries[count, 0] = (STEP if to > here else BUBBLE) | flag
                                count += 1
                            here = to
                        group = (first_channel + channel) * channel_groups
                        lo, hi = group + los[x], group + his[x]
                        if send_zeros:
                            entries[count, 0] |= HIT  # its word may begin before its pair
                        else:
                            entries[count, 0] = HIT | flag
                        for number in range(max(1, repeats[x])):
                            if number:
                                entries[count, 0] = REPEAT
                            if repeats[x]:
                                entries[count, 1], entries[count, 2] = lo, hi
                                entries[count, 3] = marks[x] | (0 if gate and not value else 1)
                                taken[lo] += 1
                                taken[hi] -= 1
                            count += 1
                            lo, hi = lo + kernel_width, hi + kernel_width
                    channel += 1
                    if channel == channels:
                        channel = 0
                        x += 1
                if count == begin:
                    entries[count, 0] = BUBBLE
                    count += 1
                entries[begin, 0] |= NEW_WORD
                entries[count - 1, 0] |= LAST
                visit_words[visit] = (pair + pairs - 1) // pairs
                visit += 1
                at += width * channels
                first_channel += channels
            for k in range(markers[y, 1]):
                if k >= markers[y, 1] - markers[y, 2]:
                    entries[count, 0] = OPEN
                    count += 1
                entries[count, 0], entries[count, 3] = COMPLETE, COMPLETES
                count += 1
            entries[count, 0] = END_ROW
            count += 1
    return entries[:count], visit_words, np.cumsum(taken)[:-1]
