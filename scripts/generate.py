"""``thresher generate``: write the Verilog of a machine."""

from __future__ import annotations

from json import loads as parse_json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from thresher.scripts.options import (
    JsonFile,
    Lanes,
    Multiplier,
    Preset,
    Settings,
    check_json,
    make_config,
    progress_bar,
    write_json,
)

__all__ = ["generate"]


def generate(
    network: str | None = None,
    /,
    *,
    lanes: Lanes = 4,
    multiplier: Multiplier | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    split: Annotated[bool, Parameter(negative="")] = False,
    lint: bool = True,
    preset: Preset = None,
    settings: Settings = None,
    json: JsonFile = None,
) -> int:
    """Write the Verilog of a machine, and a JSON description of its ports and descriptors.

    Parameters
    ----------
    network
        Check that this network fits the machine, and take its multiplier.
    lanes
        P; the array has P x P multipliers.
    multiplier
        Kind of the multipliers; by default the network's own, or exact.
    output
        Directory to write to.
    split
        A file for each module instead of one for all.
    lint
        Check the Verilog with `verilator --lint-only -Wall`; the waivers are written beside it.
    """
    import numpy as np  # noqa: PLC0415

    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.compiler import compile_network  # noqa: PLC0415
    from thresher.hw import generate as generating  # noqa: PLC0415  # heavy
    from thresher.sim.builds import verilator_program  # noqa: PLC0415

    check_json(json)
    net = None if network is None else resolve_network(network)
    config = make_config(
        lanes, multiplier or str(net.multiplier if net else "exact"), settings, preset
    )
    with progress_bar(2) as progress:
        if net is not None:
            progress("lay out the network")
            zero = np.clip(0, *net.input_range)
            compile_network(net, config, np.full((1, *net.input_shape), zero, np.int64))
        progress("generate the machine")
        verilator = verilator_program() if lint else None
        files = generating.generate(config, output, split=split, verilator=verilator)
    write_json(json, parse_json((output / "thresher.json").read_text()))
    if str(json) != "-":
        for path in files:
            print(f"{path}  {path.stat().st_size:,} bytes")
        if lint:
            print("clean under verilator --lint-only -Wall with the waivers of thresher.vlt")
    return 0
