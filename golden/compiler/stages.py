"""Stages: what the machine does in one go, from stored maps to a stored map.

A convolution; then what else its columns do before they store: looking outputs up, and pooling or
adding a stored operand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.views import Parts, View
from thresher.golden.descriptors import Pool, Rounding
from thresher.golden.network import Add, AveragePool, MaxPool, Multiply, Shape
from thresher.golden.pooling import lacking

__all__ = [
    "Addition",
    "Pooling",
    "Stage",
    "Taps",
    "Work",
    "identity",
    "outputs_met",
    "token_pieces",
]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Taps:
    """Taps of a stage as parallel arrays: output, input channel, kernel row, column, index."""

    output: IntArray
    channel: IntArray
    ky: IntArray
    kx: IntArray
    index: IntArray

    @classmethod
    def of(cls, weights: npt.NDArray[np.uint8], groups: int = 1) -> Taps:
        """Return the taps of weights of shape (out, in / groups, kernel height, kernel width)."""
        output, channel, ky, kx = (axis.ravel() for axis in np.indices(weights.shape))
        channel = channel + output // (len(weights) // groups) * weights.shape[1]
        return cls(output, channel, ky, kx, weights.ravel().astype(np.int64))

    def select(self, chosen: BoolArray | IntArray) -> Taps:
        """Return the chosen ones."""
        return Taps(*(array[chosen] for array in vars(self).values()))


@dataclass(frozen=True)
class Work:
    """Taps that are loaded, and the cycles an input that each is estimated to take."""

    taps: Taps
    cost: npt.NDArray[np.float64]

    def select(self, chosen: IntArray) -> Work:
        """Return that of the chosen taps."""
        return Work(self.taps.select(chosen), self.cost[chosen])


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """Pooling behind a convolution; the shape is (height, width) of its result."""

    kind: Pool = Pool.NONE
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    shape: tuple[int, int] = (1, 1)
    scale: int = 1
    shift: int = 0
    rounding: Rounding = Rounding.HALF_UP
    origin: int = 0
    clip: tuple[int, int] | None = None
    cut_scales: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, layer: MaxPool | AveragePool, shape: Shape) -> Pooling:
        """Return the pooling of a layer whose output has that shape."""
        windows = cls(
            kind=Pool.MAX,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=(layer.padding[0], layer.padding[1]),
            shape=shape[1:],
        )
        if not isinstance(layer, AveragePool):
            return windows
        return replace(
            windows,
            kind=Pool.AVERAGE,
            scale=layer.scale,
            shift=layer.shift,
            rounding=layer.rounding,
            origin=layer.origin,
            clip=layer.clip,
            cut_scales=layer.cut_scales,
        )

    def lacking(self, shape: Shape) -> tuple[IntArray, IntArray]:
        """Return how many rows, and columns, windows on maps of that shape lack."""
        rows, columns = (
            lacking(shape[axis + 1], *of_axis)
            for axis, of_axis in enumerate(
                zip(self.kernel, self.stride, self.padding, self.shape, strict=True)
            )
        )
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Addition of a stored map to the outputs, or multiplication by one.

    Parameters
    ----------
    layer
        Its scales and rounding.
    operand
        The stored one; it takes each channel of its maps once. A factor may be one value a channel.
    scale_operand
        The operand is the second input of the layer.
    plain
        Name of the value that is the other input.
    """

    layer: Add | Multiply
    operand: View
    scale_operand: bool
    plain: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One convolution, and what follows it before anything is stored.

    Parameters
    ----------
    name
        Name of the layer that it is for.
    source
        What it reads.
    result
        Name of the map that it stores.
    content
        Values of the network whose channels the result's channels are.
    in_shape, out_shape, result_shape
        (channels, height, width) of the input, of the convolution, and of what is stored.
    taps, kernel
        Weights that exist, those outside a group do not; kernel height and width in taps.
    lookup
        Outputs for inputs 0, 1, ... of two's complement order, or None.
    """

    name: str
    source: View
    result: str
    content: Parts
    in_shape: Shape
    out_shape: Shape
    result_shape: Shape
    taps: Taps
    kernel: tuple[int, int]
    codebook: IntArray
    bias: IntArray
    scale: IntArray
    shift: IntArray
    rounding: Rounding
    clip: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    lookup: IntArray | None = None
    pooling: Pooling = Pooling()
    addition: Addition | None = None

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of the dilated kernel."""
        height, width = self.kernel
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def phase_shape(self) -> tuple[int, int]:
        """Rows and columns of kernel groups in one stride phase."""
        return -(-self.extent[0] // self.stride[0]), -(-self.extent[1] // self.stride[1])

    @property
    def channel_groups(self) -> int:
        """Groups of one input channel, over all stride phases."""
        height, width = self.phase_shape
        return height * width * self.stride[0] * self.stride[1]

    @property
    def is_last_step(self) -> bool:
        """It neither pools nor adds, so that either can still be merged into it."""
        return self.pooling.kind is Pool.NONE and self.addition is None

    @cached_property
    def weight_taps(self) -> Taps:
        """The taps whose weights are not zero."""
        return self.taps.select(self.codebook[self.taps.index] != 0)

    def taps_sent(self, *, skip_zeros: bool) -> Taps:
        """Return the taps that are loaded: without zero weights, if those are skipped."""
        return self.weight_taps if skip_zeros else self.taps


def identity(
    *,
    name: str,
    source: View,
    result: str,
    content: Parts,
    clip: tuple[int, int],
    flatten: bool = False,
) -> Stage:
    """Return the stage that copies a map; flattened, each of its values is a channel."""
    channels, height, width = source.shape
    kernel = (height, width) if flatten else (1, 1)
    taps = Taps.of(np.zeros((channels, 1, *kernel), np.uint8), channels)
    shape = source.shape
    if flatten:
        shape = (channels * height * width, 1, 1)
        taps = Taps(np.arange(shape[0]), taps.channel, taps.ky, taps.kx, taps.index)
    ones = np.ones(shape[0], np.int64)
    return Stage(
        name=name,
        source=source,
        result=result,
        content=content,
        in_shape=source.shape,
        out_shape=shape,
        result_shape=shape,
        taps=taps,
        kernel=kernel,
        codebook=ones[:1],
        bias=0 * ones,
        scale=ones,
        shift=0 * ones,
        rounding=Rounding.HALF_UP,
        clip=clip,
    )


def outputs_met(stage: Stage, axis: int) -> BoolArray:
    """Whether the input position on an axis meets an output through a kernel position.

    Shape (input positions, kernel positions).
    """
    size, kernel = stage.in_shape[axis + 1], stage.kernel[axis]
    padded = np.arange(size)[:, None] + stage.padding[axis]
    offset = padded - np.arange(kernel)[None, :] * stage.dilation[axis]
    output = offset // stage.stride[axis]
    inside = (output >= 0) & (output < stage.out_shape[axis + 1])
    return np.asarray((offset % stage.stride[axis] == 0) & inside)


def _ranges(stage: Stage, axis: int) -> tuple[IntArray, BoolArray]:
    """For each input position: how many kernel groups of its phase are valid; are they all."""
    size = stage.in_shape[axis + 1]
    groups = stage.phase_shape[axis]
    at = (np.arange(size) + stage.padding[axis]) // stage.stride[axis]
    low = np.maximum(0, at - stage.out_shape[axis + 1] + 1)
    high = np.minimum(groups - 1, at)
    valid = np.maximum(0, high - low + 1)
    return valid, np.asarray(valid == groups)


def token_pieces(stage: Stage) -> IntArray:
    """Tokens that an activation makes at each position, shape (height, width)."""
    rows, _ = _ranges(stage, 0)
    columns, whole = _ranges(stage, 1)
    pieces = np.where(whole[None, :], np.minimum(rows, 1)[:, None], rows[:, None])
    return np.asarray(pieces * (columns > 0))
