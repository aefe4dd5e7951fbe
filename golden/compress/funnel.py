"""The whole way from a dense network to a compressed one, and its bytes after every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights import encode_layer
from thresher.golden.compress.dense import DenseError, DenseLayer, DenseNetwork
from thresher.golden.compress.prune import prune_to_density
from thresher.golden.compress.quantise import (
    activation_step,
    quantise_codebook,
    quantise_factor,
)
from thresher.golden.compress.share import share
from thresher.golden.densities import with_densities
from thresher.golden.network import (
    AveragePool,
    CompressedNetwork,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Range,
    WeightedLayer,
)

__all__ = ["STAGES", "Stage", "compress", "funnel"]

STAGES = ("dense", "pruned", "shared", "run-coded", "Huffman")
FLOAT_BITS = 32
CONSTANT_BITS = {"bias": 32, "scale": 31, "shift": 6}
SIGNED_TOP = 250  # leaves room to 255 for inputs beyond the calibration samples
UNSIGNED, SIGNED = (0, 255), (-256, 255)

PerLayer = float | Mapping[str, float]


class Stage(NamedTuple):
    """Size of a network after a stage of its compression."""

    name: str
    bytes: int


def compress(
    dense: DenseNetwork,
    calibration: npt.ArrayLike,
    *,
    density: PerLayer | None = None,
    entries: int | Mapping[str, int] = 32,
    percentile: float = 100.0,
    weight_bits: int = 8,
    metadata: Mapping[str, object] | None = None,
) -> CompressedNetwork:
    """Prune, share and quantise a dense network, without retraining.

    Parameters
    ----------
    dense
        Float weights. Its zeros stay zeros, and a layer whose non-zero weights have no more than
        ``entries - 1`` distinct values keeps exactly these: a network that was pruned and shared
        in training is only quantised.
    calibration
        Integer inputs (n, C, H, W), from which the activations' steps are taken.
    density
        Part of the weights to keep, of every layer or by layer; None and layers that are not
        named keep all.
    entries
        Size of the codebooks with their zero, 2 to 256, of every layer or by layer (32 for layers
        that are not named).
    percentile
        Of the magnitudes of a hidden layer's outputs that are to be represented; the last layer's
        are all.
    weight_bits
        Width of the integer weights.
    metadata
        For the compressed network.

    Returns
    -------
    network
        Hidden ReLU layers have outputs in 0..255, the others in -256..255; one scale a layer. Its
        metadata has the densities of the calibration samples.

    Raises
    ------
    DenseError
        If the network cannot be expressed, e.g. ``density`` names a layer that does not exist.
    """
    for parameter in (density, entries):
        if isinstance(parameter, Mapping):
            known = {layer.name for layer in dense.layers if layer.weight is not None}
            for name in sorted(set(parameter) - known):
                raise DenseError(f"no layer {name!r} with weights in {sorted(known)}")
    x = dense.scaled(calibration)
    step, source = dense.input_scale, "input"
    layers: list[Layer] = []
    for layer in dense.layers:
        if layer.weight is None:
            x = layer.run(x)
            layers.append(_plain_layer(layer, source))
            source = layer.name
            continue
        kept = _of(density, layer.name, 1.0)
        try:
            pruned = prune_to_density(layer.weight, kept) if kept != 1 else layer.weight
            shared = share(pruned, int(_of(entries, layer.name, 32)))
            indices, codebook, weight_step = quantise_codebook(shared, weight_bits)
        except ValueError as error:
            raise DenseError(f"layer {layer.name!r}: {error}") from None
        # The layer as it will be: the next layers' steps follow from what they will really see.
        x = DenseLayer(**{**vars(layer), "weight": codebook[indices] * weight_step}).run(x)
        top = UNSIGNED[1] if layer.relu else SIGNED_TOP
        is_last = layer is dense.layers[-1]
        try:
            out_step = activation_step(x, top, 100.0 if is_last else percentile)
        except ValueError as error:
            raise DenseError(f"layer {layer.name!r}: {error}") from None
        layers.append(
            _weighted_layer(layer, source, indices, codebook, (weight_step * step, out_step))
        )
        step, source = out_step, layer.name
    network = CompressedNetwork(
        name=dense.name,
        input_shape=dense.input_shape,
        input_range=dense.input_range,
        layers=tuple(layers),
        metadata=dict(metadata or {}),
    )
    return with_densities(network, calibration)


def funnel(network: CompressedNetwork) -> list[Stage]:
    """Return the bytes of the network's weights and constants after each stage.

    * ``dense``: every weight and bias as a 32-bit float.
    * ``pruned``: a non-zero weight is a 32-bit float and its position, of as many bits as the
      layer's positions need. From here on each layer has its scale and shift.
    * ``shared``: instead of the float an index, of as many bits as the codebook needs, and a
      codebook of 8-bit entries.
    * ``run-coded``: instead of the position the zeros before it, in runs of the best fixed width;
      a longer run takes escapes.
    * ``Huffman``: runs and indices Huffman-coded, with the tables of the codes.
    """
    totals = np.zeros(len(STAGES), dtype=np.int64)
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            totals += _layer_bits(layer)
    return [Stage(name, int(-(-bits // 8))) for name, bits in zip(STAGES, totals, strict=True)]


def _layer_bits(layer: WeightedLayer) -> list[int]:
    indices = layer.weights.ravel()
    positions = np.flatnonzero(layer.codebook[indices])
    count, channels = len(positions), layer.out_channels
    constants = sum(
        width * (channels if name == "bias" or np.ptp(getattr(layer, name)) else 1)
        for name, width in CONSTANT_BITS.items()
    )
    entries = int(np.count_nonzero(layer.codebook))
    codebook = 8 * len(layer.codebook)
    position_bits = (indices.size - 1).bit_length()
    index_bits = max(entries - 1, 0).bit_length()
    zeros = np.diff(positions, prepend=-1) - 1
    escapes = {bits: int((zeros // ((1 << bits) - 1)).sum()) for bits in range(1, 9)}
    run_coded = count * index_bits + min((count + more) * bits for bits, more in escapes.items())
    return [
        FLOAT_BITS * (indices.size + channels),
        constants + count * (FLOAT_BITS + position_bits),
        constants + codebook + count * (index_bits + position_bits),
        constants + codebook + run_coded,
        constants + codebook + 8 * len(encode_layer(indices, layer.codebook)),
    ]


def _of(parameter: PerLayer | Mapping[str, int] | None, name: str, default: float) -> float:
    if parameter is None:
        return default
    return parameter.get(name, default) if isinstance(parameter, Mapping) else parameter


def _plain_layer(layer: DenseLayer, source: str) -> Layer:
    if layer.kind == "flatten":
        return Flatten(name=layer.name, inputs=(source,))
    if layer.kind == "max_pool":
        return MaxPool(
            name=layer.name,
            inputs=(source,),
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
        )
    scale, shift = quantise_factor(1 / (layer.kernel[0] * layer.kernel[1]))
    return AveragePool(
        name=layer.name,
        inputs=(source,),
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        scale=scale,
        shift=shift,
    )


def _weighted_layer(
    layer: DenseLayer,
    source: str,
    indices: npt.NDArray[np.uint8],
    codebook: npt.NDArray[np.int64],
    steps: tuple[float, float],
) -> WeightedLayer:
    sum_step, out_step = steps
    try:
        scale, shift = quantise_factor(sum_step / out_step)
    except ValueError as error:
        raise DenseError(f"layer {layer.name!r}: {error}") from None
    assert layer.bias is not None
    bias = np.rint(layer.bias / sum_step)
    if np.abs(bias).max() >= 1 << 31:
        raise DenseError(f"layer {layer.name!r}: its bias {layer.bias} does not fit 32 bits")
    channels = len(bias)
    clip: Range = UNSIGNED if layer.relu else SIGNED
    common = {
        "name": layer.name,
        "inputs": (source,),
        "weights": indices,
        "codebook": codebook,
        "bias": bias.astype(np.int64),
        "scale": np.full(channels, scale),
        "shift": np.full(channels, shift),
        "clip": clip,
    }
    if layer.kind == "linear":
        return Linear(**common)  # type: ignore[arg-type]  # values of many types
    return Convolution(
        **common,  # type: ignore[arg-type]  # values of many types
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
