"""In-simulator half of ``test_sim_runner``; cocotb imports it, pytest does not collect it."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock

from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(max_gap=[0, 3], max_stall=[0, 3])
async def values_come_in_order(dut: Any, max_gap: int, max_stall: int) -> None:
    values = [random.getrandbits(16) for _ in range(100)]
    Clock(dut.clk, 10, unit="ns").start()
    source, sink = StreamSource(dut, "i"), StreamSink(dut, "o")
    await reset(dut)
    sending = cocotb.start_soon(source.send(values, [random.randint(0, max_gap) for _ in values]))
    received = await sink.receive(100, [random.randint(0, max_stall) for _ in values])
    await sending
    wrong = int(os.environ.get("WRONG_VALUE", "0"))
    assert [value ^ wrong for value in received] == values
