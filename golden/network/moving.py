"""Layers that move values, and change none."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.golden.network.layer import Layer, Shape

__all__ = ["ChannelShuffle", "Concat", "Flatten"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Layer):
    """The map as a vector in (channel, row, column) order, of shape (values, 1, 1)."""

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape[0] * shape[1] * shape[2], 1, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Layer):
    """The channels of all inputs, one input after another."""

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[1:] for shape in shapes}) != 1:
            raise self._error(f"inputs must have one height and width, not {shapes}")
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    def _input_counts(self) -> tuple[int, int, str]:
        return 2, 4095, "two names or more"


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Layer):
    """Channels of its input in another order; all of them, or some.

    Parameters
    ----------
    order
        Output channel k is input channel ``order[k]``; none twice.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.order or len(set(self.order)) != len(self.order):
            raise self._error(f"order must name channels, none twice, not {self.order!r}")
        self._set_integers("order", len(self.order), 0, (1 << 16) - 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if max(self.order) >= shape[0]:
            raise self._error(f"order must be below {shape[0]}, the channels of its input")
        return len(self.order), *shape[1:]
