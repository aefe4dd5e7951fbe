"""What all layers are: named operations on maps, whose fields are checked."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from thresher.golden.descriptors import Rounding

__all__ = [
    "ACTIVATION",
    "BIAS",
    "SCALE",
    "SHIFT",
    "WEIGHT",
    "Layer",
    "Range",
    "Shape",
    "is_integer",
    "window_counts",
]

Shape = tuple[int, int, int]
Range = tuple[int, int]

BIAS = (-(1 << 47), (1 << 47) - 1)
SCALE = (0, (1 << 31) - 1)
SHIFT = (0, 63)
WEIGHT = (-256, 256)  # 256 as a shift multiplier sees 255
ACTIVATION = (-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A named operation on the maps of its inputs.

    Parameters
    ----------
    name
        Unique in its network; not ``"input"``.
    inputs
        Names of the layers whose outputs it takes; ``"input"`` is the network's input.
    """

    name: str
    inputs: tuple[str, ...] = ("input",)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name == "input":
            raise ValueError(f"a layer's name must be a text other than 'input', not {self.name!r}")
        self._set("inputs", tuple(self.inputs))
        least, most, wanted = self._input_counts()
        if not least <= len(self.inputs) <= most or not all(
            isinstance(item, str) for item in self.inputs
        ):
            raise self._error(f"inputs must be {wanted}, not {self.inputs!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output's (channels, height, width) for inputs of ``shapes``.

        Raises
        ------
        ValueError
            If the layer does not take such inputs.
        """
        raise NotImplementedError

    def output_range(self, *ranges: Range) -> Range:
        """Return the least and greatest possible output for inputs in ``ranges``."""
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def _input_counts(self) -> tuple[int, int, str]:
        """Return how many inputs there are at least and at most, and that in words."""
        return 1, 1, "one name"

    def __eq__(self, other: object) -> bool:
        """Layers are equal if they are of one type and all their fields are."""
        if type(self) is not type(other):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, item.name), getattr(other, item.name))
            for item in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def _error(self, what: str) -> ValueError:
        return ValueError(f"layer {self.name!r}: {what}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _set_integers(self, name: str, count: int, low: int, high: int) -> None:
        values = getattr(self, name)
        if (
            not isinstance(values, tuple | list)
            or len(values) != count
            or not all(is_integer(value) and low <= value <= high for value in values)
        ):
            raise self._error(f"{name} must be {count} integers in {low}..{high}, not {values!r}")
        self._set(name, tuple(int(value) for value in values))

    def _set_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not is_integer(value) or not low <= value <= high:
            raise self._error(f"{name} must be an integer in {low}..{high}, not {value!r}")
        self._set(name, int(value))

    def _set_array(self, name: str, shape: tuple[int, ...], allowed: Range) -> None:
        array = np.array(getattr(self, name))
        if not np.issubdtype(array.dtype, np.integer):
            raise self._error(f"{name} must be integers, not {array.dtype}")
        if array.shape != shape:
            raise self._error(f"{name} must have shape {shape}, not {array.shape}")
        for value in (int(array.min()), int(array.max())):
            if not allowed[0] <= value <= allowed[1]:
                raise self._error(f"{name} must be in {allowed[0]}..{allowed[1]}, not {value}")
        array = array.astype(np.int64)
        array.flags.writeable = False
        self._set(name, array)

    def _set_clip(self) -> None:
        self._set_integers("clip", 2, *ACTIVATION)
        low, high = clip = self.__dict__["clip"]
        if low > high:
            raise self._error(f"clip must be (low, high) with low <= high, not {clip!r}")

    def _set_rounding(self) -> None:
        try:
            self._set("rounding", Rounding(getattr(self, "rounding")))  # noqa: B009  # subclasses'
        except ValueError:
            raise self._error(
                f"rounding must be a Rounding, not {self.__dict__['rounding']!r}"
            ) from None


def is_integer(value: object) -> bool:
    """Whether a value is an integer, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def window_counts(
    layer: Layer,
    shape: Shape,
    extent: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> tuple[int, int]:
    """Return the rows and columns of windows of ``extent`` over a padded map.

    Raises
    ------
    ValueError
        If there is none; the message names the layer.
    """
    top, left, bottom, right = padding
    padded = (shape[1] + top + bottom, shape[2] + left + right)
    if padded[0] < extent[0] or padded[1] < extent[1]:
        raise ValueError(
            f"layer {layer.name!r}: a window of {extent} must fit the padded map, not {padded}"
        )
    return (padded[0] - extent[0]) // stride[0] + 1, (padded[1] - extent[1]) // stride[1] + 1
