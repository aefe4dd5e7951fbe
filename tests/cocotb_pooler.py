"""In-simulator half of ``test_hw_pooling``; cocotb imports it, pytest does not collect it."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from thresher.golden.config import Config
from thresher.golden.descriptors import RUN, Pool, Rounding
from thresher.golden.pooling import average_pool, max_pool
from thresher.hw.layouts import pool_scale_write_layout, record_layout
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

CONFIG = Config(**json.loads(os.environ["CONFIG"]))
MAPS, CHANNELS, HEIGHT, WIDTH = 2, 3, 8, 9
KERNEL, STRIDE, PAD, SIZE = (3, 3), (2, 2), (1, 1), (4, 5)
SCALE, SHIFT = 7282, 16  # one ninth
LOW, HIGH = -256, 255
ORIGIN = -128
CUT_SCALES = ((7282, 10923), (10923, 16384))  # of windows that lack a row, a column, both


def signed_value(payload: int) -> tuple[int, bool]:
    """Value and ``last`` of ``value_layout``."""
    bits = CONFIG.activation_bits
    sign = 1 << bits - 1
    return ((payload & (2 * sign - 1)) ^ sign) - sign, bool(payload >> bits)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(pool=[Pool.MAX, Pool.AVERAGE], max_pause=[0, 3])
async def values_equal_golden(dut: Any, pool: Pool, max_pause: int) -> None:
    rng = np.random.default_rng(random.getrandbits(64))
    rounding = Rounding(int(rng.integers(len(Rounding))))
    origin = ORIGIN if pool == Pool.AVERAGE else 0
    maps = rng.integers(LOW - origin, HIGH, (MAPS, CHANNELS, HEIGHT, WIDTH), endpoint=True)
    if pool == Pool.MAX:
        pooled = max_pool(maps, KERNEL, STRIDE, PAD, SIZE)
    else:
        pooled = average_pool(
            maps,
            KERNEL,
            STRIDE,
            PAD,
            SIZE,
            scale=SCALE,
            shift=SHIFT,
            rounding=rounding,
            origin=origin,
            cut_scales=CUT_SCALES,
        )
    expected = pooled.transpose(0, 2, 3, 1).ravel().tolist()
    inputs = (maps.transpose(0, 2, 3, 1).ravel() & (1 << CONFIG.activation_bits) - 1).tolist()

    Clock(dut.clk, 10, unit="ns").start()
    run = {
        "out_height": HEIGHT,
        "out_width": WIDTH,
        "pool_low": LOW,
        "pool_high": HIGH,
        "pool_rounding": rounding,
        "pool_origin": origin,
        "pool": pool,
        "pool_scales": 3 * (pool == Pool.AVERAGE),
        "pool_shift": SHIFT if pool == Pool.AVERAGE else 0,
    }
    for side, axis, index in (("height", "y", 0), ("width", "x", 1)):
        run |= {
            f"pool_{side}": KERNEL[index],
            f"pool_stride_{axis}": STRIDE[index],
            f"pool_pad_{axis}": PAD[index],
            f"pooled_{side}": SIZE[index],
            f"pool_room_{axis}": (HEIGHT, WIDTH)[index] + PAD[index] - KERNEL[index],
        }
    fields: Any = run
    bits: Any = record_layout(RUN).const(fields)
    dut.run.value = bits.as_bits()
    dut.channels.value = CHANNELS
    dut.start.value = 0
    dut.scale.value = 0
    source, sink = StreamSource(dut, "i"), StreamSink(dut, "o")
    await reset(dut)
    for rows, line in enumerate(CUT_SCALES):
        for columns, scale in enumerate(line):
            write: Any = {
                "valid": 1,
                "rows": rows,
                "columns": columns,
                "scale": scale if pool == Pool.AVERAGE else 1,
            }
            written: Any = pool_scale_write_layout().const(write)
            dut.scale.value = written.as_bits()
            await FallingEdge(dut.clk)
    dut.scale.value = 0
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0

    sending = cocotb.start_soon(
        source.send(inputs, rng.integers(0, max_pause, len(inputs), endpoint=True).tolist())
    )
    received = await sink.receive(
        len(expected), rng.integers(0, max_pause, len(expected), endpoint=True).tolist()
    )
    await sending
    row = SIZE[1] * CHANNELS
    assert [signed_value(payload) for payload in received] == [
        (value, index % row == row - 1) for index, value in enumerate(expected)
    ]
