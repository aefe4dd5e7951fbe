"""From floats to integers: codebooks, multipliers of the requantiser, steps of activations.

A *step* is the real value of the integer 1. A layer's sums have the step
``weight step * input step``; the requantiser brings them to the step of the layer's outputs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.share import SharedWeights

__all__ = ["SCALE_BITS", "activation_step", "quantise_codebook", "quantise_factor"]

SCALE_BITS = 16  # significant bits of a multiplier: an error of 2^-17 moves no 9-bit output
MAX_SCALE = (1 << 31) - 1
MAX_SHIFT = 63

IndexArray = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


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
    if not 2 <= weight_bits <= 9:
        raise ValueError(f"weight_bits must be in 2..9, not {weight_bits!r}")
    top = (1 << (weight_bits - 1)) - 1
    greatest = float(np.abs(shared.codebook).max())
    step = greatest / top if greatest else 1.0
    rounded = np.rint(shared.codebook / step).astype(np.int64)
    kept = np.unique(rounded[rounded != 0])
    codebook = np.concatenate([np.zeros(1, dtype=np.int64), kept])
    new_index = np.where(rounded == 0, 0, 1 + np.searchsorted(kept, rounded)).astype(np.uint8)
    return new_index[shared.indices], codebook, step


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
