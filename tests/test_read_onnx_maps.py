"""ONNX: maps that are moved, joined, padded and pooled are what onnxruntime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import (
    SEED,
    Model,
    as_stored,
    check_dense,
    check_read,
    compare,
    focus,
    problems_of,
    q_linear_parts,
    with_floats,
)

from thresher.golden.network import AveragePool, ChannelShuffle, Convolution
from thresher.golden.pooling import average_pool, lacking


@pytest.mark.parametrize("is_float", [False, True])
def test_rows_and_columns_as_channels(tmp_path: Path, *, is_float: bool) -> None:
    model = Model(1, 3, 8, 10)
    if is_float:
        y = with_floats(model, "Conv", focus(model, "x"), 5, 12, 3, 3)
        check_dense(tmp_path, model, y, count=10)
        return
    y = focus(model, model.both("x", 0.02, 11))
    y = model.node("Conv", y, model.weights(5, 12, 3, 3), pads=[1] * 4)
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert [type(layer) for layer in network.layers] == [Convolution] * 2
    assert network.layers[0].kernel == network.layers[0].stride == (2, 2)  # type: ignore[attr-defined]


def test_a_shortcut_of_every_second_place_with_channels_of_zeros(tmp_path: Path) -> None:
    model = Model(1, 4, 9, 8)
    x = model.both("x", 0.02, 11)
    y = model.node("Conv", x, model.weights(8, 4, 3, 3), pads=[1] * 4, strides=[2, 2])
    y = model.both(y, 0.05, -4)
    ends = (np.array([0, 0]), np.array([9, 8]), np.array([2, 3]), np.array([2, 2]))
    z = model.node("Slice", x, *map(model.constant, ends))
    z = model.node("Pad", z, model.constant(np.array([0, 2, 0, 0, 0, 2, 0, 0])))
    check_read(tmp_path, model, model.quantise(model.node("Add", y, z), 0.0613))


@pytest.mark.parametrize("quantised", [True, False])
def test_concatenations(tmp_path: Path, quantised: bool) -> None:
    model = Model(1, 3, 7, 7)
    x = model.both("x", 0.02)
    parts = []
    for channels, scale in ((4, 0.03), (5, 0.05)):
        y = model.node("Conv", x, model.weights(channels, 3, 3, 3), pads=[1, 1, 1, 1])
        parts.append(model.both(y, scale, 4) if quantised else model.node("Relu", y))
    y = model.both(model.node("Concat", *parts, x, axis=1), 0.04, -9)
    y = model.node("Conv", y, model.weights(4, 12, 1, 1))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert network.shapes()[network.output] == (4, 7, 7)


def test_a_channel_shuffle(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6)
    y = model.node("Conv", model.both("x", 0.02), model.weights(8, 3, 1, 1))
    y = model.both(y, 0.03, 4)
    y = model.node("Reshape", y, model.constant(np.array([1, 2, 4, 6, 6])))
    y = model.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = model.node("Reshape", y, model.constant(np.array([1, -1, 6, 6])))
    first = model.node("Split", y, outputs=2, axis=1)
    second = f"{first}_1"
    y = model.node("Conv", first, model.weights(4, 1, 3, 3), pads=[1] * 4, group=4)
    y = model.node("Concat", second, model.both(y, 0.05), axis=1)
    y = model.node("Conv", model.both(y, 0.04), model.weights(3, 8, 1, 1))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    orders = [layer.order for layer in network.layers if isinstance(layer, ChannelShuffle)]
    assert sorted(orders) == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_slices_and_gathers_of_channels(tmp_path: Path) -> None:
    model = Model(1, 6, 5, 5)
    x = model.both("x", 0.02)
    bounds = (model.constant(np.array([number])) for number in (1, 6, 1, 2))
    y = model.node("Slice", x, *bounds)
    one = model.both(model.node("Conv", y, model.weights(3, 3, 1, 1)), 0.05)
    y = model.node("Gather", x, model.constant(np.array([4, 0, 2])), axis=1)
    y = model.node("Add", one, y)
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    orders = [layer.order for layer in network.layers if isinstance(layer, ChannelShuffle)]
    assert sorted(orders) == [(1, 3, 5), (4, 0, 2)]


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]},
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
)
def test_maximum_pooling(tmp_path: Path, size: tuple[int, int], attributes: dict[str, Any]) -> None:
    model = Model(1, 3, *size)
    check_read(tmp_path, model, model.node("MaxPool", model.quantise("x", 0.02, 5), **attributes))


@pytest.mark.parametrize("scale", [0.02, 0.015, 0.004])
def test_average_pooling(tmp_path: Path, scale: float) -> None:
    model = Model(1, 3, 9, 9)
    y = model.node(
        "AveragePool", model.both("x", 0.02, 20), kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 0, 1], count_include_pad=1,
    )  # fmt: skip
    network = check_read(tmp_path, model, model.quantise(y, scale, 20))
    (layer,) = network.layers
    assert isinstance(layer, AveragePool)
    assert layer.clip == (None if scale == 0.02 else (-148, 107))


_CUT = [
    {"kernel_shape": [3, 3], "pads": [1] * 4},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
    {
        **{"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        **{"ceil_mode": 1, "count_include_pad": 1},
    },
    {"kernel_shape": [1, 5], "strides": [1, 3], "pads": [0, 2, 0, 2]},
    {"kernel_shape": [7, 4], "pads": [3, 3, 3, 0]},
    {"kernel_shape": [9, 9], "pads": [4] * 4},
    {"kernel_shape": [9, 5], "strides": [4, 2], "pads": [4, 2, 4, 2]},
    {"kernel_shape": [19, 17], "pads": [9, 8, 9, 8]},
]


@pytest.mark.parametrize("source", ["x", "conv"])
@pytest.mark.parametrize("is_float", [False, True])
def test_a_map_concatenated_with_itself(tmp_path: Path, source: str, is_float: bool) -> None:
    model = Model(1, 3, 8, 8)
    if is_float:
        y = "x" if source == "x" else with_floats(model, "Conv", "x", 3, 3, 3, 3)
        y = model.node("Concat", y, y, y, axis=1)
        check_dense(tmp_path, model, with_floats(model, "Conv", y, 4, 9, 3, 3), count=10)
        return
    y = model.both("x", 0.02)
    if source == "conv":
        y = model.both(model.node("Conv", y, model.weights(3, 3, 3, 3)), 0.05)
    y = model.node("Concat", y, y, y, axis=1)
    y = model.node("Conv", y, model.weights(4, 9, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert {"Concat"} < {type(layer).__name__ for layer in network.layers}


@pytest.mark.parametrize("attributes", _CUT)
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_averages_of_windows_that_the_edges_cut(
    tmp_path: Path, size: tuple[int, int], attributes: dict[str, Any]
) -> None:
    model = Model(1, 3, *size)
    y = model.node("AveragePool", model.both("x", 0.02, 20), **attributes)
    check_read(tmp_path, model, model.quantise(y, 0.013, 20))


@pytest.mark.parametrize("scale", [0.02, 1 / 64])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [4, 4]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
        *_CUT,
    ],
)
def test_averages_of_equal_scales_differ_in_exact_halves_alone(
    tmp_path: Path, attributes: dict[str, Any], scale: float
) -> None:
    model = Model(1, 3, 9, 8)
    output = model.quantise(
        model.node("AveragePool", model.both("x", scale, 20), **attributes), scale, 20
    )
    # Single precision rounds a half up or down, as its inputs happen to have been rounded.
    network = check_read(tmp_path, model, output, part=0.9)
    (layer,) = network.layers
    assert isinstance(layer, AveragePool)
    inputs = np.random.default_rng(SEED).normal(size=(200, 3, 9, 8)).astype(np.float32)
    ours, theirs = (one[layer.name] for one in compare(tmp_path / "model.onnx", network, inputs))
    windows = layer.kernel, layer.stride, layer.padding[:2], network.shapes()[layer.name][1:]
    sums = average_pool(
        as_stored(network, inputs), *windows, scale=1, shift=0, rounding=layer.rounding
    )
    table = np.array(layer.cut_scales or ((layer.scale,),))
    places = [
        lacking(size, *side) * (count > 1)
        for size, count, *side in zip((9, 8), table.shape, *windows, strict=True)
    ]
    divisors = np.rint((1 << layer.shift) / table[np.ix_(*places)]).astype(np.int64)
    halves = 2 * sums % (2 * divisors) == divisors
    assert np.array_equal(ours[~halves], theirs[~halves])
    dyadic = halves & (divisors & (divisors - 1) == 0)  # golden computes these without error
    if scale == 1 / 64:  # and single precision, too
        assert np.array_equal(ours[dyadic], theirs[dyadic])
    elif dyadic.any():
        assert (ours == theirs)[dyadic].mean() > 0.55


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("attributes", _CUT)
def test_averages_of_integers_whose_windows_the_edges_cut(
    tmp_path: Path, attributes: dict[str, Any], dtype: Any
) -> None:
    model = Model(1, 3, 9, 8)
    at_x, at_y = (q_linear_parts(model, scale, 9, dtype) for scale in (0.02, 0.0131))
    x = model.node("QuantizeLinear", "x", *at_x)
    y = model.node("QLinearAveragePool", x, *at_x, *at_y, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, None, None])
    check_read(tmp_path, model, y)


@pytest.mark.parametrize("attributes", _CUT)
def test_averages_of_windows_that_the_edges_cut_of_a_float_model(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    model = Model(1, 3, 9, 8)
    y = model.node("AveragePool", with_floats(model, "Conv", "x", 4, 3, 3, 3), **attributes)
    check_dense(tmp_path, model, y, count=10)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"])
def test_pooling_of_whole_maps(tmp_path: Path, op: str) -> None:
    model = Model(1, 5, 6, 7)
    more = {"axes": [2, 3]} if op == "ReduceMean" else {}
    y = model.both(model.node(op, model.both("x", 0.02, 20), **more), 0.01)
    y = model.node("Squeeze", y, model.constant(np.array([2, 3])))
    y = model.node("MatMul", y, model.weights(5, 6, axis=None))
    check_read(tmp_path, model, model.quantise(y, 0.03), count=200)


@pytest.mark.parametrize("axis", [2, 3, -1])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_means_of_rows_or_columns(tmp_path: Path, axis: int, layout: str, keepdims: int) -> None:
    model = Model(1, 5, 6, 7)
    y = model.node("Conv", model.both("x", 0.02, 20), model.weights(5, 5, 1, 1))
    y = model.both(y, 0.05, 20)
    if layout == "NHWC":
        y = model.node("Transpose", y, perm=[0, 2, 3, 1])
        axis = 1 if axis == 2 else 2
    y = model.node("ReduceMean", y, axes=[axis], keepdims=keepdims)
    if layout == "NHWC":
        y = model.node("Transpose", y, perm=[0, 3, 1, 2] if keepdims else [0, 2, 1])
    network = check_read(tmp_path, model, model.quantise(y, 0.021), count=200)
    assert isinstance(network.layers[1], AveragePool)
    assert network.layers[1].kernel in {(6, 1), (1, 7)}


def test_a_mean_over_channels_is_told(tmp_path: Path) -> None:
    model = Model(1, 5, 6, 7)
    y = model.node("ReduceMean", model.both("x", 0.02), axes=[1])
    (line,) = problems_of(tmp_path, model, model.quantise(y, 0.02))
    assert "it takes the mean over axes [1], not over height or width" in line


def test_padding_before_convolution_and_pooling(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 1, 0, 0, 0, 2, 1]))
    y = model.node(
        "Conv", model.node("Pad", model.both("x", 0.02, 9), pads), model.weights(3, 2, 3, 3)
    )
    y = model.both(model.node("Relu", y), 0.03, -128)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 0, 0]))
    y = model.node("MaxPool", model.node("Pad", y, pads), kernel_shape=[2, 2], strides=[2, 2])
    network = check_read(tmp_path, model, model.quantise(y, 0.03, -128))
    assert network.shapes()[network.output] == (3, 5, 4)


def test_a_padded_table_and_values_taken_twice(tmp_path: Path) -> None:
    model = Model(1, 2, 6, 6)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = model.node("Tanh", model.node("Pad", model.both("x", 0.02), pads))
    y = model.both(model.node("Conv", model.both(y, 0.01), model.weights(3, 2, 3, 3)), 0.03)
    y = model.node("GlobalAveragePool", y)
    y = model.node("Flatten", model.both(y, 0.0071))
    y = model.node("Gather", y, model.constant(np.array([2, 0, 2])), axis=1)
    half = model.constant(np.int8([[60, 3, 5], [-9, 40, 50]]))
    w = model.dequantise(half, 0.01)
    y = model.node("Gemm", y, w, transB=1)
    check_read(tmp_path, model, model.quantise(y, 0.004), count=200)


def test_an_input_with_channels_last_and_a_map_flattened_with_channels_last(
    tmp_path: Path,
) -> None:
    model = Model(1, 6, 5, 3)
    y = model.node("Transpose", model.both("x", 0.02, 9), perm=[0, 3, 1, 2])
    y = model.both(model.node("Conv", y, model.weights(4, 3, 3, 3)), 0.05)
    y = model.node("Transpose", y, perm=[0, 2, 3, 1])
    y = model.node("Reshape", y, model.constant(np.array([1, -1])))
    y = model.node("Gemm", y, model.weights(4 * 3 * 4, 6, axis=None))
    network = check_read(tmp_path, model, model.quantise(y, 0.3), count=100)
    assert network.metadata["input"] == {
        "scale": pytest.approx(0.02),
        "zero_point": 9,
        "dtype": "float32",
        "layout": "NHWC",
        "shape": [6, 5, 3],
    }


def test_a_shape_that_is_computed(tmp_path: Path) -> None:
    model = Model(1, 2, 4, 4)
    y = model.both(model.node("Conv", model.both("x", 0.02), model.weights(3, 2, 3, 3)), 0.04)
    size = model.node("Gather", model.node("Shape", y), model.constant(np.array(0)))
    size = model.node("Unsqueeze", size, model.constant(np.array([0])))
    shape = model.node("Concat", size, model.constant(np.array([-1])), axis=0)
    y = model.node("Gemm", model.node("Reshape", y, shape), model.weights(7, 12), transB=1)
    check_read(tmp_path, model, model.quantise(y, 0.2), count=200)


def test_a_batch_of_any_size(tmp_path: Path) -> None:
    model = Model("batch", 2, 4, 4)
    y = model.node("Conv", model.both("x", 0.02), model.weights(3, 2, 3, 3))
    check_read(tmp_path, model, model.quantise(y, 0.03), count=40)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_an_integer_input(tmp_path: Path, kind: int) -> None:
    model = Model(1, 2, 6, 6, kind=kind)
    dtype = np.int8 if kind == TensorProto.INT8 else np.uint8
    x = model.dequantise("x", 0.01, 30, dtype)
    y = model.node("Conv", x, model.weights(3, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.metadata["input"]["dtype"] == np.dtype(dtype).name  # type: ignore[index]
    assert network.input_range == ((-158, 97) if dtype == np.int8 else (-30, 225))


def test_pictures_that_the_model_scales(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6, kind=TensorProto.UINT8)
    y = model.node("Div", model.node("Cast", "x", to=1), model.constant(np.float32(255)))
    y = model.node("Sub", y, model.constant(np.float32(0.45)))
    y = model.node("Conv", model.both(y, 0.005, -20), model.weights(3, 3, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.input_range == (0, 255)


def test_a_softmax_at_the_end_is_the_hosts(tmp_path: Path) -> None:
    model = Model(1, 12)
    y = model.node("Gemm", model.both("x", 0.02), model.weights(12, 5, axis=None))
    y = model.node("Softmax", model.both(y, 0.04, 6))
    network = check_read(tmp_path, model, model.both(y, 1 / 256, -128), count=300)
    assert network.metadata["output"] == {
        "scale": pytest.approx(0.04), "zero_point": 6, "softmax": True
    }  # fmt: skip
