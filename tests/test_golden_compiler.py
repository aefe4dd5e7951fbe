"""The compiler: weights survive the way into the image, predictions agree with inference."""

from __future__ import annotations

import numpy as np
import pytest
from program_records import program_records

from thresher.golden.codes.weights import ColumnLoad, decode_column
from thresher.golden.compiler import FitError, compile_network
from thresher.golden.config import Config, Skip
from thresher.golden.descriptors import Kind
from thresher.golden.network import CompressedNetwork
from thresher.golden.random_network import random_inputs, random_network

SEEDS = range(6)


def _network(seed: int) -> tuple[CompressedNetwork, np.ndarray]:
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    return network, random_inputs(rng, network, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lanes", [1, 4])
def test_every_weight_is_in_one_tap_store(seed: int, lanes: int) -> None:
    network, inputs = _network(seed)
    config = Config(lanes=lanes)
    program = compile_network(network, config, inputs, Skip.BOTH)
    loads = [record for record in program_records(program) if record[1]["kind"] == Kind.LOAD]
    assert len(loads) == len(program.passes)
    for (_, head, columns), part in zip(loads, program.passes, strict=True):
        weights = part.stage.codebook[part.taps.index]
        for number, column in enumerate(columns):
            words = program.image[column["address"] : column["address"] + column["words"]]
            loaded = decode_column(words.tobytes(), config, ColumnLoad.from_fields(head, column))
            outputs = part.columns[number]
            np.testing.assert_array_equal(loaded.bias, part.stage.bias[outputs])
            for row, element in enumerate(loaded.rows):
                mine = (part.column_of == number) & (part.rows == row)
                np.testing.assert_array_equal(element.positions, part.position[mine])
                codes = weights[mine] & (1 << config.weight_code_bits) - 1
                np.testing.assert_array_equal(element.codes, codes)
                assert element.pointers.size == part.groups[row] + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_loads_never_wait_for_a_run_behind_them(seed: int) -> None:
    network, inputs = _network(seed)
    program = compile_network(network, Config(lanes=2, tap_depth=512), inputs, Skip.NONE)
    loads = runs = 0
    for _, head, _ in program_records(program):
        if head["kind"] == Kind.LOAD:
            assert head["needs"] <= runs
            loads += 1
        else:
            assert head["needs"] <= loads
            runs += 1
    assert loads == runs == len(program.passes)


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_useful_multiplications_are_those_of_inference(seed: int) -> None:
    network, inputs = _network(seed)
    program = compile_network(network, Config(lanes=4), inputs, Skip.BOTH, keep_layers=True)
    predicted: dict[str, int] = {}
    for part, counters in zip(program.passes, program.expected_counters, strict=True):
        name = part.stage.name
        predicted[name] = predicted.get(name, 0) + counters["macs"]
    for name, counts in program.inference.counts.items():
        if counts.macs.dense:
            assert predicted[name] == counts.macs.both


def test_a_network_too_big_says_which_store_is_short() -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng)
    inputs = random_inputs(rng, network, 1)
    small = Config(lanes=1, accumulator_depth=16, group_depth=16, tap_depth=16, pool_depth=16)
    with pytest.raises(FitError, match=r"does not fit: the .* store needs \d+ words and .* is 16"):
        compile_network(network, small, inputs)
