"""Reference inference: every layer's exact output, and what computing it costs.

Sums are formed by floating-point matrix products, in the narrowest format in which they are
proven exact.
"""

from thresher.golden.inference.counts import (
    LayerCounts,
    Macs,
    StreamSize,
    count_macs,
    weight_stream,
)
from thresher.golden.inference.reference import Inference, infer, seen_by

__all__ = [
    "Inference",
    "LayerCounts",
    "Macs",
    "StreamSize",
    "count_macs",
    "infer",
    "seen_by",
    "weight_stream",
]
