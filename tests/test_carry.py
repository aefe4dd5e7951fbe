"""Folding LUTs into carry cells: proved equal by Yosys' models of the cells, and smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from thresher.hw.carry import fold

SUMS = """
module before(input [7:0] a, b, c, d, input s, t, u, output [7:0] v, w, x, y, output less);
  assign v = a + (s ? b : c);
  assign w = (t ? a : b) - (c & {8{u}});
  assign x = (s ? a : d) + (t ? b ^ c : 8'd3) + u;
  assign y = d - (t ? c : (b | a));
  assign less = (a & {8{s}}) < (t ? b : d);
endmodule
"""
CELLS = """
module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 0;
  assign Z = INIT[{D, C, B, A}];
endmodule
module LUT2(input A, B, output Z); parameter [3:0] INIT = 0; assign Z = INIT[{B, A}]; endmodule
module PFUMX(input ALUT, BLUT, C0, output Z); assign Z = C0 ? ALUT : BLUT; endmodule
module L6MUX21(input D0, D1, SD, output Z); assign Z = SD ? D1 : D0; endmodule
"""
RUN = """
import os
from pyosys import libyosys
for command in open("commands").read().splitlines():
    libyosys.run_pass("tee -q " + command)
os._exit(0)
"""


def yosys(folder: Path, *commands: str) -> bool:
    """Run commands in ``folder``; return whether all of them succeeded."""
    (folder / "commands").write_text("\n".join(commands))
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, capture_output=True, check=False, timeout=300
    )
    return done.returncode == 0


def mapped(folder: Path) -> Any:
    """Return the sums of :data:`SUMS` in cells of an ECP5."""
    pytest.importorskip("pyosys")
    (folder / "sums.v").write_text(SUMS)
    assert yosys(folder, "read_verilog sums.v", "synth_ecp5 -top before", "write_json mapped.json")
    module = json.loads((folder / "mapped.json").read_text())["modules"]["before"]
    module["attributes"] = {}
    return module


def luts(module: Any) -> int:
    return sum(cell["type"] == "LUT4" for cell in module["cells"].values())


def equal(folder: Path, before: Any, after: Any) -> bool:
    """Return whether Yosys proves that two modules compute the same."""
    (folder / "cells.v").write_text(CELLS)
    for name, module in (("before", before), ("after", after)):
        (folder / f"{name}.json").write_text(json.dumps({"modules": {name: module}}))
    return yosys(
        folder,
        "read_verilog cells.v",
        "read_verilog +/lattice/ccu2c_sim.vh",
        "read_json before.json",
        "read_json after.json",
        "miter -equiv -make_assert before after miter",
        "hierarchy -top miter",
        "proc",
        "flatten",
        "sat -verify -prove-asserts miter",
    )


def test_folded_sums_are_proved_to_be_the_same(tmp_path: Path) -> None:
    before = mapped(tmp_path)
    after = json.loads(json.dumps(before))
    folded = fold({"modules": {"after": after}})
    assert folded >= 24
    assert luts(after) == luts(before) - folded
    assert equal(tmp_path, before, after)
    carry = next(
        cell
        for cell in after["cells"].values()
        if cell["connections"].get("S0") == after["ports"]["v"]["bits"][:1]
    )
    carry["parameters"]["INIT0"] = carry["parameters"]["INIT0"].translate({48: "1", 49: "0"})
    assert not equal(tmp_path, before, after)  # the proof finds what is wrong


def test_a_lut_with_another_use_stays(tmp_path: Path) -> None:
    module = mapped(tmp_path)
    shown = [
        cell["connections"]["Z"][0] for cell in module["cells"].values() if cell["type"] == "LUT4"
    ]
    module["ports"]["shown"] = {"direction": "output", "bits": shown}
    assert fold({"modules": {"all": module}}) == 0
