"""Compressed networks: shapes, ranges, overflow bounds, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from thresher.golden.inference import infer
from thresher.golden.inspect import inspect_network
from thresher.golden.network import (
    AveragePool,
    CompressedNetwork,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    WeightedLayer,
    accumulator_bound,
    check_accumulators,
)
from thresher.golden.random_network import random_inputs, random_network


def constants(out: int) -> dict[str, Any]:
    return {"bias": [0] * out, "scale": [1] * out, "shift": [0] * out}


def convolution(shape: tuple[int, int, int, int] = (4, 2, 3, 3), **changes: Any) -> Convolution:
    weights = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 3
    fields = {"codebook": np.array([0, 5, -3]), **constants(shape[0]), **changes}
    return Convolution(**{"name": "conv", "weights": weights, **fields})


def linear(out: int, size: int, **changes: Any) -> Linear:
    weights = np.ones((out, size), dtype=np.uint8)
    fields = {"name": "linear", "codebook": [0, 2], "weights": weights, **constants(out), **changes}
    return Linear(**fields)


def network(*layers: Layer, shape: tuple[int, int, int] = (2, 8, 6)) -> CompressedNetwork:
    return CompressedNetwork(name="test", input_shape=shape, input_range=(0, 255), layers=layers)


def test_shapes_follow_the_layers() -> None:
    whole = network(
        convolution(padding=(1, 2, 0, 1), stride=(2, 1), clip=(-100, 90)),
        MaxPool(name="max", inputs=("conv",), kernel=(2, 2), stride=(2, 2), padding=(0, 0, 1, 1)),
        AveragePool(name="mean", inputs=("max",), kernel=(2, 2), stride=(1, 1), scale=1, shift=2),
        Flatten(name="flat", inputs=("mean",)),
        linear(3, 12, inputs=("flat",)),
    )
    assert whole.shapes() == {
        "input": (2, 8, 6),
        "conv": (4, 4, 7),
        "max": (4, 2, 4),
        "mean": (4, 1, 3),
        "flat": (12, 1, 1),
        "linear": (3, 1, 1),
    }


def test_ranges_follow_the_layers() -> None:
    whole = network(
        convolution(clip=(-100, 90)),
        MaxPool(name="max", inputs=("conv",), kernel=(2, 2), stride=(1, 1)),
        AveragePool(name="sum", inputs=("max",), kernel=(2, 3), stride=(1, 1), scale=1, shift=1),
    )
    expected = {"input": (0, 255), "conv": (-100, 90), "max": (-100, 90), "sum": (-300, 270)}
    assert whole.ranges() == expected
    assert whole.output == "sum"
    assert whole.layer("max") is whole.layers[1]
    with pytest.raises(KeyError, match="no layer 'none'"):
        whole.layer("none")


def test_an_average_of_a_padded_window_may_be_nearer_to_zero() -> None:
    mean = AveragePool(
        name="mean", kernel=(2, 2), stride=(1, 1), padding=(1, 1, 1, 1), scale=1, shift=2
    )
    assert mean.output_range((100, 200)) == (25, 200)
    assert replace(mean, padding=(0, 0, 0, 0)).output_range((100, 200)) == (100, 200)


def test_values_are_kept_and_cannot_be_changed() -> None:
    layer = convolution()
    assert layer.dense_weights()[0, 0].tolist() == [[0, 5, -3]] * 3
    assert layer.weights.dtype == np.uint8
    assert layer.bias.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0] = 1
    assert layer == convolution()
    assert layer != convolution(padding=(1, 0, 0, 0))
    assert network(layer) == network(convolution())


def test_codebooks_can_be_exchanged() -> None:
    changed = network(convolution()).with_codebooks({"conv": [0, 1, 2]})
    layer = changed.layers[0]
    assert isinstance(layer, WeightedLayer)
    assert layer.codebook.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "input"}, "a layer's name must be a text other than 'input', not 'input'"),
        ({"inputs": ("a", "b")}, r"inputs must be one name, not \('a', 'b'\)"),
        ({"weights": np.zeros((1, 1, 1, 1))}, "weights must be uint8 indices, not float64"),
        ({"weights": np.zeros((4, 2), np.uint8)}, r"kernel width\), not \(4, 2\)"),
        ({"weights": np.full((4, 2, 3, 3), 3, np.uint8)}, "indices below 3.* not 3"),
        ({"codebook": np.zeros(257, np.int64)}, "codebook must have 1 to 256 entries, not 257"),
        ({"codebook": [0, 1, 300]}, r"codebook must be in -256\.\.256, not 300"),
        ({"codebook": [0.0, 1.0, 2.0]}, "codebook must be integers, not float64"),
        ({"bias": [0, 0, 0]}, r"bias must have shape \(4,\), not \(3,\)"),
        ({"bias": [0, 0, 0, 1 << 47]}, "bias must be in .* not 140737488355328"),
        ({"scale": [0, 0, 0, -1]}, r"scale must be in 0\.\.2147483647, not -1"),
        ({"shift": [0, 0, 0, 64]}, r"shift must be in 0\.\.63, not 64"),
        ({"rounding": 4}, "rounding must be a Rounding, not 4"),
        ({"clip": (5, 4)}, r"clip must be \(low, high\) with low <= high, not \(5, 4\)"),
        ({"clip": (0, 1 << 15)}, "clip must be 2 integers in .* not"),
        ({"stride": (0, 1)}, r"stride must be 2 integers in 1\.\.255, not \(0, 1\)"),
        ({"dilation": (1,)}, r"dilation must be 2 integers in 1\.\.255, not \(1,\)"),
        ({"groups": 3}, "groups must divide the 4 output channels, not 3"),
        ({"padding": (0, 0, 256, 0)}, r"padding must be 4 integers in 0\.\.255"),
        ({"padding": (True, 0, 0, 0)}, "padding must be 4 integers"),
    ],
)
def test_a_wrong_field_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        convolution(**changes)
    assert "name" in changes or "'conv'" in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (((9,),) * 4, r"cut_scales must be up to 3 x 2 scales of up to 31 bits, not \(\(9,\),"),
        (((9, 9), (9,)), "cut_scales must be up to"),
        (((9, -1),), "cut_scales must be up to"),
        (((7, 9),), "cut_scales must begin with scale, 9, not 7"),
        (
            ((9, 9),) * 2,
            "a window has 2 rows outside of the map, and cut_scales are for less than 2",
        ),
    ],
)
def test_wrong_scales_of_cut_windows_are_refused(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AveragePool(
            name="mean",
            kernel=(3, 2),
            stride=(1, 1),
            padding=(2, 1, 0, 0),
            scale=9,
            shift=3,
            cut_scales=table,
        ).output_shape((1, 8, 8))


@pytest.mark.parametrize("around", [4, 5, 9])
def test_padding_may_fill_a_dilated_kernel_and_more(around: int) -> None:
    layer = convolution(padding=(around, 4, 4, 4), dilation=(2, 2))
    assert layer.extent == (5, 5)
    assert layer.output_shape((2, 1, 1)) == (4, around + 1, 5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "at least one layer"),
        ((convolution(), convolution()), "layer 'conv': the name is taken"),
        ((convolution(inputs=("other",)),), "its input 'other' is no layer before it"),
        ((convolution((4, 3, 3, 3)),), "layer 'conv': input must have 3 channels, not 2"),
        ((convolution((4, 2, 9, 3)),), r"a window of \(9, 3\) must fit the padded map"),
        ((linear(3, 95),), r"input must have 95 values, not shape \(2, 8, 6\)"),
        (
            (AveragePool(name="sum", kernel=(8, 6), stride=(1, 1), scale=9, shift=0),),
            r"outputs must fit 16 bits, not reach 0\.\.110160",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(*layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a network's name must be a text, not ''"),
        ({"input_shape": (2, 8)}, r"input_shape must be .* not \(2, 8\)"),
        ({"input_range": (0, 1 << 15)}, r"input_range must be in -32768\.\.32767, not"),
        ({"input_range": (9, 3)}, r"input_range must be \(low, high\), not \(9, 3\)"),
        ({"multiplier": "fast"}, "'fast' is not a valid MultiplierKind"),
    ],
)
def test_a_wrong_network_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(network(convolution()), **changes)


def test_the_accumulator_bound_is_reached() -> None:
    layer = linear(1, 3, codebook=[-4, 7], weights=np.array([[0, 1, 0]], np.uint8), bias=[-10])
    assert accumulator_bound(layer, (-2, 5)) == (-10 - 20 - 20 - 14, 8 + 8 + 35)
    assert accumulator_bound(layer, (3, 5)) == (-50, 35)


def test_accumulators_are_proven_to_the_bit() -> None:
    layer = linear(1, 96, codebook=[0, 127])
    check_accumulators(network(layer), 23)  # 96 * 127 * 255 = 3 108 960
    with pytest.raises(ValueError, match=r"'linear': accumulators must have 23 bits.*not 22"):
        check_accumulators(network(layer), 22)
    least = linear(1, 1, codebook=[0, -1], bias=[-(1 << 20) + 255])
    check_accumulators(network(least, shape=(1, 1, 1)), 21)


@pytest.mark.parametrize("seed", range(40))
def test_a_random_network_is_valid_and_within_its_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    random = random_network(rng, pool_first=bool(seed % 2))
    result = infer(random, random_inputs(rng, random, 3))
    for layer in random.layers:
        low, high = random.ranges()[layer.name]
        values = result.outputs[layer.name]
        assert values.shape == (3, *random.shapes()[layer.name])
        assert low <= values.min() <= values.max() <= high


def test_random_networks_cover_what_they_promise() -> None:
    layers = [
        layer for seed in range(300) for layer in random_network(np.random.default_rng(seed)).layers
    ]
    convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
    assert {Convolution, Linear, MaxPool, AveragePool, Flatten} == {type(one) for one in layers}
    assert {layer.stride for layer in convolutions} == {
        (y, x) for y in (1, 2, 3) for x in (1, 2, 3)
    }
    assert {layer.dilation for layer in convolutions} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert any(1 < layer.groups == layer.in_channels for layer in convolutions)
    assert any(1 < layer.groups < layer.in_channels for layer in convolutions)
    densities = {np.count_nonzero(one.dense_weights()) / one.weights.size for one in convolutions}
    assert {0.0, 1.0} < densities
    assert {1, 256} < {layer.codebook.size for layer in convolutions}
    assert any(max(layer.padding) > 2 for layer in convolutions)


def test_the_table_of_a_network_has_a_row_a_layer() -> None:
    rows = inspect_network(
        network(convolution(), MaxPool(name="max", inputs=("conv",), kernel=(2, 2), stride=(2, 2)))
    )
    first, second = rows
    assert (first.kind, first.weight_shape, first.weight_bits) == ("Convolution", (4, 2, 3, 3), 4)
    assert (first.weights.values, first.weights.nonzero) == (72, 48)
    assert (first.macs.dense, first.macs.weights) == (72 * 24, 48 * 24)
    assert (second.kind, second.output_shape, second.macs.dense) == ("MaxPool", (4, 3, 2), 0)
