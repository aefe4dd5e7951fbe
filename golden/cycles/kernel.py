"""A run in jitted loops: lanes, port and columns go on by turns until all is written."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

from thresher.golden.cycles.columns import advance_columns
from thresher.golden.cycles.compiled import compiled
from thresher.golden.cycles.fetch import begin_load, fetch, load_end
from thresher.golden.cycles.lanes import advance_lanes, words_come
from thresher.golden.cycles.port import share_port
from thresher.golden.cycles.script import read_mask, row_words, write_planes, write_script
from thresher.golden.cycles.state import SENT, SHORT, TURN, W_HEADERS
from thresher.golden.cycles.streams import WINDOW, read_stream

__all__ = [
    "WINDOW",
    "begin_load",
    "fetch",
    "go_on",
    "load_end",
    "read_mask",
    "read_stream",
    "row_words",
    "write_planes",
    "write_script",
]


@compiled
def go_on(run, state):
    """Run all lanes, elements and columns from the start pulse to the last write and sum sent.

    A lane that waited for a word goes on within the turn if the port brings it. A turn is short if
    the port was busy in more than half of the one before.
    """
    now = end = 0
    waits, writers, columns = state.waits, state.writers, state.columns
    fresh = True
    while True:
        if fresh:
            left = 0
            for column in range(waits.size):
                left += writers[column, W_HEADERS]
                if run.channels[column] > 0:
                    left += run.rows * run.row_size - columns[column, SENT]
                waits[column] = True
            if left == 0:
                break
            now, end = end, end + (SHORT if state.port[4] * 2 > end - now else TURN)
        advance_lanes(run, state, end, waits)
        if fresh:
            advance_columns(run, state, end)
            state.port[4] = 0
        share_port(run, state, now, end)
        fresh = not words_come(run, state, end, waits)
