"""Arbiter: shares the memory port among readers and writers."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.hw.layouts import memory_request_layout, write_request_layout

__all__ = ["Arbiter", "read_client_signature", "write_client_signature"]

OUTSTANDING = 64
"""Read requests that may await their response at one time."""


def read_client_signature(config: Config) -> wiring.Signature:
    """A reader as the arbiter sees it: addresses in, words out."""
    return wiring.Signature(
        {
            "request": In(stream.Signature(unsigned(config.address_bits))),
            "response": Out(stream.Signature(unsigned(config.port_bits))),
        }
    )


def write_client_signature(config: Config) -> wiring.Signature:
    """A writer as the arbiter sees it: addresses and words in."""
    return wiring.Signature({"request": In(stream.Signature(write_request_layout(config)))})


def lowest(bits: Signal) -> Value:
    """The lowest bit that is set, alone."""
    return bits & (~bits + 1)[: len(bits)]


def above_lowest(bits: Signal) -> Value:
    """All bits above the lowest one that is set."""
    return bits ^ (~bits + 1)[: len(bits)]


def select(one_hot: Value, choices: Sequence[Value]) -> Value:
    """The choice whose bit is set, 0 if none is; without the priority of a ``Mux`` chain."""
    masked = [Mux(bit, choice, 0) for bit, choice in zip(one_hot, choices, strict=False)]
    return reduce(or_, masked, Const(0))


class Arbiter(wiring.Component):
    """Grant requests in turn; send each response to the reader that asked.

    Timing contract
    ---------------
    Latency
        A request accepted in cycle ``t`` is at the memory port in cycle ``t + 1``. A response
        reaches its reader in the cycle in which it arrives. With ``config.registered_links`` a
        request is chosen in the cycle before it is accepted.
    Throughput
        One request per cycle while the memory accepts them; with ``config.registered_links`` one
        of each client in two cycles. A client whose request waits is
        granted after at most one request of each other client (a reader is passed over while 64
        reads are outstanding).
    Combinational paths
        From ``valid`` of all requests, ``request.ready`` and ``enable`` to ``ready`` of all
        requests, with ``config.registered_links`` not from ``valid``; from ``response`` to the
        readers' responses.
    Memory
        Responds to reads in order, not before the cycle after it accepted the request.
    Reset
        Drops the request at the port and forgets those outstanding.

    Parameters
    ----------
    config
        Widths of an address and of a word.
    readers, writers
        Number of clients of each kind.

    Members
    -------
    enable : ``In(1)``
        Low: no new request is accepted; the one at the port stays there.
    read : array of ``read_client_signature(config)``
        Readers. ``ready`` of a response is not looked at: a reader asks for what it can take.
    write : array of ``write_client_signature(config)``
        Writers.
    request : ``Out(stream.Signature(memory_request_layout(config)))``
        To the memory.
    response : ``In(stream.Signature(unsigned(config.port_bits)))``
        From the memory; always ready.
    idle : ``Out(1)``
        No request is at the port and no response is outstanding.
    """

    enable: Signal
    read: list[Any]
    write: list[Any]
    request: stream.Interface
    response: stream.Interface
    idle: Signal

    def __init__(self, config: Config, readers: int, writers: int) -> None:
        self.config = config
        self.readers = readers
        self.writers = writers
        super().__init__(
            {
                "enable": In(1),
                "read": Out(read_client_signature(config)).array(readers),
                "write": Out(write_client_signature(config)).array(writers),
                "request": Out(stream.Signature(memory_request_layout(config))),
                "response": In(stream.Signature(unsigned(config.port_bits))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clients = self.readers + self.writers
        registered = self.config.registered_links

        # Readers come first; a reader competes while there is room for its tag, which is known from
        # a register.
        m.submodules.tags = tags = SyncFIFOBuffered(
            width=max(1, (self.readers - 1).bit_length()), depth=OUTSTANDING + 1
        )
        room = Signal(init=1)
        asking = Signal(clients)
        grant = Signal(clients)
        granted = Signal()
        known = Signal.like(grant)  # to be granted: it does not ask again
        asks = [
            *(client.request.valid & room for client in self.read),
            *(client.request.valid for client in self.write),
        ]
        m.d.comb += asking.eq(Cat(*asks) & ~known)

        # The turn: the first that asks after the last one granted, or the first of all.
        after_last = Signal(clients)
        asking_after = Signal(clients)
        chosen = Signal(clients)
        m.d.comb += [
            asking_after.eq(asking & after_last),
            chosen.eq(Mux(asking_after.any(), lowest(asking_after), lowest(asking))),
        ]
        takes = Signal()
        with m.If(asking.any() & (takes | ~granted) if registered else takes & asking.any()):
            m.d.sync += after_last.eq(
                Mux(asking_after.any(), above_lowest(asking_after), above_lowest(asking))
            )
        if registered:
            m.d.comb += known.eq(grant)
            with m.If(takes | ~granted):
                m.d.sync += [grant.eq(chosen), granted.eq(asking.any())]
        else:
            m.d.comb += [grant.eq(chosen), granted.eq(asking.any())]

        # The request at the port: taken when the register is free, or freed in this cycle.
        taken = Signal()
        payload = Signal.like(self.request.payload, reset_less=True)
        m.d.comb += [
            takes.eq(self.enable & (~self.request.valid | self.request.ready)),
            taken.eq(takes & granted),
            self.request.payload.eq(payload),
        ]
        requests = [client.request for client in (*self.read, *self.write)]
        addresses = [request.payload for request in requests[: self.readers]]
        addresses += [request.payload.address for request in requests[self.readers :]]
        words = [request.payload.data for request in requests[self.readers :]]
        m.d.comb += [
            request.ready.eq(takes & granted)
            for request, granted in zip(requests, grant, strict=True)
        ]
        with m.If(taken):
            m.d.sync += [
                self.request.valid.eq(1),
                payload.address.eq(select(grant, addresses)),
                payload.write.eq(grant[self.readers :].any()),
                payload.data.eq(select(grant[self.readers :], words)),
            ]
        with m.Elif(self.request.ready):
            m.d.sync += self.request.valid.eq(0)

        puts, gets = tags.w_en, tags.r_en & tags.r_rdy
        most = OUTSTANDING - (1 if registered else 0)  # one more may have been chosen
        with m.If(puts & ~gets):
            m.d.sync += room.eq(tags.r_level < most - 1)
        with m.Elif(gets & ~puts):
            m.d.sync += room.eq(tags.r_level <= most)

        # Tags wait in the order of the requests, which is that of the responses.
        readers = [Const(index) for index in range(self.readers)]
        m.d.comb += [
            tags.w_en.eq(taken & grant[: self.readers].any()),
            tags.w_data.eq(select(grant, readers)),
            tags.r_en.eq(self.response.valid),
            self.response.ready.eq(1),
            self.idle.eq(~self.request.valid & (tags.r_level == 0)),
        ]
        for index, client in enumerate(self.read):
            m.d.comb += [
                client.response.valid.eq(self.response.valid & (tags.r_data == index)),
                client.response.payload.eq(self.response.payload),
            ]

        return m
