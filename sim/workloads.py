"""Workloads whose published cycles are known: single layers of stated shapes and densities.

Patterns and values are random with a fixed seed; the densities are exact but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.network import CompressedNetwork, Convolution

__all__ = ["LayerShape", "layer_workload", "peer_shapes"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A convolution, of which a matrix product is the one of kernel 1 x 1.

    Parameters
    ----------
    name
        As published.
    in_shape
        (channels, height, width).
    outputs
        Output channels.
    kernel, padding
        Rows and positions of the kernel; zeros on each side. The stride is 1.
    """

    name: str
    in_shape: tuple[int, int, int]
    outputs: int
    kernel: int = 1
    padding: int = 0

    @property
    def macs(self) -> int:
        """Multiplications, those with padding included."""
        channels, height, width = self.in_shape
        rows = height + 2 * self.padding - self.kernel + 1
        columns = width + 2 * self.padding - self.kernel + 1
        return self.outputs * rows * columns * channels * self.kernel**2


def peer_shapes() -> Iterator[LayerShape]:
    """The six shapes that other open accelerators were measured on."""
    yield LayerShape(name="gemm64", in_shape=(64, 8, 8), outputs=64)
    yield LayerShape(name="conv3x3_64", in_shape=(64, 8, 8), outputs=64, kernel=3, padding=1)
    yield LayerShape(name="pw_64", in_shape=(64, 25, 5), outputs=64)
    yield LayerShape(name="fc_128x640", in_shape=(640, 1, 1), outputs=128)
    yield LayerShape(name="conv3x3_3_16", in_shape=(3, 32, 32), outputs=16, kernel=3, padding=1)
    yield LayerShape(name="fc_1024_512", in_shape=(1024, 1, 1), outputs=512)


def _sparse(
    rng: np.random.Generator, shape: tuple[int, ...], density: float, low: int, high: int
) -> Int64Array:
    """Return integers of [low, high] of which a share of exactly ``density`` is not zero."""
    values = rng.integers(low, high, size=shape, endpoint=True)
    values[values == 0] = high
    count = round(values.size * density)
    values.reshape(-1)[rng.permutation(values.size)[count:]] = 0
    return values


def layer_workload(
    shape: LayerShape, weight_density: float, activation_density: float, seed: int = 1
) -> tuple[CompressedNetwork, Int64Array]:
    """Return a network of one layer with random int8 weights, and one random int8 input.

    The scale makes typical sums fill int8, so that the outputs are dense.
    """
    rng = np.random.default_rng(seed)
    weights = _sparse(
        rng,
        (shape.outputs, shape.in_shape[0], shape.kernel, shape.kernel),
        weight_density,
        -127,
        127,
    )
    inputs = _sparse(rng, (1, *shape.in_shape), activation_density, -128, 127)
    codebook, indices = np.unique(weights, return_inverse=True)
    used = weight_density * activation_density * weights[0].size
    deviation = 73.0 * 73.6 * max(1.0, used) ** 0.5  # of products of uniform factors
    outputs = np.ones(shape.outputs, np.int64)
    layer = Convolution(
        name=shape.name,
        weights=indices.reshape(weights.shape).astype(np.uint8),
        codebook=codebook,
        bias=0 * outputs,
        scale=outputs * round(48 / deviation * 2**24),
        shift=outputs * 24,
        clip=(-128, 127),
        padding=(shape.padding,) * 4,
    )
    network = CompressedNetwork(
        name=shape.name, input_shape=shape.in_shape, input_range=(-128, 127), layers=(layer,)
    )
    return network, inputs
