"""The token sequence by its definition: it computes convolutions, its markers frame its rows."""

from __future__ import annotations

import numpy as np
import pytest
from activation_runs import random_run

from thresher.golden.tokens import Item, items, tokens

DEPTH = 1 << 14  # accumulators: all rows of all maps at once


@pytest.mark.parametrize("seed", range(24))
def test_tokens_and_taps_make_a_convolution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, segments, shape = random_run(rng)
    stride_y, stride_x = run["stride_y"], run["stride_x"]
    extent_y = run["extent_y"]
    extent_x = int(
        rng.integers((run["kernel_width"] - 1) * stride_x + 1, run["kernel_width"] * stride_x + 1)
    )
    outputs = run["channels"]
    activations = rng.integers(-3, 4, shape)
    weights = rng.integers(-3, 4, (outputs, sum(segments), extent_y, extent_x))

    accumulators = np.zeros(DEPTH, dtype=np.int64)
    for token in tokens(activations, run, segments, group_depth=1 << 16, accumulator_depth=DEPTH):
        for group in range(token.lo, token.hi):
            channel, rest = divmod(group - run["group_base"], run["channel_groups"])
            phase, rest = divmod(rest, run["phase_groups"])
            phase_y, phase_x = divmod(phase, stride_x)
            ky, kx = divmod(rest, run["kernel_width"])
            full_y, full_x = ky * stride_y + phase_y, kx * stride_x + phase_x
            if full_y >= extent_y or full_x >= extent_x:
                continue  # a group without taps
            for n in range(outputs):
                offset = n - (ky * run["row_size"] + kx * outputs)
                accumulators[(token.base + offset) % DEPTH] += (
                    token.value * weights[n, channel, full_y, full_x]
                )

    after = 64  # enough zeros below and right of the map
    pads = ((0, 0), (0, 0), (run["pad_y"], after), (run["pad_x"], after))
    padded = np.pad(activations, pads)
    size = run["out_height"] * run["row_size"]
    for index in range(run["maps"]):
        expected = np.zeros((run["out_height"], run["out_width"], outputs), dtype=np.int64)
        for oy, ox in np.ndindex(expected.shape[:2]):
            y, x = oy * stride_y, ox * stride_x
            window = padded[index, :, y : y + extent_y, x : x + extent_x]
            expected[oy, ox] = (weights * window).sum((1, 2, 3))
        at = (index * run["map_size"] + np.arange(size)) % DEPTH
        np.testing.assert_array_equal(accumulators[at], expected.ravel())


@pytest.mark.parametrize("seed", range(24))
def test_markers_open_each_row_before_they_complete_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, _, shape = random_run(rng)
    none = np.zeros((shape[0], 0, *shape[2:]), dtype=int)
    sent = tokens(none, run, [], group_depth=1024, accumulator_depth=1024)
    assert all(token.marker for token in sent)
    open_rows = np.cumsum([1 if token.open else -1 for token in sent])
    assert open_rows.min() >= 0
    assert open_rows[-1] == 0
    assert sum(token.open for token in sent) == run["maps"] * run["out_height"]


def test_items_of_zeros() -> None:
    row = np.zeros((2, 2), dtype=int)
    assert items(row) == [Item(0, 0, False, False, True)]
    assert items(row, first_channel=3, send_zeros=True) == [
        Item(0, 3, False, True, False),
        Item(0, 4, False, True, False),
        Item(0, 3, True, True, False),
        Item(0, 4, False, True, True),
    ]


def test_refuses_what_does_not_match() -> None:
    run, segments, shape = random_run(np.random.default_rng(0))
    with pytest.raises(TypeError, match="must be integers, not float64"):
        tokens(np.zeros(shape), run, segments, group_depth=16, accumulator_depth=16)
    with pytest.raises(ValueError, match="must have shape"):
        tokens(np.zeros((1, 1, 1, 1), int), run, [7], group_depth=16, accumulator_depth=16)
