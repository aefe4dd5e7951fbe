"""The whole way from a dense network to a compressed one, and its bytes after every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights import encode_layer
from thresher.golden.compress.calibrate import calibrate
from thresher.golden.compress.dense import DenseError, DenseNetwork
from thresher.golden.compress.prune import prune_to_density
from thresher.golden.compress.quantise import IntegerWeights, quantise_codebook
from thresher.golden.compress.share import share
from thresher.golden.network import CompressedNetwork, WeightedLayer

__all__ = ["STAGES", "Stage", "compress", "funnel"]

STAGES = ("dense", "pruned", "shared", "run-coded", "Huffman")
FLOAT_BITS = 32
CONSTANT_BITS = {"bias": 32, "scale": 31, "shift": 6}

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
        As :func:`thresher.golden.compress.calibrate.quantise` gives it, with one scale a layer.

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
    samples = dense.scaled(calibration)
    weights = {}
    for layer in dense.layers:
        if layer.weight is None:
            continue
        kept = _of(density, layer.name, 1.0)
        try:
            pruned = prune_to_density(layer.weight, kept) if kept != 1 else layer.weight
            shared = share(pruned, int(_of(entries, layer.name, 32)))
            indices, codebook, step = quantise_codebook(shared, weight_bits)
        except ValueError as error:
            raise layer.error(str(error)) from None
        weights[layer.name] = IntegerWeights(
            indices=indices, codebook=codebook, steps=np.full(len(indices), step)
        )
    return calibrate(dense, samples, weights, percentile=percentile, metadata=metadata)


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
