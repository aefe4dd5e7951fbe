"""In-simulator half of ``test_hw_output``; cocotb imports it, pytest does not collect it."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Rounding
from thresher.golden.requantise import requantise
from thresher.hw.layouts import constant_layout, record_layout
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

CONFIG = Config(**json.loads(os.environ["CONFIG"]))
ROWS, WIDTH, CHANNELS, BASE = 4, 9, 8, 5


def drive(dut: Any, port: str, layout: data.StructLayout, values: dict[str, int]) -> None:
    """Set a port that is a struct."""
    fields: Any = values
    bits: Any = layout.const(fields)
    getattr(dut, port).value = bits.as_bits()


def signed_value(payload: int) -> tuple[int, bool]:
    """Value and ``last`` of ``value_layout``."""
    bits = CONFIG.activation_bits
    sign = 1 << bits - 1
    return ((payload & (2 * sign - 1)) ^ sign) - sign, bool(payload >> bits)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(max_gap=[0, 3], max_stall=[0, 3])
async def values_equal_golden(dut: Any, max_gap: int, max_stall: int) -> None:
    rng = np.random.default_rng(random.getrandbits(64))
    rounding = Rounding(int(rng.integers(len(Rounding))))
    bias = rng.integers(-(1 << 20), 1 << 20, CHANNELS)
    scale = rng.integers(0, 1 << CONFIG.scale_bits, CHANNELS)
    shift = rng.integers(36, 50, CHANNELS)
    sums = rng.integers(-(1 << 22), 1 << 22, (ROWS * WIDTH, CHANNELS))
    expected = requantise(sums + bias, scale, shift, rounding, (-256, 255)).ravel().tolist()

    Clock(dut.clk, 10, unit="ns").start()
    dut.start.value = 0
    run = {
        "out_width": WIDTH,
        "channel_base": BASE,
        "rounding": rounding,
        "clip_low": -256,
        "clip_high": 255,
    }
    drive(dut, "run", record_layout(RUN), run)
    drive(dut, "constant", constant_layout(CONFIG), {})
    dut.channels.value = CHANNELS
    source, sink = StreamSource(dut, "i"), StreamSink(dut, "o")
    await reset(dut)
    for channel in range(CHANNELS):
        constant = {
            "valid": 1,
            "address": BASE + channel,
            "bias": int(bias[channel]),
            "scale": int(scale[channel]),
            "shift": int(shift[channel]),
        }
        drive(dut, "constant", constant_layout(CONFIG), constant)
        await FallingEdge(dut.clk)
    drive(dut, "constant", constant_layout(CONFIG), {})
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0

    mask = (1 << CONFIG.accumulator_bits) - 1
    inputs = [value & mask for value in sums.ravel().tolist()]
    sending = cocotb.start_soon(
        source.send(inputs, rng.integers(0, max_gap, len(inputs), endpoint=True).tolist())
    )
    received = await sink.receive(
        len(inputs), rng.integers(0, max_stall, len(inputs), endpoint=True).tolist()
    )
    await sending
    row = WIDTH * CHANNELS
    assert [signed_value(payload) for payload in received] == [
        (value, index % row == row - 1) for index, value in enumerate(expected)
    ]
