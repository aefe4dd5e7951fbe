"""In-simulator half of a test of ``test_hw_activations``: the RLC encoder in Verilog."""

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
from thresher.hw.layouts import value_layout, word_layout
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

CONFIG = Config(**json.loads(os.environ["SIZES"]))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(most_gap=[0, 3], most_stall=[0, 3])
async def words_equal_golden(dut: Any, most_gap: int, most_stall: int) -> None:
    # cocotb seeds `random` for each test; deriving from it keeps COCOTB_RANDOM_SEED in charge.
    rng = np.random.default_rng(random.getrandbits(64))
    values: list[int] = []
    expected: list[int] = []
    for density in (0.0, 0.5, 0.1, 1.0, 0.5):
        row = rng.integers(-256, 256, 40) * (rng.random(40) < density)
        for index, value in enumerate(row.tolist()):
            fields = {"value": value, "last": index == row.size - 1}
            values.append(value_layout(CONFIG).const(fields).as_bits())
        coded = rlc_encode_row(row, CONFIG.rlc)
        for index, data in enumerate(coded or [0]):
            word = {"data": data, "empty": not coded, "last": index == max(1, len(coded)) - 1}
            expected.append(word_layout(CONFIG).const(word).as_bits())

    Clock(dut.clk, 10, unit="ns").start()
    source, sink = StreamSource(dut, "i"), StreamSink(dut, "o")
    await reset(dut)
    gaps = rng.integers(0, most_gap, len(values), endpoint=True).tolist()
    sending = cocotb.start_soon(source.send(values, gaps))
    stalls = rng.integers(0, most_stall, len(expected), endpoint=True).tolist()
    assert await sink.receive(len(expected), stalls) == expected
    await sending
