"""Layers with weights, which are indices into a codebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network.layer import (
    BIAS,
    SCALE,
    SHIFT,
    WEIGHT,
    Layer,
    Range,
    Shape,
    window_counts,
)

__all__ = ["Convolution", "Linear", "WeightedLayer"]

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedLayer(Layer):
    """A layer with weights: :class:`Convolution` or :class:`Linear`.

    Parameters
    ----------
    weights
        uint8 indices into ``codebook``; the first axis is the output channel.
    codebook
        1 to 256 integers in -256..256.
    bias
        One integer an output channel, of up to 48 bits.
    scale, shift
        The requantiser's multiplier (up to 31 bits) and right shift (0..63), one an output channel.
    rounding
        How the requantiser rounds.
    clip
        Least and greatest output.
    """

    weights: UInt8Array
    codebook: Int64Array
    bias: Int64Array
    scale: Int64Array
    shift: Int64Array
    rounding: Rounding = Rounding.HALF_UP
    clip: Range = (0, 255)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = np.array(self.weights)
        axes = self._weight_axes()
        if weights.dtype != np.uint8:
            raise self._error(f"weights must be uint8 indices, not {weights.dtype}")
        if weights.ndim != len(axes) or weights.size == 0:
            raise self._error(f"weights must have shape ({', '.join(axes)}), not {weights.shape}")
        weights.flags.writeable = False
        self._set("weights", weights)
        entries = np.size(self.codebook)
        if not 1 <= entries <= 256:
            raise self._error(f"codebook must have 1 to 256 entries, not {entries}")
        self._set_array("codebook", (entries,), WEIGHT)
        if int(weights.max()) >= entries:
            raise self._error(
                f"weights must be indices below {entries}, the codebook's length, "
                f"not {int(weights.max())}"
            )
        channels = (weights.shape[0],)
        self._set_array("bias", channels, BIAS)
        self._set_array("scale", channels, SCALE)
        self._set_array("shift", channels, SHIFT)
        self._set_rounding()
        self._set_clip()

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return int(self.weights.shape[0])

    def dense_weights(self) -> Int64Array:
        """Return the weights themselves, ``codebook[weights]``."""
        dense: Int64Array = self.codebook[self.weights]
        return dense

    def output_range(self, *ranges: Range) -> Range:
        return self.clip

    def _weight_axes(self) -> tuple[str, ...]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(WeightedLayer):
    """A two-dimensional convolution (cross-correlation).

    Parameters
    ----------
    weights
        Indices of shape (out, in / groups, kernel height, kernel width).
    stride, dilation
        (y, x), each at least 1.
    padding
        Rows and columns of zeros (top, left, bottom, right), up to 255.
    groups
        Output channels of group g see input channels of group g only.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integers("stride", 2, 1, 255)
        self._set_integers("dilation", 2, 1, 255)
        self._set_integers("padding", 4, 0, 255)
        self._set_integer("groups", 1, self.out_channels)
        if self.out_channels % self.groups:
            raise self._error(
                f"groups must divide the {self.out_channels} output channels, not {self.groups}"
            )

    @property
    def kernel(self) -> tuple[int, int]:
        """Kernel height and width, in taps."""
        return int(self.weights.shape[2]), int(self.weights.shape[3])

    @property
    def extent(self) -> tuple[int, int]:
        """Kernel height and width with its dilation."""
        height, width = self.kernel
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return int(self.weights.shape[1]) * self.groups

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape[0] != self.in_channels:
            raise self._error(f"input must have {self.in_channels} channels, not {shape[0]}")
        counts = window_counts(self, shape, self.extent, self.stride, self.padding)
        return self.out_channels, *counts

    def _weight_axes(self) -> tuple[str, ...]:
        return "out", "in / groups", "kernel height", "kernel width"


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(WeightedLayer):
    """A fully connected layer on a map flattened in (channel, row, column) order.

    Parameters
    ----------
    weights
        Indices of shape (out, in). The output has shape (out, 1, 1).
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if int(np.prod(shape)) != self.weights.shape[1]:
            raise self._error(f"input must have {self.weights.shape[1]} values, not shape {shape}")
        return self.out_channels, 1, 1

    def _weight_axes(self) -> tuple[str, ...]:
        return "out", "in"
