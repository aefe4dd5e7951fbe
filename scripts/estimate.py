"""``thresher estimate``: predict the cycles of a network without simulating its hardware."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from thresher.scripts.options import (
    JsonFile,
    Lanes,
    Multiplier,
    Settings,
    SkipMode,
    check_json,
    make_config,
    print_table,
    read_inputs,
    write_json,
)

if TYPE_CHECKING:
    from thresher.golden.config import Config, Skip

__all__ = ["estimate"]


def estimate(
    network: str | None = None,
    /,
    *,
    shapes: Literal["resnet-50", "vgg-16", "mobilenet-v2"] | None = None,
    densities: str = "0.3,0.5",
    input: Annotated[str, Parameter(name=["--input", "-i"])] = "mnist:0-9",
    lanes: Lanes = 4,
    skip: SkipMode = "both",
    multiplier: Multiplier | None = None,
    latency: int = 4,
    settings: Settings = None,
    json: JsonFile = None,
) -> int:
    """Predict the cycles of each layer by a model of the machine's queues.

    Parameters
    ----------
    network
        A .thr file, or lenet-300-100 or lenet-5, with --input. Or else --shapes.
    shapes
        A well-known network without data: its layers in random patterns of stated densities.
    densities
        Shares of weights and of activations that are not zero, with --shapes.
    input
        A .npy file of integers (n, C, H, W), or built-in digits, as mnist:0-9.
    lanes
        P; the array has P x P multipliers.
    skip
        Which multiplications by zero take no cycle.
    multiplier
        Kind of the multipliers; by default the network's own.
    latency
        Cycles from a read request to its response.
    """
    from thresher.golden.config import Skip  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    check_json(json)
    if (network is None) == (shapes is None):
        raise ThresherError("give a network or --shapes, one of them")
    if latency < 1:
        raise ThresherError(f"latency must be at least 1, not {latency}")
    config = make_config(lanes, multiplier or "exact", settings)
    if shapes is not None:
        figures = _of_shapes(shapes, densities, config, Skip(skip), latency)
    else:
        figures = _of_network(str(network), input, lanes, multiplier, settings, Skip(skip), latency)
    write_json(json, figures)
    if str(json) != "-":
        _print(figures)
    return 0


def _of_shapes(
    shapes: str, densities: str, config: Config, skip: Skip, latency: int
) -> dict[str, Any]:
    from thresher.golden.cycles.estimate import estimate as predict  # noqa: PLC0415
    from thresher.golden.cycles.shapes import SHAPES  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    try:
        weights, activations = (float(part) for part in densities.split(","))
    except ValueError:
        weights = activations = -1.0
    if not (0 < weights <= 1 and 0 < activations <= 1):
        raise ThresherError(
            f"--densities {densities}: give two shares in 0..1, of weights and activations, 0.3,0.5"
        )
    found = predict(
        SHAPES[shapes](), config, skip, weights=weights, activations=activations, latency=latency
    )
    return {
        "network": shapes,
        "lanes": config.lanes,
        "skip": str(skip),
        "densities": [weights, activations],
        "inputs": 1,
        "cycles": found.cycles,
        "layers": [asdict(layer) for layer in found.layers],
    }


def _of_network(  # noqa: PLR0917
    name: str,
    spec: str,
    lanes: int,
    multiplier: str | None,
    settings: list[str] | None,
    skip: Skip,
    latency: int,
) -> dict[str, Any]:
    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.compiler import compile_network  # noqa: PLC0415
    from thresher.golden.cycles.program import predict_cycles  # noqa: PLC0415

    net = resolve_network(name)
    inputs, _ = read_inputs(spec, net)
    config = make_config(lanes, multiplier or str(net.multiplier), settings)
    program = compile_network(net, config, inputs, skip)
    found = predict_cycles(program, latency=latency)
    layers: dict[str, dict[str, Any]] = {}
    for part, run, wait in zip(program.passes, found.passes, found.load_wait, strict=True):
        empty = {"passes": 0, "cycles": 0, "load_wait": 0, "macs": 0}
        layer = layers.setdefault(part.stage.name, {"name": part.stage.name, **empty, "bounds": {}})
        layer["passes"] += 1
        layer["cycles"] += run.cycles
        layer["load_wait"] += wait
        layer["macs"] += run.walking
        for bound, value in run.bounds.items():
            layer["bounds"][bound] = layer["bounds"].get(bound, 0) + value
    return {
        "network": net.name,
        "lanes": lanes,
        "skip": str(skip),
        "inputs": program.inputs,
        "cycles": found.cycles,
        "layers": list(layers.values()),
    }


def _print(figures: dict[str, Any]) -> None:
    multipliers = figures["lanes"] ** 2
    rows = []
    for layer in figures["layers"]:
        spent = layer["cycles"] + layer["load_wait"]
        bound = max(layer["bounds"], key=lambda name: layer["bounds"][name])
        rows.append(
            (
                layer["name"],
                layer["passes"],
                f"{layer['cycles']:,}",
                f"{layer['load_wait']:,}",
                f"{layer['macs']:,}",
                f"{layer['macs'] / multipliers / max(1, spent):.0%}",
                f"{bound} {layer['bounds'][bound]:,}",
            )
        )
    title = (
        f"{figures['network']} on {figures['lanes']} x {figures['lanes']}, skip {figures['skip']}"
    )
    header = ["layer", "passes", "cycles", "load wait", "macs", "busy", "bound by"]
    print_table(f"{title}, predicted", header, rows)
    total = sum(layer["macs"] for layer in figures["layers"])
    busy = total / multipliers / figures["cycles"]
    print(f"\n{figures['cycles']:,} cycles for {figures['inputs']} inputs; {busy:.0%} busy")
