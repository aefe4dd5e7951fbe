"""The command line: what it prints, its exit codes, and one line for every error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thresher.golden.builtin import resolve_network
from thresher.golden.config import Config
from thresher.golden.random_network import random_inputs, random_network
from thresher.golden.thr_file import save
from thresher.hw.generate import describe, lint
from thresher.scripts.main import VERBS
from thresher.scripts.options import read_inputs
from thresher.sim.builds import verilator_program
from thresher.sim.compare import compare_counters, compare_values


def thresher(
    *arguments: str | Path, path: str | None = None, cache: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = path
    if cache is not None:
        environment["THRESHER_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", "thresher.scripts.main", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def fails(*arguments: str | Path, path: str | None = None, cache: Path | None = None) -> str:
    """Run a command that must fail, and return its one line."""
    done = thresher(*arguments, path=path, cache=cache)
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("thresher: error: ")
    return lines[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network and inputs for it."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(11)
    network = random_network(rng, layers=2, channels=3, size=6, kinds=("convolution", "max"))
    save(network, folder / "net.thr")
    np.save(folder / "x.npy", random_inputs(rng, network, 2))
    return folder


@pytest.fixture(scope="module")
def a_run(small: Path) -> Path:
    """A finished run of the small network."""
    done = thresher(
        *("simulate", small / "net.thr", "-i", small / "x.npy", "--lanes", "1"),
        *("-o", small / "new" / "run", "--json", small / "report.json"),
    )
    assert done.returncode == 0, done
    assert "0 differ" in done.stdout
    return small / "new" / "run"


def test_help_comes_at_once() -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        done = thresher("--help")
        times.append(time.monotonic() - started)
        assert done.returncode == 0
    assert "simulate" in done.stdout
    assert min(times) < 3  # 0.2 s on an idle machine


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_every_verb_has_help_and_json(verb: Callable[..., int]) -> None:
    done = thresher(verb.__name__.rstrip("_"), "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert all(line in done.stdout for line in VERBS[verb])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frobnicate"], "frobnicate"),
        (["simulate"], "NETWORK"),
        (["simulate", "no.thr"], "no.thr: there is no such file or built-in network"),
        (["simulate", "lenet-5", "--lanes", "3"], 'Invalid value "3" for --lanes'),
        (["simulate", "lenet-5", "--skip", "all"], 'Invalid value "all" for --skip'),
        (["simulate", "lenet-5", "--input", "mnist:999"], "digits must be in 0..199"),
        (["simulate", "lenet-5", "--input", "no.npy"], "no.npy: there is no such file"),
        (["simulate", "lenet-5", "--set", "depth=3"], "--set depth=3: give NAME=VALUE, NAME one"),
        (["simulate", "lenet-5", "--set", "run_bits=99"], "run_bits must be in 1..16, not 99"),
        (["simulate", "lenet-5", "--wave"], "a waveform needs a place"),
        (["simulate", "lenet-5", "-o", "/proc/no/run"], "/proc/no/run cannot be written"),
        (["simulate", "lenet-5", "--timeout", "0"], "timeout must be at least 1 cycle, not 0"),
        (["simulate", "lenet-5", "--simulator", "vcs"], 'Invalid value "vcs" for --simulator'),
        (["simulate", "lenet-5", "--multiplier", "no"], 'Invalid value "no" for --multiplier'),
        (["inspect", "lenet-5", "--json", "/proc/no/x"], "--json /proc/no/x cannot be written"),
        (["compare", "/no/such/run"], "/no/such/run is no run directory"),
        (["compress", "no.npz"], "there is no file no.npz"),
        (["inspect", "no.thr"], "no.thr: there is no such file"),
    ],
)
def test_bad_use_is_one_line_and_two(arguments: list[str], reason: str) -> None:
    assert reason in fails(*arguments)


def test_wrong_shape_is_named(small: Path) -> None:
    np.save(small / "flat.npy", np.zeros((3, 7), np.int64))
    line = fails("simulate", "lenet-5", "-i", small / "flat.npy", "-o", small / "never")
    assert "has shape (3, 7): network" in line
    assert "takes (n, 1, 28, 28)" in line
    assert not (small / "never").exists()


def test_floats_are_refused(small: Path) -> None:
    np.save(small / "float.npy", np.zeros((1, 1, 28, 28)))
    assert "holds float64: give integers" in fails("simulate", "lenet-5", "-i", small / "float.npy")


def test_values_out_of_range_are_refused(small: Path) -> None:
    np.save(small / "large.npy", np.full((1, 1, 28, 28), 1000))
    assert "1000" in fails("simulate", "lenet-5", "-i", small / "large.npy")


def test_files_that_are_no_arrays_are_refused(small: Path) -> None:
    (small / "text.npy").write_text("hello")
    np.savez(small / "several.npz", a=np.zeros(3), b=np.zeros(3))
    content = (small / "x.npy").read_bytes()
    (small / "cut.npy").write_bytes(content[: len(content) // 2])
    for name, reason in (
        ("text.npy", "is not a .npy file: write one array"),
        ("several.npz", "is an archive"),
        ("cut.npy", "cannot be read as a .npy file"),
        (".", "cannot be read (Is a directory)"),
    ):
        assert reason in fails("simulate", small / "net.thr", "-i", small / name)
    assert "is an archive" in fails(
        *("compress", save_tiny_dense(small), "--calibration", small / "several.npz")
    )
    assert "x.npy is not an .npz file" in fails("compress", small / "x.npy")


def save_tiny_dense(folder: Path) -> Path:
    """Write a dense network of one linear layer; return its file."""
    path = folder / "dense.npz"
    layers = [{"name": "fc", "kind": "linear"}]
    architecture = json.dumps({"name": "tiny", "input_shape": [1, 2, 2], "layers": layers})
    weights = np.linspace(-1, 1, 12).reshape(3, 4)
    np.savez(path, **{"architecture": np.array(architecture), "fc.weight": weights})
    return path


def test_compress_shows_the_funnel(tmp_path: Path) -> None:
    dense, made = save_tiny_dense(tmp_path), tmp_path / "new" / "folder" / "tiny.thr"
    np.save(tmp_path / "x.npy", np.arange(0, 240, 20, np.uint8).reshape(3, 1, 2, 2))
    done = thresher(
        *("compress", dense, "--calibration", tmp_path / "x.npy", "-o", made, "--density", "0.5"),
        *("--json", tmp_path / "figures" / "funnel.json"),
    )
    assert done.returncode == 0, done
    stages = ["dense", "pruned", "shared", "run-coded", "Huffman"]
    figures = json.loads((tmp_path / "figures" / "funnel.json").read_text())
    assert [stage["stage"] for stage in figures["funnel"]] == stages
    assert figures["file_bytes"] == made.stat().st_size
    assert resolve_network(str(made)).name == "tiny"


def test_one_channel_needs_no_axis(tmp_path: Path) -> None:
    network = resolve_network("lenet-5")
    maps = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
    for shape in ((3, 1, 28, 28), (3, 28, 28)):
        np.save(tmp_path / "x.npy", maps.reshape(shape))
        inputs, _ = read_inputs(str(tmp_path / "x.npy"), network)
        assert inputs.dtype == np.int64
        assert np.array_equal(inputs, maps[:, None])
    np.save(tmp_path / "x.npy", maps[0])
    assert read_inputs(str(tmp_path / "x.npy"), network)[0].shape == (1, 1, 28, 28)


def test_corrupted_network_is_refused(small: Path) -> None:
    content = bytearray((small / "net.thr").read_bytes())
    content[len(content) // 2] ^= 4
    (small / "bad.thr").write_bytes(content)
    assert "bad.thr" in fails("inspect", small / "bad.thr")
    (small / "short.thr").write_bytes(content[:40])
    assert "short.thr" in fails("simulate", small / "short.thr", "-i", small / "x.npy")


def test_network_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    settings = ("--lanes", "1", "--set", "accumulator_depth=16")
    line = fails("simulate", "lenet-5", *settings, "-i", "mnist:0", "-o", run)
    assert "accumulator_depth" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_missing_compiler_is_named(tool: str, small: Path, tmp_path: Path) -> None:
    other = {"g++": "make", "make": "g++"}[tool]
    found = shutil.which(other)
    assert found is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / other).symlink_to(found)
    line = fails(
        *("simulate", small / "net.thr", "-i", small / "x.npy", "--lanes", "1"),
        *("-o", tmp_path / "run"),
        path=str(tmp_path / "bin"),
        cache=tmp_path / "cache",
    )
    assert f"{tool} not found" in line
    assert "install it" in line
    assert not (tmp_path / "run").exists()


def test_inspect_shows_the_built_in_networks() -> None:
    done = thresher("inspect", "lenet-300-100", "--json", "-")
    assert done.returncode == 0
    table = json.loads(done.stdout)
    assert table["input_shape"] == [1, 28, 28]
    assert [row["weight_shape"] for row in table["layers"] if row["weight_shape"]] == [
        [300, 784],
        [100, 300],
        [10, 100],
    ]
    assert table["funnel"][0]["stage"] == "dense"


def test_doctor_finds_what_it_needs() -> None:
    done = thresher("doctor", "--json", "-")
    tools = {tool["name"]: tool for tool in json.loads(done.stdout)}
    assert done.returncode == 0
    assert tools["verilator"]["found"]
    assert tools["verilator"]["version"] >= "5.4"


@pytest.mark.cocotb
def test_simulate_reports_every_figure(a_run: Path) -> None:
    report = json.loads((a_run.parents[1] / "report.json").read_text())
    assert report == json.loads((a_run / "report.json").read_text())
    assert set(report) >= {
        *("network", "lanes", "multipliers", "multiplier", "skip", "port_bits", "inputs"),
        *("cycles", "cycles_load", "cycles_per_input", "macs", "efficiency", "bytes", "layers"),
        *("values_compared", "values_different", "sim_cycles_per_second", "build_seconds"),
        "predictions",
    }
    assert set(report["macs"]) == {"dense", "weights", "activations", "both"}
    assert set(report["bytes"]) == {
        *("weights_dense", "weights_coded", "weights_entropy"),
        *("activations_dense", "activations_coded"),
    }
    assert set(report["layers"][0]) >= {"name", "cycles", "macs", "stalls"}
    assert report["values_compared"] > 0 == report["values_different"]
    names = {path.name for path in a_run.iterdir()}
    assert names >= {"outputs.npz", "counters.json", "simulation.log", "report.json"}
    assert not [path for path in a_run.parent.iterdir() if path.name.startswith(".run")]


@pytest.mark.cocotb
def test_compare_names_the_first_difference(a_run: Path, tmp_path: Path) -> None:
    assert thresher("compare", a_run).returncode == 0
    run = tmp_path / "run"
    shutil.copytree(a_run, run)
    with np.load(run / "outputs.npz") as file:
        outputs = {name: file[name] for name in file.files}
    name = next(iter(outputs))
    expected = int(outputs[name][1, 0, 0, 0])
    outputs[name][1, 0, 0, 0] += 1
    np.savez(run / "outputs.npz", **outputs)
    done = thresher("compare", run)
    assert done.returncode == 1
    place = f"layer {name}, input 1, channel 0, y 0, x 0"
    assert f"{place}: expected {expected}, got {expected + 1}" in done.stdout
    del outputs[name]
    np.savez(run / "outputs.npz", **outputs)
    done = thresher("compare", run)
    assert done.returncode == 1
    assert f"layer {name}: expected" in done.stdout
    shutil.copy(a_run / "outputs.npz", run)
    counters = json.loads((a_run / "counters.json").read_text())
    counters["outputs"][0]["macs"] += 1
    (run / "counters.json").write_text(json.dumps(counters))
    done = thresher("compare", run)
    assert done.returncode == 1
    assert "run 0, counter macs: expected" in done.stdout
    (run / "outputs.npz").write_bytes((a_run / "outputs.npz").read_bytes()[:100])
    assert "is damaged" in fails("compare", run)
    (run / "counters.json").write_text("{")
    assert "is damaged" in fails("compare", run)


@pytest.mark.cocotb
def test_a_folder_of_other_files_is_not_overwritten(a_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    small = a_run.parents[1]
    arguments = ("simulate", small / "net.thr", "-i", small / "x.npy", "--lanes", "1")
    assert "has files that are not a run's" in fails(*arguments, "-o", tmp_path)
    assert thresher(*arguments, "-o", a_run).returncode == 0  # a run is


def test_differences_are_counted_and_named() -> None:
    expected = {"conv": np.zeros((1, 2, 3, 4), np.int64)}
    got = {"conv": expected["conv"].copy()}
    got["conv"][0, 1, 2, 3] = 5
    got["conv"][0, 1, 2, 0] = 7
    result = compare_values(expected, got)
    assert (result.values_compared, result.values_different) == (24, 2)
    assert result.first == "layer conv, input 0, channel 1, y 2, x 0: expected 0, got 7"
    counters = compare_counters([{"macs": 3}], [{"macs": 4, "cycles": 9}], ["conv"])
    assert counters.first == "layer conv, run 0, counter macs: expected 3, got 4"
    assert not counters.equal


def test_description_has_every_port_and_parameter() -> None:
    description = describe(Config(lanes=2))
    ports = {port["name"]: port for port in description["ports"]}
    assert ports["request__payload"]["fields"][0] == {"name": "address", "offset": 0, "bits": 24}
    assert ports["response__payload"]["direction"] == "in"
    assert all(parameter["what"] for parameter in description["parameters"].values())
    load = [field["name"] for word in description["descriptors"]["load"] for field in word]
    assert load[:2] == ["kind", "needs"]


def test_generate_writes_clean_verilog(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files: list[set[str]] = []
    for split in ([], ["--split"], []):
        done = thresher(
            *("generate", "lenet-300-100", "--lanes", "2", "-o", out),
            *(split if files else [*split, "--no-lint"]),
        )
        assert done.returncode == 0, done.stderr
        files.append({path.name for path in out.iterdir()})
        if split:
            assert "array.v" in (out / "thresher.f").read_text()
    whole, modules, again = files
    assert whole == again == {"thresher.v", "thresher.json", "thresher.vlt"}
    assert modules >= {"thresher.v", "thresher.json", "thresher.vlt", "thresher.f", "pe.v"}


def test_lint_refuses_what_is_not_waived(tmp_path: Path) -> None:
    source = tmp_path / "thresher.v"
    source.write_text("module thresher(output o);\n  wire x;\n  assign o = x;\nendmodule\n")
    with pytest.raises(ValueError, match=r"not clean .*UNDRIVEN"):
        lint([source], verilator_program())


def test_demo_network_is_there() -> None:
    assert resolve_network("lenet-5").input_shape == (1, 28, 28)
