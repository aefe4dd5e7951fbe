"""Traffic and energy of a run: bytes by stream, and what they and the arithmetic take.

The counts are the machine's own; the dense figures beside them are of a machine with the same
multipliers that stores every int8 and multiplies every zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thresher.golden.compiler import Program, compile_network
from thresher.golden.config import Config
from thresher.golden.energy import Accesses, Figures, Work, energy
from thresher.sim.compare import read_run

__all__ = ["Stream", "Traffic", "traffic_of"]

DENSE_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Bytes of one kind of data for one inference.

    Parameters
    ----------
    moved
        Through the memory port, padding of words and headers included.
    dense
        As int8.
    entropy
        Shannon's bound of the symbols that are coded; without headers.
    """

    moved: float
    dense: float
    entropy: float


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a run moved and took, for one inference.

    Parameters
    ----------
    streams
        ``weights``, ``activations read``, ``activations written``.
    compressed, dense
        Picojoules by what takes them.
    """

    network: str
    inputs: int
    streams: Mapping[str, Stream]
    compressed: Mapping[str, float]
    dense: Mapping[str, float]


def traffic_of(run_dir: Path, figures: Figures) -> Traffic:
    """Return traffic and energy of a run directory, as ``thresher simulate -o`` writes it.

    Raises
    ------
    ThresherError
        If it is no run directory, or a file of it is missing or damaged.
    """
    run = read_run(run_dir)
    program = compile_network(run.network, run.config, run.inputs, run.skip)
    counted = run.counters["outputs"]
    total = {name: sum(record[name] for record in counted) for name in counted[0]}
    inputs, counts = program.inputs, program.inference.total
    word = run.config.port_bits / 8
    streams = {
        "weights": Stream(
            moved=program.weight_bytes / inputs,
            dense=counts.weights.bytes_dense / inputs,
            entropy=counts.weights.bytes_entropy / inputs,
        ),
        "activations read": Stream(
            moved=total["words_in"] * word / inputs,
            dense=counts.inputs.bytes_dense / inputs,
            entropy=counts.inputs.bytes_entropy / inputs,
        ),
        "activations written": Stream(
            moved=total["words_out"] * word / inputs,
            dense=_written(program, "bytes_dense") / inputs,
            entropy=_written(program, "bytes_entropy") / inputs,
        ),
    }
    activations = [streams[name] for name in streams if name != "weights"]
    work = Work(
        multiplications=(total["macs"] - total["gated"]) / inputs,
        lookups=total["tokens"] * run.config.lanes / inputs,
        weight_bytes=streams["weights"].moved,
        activation_bytes=sum(stream.moved for stream in activations),
    )
    dense = Work(
        multiplications=counts.macs.dense / inputs,
        lookups=0,
        weight_bytes=streams["weights"].dense,
        activation_bytes=sum(stream.dense for stream in activations),
    )
    return Traffic(
        network=run.network.name,
        inputs=inputs,
        streams=streams,
        compressed=energy(work, _accesses(run.config), figures),
        dense=energy(dense, _dense_accesses(run.config), figures),
    )


def _written(program: Program, size: str) -> float:
    """Return the size of all values that the machine writes."""
    counts = program.inference.counts
    written = {part.stage.result for part in program.passes}
    return sum(float(getattr(counts[name].outputs, size)) for name in written if name in counts)


def _accesses(config: Config) -> Accesses:
    return Accesses(
        tap=config.offset_bits + config.weight_code_bits,
        accumulator=config.accumulator_bits,
        pointers=2 * config.tap_bits,
    )


def _dense_accesses(config: Config) -> Accesses:
    return Accesses(tap=DENSE_BITS, accumulator=config.accumulator_bits, pointers=0)
