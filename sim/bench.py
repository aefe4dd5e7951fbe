"""Measure the machine on the workloads that others published, in RTL simulation.

Every figure of ours is of a run whose values and counters equalled golden's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.builtin import mnist_digits, resolve_network
from thresher.golden.compiler import Program, compile_network
from thresher.golden.config import Config, Skip
from thresher.golden.cycles.program import predict_cycles
from thresher.golden.densities import with_densities
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.sim.run import STALLS, FinishedRun, run_program
from thresher.sim.workloads import EIE_LAYERS, GEMM_256, PEER_SHAPES, LayerShape, layer_workload

__all__ = ["FAST", "GROUPS", "Case", "Published", "Row", "cases", "measure", "network_case"]

Int64Array = npt.NDArray[np.int64]

PEER_DENSITIES = ((1.0, 1.0), (0.5, 1.0), (0.5, 0.5), (0.25, 0.5), (0.1, 0.35))
GEMM_DENSITIES = (1.0, 0.5, 0.25, 0.1)
# Four banks drain while additions go on; runs are short where half or more is not zero; tokens of
# depthwise channels come one stream after another.
FAST: dict[str, Any] = {"accumulator_banks": 4, "run_bits": 2, "fifo_depth": 32}
SIGMA_MULTIPLIERS = 64
MEMORY_LATENCY = 32  # of the peers' memory
NARROW_PORT, WIDE_PORT = 64, 256
EIE_MULTIPLIERS = 64
MOST_DENSE = 1 << 26  # weights; VGG-6's, zeros included, would take some 25 GB to compile
SHORT_ROW = 4
LENETS = ("lenet-300-100", "lenet-5")


class Published(NamedTuple):
    """Cycles that others need for a workload, and on how many multipliers."""

    cycles: float
    multipliers: int

    @property
    def product(self) -> float:
        """Cycles times multipliers."""
        return self.cycles * self.multipliers


@dataclass(frozen=True, kw_only=True)
class Case:
    """One workload on one machine.

    Parameters
    ----------
    group, name
        The group of cases, and the workload.
    make
        Gives network and inputs.
    config
        The machine.
    resident
        Cycles for which the machine waits for weights are left out.
    knows_operands
        Lanes are balanced by how often each channel of this very input is not zero, as for a
        matrix product both of whose operands are at hand.
    latency
        Of the memory.
    published
        What others need, by their name.
    quick
        Part of the short selection.
    modes
        In which it is run.
    """

    group: str
    name: str
    make: Callable[[], tuple[CompressedNetwork, Int64Array]]
    config: Config
    resident: bool = True
    knows_operands: bool = False
    latency: int = 4
    published: Mapping[str, Published] = field(default_factory=dict)
    quick: bool = False
    modes: tuple[Skip, ...] = tuple(Skip)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a case gave.

    Parameters
    ----------
    cycles
        By mode.
    model
        What the cycle model predicts, by mode; empty if numba is missing.
    bound
        Cycles of the mode ``both`` that this mapping cannot beat: of each pass, the greatest of
        multiplications a multiplier, tokens a lane (one that several lanes read counts in each) and
        outputs of the widest column; without resident weights and with a memory, words at the port
        too.
    efficiency
        Multiplications of the mode ``both`` a multiplier and cycle.
    stalls
        Of the mode ``both``: element-cycles and lane-cycles by cause.
    """

    group: str
    name: str
    multipliers: int
    cycles: dict[str, int]
    model: dict[str, int]
    bound: int
    efficiency: float
    stalls: dict[str, int]
    published: dict[str, Published]
    sim_cycles_per_second: int

    @property
    def best(self) -> int:
        """Cycles of the best mode."""
        return min(self.cycles.values())

    @property
    def ratios(self) -> dict[str, float]:
        """Cycles times multipliers of others, over ours in the best mode."""
        ours = self.best * self.multipliers
        return {name: other.product / ours for name, other in self.published.items()}

    @property
    def losses(self) -> dict[str, float]:
        """Those ratios that are below 1, and that of the mode none to both, if it is."""
        ratios = self.ratios
        if {"none", "both"} <= self.cycles.keys():
            ratios["mode none"] = self.cycles["none"] / self.cycles["both"]
        return {name: ratio for name, ratio in ratios.items() if ratio < 1}

    @property
    def model_errors(self) -> dict[str, float]:
        """By how many per cent the model's cycles are more than those of RTL, by mode."""
        return {
            mode: round(100 * (predicted / self.cycles[mode] - 1), 2)
            for mode, predicted in self.model.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything that JSON holds."""
        published = {
            name: {**other._asdict(), "product": other.product}
            for name, other in self.published.items()
        }
        return {
            **asdict(self),
            "published": published,
            "product": self.best * self.multipliers,
            "ratios": self.ratios,
            "losses": self.losses,
            "model_errors": self.model_errors,
        }


def _layer(
    shape: LayerShape, weights: float, activations: float, seed: int
) -> Callable[[], tuple[CompressedNetwork, Int64Array]]:
    return partial(layer_workload, shape, weights, activations, seed=seed)


def _percent(weights: float, activations: float) -> str:
    return f"{weights * 100:g}/{activations * 100:g}"


def _peers(
    lanes: int, seed: int, densities: Sequence[tuple[float, float]], published: Mapping[str, Any]
) -> Iterator[Case]:
    resident = Config(lanes=lanes, port_bits=WIDE_PORT, **FAST)
    memory = Config(lanes=lanes, port_bits=NARROW_PORT, **FAST)
    arrays, whole = published.get("array_only", {}), published.get("whole_accelerator", {})
    sigma = published.get("sparse_array_only", {})
    for shape in PEER_SHAPES:
        for weights, activations in densities:
            name = f"{shape.name} {_percent(weights, activations)}"
            make = _layer(_laid(shape, weights * activations, lanes), weights, activations, seed)
            others = _at(arrays, shape.name)
            column = _percent(weights, activations)
            if column in sigma.get("columns", ()):
                at = sigma["columns"].index(column)
                others["stonne_sigma"] = Published(
                    sigma["stonne_sigma"][shape.name][at], SIGMA_MULTIPLIERS
                )
            yield Case(
                group="peers",
                name=name,
                make=make,
                config=resident,
                knows_operands=True,
                published=others,
                quick=weights in {1.0, 0.25},
            )
            if (weights, activations) in {(1.0, 1.0), (0.1, 0.35)}:
                yield Case(
                    group="memory",
                    name=name,
                    make=make,
                    config=memory,
                    resident=False,
                    latency=MEMORY_LATENCY,
                    published=_at(whole, shape.name),
                )


def _laid(shape: LayerShape, share: float, lanes: int) -> LayerShape:
    """Return a layer as it is run: a product in short rows, where additions outlast the drain."""
    long = share * shape.in_shape[0] >= lanes
    return shape.in_rows(SHORT_ROW) if shape.name == "gemm64" and long else shape


def _at(systems: Mapping[str, Any], shape: str) -> dict[str, Published]:
    """Return what each system needs for a shape; those without a figure are left out."""
    return {
        name: Published(system["cycles"][shape], system["multipliers"])
        for name, system in systems.items()
        if isinstance(system, Mapping) and system.get("cycles", {}).get(shape)
    }


def _gemm(lanes: int, seed: int) -> Iterator[Case]:
    for weights in GEMM_DENSITIES:
        for activations in GEMM_DENSITIES:
            yield Case(
                group="gemm",
                name=f"{GEMM_256.name} {_percent(weights, activations)}",
                make=_layer(GEMM_256, weights, activations, seed),
                config=Config(lanes=lanes, port_bits=WIDE_PORT, **FAST),
                quick=(weights, activations) in {(0.5, 0.5), (0.1, 0.25)},
            )


def _eie(lanes: int, seed: int) -> Iterator[Case]:
    config = Config(
        lanes=lanes,
        port_bits=WIDE_PORT,
        **FAST,
        tap_depth=1 << 17,
        group_depth=1 << 13,
        accumulator_depth=1 << 13,
        channel_depth=1 << 11,
    )
    for layer in EIE_LAYERS:
        dense = math.prod(layer.shape.weight_shape)
        yield Case(
            group="eie",
            name=layer.shape.name,
            make=_layer(layer.shape, layer.weights, layer.activations, seed),
            config=config,
            published={"eie": Published(layer.cycles, EIE_MULTIPLIERS)},
            quick=layer.shape.name == "NT-We",
            modes=tuple(Skip) if dense <= MOST_DENSE else (Skip.WEIGHTS, Skip.BOTH),
        )


def _lenets(lanes: int, seed: int) -> Iterator[Case]:
    def digits(name: str) -> tuple[CompressedNetwork, Int64Array]:
        images, _ = mnist_digits(f"mnist:{seed}")
        return resolve_network(name), images.astype(np.int64)

    for name in LENETS:
        yield Case(
            group="lenet",
            name=name,
            make=partial(digits, name),
            config=Config(lanes=lanes, port_bits=NARROW_PORT),
            resident=False,
            quick=True,
        )


GROUPS = ("peers", "memory", "gemm", "eie", "lenet", "mlperf", "squeezenet")


def network_case(
    group: str,
    network: CompressedNetwork,
    inputs: Int64Array,
    config: Config,
    *,
    published: Mapping[str, Published] | None = None,
    quick: bool = False,
) -> Case:
    """Return the case of a whole network whose weights are resident."""
    return Case(
        group=group,
        name=network.name,
        make=lambda: (network, inputs),
        config=config,
        published=published or {},
        quick=quick,
    )


def cases(
    lanes: int,
    *,
    seed: int = 1,
    densities: Sequence[tuple[float, float]] = PEER_DENSITIES,
    published: Mapping[str, Any] | None = None,
) -> list[Case]:
    """Return the cases that need no files, group by group.

    Parameters
    ----------
    lanes
        P of the machines.
    seed
        Of random patterns, and number of the digit.
    densities
        (weights, activations) of the peers' shapes.
    published
        Cycles of others on the peers' shapes, as ``peers.json`` has them.
    """
    made = [
        *_peers(lanes, seed, densities, published or {}),
        *_gemm(lanes, seed),
        *_eie(lanes, seed),
        *_lenets(lanes, seed),
    ]
    return sorted(made, key=lambda case: GROUPS.index(case.group))


def measure(case: Case, modes: Sequence[Skip]) -> Row:
    """Run a case in each mode.

    Raises
    ------
    ThresherError
        If a value or a counter is not golden's.
    """
    network, inputs = case.make()
    if case.knows_operands:
        network = with_densities(network, inputs, exact=True)
    cycles: dict[str, int] = {}
    model: dict[str, int] = {}
    kept: FinishedRun | None = None
    for mode in modes:
        program = compile_network(network, case.config, inputs, mode, streamed=not case.resident)
        finished = run_program(program, latency=case.latency)
        difference = finished.compare().first
        if difference is not None:
            raise ThresherError(f"{case.name}, mode {mode}: {difference}")
        waited = sum(counters["load_wait"] for counters in finished.counters)
        cycles[str(mode)] = finished.result.cycles - (waited if case.resident else 0)
        predicted = _predict(program, case)
        if predicted is not None:
            model[str(mode)] = predicted
        if mode is Skip.BOTH or kept is None:
            kept = finished
    assert kept is not None, "there is a mode"
    program, counted = kept.program, kept.counters
    macs = sum(counters["macs"] for counters in counted)
    return Row(
        group=case.group,
        name=case.name,
        multipliers=case.config.multipliers,
        cycles=cycles,
        model=model,
        bound=_bound(program, counted, case),
        efficiency=round(macs / case.config.multipliers / cycles[str(program.skip)], 4),
        stalls={cause: sum(counters[cause] for counters in counted) for cause in STALLS},
        published=dict(case.published),
        sim_cycles_per_second=round(kept.result.sim_cycles_per_second),
    )


def _predict(program: Program, case: Case) -> int | None:
    """Return the cycles that the model predicts, None without the extra ``model``."""
    if find_spec("numba") is None:
        return None
    predicted = predict_cycles(program, latency=case.latency)
    return predicted.cycles - (sum(predicted.load_wait) if case.resident else 0)


def _bound(program: Program, counted: Sequence[Mapping[str, int]], case: Case) -> int:
    lanes = case.config.lanes
    total = words = 0.0
    for part, counters in zip(program.passes, counted, strict=True):
        _, height, width = part.stage.out_shape
        widest = max(column.size for column in part.columns)
        outputs = height * width * widest * program.inputs
        total += max(
            counters["macs"] / case.config.multipliers, counters["tokens"] / lanes, outputs
        )
        words += counters["words_in"] + counters["words_out"]
    if case.resident:
        return round(total)
    words += program.weight_bytes * 8 / case.config.port_bits
    return round(max(total, words))
