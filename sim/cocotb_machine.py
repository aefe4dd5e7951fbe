"""In-simulator half of ``sim.machine``: load, start, wait, dump. cocotb imports it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer

JOB = json.loads(os.environ.get("THRESHER_JOB", "{}"))


@cocotb.test()
async def run(dut: Any) -> None:
    """Run the program of the job and write what the bench saw to its result file."""
    dut.program_address.value = JOB["program"]
    dut.limit.value = JOB["timeout_cycles"]
    dut.load.value = 1
    await Timer(100, unit="ns")  # under reset
    dut.rst.value = 0
    await Timer(50, unit="ns")
    dut.go.value = 1
    started = time.perf_counter()
    await RisingEdge(dut.finished)
    seconds = time.perf_counter() - started
    await Timer(20, unit="ns")
    dut.dump.value = 1
    await Timer(20, unit="ns")
    names = ("was_done", "was_error", "outside", "refused", "bad_address", "cycles")
    error = ("code", "layer", "lane", "position")
    seen = {name: int(getattr(dut, name).value) for name in (*names, *error)}
    Path(JOB["result"]).write_text(json.dumps({**seen, "seconds": seconds}))
