"""Store of a pooler's partial results, and the scaler behind it."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool
from thresher.hw.layouts import pool_scale_write_layout, record_layout, value_layout
from thresher.hw.output.pooler_ports import POOL_SCALE_BITS, SUM_BITS, sum_bits, sums_port
from thresher.hw.output.scaler import Scaler

__all__ = ["PartialStore"]


class PartialStore(wiring.Component):
    """Partial results of windows: combines values into them, and sends finished ones.

    Timing contract
    ---------------
    Latency
        An operation presented while ``ready`` reads in this cycle and is carried out in the next;
        one on the same address may follow at once. A result sent in cycle ``t`` is offered in cycle
        ``t + 8``. A sum accepted in cycle ``t`` is offered as a result in cycle ``t + 6``.
    Throughput
        One operation per cycle. Only a result that the scaler cannot take stops them.
    Combinational paths
        ``o.ready`` to ``ready`` and to ``sums.ready``.

    Parameters
    ----------
    config
        Width of an activation, ``pool_depth``, ``pool_lacks`` and ``residual``.

    Members
    -------
    run : ``In(record_layout(RUN))``
        As of the pooler.
    update, emit : ``In(1)``
        Combine ``value`` into a partial result; send one. Both: send what it has become.
    address, value, overwrite, last, lacks
        Operand: the partial result; what is combined with it, or put in its place if ``overwrite``;
        ``last`` of the result sent; and which of the scales it has.
    scale : ``In(pool_scale_write_layout())``
        As of the pooler.
    ready : ``Out(1)``
        The operation is taken in this cycle.
    sums : ``In(stream.Signature(result_layout(addition_bits(config))))``
        As of the pooler.
    o : ``Out(stream.Signature(value_layout(config)))``
        Results, scaled and clipped.
    """

    run: data.View
    update: Signal
    emit: Signal
    address: Signal
    value: Signal
    overwrite: Signal
    last: Signal
    lacks: Signal
    scale: data.View
    ready: Signal
    sums: stream.Interface
    o: stream.Interface

    LATENCY = 3 + Scaler.LATENCY

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lack_bits = config.pool_lacks.bit_length()
        super().__init__(
            {
                "run": In(record_layout(RUN)),
                "update": In(1),
                "emit": In(1),
                "address": In((config.pool_depth - 1).bit_length()),
                "value": In(signed(config.activation_bits)),
                "overwrite": In(1),
                "last": In(1),
                "lacks": In(2 * self.lack_bits),
                "scale": In(pool_scale_write_layout()),
                "ready": Out(1),
                **sums_port(config),
                "o": Out(stream.Signature(value_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        storing = _Storing(m, self)
        storing.take_operation()
        storing.combine()
        storing.send()
        storing.scale()
        return m


class _Storing:
    """The operation whose partial result is being read, and the result that is being sent."""

    def __init__(self, m: Module, ports: PartialStore) -> None:
        self.m, self.ports, self.config = m, ports, ports.config
        m.submodules.scaler = self.scaler = Scaler(
            self.config, sum_bits(self.config), POOL_SCALE_BITS
        )
        wiring.connect(m, self.scaler.o, wiring.flipped(ports.o))
        self._hold_partials()
        self._hold_scales()
        self._hold_operation()

    def _hold_partials(self) -> None:
        """Have the memory of partial results."""
        self.partial_shape = signed(self.config.activation_bits + SUM_BITS)
        memory: Memory[Any, Any] = Memory(
            shape=self.partial_shape, depth=self.config.pool_depth, init=[]
        )
        self.m.submodules.partials = memory
        self.write, self.read = memory.write_port(), memory.read_port()

    def _hold_scales(self) -> None:
        """Have the memory of the scales, by what a window lacks, and a port to write them."""
        bits, scale = self.ports.lack_bits, self.ports.scale
        scales: Memory[Any, Any] = Memory(shape=POOL_SCALE_BITS, depth=1 << 2 * bits, init=[])
        self.m.submodules.scales = scales
        write, self.scale_read = scales.write_port(), scales.read_port(domain="comb")
        self.m.d.comb += [
            write.en.eq(scale.valid),
            write.addr.eq(Cat(scale.columns[:bits], scale.rows[:bits])),
            write.data.eq(scale.scale),
        ]

    def _hold_operation(self) -> None:
        """Have registers for the operation, and for what the scaler gets."""
        ports = self.ports
        self.updates = Signal()
        self.emits = Signal()
        self.address = Signal.like(ports.address)
        self.value = Signal.like(ports.value)
        self.overwrite = Signal()
        self.last = Signal()
        self.lacks = Signal.like(ports.lacks)
        self.partial = Signal(self.partial_shape)
        self.factor = Signal.like(self.scaler.i.payload, reset_less=True)
        self.factor_valid = Signal()
        self.moves = Signal()  # the result that is being sent

    def take_operation(self) -> None:
        """Take an operation and read its partial result, which may be the one just written."""
        m, ports, read, write = self.m, self.ports, self.read, self.write
        forward = Signal()
        written = Signal(self.partial_shape)
        m.d.comb += [read.en.eq(ports.ready), read.addr.eq(ports.address)]
        m.d.comb += [
            ports.ready.eq(~self.emits | self.moves),
            self.partial.eq(Mux(forward, written, read.data)),
        ]
        with m.If(ports.ready):
            m.d.sync += [
                self.updates.eq(ports.update),
                self.emits.eq(ports.emit),
                forward.eq(write.en & (write.addr == ports.address)),
                written.eq(write.data),
                self.address.eq(ports.address),
                self.value.eq(ports.value + ports.run.pool_origin),
                self.overwrite.eq(ports.overwrite),
                self.last.eq(ports.last),
                self.lacks.eq(ports.lacks),
            ]

    def combine(self) -> None:
        """Combine value and partial result. A stalled operation writes the same again."""
        m, write, partial, value = self.m, self.write, self.partial, self.value
        m.d.comb += [write.en.eq(self.updates), write.addr.eq(self.address)]
        with m.If(self.overwrite):
            m.d.comb += write.data.eq(value)
        with m.Elif(self.ports.run.pool == Pool.AVERAGE):
            m.d.comb += write.data.eq(partial + value)
        with m.Else():
            # A maximum is an activation.
            largest = partial[: self.config.activation_bits].as_signed()
            m.d.comb += write.data.eq(Mux(largest < value, value, largest))

    def send(self) -> None:
        """Send a result from a register, with the scale of its window. Sums lack nothing."""
        m, ports, factor = self.m, self.ports, self.factor
        sends = Signal()
        sent = Signal(self.partial_shape, reset_less=True)
        sent_last = Signal(reset_less=True)
        sent_lacks = Signal.like(self.lacks)
        m.d.comb += self.scale_read.addr.eq(sent_lacks)
        with m.If(self.moves):
            m.d.sync += [
                sends.eq(self.emits),
                sent.eq(Mux(self.updates, self.write.data, self.partial)),
                sent_last.eq(self.last),
                sent_lacks.eq(self.lacks),
                self.factor_valid.eq(sends),
                factor.value.eq(sent),
                factor.scale.eq(self.scale_read.data),
                factor.last.eq(sent_last),
            ]
        if self.config.residual:
            m.d.comb += ports.sums.ready.eq(self.moves & ports.run.add)
            with m.If(self.moves & ports.run.add):
                m.d.sync += [
                    self.factor_valid.eq(ports.sums.valid),
                    factor.value.eq(ports.sums.payload.value),
                    factor.last.eq(ports.sums.payload.last),
                ]

    def scale(self) -> None:
        """Scale what is sent, as the run says."""
        run, scaler = self.ports.run, self.scaler
        self.m.d.comb += [
            self.moves.eq(scaler.i.ready),
            scaler.i.valid.eq(self.factor_valid),
            scaler.i.payload.eq(self.factor),
            scaler.i.payload.shift.eq(run.pool_shift),
            scaler.rounding.eq(run.pool_rounding),
            scaler.low.eq(run.pool_low),
            scaler.high.eq(run.pool_high),
            scaler.origin.eq(run.pool_origin),
        ]
