"""Serial pooler: pooling in several steps a value, by one adder and two small memories.

Defined as :class:`thresher.hw.output.pooler.Pooler` is, by :mod:`thresher.golden.pooling`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, ResetInserter, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import Pool
from thresher.hw.layouts import pool_factor_layout, value_layout
from thresher.hw.output.pool_sequence import PoolSequence
from thresher.hw.output.pool_steps import PoolSteps, pool_setting_layout
from thresher.hw.output.pooler_ports import PoolerPorts, sum_bits
from thresher.hw.output.serial_partials import SerialPartials

__all__ = ["SerialPooler"]


class SerialPooler(PoolerPorts):
    """What a :class:`~thresher.hw.output.pooler.Pooler` is, in less logic.

    All that changes lies in a memory, and all that is constant in another one; a step adds one of
    the first and one of the second, or one, and puts the sum into the first::

        state --------------------------+-> + -> state, address of a window
        settings -> less, or one -------^
        address -> partial results -> partial, value -> one of them 0, if a maximum -> + -> memory
                                         +-> the column's scaler -> o

    A value is combined into the windows that hold it, one after another. When its place is the
    last one of a window that is the next in the order of the output, that window is sent; at the
    end of a row of the map all that is left of a finished row of windows, and at the end of the map
    all that is left. The results of a map lie in the memory in the order in which they are sent.

    Timing contract
    ---------------
    Latency
        Without pooling 0 cycles. Otherwise a pooled row begins ten to twenty cycles after its
        first place's last value.
    Throughput
        Receives a value in four cycles for each window that it lies in, and two more if they are
        several, and sends one in five, the input waiting. Rests for eleven cycles after each place,
        and for eight and five a place of padding after each row. After ``start`` three cycles for
        each pooled place of a row and thirty pass until the first value. A sum in four cycles.
    Combinational paths
        Without pooling and addition between ``i`` and ``o``, both ways. Otherwise ``pooled.ready``
        to ``sums.ready``, and between ``result`` and ``o``.
    Reset
        As ``start``.

    Parameters
    ----------
    config
        As of the Pooler; ``output_cycles`` is 4.

    Members
    -------
    Those of :class:`~thresher.hw.output.pooler_ports.PoolerPorts`; ``last`` of ``i`` is that of a
    row of the map. Further:

    setting : ``In(pool_setting_layout(config))``
        What :class:`PoolSettings` sends.
    pooled, result : ``Out``, ``In`` of a stream
        To and from the :class:`~.column_scaler.ColumnScaler`, which has the scales.
    """

    setting: data.View
    pooled: stream.Interface
    result: stream.Interface

    def __init__(self, config: Config) -> None:
        super().__init__(
            config,
            {"setting": In(pool_setting_layout(config))},
            {
                "pooled": Out(stream.Signature(pool_factor_layout(config, sum_bits(config)))),
                "result": In(stream.Signature(value_layout(config))),
            },
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.steps = steps = PoolSteps(self.config)
        m.submodules.partials = partials = SerialPartials(self.config)
        m.d.comb += [
            steps.setting.eq(self.setting),
            steps.channels.eq(self.channels),
            partials.run.eq(self.run),
            partials.value.eq(self.i.payload.value),
            partials.address.eq(steps.result),
        ]
        if self.config.residual:
            m.d.comb += [
                partials.sums.valid.eq(self.sums.valid),
                partials.sums.payload.eq(self.sums.payload),
                self.sums.ready.eq(partials.sums.ready & ~self.start),
            ]
        wiring.connect(m, partials.pooled, wiring.flipped(self.pooled))
        m.d.comb += [
            self.o.valid.eq(self.result.valid),
            self.o.payload.eq(self.result.payload),
            self.result.ready.eq(self.o.ready),
        ]
        # Without pooling values pass.
        passes: Value = self.run.pool == Pool.NONE
        if self.config.residual:
            passes &= ~self.run.add
        with m.If(passes):
            m.d.comb += [
                self.o.valid.eq(self.i.valid & ~self.start),
                self.o.payload.eq(self.i.payload),
                self.i.ready.eq(self.o.ready & ~self.start),
            ]

        sequence = PoolSequence(m, self, self.setting, steps, partials)
        with m.Switch(sequence.step):
            sequence.prepare()
            sequence.begin_rows()
            sequence.find_lacks()
            sequence.begin_axis()
            sequence.move_axis()
            sequence.visit_windows()
            sequence.take_value()
            sequence.end_place()
            sequence.send_results()
        sequence.emit()
        whole: Elaboratable = ResetInserter(self.start)(m)
        return whole
