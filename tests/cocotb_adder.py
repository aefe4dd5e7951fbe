"""In-simulator half of ``test_hw_addition``; cocotb imports it, pytest does not collect it."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Const
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from thresher.golden.addition import ADD_HEADROOM, add
from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Rounding
from thresher.hw.layouts import activation_layout, record_layout, value_layout
from thresher.hw.output.adder import addition_bits
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

CONFIG = Config(**json.loads(os.environ["CONFIG"]))
COUNT = 60
SCALE, SHIFT = 1_500_000_001, 32  # about a third


def sum_of(payload: int) -> tuple[int, bool]:
    """Value and ``last`` of a sum."""
    bits = addition_bits(CONFIG)
    sign = 1 << bits - 1
    return ((payload & (2 * sign - 1)) ^ sign) - sign, bool(payload >> bits)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(scale_operand=[0, 1], max_pause=[0, 3], multiply=[0, 1])
async def values_equal_golden(dut: Any, scale_operand: int, max_pause: int, multiply: int) -> None:
    if multiply and scale_operand:
        return  # a product has no operand that is scaled
    rng = np.random.default_rng(random.getrandbits(64))
    rounding = Rounding(int(rng.integers(len(Rounding))))
    half = 1 << CONFIG.activation_bits - 1
    outputs = rng.integers(-half, half, COUNT)
    operands = rng.integers(-half, half, COUNT)
    plain, scaled = (outputs, operands) if scale_operand else (operands, outputs)
    sums = add(
        plain,
        scaled,
        operand_scale=SCALE,
        operand_shift=SHIFT,
        scale=1,
        shift=0,
        rounding=rounding,
    ).tolist()
    if multiply:
        sums = (outputs * operands).tolist()
    assert max(map(abs, sums)) < half << ADD_HEADROOM

    Clock(dut.clk, 10, unit="ns").start()
    fields: Any = {
        "add": 1,
        "scale_operand": scale_operand,
        "multiply": multiply,
        "operand_scale": 0 if multiply else SCALE,
        "operand_shift": ADD_HEADROOM if multiply else SHIFT,
        "pool_rounding": rounding,
    }
    dut.run.value = Const.cast(record_layout(RUN).const(fields)).value
    dut.start.value = 0
    dut.o__ready.value = 1
    source, other = StreamSource(dut, "i"), StreamSource(dut, "operand")
    sink = StreamSink(dut, "sums")
    await reset(dut)
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0

    def pauses() -> list[int]:
        return rng.integers(0, max_pause, COUNT, endpoint=True).tolist()

    def bits(layout: Any, fields: dict[str, int]) -> int:
        return int(Const.cast(layout.const(fields)).value)

    items = [
        bits(value_layout(CONFIG), {"value": value, "last": n % 9 == 8})
        for n, value in enumerate(outputs.tolist())
    ]
    hits = [
        bits(activation_layout(CONFIG), {"value": value, "hit": 1}) for value in operands.tolist()
    ]
    sending = [
        cocotb.start_soon(source.send(items, pauses())),
        cocotb.start_soon(other.send(hits, pauses())),
    ]
    received = await sink.receive(COUNT, pauses())
    for task in sending:
        await task
    assert [sum_of(payload) for payload in received] == [
        (value, n % 9 == 8) for n, value in enumerate(sums)
    ]
