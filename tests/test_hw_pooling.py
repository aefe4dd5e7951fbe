"""Poolers equal golden, at their rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from output_parts import SMALL, inputs_of, make_pooler, pauses, pooled, pooling_run, sides, simulate

from thresher.golden.config import Config
from thresher.golden.descriptors import Pool, Rounding
from thresher.golden.pooling import lacking
from thresher.hw.output.pooler import Pooler
from thresher.sim.runner import run_cocotb


@settings(max_examples=30, deadline=None)
@given(
    y=sides(),
    x=sides(),
    channels=st.integers(1, 3),
    maps=st.integers(1, 2),
    pool=st.sampled_from([Pool.MAX, Pool.AVERAGE]),
    rounding=st.sampled_from(Rounding),
    output_cycles=st.sampled_from([1, 4]),
    pool_lacks=st.sampled_from([3, 7]),
    seed=st.integers(0, 1 << 32),
    gaps=pauses,
    stalls=pauses,
)
@example(  # rows left to send behind a value that lies in no window
    y=(2, 2, 1, 0, 2),
    x=(2, 1, 1, 0, 1),
    channels=2,
    maps=2,
    pool=Pool.MAX,
    rounding=Rounding.HALF_UP,
    output_cycles=4,
    pool_lacks=3,
    seed=0,
    gaps=[],
    stalls=[],
)
def test_pooler_equals_golden(
    *,
    y: tuple[int, int, int, int, int],
    x: tuple[int, int, int, int, int],
    channels: int,
    maps: int,
    pool: Pool,
    rounding: Rounding,
    output_cycles: int,
    pool_lacks: int,
    seed: int,
    gaps: list[int],
    stalls: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice([-16, -5, 0, 2, 15], 2, replace=False)).tolist()
    mean: dict[str, int] = {}
    origin, cut_scales, written = 0, None, None
    if pool is Pool.AVERAGE:
        origin = int(rng.choice([0, -9, 3, 15]))
        mean = {
            "pool_rounding": rounding,
            "pool_scale": int(rng.choice([1, 3, 28, 57])),
            "pool_shift": int(rng.integers(0, 8)),
            "pool_origin": origin,
            "pool_low": bounds[0],
            "pool_high": bounds[1],
        }
        most = [lacking(side[0], *side[1:]).max() for side in (y, x)]
        if rng.random() < 0.8:
            # Windows that lack more than the table tells apart have one scale.
            alike = [lacks > pool_lacks or rng.random() < 0.2 for lacks in most]
            size = [1 if one else lacks + 1 for one, lacks in zip(alike, most, strict=True)]
            table = rng.integers(0, 100, size)
            cut_scales = table.tolist()
            for axis in (0, 1):
                table = table.repeat(pool_lacks + 1 if alike[axis] else 1, axis)
            written = table.tolist()
            mean |= {"pool_scale": cut_scales[0][0], "pool_scales": table.size - 1}
    low, high = max(-16, -16 - origin), min(15, 15 - origin)
    values = rng.integers(low, high, (maps, channels, y[0], x[0]), endpoint=True)
    fields: dict[str, int] = {}
    for side, axis, (length, kernel, stride, pad, count) in (("height", "y", y), ("width", "x", x)):
        fields |= {
            f"out_{side}": length,
            f"pool_{side}": kernel,
            f"pool_stride_{axis}": stride,
            f"pool_pad_{axis}": pad,
            f"pooled_{side}": count,
        }
    run = pooling_run(pool=pool, **mean, **fields)
    live = min(-(-y[1] // y[2]), y[4])
    depth = 1 << max(4, (live * x[4] * channels - 1).bit_length())  # as small as it may be
    config = Config(
        lanes=1,
        activation_bits=5,
        pool_depth=depth,
        pool_lacks=pool_lacks,
        output_cycles=output_cycles,
    )
    expected = pooled(values, run, cut_scales)
    results, _, _ = simulate(
        make_pooler(config),
        inputs_of(values),
        len(expected),
        run=run,
        channels=channels,
        cut_scales=written,
        gaps=gaps,
        stalls=stalls,
    )
    assert results == expected


def test_a_global_average_and_a_second_run() -> None:
    values = np.random.default_rng(1).integers(-16, 15, (1, 3, 7, 7), endpoint=True)
    run = pooling_run(
        pool=Pool.AVERAGE,
        out_height=7,
        out_width=7,
        pool_height=7,
        pool_width=7,
        pooled_height=1,
        pooled_width=1,
        pool_scale=round(2**20 / 49),
        pool_shift=20,
    )
    expected = pooled(values, run)
    results, _, _ = simulate(Pooler(SMALL), inputs_of(values), 3, run=run, channels=3, runs=2)
    assert results == expected * 2


def test_without_pooling_values_pass_at_full_rate() -> None:
    values = np.random.default_rng(2).integers(-16, 15, (1, 2, 3, 5), endpoint=True)
    inputs = inputs_of(values)
    results, accepted, sent = simulate(
        Pooler(SMALL), inputs, len(inputs), run={"pool": Pool.NONE}, channels=2
    )
    assert results == [(item["value"], item["last"]) for item in inputs]
    assert accepted == sent == list(range(accepted[0], accepted[0] + len(inputs)))


@pytest.mark.parametrize("pool", [Pool.MAX, Pool.AVERAGE])
def test_disjoint_windows_take_a_value_per_cycle(pool: Pool) -> None:
    values = np.random.default_rng(3).integers(-16, 15, (2, 3, 4, 6), endpoint=True)
    run = pooling_run(pool=pool, out_height=4, out_width=6, pooled_height=2, pooled_width=3)
    expected = pooled(values, run)
    results, accepted, sent = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=3
    )
    assert results == expected
    assert accepted == list(range(accepted[0], accepted[0] + values.size))
    # Values 3 to 5 of each 6, of odd rows, are the last ones of their windows.
    final = [cycle for n, cycle in enumerate(accepted) if n // 18 % 2 and n // 3 % 2]
    assert sent == [cycle + 8 for cycle in final]


def test_overlapping_windows_take_a_cycle_per_value_and_window() -> None:
    values = np.random.default_rng(4).integers(-16, 15, (1, 2, 5, 5), endpoint=True)
    run = pooling_run(
        out_height=5,
        out_width=5,
        pool_height=3,
        pool_width=3,
        pooled_height=2,
        pooled_width=2,
    )
    expected = pooled(values, run)
    results, accepted, _ = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=2
    )
    assert results == expected
    windows = np.array([1, 1, 2, 1, 1])
    cycles = np.outer(windows, windows).repeat(2)
    assert np.diff([accepted[0] - 1, *accepted]).tolist() == cycles.tolist()


def test_windows_cut_by_the_edges_are_sent_at_one_per_cycle() -> None:
    values = np.random.default_rng(5).integers(-16, 15, (1, 3, 2, 2), endpoint=True)
    run = pooling_run(
        out_height=2,
        out_width=2,
        pool_stride_y=1,
        pool_stride_x=1,
        pooled_height=2,
        pooled_width=2,
    )
    expected = pooled(values, run)
    results, _, sent = simulate(
        Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=3
    )
    assert results == expected
    assert sent == list(range(sent[0], sent[0] + len(expected)))


def test_all_rows_of_windows_cut_by_the_end_of_the_map_are_sent() -> None:
    values = np.random.default_rng(6).integers(-16, 15, (2, 2, 5, 2), endpoint=True)
    run = pooling_run(
        out_height=5,
        out_width=2,
        pool_height=4,
        pool_stride_y=1,
        pooled_height=5,
        pooled_width=1,
    )
    expected = pooled(values, run)
    results, _, _ = simulate(Pooler(SMALL), inputs_of(values), len(expected), run=run, channels=2)
    assert results == expected


@pytest.mark.cocotb
def test_pooler_verilog_equals_golden(tmp_path: Path) -> None:
    config: dict[str, Any] = {"lanes": 1, "pool_depth": 64}
    count = run_cocotb(
        Pooler(Config(**config)),
        test_module="cocotb_pooler",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(config)},
    )
    assert count == 4
