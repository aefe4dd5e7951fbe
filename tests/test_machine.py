"""Whole networks on the hardware: every value of every stored layer, every predicted counter."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from test_golden_compiler import linear_network
from tflite_models import Model

from thresher.golden.builtin import mnist_digits, resolve_network
from thresher.golden.compiler import compile_network
from thresher.golden.config import Config, MultiplierKind, Skip, preset_sizes
from thresher.golden.descriptors import Pool, Rounding
from thresher.golden.errors import ThresherError
from thresher.golden.network import (
    Add,
    AveragePool,
    CompressedNetwork,
    Concat,
    Convolution,
    MaxPool,
)
from thresher.golden.pooling import divisors
from thresher.golden.random_network import random_graph, random_inputs, random_network
from thresher.golden.read import read_model
from thresher.golden.read.gathering import NOWHERE, gather
from thresher.hw.verilog import stop_clocks
from thresher.sim.builds import SHARING, verilator_program, verilator_root
from thresher.sim.compare import compare_counters, compare_values, expected_outputs
from thresher.sim.machine import machine_verilog, run_machine
from thresher.sim.run import simulate

pytestmark = pytest.mark.cocotb

# A build each: stores so small that layers take several passes, and the sizes of the LeNets.
SMALL = {"group_depth": 512, "pool_depth": 128, "channel_depth": 16, "fifo_depth": 2}
ONE_LANE = Config(lanes=1, tap_depth=512, accumulator_depth=128, **SMALL)
CONFIGS = {
    "1-small": ONE_LANE,
    **{f"2-{kind}": Config(lanes=2, multiplier=kind) for kind in MultiplierKind},
    **{f"4-{kind}": Config(lanes=4, multiplier=kind) for kind in MultiplierKind},
    "2-ulx3s": Config(lanes=2, **preset_sizes("ulx3s", 2)),
    "2-shared": Config(lanes=2, **preset_sizes("ulx3s", 8)),
}
SLOW_CONFIGS = {
    "2-small": Config(lanes=2, tap_depth=256, accumulator_depth=64, run_bits=2, **SMALL),
    "4-small": Config(
        lanes=4, multiplier=MultiplierKind.SHIFT, tap_depth=128, accumulator_depth=64, **SMALL
    ),
    "4-ulx3s": Config(lanes=4, **preset_sizes("ulx3s", 4)),
    "8": Config(lanes=8),
    "16": Config(lanes=16),
}
COUNTS = {
    "1-small": 16,
    "2-exact": 16,
    "4-exact": 16,
    "2-shift": 6,
    "2-shift1": 6,
    "2-lut": 6,
    "2-ulx3s": 12,
    "2-shared": 8,
}
SLOW_COUNTS = {
    "2-small": 40,
    "4-small": 40,
    "4-shift1": 10,
    "4-lut": 10,
    "4-ulx3s": 8,
    "8": 8,
    "16": 2,
}
SIZES_16 = {"layers": 2, "channels": 20, "size": 6}
_SCALES = ((0.05, -20), (0.07, 11), (0.04, 0))
LENETS = ("lenet-300-100", "lenet-5")


def check(
    network: CompressedNetwork,
    inputs: npt.NDArray[np.integer],
    config: Config,
    skip: Skip,
    *,
    keep_layers: bool = False,
    simulator: str = "verilator",
    latency: int = 4,
    stall: int = 0,
) -> None:
    """Run a network; every value that it stores and every counter that can be known must agree."""
    program = compile_network(network, config, inputs, skip, keep_layers=keep_layers)
    result = run_machine(
        config,
        program.image,
        program.program,
        simulator=simulator,
        timeout_cycles=20_000_000,
        latency=latency,
        stall=stall,
    )
    assert result.error is None
    outputs = program.decode_outputs(result.memory)
    assert network.output in outputs
    if keep_layers:
        assert set(outputs) == {layer.name for layer in network.layers}
    values = compare_values(expected_outputs(program), outputs)
    assert values.first is None
    assert values.values_compared > 0
    layers = [part.stage.name for part in program.passes]
    counters = program.counters(result.memory)
    compared = compare_counters(program.expected_counters, counters, layers)
    assert compared.first is None
    assert compared.counters_compared >= 5 * len(program.passes)


def draw_run(config: Config, seed: int, **sizes: Any) -> dict[str, Any]:
    """Return a random chain or graph, random inputs, mode and memory, as ``check`` takes them."""
    rng = np.random.default_rng(seed)
    draw = random_graph if seed % 2 else random_network
    while True:
        network = draw(rng, weight_bits=config.weight_bits, **sizes)
        inputs = random_inputs(rng, network, int(rng.integers(1, 4)))
        skip = list(Skip)[rng.integers(len(Skip))]
        keep = bool(rng.integers(2))
        latency, stall = int(rng.choice([1, 2, 4, 20, 63])), int(rng.choice([0, 60, 200]))
        try:
            compile_network(network, config, inputs, skip, keep_layers=keep)
        except ValueError as error:  # does not fit so small a machine
            text = str(error)
            assert "does not fit" in text or "product is 0" in text  # others are tried
            continue
        break
    return {
        "network": network,
        "inputs": inputs,
        "config": config,
        "skip": skip,
        "keep_layers": keep,
        "latency": latency,
        "stall": stall,
    }


def check_random(config: Config, seed: int, **sizes: Any) -> None:
    """Check a random network on random inputs, in a random mode, with a random memory."""
    check(**draw_run(config, seed, **sizes))


def digits(count: int) -> npt.NDArray[np.int64]:
    """Return the first digits of MNIST's test set."""
    images, _ = mnist_digits(f"mnist:0-{count - 1}")
    return images.astype(np.int64)


@pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name, count in COUNTS.items() for seed in range(count)]
)
def test_random_network_equals_golden(name: str, seed: int) -> None:
    check_random(CONFIGS[name], 1000 * list(CONFIGS).index(name) + seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name, count in SLOW_COUNTS.items() for seed in range(count)]
)
def test_more_random_networks_equal_golden(name: str, seed: int) -> None:
    config = (CONFIGS | SLOW_CONFIGS)[name]
    check_random(config, 20_000 + seed, **(SIZES_16 if config.lanes == 16 else {}))


# Each mode on exact multipliers, each other multiplier, both numbers of lanes.
_CHOSEN = [
    *((f"{2 if skip in {Skip.NONE, Skip.WEIGHTS} else 4}-exact", skip) for skip in Skip),
    ("2-exact", Skip.BOTH),
    ("2-shift", Skip.ACTIVATIONS),
    ("2-shift1", Skip.BOTH),
    ("2-lut", Skip.GATE),
]


@pytest.mark.parametrize("name", LENETS)
@pytest.mark.parametrize(("machine", "skip"), _CHOSEN)
def test_lenet_equals_golden(name: str, machine: str, skip: Skip) -> None:
    check(resolve_network(name), digits(1), CONFIGS[machine], skip)


@pytest.mark.slow
@pytest.mark.parametrize("name", LENETS)
@pytest.mark.parametrize("keep_layers", [False, True])
@pytest.mark.parametrize("skip", list(Skip))
@pytest.mark.parametrize("machine", [name for name in CONFIGS if name != "1-small"])
def test_lenet_in_every_way_equals_golden(
    name: str, machine: str, skip: Skip, keep_layers: bool
) -> None:
    check(resolve_network(name), digits(2), CONFIGS[machine], skip, keep_layers=keep_layers)


@pytest.mark.parametrize("skip", [Skip.NONE, Skip.BOTH])
@pytest.mark.parametrize(
    ("kernel", "window"),
    [
        ((1, 1), {"padding": (1, 1, 1, 1)}),
        ((1, 2), {"padding": (3, 0, 0, 4), "stride": (2, 1)}),
        ((2, 1), {"padding": (2, 5, 4, 1), "dilation": (2, 3)}),
    ],
)
def test_padding_may_be_wider_than_the_kernel(
    kernel: tuple[int, int], window: dict[str, Any], skip: Skip
) -> None:
    rng = np.random.default_rng(20261124)
    layer = Convolution(
        name="c",
        weights=rng.integers(3, size=(6, 5, *kernel), dtype=np.uint8),
        codebook=np.array([0, -3, 2]),
        bias=rng.integers(100, 200, 6),
        scale=np.ones(6, np.int64),
        shift=np.full(6, 2),
        clip=(0, 255),
        **window,
    )
    network = CompressedNetwork(
        name="padded", input_shape=(5, 4, 3), input_range=(0, 15), layers=(layer,)
    )
    check(network, random_inputs(rng, network, 2), CONFIGS["2-exact"], skip, stall=60)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "pool_lacks"),
    [
        ((3, 3), (1, 1), (1, 1, 1, 1), 3),
        ((3, 3), (2, 2), (0, 0, 1, 1), 3),
        ((2, 2), (2, 2), (0, 0, 1, 1), 3),
        ((4, 1), (1, 2), (3, 0, 3, 0), 3),
        ((7, 5), (1, 3), (3, 1, 3, 2), 3),
        ((13, 3), (1, 1), (6, 1, 6, 1), 3),  # each window holds all seven rows
        ((15, 19), (1, 1), (7, 9, 7, 9), 3),  # and all columns
        ((9, 8), (1, 1), (4, 3, 4, 4), 7),
        ((9, 13), (4, 2), (4, 6, 4, 6), 7),
    ],
)
def test_means_of_windows_that_the_edges_cut_equal_golden(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    pool_lacks: int,
) -> None:
    rng = np.random.default_rng(20261125)
    rows, columns = divisors((7, 9), kernel, stride, padding, padding)
    scales = tuple(tuple((1 << 30) // (y * x) for x in columns) for y in rows)
    means = [
        AveragePool(
            name=name,
            inputs=(source,),
            kernel=kernel,
            stride=stride,
            padding=padding,
            scale=scales[0][0],
            shift=30,
            rounding=Rounding.HALF_AWAY,
            origin=origin,
            clip=(-200, 255),
            cut_scales=scales if np.size(scales) > 1 else None,
        )
        for name, source, origin in (("behind the input", "input", -100), ("merged", "c", 37))
    ]
    largest = MaxPool(
        name="largest", inputs=("input",), kernel=kernel, stride=stride, padding=padding
    )
    layer = Convolution(
        name="c",
        weights=rng.integers(3, size=(5, 3, 1, 1), dtype=np.uint8),
        codebook=np.array([0, -3, 2]),
        bias=rng.integers(100, 200, 5),
        scale=np.ones(5, np.int64),
        shift=np.full(5, 2),
        clip=(0, 200),
    )
    network = CompressedNetwork(
        name="cut",
        input_shape=(3, 7, 9),
        input_range=(-100, 255),
        layers=(
            layer,
            *means,
            largest,
            Concat(name="all", inputs=tuple(one.name for one in (*means, largest))),
        ),
    )
    config = replace(CONFIGS["2-exact"], pool_lacks=pool_lacks)
    check(network, random_inputs(rng, network, 2), config, Skip.BOTH, stall=60)


def test_gathered_maps_equal_golden() -> None:
    """Every second place as channels; a shortcut with rows cut off and channels of zeros."""
    rng = np.random.default_rng(20261126)
    numbers = np.arange(3 * 7 * 8).reshape(3, 7, 8)
    parts = [numbers[:, y : y + 5 : 2, x::2] for y in (0, 2) for x in (0, 1)]
    wide = np.pad(numbers[:, 1:4, :4], ((1, 8), (0, 0), (0, 0)), constant_values=NOWHERE)
    layers = []
    for name, places in (("channels", np.concatenate(parts)), ("shortcut", wide)):
        layer = gather(places, "input", (3, 7, 8), (-60, 99), name)
        assert layer is not None
        layers.append(layer)
    total = Add(
        name="sum", inputs=("channels", "shortcut"),
        operand_scale=1, operand_shift=1, scale=1, shift=20, clip=(-60, 99),
    )  # fmt: skip
    network = CompressedNetwork(
        name="gathered", input_shape=(3, 7, 8), input_range=(-60, 99), layers=(*layers, total)
    )
    inputs = random_inputs(rng, network, 2)
    for skip in (Skip.BOTH, Skip.NONE):
        check(network, inputs, CONFIGS["2-exact"], skip, keep_layers=True, stall=60)


def test_sums_with_constants_and_slopes_by_channel_equal_golden(tmp_path: Path) -> None:
    model = Model(5)
    shape = (1, 5, 6, 5)
    x, y, z = (model.tensor(shape, "INT8", scale, zero) for scale, zero in _SCALES)
    numbers = [
        model.constant(model.rng.integers(-128, 128, (5,)), "INT8", scale=0.03, zero_point=7)
        for _ in range(2)
    ]
    model.node("SUB", [numbers[0], x], [y])
    model.node("PRELU", [y, numbers[1]], [z])
    last = model.tensor(shape, "INT8", 0.06, 3)
    model.node("SUB", [z, y], [last])
    network = read_model(model.save(tmp_path / "model.tflite"))
    kinds = [type(layer).__name__ for layer in network.layers]
    assert (kinds.count("Add"), kinds.count("Convolution"), kinds.count("Lookup")) == (3, 2, 4)
    inputs = random_inputs(np.random.default_rng(5), network, 2)
    config = replace(CONFIGS["2-exact"], weight_bits=9)
    for skip in (Skip.BOTH, Skip.NONE):
        check(network, inputs, config, skip, keep_layers=True, stall=60)


def test_means_that_the_table_of_scales_does_not_tell_apart_are_refused() -> None:
    rows, columns = divisors((7, 9), (9, 9), (1, 1), (4,) * 4, (4,) * 4)
    scales = tuple(tuple((1 << 30) // (y * x) for x in columns) for y in rows)
    mean = AveragePool(
        name="mean",
        kernel=(9, 9),
        stride=(1, 1),
        padding=(4,) * 4,
        scale=scales[0][0],
        shift=30,
        cut_scales=scales,
    )
    network = CompressedNetwork(
        name="cut", input_shape=(3, 7, 9), input_range=(0, 255), layers=(mean,)
    )
    inputs = random_inputs(np.random.default_rng(1), network, 1)
    message = "layer mean does not fit: .* 4 rows outside, and pool_lacks is 3; raise pool_lacks"
    with pytest.raises(ValueError, match=message):
        compile_network(network, CONFIGS["2-exact"], inputs)
    compile_network(network, replace(CONFIGS["2-exact"], pool_lacks=7), inputs)


@pytest.mark.parametrize("skip", list(Skip))
def test_vectors_read_in_rounds_equal_golden(skip: Skip) -> None:
    rng = np.random.default_rng(2)
    network = linear_network(rng, (180, 67, 170, 9))
    inputs = random_inputs(rng, network, 1)
    program = compile_network(network, CONFIGS["2-exact"], inputs, skip)
    assert sum(part.rounds > 1 for part in program.passes) >= 2
    check(network, inputs, CONFIGS["2-exact"], skip)


@pytest.mark.parametrize(("seed", "stall"), [(27, 240), (37, 200), (40, 200)])
def test_short_runs_do_not_overtake_the_counters_of_those_before(seed: int, stall: int) -> None:
    """Where the port refuses most requests, a run's counters may be written as long as the next."""
    rng = np.random.default_rng(seed)
    kinds = ("convolution", "multiply", "multiply", "add", "max", "max", "average", "linear")
    network = random_graph(rng, layers=6, kinds=kinds, size=4, channels=5)
    config, inputs = CONFIGS["2-exact"], random_inputs(rng, network, 1)
    check(network, inputs, config, Skip.BOTH, keep_layers=True, latency=1, stall=stall)


@pytest.mark.parametrize("name", ["2-exact", "2-ulx3s"])
def test_values_behind_the_last_window_do_not_reach_the_next_run(name: str) -> None:
    """Of the four rows of a map, the last is in no window."""
    pools = (
        MaxPool(name="max", inputs=("input",), kernel=(1, 2), stride=(2, 2), padding=(0, 1, 0, 1)),
        AveragePool(
            name="mean", inputs=("max",), kernel=(2, 2), stride=(1, 3), padding=(0, 1, 1, 0),
            scale=64, shift=8, rounding=Rounding.HALF_EVEN,
        ),
    )  # fmt: skip
    network = CompressedNetwork(
        name="pools", input_shape=(4, 4, 7), input_range=(0, 255), layers=pools
    )
    check(network, random_inputs(np.random.default_rng(7), network, 2), CONFIGS[name], Skip.BOTH)


@pytest.mark.parametrize("name", LENETS)
def test_zero_skipping_keeps_three_quarters_of_the_multipliers_busy(name: str) -> None:
    config = Config(lanes=4)
    run = simulate(resolve_network(name), digits(10), config, Skip.BOTH, every_layer=False)
    assert run.comparison is not None
    assert run.comparison.first is None
    assert run.report["efficiency"] >= 0.75


def tiny_network() -> tuple[CompressedNetwork, npt.NDArray[np.int64]]:
    """Return a network of a few hundred multiplications, with inputs."""
    rng = np.random.default_rng(96)
    network = random_network(rng, layers=3, channels=3, size=5)
    return network, random_inputs(rng, network, 2)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_network_under_icarus_equals_golden() -> None:
    check(*tiny_network(), ONE_LANE, Skip.BOTH, keep_layers=True, simulator="icarus", stall=60)


def test_network_under_the_simulator_of_amaranth_equals_golden() -> None:
    check(*tiny_network(), ONE_LANE, Skip.BOTH, keep_layers=True, simulator="amaranth", stall=60)


@pytest.mark.parametrize("seed", [31, 43, 69, 75])
def test_clocks_that_stop_change_neither_memory_nor_cycles(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draw_run(ONE_LANE, seed)
    program = compile_network(drawn["network"], ONE_LANE, drawn["inputs"], drawn["skip"])
    image, latency = program.image, drawn["latency"]
    assert {part.operand is None for part in program.passes} == {False, True}
    assert {part.stage.pooling.kind is Pool.NONE for part in program.passes} == {False, True}
    runs = []
    for stop in (stop_clocks, lambda verilog, *_: verilog):
        monkeypatch.setattr("thresher.sim.machine.stop_clocks", stop)
        runs.append(run_machine(ONE_LANE, image, program.program, latency=latency, stall=60))
    assert runs[0].cycles == runs[1].cycles
    np.testing.assert_array_equal(runs[0].memory, runs[1].memory)


def test_machine_that_gets_no_time_is_given_up() -> None:
    network, inputs = tiny_network()
    program = compile_network(network, ONE_LANE, inputs)
    with pytest.raises(ThresherError, match="did not finish in 50 cycles"):
        run_machine(ONE_LANE, program.image, program.program, timeout_cycles=50)


def test_no_logic_of_the_machine_waits_for_itself(tmp_path: Path) -> None:
    """A loop, even one only by way of other fields of a payload, is evaluated until it rests."""
    source = tmp_path / "thresher.v"
    source.write_text(machine_verilog(Config(lanes=2)))
    command = [str(verilator_program()), "--cc", *SHARING, "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    command += ["--top-module", "thresher", "--Mdir", str(tmp_path / "made"), str(source)]
    environment = {"VERILATOR_ROOT": str(verilator_root())}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    made = "".join(path.read_text() for path in sorted((tmp_path / "made").glob("*.cpp")))
    assert set(re.findall(r"__Vtrigprevexpr\w*?___TOP__(\w+)__0", made)) == {"clk"}
