"""Weight sharing: one-dimensional k-means over the non-zero weights of a layer.

Reference
---------
S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016, section 3.1. The centroids begin
equally spaced between the least and the greatest weight: of the paper's three ways this one keeps
the few large weights, which matter most, and gives the best accuracy. It also makes the result
repeatable. An optimal clustering (dynamic programming) has a smaller squared error but spends its
centroids where the weights are dense, so the paper's way is taken.

On sorted weights a cluster is an interval and its mean a difference of prefix sums: a Lloyd
iteration costs k binary searches, whatever the number of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SharedWeights", "kmeans_1d", "share"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedWeights:
    """Weights as indices into a codebook.

    Parameters
    ----------
    indices
        uint8, of the weights' shape. 0 is a pruned weight.
    codebook
        Float values; entry 0 is 0.0 and the others ascend.
    """

    indices: IndexArray
    codebook: FloatArray

    def dense(self) -> FloatArray:
        """Return the weights themselves, ``codebook[indices]``."""
        return self.codebook[self.indices]


def kmeans_1d(values: npt.ArrayLike, count: int, *, iterations: int = 300) -> FloatArray:
    """Cluster numbers by Lloyd's algorithm from equally spaced centroids.

    Parameters
    ----------
    values
        Numbers (n,), n at least 1.
    count
        Greatest number of clusters; where there are no more distinct values than that, these
        are the result.
    iterations
        Limit of the iterations; it ends earlier when nothing changes.

    Returns
    -------
    centroids
        Ascending, at most ``count``: a centroid that no value is nearest to is left out.

    Raises
    ------
    ValueError
        If there is no value, or ``count`` is below 1.

    Examples
    --------
    >>> kmeans_1d([1.0, 2.0, 9.0, 11.0, 30.0], 3).tolist()
    [1.5, 10.0, 30.0]
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if not ordered.size:
        raise ValueError("there must be at least one value, not 0")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.linspace(ordered[0], ordered[-1], count)
    if count == 1:
        return np.array([ordered.mean()])
    for _ in range(iterations):
        inner = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2, side="right")
        edges = np.concatenate([[0], inner, [len(ordered)]])
        sizes = np.diff(edges)
        used = sizes > 0
        moved = np.diff(sums[edges])[used] / sizes[used]
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def share(weights: npt.ArrayLike, entries: int) -> SharedWeights:
    """Replace every non-zero weight by the nearest of at most ``entries - 1`` centroids.

    Parameters
    ----------
    weights
        Of any shape; zeros are pruned weights and stay zeros.
    entries
        Size of the codebook with its zero, 2 to 256.

    Raises
    ------
    ValueError
        If ``entries`` is out of its range.

    Examples
    --------
    >>> shared = share([[0.0, 1.0], [3.0, -2.0]], 3)
    >>> shared.codebook.tolist(), shared.indices.tolist()
    ([0.0, -2.0, 2.0], [[0, 2], [2, 1]])
    """
    if not 2 <= entries <= 256:
        raise ValueError(f"entries must be in 2..256, not {entries!r}")
    array = np.asarray(weights, dtype=np.float64)
    kept = array[array != 0]
    indices = np.zeros(array.shape, dtype=np.uint8)
    if not kept.size:
        return SharedWeights(indices=indices, codebook=np.zeros(1))
    centroids = kmeans_1d(kept, entries - 1)
    indices[array != 0] = 1 + np.searchsorted((centroids[1:] + centroids[:-1]) / 2, kept)
    return SharedWeights(indices=indices, codebook=np.concatenate([[0.0], centroids]))
