"""ONNX: what operations compute of values is what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import FLOAT_BIAS, Model, check_dense, check_read, q_linear_parts, with_floats

from thresher.golden.network import (
    AveragePool,
    ChannelShuffle,
    Convolution,
    Lookup,
    MaxPool,
    Multiply,
)
from thresher.golden.read import check_model


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"group": 2, "pads": [1, 1, 1, 1]},
        {"group": 4, "pads": [1, 0, 1, 0]},
        {"pads": [4, 4, 4, 4]},
    ],
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_convolutions(tmp_path: Path, attributes: dict[str, Any], dtype: Any) -> None:
    model = Model(1, 4, 9, 8)
    x = model.both("x", 0.03, 7 if dtype == np.int8 else 130, dtype)
    w = model.weights(8, 4 // attributes.get("group", 1), 3, 3)
    b = model.bias(8, 0.03, by_channel=True)
    y = model.node("Conv", x, w, b, kernel_shape=[3, 3], **attributes)
    network = check_read(
        tmp_path, model, model.quantise(y, 0.06, 3 if dtype == np.int8 else 120, dtype)
    )
    assert [type(layer) for layer in network.layers] == [Convolution]


@pytest.mark.parametrize("axis", [0, None])
def test_unsigned_weights_with_a_zero_point_have_nine_bits(
    tmp_path: Path, axis: int | None
) -> None:
    model = Model(1, 3, 6, 6)
    w = model.weights(5, 3, 3, 3, axis=axis, dtype=np.uint8)
    y = model.node("Conv", model.both("x", 0.02), w)
    network = check_read(tmp_path, model, model.quantise(model.node("Relu", y), 0.05, -128))
    (layer,) = network.layers
    assert isinstance(layer, Convolution)
    assert layer.codebook.min() == -131


def test_a_convolution_of_a_row(tmp_path: Path) -> None:
    model = Model(1, 4, 20)
    y = model.node("Conv", model.both("x", 0.02), model.weights(6, 4, 5), pads=[2, 1], strides=[2])
    y = model.node("MaxPool", model.both(y, 0.05), kernel_shape=[2], strides=[2])
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.input_shape == (4, 1, 20)


def test_a_one_by_one_kernel_may_be_padded(tmp_path: Path) -> None:
    model = Model(1, 4, 5, 5)
    w, b = model.weights(3, 4, 1, 1), model.constant(np.array([0.5, -1, 2], np.float32))
    y = model.node("Conv", model.both("x", 0.02), w, b, pads=[1, 1, 1, 1])
    network = check_read(tmp_path, model, model.quantise(y, 0.03))
    assert network.shapes()[network.output] == (3, 7, 7)


def test_quantised_biases_and_fake_quantised_weights(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6)
    b = model.bias(4, 0.0004)
    floats = model.constant(model.rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    w = model.both(floats, 0.02)
    y = model.node("Conv", model.both("x", 0.02), w, b)
    check_read(tmp_path, model, model.quantise(y, 0.0613))


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(tmp_path: Path, transposed: int) -> None:
    model = Model(1, 2, 4, 4)
    flat = model.node("Flatten", model.both("x", 0.02))
    w = model.weights(*((9, 32) if transposed else (32, 9)), axis=1 - transposed)
    b = model.bias(9, 0.01, by_channel=True)
    y = model.node("Gemm", flat, w, b, transB=transposed, alpha=0.5, beta=2.0)
    network = check_read(tmp_path, model, model.quantise(y, 0.04, -20), count=200)
    assert network.input_shape == (2, 4, 4)


def test_matmul_and_bias_of_a_vector_and_of_a_map(tmp_path: Path) -> None:
    model = Model(1, 5, 6, 3)
    x = model.both("x", 0.02, 5)
    w = model.weights(3, 7, axis=1)
    b = model.bias(7, 0.02, by_channel=True)
    y = model.both(model.node("Add", model.node("MatMul", x, w), b), 0.03)
    y = model.node("ReduceMean", y, axes=[1, 2], keepdims=0)
    y = model.node("MatMul", model.both(y, 0.0103), model.weights(7, 4, axis=None))
    b = model.bias(4, 0.0103, by_channel=True)
    network = check_read(tmp_path, model, model.quantise(model.node("Add", b, y), 0.02), count=300)
    assert network.input_shape == (3, 5, 6)
    assert network.metadata["input"]["layout"] == "NHWC"  # type: ignore[index]


def test_activation_functions_and_maximum_pooling_before_quantising(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    limits = model.constant(np.float32(-1)), model.constant(np.float32(2.5))
    y = model.node("Clip", y, *limits)
    y = model.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    y = model.both(y, 0.03, -5)
    y = model.node("Conv", y, model.weights(4, 4, 1, 1))
    network = check_read(tmp_path, model, model.quantise(model.node("Relu", y), 0.02, -128))
    assert network.shapes()[network.output] == (4, 4, 4)


def test_batch_normalisation_is_folded(tmp_path: Path) -> None:
    def batch_norm(model: Model, x: str) -> str:
        numbers = [model.rng.normal(size=6), *model.rng.normal(size=(2, 6))]
        parts = [*numbers, model.rng.uniform(0.5, 2, 6)]
        return model.node(
            "BatchNormalization", x, *(model.constant(x.astype(np.float32)) for x in parts)
        )

    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(6, 3, 3, 3))
    y = model.both(model.node("Relu", batch_norm(model, y)), 0.04, -128)
    y = model.quantise(batch_norm(model, y), 0.03)
    network = check_read(tmp_path, model, y, part=FLOAT_BIAS)
    assert len(network.layers) == 2


def test_float_biases_are_rounded_to_the_step_of_the_sums(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    w, b = model.weights(6, 3, 3, 3), model.constant(np.linspace(-1, 1, 6).astype(np.float32))
    y = model.node("Conv", model.both("x", 0.02), w, b)
    check_read(tmp_path, model, model.quantise(y, 0.06), part=FLOAT_BIAS)


@pytest.mark.parametrize("scales", [(0.05, 0.011), (0.011, 0.05), (0.02, 0.02)])
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums_of_different_scales(tmp_path: Path, scales: tuple[float, float], op: str) -> None:
    model = Model(1, 4, 8, 8)
    one, other = model.both("x", 0.02, 11), None
    one = model.both(model.node("Conv", one, model.weights(4, 4, 1, 1)), scales[0], 9)
    other = model.both(model.node("Conv", one, model.weights(4, 4, 1, 1)), scales[1], -30)
    y = model.node("Relu", model.node(op, one, other))
    check_read(tmp_path, model, model.quantise(y, 0.025, -128))


def test_a_sum_of_a_tensor_and_itself_or_a_number_is_a_table(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    x = model.both("x", 0.02, 11)
    y = model.both(model.node("Add", x, x), 0.03)
    y = model.node("Mul", model.constant(np.float32(0.7)), y)
    y = model.node("Div", y, model.constant(np.float32([3.0])))
    network = check_read(tmp_path, model, model.quantise(y, 0.01))
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_sum_of_integers_that_are_read_with_two_scales(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    q = model.quantise("x", 0.02, 11)
    y = model.node("Add", model.dequantise(q, 0.02, 11), model.dequantise(q, 0.0413, 11))
    check_read(tmp_path, model, model.quantise(y, 0.071))


def test_constants_by_channel(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    y = model.both("x", 0.02, 11)
    gains = model.constant(np.array([1.37, -0.51, 0.23, 0.0], np.float32).reshape(1, 4, 1, 1))
    offsets = model.constant(np.array([0.107, 0.21, -0.33, 0.5], np.float32).reshape(4, 1, 1))
    y = model.node("Add", model.node("Mul", y, gains), offsets)
    network = check_read(tmp_path, model, model.quantise(y, 0.02))
    assert [type(layer) for layer in network.layers] == [Convolution]


@pytest.mark.parametrize("op", ["Add", "Sub", "BatchNormalization"])
@pytest.mark.parametrize("reverse", [False, True])
def test_offsets_by_channel_take_the_weights_that_suit_them(
    tmp_path: Path, op: str, *, reverse: bool
) -> None:
    model = Model(1, 50, 16, 16)
    x = model.both("x", 0.02, 11)
    numbers = model.rng.normal(size=(4, 50)).astype(np.float32)
    if op == "BatchNormalization":
        numbers[3] = np.abs(numbers[3]) + 0.2
        y = model.node(op, x, *map(model.constant, numbers))
    else:
        constant = model.constant(numbers[0].reshape(1, 50, 1, 1))
        y = model.node(op, *((constant, x) if reverse else (x, constant)))
    check_read(tmp_path, model, model.quantise(y, 0.031, -3))


@pytest.mark.parametrize("signs", [1, 2])
@pytest.mark.parametrize("behind", ["input", "Conv", "Gemm"])
def test_slopes_by_channel(tmp_path: Path, behind: str, signs: int) -> None:
    model = Model(1, 6, 9, 8)
    slopes = model.rng.uniform(0, 1, 6)
    if signs == 2:
        slopes[[1, 3]] *= -0.5
        slopes[4] = 0
    y, shape = model.both("x", 0.02, 11), (6, 1, 1)
    if behind == "Conv":
        y = model.node("Conv", y, model.weights(6, 6, 3, 3), model.bias(6, 0.02, by_channel=True))
    elif behind == "Gemm":
        y, shape = model.node("Flatten", y), (1, 6)
        y = model.node("Gemm", y, model.weights(6, 432), transB=1)
    y = model.node("PRelu", y, model.constant(slopes.astype(np.float32).reshape(shape)))
    y = model.node("Clip", y, model.constant(np.float32(-0.9)), model.constant(np.float32(1.7)))
    network = check_read(tmp_path, model, model.quantise(y, 0.023, 7), count=40)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Add") == signs
    assert kinds.count("Linear" if behind == "Gemm" else "Convolution") == signs + 1


@pytest.mark.parametrize("op", ["LeakyRelu", "PRelu"])
def test_one_slope_of_sums_that_are_not_quantised(tmp_path: Path, op: str) -> None:
    model = Model(1, 3, 9, 8)
    y = model.both("x", 0.02, 11)
    y = model.node("Conv", y, model.weights(6, 3, 3, 3), model.bias(6, 0.02, by_channel=True))
    if op == "LeakyRelu":
        y = model.node(op, y, alpha=0.21)
    else:
        y = model.node(op, y, model.constant(np.float32([-0.21])))
    network = check_read(tmp_path, model, model.quantise(y, 0.023, 7), count=40)
    assert [type(layer).__name__ for layer in network.layers] == ["Convolution"] * 2 + ["Add"]


@pytest.mark.parametrize("slopes", [1, 5])
def test_slopes_of_a_float_model(tmp_path: Path, slopes: int) -> None:
    model = Model(1, 3, 9, 9)
    y = with_floats(model, "Conv", "x", 5, 3, 3, 3)
    numbers = model.rng.uniform(-0.3, 0.6, (slopes, 1, 1)).astype(np.float32)
    y = model.node("PRelu", y, model.constant(numbers))
    dense = check_dense(tmp_path, model, with_floats(model, "Conv", y, 4, 5, 3, 3), count=10)
    kinds = [layer.kind for layer in dense.layers]
    assert kinds == ["convolution", "unary", "convolution"] if slopes == 1 else "add" in kinds


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 0.7}),
        ("Selu", {}),
        ("Celu", {"alpha": 1.5}),
        ("ThresholdedRelu", {"alpha": 0.4}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("HardSigmoid", {"alpha": 0.15, "beta": 0.4}),
        ("HardSwish", {}),
        ("Mish", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Erf", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("Exp", {}),
        ("Abs", {}),
        ("Neg", {}),
        ("Ceil", {}),
        ("Floor", {}),
    ],
)
def test_functions_of_one_value_are_tables(
    tmp_path: Path, op: str, attributes: dict[str, Any]
) -> None:
    model = Model(1, 2, 30, 30, opset=20)
    y = model.node(op, model.both("x", 0.03, 20), **attributes)
    network = check_read(tmp_path, model, model.quantise(y, 0.013, -30))
    assert [type(layer) for layer in network.layers] == [Lookup]


def test_products_of_functions_of_one_value(tmp_path: Path) -> None:
    model = Model(1, 2, 30, 30)
    x = model.both("x", 0.05, 20)
    y = model.both(model.node("Mul", x, model.node("HardSigmoid", x, alpha=1 / 6)), 0.02, -100)
    y = model.node("Mul", model.node("Sigmoid", y), y)
    network = check_read(tmp_path, model, model.quantise(y, 0.02, -100), scale=3)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_function_of_which_each_step_is_quantised_is_one_table(tmp_path: Path) -> None:
    """Hard-swish as onnxruntime's quantiser leaves it."""
    model = Model(1, 2, 30, 30)
    x = model.both("x", 0.05, 20)
    gate = model.both(model.node("Add", x, model.constant(np.float32(3))), 0.05, -60)
    limits = (model.constant(np.float32(limit)) for limit in (0, 6))
    gate = model.both(model.node("Clip", gate, *limits), 0.024, -128)
    y = model.both(model.node("Mul", x, gate), 0.2, -100)
    y = model.node("Div", y, model.constant(np.float32(6)))
    network = check_read(tmp_path, model, model.quantise(y, 0.04, -100), scale=3)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_residual_of_functions_of_one_value_is_one_table(tmp_path: Path) -> None:
    model = Model(1, 4, 9, 9)
    x = model.both(model.node("Conv", model.both("x", 0.03), model.weights(6, 4, 3, 3)), 0.1, 3)
    one = model.both(model.node("Sigmoid", x), 0.004, -128)
    other = model.both(model.node("Tanh", x), 0.008)
    y = model.node("Add", one, other)
    network = check_read(tmp_path, model, model.quantise(y, 0.01, 5))
    assert [type(layer) for layer in network.layers] == [Convolution, Lookup]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_products_of_two_maps(tmp_path: Path, dtype: Any) -> None:
    """Also of maps whose channels are elsewhere, with a limit and a maximum pooling behind."""
    middle = 0 if dtype == np.int8 else 128
    model = Model(1, 4, 9, 9)
    source = model.both("x", 0.03, middle, dtype)
    x = model.both(model.node("Conv", source, model.weights(6, 4, 3, 3)), 0.1, middle + 3, dtype)
    y = model.both(model.node("Conv", source, model.weights(6, 4, 3, 3)), 0.1137, middle - 9, dtype)
    y = model.node("Gather", y, model.constant(np.array([3, 1, 0, 2, 5, 4])), axis=1)
    y = model.node("Relu", model.node("Mul", x, y))
    y = model.node("MaxPool", y, kernel_shape=[2, 2])
    network = check_read(tmp_path, model, model.quantise(y, 0.2, middle - 100, dtype), count=20)
    assert [type(layer) for layer in network.layers] == [
        Convolution, Convolution, ChannelShuffle, Multiply, MaxPool
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["map", "vector", "swapped"])
def test_squeeze_and_excite(tmp_path: Path, form: str) -> None:
    model = Model(1, 4, 9, 7)
    x = model.both(model.node("Conv", model.both("x", 0.03), model.weights(6, 4, 3, 3)), 0.1, -20)
    if form == "vector":
        mean = model.node("ReduceMean", x, axes=[2, 3], keepdims=0)
        y = model.both(
            model.node("MatMul", model.both(mean, 0.01), model.weights(6, 6, axis=None)), 0.01
        )
        y = model.both(model.node("HardSigmoid", y, alpha=1 / 6), 0.004, -128)
        y = model.node("Reshape", y, model.constant(np.array([1, 6, 1, 1])))
    else:
        mean = model.both(model.node("GlobalAveragePool", x), 0.01)
        y = model.both(model.node("Conv", mean, model.weights(6, 6, 1, 1)), 0.01)
        y = model.both(model.node("Sigmoid", y), 0.004, -128)
    y = model.node("Mul", *((y, x) if form == "swapped" else (x, y)))
    network = check_read(tmp_path, model, model.quantise(y, 0.07, -7), count=20)
    assert [type(layer).__name__ for layer in network.layers] == [
        "Convolution",
        "AveragePool",
        "Linear" if form == "vector" else "Convolution",
        "Lookup",
        "Multiply",
    ]


@pytest.mark.parametrize(("dtype", "middle"), [(np.int8, 0), (np.uint8, 128)])
def test_qlinear_products_of_maps(tmp_path: Path, dtype: Any, middle: int) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = Model(1, 3, 12, 12, kind=kind)
    at_x = q_linear_parts(model, 0.04, middle + 5, dtype)
    at_mean = q_linear_parts(model, 0.002, middle, dtype)
    at_y = q_linear_parts(model, 0.0013, middle - 100, dtype)
    mean = model.node("QLinearGlobalAveragePool", "x", *at_x, *at_mean)
    y = model.node("QLinearMul", mean, *at_mean, "x", *at_x, *at_y)
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, 12, 12])
    network = check_read(tmp_path, model, y)
    assert [type(layer) for layer in network.layers] == [AveragePool, Multiply]


@pytest.mark.parametrize(("dtype", "middle"), [(np.int8, 0), (np.uint8, 128)])
def test_qlinear_products_of_functions_of_one_value(
    tmp_path: Path, dtype: Any, middle: int
) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = Model(1, 3, 12, 12, kind=kind)
    at_x = q_linear_parts(model, 0.04, middle + 5, dtype)
    at_gate = q_linear_parts(model, 0.004, middle - 128, dtype)
    at_y = q_linear_parts(model, 0.03, middle - 100, dtype)
    gate = model.node("QLinearSigmoid", "x", *at_x, *at_gate)
    y = model.node("QLinearMul", "x", *at_x, gate, *at_gate, *at_y)
    third = model.constant(np.array(middle + 30, dtype))
    at_third = q_linear_parts(model, 0.01137, middle, dtype)
    y = model.node("QLinearMul", y, *at_y, third, *at_third, *at_y)
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, 12, 12])
    network = check_read(tmp_path, model, y)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_an_output_whose_shape_is_not_given(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    y = model.quantise(model.node("Conv", model.both("x", 0.02), model.weights(4, 2, 3, 3)), 0.1)
    proto = model.proto(y)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "model.onnx")
    assert check_model(tmp_path / "model.onnx") == []


def test_a_relu_that_is_not_quantised_again_is_a_table(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    y = model.node("Relu", model.both("x", 0.02, 20))
    y = model.node("Conv", y, model.weights(4, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.03))
    assert [type(layer) for layer in network.layers] == [Lookup, Convolution]


def test_requantised_and_reinterpreted_tensors(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    q = model.quantise("x", 0.02, 20)
    y = model.dequantise(q, 0.05, -3)  # other numbers for the same integers
    y = model.both(y, 0.03, 7)
    y = model.node("Conv", y, model.weights(4, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.1))
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup, Convolution]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_nodes_of_integers(tmp_path: Path, dtype: Any) -> None:
    model = Model(1, 3, 8, 8)
    middle = 0 if dtype == np.int8 else 128
    at_x = q_linear_parts(model, 0.02, middle + 5, dtype)
    x = model.node("QuantizeLinear", "x", *at_x)

    def convolved(x: str, at: tuple[str, str], channels: int, scale: float) -> Any:
        weights = model.constant(model.rng.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8))
        scales = model.constant(model.rng.uniform(0.002, 0.01, channels).astype(np.float32))
        zeros = model.constant(np.zeros(channels, np.int8))
        bias = model.constant(model.rng.integers(-3000, 3000, channels).astype(np.int32))
        result = q_linear_parts(model, scale, middle - 7, dtype)
        y = model.node(
            "QLinearConv", x, *at, weights, scales, zeros, *result, bias, pads=[1, 1, 1, 1]
        )
        return y, result

    one, at_one = convolved(x, at_x, 3, 0.02)
    other, at_other = convolved(one, at_one, 3, 0.05)
    at_sum = q_linear_parts(model, 0.045, middle, dtype)
    total = model.node("QLinearAdd", one, *at_one, other, *at_other, *at_sum)
    at_joined = q_linear_parts(model, 0.05, middle + 2, dtype)
    y = model.node("QLinearConcat", *at_joined, total, *at_sum, other, *at_other, axis=1)
    at_soft = q_linear_parts(model, 0.004, 0 if middle else -128, dtype)
    y = model.node("QLinearSigmoid", y, *at_joined, *at_soft)
    at_leaky = q_linear_parts(model, 0.005, middle - 100, dtype)
    y = model.node("QLinearLeakyRelu", y, *at_soft, *at_leaky, alpha=0.3)
    at_pool = q_linear_parts(model, 0.00613, middle - 100, dtype)
    y = model.node(
        "QLinearAveragePool", y, *at_leaky, *at_pool, kernel_shape=[2, 2], strides=[2, 2]
    )
    at_mean = q_linear_parts(model, 0.0053, middle - 90, dtype)
    y = model.node("QLinearGlobalAveragePool", y, *at_pool, *at_mean)
    y = model.node("Reshape", y, model.constant(np.array([1, 6])))
    weights = model.constant(model.rng.integers(-127, 128, (6, 9)).astype(np.int8))
    scales = q_linear_parts(model, 0.01, 0, np.int8)
    at_product = q_linear_parts(model, 0.02, middle, dtype)
    y = model.node("QLinearMatMul", y, *at_mean, weights, *scales, *at_product)
    weights = model.constant(model.rng.integers(-127, 128, (4, 9)).astype(np.int8))
    bias = model.constant(model.rng.integers(-300, 300, 4).astype(np.int32))
    at_end = q_linear_parts(model, 0.02, middle, dtype)
    y = model.node("QGemm", y, *at_product, weights, *scales, bias, *at_end, transB=1)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.output = helper.make_tensor_value_info(y, kind, [1, 4])
    check_read(tmp_path, model, y, count=40)
