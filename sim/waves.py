"""Save files for GTKWave that show the signals of a machine grouped by part."""

from __future__ import annotations

import re
from pathlib import Path

from vcd.gtkw import GTKWSave

from thresher.hw.verilog import split_modules

__all__ = ["write_save_file"]

DEPTH = 2  # parts inside the machine, and parts inside those

_INSTANCE = re.compile(r"(?m)^  (\\\S+|\w+) (\\\S+|\w+) \($")
_PORT = re.compile(r"(?m)^  (?:input|output) (?:\[(\d+):0\] )?(\w+);$")
_STATE = re.compile(r"(?m)^  reg (?:\[(\d+):0\] )?(?!_\d+_)(\w+)(?: = [^;]+)?;$")  # not Yosys' _1_


def write_save_file(wave: Path, verilog: str, top: str, root: str) -> Path:
    """Write ``wave`` with suffix ``.gtkw``: a group for each part, its ports and its registers.

    Parameters
    ----------
    wave
        The waveform that the file names.
    verilog
        Text of the machine, from which the parts and their signals are read.
    top
        Name of the machine's module.
    root
        Path of the machine in the waveform.
    """
    modules = split_modules(verilog)
    target = wave.with_suffix(".gtkw")
    with target.open("w") as file:
        save = GTKWSave(file)
        save.dumpfile(str(wave.resolve()))
        save.treeopen(f"{root}.")
        save.signals_width(260)
        _write_group(save, modules, top, root, DEPTH)
    return target


def _write_group(
    save: GTKWSave, modules: dict[str, str], module: str, path: str, depth: int
) -> None:
    text = modules[module]
    names = dict.fromkeys((match[2], match[1]) for match in _PORT.finditer(text))
    names |= dict.fromkeys((match[2], match[1]) for match in _STATE.finditer(text))
    with save.group(path.rpartition(".")[2], closed=path.count(".") > 1):
        for name, high in names:
            save.trace(f"{path}.{name}" + (f"[{high}:0]" if high else ""), datafmt="hex")
        if depth:
            for match in _INSTANCE.finditer(text):
                inner, instance = match[1].removeprefix("\\"), match[2].removeprefix("\\")
                if inner in modules:
                    _write_group(save, modules, inner, f"{path}.{instance}", depth - 1)
