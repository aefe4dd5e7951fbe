"""The bench of ``bench.sv`` in Python, for Amaranth's simulator: slow, but nothing to install."""

from __future__ import annotations

import time
import warnings
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from thresher.sim.job import Job, Seen

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

__all__ = ["PythonBench"]


class PythonBench:
    """A machine on a memory in Python; ``run`` it once, then look at ``memory``."""

    def __init__(self, job: Job, machine: wiring.Component) -> None:
        self.memory = job.image.copy()
        self._job = job
        self._words = [int.from_bytes(row.tobytes(), "big") for row in job.image]
        self._faults = {"outside": 0, "refused": 0, "bad_address": 0}
        self._seen: dict[str, int] = {}
        self._ports = {
            path: _plain(machine, path)
            for path in (
                *("start", "program_address", "ready", "done", "error"),
                *("error_code", "error_layer", "error_lane", "error_position"),
                *("request.payload", "request.valid", "request.ready"),
                *("response.payload", "response.valid", "response.ready"),
            )
        }
        self._simulator = Simulator(machine)
        self._simulator.add_clock(1e-8)
        self._simulator.add_testbench(self._serve)

    def run(self, wave: Path | None) -> Seen:
        """Run until the machine is done, with a waveform if ``wave`` is given."""
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are equal up to case, in a waveform
            with nullcontext() if wave is None else self._simulator.write_vcd(str(wave)):
                self._simulator.run()
        seconds = time.perf_counter() - started
        return Seen(**self._seen, **self._faults, seconds=seconds)

    async def _serve(self, ctx: SimulatorContext) -> None:
        """Memory and start button: an iteration a cycle."""
        ports = self._ports
        names = ("request.valid", "request.payload", "response.ready", "done", "error")
        sampled = [ports[name] for name in names]
        on_its_way: deque[int | None] = deque([None] * (self._job.latency - 1))
        noise, ready, responding = 1, True, False
        ctx.set(ports["program_address"], self._job.program)
        ctx.set(ports["request.ready"], 1)
        await ctx.tick().until(ports["ready"])
        ctx.set(ports["start"], 1)
        cycles = 0
        while True:
            _, _, valid, request, taken, done, error = await ctx.tick().sample(*sampled)
            cycles += 1
            ctx.set(ports["start"], 0)
            if responding and not taken:
                self._faults["refused"] = 1
            on_its_way.append(self._access(request) if valid and ready else None)
            response = on_its_way.popleft()
            responding = response is not None
            ctx.set(ports["response.valid"], responding)
            ctx.set(ports["response.payload"], response or 0)
            if self._job.stall:
                bit = (noise >> 31 ^ noise >> 21 ^ noise >> 1 ^ noise) & 1
                noise = (noise << 1 | bit) & 0xFFFFFFFF
                ready = noise & 0xFF >= self._job.stall
                ctx.set(ports["request.ready"], ready)
            over = done or error or any(self._faults.values())
            if cycles > 1 and (over or cycles > self._job.timeout_cycles):
                self._seen = {"was_done": int(done), "was_error": int(error), "cycles": cycles}
                for name in ("code", "layer", "lane", "position"):
                    self._seen[name] = int(ctx.get(ports[f"error_{name}"]))
                return

    def _access(self, request: int) -> int | None:
        """Carry out a request; return what it reads."""
        address_bits = self._job.config.address_bits
        address = request & (1 << address_bits) - 1
        if not request >> address_bits & 1:
            return self._words[address] if address < len(self._words) else 0
        if address >= len(self._words):
            self._faults.update(outside=1, bad_address=address)
            return None
        self._words[address] = request >> address_bits + 1
        raw = self._words[address].to_bytes(self.memory.shape[1], "big")
        self.memory[address] = np.frombuffer(raw, np.uint8)
        return None


def _plain(machine: wiring.Component, path: str) -> Value:
    """A port as a plain value, whatever its shape."""
    port: Any = machine
    for name in path.split("."):
        port = getattr(port, name)
    return Value.cast(port)
