"""Ports that the poolers have, and widths of what they scale."""

from amaranth.hdl import Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN
from thresher.hw.layouts import record_layout, result_layout, value_layout
from thresher.hw.output.adder import addition_bits

__all__ = ["POOL_SCALE_BITS", "SUM_BITS", "PoolerPorts", "sum_bits", "sums_port"]

SUM_BITS = 12  # a window has at most 2**12 values
POOL_SCALE_BITS = 31


def sum_bits(config: Config) -> int:
    """Width of what the pooler's scaler takes: sums of windows, or of an addition."""
    bits = config.activation_bits + SUM_BITS
    return max(bits, addition_bits(config)) if config.residual else bits


def sums_port(config: Config) -> dict[str, wiring.Member]:
    """Return the port of an addition's sums, if the machine adds."""
    if not config.residual:
        return {}
    return {"sums": In(stream.Signature(result_layout(addition_bits(config))))}


class PoolerPorts(wiring.Component):
    """A part that pools a column's activations.

    Parameters
    ----------
    config
        Width of an activation; ``residual``.
    settings
        Ports by which a run's constants come.
    scaler
        Ports to a scaler that is not a part of the pooler.

    Members
    -------
    i : ``In(stream.Signature(value_layout(config)))``
        Activations of maps, one after another: rows, positions, channels, the last of them
        innermost. ``last`` is passed on without pooling, and not looked at otherwise.
    run : ``In(record_layout(RUN))``
        The run: ``out_height``, ``out_width``, ``pool*``, ``add``. Each window holds a place of
        the map. A value and ``pool_origin`` together fit an activation; that and ``pool_shift``
        are 0 for a maximum. Constant from ``start`` to the last value.
    channels : ``In(16)``
        Channels of this column, constant likewise.
    start : ``In(1)``
        Begin a map. Anything inside is dropped; nothing is accepted in this cycle.
    sums : ``In(stream.Signature(result_layout(addition_bits(config))))``
        In a run that adds, what is scaled by ``pool_scale`` and so on; ``i`` sends nothing then.
        Only with ``config.residual``.
    o : ``Out(stream.Signature(value_layout(config)))``
        Results in the order of ``i``, ``last`` on the final one of a pooled row.
    """

    i: stream.Interface
    run: data.View
    channels: Signal
    start: Signal
    sums: stream.Interface
    o: stream.Interface

    def __init__(
        self,
        config: Config,
        settings: dict[str, wiring.Member],
        scaler: dict[str, wiring.Member] | None = None,
    ) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(value_layout(config))),
                "run": In(record_layout(RUN)),
                "channels": In(16),
                "start": In(1),
                **settings,
                **sums_port(config),
                "o": Out(stream.Signature(value_layout(config))),
                **(scaler or {}),
            }
        )
