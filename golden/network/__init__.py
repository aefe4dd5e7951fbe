"""Compressed networks: integer layers whose weights are indices into a codebook.

Everything is an integer with its zero point removed, so real zero is 0 everywhere. A layer's
output is ``clip(round((bias + sum(w * a)) * scale >> shift))``; see ``golden.requantise``.
"""

from thresher.golden.network.accumulators import accumulator_bound, check_accumulators
from thresher.golden.network.compressed import CompressedNetwork
from thresher.golden.network.layer import Layer, Range, Shape
from thresher.golden.network.moving import ChannelShuffle, Concat, Flatten
from thresher.golden.network.pools import AveragePool, MaxPool
from thresher.golden.network.values import Add, Lookup, Multiply
from thresher.golden.network.weighted import Convolution, Linear, WeightedLayer

__all__ = [
    "Add",
    "AveragePool",
    "ChannelShuffle",
    "CompressedNetwork",
    "Concat",
    "Convolution",
    "Flatten",
    "Layer",
    "Linear",
    "Lookup",
    "MaxPool",
    "Multiply",
    "Range",
    "Shape",
    "WeightedLayer",
    "accumulator_bound",
    "check_accumulators",
]
