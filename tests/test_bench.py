"""Workloads of published cycle counts, and how they are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thresher.golden.config import Config, Skip
from thresher.golden.network import WeightedLayer
from thresher.scripts.bench_tables import print_losses, print_others, print_rows
from thresher.scripts.main import main
from thresher.sim.bench import GROUPS, Case, Published, Row, cases, measure
from thresher.sim.workloads import EIE_LAYERS, GEMM_256, PEER_SHAPES, LayerShape, layer_workload


@pytest.mark.parametrize("shape", [*PEER_SHAPES, GEMM_256], ids=lambda shape: shape.name)
@pytest.mark.parametrize(("weights", "activations"), [(1.0, 1.0), (0.25, 0.5), (0.1, 0.35)])
def test_densities_of_a_workload_are_those_asked_for(
    shape: LayerShape, weights: float, activations: float
) -> None:
    network, inputs = layer_workload(shape, weights, activations, seed=3)
    layer = network.layers[0]
    assert isinstance(layer, WeightedLayer)
    dense = layer.dense_weights()
    assert np.count_nonzero(dense) == round(weights * dense.size)
    assert np.count_nonzero(inputs) == round(activations * inputs.size)
    again, same = layer_workload(shape, weights, activations, seed=3)
    assert np.array_equal(inputs, same)
    assert again.layers[0] == layer


def test_shapes_have_the_multiplications_that_are_published() -> None:
    macs = {
        "gemm64": 64 * 64 * 64,
        "conv3x3_64": 64 * 64 * 576,
        "pw_64": 64 * 125 * 64,
        "fc_128x640": 128 * 640,
        "conv3x3_3_16": 16 * 1024 * 27,
        "fc_1024_512": 512 * 1024,
    }
    assert {shape.name for shape in PEER_SHAPES} == set(macs)
    for shape in PEER_SHAPES:
        network, _ = layer_workload(shape, 1.0, 1.0)
        _, height, width = network.shapes()[shape.name]
        assert np.prod(shape.weight_shape) * height * width == macs[shape.name]
    assert [layer.shape.outputs for layer in EIE_LAYERS][:3] == [4096, 4096, 1000]
    assert round(EIE_LAYERS[0].cycles) == 24240


def test_a_product_is_the_same_in_other_rows() -> None:
    assert PEER_SHAPES[0].in_rows(4).in_shape == (64, 16, 4)
    assert PEER_SHAPES[0].in_rows(4).weight_shape == PEER_SHAPES[0].weight_shape


def test_every_case_is_of_a_group_and_its_others_are_per_multiplier() -> None:
    figures = {
        "array_only": {"mesh": {"multipliers": 256, "cycles": {"gemm64": 1073, "pw_64": None}}}
    }
    found = cases(8, published=figures)
    assert {case.group for case in found} <= set(GROUPS)
    gemm = next(case for case in found if case.name == "gemm64 100/100")
    assert gemm.published == {"mesh": Published(1073, 256)}
    assert not next(case for case in found if case.name == "pw_64 100/100").published


def row_of(**cycles: int) -> Row:
    return Row(
        group="peers",
        name="gemm64 100/100",
        multipliers=64,
        cycles=cycles,
        model={"both": cycles["both"] * 99 // 100},
        bound=4096,
        efficiency=0.96,
        stalls={},
        published={"quick": Published(1000, 256), "slow": Published(9000, 64)},
        sim_cycles_per_second=1,
    )


def test_losing_cases_are_those_of_a_ratio_below_one() -> None:
    row = row_of(none=4200, both=4300)
    assert row.losses == {"quick": 1000 * 4 / 4200, "mode none": 4200 / 4300}
    assert row_of(none=4200, both=4000).losses == {}
    assert row.as_dict()["published"]["quick"] == {
        "cycles": 1000,
        "multipliers": 256,
        "product": 256_000,
    }


def test_layers_too_large_for_dense_weights_are_run_in_the_other_modes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fewer = {case.name: case.modes for case in cases(8) if case.modes != tuple(Skip)}
    assert fewer == {"VGG-6": (Skip.WEIGHTS, Skip.BOTH)}
    print_rows("eie", [row_of(both=46_000)], ["none", "both"])
    assert ["-", "46,000"] in [line.split()[2:4] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal_and_mark_what_is_lost(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    modes = ["none", "gate", "weights", "activations", "both"]
    row = row_of(**dict.fromkeys(modes, 46_000))
    print_rows("peers", [row], modes)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.count("workload") == (2 if columns == 80 else 1)
    assert "quick 0.09 <" in shown
    print_others([row])
    assert ["gemm64", "100/100", "slow", "9,000", "64", "576,000", "0.20", "<"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]
    print_losses([row])
    assert "0.087" in capsys.readouterr().out


@pytest.mark.cocotb
def test_a_case_is_measured_and_compared() -> None:
    shape = LayerShape(name="small", in_shape=(8, 6, 6), outputs=8, kernel=3, padding=1)
    case = Case(
        group="peers",
        name="small 50/50",
        make=lambda: layer_workload(shape, 0.5, 0.5),
        config=Config(lanes=2),
        knows_operands=True,
        published={"other": Published(4000, 8)},
    )
    row = measure(case, [Skip.NONE, Skip.BOTH])
    assert row.bound <= row.cycles["both"] < row.cycles["none"]
    assert row.ratios["other"] == 4000 * 8 / (row.cycles["both"] * 4)
    assert 0.5 < row.efficiency < 1
    for mode, cycles in row.cycles.items():
        assert row.model[mode] == pytest.approx(cycles, rel=0.02)
        assert abs(row.as_dict()["model_errors"][mode]) < 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--groups", "none"], "--groups none: give some of"),
        (["--modes", "fast"], "--modes fast: give some of"),
        (["--densities", "50"], "--densities 50: give percents"),
        (["--densities", "0/50"], "above 0 and at most 100"),
        (["--groups", "mlperf", "--data", "nowhere"], "not there: nowhere"),
    ],
)
def test_bad_use_is_one_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err
