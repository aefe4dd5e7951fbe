"""Convolutions that gather some of a map's values: each value is where it should be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork
from thresher.golden.read.gathering import NOWHERE, gather

RANGE = (-5, 5)


def grids(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Return places of one to five channels: grids of one step, here and there, or of zeros."""
    (top, bottom), (left, right) = rng.integers(0, 4, (2, 2))
    numbers = np.pad(
        np.arange(np.prod(shape)).reshape(shape),
        ((0, 0), (top, bottom), (left, right)),
        constant_values=NOWHERE,
    )
    step_y, step_x = (int(step) for step in rng.integers(1, 4, 2))
    height = int(rng.integers(1, (numbers.shape[1] - 1) // step_y + 2))
    width = int(rng.integers(1, (numbers.shape[2] - 1) // step_x + 2))
    channels = []
    for _ in range(int(rng.integers(1, 6))):
        y = int(rng.integers(0, numbers.shape[1] - (height - 1) * step_y))
        x = int(rng.integers(0, numbers.shape[2] - (width - 1) * step_x))
        grid = numbers[rng.integers(shape[0])][y::step_y, x::step_x][:height, :width]
        channels.append(grid if rng.random() < 0.8 else np.full_like(grid, NOWHERE))
    return np.array(channels)


def test_values_are_where_they_should_be() -> None:
    rng = np.random.default_rng(20261124)
    for _ in range(500):
        size = [int(side) for side in rng.integers(1, 7, 3)]
        shape = size[0], size[1], size[2]
        places = grids(rng, shape)
        layer = gather(places, "input", shape, RANGE, "some")
        assert (layer is None) == bool((places == NOWHERE).all())
        if layer is None:
            continue
        network = CompressedNetwork(name="n", input_shape=shape, input_range=RANGE, layers=(layer,))
        inputs = rng.integers(RANGE[0], RANGE[1] + 1, (2, *shape))
        flat = np.concatenate([inputs.reshape(2, -1), np.zeros((2, 1), np.int64)], axis=1)
        made = infer(network, inputs, counts=False).outputs["some"]
        assert np.array_equal(made, flat[:, places])


@pytest.mark.parametrize(
    "places",
    [
        np.arange(12).reshape(1, 3, 4).transpose(0, 2, 1),
        np.arange(12).reshape(1, 3, 4)[:, ::-1],
        np.arange(12).reshape(1, 3, 4)[:, [0, 2, 1]],
        np.arange(12).reshape(1, 2, 6),
        np.array([[[0, 0], [4, 4]]]),
        np.concatenate([np.arange(12).reshape(1, 3, 4)[:, :, ::3], [[[0, 1], [4, 5], [8, 9]]]]),
        np.pad(np.zeros((1, 1, 1), np.int64), ((0, 0), (0, 0), (0, 256)), constant_values=NOWHERE),
    ],
)
def test_what_is_no_grid_is_not_gathered(places: npt.NDArray[np.int64]) -> None:
    assert gather(places, "x", (1, 3, 4), RANGE, "some") is None
