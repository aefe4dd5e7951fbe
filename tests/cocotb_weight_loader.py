"""In-simulator half of ``test_hw_weights``; cocotb imports it, pytest does not collect it."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Const
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from thresher.golden.codes.weights import (
    ColumnLoad,
    ColumnRow,
    ColumnStream,
    decode_column,
    encode_column,
)
from thresher.golden.config import Config
from thresher.golden.descriptors import LOAD, LOAD_LANE, Record
from thresher.hw.layouts import (
    constant_layout,
    lookup_write_layout,
    pointer_write_layout,
    record_layout,
    tap_write_layout,
)
from thresher.sim.cocotb_streams import StreamSource, reset

CONFIG = Config(**json.loads(os.environ["CONFIG"]))
FIELDS = {"channels": 6, "row_size": 24, "kernel_height": 2, "kernel_width": 2, "channel_base": 2}


def record_bits(record: Record, **fields: int) -> int:
    """Bits of a record's layout; fields that are not given are 0."""
    const = Const.cast(record_layout(record).const(fields))
    return const.value


def random_column(rng: np.random.Generator) -> ColumnStream:
    rows = []
    for _ in range(CONFIG.lanes):
        positions = np.flatnonzero(rng.random(20 * FIELDS["channels"]) < rng.choice([0.1, 0.6]))
        rows.append(ColumnRow(20, positions, rng.integers(0, 12, positions.size)))
    return ColumnStream(
        bias=rng.integers(-(1 << 20), 1 << 20, 4),
        scale=rng.integers(0, 1 << CONFIG.scale_bits, 4),
        shift=rng.integers(0, 64, 4),
        codebook=rng.integers(0, 1 << CONFIG.weight_code_bits, 12),
        rows=rows,
        lookup=rng.integers(-256, 256, 512),
    )


class Writes:
    """Collects what the loader writes, sampled between the rising edges.

    Bit 0 of each is ``valid``; beside it there may be undefined bits as long as it is 0.
    """

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self.constants: list[tuple[int, ...]] = []
        self.taps: list[tuple[int, ...]] = []
        self.pointers: list[tuple[int, ...]] = []
        self.lookup: list[tuple[int, ...]] = []

    async def collect(self) -> None:
        """Collect until cancelled."""
        dut = self._dut
        while True:
            await FallingEdge(dut.clk)
            if dut.constant.value[0] == 1:
                constant = constant_layout(CONFIG).from_bits(dut.constant.value.to_unsigned())
                values = (constant.address, constant.bias, constant.scale, constant.shift)
                self.constants.append(values)
            if dut.tap.value[0] == 1:
                tap = tap_write_layout(CONFIG).from_bits(dut.tap.value.to_unsigned())
                assert tap.tap.zero == (tap.tap.code == 0)
                self.taps.append((tap.row, tap.address, tap.tap.offset, tap.tap.code))
            if dut.pointer.value[0] == 1:
                pointer = pointer_write_layout(CONFIG).from_bits(dut.pointer.value.to_unsigned())
                self.pointers.append((pointer.row, pointer.address, pointer.value))
            if dut.lookup.value[0] == 1:
                lookup = lookup_write_layout(CONFIG).from_bits(dut.lookup.value.to_unsigned())
                self.lookup.append((lookup.address, lookup.value))


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(max_gap=[0, 6])
async def writes_equal_golden(dut: Any, max_gap: int) -> None:
    # cocotb seeds `random` for each test; deriving from it keeps COCOTB_RANDOM_SEED in charge.
    rng = np.random.default_rng(random.getrandbits(64))
    stream = random_column(rng)
    data = encode_column(stream, CONFIG)
    size = CONFIG.port_bits // 8
    words = [int.from_bytes(data[at : at + size]) for at in range(0, len(data), size)]
    dut.load.value = record_bits(LOAD, **FIELDS)
    dut.lane.value = record_bits(LOAD_LANE, channels=4)
    dut.start.value = dut.reset_taps.value = dut.exhausted.value = 0

    Clock(dut.clk, 10, unit="ns").start()
    source, writes = StreamSource(dut, "words"), Writes(dut)
    await reset(dut)
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0
    collecting = cocotb.start_soon(writes.collect())
    await RisingEdge(dut.clk)
    await source.send(words, rng.integers(0, max_gap, len(words), endpoint=True).tolist())
    while dut.busy.value == 1:
        await FallingEdge(dut.clk)
    collecting.cancel()

    fields = ColumnLoad.from_fields({**FIELDS, "group_base": 0}, {"channels": 4})
    column = decode_column(data, CONFIG, fields)
    assert dut.error.value == 0
    assert column.lookup is not None
    assert writes.lookup == list(enumerate(column.lookup.tolist()))
    assert writes.constants == [
        (2 + n, *map(int, values))
        for n, values in enumerate(zip(column.bias, column.scale, column.shift, strict=True))
    ]
    for i, row in enumerate(column.rows):
        columns = (row.addresses.tolist(), row.offsets.tolist(), row.codes.tolist())
        assert [tap[1:] for tap in writes.taps if tap[0] == i] == list(zip(*columns, strict=True))
        pointers = list(enumerate(row.pointers.tolist()))
        assert [pointer[1:] for pointer in writes.pointers if pointer[0] == i] == pointers
