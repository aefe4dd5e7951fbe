"""Run a whole machine on a memory image until it is done.

Under Verilator and Icarus the machine runs on its own in ``bench.sv``, which has the clock and the
memory; Python only waits. Under Amaranth's simulator clock and memory are Python.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from amaranth.lib import wiring

import thresher
from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.golden.errors import ThresherError
from thresher.hw.verilog import private_inputs, stop_clocks, to_verilog
from thresher.sim.builds import (
    build_simulator,
    cache_folder,
    check_simulator,
    chosen_simulator,
    locked,
)
from thresher.sim.job import Image, Job, Seen
from thresher.sim.python_bench import PythonBench
from thresher.sim.runner import run_build
from thresher.sim.waves import write_save_file

__all__ = ["MachineError", "MachineResult", "machine_verilog", "run_machine"]

TOP = "thresher"
SMALL_MEMORY_BITS = 18  # images up to this size share a build


class MachineError(NamedTuple):
    """What the machine reported when it stopped with ``error``."""

    code: ErrorCode
    layer: int
    lane: int
    position: int


@dataclass(frozen=True)
class MachineResult:
    """The memory after a run, and how the run went."""

    memory: Image
    cycles: int
    error: MachineError | None
    sim_cycles_per_second: float
    build_seconds: float
    log: str


def run_machine(
    config: Config,
    image_words: Image,
    program_address: int,
    *,
    simulator: str | None = None,
    timeout_cycles: int = 1_000_000_000,
    latency: int = 4,
    stall: int = 0,
    wave: Path | None = None,
    component: Callable[[Config], wiring.Component] | None = None,
) -> MachineResult:
    """Run the program at ``program_address`` of a memory image and return the memory after it.

    Parameters
    ----------
    config
        The machine.
    image_words
        Bytes (words, port_bits / 8), each word big-endian. Reads beyond it give zero.
    simulator
        ``verilator``, ``icarus`` or ``amaranth``; by default the environment's SIM, or Verilator.
    timeout_cycles
        Cycles after which the run is given up.
    latency
        Cycles from a read request to its response, 1 to 63.
    stall
        The memory refuses a request in ``stall`` of 256 cycles, at random.
    wave
        Write a waveform to this path, its suffix set by the format, and a GTKWave save file
        beside it.
    component
        What makes the machine from ``config``; by default the accelerator.

    Raises
    ------
    ThresherError
        If a tool is missing, or the machine breaks the rules of its memory or does not finish.
    """
    name = chosen_simulator(simulator)
    if image_words.dtype != np.uint8 or image_words.shape[1:] != (config.port_bits // 8,):
        raise ThresherError(
            f"image must be bytes of (words, {config.port_bits // 8}),"
            f" not {image_words.dtype} of {image_words.shape}"
        )
    if not 1 <= latency <= 63:
        raise ThresherError(f"latency must be in 1..63, not {latency}")
    if not 0 <= stall <= 255:
        raise ThresherError(f"stall must be in 0..255, not {stall}")
    if len(image_words) > 1 << config.address_bits:
        raise ThresherError(
            f"image of {len(image_words)} words does not fit in {config.address_bits} address bits"
        )
    job = Job(config, image_words, program_address, timeout_cycles, latency, stall)
    if name == "amaranth":
        memory, seen, build_seconds = _run_python(job, wave, component or _accelerator)
        log = f"{seen}\n"
    else:
        memory, seen, build_seconds, log = _run_bench(job, name, wave, component)
    _check(job, seen)
    error = None
    if seen.was_error:
        error = MachineError(ErrorCode(seen.code), seen.layer, seen.lane, seen.position)
    return MachineResult(
        memory=memory,
        cycles=seen.cycles,
        error=error,
        sim_cycles_per_second=seen.cycles / max(seen.seconds, 1e-6),
        build_seconds=build_seconds,
        log=log,
    )


def machine_verilog(config: Config) -> str:
    """Return the Verilog of the accelerator, from the cache if nothing has changed since."""
    root = Path(thresher.__file__).parent
    sources = [
        *root.glob("hw/**/*.py"),
        *root.glob("golden/*.py"),
        *root.glob("golden/codes/**/*.py"),
    ]
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(version("amaranth").encode() + version("pyosys").encode())
    for path in sorted(sources):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    cached = cache_folder() / "verilog" / f"{digest.hexdigest()[:24]}.v"
    cached.parent.mkdir(exist_ok=True)
    with locked(cached.with_suffix(".lock")):
        if not cached.exists():
            text = to_verilog(_accelerator(config), TOP)
            part = cached.with_suffix(".part")
            part.write_text(text)
            part.rename(cached)
    return cached.read_text()


def _accelerator(config: Config) -> wiring.Component:
    from thresher.hw.accelerator import Accelerator  # noqa: PLC0415  # heavy, and not for dummies

    return Accelerator(config)


def _with_stopped_clocks(verilog: str) -> str:
    from thresher.hw.accelerator import CLOCKS  # noqa: PLC0415  # heavy, and not for dummies

    return stop_clocks(verilog, TOP, CLOCKS)


def _check(job: Job, seen: Seen) -> None:
    if seen.outside:
        raise ThresherError(
            f"the machine used word {seen.bad_address:#x}, outside its memory image"
            f" of {len(job.image):#x} words: the program or the hardware is wrong"
        )
    if seen.refused:
        raise ThresherError("the machine did not take a response of its memory: a hardware bug")
    if not seen.was_done and not seen.was_error:
        raise ThresherError(
            f"the machine did not finish in {job.timeout_cycles} cycles:"
            " give it more time, or look at a waveform (--wave)"
        )


def _run_bench(
    job: Job,
    simulator: str,
    wave: Path | None,
    component: Callable[[Config], wiring.Component] | None,
) -> tuple[Image, Seen, float, str]:
    started = time.monotonic()
    check_simulator(simulator)  # before the work, since the user waits for it
    if component is None:
        verilog = machine_verilog(job.config)
        if simulator == "verilator" and wave is None:
            verilog = _with_stopped_clocks(verilog)
    else:
        verilog = to_verilog(component(job.config), TOP)
    parameters = _widths(verilog) | {
        "PORT_BITS": job.config.port_bits,
        "ADDRESS_BITS": job.config.address_bits,
        "MEMORY_BITS": _memory_bits(job),
        "RESET": int(simulator == "icarus"),
    }
    bench = Path(__file__).with_name("bench.sv").read_text()
    build = build_simulator(
        {"thresher.v": verilog, "bench.sv": bench},
        "bench",
        simulator=simulator,
        shared=private_inputs(verilog),
        parameters=parameters,
        waves=wave is not None,
    )
    build_seconds = time.monotonic() - started
    folder = Path(tempfile.mkdtemp(prefix="thresher-"))
    try:
        (folder / "image.bin").write_bytes(np.ascontiguousarray(job.image).tobytes())
        order = {"program": job.program, "timeout_cycles": job.timeout_cycles}
        try:
            run_build(
                build,
                top="bench",
                test_module="thresher.sim.cocotb_machine",
                folder=folder,
                env={"THRESHER_JOB": json.dumps({**order, "result": str(folder / "result.json")})},
                plusargs=(
                    f"+load={folder / 'image.bin'}",
                    f"+dump={folder / 'dump.bin'}",
                    f"+words={len(job.image)}",
                    f"+latency={job.latency}",
                    f"+stall={job.stall}",
                ),
                waves=wave is not None,
                quiet=True,
            )
        except AssertionError as error:
            kept = cache_folder() / "failed-simulation.log"
            shutil.copy(folder / "simulation.log", kept)
            raise ThresherError(f"the simulation of the machine failed, see {kept}") from error
        seen = Seen(**json.loads((folder / "result.json").read_text()))
        raw = np.fromfile(folder / "dump.bin", dtype=np.uint8)
        memory = raw.reshape(job.image.shape)[:, ::-1].copy()
        if wave is not None:
            target = wave.with_suffix(f".{build.waves}")
            shutil.move(folder / f"dump.{build.waves}", target)
            write_save_file(target, verilog, TOP, "bench.machine")
        log = (folder / "simulation.log").read_text(errors="replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return memory, seen, build_seconds, log


def _run_python(
    job: Job, wave: Path | None, component: Callable[[Config], wiring.Component]
) -> tuple[Image, Seen, float]:
    started = time.monotonic()
    bench = PythonBench(job, component(job.config))
    build_seconds = time.monotonic() - started
    target = None if wave is None else wave.with_suffix(".vcd")
    seen = bench.run(target)
    if target is not None:
        write_save_file(target, to_verilog(component(job.config), TOP), TOP, "bench.top")
    return bench.memory, seen, build_seconds


def _memory_bits(job: Job) -> int:
    """log2 of the bench's memory: a few sizes only, so that builds are shared."""
    bits = SMALL_MEMORY_BITS
    while len(job.image) > 1 << bits:
        bits += 2
    return min(bits, job.config.address_bits)


def _widths(verilog: str) -> dict[str, int]:
    """Widths of the error ports, which the bench must declare alike."""
    top = verilog[verilog.index(f"module {TOP}(") :]
    widths = {}
    for port in ("code", "layer", "lane", "position"):
        line = next(line for line in top.splitlines() if line.endswith(f" error_{port};"))
        widths[f"{port.upper()}_BITS"] = (
            int(line.split("[")[1].split(":")[0]) + 1 if "[" in line else 1
        )
    return widths
