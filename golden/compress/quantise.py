"""From floats to integers: codebooks, multipliers of the requantiser, steps of activations.

A *step* is the real value of the integer 1. A layer's sums have the step
``weight step * input step``; the requantiser brings them to the step of the layer's outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.share import SharedWeights

__all__ = [
    "SCALE_BITS",
    "IntegerWeights",
    "activation_step",
    "quantise_channels",
    "quantise_codebook",
    "quantise_factor",
    "quantise_mean",
]

SCALE_BITS = 16  # significant bits of a multiplier: an error of 2^-17 moves no 9-bit output
MAX_SCALE = (1 << 31) - 1
MAX_SHIFT = 63

IndexArray = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerWeights:
    """Weights of a layer as indices into a codebook of integers.

    Parameters
    ----------
    indices
        uint8, of the weights' shape; the first axis is the output channel.
    codebook
        Integers; entry 0 is 0 and the others ascend.
    steps
        Weight step of each output channel, (out,).
    """

    indices: IndexArray
    codebook: Int64Array
    steps: npt.NDArray[np.float64]

    def dense(self) -> npt.NDArray[np.float64]:
        """Return the real values of the weights."""
        axes = [1] * (self.indices.ndim - 1)
        return self.codebook[self.indices] * self.steps.reshape(-1, *axes)


def quantise_codebook(
    shared: SharedWeights, weight_bits: int = 8
) -> tuple[IndexArray, Int64Array, float]:
    """Round the codebook to symmetric integers and merge entries that become equal.

    Parameters
    ----------
    shared
        Weights as indices into a float codebook.
    weight_bits
        Width of an integer weight, 2 to 9; the greatest magnitude becomes
        ``2 ** (weight_bits - 1) - 1``.

    Returns
    -------
    indices, codebook, step
        uint8 indices, ascending integers but for entry 0, which is 0, and the weight step. A
        weight that rounds to 0 becomes a pruned weight.

    Raises
    ------
    ValueError
        If ``weight_bits`` is out of its range.

    Examples
    --------
    >>> from thresher.golden.compress.share import share
    >>> indices, codebook, step = quantise_codebook(share([0.0, 1.27, -1.0, 0.501, 0.499], 8))
    >>> indices.tolist(), codebook.tolist(), round(step, 6)
    ([0, 3, 1, 2, 2], [0, -100, 50, 127], 0.01)
    """
    top = _top(weight_bits)
    greatest = float(np.abs(shared.codebook).max())
    step = greatest / top if greatest else 1.0
    rounded = np.rint(shared.codebook / step).astype(np.int64)
    new_index, codebook = _as_codebook(rounded)
    return new_index[shared.indices], codebook, step


def quantise_channels(
    weight: npt.ArrayLike, least_steps: npt.ArrayLike = 0.0, weight_bits: int = 8
) -> IntegerWeights:
    """Round weights to symmetric integers, with a step for each output channel.

    Parameters
    ----------
    weight
        Floats; the first axis is the output channel.
    least_steps
        Least step of a channel, one number or (out,): a channel of tiny weights must not make its
        bias larger than the accumulators.
    weight_bits
        Width of an integer weight, 2 to 8; a channel's greatest magnitude becomes
        ``2 ** (weight_bits - 1) - 1``, or less where its least step is greater.

    Raises
    ------
    ValueError
        If ``weight_bits`` is out of its range.

    Examples
    --------
    >>> made = quantise_channels([[1.27, -0.5], [0.0, 0.127]])
    >>> made.codebook[made.indices].tolist(), made.steps.round(6).tolist()
    ([[127, -50], [0, 127]], [0.01, 0.001])
    """
    if weight_bits > 8:
        raise ValueError(f"weight_bits must be in 2..8 for a step a channel, not {weight_bits!r}")
    array = np.asarray(weight, dtype=np.float64)
    flat = array.reshape(len(array), -1)
    steps = np.maximum(np.abs(flat).max(axis=1) / _top(weight_bits), least_steps)
    steps = np.where(steps > 0, steps, 1.0)
    indices, codebook = _as_codebook(np.rint(flat / steps[:, None]).astype(np.int64))
    return IntegerWeights(indices=indices.reshape(array.shape), codebook=codebook, steps=steps)


def _top(weight_bits: int) -> int:
    if not 2 <= weight_bits <= 9:
        raise ValueError(f"weight_bits must be in 2..9, not {weight_bits!r}")
    return (1 << (weight_bits - 1)) - 1


def _as_codebook(values: Int64Array) -> tuple[IndexArray, Int64Array]:
    """Return indices into a codebook of the distinct values, of which the first is 0."""
    kept = np.unique(values[values != 0])
    codebook = np.concatenate([np.zeros(1, dtype=np.int64), kept])
    indices = np.where(values == 0, 0, 1 + np.searchsorted(kept, values)).astype(np.uint8)
    return indices, codebook


def quantise_factor(factor: float, bits: int = SCALE_BITS) -> tuple[int, int]:
    """Return the (scale, shift) for which ``scale / 2 ** shift`` is nearest to ``factor``.

    Parameters
    ----------
    factor
        Positive.
    bits
        Significant bits of the scale, 1 to 31.

    Raises
    ------
    ValueError
        If the factor is not positive, or too large or small for 31 bits and a shift of 63.

    Examples
    --------
    >>> quantise_factor(0.25), quantise_factor(1 / 3, 8)
    ((32768, 17), (171, 9))
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be positive, not {factor!r}")
    mantissa, exponent = math.frexp(factor)
    scale, shift = round(mantissa * (1 << bits)), bits - exponent
    if scale == 1 << bits:
        scale, shift = scale >> 1, shift - 1
    if shift < 0:
        scale, shift = scale << -shift, 0
    elif shift > MAX_SHIFT:
        scale, shift = scale >> (shift - MAX_SHIFT), MAX_SHIFT
    if not 0 < scale <= MAX_SCALE:
        raise ValueError(f"factor must fit a 31-bit scale and a shift up to 63, not {factor!r}")
    return scale, shift


def activation_step(values: npt.ArrayLike, top: int, percentile: float = 100.0) -> float:
    """Choose the step of a layer's outputs from what it gave for calibration samples.

    Parameters
    ----------
    values
        Real outputs, of any shape, at least one.
    top
        Integer that the chosen magnitude becomes.
    percentile
        Of the magnitudes that are not zero; 100 is their maximum. What is above it is clipped.

    Raises
    ------
    ValueError
        If there are no values or a parameter is out of its range.

    Examples
    --------
    >>> activation_step([0.0, -6.0, 1.0], 240), activation_step([0.0, 0.0], 255)
    (0.025, 1.0)
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, not {percentile!r}")
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top!r}")
    magnitudes = np.abs(np.asarray(values, dtype=np.float64))
    if not magnitudes.size:
        raise ValueError("there must be at least one value, not 0")
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return 1.0
    return float(np.percentile(magnitudes, percentile)) / top


def quantise_mean(
    factor: float, divisors: tuple[list[int], list[int]], bits: int = SCALE_BITS
) -> dict[str, Any]:
    """Return ``scale``, ``shift`` and ``cut_scales`` of means times a factor.

    Parameters
    ----------
    factor, bits
        As of :func:`quantise_factor`; each scale has so many significant bits, or the sum of all
        31.
    divisors
        Rows and columns of windows by what they lack, of :func:`thresher.golden.pooling.divisors`.

    Raises
    ------
    ValueError
        As :func:`quantise_factor`.

    Examples
    --------
    >>> quantise_mean(1.0, ([2], [2]), 8)
    {'scale': 128, 'shift': 9, 'cut_scales': None}
    >>> quantise_mean(1.0, ([2, 1], [2]), 8)
    {'scale': 128, 'shift': 9, 'cut_scales': ((128,), (256,))}
    """
    rows, columns = divisors
    least, most = min(rows) * min(columns), max(rows) * max(columns)
    _, shift = quantise_factor(factor / least, min(31, bits + (most // least).bit_length() - 1))
    table = tuple(
        tuple(round(math.ldexp(factor / (height * width), shift)) for width in columns)
        for height in rows
    )
    if len(rows) == len(columns) == 1:
        scale, shift = quantise_factor(factor / least, bits)
        return {"scale": scale, "shift": shift, "cut_scales": None}
    return {"scale": table[0][0], "shift": shift, "cut_scales": table}
