"""Write a machine as Verilog, with a description that other tools can read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape, Signal, Value
from amaranth.lib import data, wiring

from thresher.golden.config import Config
from thresher.golden.descriptors import (
    COUNTERS,
    LOAD,
    LOAD_LANE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    ErrorCode,
    Kind,
    Pool,
    Rounding,
)
from thresher.golden.errors import ThresherError
from thresher.hw.accelerator import Accelerator
from thresher.hw.verilog import split_modules, to_verilog

__all__ = ["describe", "generate", "lint"]

TOP = "thresher"
WAIVERS = Path(__file__).with_name("lint.vlt")


def generate(
    config: Config, directory: Path, *, split: bool = False, verilator: Path | None = None
) -> list[Path]:
    """Write the Verilog of a machine, its description, and the lint waivers to ``directory``.

    Parameters
    ----------
    split
        A file for each module, listed in ``thresher.f``, instead of one.
    verilator
        The native Verilator program, with which the Verilog is linted before it is written.

    Returns
    -------
    files
        What was written.

    Raises
    ------
    ThresherError
        If the lint finds anything, or the directory cannot be written. Then nothing is.
    """
    machine = Accelerator(config)
    text = to_verilog(machine, TOP)
    files = {"thresher.v": text}
    if split:
        files = {f"{_file_name(name)}.v": part for name, part in split_modules(text).items()}
        files["thresher.f"] = "".join(f"{name}\n" for name in files)
    sources = [name for name in files if name.endswith(".v")]
    files["thresher.json"] = json.dumps(describe(config, machine), indent=2) + "\n"
    files["thresher.vlt"] = WAIVERS.read_text()
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        for name, content in files.items():
            Path(folder, name).write_text(content)
        if verilator is not None:
            lint([Path(folder, name) for name in sources], verilator)
        try:
            _deliver(Path(folder), directory, list(files))
        except OSError as error:
            raise ThresherError(
                f"{directory} cannot be written ({error.strerror}): give another folder (-o)"
            ) from error
    return [directory / name for name in files]


def _deliver(source: Path, directory: Path, names: list[str]) -> None:
    """Copy files, all or none; those of an earlier machine that this one has not are removed."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = {name: directory / f".{name}.{os.getpid()}.part" for name in names}
    try:
        for name, part in parts.items():
            shutil.copy(source / name, part)
        listing = directory / "thresher.f"
        earlier = listing.read_text().split() if listing.is_file() else []
        for name in {*earlier, "thresher.v", "thresher.f"} - set(names):
            if Path(name).name == name and Path(name).suffix in {".v", ".f"}:
                (directory / name).unlink(missing_ok=True)
        for name, part in parts.items():
            part.replace(directory / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def lint(sources: list[Path], verilator: Path) -> None:
    """Raise if ``verilator --lint-only -Wall`` finds anything that is not waived."""
    done = subprocess.run(
        [str(verilator), "--lint-only", "-Wall", "--top-module", TOP, str(WAIVERS)]
        + [str(source) for source in sources],
        env={**os.environ, "VERILATOR_ROOT": str(verilator.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("%")]
        first = lines[0] if lines else "Verilator gave no reason"
        raise ThresherError(f"the generated Verilog is not clean ({len(lines)}): {first}")


def describe(config: Config, machine: wiring.Component | None = None) -> dict[str, Any]:
    """Return every port, parameter and descriptor field of a machine."""
    machine = machine or Accelerator(config)
    machine._MustUse__silence = True  # Amaranth's warning: it may be described and not elaborated
    records = (LOAD, LOAD_LANE, RUN, RUN_LANE, RUN_SEGMENT)
    return {
        "module": TOP,
        "clock": "clk",
        "reset": {"port": "rst", "active": "high", "synchronous": True},
        "ports": _ports(machine),
        "parameters": {
            name: {"value": str(value) if isinstance(value, str) else value, "what": what}
            for (name, value), what in zip(
                asdict(config).items(), _parameter_texts(config), strict=True
            )
        },
        "derived": {
            "multipliers": config.multipliers,
            "weight_code_bits": config.weight_code_bits,
            "run_symbols": config.run_symbols,
            "word": asdict(config.rlc),
        },
        "descriptors": {
            record.name: [
                [
                    {
                        "name": field.name,
                        "offset": sum(before.bits for before in word[:place]),
                        "bits": field.bits,
                        "signed": field.signed,
                        "what": field.what,
                    }
                    for place, field in enumerate(word)
                ]
                for word in record.words
            ]
            for record in records
        },
        "counters": [{"name": name, "what": what} for name, what in COUNTERS],
        "enumerations": {
            kind.__name__: {item.name: item.value for item in kind}
            for kind in (Kind, Rounding, Pool, ErrorCode)
        },
    }


def _ports(machine: wiring.Component) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = [
        {"name": name, "direction": "in", "bits": 1, "signed": False} for name in ("clk", "rst")
    ]
    for path, member, value in machine.signature.flatten(machine):
        shape = Shape.cast(member.shape)
        assert isinstance(value, Signal | Value | data.View)
        port: dict[str, Any] = {
            "name": "__".join(str(part) for part in path),
            "direction": "in" if member.flow is wiring.In else "out",
            "bits": shape.width,
            "signed": shape.signed,
        }
        if isinstance(member.shape, data.StructLayout):
            port["fields"] = [
                {"name": name, "offset": field.offset, "bits": field.width}
                for name, field in member.shape
            ]
        ports.append(port)
    return ports


def _parameter_texts(config: Config) -> list[str]:
    """What each parameter means, as the docstring of Config says it."""
    texts: dict[str, str] = {}
    names: list[str] = []
    docstring = (type(config).__doc__ or "").partition("Raises")[0]
    for line in docstring.splitlines():
        if re.fullmatch(r"    [a-z_, ]+", line) and not line.startswith("     "):
            names = [name.strip() for name in line.split(",")]
        elif line.startswith("        "):
            for name in names:
                texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return [texts.get(name, "") for name in asdict(config)]


def _file_name(module: str) -> str:
    return re.sub(r"[^\w.]", "_", module)
