"""Dense networks: graphs of layers with float weights, and what they compute.

They are what a trained network is before it is compressed: ``golden.compress.dense_file`` reads
them from ``.npz`` files, and readers of other tools' float models make them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.functions import apply
from thresher.golden.errors import ThresherError
from thresher.golden.pooling import counted_places, divisors

__all__ = [
    "KINDS",
    "RELU",
    "RELU6",
    "UNBOUNDED",
    "Bounds",
    "DenseError",
    "DenseLayer",
    "DenseNetwork",
    "folded",
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


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseNetwork:
    """A graph of layers with float weights; the last layer is the output.

    Parameters
    ----------
    name
        Name of the network.
    input_shape
        (C, H, W).
    layers
        Each after those that it reads.
    input_range
        Least and greatest integer input; None to choose it when the network is quantised.
    input_scale
        Real value of the integer input 1, likewise.

    Raises
    ------
    DenseError
        If a layer does not take its inputs' shapes, or a name is wrong.
    """

    name: str
    input_shape: Shape
    layers: tuple[DenseLayer, ...]
    input_range: Pair | None = None
    input_scale: float | None = None

    def __post_init__(self) -> None:
        layers, before = [], "input"
        for layer in self.layers:
            layers.append(layer if layer.inputs else replace(layer, inputs=(before,)))
            before = layer.name
        if not layers:
            raise DenseError("a network must have at least one layer, not 0")
        object.__setattr__(self, "layers", tuple(layers))
        if (self.input_range is None) != (self.input_scale is None):
            raise DenseError("input_range and input_scale must be given together")
        self.shapes()

    @property
    def output(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of the input and of each layer's output."""
        shapes = {"input": self.input_shape}
        for layer in self.layers:
            if layer.name in shapes:
                raise DenseError(
                    "a layer is named 'input'"
                    if layer.name == "input"
                    else f"two layers have the same name {layer.name!r}"
                )
            for source in layer.inputs:
                if source not in shapes:
                    raise layer.error(f"its input {source!r} is no layer before it")
            shapes[layer.name] = layer.output_shape(*(shapes[name] for name in layer.inputs))
        return shapes

    def readers(self) -> dict[str, list[str]]:
        """Return the names of the layers that read each value, once for each time."""
        found: dict[str, list[str]] = {"input": []}
        for layer in self.layers:
            found[layer.name] = []
            for source in layer.inputs:
                found[source].append(layer.name)
        return found

    def with_weights(self, weights: Mapping[str, FloatArray]) -> DenseNetwork:
        """Return the network with other weights for the layers named in ``weights``."""
        layers = (
            replace(layer, weight=weights[layer.name]) if layer.name in weights else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))

    def scaled(self, inputs: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the real values of integer inputs.

        Raises
        ------
        DenseError
            If they are not integers in the network's range, the shape is not the network's, or
            there is no input.
        """
        x = np.asarray(inputs)
        if self.input_range is None or self.input_scale is None:
            raise DenseError(f"network {self.name!r} has no integer inputs: quantise it")
        if not np.issubdtype(x.dtype, np.integer):
            raise DenseError(f"inputs must be integers, not {x.dtype}")
        self.check_shape(x)
        low, high = self.input_range
        if x.min() < low or x.max() > high:
            raise DenseError(f"inputs must be in {low}..{high}, not {x.min()}..{x.max()}")
        return x * self.input_scale

    def run(self, inputs: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return every layer's output (n, C, H, W), in 64-bit floats.

        Parameters
        ----------
        inputs
            Integers (n, C, H, W), as the compressed network takes them.

        Raises
        ------
        DenseError
            As :meth:`scaled`.
        """
        return dict(self.values(self.scaled(inputs)))

    def forward(
        self, inputs: npt.ArrayLike, keep: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Return outputs (n, C, H, W) for real inputs, in 32-bit floats.

        Parameters
        ----------
        inputs
            Real inputs (n, C, H, W).
        keep
            Names of the layers whose outputs are returned; the last layer alone if None.
        """
        kept = {self.output} if keep is None else set(keep)
        x = np.asarray(inputs, dtype=np.float32)
        return {name: value for name, value in self.values(x) if name in kept}

    def values(self, inputs: FloatArray) -> Iterator[tuple[str, FloatArray]]:
        """Yield each layer's name and output for real inputs; of the inputs' type.

        Only outputs that are still to be read are held.

        Raises
        ------
        DenseError
            If the shape is not the network's, or there is no input.
        """
        self.check_shape(inputs)
        waiting = {name: len(readers) for name, readers in self.readers().items()}
        held = {"input": inputs}
        for layer in self.layers:
            held[layer.name] = layer.run(*(held[source] for source in layer.inputs))
            yield layer.name, held[layer.name]
            for source in layer.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    del held[source]

    def check_shape(self, x: npt.NDArray[Any]) -> None:
        """Raise a :class:`DenseError` if inputs (n, C, H, W) do not fit or there are none."""
        if x.ndim != 4 or x.shape[1:] != tuple(self.input_shape) or not len(x):
            shape = ", ".join(map(str, self.input_shape))
            raise DenseError(f"inputs must have shape (n, {shape}), n at least 1, not {x.shape}")


def folded(network: DenseNetwork) -> DenseNetwork:
    """Return the network with what follows a layer taken into it, where nothing else reads it.

    A batch normalisation is a depthwise 1x1 convolution, ``weight`` (C, 1, 1, 1): it goes into the
    weights and biases of a convolution or linear layer without bounds before it. A unary ``relu``,
    ``relu6`` or ``clip`` becomes the bounds of a convolution, a linear layer, an addition or a
    product. The names that remain are those of the last layers taken in, so that each value has the
    name that it had.

    Parameters
    ----------
    network
        Any dense network.

    Returns
    -------
    network
        One that computes the same.
    """
    readers = network.readers()
    layers: dict[str, DenseLayer] = {}
    for layer in network.layers:
        before = layers.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
        joined = None
        if before is not None and len(readers[before.name]) == 1:
            joined = _joined(before, layer)
        if joined is not None and before is not None:
            del layers[before.name]
        layers[layer.name] = joined or layer
    return replace(network, layers=tuple(layers.values()))


def _joined(before: DenseLayer, layer: DenseLayer) -> DenseLayer | None:
    """Return one layer for two, or None."""
    if layer.kind == "unary" and before.kind in {*WEIGHTED, *OF_TWO}:
        bounds = {"relu": RELU, "relu6": RELU6, "clip": layer.parameters or UNBOUNDED}
        low, high = bounds.get(layer.function, (0.0, 0.0))
        low, high = max(low, before.clip[0]), min(high, before.clip[1])
        return replace(before, name=layer.name, clip=(low, high)) if low < high else None
    is_scale = (
        layer.weight is not None
        and layer.weight.shape == (layer.groups, 1, 1, 1)
        and layer.stride == (1, 1)
        and not any(layer.padding)
    )
    if not is_scale or before.weight is None or before.clip != UNBOUNDED:
        return None
    assert layer.weight is not None
    scale = layer.weight.ravel()
    bias = np.zeros(len(scale)) if before.bias is None else before.bias
    shift = 0.0 if layer.bias is None else layer.bias
    weight = before.weight * scale.reshape(-1, *[1] * (before.weight.ndim - 1))
    return replace(
        before, name=layer.name, weight=weight, bias=bias * scale + shift, clip=layer.clip
    )
