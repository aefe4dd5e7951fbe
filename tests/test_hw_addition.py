"""Additions and products of maps equal golden, at their rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_parts import (
    SMALL,
    Addition,
    Product,
    added,
    inputs_of,
    operand_items,
    pauses,
    pooled,
    pooling_run,
    simulate,
)

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.config import Config
from thresher.golden.descriptors import Pool, Rounding
from thresher.golden.product import multiply
from thresher.hw.output.adder import Adder
from thresher.hw.output.lookup import Lookup
from thresher.sim.runner import run_cocotb


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([5, 9, 10]),
    output_cycles=st.sampled_from([1, 4]),
    rounding=st.sampled_from(Rounding),
    scale_operand=st.integers(0, 1),
    lookup=st.integers(0, 1),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
def test_addition_equals_golden(
    *,
    bits: int,
    output_cycles: int,
    rounding: Rounding,
    scale_operand: int,
    lookup: int,
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    config = Config(lanes=1, activation_bits=bits, pool_depth=16, output_cycles=output_cycles)
    half, count = 1 << bits - 1, 24
    extremes = [-half, -half, half - 1, half - 1, 0, -half, half - 1, -half]
    outputs = [*extremes[:4], *rng.integers(-half, half, count - 4).tolist()]
    operands = [*extremes[4:], *rng.integers(-half, half, count - 4).tolist()]
    table = rng.integers(-half, half, 2 * half).tolist()
    bounds = np.sort(rng.choice([-half, -3, 0, 4, half - 1], 2, replace=False)).tolist()
    operand_shift = int(rng.choice([0, 1, 20, 30, 31, 40, 63]))
    run = {
        "add": 1,
        "lookup": lookup,
        "scale_operand": scale_operand,
        "operand_scale": int(rng.integers(0, min(1 << operand_shift, (1 << 31) - 1) + 1)),
        "operand_shift": operand_shift,
        "pool_scale": int(rng.choice([1, 3, (1 << 31) - 1, int(rng.integers(1 << 31))])),
        "pool_shift": int(rng.choice([19, 20, 48, 50, int(rng.integers(64))])),
        "pool_rounding": rounding,
        "pool_low": bounds[0],
        "pool_high": bounds[1],
        "clip_low": 1,  # the requantiser's alone, as is this:
        "rounding": int(rng.integers(4)),
    }
    looked_up = [table[value % (2 * half)] for value in outputs] if lookup else outputs
    results, _, _ = simulate(
        Addition(config),
        [{"value": value, "last": n % 6 == 5} for n, value in enumerate(outputs)],
        count,
        run=run,
        channels=2,
        table=table if lookup else (),
        operands=operand_items(operands, rng),
        gaps=gaps,
        stalls=stalls,
    )
    expected = added(looked_up, operands, run)
    assert results == [(value, n % 6 == 5) for n, value in enumerate(expected)]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([5, 9, 10, 16]),
    output_cycles=st.sampled_from([1, 4]),
    rounding=st.sampled_from(Rounding),
    broadcast=st.integers(0, 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
def test_products_equal_golden(
    *,
    bits: int,
    output_cycles: int,
    rounding: Rounding,
    broadcast: int,
    shape: tuple[int, int, int, int],
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    """Of the outputs and an operand of their shape, or of one value a channel of each map."""
    rng = np.random.default_rng(seed)
    config = Config(
        lanes=1,
        activation_bits=bits,
        channel_depth=16,
        pool_depth=16,
        output_cycles=output_cycles,
        lookup=int(bits <= 10),
    )
    half = 1 << bits - 1
    maps, height, width, channels = shape
    outputs = rng.integers(-half, half, shape)
    operands = rng.integers(-half, half, (maps, 1, 1, channels) if broadcast else shape)
    for values in (outputs, operands):
        extreme = rng.random(values.shape) < 0.3
        values[extreme] = rng.choice([-half, 0, half - 1], int(extreme.sum()))
    bounds = np.sort(rng.choice([-half, -3, 0, 4, half - 1], 2, replace=False)).tolist()
    run = {
        "add": 1,
        "multiply": 1,
        "broadcast": broadcast,
        "operand_shift": ADD_HEADROOM,
        "pooled_height": height,
        "pooled_width": width,
        "pool_scale": int(rng.choice([1, 3, (1 << 31) - 1, int(rng.integers(1 << 31))])),
        "pool_shift": int(rng.choice([0, 1, bits, 30, 31 + bits, int(rng.integers(64))])),
        "pool_rounding": rounding,
        "pool_low": bounds[0],
        "pool_high": bounds[1],
    }
    results, _, _ = simulate(
        Product(config),
        [
            {"value": value, "last": n % (width * channels) == width * channels - 1}
            for n, value in enumerate(outputs.ravel().tolist())
        ],
        outputs.size,
        run=run,
        channels=channels,
        operands=operand_items(operands.ravel().tolist(), rng),
        gaps=gaps,
        stalls=stalls,
    )
    expected = multiply(
        outputs,
        operands,
        scale=run["pool_scale"],
        shift=run["pool_shift"],
        rounding=rounding,
        clip=(bounds[0], bounds[1]),
    )
    assert [value for value, _ in results] == expected.ravel().tolist()
    assert [n for n, (_, last) in enumerate(results, 1) if last] == [
        *range(width * channels, outputs.size + 1, width * channels)
    ]


def test_a_broadcast_operand_is_there_in_each_cycle_but_two_of_a_map() -> None:
    run = {"add": 1, "multiply": 1, "broadcast": 1, "operand_shift": ADD_HEADROOM}
    run |= {"pooled_height": 2, "pooled_width": 4, "pool_scale": 1, "pool_low": -16, "pool_high": 9}
    inputs = [{"value": n % 3, "last": n % 12 == 11} for n in range(48)]
    operands = [{"value": value, "hit": 1} for value in (1, 2, 3, -1, -2, -3)]
    results, accepted, sent = simulate(
        Adder(SMALL), inputs, 48, run=run, channels=3, operands=operands, output="sums"
    )
    assert [value for value, _ in results] == [0, 2, 6] * 8 + [0, -2, -6] * 8
    waits = {3: 2, 27: 2}  # the second position of each map
    assert np.diff(accepted[1:]).tolist() == [waits.get(n, 1) for n in range(2, 48)]
    assert sent[1:] == [cycle + Adder.LATENCY for cycle in accepted[1:]]


@pytest.mark.parametrize("pool", [Pool.NONE, Pool.MAX])
def test_a_run_that_does_not_add_passes_the_adder(pool: Pool) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(-16, 15, (1, 2, 4, 4), endpoint=True)
    run = pooling_run(pool=pool, out_height=4, out_width=4, pooled_height=2, pooled_width=2)
    table = rng.permutation(np.arange(-16, 16))
    inputs = inputs_of(values)
    looked_up = inputs_of(table[values % 32])
    expected = (
        pooled(table[values % 32], run)
        if pool
        else [(item["value"], bool(item["last"])) for item in looked_up]
    )
    results, accepted, _ = simulate(
        Addition(SMALL),
        inputs,
        len(expected),
        run=run | {"lookup": 1},
        channels=2,
        table=table.tolist(),
        runs=2,
    )
    assert results == expected * 2
    assert np.diff(accepted[1 : len(inputs)]).tolist() == [1] * (len(inputs) - 2)


def test_a_pair_takes_a_cycle_and_twelve_to_its_result() -> None:
    run = {"add": 1, "scale_operand": 1, "operand_scale": 1, "operand_shift": 1}
    run |= {"pool_scale": 1, "pool_shift": 19, "pool_low": -16, "pool_high": 15}
    values = list(range(-8, 8))
    inputs = [{"value": value, "last": 0} for value in values]
    operands = [{"value": -value, "hit": 1} for value in values]
    for dut, output, latency in (
        (Adder(SMALL), "sums", Adder.LATENCY),
        (Addition(SMALL), "o", Lookup.LATENCY + Adder.LATENCY + 6),
    ):
        results, accepted, sent = simulate(
            dut, inputs, 16, run=run, channels=1, operands=operands, output=output
        )
        assert [value for value, _ in results] == [0] * 16
        # The first input waits for its operand.
        assert np.diff(accepted[1:]).tolist() == [1] * 14
        assert sent[1:] == [cycle + latency for cycle in accepted[1:]]
    assert (Adder.LATENCY, Lookup.LATENCY) == (6, 1)


@pytest.mark.cocotb
def test_adder_verilog_equals_golden(tmp_path: Path) -> None:
    config: dict[str, Any] = {"lanes": 1}
    count = run_cocotb(
        Adder(Config(**config)),
        test_module="cocotb_adder",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(config)},
    )
    assert count == 8
