"""Workloads whose published cycles are known: single layers of stated shapes and densities.

Patterns and values are random with a fixed seed; the densities are exact but for rounding.

References
----------
S. Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016,
tables III (shapes and densities of nine layers) and IV (times on 64 elements at 800 MHz).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.network import CompressedNetwork, Convolution, Layer, Linear

__all__ = ["EIE_LAYERS", "GEMM_256", "PEER_SHAPES", "EieLayer", "LayerShape", "layer_workload"]

Int64Array = npt.NDArray[np.int64]

EIE_CYCLES_PER_US = 800


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A convolution of stride 1, or a fully connected layer.

    Parameters
    ----------
    name
        As published.
    in_shape
        (channels, height, width).
    outputs
        Output channels.
    kernel, padding
        Rows and positions of the kernel, 0 for a fully connected layer; zeros on each side.
    """

    name: str
    in_shape: tuple[int, int, int]
    outputs: int
    kernel: int = 1
    padding: int = 0

    def in_rows(self, width: int) -> LayerShape:
        """Return the same with positions in rows of ``width``, as those of a matrix product may be.

        Short rows leave less to drain at the end, and take more words of headers.
        """
        channels, height, columns = self.in_shape
        return replace(self, in_shape=(channels, height * columns // width, width))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, outputs first."""
        channels, height, width = self.in_shape
        if self.kernel == 0:
            return self.outputs, channels * height * width
        return self.outputs, channels, self.kernel, self.kernel


@dataclass(frozen=True, kw_only=True)
class EieLayer:
    """A fully connected layer of EIE's benchmark, its densities, and EIE's cycles."""

    shape: LayerShape
    weights: float
    activations: float
    actual_us: float

    @property
    def cycles(self) -> float:
        """Cycles that EIE took."""
        return self.actual_us * EIE_CYCLES_PER_US


_EIE_TABLE = (
    # name, input shape, outputs, density of weights, of activations, microseconds
    ("Alex-6", (256, 6, 6), 4096, 0.09, 0.351, 30.3),
    ("Alex-7", (4096, 1, 1), 4096, 0.09, 0.353, 12.2),
    ("Alex-8", (4096, 1, 1), 1000, 0.25, 0.375, 9.9),
    ("VGG-6", (512, 7, 7), 4096, 0.04, 0.183, 34.4),
    ("VGG-7", (4096, 1, 1), 4096, 0.04, 0.375, 8.7),
    ("VGG-8", (4096, 1, 1), 1000, 0.23, 0.411, 8.4),
    ("NT-We", (4096, 1, 1), 600, 0.10, 1.0, 8.0),
    ("NT-Wd", (600, 1, 1), 8791, 0.11, 1.0, 13.9),
    ("NT-LSTM", (1201, 1, 1), 2400, 0.10, 1.0, 7.5),
)

EIE_LAYERS = tuple(
    EieLayer(
        shape=LayerShape(name=name, in_shape=in_shape, outputs=outputs, kernel=0),
        weights=weights,
        activations=activations,
        actual_us=actual_us,
    )
    for name, in_shape, outputs, weights, activations, actual_us in _EIE_TABLE
)

PEER_SHAPES = (
    LayerShape(name="gemm64", in_shape=(64, 8, 8), outputs=64),
    LayerShape(name="conv3x3_64", in_shape=(64, 8, 8), outputs=64, kernel=3, padding=1),
    LayerShape(name="pw_64", in_shape=(64, 25, 5), outputs=64),
    LayerShape(name="fc_128x640", in_shape=(640, 1, 1), outputs=128, kernel=0),
    LayerShape(name="conv3x3_3_16", in_shape=(3, 32, 32), outputs=16, kernel=3, padding=1),
    LayerShape(name="fc_1024_512", in_shape=(1024, 1, 1), outputs=512, kernel=0),
)

GEMM_256 = LayerShape(name="gemm256", in_shape=(256, 32, 8), outputs=256)


def _sparse(
    rng: np.random.Generator, shape: tuple[int, ...], density: float, low: int, high: int
) -> Int64Array:
    """Return integers of [low, high] of which a share of ``density`` is not zero."""
    values = rng.integers(low, high, size=shape, endpoint=True)
    values[values == 0] = high
    count = round(values.size * density)
    values.reshape(-1)[rng.permutation(values.size)[count:]] = 0
    return values


def layer_workload(
    shape: LayerShape, weights: float, activations: float, *, seed: int = 1
) -> tuple[CompressedNetwork, Int64Array]:
    """Return a network of one layer with random int8 weights, and one random int8 input.

    Parameters
    ----------
    shape
        The layer.
    weights, activations
        Densities.
    seed
        Decides patterns and values.

    Returns
    -------
    network, inputs
        The scale lets typical sums fill int8, so that the outputs are dense. The network's metadata
        tells the density of the activations, as published, not where they are zero.
    """
    rng = np.random.default_rng(seed)
    dense = _sparse(rng, shape.weight_shape, weights, -127, 127)
    inputs = _sparse(rng, (1, *shape.in_shape), activations, -128, 127)
    codebook, indices = np.unique(dense, return_inverse=True)
    products = max(1.0, weights * activations * dense[0].size)
    deviation = 73.0 * 73.6 * products**0.5  # of a sum of products of uniform int8 factors
    ones = np.ones(shape.outputs, np.int64)
    fields: dict[str, Any] = {
        "name": shape.name,
        "weights": indices.reshape(dense.shape).astype(np.uint8),
        "codebook": codebook,
        "bias": 0 * ones,
        "scale": ones * round(48 / deviation * 2**30),
        "shift": ones * 30,
        "clip": (-128, 127),
    }
    layer: Layer
    if shape.kernel:
        layer = Convolution(**fields, padding=(shape.padding,) * 4)
    else:
        layer = Linear(**fields)
    network = CompressedNetwork(
        name=shape.name,
        input_shape=shape.in_shape,
        input_range=(-128, 127),
        layers=(layer,),
        metadata={"densities": {"input": [activations]}},
    )
    return network, inputs
