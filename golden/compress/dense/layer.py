"""Layers of dense networks, and what each computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.functions import apply
from thresher.golden.errors import ThresherError
from thresher.golden.pooling import counted_places, divisors

__all__ = [
    "KINDS",
    "OF_TWO",
    "RELU",
    "RELU6",
    "UNBOUNDED",
    "WEIGHTED",
    "Bounds",
    "DenseError",
    "DenseLayer",
    "FloatArray",
    "Pair",
    "Shape",
]

FloatArray = npt.NDArray[np.floating[Any]]
Bounds = tuple[float, float]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Shape = tuple[int, int, int]
Kind = str
UNBOUNDED: Bounds = (-math.inf, math.inf)
RELU: Bounds = (0.0, math.inf)
RELU6: Bounds = (0.0, 6.0)
WEIGHTED = {"convolution": 4, "linear": 2}  # kinds with weights, and the axes of these
POOLS = {"max_pool", "average_pool"}
OF_TWO = {"add", "multiply"}
KINDS = (
    *WEIGHTED,
    *sorted(POOLS),
    *sorted(OF_TWO),
    "flatten",
    "concat",
    "channel_shuffle",
    "unary",
)
_BATCH_VALUES = 1 << 24  # values of the largest matrix of a convolution


class DenseError(ThresherError):
    """A dense network that cannot be read or expressed; the message names the layer or array."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseLayer:
    """One layer of a dense network.

    Parameters
    ----------
    name
        Unique in its network, and not ``"input"``.
    kind
        ``convolution``, ``linear`` (on a map flattened in (channel, row, column) order),
        ``max_pool`` (padded positions are ignored), ``average_pool`` (they are zeros),
        ``flatten``, ``add`` (of two maps), ``concat`` (of channels), ``channel_shuffle``,
        ``unary``.
    inputs
        Names of the layers that it reads, ``"input"`` being the network's input; where there are
        none, the layer before it.
    weight, bias
        Float arrays of a convolution (out, in / groups, height, width) or linear layer (out, in),
        and (out,); else None. A convolution without bias may have None.
    clip
        Least and greatest output of a convolution, a linear layer or an addition: ReLU is
        (0, inf), ReLU6 (0, 6).
    kernel, stride, padding, dilation, groups
        (y, x) each, paddings (top, left, bottom, right). A convolution's kernel is that of its
        weights. A size that is rounded up is a larger bottom or right padding.
    uncounted
        Of an average_pool: the outer part of its padding, (top, left, bottom, right), that its
        windows do not count; by what is left of a window its sum is divided.
    order
        Of a channel_shuffle: output channel k is input channel ``order[k]``.
    function, parameters
        Of a unary layer: a name of ``golden.compress.functions``, and its parameters.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...] = ()
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    clip: Bounds = UNBOUNDED
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    uncounted: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    order: tuple[int, ...] = ()
    function: str = ""
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise self.error(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not self.clip[0] < self.clip[1]:
            raise self.error(f"clip must be (low, high) with low < high, not {self.clip}")
        if self.kind in WEIGHTED:
            if self.weight is None or self.weight.ndim != WEIGHTED[self.kind]:
                raise self.error(f"a {self.kind} must have weights of {WEIGHTED[self.kind]} axes")
            if self.bias is not None and self.bias.shape != (len(self.weight),):
                raise self.error(
                    f"bias must have shape ({len(self.weight)},), not {self.bias.shape}"
                )
        elif self.weight is not None:
            raise self.error(f"a {self.kind} has no weights")
        if self.kind == "convolution":
            assert self.weight is not None
            object.__setattr__(self, "kernel", self.weight.shape[2:])
        if self.kind == "unary":
            try:
                apply(self.function, 0.0, self.parameters)
            except ValueError as error:
                raise self.error(str(error)) from None

    def error(self, what: str) -> DenseError:
        """Return the error that says ``what`` of this layer."""
        return DenseError(f"layer {self.name!r}: {what}")

    def output_shape(self, *shapes: Shape) -> Shape:  # noqa: PLR0911  # one a kind
        """Return the shape (C, H, W) of the output for inputs of such shapes.

        Raises
        ------
        DenseError
            If the layer does not take such inputs.
        """
        self._check_count(len(shapes))
        channels, height, width = shapes[0]
        match self.kind:
            case "flatten":
                return channels * height * width, 1, 1
            case "linear":
                assert self.weight is not None
                self._check_weights(channels * height * width, shapes[0])
                return len(self.weight), 1, 1
            case "add":
                if shapes[0] != shapes[1]:
                    raise self.error(f"inputs must have one shape, not {shapes[0]} and {shapes[1]}")
                return shapes[0]
            case "multiply":
                if shapes[1] not in {shapes[0], (channels, 1, 1)}:
                    raise self.error(
                        f"inputs must have one shape, or the second one value a channel, not"
                        f" {shapes[0]} and {shapes[1]}"
                    )
                return shapes[0]
            case "concat":
                if len({shape[1:] for shape in shapes}) != 1:
                    raise self.error(f"inputs must have one height and width, not {shapes}")
                return sum(shape[0] for shape in shapes), height, width
            case "channel_shuffle":
                if not self.order or not 0 <= min(self.order) <= max(self.order) < channels:
                    raise self.error(f"order must name some of {channels} channels")
                return len(self.order), height, width
            case "unary":
                return shapes[0]
        return self._window_shape(shapes[0])

    def run(self, *inputs: FloatArray) -> FloatArray:
        """Return the output for inputs (n, C, H, W), in floats of their type."""
        x = inputs[0]
        match self.kind:
            case "flatten":
                return x.reshape(len(x), -1, 1, 1)
            case "concat":
                return np.concatenate(inputs, axis=1)
            case "channel_shuffle":
                return x[:, list(self.order)]
            case "unary":
                return apply(self.function, x, self.parameters)
            case "max_pool" | "average_pool":
                return self._pool(x)
            case "add":
                y: FloatArray = inputs[0] + inputs[1]
            case "multiply":
                y = inputs[0] * inputs[1]
            case "linear":
                assert self.weight is not None
                weight = self.weight.astype(x.dtype, copy=False)
                y = (x.reshape(len(x), -1) @ weight.T)[:, :, None, None]
            case _:
                y = self._convolve(x)
        if self.bias is not None:
            y = y + self.bias.astype(x.dtype, copy=False)[:, None, None]
        return y if self.clip == UNBOUNDED else np.clip(y, *self.clip)

    def divisors(self, shape: Shape) -> tuple[list[int], list[int]]:
        """Return by what an average_pool divides: :func:`thresher.golden.pooling.divisors`.

        Raises
        ------
        DenseError
            If too much of a window lies outside of the map.
        """
        if any(part > whole for part, whole in zip(self.uncounted, self.padding, strict=True)):
            raise self.error(f"uncounted must be a part of padding, not {self.uncounted}")
        try:
            return divisors(shape[1:], self.kernel, self.stride, self.padding, self.uncounted)
        except ValueError as error:
            raise self.error(str(error)) from None

    def _window_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        if self.kind == "convolution":
            assert self.weight is not None
            self._check_weights(channels, shape)
            channels = len(self.weight)
        extent = self._extent()
        padded = height + self.padding[0] + self.padding[2], width + sum(self.padding[1::2])
        if padded[0] < extent[0] or padded[1] < extent[1]:
            raise self.error(f"the input {shape} is smaller than its window")
        if any(self.uncounted):
            self.divisors(shape)
        counts = [(p - e) // s + 1 for p, e, s in zip(padded, extent, self.stride, strict=True)]
        return channels, counts[0], counts[1]

    def _check_count(self, count: int) -> None:
        wanted = {"add": 2, "multiply": 2, "concat": count if count >= 2 else 2}.get(self.kind, 1)
        if count != wanted:
            raise self.error(f"a {self.kind} takes {wanted} inputs, not {count}")

    def _check_weights(self, found: int, shape: Shape) -> None:
        assert self.weight is not None
        wanted = self.weight.shape[1] * self.groups
        if found != wanted:
            raise self.error(
                f"its weights {self.weight.shape} take {wanted} inputs, but there are {found},"
                f" from the shape {shape}"
            )
        if len(self.weight) % self.groups:
            raise self.error(
                f"{len(self.weight)} outputs are not divisible into {self.groups} groups"
            )

    def _extent(self) -> Pair:
        height, width = self.kernel
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    def _taps(self, x: FloatArray, fill: float) -> Iterator[tuple[int, int, FloatArray]]:
        """Each place of the kernel, and the view (n, C, rows, positions) of what it meets."""
        top, left, bottom, right = self.padding
        if any(self.padding):
            x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
        extent = self._extent()
        rows, positions = x.shape[2] - extent[0] + 1, x.shape[3] - extent[1] + 1
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y, x0 = ky * self.dilation[0], kx * self.dilation[1]
                yield (
                    ky,
                    kx,
                    x[:, :, y : y + rows : self.stride[0], x0 : x0 + positions : self.stride[1]],
                )

    def _pool(self, x: FloatArray) -> FloatArray:
        if self.kind == "max_pool":
            pooled = None
            for _, _, view in self._taps(x, -np.inf):
                pooled = view.copy() if pooled is None else np.maximum(pooled, view, out=pooled)
            assert pooled is not None
            return pooled
        total = sum(view for _, _, view in self._taps(x, 0.0))
        rows, columns = counted_places(
            (x.shape[2], x.shape[3]), self.kernel, self.stride, self.padding, self.uncounted
        )
        return cast(FloatArray, total) / np.outer(rows, columns).astype(x.dtype)

    def _convolve(self, x: FloatArray) -> FloatArray:
        assert self.weight is not None
        weight = self.weight.astype(x.dtype, copy=False)
        if self.weight.shape[1] == 1 and len(weight) == self.groups:  # depthwise
            return cast(
                FloatArray,
                sum(weight[:, 0, ky, kx, None, None] * v for ky, kx, v in self._taps(x, 0.0)),
            )
        _, height, width = self.output_shape(x.shape[1:])
        places = height * width
        batch = max(1, _BATCH_VALUES // (x.shape[1] * self.kernel[0] * self.kernel[1] * places))
        matrix = weight.reshape(self.groups, len(weight) // self.groups, -1)
        parts = []
        for first in range(0, len(x), batch):
            views = [view for _, _, view in self._taps(x[first : first + batch], 0.0)]
            # (n, groups, in / groups * taps, places), as the weights have their axes.
            columns = np.stack(views, axis=2).reshape(len(views[0]), self.groups, -1, places)
            parts.append((matrix @ columns).reshape(-1, len(weight), height, width))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]
