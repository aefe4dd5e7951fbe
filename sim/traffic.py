"""Traffic and energy of a run: bytes by stream, and what they and the arithmetic take.

The counts are the machine's own; the dense figures beside them are of a machine with the same
multipliers that stores every int8 and multiplies every zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    stages = {part.stage.result: part for part in program.passes}.values()
    read = [
        name
        for part in stages
        for name in (
            *dict.fromkeys(stream.map for stream in part.reading.streams),
            *([part.operand[0]] if part.operand else []),
        )
    ]
    written = [part.stage.result for part in stages]
    streams = {
        "weights": Stream(
            moved=program.weight_bytes / inputs,
            dense=counts.weights.bytes_dense / inputs,
            entropy=counts.weights.bytes_entropy / inputs,
        ),
        "activations read": Stream(
            moved=total["words_in"] * word / inputs,
            dense=_size(program, read, "bytes_dense") / inputs,
            entropy=_size(program, read, "bytes_entropy") / inputs,
        ),
        "activations written": Stream(
            moved=total["words_out"] * word / inputs,
            dense=_size(program, written, "bytes_dense") / inputs,
            entropy=_size(program, written, "bytes_entropy") / inputs,
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


def _size(program: Program, maps: Sequence[str], size: str) -> float:
    """Return the size of maps, for all inputs; those of a dense machine are moved once a stage."""
    counts, shapes = program.inference.counts, program.network.shapes()
    first = next(layer.name for layer in program.network.layers if "input" in layer.inputs)
    total = 0.0
    for name in maps:
        for value, channels in program.maps[name].content:
            if value == "input":
                total += float(getattr(counts[first].inputs, size))
            else:
                share = channels.size / shapes[value][0]
                total += float(getattr(counts[value].outputs, size)) * share
    return total


def _accesses(config: Config) -> Accesses:
    return Accesses(
        tap=config.offset_bits + config.weight_code_bits,
        accumulator=config.accumulator_bits,
        pointers=2 * config.tap_bits,
    )


def _dense_accesses(config: Config) -> Accesses:
    return Accesses(tap=DENSE_BITS, accumulator=config.accumulator_bits, pointers=0)
