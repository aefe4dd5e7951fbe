"""Mapping: which lane reads, and which column makes, each channel of a map.

What column *j* makes is what row *j* reads in the next layer, so the assignment of output channels
to columns balances this layer's columns and the next layer's rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.stages import Stage

__all__ = ["Placement", "assign_columns", "place_input"]

IntArray = npt.NDArray[np.int64]


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


def assign_columns(work: IntArray, next_work: IntArray, lanes: int) -> list[IntArray]:
    """Share channels out to columns, at most ceil(channels / lanes) to each.

    Parameters
    ----------
    work, next_work
        Work of each channel where it is made and where it is read next, shape (channels,).
    lanes
        Number of columns.

    Returns
    -------
    columns
        Channels of each column, ascending. The greediest channels are placed first, each where
        the sum of squares of both loads grows least (longest processing time first).

    Examples
    --------
    >>> [column.tolist() for column in assign_columns(np.array([5, 1, 4, 2]), np.zeros(4), 2)]
    [[0, 1], [2, 3]]
    """
    channels = work.size
    room = -(-channels // lanes)
    first = work / max(1, work.sum())
    second = next_work / max(1, next_work.sum())
    loads = np.zeros((lanes, 2))
    columns: list[list[int]] = [[] for _ in range(lanes)]
    for channel in np.argsort(-(first + second), kind="stable").tolist():
        growth = 2 * (loads[:, 0] * first[channel] + loads[:, 1] * second[channel])
        counts = np.array([len(column) for column in columns])
        growth[counts >= room] = np.inf
        best = int(np.lexsort((counts, growth))[0])
        columns[best].append(channel)
        loads[best] += first[channel], second[channel]
    return [np.array(sorted(column), np.int64) for column in columns]


def place_input(stage: Stage, work: IntArray, lanes: int) -> Placement:
    """Place the network's input: channels over the lanes, or, if they are few, shared by all."""
    channels = stage.in_shape[0]
    imbalance = -(-channels // lanes) * lanes / channels
    if lanes > 1 and (channels < lanes or imbalance > 1.15):
        return Placement([[np.arange(channels)] * lanes], shared=True)
    return Placement([assign_columns(work, np.zeros_like(work), lanes)])
