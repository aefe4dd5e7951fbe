"""Stages: the layers of a network as the machine runs them, one convolution with its pooling each.

A linear layer is a convolution whose kernel is the map. A pooling layer that does not follow a
convolution of its own is pooled behind an identity convolution. A flatten is another view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Pool, Rounding
from thresher.golden.network import (
    AveragePool,
    CompressedNetwork,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Shape,
)

__all__ = ["Pooling", "Stage", "stages_of"]

IntArray = npt.NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One convolution and its pooling.

    Parameters
    ----------
    name
        Name of the convolution's layer.
    source, result
        Values it reads and writes: names of layers, or ``"input"``.
    in_shape, out_shape, result_shape
        (channels, height, width) of the input, of the convolution, and after pooling.
    weights
        Codebook indices of shape (out, in, kernel height, kernel width).
    present
        Weights that exist, of the same shape: those outside a group do not.
    """

    name: str
    source: str
    result: str
    in_shape: Shape
    out_shape: Shape
    result_shape: Shape
    weights: IntArray
    present: npt.NDArray[np.bool_]
    codebook: IntArray
    bias: IntArray
    scale: IntArray
    shift: IntArray
    rounding: Rounding
    clip: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    pooling: Pooling

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of the dilated kernel."""
        _, _, height, width = self.weights.shape
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


def _expand_groups(layer: Convolution) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    outputs, depth, *kernel = layer.weights.shape
    weights = np.zeros((outputs, depth * layer.groups, *kernel), np.int64)
    present = np.zeros(weights.shape, bool)
    for group in range(layer.groups):
        rows = slice(group * outputs // layer.groups, (group + 1) * outputs // layer.groups)
        columns = slice(group * depth, (group + 1) * depth)
        weights[rows, columns] = layer.weights[rows]
        present[rows, columns] = True
    return weights, present


def _identity(
    layer: Layer, source: str, in_shape: Shape, out_shape: Shape, full: tuple[int, int]
) -> Stage:
    """Return the stage that copies a map; flattened, if its output has a channel a value."""
    channels = out_shape[0]
    kernel = in_shape[1:] if channels != in_shape[0] else (1, 1)
    present = np.eye(channels, dtype=bool).reshape(channels, in_shape[0], *kernel)
    ones = np.ones(channels, np.int64)
    return Stage(
        name=layer.name,
        source=source,
        result=layer.name,
        in_shape=in_shape,
        out_shape=out_shape,
        result_shape=out_shape,
        weights=np.zeros(present.shape, np.int64),
        present=present,
        codebook=ones[:1],
        bias=0 * ones,
        scale=ones,
        shift=0 * ones,
        rounding=Rounding.HALF_UP,
        clip=full,
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        pooling=Pooling(shape=out_shape[1:]),
    )


def _pooling(layer: MaxPool | AveragePool, shape: Shape) -> Pooling:
    kind = Pool.MAX if isinstance(layer, MaxPool) else Pool.AVERAGE
    pooling = Pooling(
        kind=kind,
        kernel=layer.kernel,
        stride=layer.stride,
        padding=(layer.padding[0], layer.padding[1]),
        shape=shape[1:],
    )
    if isinstance(layer, AveragePool):
        pooling = replace(
            pooling,
            scale=int(layer.scale),
            shift=int(layer.shift),
            rounding=layer.rounding,
            origin=int(layer.origin),
        )
    return pooling


def _flat(layer: Layer) -> bool:
    """Whether the layer takes a map as the vector of its values."""
    return isinstance(layer, Linear | Flatten)


def stages_of(
    network: CompressedNetwork, activation_bits: int, *, keep_layers: bool = False
) -> tuple[list[Stage], dict[str, str]]:
    """Split a network into stages.

    Parameters
    ----------
    network
        The network, its codebooks as the multiplier sees them.
    activation_bits
        Width of an activation; an identity convolution clips to its range.
    keep_layers
        Pooling is not merged into the convolution before it, so that every layer is stored.

    Returns
    -------
    stages, aliases
        The stages in order, and for each flatten layer the stored value that it is a view of.
    """
    shapes = {"input": network.input_shape, **network.shapes()}
    readers: dict[str, int] = {}
    for layer in network.layers:
        for name in layer.inputs:
            readers[name] = readers.get(name, 0) + 1
    aliases: dict[str, str] = {}
    stages: list[Stage] = []
    full = (-(1 << activation_bits - 1), (1 << activation_bits - 1) - 1)

    for layer in network.layers:
        view = layer.inputs[0]
        source = aliases.get(view, view)
        if source != view and shapes[source] != shapes[view] and not _flat(layer):
            # A layer that minds the shape: the map is flattened in earnest.
            flatten = network.layer(view)
            stages.append(_identity(flatten, source, shapes[source], shapes[view], full))
            del aliases[view]
            source = view
        in_shape, out_shape = shapes[source], shapes[layer.name]
        if isinstance(layer, Flatten):
            aliases[layer.name] = source
            continue
        if isinstance(layer, MaxPool | AveragePool):
            pooling = _pooling(layer, out_shape)
            last = stages[-1] if stages else None
            merged = last is not None and last.result == source and readers[source] == 1
            merged = merged and last is not None and last.pooling.kind is Pool.NONE
            if merged and last is not None and not keep_layers:
                stages[-1] = replace(
                    last, result=layer.name, result_shape=out_shape, pooling=pooling
                )
                continue
            stage = _identity(layer, source, in_shape, in_shape, full)
            stages.append(replace(stage, result_shape=out_shape, pooling=pooling))
            continue
        if isinstance(layer, Linear):
            weights = layer.weights.astype(np.int64).reshape(-1, *in_shape)
            present = np.ones(weights.shape, bool)
            geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        elif isinstance(layer, Convolution):
            weights, present = _expand_groups(layer)
            geometry = {
                "stride": layer.stride,
                "padding": (layer.padding[0], layer.padding[1]),
                "dilation": layer.dilation,
            }
        else:
            raise ValueError(f"layer {layer.name}: no stage for {type(layer).__name__}")
        stages.append(
            Stage(
                name=layer.name,
                source=source,
                result=layer.name,
                in_shape=in_shape,
                out_shape=out_shape,
                result_shape=out_shape,
                weights=weights,
                present=present,
                codebook=np.asarray(layer.codebook, np.int64),
                bias=np.asarray(layer.bias, np.int64),
                scale=np.asarray(layer.scale, np.int64),
                shift=np.asarray(layer.shift, np.int64),
                rounding=layer.rounding,
                clip=layer.clip,
                pooling=Pooling(shape=out_shape[1:]),
                **geometry,
            )
        )
    return stages, aliases
