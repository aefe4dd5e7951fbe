"""What the tensors of an ONNX graph are while it is read.

A tensor of activations is a view of a layer's map: for each of its elements, its batch of 1
included, the place in the flattened (channel, row, column) map; ``NOWHERE`` where it is a zero that
lies outside. Moving elements about changes the places alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Shape
from thresher.golden.read.gathering import NOWHERE

__all__ = [
    "Joined",
    "Mean",
    "Parts",
    "Pending",
    "Product",
    "Real",
    "Refusal",
    "Scores",
    "Source",
    "Stored",
    "Sum",
    "Target",
    "Tensor",
    "Unclear",
    "Unknown",
    "Value",
    "Weighted",
    "Weights",
    "check_zero",
    "is_whole",
    "per_channel",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Function = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class Refusal(Exception):
    """What stands in the way at a node: reason, and what would work."""

    def __init__(self, reason: str, instead: str) -> None:
        super().__init__(reason)
        self.reason, self.instead = reason, instead


class Unclear(Refusal):
    """A node that cannot be judged, for one before it has a problem."""

    def __init__(self) -> None:
        super().__init__("", "")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A quantisation of activations: real value = (stored - zero_point) * scale.

    Parameters
    ----------
    scale
        A float32, as a Python float.
    zero_point
        Stored value of real zero.
    low, high
        Limits of the stored type.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def clip(self) -> tuple[int, int]:
        """Limits with the zero point removed."""
        return self.low - self.zero_point, self.high - self.zero_point


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A constant: ``values * scale``, of one shape each.

    Values are integers without their zero point, or floats of scale 1.
    """

    values: Array
    scale: Floats

    def real(self) -> npt.NDArray[np.float32]:
        """Return the real values, in the runtime's precision."""
        return (self.values.astype(np.float32) * self.scale.astype(np.float32)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """Activations; ``places`` has the tensor's shape."""

    places: Int64Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(Tensor):
    """The model's input while it is float and not quantised."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored(Tensor):
    """Integers of a layer's output, plus the zero point."""

    layer: str
    target: Target | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Real(Tensor):
    """``function(scale * stored)`` of a layer's output; None is the identity."""

    layer: str
    scale: float
    function: Function | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores(Tensor):
    """The softmax of a quantised tensor, which the host takes."""

    layer: str
    target: Target


@dataclass(frozen=True, kw_only=True, eq=False)
class Unknown(Tensor):
    """Output of a node that has a problem; its places only have the shape, which may be wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pending(Tensor):
    """A float result that no layer computes before it is known how it is quantised.

    Parameters
    ----------
    name
        Of the node that computes it.
    shape
        Of the map that is to be computed; ``places`` are places in it.
    low, high
        Limits in real values: activation functions that came since.
    pools
        Maximum poolings that came since: keyword arguments of MaxPool.
    """

    name: str
    shape: Shape
    low: float = -np.inf
    high: float = np.inf
    pools: tuple[dict[str, Any], ...] = ()

    def clipped(self, low: float, high: float) -> Pending:
        """Return it with further limits."""
        return replace(
            self,
            low=min(max(self.low, low), high),
            high=max(min(self.high, high), low),
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing came since."""
        return not self.pools and self.low == -np.inf and self.high == np.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted(Pending):
    """Sums of products: ``factor * sum + offset``, one factor and offset an output channel.

    Parameters
    ----------
    layer
        Whose map is multiplied.
    weights
        (out, in / groups, kernel height, kernel width), or (out, in).
    geometry
        Keyword arguments of Convolution; None for a Linear.
    """

    layer: str
    weights: Array
    factor: Floats
    offset: Floats
    geometry: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mean(Pending):
    """Means over windows, whose arguments are those of a pooling layer.

    Parameters
    ----------
    uncounted
        The outer part of the padding that they do not count.
    """

    layer: str
    scale: float
    windows: dict[str, Any]
    uncounted: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum(Pending):
    """The sum of two layers' maps and their scales."""

    layers: tuple[str, str]
    scales: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts(Pending):
    """The sum of several, of which at each place one at most is not 0."""

    parts: tuple[Weighted, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Product(Pending):
    """The product of two layers' maps, the second of which may have one value a channel."""

    layers: tuple[str, str]
    scales: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined(Pending):
    """Tensors one after another along an axis; ``places`` are those in the joined tensor."""

    parts: tuple[Real | Pending, ...]
    axis: int


Value = Array | Weights | Tensor


def without_padding(places: Int64Array) -> tuple[Int64Array, tuple[int, int, int, int]] | None:
    """Return the places (channels, height, width) inside of rows and columns of zeros.

    Returns
    -------
    inside, padding
        None if zeros are elsewhere, too. Padding is (top, left, bottom, right).
    """
    real = places != NOWHERE
    rows, columns = np.flatnonzero(real.any((0, 2))), np.flatnonzero(real.any((0, 1)))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    inside = places[:, top:bottom, left:right]
    if (inside == NOWHERE).any():
        return None
    return inside, (top, left, places.shape[1] - bottom, places.shape[2] - right)


def check_zero(places: Int64Array, at_zero: float) -> None:
    """Refuse a function of a tensor with zeros around it that does not keep zero."""
    if at_zero != 0 and (places == NOWHERE).any():
        raise Refusal(
            f"its input is padded with zeros, which become {at_zero:g}", "pad its result instead"
        )


def is_whole(places: Int64Array, shape: Shape) -> bool:
    """Whether a tensor is a map of ``shape``, its elements in order."""
    size = shape[0] * shape[1] * shape[2]
    return places.size == size and np.array_equal(places.ravel(), np.arange(size))


def per_channel(values: Array, places: Int64Array, shape: Shape) -> Floats | None:
    """Return what a broadcast constant is for each channel of a map, if it is one a channel."""
    try:
        wide = np.broadcast_to(values, places.shape).ravel()
    except ValueError:
        return None
    by_place = np.full(shape[0] * shape[1] * shape[2], np.nan)
    inside = places.ravel() != NOWHERE
    by_place[places.ravel()[inside]] = wide[inside]
    by_channel = by_place.reshape(shape[0], -1)
    if np.isnan(by_channel).any() or (by_channel != by_channel[:, :1]).any():
        return None
    return by_channel[:, 0].astype(np.float64)
