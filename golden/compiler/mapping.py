"""Mapping: which lane reads, and which column makes, each channel of a map.

What column *j* makes is what row *j* reads in the next layer, so the assignment of output channels
to columns balances this layer's columns and the next layer's rows at once. Work is counted in
taps, each as often as its channel's activations are not zero, where that is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.stages import Stage

__all__ = ["Placement", "assign_columns", "place_input"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_MOST_EXCHANGED = 2048  # channels up to which pairs are tried
_ROUNDS = 8


@dataclass(frozen=True)
class Placement:
    """Where the channels of a map lie.

    Parameters
    ----------
    segments
        ``segments[s][lane]``: channels of segment ``s`` in that lane, in stream order.
    shared
        Every lane reads the same single stream, ``segments[0][0]``; taps are shared out instead.
    """

    segments: list[list[IntArray]]
    shared: bool = False

    def lane(self, lane: int) -> IntArray:
        """All channels that a lane reads, in order."""
        if self.shared:
            return self.segments[0][0]
        return np.concatenate([segment[lane] for segment in self.segments])


def assign_columns(work: FloatArray, next_work: FloatArray) -> list[IntArray]:
    """Share channels out to columns, at most ceil(channels / lanes) to each.

    Parameters
    ----------
    work
        Work of each channel in each row of its column, shape (channels, lanes).
    next_work
        Work of each channel where it is read next, shape (channels,).

    Returns
    -------
    columns
        Channels of each column, ascending. The greediest channels are placed first, each where
        the sum of squares of all loads grows least (longest processing time first); then pairs
        of channels change places while that lessens the sum.

    Examples
    --------
    >>> work = np.array([[5.0, 5], [1, 1], [4, 4], [2, 2]])
    >>> [column.tolist() for column in assign_columns(work, np.zeros(4))]
    [[0, 1], [2, 3]]
    """
    channels, lanes = work.shape
    room = -(-channels // lanes)
    # Loads of one scale: the elements of a column, and the lane that reads the column next.
    loads = np.concatenate(
        [
            work / max(1e-9, work.sum()) * lanes,
            next_work[:, None] / max(1e-9, next_work.sum()) * np.sqrt(lanes),
        ],
        axis=1,
    )
    totals = np.zeros((lanes, lanes + 1))
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
    return [np.flatnonzero(column_of == column) for column in range(lanes)]


def _exchange(loads: FloatArray, totals: FloatArray, column_of: IntArray) -> None:
    """Let pairs of channels change columns while the sum of squared totals falls."""
    channels = len(loads)
    if len(totals) == 1 or channels > _MOST_EXCHANGED:
        return
    for _ in range(_ROUNDS):
        changed = False
        for one in range(channels):
            here = column_of[one]
            moved = loads - loads[one]  # what each other channel would bring here
            there = column_of
            gain = ((totals[here] + moved) ** 2).sum(axis=1) - (totals[here] ** 2).sum()
            gain += ((totals[there] - moved) ** 2).sum(axis=1) - (totals[there] ** 2).sum(axis=1)
            gain[there == here] = 0
            other = int(np.argmin(gain))
            if gain[other] < -1e-12:
                totals[here] += moved[other]
                totals[there[other]] -= moved[other]
                column_of[one], column_of[other] = column_of[other], here
                changed = True
        if not changed:
            return


def place_input(stage: Stage, work: FloatArray, lanes: int) -> Placement:
    """Place the network's input: channels over the lanes, or, if they are few, shared by all."""
    channels = stage.in_shape[0]
    imbalance = -(-channels // lanes) * lanes / channels
    if lanes > 1 and (channels < lanes or imbalance > 1.15):
        return Placement([[np.arange(channels)] * lanes], shared=True)
    return Placement([assign_columns(np.zeros((channels, lanes)), work)])
