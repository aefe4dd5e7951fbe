"""Mapping: which column makes each channel of a map.

The assignment of output channels to columns balances this stage's elements and the lanes of the
stages that read the map at once. Work is counted in cycles, as far as densities are known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["assign_columns"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_MOST_EXCHANGED = 2048  # channels up to which pairs are tried
_MOST_ROUNDS = 8
_TRIALS = 1536  # channels tried for exchange over all rounds


def assign_columns(work: FloatArray, readers: FloatArray | None = None) -> list[IntArray]:
    """Share channels out to columns, at most ceil(channels / lanes) to each.

    Parameters
    ----------
    work
        Work of each channel in each row of its column, shape (channels, lanes).
    readers
        Work of each channel in each place where it is read, or made again, shape (channels, k).

    Returns
    -------
    columns
        Channels of each column, ascending. The greediest channels are placed first, each where
        the sum of squares of all loads grows least (longest processing time first); then pairs
        of channels change places while that lessens the sum. A kind of work weighs as the square
        root of its share, so that imbalance counts in proportion to it.

    Examples
    --------
    >>> work = np.array([[5.0, 5], [1, 1], [4, 4], [2, 2]])
    >>> [column.tolist() for column in assign_columns(work)]
    [[0, 1], [2, 3]]
    """
    channels, lanes = work.shape
    room = -(-channels // lanes)
    # Loads of one scale: the elements of a column, and the lanes that read the columns.
    others = np.zeros((channels, 0)) if readers is None else readers
    sums = np.concatenate([[work.sum()], others.sum(axis=0)])
    weights = np.sqrt(sums / max(1e-9, sums.max())) / np.maximum(1e-9, sums)
    loads = np.concatenate(
        [work * weights[0] * lanes, others * weights[1:] * np.sqrt(lanes)], axis=1
    )
    totals = np.zeros((lanes, loads.shape[1]))
    counts = np.zeros(lanes, np.int64)
    column_of = np.zeros(channels, np.int64)
    for channel in np.argsort(-loads.sum(axis=1), kind="stable").tolist():
        growth = totals @ loads[channel]
        growth[counts >= room] = np.inf
        best = int(np.lexsort((counts, growth))[0])
        column_of[channel] = best
        counts[best] += 1
        totals[best] += loads[channel]
    _exchange(loads, totals, column_of)
    order = np.arange(lanes)
    if not others.any():
        # Nobody reads the columns, and a token reaches them one after another: those first that
        # have most to do.
        fullest = totals[:, :lanes].max(axis=1)
        order = np.argsort(-np.round(fullest / max(1e-9, fullest.max()), 6), kind="stable")
    return [np.flatnonzero(column_of == column) for column in order.tolist()]


def _exchange(loads: FloatArray, totals: FloatArray, column_of: IntArray) -> None:
    """Let pairs of channels change columns while the sum of squared totals falls."""
    channels = len(loads)
    if len(totals) == 1 or channels > _MOST_EXCHANGED:
        return
    squares = (loads**2).sum(axis=1)
    for _ in range(max(1, min(_MOST_ROUNDS, _TRIALS // channels))):
        changed = False
        for one in range(channels):
            # Moving d = other - one here and -d there: 2 d (here - there) + 2 d^2.
            here = column_of[one]
            ahead = totals[here] - totals  # of each column
            along = loads @ ahead.T  # (channels, columns)
            gain = along[np.arange(channels), column_of] - along[one, column_of]
            gain += squares + squares[one] - 2 * (loads @ loads[one])
            gain[column_of == here] = 0
            other = int(np.argmin(gain))
            if gain[other] < -1e-12:
                moved = loads[other] - loads[one]
                totals[here] += moved
                totals[column_of[other]] -= moved
                column_of[one], column_of[other] = column_of[other], here
                changed = True
        if not changed:
            return
