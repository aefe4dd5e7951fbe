"""Energy: the sum of what is counted times what it takes, and the table that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thresher.golden.builtin import mnist_digits, resolve_network
from thresher.golden.config import Config, Skip
from thresher.golden.energy import DEFAULT_FIGURES, Accesses, Figures, Work, energy, read_figures
from thresher.golden.errors import ThresherError
from thresher.sim.run import simulate
from thresher.sim.traffic import traffic_of

ACCESSES = Accesses(tap=16, accumulator=32, pointers=24)


def test_each_operation_takes_what_the_table_says() -> None:
    figures = Figures(multiply_int8=0.2, add_int32=0.1, sram_32=5, dram_32=640)
    work = Work(multiplications=1000, lookups=100, weight_bytes=40, activation_bytes=8)
    taken = energy(work, ACCESSES, figures)
    assert taken == pytest.approx(
        {
            "multiplications": 200,
            "additions": 100,
            "tap stores": 1000 * 2.5,
            "accumulators": 1000 * 10,
            "start pointers": 100 * 3.75,
            "weights in memory": 6400,
            "activations in memory": 1280,
        }
    )


def test_the_figures_of_the_package_are_those_of_their_source() -> None:
    figures = read_figures(DEFAULT_FIGURES)
    assert figures == Figures(multiply_int8=0.2, add_int32=0.1, sram_32=5, dram_32=640)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "multiply_int8 must be an energy in picojoules, not None"),
        ('{"multiply_int8": -1}', "multiply_int8 must be .* not -1"),
        ('{"multiply_int8": 1, "add_int32": "x"}', "add_int32 must be .* not 'x'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    table = tmp_path / "figures.json"
    table.write_text(text)
    with pytest.raises(ThresherError, match=reason):
        read_figures(table)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThresherError, match="cannot be read"):
        read_figures(tmp_path / "none.json")


@pytest.mark.cocotb
def test_traffic_of_a_run_is_what_the_machine_counted(tmp_path: Path) -> None:
    images, _ = mnist_digits("mnist:0-1")
    network = resolve_network("lenet-300-100")
    run = simulate(network, images, Config(lanes=4), Skip.BOTH, run_dir=tmp_path / "run")
    traffic = traffic_of(tmp_path / "run", read_figures(DEFAULT_FIGURES))
    streams = traffic.streams
    assert streams["weights"].moved == run.report["bytes"]["weights_coded"] / 2
    assert streams["weights"].dense == run.report["bytes"]["weights_dense"] / 2
    counters = json.loads((tmp_path / "run" / "counters.json").read_text())["outputs"]
    words = sum(record["words_in"] for record in counters)
    assert streams["activations read"].moved == words * 8 / 2
    assert streams["activations read"].dense == 784 + 300 + 100
    assert streams["activations written"].dense == 300 + 100 + 2 * 10  # outputs of 9 bits
    assert all(stream.entropy < stream.moved for stream in streams.values())
    assert sum(traffic.compressed.values()) < sum(traffic.dense.values()) / 5
