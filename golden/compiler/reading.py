"""Reading: which lanes read which stored streams, and how they share out the taps.

A stream is what a column wrote of one pass, or a part of the network's input. Several lanes may
read the same one; then each output's taps of its channels are dealt out among those lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Reading", "Stream", "deal", "level", "readings", "shares"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_SWEEPS = 24
_EXCHANGES = 8  # most, of things that were dealt
_LEVEL = 0.004  # of what a receiver should get: level enough


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stored stream as a stage reads it.

    Parameters
    ----------
    map, segment, number
        Where it is stored.
    channels
        Which of the stage's input channels each of its channels is; -1 if none.
    stored
        The channels of the map.
    """

    map: str
    segment: int
    number: int
    channels: IntArray
    stored: IntArray

    @property
    def wanted(self) -> IntArray:
        """The stage's input channels that it has."""
        return self.channels[self.channels >= 0]


@dataclass(frozen=True)
class Reading:
    """The streams of each lane, in order.

    Parameters
    ----------
    streams
        All streams.
    lanes
        Numbers of the streams that each lane reads.
    """

    streams: tuple[Stream, ...]
    lanes: tuple[tuple[int, ...], ...]

    def of(self, lane: int) -> list[Stream]:
        """Return the streams of a lane."""
        return [self.streams[number] for number in self.lanes[lane]]

    def channels(self, lane: int) -> int:
        """Return how many channels a lane reads, wanted or not."""
        return sum(stream.channels.size for stream in self.of(lane))

    @property
    def blocks(self) -> dict[tuple[int, ...], list[int]]:
        """Sets of lanes, each with the streams that just these lanes read."""
        readers: list[list[int]] = [[] for _ in self.streams]
        for lane, numbers in enumerate(self.lanes):
            for number in numbers:
                readers[number].append(lane)
        blocks: dict[tuple[int, ...], list[int]] = {}
        for number, lanes in enumerate(readers):
            blocks.setdefault(tuple(lanes), []).append(number)
        return blocks

    @property
    def overlaps(self) -> bool:
        """Whether a lane shares some of its streams with other lanes than the rest of them."""
        blocks = self.blocks
        return sum(map(len, blocks)) > len(set().union(*blocks))

    def block_of(self, channels: int) -> IntArray:
        """Return the number of the block of each of the stage's input channels."""
        block_of = np.zeros(channels, np.int64)
        for number, members in enumerate(self.blocks.values()):
            for member in members:
                block_of[self.streams[member].wanted] = number
        return block_of

    def places(self, channels: int) -> IntArray:
        """Return the channel's number in each lane that reads it, shape (lanes, channels)."""
        places = np.full((len(self.lanes), channels), -1, np.int64)
        for lane in range(len(self.lanes)):
            first = 0
            for stream in self.of(lane):
                here = np.flatnonzero(stream.channels >= 0)
                places[lane, stream.channels[here]] = first + here
                first += stream.channels.size
        return places


def readings(streams: Sequence[Stream], work: FloatArray, lanes: int) -> list[Reading]:
    """Return ways to read streams, those first that read each stream least often.

    Parameters
    ----------
    streams
        The streams.
    work
        Work on each stream, shape (streams,).
    lanes
        P.
    """
    numbers = range(len(streams))
    found: list[list[list[int]]] = []
    times = 1
    while times <= lanes:
        groups = lanes // times
        # Each column's stream stays in its lane, or in its lane's group.
        own = [
            [n for n in numbers if streams[n].number // times == group] for group in range(groups)
        ]
        if sum(map(len, own)) == len(streams):
            found.append([own[lane // times] for lane in range(lanes)])
        # The streams are shared out to the groups, the most work first.
        dealt: list[list[int]] = [[] for _ in range(groups)]
        loads = np.zeros(groups)
        for number in np.argsort(-work, kind="stable").tolist():
            best = int(np.argmin(loads))
            dealt[best].append(number)
            loads[best] += work[number]
        found.append([sorted(dealt[lane // times]) for lane in range(lanes)])
        times *= 2
    if lanes > 1 and len(streams) <= 4 * lanes and work.sum() > 0:
        # End to end, and cut into equal pieces: a lane reads what its piece touches.
        ends = np.cumsum(work) / work.sum() * lanes
        starts = np.concatenate([[0], ends[:-1]])
        found.append(
            [
                [n for n in numbers if starts[n] < lane + 1 - 1e-6 and ends[n] > lane + 1e-6]
                for lane in range(lanes)
            ]
        )
        # Whole lanes to each stream.
        if len(streams) < lanes:
            counts = np.ones(len(streams), np.int64)
            for _ in range(lanes - len(streams)):
                counts[np.argmax(work / counts)] += 1
            found.append([[n] for n in numbers for _ in range(counts[n])])
    unique = dict.fromkeys(tuple(map(tuple, reading)) for reading in found)
    return [
        Reading(tuple(streams), reading)
        for reading in unique
        if set().union(*reading) == set(numbers)
    ]


def shares(work: FloatArray, readers: Sequence[Sequence[int]], lanes: int) -> FloatArray:
    """Share work out among lanes so that, in each column, the fullest lane is least full.

    Parameters
    ----------
    work
        Work of each block in each column, shape (blocks, columns).
    readers
        Lanes that can take a block's work.
    lanes
        P.

    Returns
    -------
    shares
        Work of each block that each lane takes, shape (blocks, lanes, columns). The loads are
        levelled block by block, several times over.
    """
    columns = work.shape[1]
    taken = np.zeros((len(readers), lanes, columns))
    order = sorted(range(len(readers)), key=lambda block: len(readers[block]))
    shared = [block for block in order if len(readers[block]) > 1]
    for block in order:
        if len(readers[block]) == 1:
            taken[block, readers[block][0]] = work[block]
    loads = taken.sum(axis=0)
    disjoint = sum(map(len, readers)) == len(set().union(*readers)) if readers else True
    for _ in range(1 if disjoint else _SWEEPS):
        for block in shared:
            mine = list(readers[block])
            others = loads[mine] - taken[block, mine]
            level = _level(others, work[block])
            loads[mine] = np.maximum(others, level)
            taken[block, mine] = loads[mine] - others
    return taken


def _level(loads: FloatArray, work: FloatArray) -> FloatArray:
    """Return the height to which work fills up loads of shape (lanes, columns)."""
    heights = np.sort(loads, axis=0)
    count = np.arange(1, len(heights) + 1)[:, None]
    levels = (np.cumsum(heights, axis=0) + work) / count
    # The level of the most lanes that it covers.
    covered = np.maximum(1, np.sum(levels >= heights, axis=0))
    return np.asarray(np.take_along_axis(levels, covered[None] - 1, axis=0)[0])


def deal(count: int, parts: FloatArray) -> IntArray:
    """Deal things out in turn, so that any stretch of them is shared out like the whole.

    Every other round goes backwards: neighbours in an accumulator's two banks alternate, and so no
    receiver keeps to one bank, which could then not be drained.

    Parameters
    ----------
    count
        How many.
    parts
        How much each receiver should get, shape (receivers,).

    Examples
    --------
    >>> deal(8, np.array([1.0, 2.0, 1.0])).tolist()
    [1, 0, 2, 1, 1, 2, 0, 1]
    >>> deal(6, np.array([1.0, 1.0])).tolist()
    [0, 1, 1, 0, 0, 1]
    """
    total = parts.sum()
    wanted = parts * (count / total) if total > 0 else np.full(parts.size, count / parts.size)
    numbers = np.floor(wanted + 1e-9).astype(np.int64)
    most = np.argsort(numbers - wanted, kind="stable")
    numbers[most[: count - int(numbers.sum())]] += 1
    receiver = np.repeat(np.arange(parts.size), numbers)
    rounds = np.concatenate([np.arange(number) for number in numbers])
    turn = (rounds + 0.5) / np.maximum(1, numbers)[receiver]
    return np.asarray(receiver[np.lexsort((receiver * (1 - 2 * (rounds % 2)), turn))])


def level(receiver: IntArray, cost: FloatArray, parts: FloatArray) -> IntArray:
    """Exchange things that were dealt, until the receivers' costs are near what they should get.

    Parameters
    ----------
    receiver, cost
        Of each thing.
    parts
        How much each receiver should get, shape (receivers,).

    Examples
    --------
    >>> level(np.array([0, 1, 1, 0]), np.array([5.0, 1, 2, 3]), np.array([1.0, 1.0])).tolist()
    [0, 0, 1, 1]
    """
    total = parts.sum()
    if total <= 0:
        return receiver
    wanted = parts * (cost.sum() / total)
    receiver = receiver.copy()
    for _ in range(_EXCHANGES):
        over = np.bincount(receiver, cost, parts.size) - wanted
        most, least = int(np.argmax(over)), int(np.argmin(over))
        gap = (over[most] - over[least]) / 2
        if gap <= _LEVEL * wanted.max():
            break
        # Of each thing of one, the thing of the other that is dearer or cheaper by the gap.
        ours, theirs = np.flatnonzero(receiver == most), np.flatnonzero(receiver == least)
        if not theirs.size:
            break
        theirs = theirs[np.argsort(cost[theirs], kind="stable")]
        after = np.searchsorted(cost[theirs], cost[ours] - gap)
        after = np.clip(after, 1, theirs.size - 1) if theirs.size > 1 else 0 * after
        before = np.maximum(after - 1, 0)
        misses = np.abs(cost[ours] - cost[theirs[np.stack([before, after])]] - gap)
        side, one = np.unravel_index(int(np.argmin(misses)), misses.shape)
        if misses[side, one] >= gap:
            break
        other = theirs[(before, after)[side][one]]
        receiver[ours[one]], receiver[other] = least, most
    return receiver
