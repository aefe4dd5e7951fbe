"""Functions of one value that layers apply in floats, by the names that ONNX gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FUNCTIONS", "apply", "is_never_negative"]

FloatArray = npt.NDArray[np.floating[Any]]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _softplus(x: FloatArray) -> FloatArray:
    return np.asarray(np.logaddexp(x, 0))


def _hard_sigmoid(x: FloatArray, alpha: float, beta: float) -> FloatArray:
    return np.asarray(np.clip(alpha * x + beta, 0, 1))


def _elu(x: FloatArray, alpha: float) -> FloatArray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


FUNCTIONS: dict[str, tuple[Callable[..., FloatArray], tuple[float, ...]]] = {
    "abs": (np.abs, ()),
    "clip": (np.clip, (-math.inf, math.inf)),
    "elu": (_elu, (1.0,)),
    "gelu": (lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))), ()),
    "hard_sigmoid": (_hard_sigmoid, (0.2, 0.5)),
    "hard_swish": (lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5), ()),
    "leaky_relu": (lambda x, alpha: np.where(x < 0, alpha * x, x), (0.01,)),
    "mish": (lambda x: x * np.tanh(_softplus(x)), ()),
    "relu": (lambda x: np.maximum(x, 0), ()),
    "relu6": (lambda x: np.clip(x, 0, 6), ()),
    "selu": (lambda x, alpha, gamma: gamma * _elu(x, alpha), (1.67326324, 1.05070098)),
    "sigmoid": (_sigmoid, ()),
    "silu": (lambda x: x * _sigmoid(x), ()),
    "softplus": (_softplus, ()),
    "tanh": (np.tanh, ()),
}
"""Each function, and its further parameters where none are given: those of ONNX."""


def apply(name: str, values: npt.ArrayLike, parameters: Sequence[float] = ()) -> FloatArray:
    """Return a function's values; of the dtype of ``values`` if these are floats.

    Parameters
    ----------
    name
        One of :data:`FUNCTIONS`.
    values
        Of any shape.
    parameters
        All further parameters of the function, or none.

    Raises
    ------
    ValueError
        If there is no such function, or it does not have so many parameters.

    Examples
    --------
    >>> apply("leaky_relu", [-2.0, 1.0], (0.5,)).tolist(), apply("relu6", [9.0]).tolist()
    ([-1.0, 1.0], [6.0])
    """
    if name not in FUNCTIONS:
        raise ValueError(f"function must be one of {', '.join(FUNCTIONS)}, not {name!r}")
    function, defaults = FUNCTIONS[name]
    if parameters and len(parameters) != len(defaults):
        raise ValueError(f"{name} must have {len(defaults)} parameters, not {tuple(parameters)}")
    x = np.asarray(values)
    x = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)
    return function(x, *(parameters or defaults)).astype(x.dtype, copy=False)


def is_never_negative(name: str, parameters: Sequence[float] = ()) -> bool:
    """Whether a function has no negative value; all have their least between -50 and 50."""
    return bool((apply(name, np.linspace(-50, 50, 20001), parameters) >= 0).all())
