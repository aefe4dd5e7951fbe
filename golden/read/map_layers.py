"""Layers of parts of other layers' maps, for readers in which a tensor is a view of a map.

Each element of a tensor has a place in the flattened (channel, row, column) map of some layer,
or none, ``NOWHERE``, if it is a zero. Moving elements about changes the places alone; where a
layer must have the tensor as a map of its own, one is derived here from the map it is a view of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thresher.golden.network import ChannelShuffle, Concat, Flatten, Layer, Range, Shape
from thresher.golden.read.gathering import gather

__all__ = ["MapLayers", "channels_of", "needed_for"]

Int64Array = npt.NDArray[np.int64]


class MapLayers:
    """Shapes of the layers made so far, and layers derived from them, each of them once.

    Parameters
    ----------
    joint
        What stands between a layer's name and that of a part of it.
    """

    def __init__(self, joint: str) -> None:
        self.joint = joint
        self.shapes: dict[str, Shape] = {}
        self._derived: dict[tuple[object, ...], str] = {}

    def add_moving(self, layer: Layer) -> str:
        """Add a layer that moves values of its first input; return its name."""
        raise NotImplementedError

    def stored_range(self, layer: str) -> Range:
        """Return the least and greatest value of a layer."""
        raise NotImplementedError

    def unique(self, name: str) -> str:
        """Return a name that no layer has."""
        taken = {"input", *self.shapes}
        found, number = name, 2
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def selected(self, layer: str, order: tuple[int, ...]) -> str:
        """Return a layer of some channels of another, in an order; one may be there again."""
        count = self.shapes[layer][0]
        if order == tuple(range(count)):
            return layer
        copies = max(order.count(channel) for channel in set(order))
        if copies > 1:
            before = [order[:place].count(channel) for place, channel in enumerate(order)]
            order = tuple(
                copy * count + channel for copy, channel in zip(before, order, strict=True)
            )
            return self.selected(self._repeated(layer, copies), order)
        key = "channels", layer, order
        if key not in self._derived:
            name = self.unique(f"{layer}{self.joint}channels")
            self._derived[key] = self.add_moving(
                ChannelShuffle(name=name, inputs=(layer,), order=order)
            )
        return self._derived[key]

    def _repeated(self, layer: str, copies: int) -> str:
        """Return a layer with all channels of another several times."""
        key = "repeated", layer, copies
        if key not in self._derived:
            name = self.unique(f"{layer}{self.joint}repeated")
            self._derived[key] = self.add_moving(Concat(name=name, inputs=(layer,) * copies))
        return self._derived[key]

    def flattened(self, layer: str, name: str | None = None) -> str:
        """Return a layer with a map's values as channels.

        Parameters
        ----------
        layer
            The map's.
        name
            Of the layer, if one is made.
        """
        if self.shapes[layer][1:] == (1, 1):
            return layer
        key = "flat", layer
        if key not in self._derived:
            name = self.unique(name or f"{layer}{self.joint}flat")
            self._derived[key] = self.add_moving(Flatten(name=name, inputs=(layer,)))
        return self._derived[key]

    def gathered(self, layer: str, places: Int64Array, name: str | None = None) -> str | None:
        """Return a layer of some of a map's values, if a convolution of one tap makes it.

        Parameters
        ----------
        layer
            The map's.
        places
            Of the layer's outputs (channels, height, width) in the map; ``NOWHERE`` for a zero.
        name
            Of the layer, if one is made.
        """
        key = "part", layer, places.shape, places.tobytes()
        if key not in self._derived:
            name = self.unique(name or f"{layer}{self.joint}part")
            made = gather(places, layer, self.shapes[layer], self.stored_range(layer), name)
            if made is None:
                return None
            self._derived[key] = self.add_moving(made)
        return self._derived[key]


def channels_of(places: Int64Array, shape: Shape) -> tuple[int, ...] | None:
    """Return which channels of a map of ``shape`` places (channels, height, width) are, if any."""
    if places.shape[1:] != shape[1:]:
        return None
    size = shape[1] * shape[2]
    order = places[:, 0, 0] // size
    expected = order[:, None] * size + np.arange(size)
    if not np.array_equal(places.reshape(len(places), size), expected):
        return None
    return tuple(int(channel) for channel in order)


class _Reads(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...


def needed_for(end: str, layers: Iterable[_Reads]) -> set[str]:
    """Return the names of a layer and all that it depends on, the input included.

    Parameters
    ----------
    end
        The layer.
    layers
        All layers, each after those that it reads.
    """
    needed = {end}
    for layer in reversed(list(layers)):
        if layer.name in needed:
            needed.update(layer.inputs)
    return needed
