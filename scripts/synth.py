"""``thresher synth``: area and clock of a machine on an ECP5-85F."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from thresher.scripts.options import (
    JsonFile,
    Lanes,
    Preset,
    Settings,
    check_json,
    make_config,
    plural,
    print_table,
    progress_bar,
    read_inputs,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thresher.golden.config import Config
    from thresher.hw.synthesis import Cells, Placement, Synthesis

__all__ = ["synth"]

KINDS = ("exact", "shift", "shift1", "lut")
COUNTS = ("lut", "lut4", "carry", "ram", "ff", "ebr", "dsp")
HEADER = ["lut", "lut4", "carry", "ram16", "ff", "ebr", "dsp"]


def synth(
    *,
    lanes: Lanes = 4,
    multiplier: Literal["exact", "shift", "shift1", "lut", "all"] = "exact",
    part: str | None = None,
    place: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 1,
    seeds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    frequency: float = 100.0,
    delay: float = 6.0,
    path: Annotated[bool, Parameter(negative="")] = False,
    network: Annotated[list[str] | None, Parameter(negative="")] = None,
    inputs: Annotated[list[str] | None, Parameter(negative="")] = None,
    preset: Preset = None,
    settings: Settings = None,
    json: JsonFile = None,
) -> int:
    """Show what a machine takes of an ECP5-85F, part by part, and how fast its clock can be.

    Parameters
    ----------
    lanes
        P; the array has P x P multipliers.
    multiplier
        Kind of the multipliers; with `all` one table of a processing element with each kind, and
        how well a network does with it.
    part
        Only this part, e.g. pe, weight_loader, pooler.
    place
        Place and route too (speed grade 6, no pins), for the frequency; takes minutes.
    seed
        Of the placer.
    seeds
        Place with as many seeds, from `seed` on, one after another: the frequency of each is
        printed, and all else is of the best one.
    frequency
        MHz that the placer aims at.
    delay
        ns of logic, without routing, below which LUTs are saved rather than levels of them; with 4
        some per cent more LUTs and a faster clock.
    path
        Print the critical path.
    network
        With `all`: a network to try each kind on; repeatable. Without it LeNet-5.
    inputs
        With `all`: the inputs of each network in turn, a .npz file with arrays x and y, the right
        answers, or one of x alone, or built-in digits.
    """
    tasks = _tasks(network, inputs)
    check_json(json)
    placing = _Placing(range(seed, seed + seeds), frequency) if place else None
    with progress_bar(8 if multiplier == "all" else 2) as progress:
        if multiplier == "all":
            configs = {kind: make_config(lanes, kind, settings, preset) for kind in KINDS}
            figures = _compare(configs, placing, tasks, progress, delay)
        else:
            figures = _one(
                make_config(lanes, multiplier, settings, preset), part, placing, progress, delay
            )
    write_json(json, figures)
    if str(json) != "-":
        if multiplier == "all":
            _print_comparison(figures)
        else:
            _print_one(figures, path)
    return 0


def _tasks(networks: list[str] | None, inputs: list[str] | None) -> list[tuple[str, str]]:
    """Pair each network with its inputs."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    networks, inputs = networks or ["lenet-5"], inputs or ["mnist"]
    if len(networks) != len(inputs):
        raise ThresherError(
            f"{plural(len(networks), 'network')} and inputs of {len(inputs)}: give one --inputs"
            " for each --network, in the same order"
        )
    return list(zip(networks, inputs, strict=True))


@dataclass(frozen=True)
class _Placing:
    """How to place: the seeds to try, and the MHz to aim at."""

    seeds: range
    frequency: float


def _one(
    config: Config, part: str | None, placing: _Placing | None, progress: Any, delay: float
) -> dict[str, Any]:
    """Figures of a machine or a part of it."""
    from thresher.hw import synthesis  # noqa: PLC0415  # heavy
    from thresher.sim.builds import cache_folder  # noqa: PLC0415

    if placing is not None:
        synthesis.check_place_and_route()  # before the minutes of synthesis
    what = f"{part or 'machine'}, {config.multiplier}"
    progress(f"synthesise ({what})")
    mapped = synthesis.synthesise(config, cache_folder(), part, delay=delay)
    placed = []
    if placing is not None:
        progress(f"place and route ({what})")
        placed = [
            synthesis.place_and_route(mapped, cache_folder(), seed=seed, target=placing.frequency)
            for seed in placing.seeds
        ]
    return _figures(config, part, mapped, placed)


def _figures(
    config: Config, part: str | None, mapped: Synthesis, placed: Sequence[Placement]
) -> dict[str, Any]:
    from thresher.hw.synthesis import DEVICE  # noqa: PLC0415

    figures: dict[str, Any] = {
        "device": "ECP5-85F",
        "config": {
            name: str(v) if name == "multiplier" else v for name, v in asdict(config).items()
        },
        "part": part,
        "total": mapped.total.figures(),
        "available": DEVICE,
        "beyond": mapped.total.beyond(),
        "parts": [
            {"name": kind.name, "instances": kind.instances, **kind.cells.figures()}
            for kind in mapped.parts
        ],
        "synthesis_seconds": round(mapped.seconds, 1),
    }
    elements = sum(kind.instances for kind in mapped.parts if kind.name == "pe")
    if elements:
        figures["lut_per_pe_of_all"] = round(mapped.total.lut / elements, 1)
    if placed:
        best = max(placed, key=lambda placement: placement.fmax)
        figures["placement"] = asdict(best) | {
            "speed_grade": 6,
            "seeds": [{"seed": one.seed, "fmax": one.fmax} for one in placed],
        }
    return figures


def _print_one(figures: dict[str, Any], path: bool) -> None:
    config = figures["config"]
    what = figures["part"] or f"machine of {config['lanes']} x {config['lanes']}"
    rows = [
        (kind["name"], kind["instances"], *(f"{kind[name]:,}" for name in COUNTS))
        for kind in sorted(figures["parts"], key=lambda kind: -kind["lut"] * kind["instances"])
    ]
    rows.append(("all", "", *(f"{figures['total'][name]:,}" for name in COUNTS)))
    print_table(
        f"{what}, {config['multiplier']} multiplier, on an ECP5-85F; cells of one part",
        ["part", "number", *HEADER],
        rows,
    )
    print("  lut = lut4 + 2 carry + 4 ram16; a part is counted without the parts in it")
    available = figures["available"]
    print(
        "  "
        + ", ".join(
            f"{name} {figures['total'][name]:,} of {most:,} ({figures['total'][name] / most:.0%})"
            for name, most in available.items()
        )
    )
    if figures["beyond"]:
        print(f"  does not fit: {', '.join(figures['beyond'])}")
    if placed := figures.get("placement"):
        print(
            f"  {placed['fmax']:.1f} MHz (nextpnr-ecp5, speed grade 6, seed {placed['seed']},"
            f" asked for {placed['target']:.0f} MHz)"
        )
        if len(placed["seeds"]) > 1:
            tried = (f"{one['fmax']:.1f} MHz with {one['seed']}" for one in placed["seeds"])
            print(f"  the best of {len(placed['seeds'])} seeds: {', '.join(tried)}")
        if path:
            print("  critical path:")
            for line in placed["path"]:
                print(f"    {line}")


def _compare(
    configs: dict[str, Config],
    placing: _Placing | None,
    tasks: Sequence[tuple[str, str]],
    progress: Any,
    delay: float,
) -> dict[str, Any]:
    """A processing element with each kind of multiplier, and networks as each answers them."""
    answers = _answers(configs, tasks)
    rows = []
    for kind, config in configs.items():
        figures = _one(config, "pe", placing, progress, delay)
        row: dict[str, Any] = {
            "multiplier": kind,
            "alone": _multiplier_cells(config).figures(),
            "pe": figures["total"],
            "fmax": figures["placement"]["fmax"] if placing else None,
            "networks": [network["kinds"][kind] for network in answers],
        }
        rows.append(row)
    return {
        "device": "ECP5-85F",
        "lanes": next(iter(configs.values())).lanes,
        "networks": [{"name": net["name"], "inputs": net["inputs"]} for net in answers],
        "seeds": list(placing.seeds) if placing else None,
        "multipliers": rows,
    }


def _answers(configs: dict[str, Config], tasks: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Of each network, how often each kind of multiplier is right, and agrees with `exact`."""
    import numpy as np  # noqa: PLC0415

    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.inference import infer  # noqa: PLC0415

    read = [(net := resolve_network(name), *read_inputs(inputs, net)) for name, inputs in tasks]
    found = []
    for net, maps, labels in read:
        kinds: dict[str, Any] = {}
        exact = None
        for kind, config in configs.items():
            kept = infer(net, maps, config.multiplier, keep=[net.output], counts=False)
            chosen = kept.outputs[net.output].reshape(len(maps), -1).argmax(axis=1)
            exact = chosen if exact is None else exact
            kinds[kind] = {
                "same_as_exact": float(np.mean(chosen == exact)),
                "accuracy": None if labels is None else float(np.mean(chosen == labels)),
            }
        found.append({"name": net.name, "inputs": len(maps), "kinds": kinds})
    return found


def _multiplier_cells(config: Config) -> Cells:
    from thresher.hw.array.multipliers import make_multiplier  # noqa: PLC0415
    from thresher.hw.synthesis import map_component  # noqa: PLC0415
    from thresher.sim.builds import cache_folder  # noqa: PLC0415

    return map_component(make_multiplier(config), "multiplier", cache_folder()).total


def _print_comparison(figures: dict[str, Any]) -> None:
    rows = []
    for row in figures["multipliers"]:
        alone, element = row["alone"], row["pe"]
        answers = [
            text
            for net in row["networks"]
            for text in (
                "-" if net["accuracy"] is None else f"{net['accuracy']:.2%}",
                f"{net['same_as_exact']:.2%}",
            )
        ]
        rows.append(
            (
                row["multiplier"],
                alone["lut"],
                alone["dsp"],
                *(element[name] for name in ("lut", "ff", "ebr", "dsp")),
                "-" if row["fmax"] is None else f"{row['fmax']:.1f}",
                *answers,
            )
        )
    networks = figures["networks"]
    named = ", ".join(f"{net['name']} on {plural(net['inputs'], 'input')}" for net in networks)
    print_table(
        f"multipliers on an ECP5-85F; {named}",
        ["multiplier", "lut", "dsp", "PE lut", "ff", "ebr", "dsp", "MHz"]
        + [text for net in networks for text in (net["name"], "as exact")],
        rows,
    )
    print(
        "  lut, dsp: of the multiplier alone; MHz: of the element;"
        " network: right answers; as exact: same answers"
    )
