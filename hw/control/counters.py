"""Counters of a run, and their way to memory when it is finished."""

from amaranth.hdl import Array, Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import COUNTER_BITS, COUNTERS, counter_words
from thresher.hw.layouts import write_request_layout

__all__ = ["Counters", "increments_layout"]


def increments_layout(config: Config) -> data.StructLayout:
    """What each counter grows by in a cycle: at most one an element, so 9 bits."""
    return data.StructLayout({name: unsigned(9) for name, _ in COUNTERS})


class Counters(wiring.Component):
    """Count, and write the counts of a finished run, ``port_bits / 32`` to a word.

    Timing contract
    ---------------
    Latency
        An increment of cycle ``t`` is in the count from ``t + 1``.
    Throughput
        A write a cycle while the memory takes them; counting goes on meanwhile, for the next run.
    Combinational paths
        None.
    Reset
        All counts are 0.

    Parameters
    ----------
    config
        Sizes of the machine.

    Members
    -------
    increments : ``In(increments_layout(config))``
        Growth of each counter in this cycle.
    clear : ``In(1)``
        Set all counts to 0.
    finished : ``In(1)``
        Pulse: the counts, with this cycle's increments, are to be written to ``address`` upward.
    address : ``In(32)``
        First word, taken with ``finished``.
    request : ``Out(stream.Signature({address, data}))``
        Writes, in the order of ``COUNTERS``, the first in the lowest bits.
    busy : ``Out(1)``
        Writes are still to come.
    """

    increments: data.View
    clear: Signal
    finished: Signal
    address: Signal
    request: stream.Interface
    busy: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "increments": In(increments_layout(config)),
                "clear": In(1),
                "finished": In(1),
                "address": In(32),
                "request": Out(stream.Signature(write_request_layout(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        names = [name for name, _ in COUNTERS]
        counts = [Signal(COUNTER_BITS, name=f"count_{name}") for name in names]
        shown = [Signal(COUNTER_BITS, name=f"shown_{name}") for name in names]
        per_word = self.config.port_bits // COUNTER_BITS
        words = Array(Cat(*shown[at : at + per_word]) for at in range(0, len(shown), per_word))
        index = Signal(range(max(2, counter_words(self.config.port_bits))))
        address = Signal(self.config.address_bits)

        # Writing: the counts shown, one after another.
        m.d.comb += [
            self.request.valid.eq(self.busy),
            self.request.payload.address.eq(address),
            self.request.payload.data.eq(words[index]),
        ]
        with m.If(self.busy & self.request.ready):
            m.d.sync += [index.eq(index + 1), address.eq(address + 1)]
            with m.If(index == len(words) - 1):
                m.d.sync += self.busy.eq(0)

        # Counting: a finished run's counts move to where they are shown.
        for count, show, name in zip(counts, shown, names, strict=True):
            grown = Signal(COUNTER_BITS, name=f"grown_{name}")
            m.d.comb += grown.eq(count + self.increments[name])
            m.d.sync += count.eq(grown)
            with m.If(self.finished):
                m.d.sync += [show.eq(grown), count.eq(0)]
            with m.Elif(self.clear):
                m.d.sync += count.eq(0)
        with m.If(self.finished):
            m.d.sync += [self.busy.eq(1), index.eq(0), address.eq(self.address)]
        return m
