"""Densities: how often each channel of each value is not zero, as calibration samples tell.

The compiler balances lanes by them. They are kept in a network's metadata, a hexadecimal digit a
channel, in fifteenths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork, Linear

__all__ = ["densities_of", "with_densities"]

FloatArray = npt.NDArray[np.float64]

_KEY = "densities"
_LEAST = 1e-3  # density of what no sample had


def with_densities(
    network: CompressedNetwork, samples: npt.ArrayLike, *, exact: bool = False
) -> CompressedNetwork:
    """Return the network with the densities that it has on samples.

    Parameters
    ----------
    network
        The network.
    samples
        Inputs of shape (n, channels, height, width).
    exact
        Keep numbers in place of digits, which takes more bytes: for operands that are at hand.

    Returns
    -------
    network
        The same with ``metadata["densities"]``: a text for the input and each layer, one digit a
        channel; of a map that a linear layer reads, one a value.
    """
    images = np.asarray(samples)
    values = {"input": images, **infer(network, images, counts=False).outputs}
    flat = {layer.inputs[0] for layer in network.layers if isinstance(layer, Linear)}
    digits: dict[str, str | list[float]] = {}
    for name, value in values.items():
        if name in flat and value.shape[1] == 1:
            value = value.reshape(len(value), -1, 1, 1)  # noqa: PLW2901  # another view of it
        share = (value != 0).mean(axis=(0, 2, 3))
        if exact:
            digits[name] = share.tolist()
        else:
            digits[name] = "".join(f"{round(15 * part):x}" for part in share.tolist())
    return replace(network, metadata={**network.metadata, _KEY: digits})


def densities_of(network: CompressedNetwork) -> dict[str, FloatArray]:
    """Return the densities of each value's channels, shape (channels,); empty if not known.

    None is returned as quite zero: what no sample had may yet occur.
    """
    known = network.metadata.get(_KEY, {})
    if not isinstance(known, Mapping):
        return {}
    return {str(name): _shares(digits) for name, digits in known.items()}


def _shares(digits: object) -> FloatArray:
    if isinstance(digits, list | tuple):
        return np.maximum(np.array(digits, dtype=np.float64), _LEAST)
    return (np.array([int(digit, 16) for digit in str(digits)]) + 0.25) / 15.25
