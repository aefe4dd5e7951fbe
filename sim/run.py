"""Run a whole network on the simulated machine, compare it with golden, and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler import Program, compile_network
from thresher.golden.config import Config, Skip
from thresher.golden.descriptors import ErrorCode
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.thr_file import save
from thresher.sim.builds import chosen_simulator
from thresher.sim.compare import Comparison, compare_counters, compare_values, expected_outputs
from thresher.sim.machine import MachineError, MachineResult, run_machine
from thresher.sim.run_directory import new_directory

__all__ = ["STALLS", "FinishedRun", "RunReport", "run_program", "simulate"]

STALLS = ("load_wait", "starved", "ring_full", "conflict", "fifo_full", "memory_wait")
MACS_OF = {
    Skip.NONE: "dense",
    Skip.GATE: "dense",
    Skip.WEIGHTS: "weights",
    Skip.ACTIVATIONS: "activations",
    Skip.BOTH: "both",
}
_REASONS = {
    ErrorCode.CODE_UNUSED: "a weight stream holds bits that are no code",
    ErrorCode.STREAM_SHORT: "a weight stream ends too early",
    ErrorCode.RUN_PAST_END: "a weight's run goes past the end of its groups",
    ErrorCode.ROW_LENGTH: "an activation row does not match its length",
    ErrorCode.DESCRIPTOR: "a record of unknown kind",
}


@dataclass(frozen=True)
class RunReport:
    """What a run gave.

    Parameters
    ----------
    report
        The figures, as ``thresher simulate --json`` writes them.
    outputs
        Arrays (inputs, channels, height, width) of every layer that the machine stored.
    comparison
        Against golden; None if that was not asked for.
    """

    report: dict[str, Any]
    outputs: dict[str, npt.NDArray[np.int64]]
    comparison: Comparison | None


@dataclass(frozen=True)
class FinishedRun:
    """A program that ran: the machine's result, what it stored, and its counters of each pass."""

    program: Program
    result: MachineResult
    outputs: dict[str, npt.NDArray[np.int64]]
    counters: list[dict[str, int]]

    def compare(self) -> Comparison:
        """Compare every stored value and every predicted counter with golden."""
        comparison = compare_values(expected_outputs(self.program), self.outputs)
        layers = [part.stage.name for part in self.program.passes]
        comparison.add(compare_counters(self.program.expected_counters, self.counters, layers))
        return comparison


def run_program(
    program: Program,
    *,
    simulator: str | None = None,
    timeout_cycles: int | None = None,
    latency: int = 4,
    stall: int = 0,
    wave: Path | None = None,
) -> FinishedRun:
    """Run a compiled program; parameters are those of :func:`simulate` and ``run_machine``.

    Raises
    ------
    ThresherError
        If a tool is missing, or the machine reports an error or does not finish.
    """
    result = run_machine(
        program.config,
        program.image,
        program.program,
        simulator=simulator,
        timeout_cycles=timeout_cycles or _patience(program),
        latency=latency,
        stall=stall,
        wave=wave,
    )
    if result.error is not None:
        raise ThresherError(_describe(result.error, program))
    outputs = program.decode_outputs(result.memory)
    return FinishedRun(program, result, outputs, program.counters(result.memory))


def simulate(
    network: CompressedNetwork,
    inputs: npt.ArrayLike,
    config: Config,
    skip: Skip = Skip.BOTH,
    *,
    simulator: str | None = None,
    run_dir: Path | None = None,
    check: bool = True,
    every_layer: bool | None = None,
    timeout_cycles: int | None = None,
    latency: int = 4,
    stall: int = 0,
    wave: bool = False,
    progress: Callable[[str], None] | None = None,
) -> RunReport:
    """Run ``network`` on ``inputs``.

    Lookup, pooling and addition are merged into the convolution before them, whose own output then
    never reaches memory. So that every layer is compared all the same, a second run stores each.

    Parameters
    ----------
    inputs
        Integers of shape (n, C, H, W).
    simulator
        ``verilator``, ``icarus`` or ``amaranth``; by default the environment's SIM, or Verilator.
    run_dir
        Write the run to this directory: it appears when the run is complete, or not at all.
        Missing folders above it are made.
    check
        Compare with golden.
    every_layer
        Make the second run; by default if golden is compared, layers were merged, and the
        simulator is Verilator (the others are slow).
    timeout_cycles
        Cycles after which a run is given up; by default a bound from the work to do.
    latency, stall
        Of the memory, see :func:`~thresher.sim.machine.run_machine`.
    wave
        Write a waveform of the run into ``run_dir``.
    progress
        Called with what is about to be done.

    Raises
    ------
    ThresherError
        If a tool is missing, or the machine reports an error or does not finish.
    ValueError
        If network, inputs and machine do not suit each other.
    """
    name = chosen_simulator(simulator)
    values = np.asarray(inputs)
    if wave and run_dir is None:
        raise ThresherError("a waveform needs a place: give a run directory (-o)")
    if timeout_cycles is not None and timeout_cycles < 1:
        raise ThresherError(f"timeout must be at least 1 cycle, not {timeout_cycles}")
    tell = progress or (lambda _: None)
    with new_directory(run_dir) as work:

        def run(keep: bool) -> FinishedRun:
            tell("lay out the network")
            program = compile_network(network, config, values, skip, keep_layers=keep)
            tell("build and run the machine" if not keep else "run again, storing every layer")
            return run_program(
                program,
                simulator=name,
                timeout_cycles=timeout_cycles,
                latency=latency,
                stall=stall,
                wave=work / "wave" if wave and work is not None and not keep else None,
            )

        runs = {"outputs": run(keep=False)}
        if every_layer is None:
            merged = len(runs["outputs"].outputs) < len(network.layers)
            every_layer = check and merged and name == "verilator"
        if every_layer:
            runs["every_layer"] = run(keep=True)
        comparison = _compare(runs) if check else None
        report = _report(runs["outputs"], comparison)
        report["simulator"] = name
        if work is not None:
            _write(work, network, values, runs, report)
    return RunReport(report, runs["outputs"].outputs, comparison)


def _patience(program: Program) -> int:
    """Cycles in which any healthy machine is done with ``program``, by a wide margin."""
    work = sum(counters["macs"] + counters["tokens"] for counters in program.expected_counters)
    values = sum(output.size for output in program.inference.outputs.values())
    return 100_000 + 4 * work + 64 * len(program.image) + 256 * values


def _describe(error: MachineError, program: Program) -> str:
    passes = program.passes
    layer = passes[error.layer].stage.name if error.layer < len(passes) else "unknown"
    return (
        f"the machine stopped with {error.code.name}: {_REASONS.get(error.code, 'no reason given')}"
        f" (layer {layer}, pass {error.layer}, lane {error.lane}, bit {error.position})"
    )


def _compare(runs: dict[str, FinishedRun]) -> Comparison:
    comparison = Comparison()
    for run in runs.values():
        comparison.add(run.compare())
    return comparison


def _report(run: FinishedRun, comparison: Comparison | None) -> dict[str, Any]:
    program, config = run.program, run.program.config
    total = program.inference.total
    cycles_load = sum(counters["load_wait"] for counters in run.counters)
    computing = max(1, run.result.cycles - cycles_load)
    must_do = getattr(total.macs_in_bounds, MACS_OF[program.skip])
    counts = program.inference.counts
    stored = [counts[name].outputs for name in program.stored_once()]
    first = counts[program.network.layers[0].name].inputs
    words_out = sum(counters["words_out"] for counters in run.counters)
    last = run.outputs[program.network.output]
    return {
        "network": program.network.name,
        "lanes": config.lanes,
        "multipliers": config.multipliers,
        "multiplier": str(config.multiplier),
        "skip": str(program.skip),
        "port_bits": config.port_bits,
        "inputs": program.inputs,
        "cycles": run.result.cycles,
        "cycles_load": cycles_load,
        "cycles_per_input": round((run.result.cycles - cycles_load) / program.inputs, 2),
        "macs": asdict(total.macs),
        "macs_in_bounds": asdict(total.macs_in_bounds),
        "efficiency": round(must_do / config.multipliers / computing, 4),
        "bytes": {
            "weights_dense": total.weights.bytes_dense,
            "weights_coded": program.weight_bytes,
            "weights_entropy": round(total.weights.bytes_entropy, 1),
            "activations_dense": first.bytes_dense + sum(size.bytes_dense for size in stored),
            "activations_coded": first.bytes_coded + words_out * config.port_bits // 8,
        },
        "layers": _layers(run),
        "values_compared": comparison.values_compared if comparison else 0,
        "values_different": comparison.values_different if comparison else 0,
        "counters_compared": comparison.counters_compared if comparison else 0,
        "counters_different": comparison.counters_different if comparison else 0,
        "first_difference": comparison.first if comparison else None,
        "layers_compared": comparison.layers if comparison else [],
        "sim_cycles_per_second": round(run.result.sim_cycles_per_second),
        "build_seconds": round(run.result.build_seconds, 2),
        "predictions": last.reshape(len(last), -1).argmax(axis=1).tolist(),
    }


def _layers(run: FinishedRun) -> list[dict[str, Any]]:
    """The counters of each layer's passes, added up."""
    layers: dict[str, dict[str, Any]] = {}
    for part, counters in zip(run.program.passes, run.counters, strict=True):
        empty = {"name": part.stage.name, "cycles": 0, "macs": 0, "passes": 0}
        layer = layers.setdefault(part.stage.name, {**empty, "stalls": dict.fromkeys(STALLS, 0)})
        layer["passes"] += 1
        layer["cycles"] += counters["cycles"]
        layer["macs"] += counters["macs"]
        for cause in STALLS:
            layer["stalls"][cause] += counters[cause]
    return list(layers.values())


def _write(
    work: Path,
    network: CompressedNetwork,
    inputs: npt.NDArray[Any],
    runs: dict[str, FinishedRun],
    report: dict[str, Any],
) -> None:
    save(network, work / "network.thr")
    np.save(work / "inputs.npy", inputs)
    for name, run in runs.items():
        arrays: dict[str, Any] = dict(run.outputs)
        np.savez_compressed(work / f"{name}.npz", **arrays)
    program = runs["outputs"].program
    settings = {
        "config": asdict(program.config),
        "skip": str(program.skip),
        "runs": [[name, name == "every_layer"] for name in runs],
    }
    (work / "run.json").write_text(json.dumps(settings, indent=2) + "\n")
    (work / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    counters = {name: run.counters for name, run in runs.items()}
    (work / "counters.json").write_text(json.dumps(counters, indent=2) + "\n")
    (work / "simulation.log").write_text("".join(run.result.log for run in runs.values()))
