"""What the loops of a run work on: its constants, and the state of its parts, as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from thresher.golden.cycles.latencies import (
    QUEUE,
    SEVERAL_START,
    SINGLE_START,
)

__all__ = [
    "FAR",
    "KEPT",
    "LEFT",
    "SHORT",
    "TURN",
    "Run",
    "State",
    "new_state",
]

TURN = 48  # cycles for which lanes, port and columns go on by turns
SHORT = 6  # the same while the port is busy: no more than a word takes from its request to its use
KEPT = 32  # words and visits of a lane that are remembered; more than RowReader's WORDS
HEADERS = 512  # headers that have come; at least twice the segments of a lane
QUEUED = 256  # words of a column that wait for the port
LEFT = 256  # cycles for which the port's use is remembered
FAR = 1 << 60
NEVER = 1 << 30  # the same of a number of 32 bits
LEAST_PLACES = 8  # of a vector

# State of a lane: next entry; when the decoder, token maker, its stages and output moved last; its
# word and visit. Of the row reader when it can go on, the burst, its phase, what is left of it,
# headers, words asked for, visit, ... T: the token on its way east, its column, when it is there.
(
    AT, DECODED, TAKEN, CONTROL, STAGE, REPEATED, OFFERED, WORD, VISIT, WORD_OF_VISIT,
    R_TIME, R_BURST, R_PHASE, R_LEFT, R_HEADERS, R_ASKED, R_VISIT, R_EMPTY, R_WORDS, R_STALE, R_END,
    R_BURSTS, FREED,
    T_COLUMN, T_TIME, T_ENTRY, LANE_FIELDS,
) = range(27)  # fmt: skip

# State of a row of elements, a number a column: when each accepted its last token and put it into
# its FIFO, when its walker is free; tokens that the FIFO took, how many of them wait for a row's
# drain.
ACCEPT, WRITTEN, FREE, FILLED, WAITING, ROW_FIELDS = range(6)

# State of a column of elements, a number a lane: rows opened, complete, drained; in which cycles no
# tap adds to each bank is known from BASE on, of the first KNOWN tokens, those before TOKEN over;
# from when on it is to be known.
OPENED, COMPLETED, DRAINED, BASE, KNOWN, TOKEN, ASKED, SOUTH_FIELDS = range(8)

# A token in an element: when its walker takes it (not known yet: when it came), its first tap, how
# many, and the lowest bits of its base << 1 | it adds, or less the kind of a marker.
WHEN, START, COUNT, MARK, TOKEN_FIELDS = range(5)
PADDING = 16

# State of the readers of a column, a number for each bank and lane: next word less the bank's
# number, its row, last read.
B_WORD, B_ROW, B_LAST, READER_FIELDS = range(4)

# Of a lane's words and visits: when they came, when they were taken.
WORD_HERE, WORD_TAKEN, VISIT_HERE, VISIT_TAKEN, HISTORY_FIELDS = range(5)

# State of a column: words sent, when the next one and when the next value can be, the word's
# channel, x, row of the map and row of the run; parts of a coded word and of a cycle that a long
# run of zeros costs.
SENT, NEXT, FREE_AT, CHANNEL, X, Y, ROW_NUMBER, PART, CONTINUED, COLUMN_FIELDS = range(10)

# State of a row writer: words that wait for the port, when it is free for one, headers to come.
W_HEAD, W_TAIL, W_FREE, W_HEADERS, W_LAST, WRITER_FIELDS = range(6)


# State of a weight fetcher and its loader: next chunk, when it asks for the next word, how late the
# stream is, when the last chunk went to the window, words; when the last chunks were used, when the
# last words had been taken.
L_CHUNK, L_ASK, L_LATE, L_QUEUED, L_WORD, L_USED, L_TAKEN, FETCHER_FIELDS = 0, 1, 2, 3, 4, 5, 8, 16

# State of a reader of operands, whose headers count as words: words asked for, when it can ask for
# one more, words taken, parts of one, all words; when the last words came and were taken.
O_ASKED, O_TIME, O_TAKEN, O_PART, O_TOTAL = range(5)
O_HERE, O_LEFT, OPERAND_FIELDS = 5, 37, 69
OPERANDS_KEPT = 32


class Run(NamedTuple):
    """Constants of a run.

    Parameters
    ----------
    entries, scripts
        Scripts, one behind the other, see :func:`write_script`; first and last entry of each
        lane's, shape (P, 2).
    segments, visit_words, first_visit
        Segments of each lane; words of each visit, first visit of each lane.
    height, maps
        Rows of a map, maps.
    pointers
        Start pointers of an element, groups + 1.
    starts
        Start pointers of the elements, counted over all of them, by row, group and column: shape
        (P * (groups + 1) * P,), and more that a vector reaches.
    planes, plane
        Which taps add to each bank, a bit each, see :func:`write_planes`; bytes of a bank.
    channels
        Output channels of each column.
    output_cycles
        Cycles that a value takes in the requantiser.
    pool_window, pool_several
        Cycles of a value in the pooler for each of its windows, and more if they are several.
    pool_place, pool_sends
        Cycles after each position, and windows that end with it.
    pool_ends
        Whether windows end with each output row.
    pool_y, pool_x, pool_rest
        Windows that each output row, position lies in; cycles after each row. Empty: no pooling.
    out_words, out_headers
        Words that each column writes for the windows that each output row ends, shape (P, rows),
        and the headers, shape (rows,).
    out_continued
        Cycles of each row in which the encoder takes no value, shape (P, rows).
    operand_words
        Words of the operand that each column takes with each output row, headers included: shape
        (P, rows), or (0, 0) if nothing is added.
    operands_ahead
        Words of it that are asked for and not taken, at most.
    program
        When each word of the program is asked for, shape (words,).
    through
        Cycles from a word's sending to the last word of its row on offer to the port.
    needs, load_starts, load_cycles
        Loads that may share the port: the cycle in which each chunk is needed; first chunk of each
        load's columns, shape (loads, P + 1); cycles of these, shape (loads, P).
    load_begins
        When each load's record can have been read; the cycles for which it is read behind the load
        before; words of the program before it and up to its end: shape (loads, 4). The first one is
        under way if it has started.
    chunks, compact
        Chunks of a word; whether the loaders are compact.
    fetch_latency, load_rest
        Of the memory, for a fetcher; cycles from a load's last write until the next can begin.
    """

    entries: Any
    scripts: Any
    segments: Any
    visit_words: Any
    first_visit: Any
    height: int
    maps: int
    pointers: int
    starts: Any
    planes: Any
    plane: int
    channels: Any
    row_size: int
    positions_n: int
    rows: int
    out_width: int
    ring_rows: int
    fifo_depth: int
    banks: int
    kernel_width: int
    input_cycles: int
    latency: int
    output_cycles: int
    pool_y: Any
    pool_x: Any
    pool_rest: Any
    pool_ends: Any
    pool_sends: Any
    pool_window: int
    pool_several: int
    pool_place: int
    out_words: Any
    out_headers: Any
    out_continued: Any
    operand_words: Any
    operands_ahead: int
    program: Any
    through: int
    needs: Any
    load_starts: Any
    load_cycles: Any
    load_begins: Any
    chunks: int
    compact: bool
    fetch_latency: int
    load_rest: int


class State(NamedTuple):
    """State of all parts.

    Parameters
    ----------
    lanes
        Of lanes and their readers, shape (P, LANE_FIELDS).
    history, headers
        When a lane's last words and visits came and were taken, shape (P, KEPT, HISTORY_FIELDS);
        when its last headers came, shape (P, HEADERS).
    places
        0, 1, ... of the lanes and columns, or more: their number W is that of a vector.
    east
        Of the rows of elements, shape (P * ROW_FIELDS * W,), int32.
    fifos
        The last tokens of each element by column and lane, shape (W * W * ring,), int32.
    drains
        The bank of each reader of a column, by bank and lane: R = banks * W of them.
    south
        Of the columns of elements, shape (P * SOUTH_FIELDS * W,), int32.
    done, gone
        Of the last rows in each element: its first read, its last one, in the time of the southern
        end of the column. Shape (P * rows * W,), int32.
    tokens, rows
        How many are kept, powers of two.
    ring
        Numbers of an element's tokens, and a few so that not all lie in the same cache set.
    readers
        Of the columns' readers, shape (P * READER_FIELDS * R,), int32.
    free
        In which cycles no tap adds to each bank, a bit each: uint64, shape (P * R,).
    columns
        Shape (P, COLUMN_FIELDS).
    ready, gave_way
        Of the next words of a column: when each lane has it; when the word before left its place,
        the same for all lanes. Shape (P * words * W,), int32.
    port
        Client served last; load in hand; end of the turn; words of the program; words in this turn.
    asks
        Since when each client asks: row readers, weight fetchers, the program's, readers of
        operands if something is added, writers; and more that a vector reaches, who never do.
    granted
        Cycles in which the port was taken, the last LEFT.
    program
        When each word of the program got the port, and is taken: shape (words, 2).
    fetchers, load_times
        Shape (P, FETCHER_FIELDS); when each load starts and ends, FAR: not yet, shape (loads, 2).
    operands
        Readers of operands, shape (P, OPERAND_FIELDS).
    queue, writers
        Words that wait for the port, the writers.
    waits, some, have, held
        Of lanes and of columns within a turn, see there.
    """

    lanes: Any
    history: Any
    headers: Any
    places: tuple[int, ...]
    east: Any
    fifos: Any
    drains: tuple[int, ...]
    south: Any
    done: Any
    gone: Any
    tokens: int
    ring: int
    rows: int
    readers: Any
    free: Any
    columns: Any
    ready: Any
    gave_way: Any
    port: Any
    asks: Any
    granted: Any
    program: Any
    fetchers: Any
    load_times: Any
    operands: Any
    queue: Any
    writers: Any
    waits: Any
    some: Any
    have: Any
    held: Any


def _power(value: int) -> int:
    return 1 << max(1, value - 1).bit_length()


def new_state(run: Run) -> State:
    """Return the state at the start pulse."""
    size = run.segments.size

    def zeros(*shape: int) -> Any:
        return np.zeros((size, *shape), np.int64)

    lanes = zeros(LANE_FIELDS)
    lanes[:, AT] = run.scripts[:, 0]
    lanes[:, T_COLUMN] = size
    lanes[:, CONTROL] = run.input_cycles
    single = run.segments == 1
    lanes[:, R_TIME] = np.where(single, SINGLE_START, SEVERAL_START)
    visits = np.where(single, run.height, run.segments * (run.height + 1))
    lanes[:, R_BURSTS] = visits * run.maps
    operands = zeros(OPERAND_FIELDS)
    operands[:, O_TIME] = SINGLE_START
    if run.operand_words.size:
        operands[:, O_TOTAL] = run.operand_words.sum(axis=1)
    writers = zeros(WRITER_FIELDS)
    writers[:, W_LAST] = -1
    writers[:, W_HEADERS] = np.where(run.channels > 0, run.out_headers.sum(), 0)
    places = tuple(range(max(size, LEAST_PLACES)))
    drains = tuple(bank for bank in range(run.banks) for _ in places)
    readers = zeros(READER_FIELDS, len(drains))
    readers[:, B_ROW] = np.array(drains) // run.row_size
    readers[:, B_LAST] = -1
    clients = (4 if run.operand_words.size else 3) * size + 1
    south = zeros(SOUTH_FIELDS, len(places))
    south[:, BASE] = -NEVER
    rows = _power(min(run.ring_rows, run.rows) + 2)
    tokens = _power(2 * run.fifo_depth + 3 * TURN)
    ring = tokens * TOKEN_FIELDS + PADDING
    return State(
        lanes=lanes,
        history=zeros(KEPT, HISTORY_FIELDS),
        headers=zeros(HEADERS),
        places=places,
        east=np.zeros(size * ROW_FIELDS * len(places), np.int32),
        fifos=np.zeros(len(places) ** 2 * ring, np.int32),
        drains=drains,
        south=south.astype(np.int32).ravel(),
        done=np.zeros(size * rows * len(places), np.int32),
        gone=np.zeros(size * rows * len(places), np.int32),
        tokens=tokens,
        ring=ring,
        rows=rows,
        readers=readers.astype(np.int32).ravel(),
        free=np.zeros(size * len(drains), np.uint64),
        columns=zeros(COLUMN_FIELDS),
        ready=np.zeros(size * QUEUE * len(drains), np.int32),
        gave_way=np.full(size * QUEUE * len(drains), -1, np.int32),
        port=np.array([-1, 0, 0, 0, 0]),  # the first lane is next: others had it before
        asks=np.full(len(places) * -(-clients // len(places)), FAR),
        granted=np.full(LEFT, -1),
        program=np.zeros((run.program.size, 2), np.int64),
        fetchers=zeros(FETCHER_FIELDS),
        load_times=np.full((len(run.load_begins), 2), FAR),
        operands=operands,
        queue=zeros(QUEUED),
        writers=writers,
        waits=np.ones(size, np.bool_),
        some=np.zeros(size, np.bool_),
        have=zeros(),
        held=np.zeros(size, np.bool_),
    )
