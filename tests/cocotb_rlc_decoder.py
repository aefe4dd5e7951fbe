"""In-simulator half of a test of ``test_hw_activations``: the RLC decoder in Verilog."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock

from thresher.golden.codes.rlc import rlc_encode_row
from thresher.golden.config import Config
from thresher.golden.tokens import items
from thresher.hw.layouts import activation_layout, row_word_layout
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

CONFIG = Config(**json.loads(os.environ["SIZES"]))
WIDTH = 12
CHANNELS = 5


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(most_gap=[0, 3], most_stall=[0, 3])
async def items_equal_golden(dut: Any, most_gap: int, most_stall: int) -> None:
    # cocotb seeds `random` for each test; deriving from it keeps COCOTB_RANDOM_SEED in charge.
    rng = np.random.default_rng(random.getrandbits(64))
    words: list[int] = []
    expected = []
    for density in (0.0, 0.5, 0.9, 1.0, 0.5):
        values = rng.integers(1, 255, (WIDTH, CHANNELS), endpoint=True)
        row = np.where(rng.random(values.shape) < density, values, 0)
        coded = rlc_encode_row(row.ravel(), CONFIG.rlc)
        for index, data in enumerate(coded or [0]):
            fields = {
                "data": data,
                "empty": not coded,
                "last": index == max(1, len(coded)) - 1,
                "channels": CHANNELS,
                "first_channel": 7,
            }
            words.append(row_word_layout(CONFIG).const(fields).as_bits())
        expected += items(row, first_channel=7, send_zeros=True)

    dut.width.value, dut.send_zeros.value, dut.start.value = WIDTH, 1, 0
    Clock(dut.clk, 10, unit="ns").start()
    source, sink = StreamSource(dut, "i"), StreamSink(dut, "o")
    await reset(dut)
    gaps = rng.integers(0, most_gap, len(words), endpoint=True).tolist()
    sending = cocotb.start_soon(source.send(words, gaps))
    stalls = rng.integers(0, most_stall, len(expected), endpoint=True).tolist()
    received = await sink.receive(len(expected), stalls)
    await sending
    layout = activation_layout(CONFIG)
    assert received == [layout.const(item._asdict()).as_bits() for item in expected]
    assert dut.error.value == 0
