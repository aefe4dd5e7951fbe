"""Densities: what the samples say is what the compiler reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from thresher.golden.densities import densities_of, with_densities
from thresher.golden.network import CompressedNetwork
from thresher.golden.random_network import random_graph, random_inputs, random_network


@pytest.mark.parametrize("draw", [random_network, random_graph])
def test_densities_are_those_of_the_samples(draw: Callable[..., CompressedNetwork]) -> None:
    rng = np.random.default_rng(3)
    network = draw(rng)
    samples = random_inputs(rng, network, 4)
    assert densities_of(network) == {}
    known = densities_of(with_densities(network, samples))
    expected = (samples != 0).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(known["input"], expected, atol=0.06)
    assert set(known) == {"input", *(layer.name for layer in network.layers)}


def test_no_channel_counts_as_quite_zero() -> None:
    rng = np.random.default_rng(3)
    network = random_network(rng)
    nothing = np.zeros((1, *network.input_shape), np.int64)
    assert densities_of(with_densities(network, nothing))["input"].min() > 0
