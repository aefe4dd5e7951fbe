"""Views: values as channels of stored maps.

Concatenating, shuffling, splitting and flattening move no value: what they give is a view of maps
that are stored anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Shape

__all__ = ["Parts", "View", "gather"]

IntArray = npt.NDArray[np.int64]

Parts = tuple[tuple[str, IntArray], ...]
"""Channels of named maps or values, one after another."""


@dataclass(frozen=True)
class View:
    """A value as channels of stored maps.

    Parameters
    ----------
    parts
        Names of the maps, and the channels taken of each.
    shape
        (channels, height, width); the heights and widths of all maps are the same.
    flat
        The value is the vector of this map's values, in (channel, row, column) order.

    Examples
    --------
    >>> both = View.whole("a", (2, 5, 5)).then(View.whole("b", (3, 5, 5)))
    >>> [(name, channels.tolist()) for name, channels in both.select([4, 1, 0]).parts]
    [('b', [2]), ('a', [1, 0])]
    """

    parts: Parts
    shape: Shape
    flat: bool = False

    @classmethod
    def whole(cls, name: str, shape: Shape) -> View:
        """Return all of a map."""
        return cls(((name, np.arange(shape[0])),), shape)

    @property
    def maps(self) -> list[str]:
        """Names of the maps, each once."""
        return list(dict.fromkeys(name for name, _ in self.parts))

    def then(self, other: View) -> View:
        """Return the channels of both."""
        channels = self.shape[0] + other.shape[0]
        return replace(self, parts=self.parts + other.parts, shape=(channels, *self.shape[1:]))

    def select(self, order: npt.ArrayLike) -> View:
        """Return the channels of an order."""
        chosen = np.asarray(order, np.int64)
        part_of = np.repeat(
            np.arange(len(self.parts)), [channels.size for _, channels in self.parts]
        )[chosen]
        channel = np.concatenate([channels for _, channels in self.parts])[chosen]
        cuts = np.flatnonzero(np.diff(part_of)) + 1
        parts = tuple(
            (self.parts[which[0]][0], mine)
            for which, mine in zip(np.split(part_of, cuts), np.split(channel, cuts), strict=True)
        )
        return replace(self, parts=parts, shape=(chosen.size, *self.shape[1:]))

    def renamed(self, names: Mapping[str, str]) -> View:
        """Return the view with other names for some maps."""
        return replace(
            self, parts=tuple((names.get(name, name), channels) for name, channels in self.parts)
        )

    def places(self, name: str) -> tuple[IntArray, IntArray]:
        """Return where channels of a map are in the view, and which channels they are."""
        places, channels, first = [], [], 0
        for part, mine in self.parts:
            if part == name:
                places.append(np.arange(first, first + mine.size))
                channels.append(mine)
            first += mine.size
        return np.concatenate(places), np.concatenate(channels)

    def covers(self, name: str, channels: int) -> bool:
        """Whether each channel of a map of so many channels is taken exactly once."""
        return bool(np.array_equal(np.sort(self.places(name)[1]), np.arange(channels)))


def gather(parts: Parts, arrays: Mapping[str, IntArray]) -> IntArray:
    """Return the channels of ``parts``, of arrays of shape (n, channels, height, width)."""
    return np.concatenate([arrays[name][:, channels] for name, channels in parts], axis=1)
