"""TFLite's integer arithmetic: multipliers, limits and the tables of its functions of one value.

Each function computes what a reference kernel of TensorFlow Lite computes, in the precision in
which the kernel prepares it; single precision is written as ``np.float32``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.requantise import requantise

__all__ = [
    "FUNCTIONS",
    "LIMITS",
    "activation_limits",
    "mean_multiplier",
    "quantize_multiplier",
    "reciprocals",
    "rescaled",
    "table",
]

Int64Array = npt.NDArray[np.int64]
Quantisation = tuple[np.float32, int]

LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}

_FUSED = {
    0: (None, None),  # NONE
    1: (0.0, None),  # RELU
    2: (-1.0, 1.0),  # RELU_N1_TO_1
    3: (0.0, 6.0),  # RELU6
}


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return the multiplier (31 bits) and right shift (0..63) that stand for a factor.

    References
    ----------
    TFLite, ``QuantizeMultiplier``: the exponent is turned into a shift to the right by 31 more.
    """
    if real <= 0:
        return 0, 31
    fraction, exponent = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier >>= 1
        exponent += 1
    if exponent < -31:
        return 0, 31
    if exponent > 30:
        return (1 << 31) - 1, 1
    return multiplier, 31 - exponent


def mean_multiplier(real: float, count: int) -> tuple[int, int]:
    """Return multiplier and right shift of a mean of ``count`` values, rescaled by ``real``.

    References
    ----------
    TFLite, kernel of MEAN: the multiplier is divided by the count, with as many bits more as
    there is room for.
    """
    multiplier, shift = quantize_multiplier(real)
    more = min(count.bit_length() - 1, 32, 31 + (31 - shift))
    return (multiplier << more) // count, shift + more


def reciprocals(counts: Sequence[int], greatest: int) -> tuple[list[int], int] | None:
    """Return scales that divide by ``counts``, and round as exact divisions do, and their shift.

    Parameters
    ----------
    counts
        The divisors.
    greatest
        Greatest magnitude of one value; a dividend is the sum of as many as it is divided by.

    Returns
    -------
    scales, shift
        Of 31 and 6 bits; None if there are none.
    """
    least = min(counts)
    if len(counts) == 1 and least & (least - 1) == 0:
        return [1], least.bit_length() - 1
    # A scale a little too large takes a half further away from zero, where it goes anyway.
    shift = 30 + least.bit_length() - 1
    scales = [-(-(1 << shift) // count) for count in counts]
    exact = all(
        2 * greatest * count * (scale * count - (1 << shift)) < 1 << shift
        for count, scale in zip(counts, scales, strict=True)
    )
    return (scales, shift) if exact else None


def activation_limits(
    fused: int, dtype: str, scale: np.float32, zero_point: int
) -> tuple[int, int]:
    """Return least and greatest stored value after a fused activation.

    Raises
    ------
    KeyError
        If the activation is none of NONE, RELU, RELU_N1_TO_1 and RELU6.

    References
    ----------
    TFLite, ``CalculateActivationRangeQuantized``.
    """
    low, high = LIMITS[dtype]
    least, most = _FUSED[fused]
    if least is not None:
        low = max(low, zero_point + _round(np.float32(least) / scale))
    if most is not None:
        high = min(high, zero_point + _round(np.float32(most) / scale))
    return low, high


def rescaled(values: Int64Array, real: float) -> Int64Array:
    """Return ``MultiplyByQuantizedMultiplier`` of values by a factor of any sign."""
    if real < 0:
        values, real = -values, -real
    return requantise(values, *quantize_multiplier(real), Rounding.DOUBLE)


def table(
    op: str, stored: Int64Array, source: Quantisation, target: Quantisation, alpha: float = 0.0
) -> Int64Array:
    """Return a function's stored outputs, not clipped, for its stored inputs.

    Parameters
    ----------
    op
        One of ``FUNCTIONS``.
    stored
        Inputs.
    source, target
        Scale and zero point of inputs and outputs.
    alpha
        Slope below zero, of LEAKY_RELU.
    """
    values = stored - source[1]
    if op in _REAL:
        # As PopulateLookupTable: all in single precision.
        real = (source[0] * values.astype(np.float32)).astype(np.float32)
        outputs = np.asarray(_REAL[op](real), np.float32)
        return _rounded(outputs * (np.float32(1) / target[0])) + target[1]
    if op == "HARD_SWISH":
        return _hard_swish(values, source[0], target[0]) + target[1]
    if op == "LEAKY_RELU":
        below = rescaled(values, float(source[0] * np.float32(alpha) / target[0]))
        above = rescaled(values, float(source[0] / target[0]))
        return np.where(values >= 0, above, below) + target[1]
    if op == "QUANTIZE":
        return rescaled(values, float(source[0]) / float(target[0])) + target[1]
    if op == "CONCATENATION":
        factor = source[0] * (np.float32(1) / target[0])
        moved = stored.astype(np.float32) * factor + np.float32(-source[1]) * factor
        return _rounded(moved) + target[1]
    made = rescaled(values, float(source[0] / target[0])) + target[1]
    least, most = _RELU[op]
    low = target[1] + _round(np.float32(least) / target[0])
    high = None if most is None else target[1] + _round(np.float32(most) / target[0])
    return np.clip(made, low, high)


def _hard_swish(values: Int64Array, source: np.float32, target: np.float32) -> Int64Array:
    """Return hard-swish in 16-bit fixed point (TFLite, ``reference_ops::HardSwish``)."""
    fine = np.float32(1 / 128) * source
    to_output, output_shift = quantize_multiplier(float(fine / target))
    to_relu, relu_shift = quantize_multiplier(float(fine / np.float32(3 / 32768)))
    output_exponent, relu_exponent = 31 - output_shift, 31 - relu_shift
    if output_exponent > 0:
        raise ValueError("its output's scale is less than a 128th of its input's")

    high = values << 7
    unscaled = _saturated((high * _half_width(to_output) + (1 << 14)) >> 15)
    relu = high
    if relu_exponent > 0:
        relu = _saturated(relu << (relu_exponent - 1))
    relu = _saturated((relu * _half_width(to_relu) + (1 << 14)) >> 15)
    if relu_exponent > 0:
        relu = _saturated(relu << 1)
    elif relu_exponent < 0:
        relu = requantise(relu, 1, -relu_exponent, Rounding.HALF_AWAY)
    relu = (relu + (1 << 15)) >> 1
    products = relu * unscaled
    towards_zero = np.sign(products) * (np.abs(products) >> 15)
    return requantise(towards_zero, 1, -output_exponent, Rounding.HALF_AWAY)


def _half_width(multiplier: int) -> int:
    """Return a multiplier of 31 bits in 15 (TFLite, ``DownScaleInt32ToInt16Multiplier``)."""
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1)


def _saturated(values: Int64Array) -> Int64Array:
    return np.clip(values, -(1 << 15), (1 << 15) - 1)


def _round(value: np.float32) -> int:
    """Round halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def _rounded(values: npt.NDArray[np.float32]) -> Int64Array:
    exact = values.astype(np.float64)
    return (np.sign(exact) * np.floor(np.abs(exact) + 0.5)).astype(np.int64)


def _in_single(
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Return a function of single precision whose results are rounded once."""

    def single(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):  # an exponential becomes infinite, as in the kernel
            return function(values.astype(np.float64)).astype(np.float32)

    return single


_exp = _in_single(np.exp)


def _logistic(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    one = np.float32(1)
    return np.asarray(one / (one + _exp(-values)), np.float32)


def _gelu(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(values / 2 * np.vectorize(math.erfc)(values * -math.sqrt(0.5)))


def _gelu_by_tanh(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    return np.asarray(values / 2 * (1 + np.tanh(inner)))


_REAL: Mapping[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    "LOGISTIC": _logistic,
    "TANH": _in_single(np.tanh),
    "GELU": _in_single(_gelu),
    "GELU by tanh": _in_single(_gelu_by_tanh),
    "ELU": lambda values: np.where(values < 0, _in_single(np.expm1)(values), values),
}
_RELU: Mapping[str, tuple[float, float | None]] = {
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}

FUNCTIONS = (*_REAL, *_RELU, "HARD_SWISH", "LEAKY_RELU")
"""Operations that are a function of one value."""
