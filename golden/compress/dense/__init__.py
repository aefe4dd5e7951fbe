"""Dense networks: graphs of layers with float weights, and what they compute.

They are what a trained network is before it is compressed: ``golden.compress.dense_file`` reads
them from ``.npz`` files, and readers of other tools' float models make them.
"""

from thresher.golden.compress.dense.folding import folded
from thresher.golden.compress.dense.graph import DenseNetwork
from thresher.golden.compress.dense.layer import (
    KINDS,
    POOLS,
    RELU,
    RELU6,
    UNBOUNDED,
    WEIGHTED,
    Bounds,
    DenseError,
    DenseLayer,
    Padding,
    Pair,
    Shape,
)

__all__ = [
    "KINDS",
    "POOLS",
    "RELU",
    "RELU6",
    "UNBOUNDED",
    "WEIGHTED",
    "Bounds",
    "DenseError",
    "DenseLayer",
    "DenseNetwork",
    "Padding",
    "Pair",
    "Shape",
    "folded",
]
