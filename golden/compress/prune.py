"""Magnitude pruning: the smallest weights of a layer become zero.

Reference
---------
S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both Weights and Connections for Efficient Neural
Networks", NIPS 2015. Retraining between the steps needs gradients and is done by
``scripts/train_lenets.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["prune_below", "prune_to_density"]

FloatArray = npt.NDArray[np.float64]


def prune_to_density(weights: npt.ArrayLike, density: float) -> FloatArray:
    """Keep the largest magnitudes, so that at most ``density`` of the weights are non-zero.

    Parameters
    ----------
    weights
        Of any shape.
    density
        0 to 1. Among equal magnitudes the first ones are kept.

    Raises
    ------
    ValueError
        If ``density`` is out of its range.

    Examples
    --------
    >>> prune_to_density([0.5, -0.1, -2.0, 0.2], 0.5).tolist()
    [0.5, 0.0, -2.0, 0.0]
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density must be in 0..1, not {density!r}")
    array = np.array(weights, dtype=np.float64)
    keep = int(density * array.size + 1e-9)  # 0.29 * 100 is 28.999...
    smallest = np.argsort(-np.abs(array), axis=None, kind="stable")[keep:]
    array.reshape(-1)[smallest] = 0
    return array


def prune_below(weights: npt.ArrayLike, factor: float) -> FloatArray:
    """Make weights zero whose magnitude is below ``factor`` standard deviations of the layer.

    Parameters
    ----------
    weights
        Of any shape.
    factor
        The quality parameter of Han et al., at least 0.

    Raises
    ------
    ValueError
        If ``factor`` is negative.

    Examples
    --------
    >>> prune_below([1.0, -1.0, 0.1, -3.0], 0.5).tolist()
    [1.0, -1.0, 0.0, -3.0]
    """
    if not factor >= 0:
        raise ValueError(f"factor must be at least 0, not {factor!r}")
    array = np.array(weights, dtype=np.float64)
    array[np.abs(array) < factor * array.std()] = 0
    return array
