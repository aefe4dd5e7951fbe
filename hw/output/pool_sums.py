"""What the pooler scales: sums of windows, or of an addition."""

from typing import Any

from amaranth.lib import stream
from amaranth.lib.wiring import In

from thresher.golden.config import Config
from thresher.hw.layouts import result_layout
from thresher.hw.output.adder import addition_bits

__all__ = ["POOL_SCALE_BITS", "SUM_BITS", "sum_bits", "sums_port"]

SUM_BITS = 12  # a window has at most 2**12 values
POOL_SCALE_BITS = 31


def sum_bits(config: Config) -> int:
    """Width of what the pooler's scaler takes: sums of windows, or of an addition."""
    bits = config.activation_bits + SUM_BITS
    return max(bits, addition_bits(config)) if config.residual else bits


def sums_port(config: Config) -> dict[str, Any]:
    """Return the port of an addition's sums, if the machine adds."""
    if not config.residual:
        return {}
    return {"sums": In(stream.Signature(result_layout(addition_bits(config))))}
