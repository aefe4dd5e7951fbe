"""Compare what the machine wrote with golden, value by value and counter by counter."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler import Program, compile_network
from thresher.golden.config import Config, Skip
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.thr_file import load

__all__ = [
    "Comparison",
    "StoredRun",
    "compare",
    "compare_counters",
    "compare_values",
    "expected_outputs",
    "read_run",
]

# What reading files of a run raises if they are not what was written.
_DAMAGE = (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)

Values = Mapping[str, npt.NDArray[np.int64]]


@dataclass
class Comparison:
    """How much was compared and what differed; ``first`` describes the first difference."""

    values_compared: int = 0
    values_different: int = 0
    counters_compared: int = 0
    counters_different: int = 0
    layers: list[str] = field(default_factory=list)
    first: str | None = None

    @property
    def equal(self) -> bool:
        """Nothing differed."""
        return not self.values_different and not self.counters_different

    def add(self, other: Comparison) -> None:
        """Count ``other`` in."""
        self.values_compared += other.values_compared
        self.values_different += other.values_different
        self.counters_compared += other.counters_compared
        self.counters_different += other.counters_different
        self.layers += [name for name in other.layers if name not in self.layers]
        self.first = self.first or other.first


def compare_values(expected: Values, got: Values) -> Comparison:
    """Compare arrays (n, channels, height, width) of every layer that is expected, in its order.

    All values of a layer that is missing, or that is not expected, differ.
    """
    result = Comparison()
    for name, wanted in expected.items():
        result.layers.append(name)
        result.values_compared += wanted.size
        if name not in got:
            result.values_different += wanted.size
            result.first = result.first or f"layer {name}: expected {wanted.shape}, got no values"
            continue
        values = got[name]
        if values.shape != wanted.shape:
            result.values_different += wanted.size
            result.first = (
                result.first or f"layer {name}: expected shape {wanted.shape}, got {values.shape}"
            )
            continue
        different = np.argwhere(values != wanted)
        result.values_different += len(different)
        if len(different) and result.first is None:
            place = tuple(int(index) for index in different[0])
            number, channel, y, x = place
            result.first = (
                f"layer {name}, input {number}, channel {channel}, y {y}, x {x}:"
                f" expected {wanted[place]}, got {values[place]}"
            )
    for name in got.keys() - expected.keys():
        result.values_different += got[name].size
        result.first = result.first or f"layer {name}: expected no values, got {got[name].shape}"
    return result


def expected_outputs(program: Program) -> dict[str, npt.NDArray[np.int64]]:
    """What golden expects of the layers that ``program`` stores, in the order of the network."""
    return {name: program.inference.outputs[name] for name in program.layers}


def compare_counters(
    expected: Sequence[Mapping[str, int]],
    got: Sequence[Mapping[str, int]],
    layers: Sequence[str],
) -> Comparison:
    """Compare the predicted counters of every run; ``layers`` names the layer of each."""
    result = Comparison()
    if len(expected) != len(got):
        result.counters_different = abs(len(expected) - len(got))
        result.first = f"expected counters of {len(expected)} runs, got {len(got)}"
    for run, (wanted, counted, layer) in enumerate(zip(expected, got, layers, strict=False)):
        for name, value in wanted.items():
            result.counters_compared += 1
            if counted.get(name) != value:
                result.counters_different += 1
                result.first = (
                    result.first
                    or f"layer {layer}, run {run}, counter {name}:"
                    f" expected {value}, got {counted.get(name, 'no value')}"
                )
    return result


@dataclass(frozen=True)
class StoredRun:
    """A run directory, read; ``runs``, ``outputs`` and ``counters`` by the name of each run."""

    network: CompressedNetwork
    inputs: npt.NDArray[np.integer]
    config: Config
    skip: Skip
    runs: dict[str, bool]  # whether every layer was stored
    outputs: dict[str, dict[str, npt.NDArray[np.int64]]]
    counters: dict[str, list[dict[str, int]]]


def read_run(run_dir: Path) -> StoredRun:
    """Read a run directory, as ``thresher simulate`` writes it.

    Raises
    ------
    ThresherError
        If it is no run directory, or a file of it is missing or damaged.
    """
    settings = _read_json(run_dir / "run.json")
    counters = _read_json(run_dir / "counters.json")
    try:
        runs = {name: bool(keep) for name, keep in settings["runs"]}
        return StoredRun(
            network=load(run_dir / "network.thr"),
            inputs=np.load(run_dir / "inputs.npy"),
            config=Config(**settings["config"]),
            skip=Skip(settings["skip"]),
            runs=runs,
            outputs={name: _read_arrays(run_dir / f"{name}.npz") for name in runs},
            counters={name: [dict(record) for record in counters[name]] for name in runs},
        )
    except _DAMAGE as error:
        raise ThresherError(
            f"run directory {run_dir} is damaged ({type(error).__name__}: {error}):"
            " run `thresher simulate` again"
        ) from error


def compare(run_dir: Path) -> Comparison:
    """Compare a run directory with golden anew; the errors are those of :func:`read_run`."""
    run = read_run(run_dir)
    result = Comparison()
    for name, keep in run.runs.items():
        program = compile_network(run.network, run.config, run.inputs, run.skip, keep_layers=keep)
        result.add(compare_values(expected_outputs(program), run.outputs[name]))
        layers = [part.stage.name for part in program.passes]
        result.add(compare_counters(program.expected_counters, run.counters[name], layers))
    return result


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ThresherError(
            f"{path.parent} is no run directory, it has no {path.name}:"
            " give the folder that `thresher simulate -o` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise ThresherError(
            f"run directory {path.parent} is damaged ({path.name}: {error}):"
            " run `thresher simulate` again"
        ) from error


def _read_arrays(path: Path) -> dict[str, npt.NDArray[np.int64]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
