"""A run in jitted loops: lanes, port and columns go on by turns until all is written."""

# numba's decorators are untyped, and each function is a part of the machine with arrays as state.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numba
import numpy as np

from thresher.golden.cycles.columns import advance_columns
from thresher.golden.cycles.lanes import advance_lanes, words_come
from thresher.golden.cycles.port import share_port
from thresher.golden.cycles.script import row_words, write_script, write_skips
from thresher.golden.cycles.state import TURN, W_HEADERS

__all__ = ["go_on", "row_words", "write_script", "write_skips"]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def go_on(run, state):
    """Run all lanes, elements and columns from the start pulse to the last write.

    A lane that waited for a word goes on within the turn if the port brings it.
    """
    now = 0
    waits = np.zeros(run.segments.size, np.bool_)
    while state.writers[:, W_HEADERS].sum() > 0:
        end = now + TURN
        waits[:] = True
        advance_lanes(run, state, end, waits)
        advance_columns(run, state, end)
        share_port(run, state, now, end)
        while words_come(run, state, end, waits):
            advance_lanes(run, state, end, waits)
            share_port(run, state, now, end)
        now = end
