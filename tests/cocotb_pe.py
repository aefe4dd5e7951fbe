"""Runs inside the simulator: a processing element's Verilog equals golden."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Const
from amaranth.lib import data
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, with_timeout

from thresher.golden.array import ArrayRun, Taps, Token, pe
from thresher.golden.config import Config
from thresher.hw.array.drain import element_run_layout
from thresher.hw.layouts import (
    pointer_write_layout,
    tap_write_layout,
    token_layout,
)
from thresher.sim.cocotb_streams import StreamSink, StreamSource, reset

# The machine of test_hw_array.test_verilog_equals_golden.
CONFIG = Config(
    lanes=1,
    activation_bits=6,
    weight_bits=5,
    accumulator_bits=20,
    tap_depth=32,
    group_depth=16,
    accumulator_depth=16,
    fifo_depth=4,
)
SHAPE = ArrayRun(out_width=2, channels=2)
ROWS = 20


def bits(layout: data.StructLayout, values: Any) -> int:
    """Return the bits of a struct, as a port of the Verilog takes them."""
    return Const.cast(layout.const(values)).value


def random_taps(rng: random.Random) -> Taps:
    """Fill the stores; groups of four taps from address 20 on, so that the addresses wrap."""
    pointers = (20 + 4 * np.arange(CONFIG.group_depth)) % CONFIG.tap_depth
    offsets = [(rng.randrange(2) - rng.choice([0, SHAPE.row_size])) % 16 for _ in range(32)]
    codes = [rng.randrange(32) for _ in range(32)]
    return Taps(pointers, np.array(offsets), np.array(codes))


def random_tokens(rng: random.Random) -> list[Token]:
    """Return the tokens of ``ROWS`` output rows; input row r meets rows r and r - 1."""
    opens, complete = Token(marker=1, open=1), Token(marker=1)
    tokens = [opens]
    for row in range(1, ROWS):
        tokens.append(opens)
        for _ in range(rng.choice([0, 2, 9])):
            lo = rng.randrange(8)
            base = row * SHAPE.row_size + SHAPE.channels * rng.randrange(SHAPE.out_width)
            hi = lo + rng.choice([0, 1, 2])
            tokens.append(Token(0, 0, lo, hi, base % 16, rng.randrange(-32, 32)))
        tokens.append(complete)
    return [*tokens, complete]


async def load(dut: Any, taps: Taps) -> None:
    """Write the stores, as a loader does."""
    tap_layout, pointer_layout = tap_write_layout(CONFIG), pointer_write_layout(CONFIG)
    for address, (offset, code) in enumerate(zip(taps.offsets, taps.codes, strict=True)):
        tap = {"offset": int(offset), "code": int(code), "zero": int(code == 0)}
        dut.tap.value = bits(tap_layout, {"valid": 1, "address": address, "tap": tap})
        await FallingEdge(dut.clk)
    dut.tap.value = 0
    for address, value in enumerate(taps.pointers):
        write = {"valid": 1, "address": address, "value": int(value)}
        dut.pointer.value = bits(pointer_layout, write)
        await FallingEdge(dut.clk)
    dut.pointer.value = 0


async def check(dut: Any, most: int) -> None:
    """Run random tokens with up to ``most`` pauses on every port; compare the sums."""
    rng = random.Random(most)
    Clock(dut.clk, 10, "ns").start()
    west, north = StreamSource(dut, "i"), StreamSource(dut, "north")
    east, south = StreamSink(dut, "o"), StreamSink(dut, "south")
    taps, tokens = random_taps(rng), random_tokens(rng)
    run = {"row_size": SHAPE.row_size, "ring_rows": 2}
    for port in (dut.i__payload, dut.north__payload, dut.tap, dut.pointer, dut.top, dut.clear):
        port.value = 0
    dut.start.value = 0
    dut.nothing.value = 0
    dut.run.value = bits(element_run_layout(), run)
    await reset(dut)
    await load(dut, taps)
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0

    expected = pe(tokens, taps, CONFIG, SHAPE, SHAPE.channels).ravel()
    above = [rng.randrange(1000) for _ in expected]
    payloads = [bits(token_layout(CONFIG), token._asdict()) for token in tokens]

    def pauses(count: int) -> list[int]:
        return [rng.choice([0, rng.randint(0, most)]) for _ in range(count)]

    cocotb.start_soon(west.send(payloads, pauses(len(payloads))))
    cocotb.start_soon(north.send(above, pauses(len(above))))
    copies = cocotb.start_soon(east.receive(len(payloads), pauses(len(payloads))))
    sums = await with_timeout(south.receive(len(above), pauses(len(above))), 100, "us")
    modulus = 1 << CONFIG.accumulator_bits
    assert sums == [(int(a) + b) % modulus for a, b in zip(expected, above, strict=True)]
    assert await copies == payloads
    for _ in range(2):
        await FallingEdge(dut.clk)
    assert dut.idle.value == 1


@cocotb.test()
async def sums_equal_golden_without_pauses(dut: Any) -> None:
    await check(dut, 0)


@cocotb.test()
async def sums_equal_golden_with_pauses(dut: Any) -> None:
    await check(dut, 9)
