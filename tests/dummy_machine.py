"""A machine with the accelerator's ports that adds one to every word of a block."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.hw.layouts import memory_request_layout

__all__ = ["IncrementMachine"]

OFFSET = 256


class IncrementMachine(wiring.Component):
    """Reads N at the program's address, then writes word + 1 of the N next to ``OFFSET`` on.

    N above 255 is reported as an unknown record. It reads one word at a time.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "program_address": In(config.address_bits),
                "ready": Out(1),
                "done": Out(1),
                "error": Out(1),
                "error_code": Out(4),
                "error_layer": Out(16),
                "error_lane": Out(1),
                "error_position": Out(32),
                "request": Out(stream.Signature(memory_request_layout(config))),
                "response": In(stream.Signature(config.port_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        left, busy, first = Signal(16), Signal(), Signal()
        request = self.request
        payload: Any = request.payload
        m.d.comb += [self.response.ready.eq(1), self.ready.eq(~busy & ~self.error)]
        with m.If(request.valid & request.ready):
            m.d.sync += request.valid.eq(0)
            with m.If(payload.write):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    m.d.sync += [busy.eq(0), self.done.eq(1)]
                with m.Else():
                    m.d.sync += [
                        request.valid.eq(1),
                        payload.write.eq(0),
                        payload.address.eq(payload.address - OFFSET + 1),
                    ]
        with m.If(busy & self.response.valid):
            with m.If(first):
                m.d.sync += [first.eq(0), left.eq(self.response.payload)]
                with m.If(self.response.payload > 255):
                    m.d.sync += [
                        self.error.eq(1),
                        self.error_code.eq(ErrorCode.DESCRIPTOR),
                        self.error_position.eq(payload.address),
                    ]
                with m.Elif(self.response.payload != 0):
                    m.d.sync += [payload.address.eq(payload.address + 1), request.valid.eq(1)]
            with m.Else():
                m.d.sync += [
                    payload.address.eq(payload.address + OFFSET),
                    payload.data.eq(self.response.payload + 1),
                    payload.write.eq(1),
                    request.valid.eq(1),
                ]
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1),
                first.eq(1),
                payload.address.eq(self.program_address),
                payload.write.eq(0),
                request.valid.eq(1),
                self.done.eq(0),
            ]
        return m
