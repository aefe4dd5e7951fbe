"""``thresher simulate``: run a network on the simulated machine and compare it with golden."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from thresher.scripts.classes import print_classes, top
from thresher.scripts.options import (
    Classes,
    JsonFile,
    Lanes,
    Multiplier,
    Preset,
    Settings,
    SimulatorName,
    SkipMode,
    check_json,
    make_config,
    plural,
    print_table,
    progress_bar,
    read_inputs,
    write_json,
)

__all__ = ["print_report", "simulate"]


def simulate(
    network: str,
    /,
    *,
    input: Annotated[str, Parameter(name=["--input", "-i"])] = "mnist:0-9",
    lanes: Lanes = 4,
    skip: SkipMode = "both",
    multiplier: Multiplier | None = None,
    simulator: SimulatorName | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    compare: bool = True,
    every_layer: bool | None = None,
    wave: Annotated[bool, Parameter(negative="")] = False,
    latency: int = 4,
    stall: int = 0,
    timeout: int | None = None,
    preset: Preset = None,
    settings: Settings = None,
    classes: Classes = None,
    json: JsonFile = None,
) -> int:
    """Run a network on the simulated hardware and compare it with golden.

    Parameters
    ----------
    network
        A .thr file, lenet-300-100 or lenet-5, or a model that needs no calibration.
    input
        A .npy or .npz file of integers (n, C, H, W), or of what an imported model takes, with
        :FIRST-LAST behind it for some of them; or built-in digits, as mnist:0-9. A network of one
        channel takes (n, H, W), too.
    lanes
        P; the array has P x P multipliers.
    skip
        Which multiplications by zero take no cycle.
    multiplier
        Kind of the multipliers; by default the network's own.
    simulator
        By default Verilator, or the environment's SIM.
    output
        Write outputs of every layer, counters, log and report to this directory; folders that are
        missing are made.
    compare
        Compare every value and counter with golden.
    every_layer
        Run again with every layer stored, also those that pooling is merged into. By default
        when comparing under Verilator.
    wave
        Write a waveform with a GTKWave save file; needs --output.
    latency
        Cycles from a read request to its response, 1 to 63.
    stall
        The memory refuses this many of 256 requests, at random.
    timeout
        Give up after this many cycles.
    """
    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.config import Skip  # noqa: PLC0415
    from thresher.golden.read.classes import classes_of, read_classes  # noqa: PLC0415
    from thresher.sim import run  # noqa: PLC0415  # heavy

    check_json(json)
    net = resolve_network(network)
    names = classes_of(net) if classes is None else read_classes(classes, net)
    inputs, labels = read_inputs(input, net)
    config = make_config(lanes, multiplier or str(net.multiplier), settings, preset)
    with progress_bar(4) as progress:
        done = run.simulate(
            net,
            inputs,
            config,
            Skip(skip),
            simulator=simulator,
            run_dir=output,
            check=compare,
            every_layer=every_layer,
            timeout_cycles=timeout,
            latency=latency,
            stall=stall,
            wave=wave,
            progress=progress,
        )
    report = done.report
    report["top"] = [top(net, values, names) for values in done.outputs[net.output]]
    if labels is not None:
        report["labels"] = labels.tolist()
    if output is not None:
        write_json(output / "report.json", report)
    write_json(json, report)
    if str(json) != "-":
        print_report(report, names)
        if output is not None:
            print(f"written to {output}")
    return 0 if done.comparison is None or done.comparison.equal else 1


def print_report(report: dict[str, Any], names: list[str] | None = None) -> None:
    """Print the figures of a run, and what it says by names of classes, if they are known."""
    print(
        f"{report['network']} on {report['lanes']} x {report['lanes']} {report['multiplier']}"
        f" multipliers, skip {report['skip']}, {plural(report['inputs'], 'input')}"
    )
    rows = [
        (
            layer["name"],
            f"{layer['cycles']:,}",
            f"{layer['macs']:,}",
            *(f"{layer['stalls'][cause]:,}" for cause in layer["stalls"]),
        )
        for layer in report["layers"]
    ]
    causes = [cause.replace("_", " ") for cause in report["layers"][0]["stalls"]]
    print_table("", ["layer", "cycles", "macs", *causes], rows)
    print("  stalls are sums over elements or lanes; load wait is not in a layer's cycles")
    sizes = report["bytes"]
    print(
        f"\n{report['cycles']:,} cycles, {report['cycles_load']:,} of them loading;"
        f" {report['cycles_per_input']:,} an input; efficiency {report['efficiency']:.3f}"
    )
    print(
        f"weights {sizes['weights_dense']:,} -> {sizes['weights_coded']:,} bytes,"
        f" activations {sizes['activations_dense']:,} -> {sizes['activations_coded']:,} bytes"
    )
    if names is None:
        print(f"predictions {' '.join(str(item) for item in report['predictions'])}")
    else:
        print_classes(report["top"], names, report.get("labels"))
    if report["values_compared"]:
        print(
            f"{report['values_compared']:,} values compared, {report['values_different']} differ;"
            f" {report['counters_compared']} counters, {report['counters_different']} differ"
        )
    if report["first_difference"]:
        print(f"first difference: {report['first_difference']}")
