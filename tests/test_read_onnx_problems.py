"""ONNX: what cannot be read says why, and what would work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import SEED, Model, problems_of

from thresher.golden.read import ReadError, check_model, read_model


def test_problems_name_node_operation_reason_and_what_would_work(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    y = model.node("Conv", y, model.weights(4, 4, 1, 1))
    y = model.node("Conv", model.both(y, 0.02), model.weights(4, 4, 1, 1))
    y = model.node("LRN", model.both(y, 0.02), size=3)
    y = model.node("Gemm", model.node("Flatten", model.both(y, 0.02)), model.constant(
        np.ones((4 * 36, 2), np.float32)))  # fmt: skip
    assert problems_of(tmp_path, model, model.quantise(y, 0.02)) == [
        (
            "node 'Conv5' (Conv): its input is not quantised ('Conv3' computes it); "
            "quantise it there (QuantizeLinear, DequantizeLinear)"
        ),
        (
            "node 'LRN12' (LRN): this operation is not supported; "
            "replace it, or cut the model there and let the host compute it"
        ),
        (
            "node 'Gemm16' (Gemm): its weights are of float32; "
            "quantise it (QuantizeLinear, DequantizeLinear) to int8 or uint8"
        ),
    ]


def bad_convolution(scale: float = 0.05, **attributes: Any) -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    w = model.weights(4, 4 // attributes.pop("share", 1), 3, 3)
    y = model.node("Conv", model.both("x", 0.02), w, **attributes)
    return model, model.quantise(y, scale)


def bad_scale(scale: float) -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    return model, model.quantise(model.both("x", scale), 0.05)


def activations_by_channel() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    parts = model.constant(np.float32([0.1, 0.2])), model.constant(np.int8([0, 0]))
    q = model.node("QuantizeLinear", "x", *parts, axis=1)
    return model, model.quantise(model.node("DequantizeLinear", q, *parts, axis=1), 0.05)


def zero_point_of_another_type() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(
        model.dequantise(model.quantise("x", 0.02), 0.02, 128, np.uint8), 0.05
    )


def sixteen_bits() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8, opset=21)
    return model, model.both("x", 0.02, 0, np.int16)


def asymmetric_weights_by_channel() -> tuple[Model, str]:
    model = Model(1, 8, 8, 8)
    values = model.constant((np.arange(8 * 8 * 36) % 256).astype(np.uint8).reshape(8, 8, 6, 6))
    scales = model.constant(np.full(8, 0.01, np.float32))
    zeros = model.constant(np.arange(100, 108).astype(np.uint8))
    w = model.node("DequantizeLinear", values, scales, zeros, axis=0)
    return model, model.quantise(model.node("Conv", model.both("x", 0.02), w), 0.05)


def weights_by_input_channel() -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 4, 3, 3, axis=1))
    return model, model.quantise(y, 0.05)


def three_axes() -> tuple[Model, str]:
    model = Model(1, 2, 4, 4, 4)
    y = model.node("Conv", model.both("x", 0.02), model.weights(2, 2, 3, 3, 3))
    return model, model.quantise(y, 0.05)


def integer_bias() -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    b = model.constant(np.zeros(4, np.int32))
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 4, 3, 3), b)
    return model, model.quantise(y, 0.05)


def computed_integers() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8, kind=TensorProto.UINT8)
    w = model.constant(np.ones((2, 2, 3, 3), np.uint8))
    return model, model.node("ConvInteger", "x", w)


def float_output() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.node("Conv", model.both("x", 0.02), model.weights(4, 2, 3, 3))


def product_by_place() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    x = model.both("x", 0.02)
    y = model.both(model.node("Conv", x, model.weights(1, 2, 1, 1)), 0.03)
    return model, model.quantise(model.node("Mul", x, y), 0.05)


def quotient_of_maps() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    x = model.both("x", 0.02)
    y = model.both(model.node("Conv", x, model.weights(2, 2, 1, 1)), 0.03)
    return model, model.quantise(model.node("Div", x, y), 0.05)


def cut_windows() -> tuple[Model, str]:
    model = Model(1, 2, 22, 8)
    y = model.node("AveragePool", model.both("x", 0.02), kernel_shape=[39, 9], pads=[19, 4] * 2)
    return model, model.quantise(y, 0.05)


def dilated_pool() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.node("MaxPool", model.both("x", 0.02), kernel_shape=[2, 2], dilations=[2, 2])
    return model, model.quantise(y, 0.05)


def padding_without_end() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 0, 1 << 23, 0, 0, 0, 0]))
    y = model.node("Pad", model.both("x", 0.02), pads)
    return model, model.quantise(y, 0.05)


def vector_as_a_map() -> tuple[Model, str]:
    model = Model(1, 8)
    y = model.both(model.node("Gemm", model.both("x", 0.02), model.weights(8, 16, axis=None)), 0.05)
    y = model.node("Reshape", y, model.constant(np.array([1, 1, 4, 4])))
    return model, model.quantise(model.node("Conv", y, model.weights(2, 1, 3, 3)), 0.05)


def values_twice() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.both("x", 0.02)
    y = model.node("Concat", y, y, axis=2)
    return model, model.quantise(model.node("Conv", y, model.weights(3, 2, 3, 3)), 0.05)


def function_of_padding() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = model.node("Sigmoid", model.node("Pad", model.both("x", 0.02), pads))
    y = model.node("Conv", model.both(y, 0.004, -128), model.weights(4, 2, 3, 3))
    return model, model.quantise(y, 0.05)


def softmax_within() -> tuple[Model, str]:
    model = Model(1, 8)
    y = model.both(model.node("Softmax", model.both("x", 0.02)), 0.004, -128)
    return model, model.quantise(model.node("Gemm", y, model.weights(8, 4, axis=None)), 0.05)


def two_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, 8, 8]))
    y = model.node("Add", model.both("x", 0.02), model.both("z", 0.02))
    return model, model.quantise(y, 0.05)


def unknown_size() -> tuple[Model, str]:
    model = Model(1, 2, "height", 8)
    return model, model.both("x", 0.02)


def large_batch() -> tuple[Model, str]:
    model = Model(4, 2, 8, 8)
    return model, model.both("x", 0.02)


def cycle() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.node("Add", "x", "t1")
    return model, model.node("Relu", "t0")


def missing_tensor() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(model.node("Add", "x", "nothing"), 0.02)


def constant_output() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.both("x", 0.02)
    return model, model.node("Relu", model.constant(np.ones(3, np.float32)))


def too_few_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(model.node("Add", model.both("x", 0.02)), 0.02)


def two_different_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.node("Add", model.both("x", 0.02), model.both("x", 0.03))
    return model, model.quantise(y, 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bad_convolution(share=2), "its weights (4, 2, 3, 3) and 1 groups do not fit 4 "),
        (lambda: bad_convolution(kernel_shape=[5, 5]), "its kernel_shape (5, 5) is not that of"),
        (lambda: bad_convolution(strides=[0, 1]), "its strides are (0, 1); give 2 of at least 1"),
        (lambda: bad_convolution(pads=[1, 1]), "its pads are [1, 1]; give 4 of at least 0"),
        (lambda: bad_convolution(dilations=[9, 9]), "its kernel is larger than its padded input"),
        (lambda: bad_scale(0.0), "its scale is 0; calibrate again: scales are positive numbers"),
        (lambda: bad_scale(-0.1), "its scale is -0.1"),
        (lambda: bad_scale(np.nan), "its scale is nan"),
        (lambda: bad_convolution(1e30), "its scales differ too much"),
        (activations_by_channel, "its activations have 2 scales, one a channel"),
        (zero_point_of_another_type, "its zero point is of uint8, its input is not"),
        (sixteen_bits, "its zero point is of int16, so its activations are, too"),
        (asymmetric_weights_by_channel, "different values, more than 256"),
        (weights_by_input_channel, "its weights have several scales in one output channel"),
        (integer_bias, "its bias is of int32; put a DequantizeLinear before it"),
        (three_axes, "it is a convolution of 3 spatial axes; use one of height and width"),
        (computed_integers, "not supported; quantise statically, with calibration data"),
        (float_output, "the output is not quantised"),
        (product_by_place, "it multiplies by values that differ within a channel; multiply a map"),
        (quotient_of_maps, "it combines two tensors that are not functions of one value"),
        (cut_windows, "a window has 19 of its 39 rows outside of the map, more than 15"),
        (padding_without_end, "it makes 134,217,856 values; pad to"),
        (dilated_pool, "its dilations are (2, 2); pool without dilation"),
        (vector_as_a_map, "its input is no map of channels but (16, 1, 1) in another"),
        (values_twice, "its input has values of 'input' more than once; concatenate different"),
        (function_of_padding, "its input is padded with zeros, which become 0.5; pad its result"),
        (softmax_within, "it comes after a softmax, which the host takes"),
        (two_inputs, "it has 2 inputs ('x', 'z'); cut it to a model with one input"),
        (unknown_size, "axis 2 of the input has no fixed size ('height')"),
        (large_batch, "its batch is 4; export it with a batch of 1, or of any size"),
        (cycle, "its nodes form a cycle"),
        (missing_tensor, "it reads 'nothing', which nothing makes"),
        (constant_output, "the output does not depend on the input"),
        (too_few_inputs, "(Add): it has 1 inputs; use nodes of two"),
        (two_different_inputs, "the input is quantised twice, differently"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of ONNX' shape inference
def test_what_cannot_be_read_says_why(
    tmp_path: Path, make: Callable[[], tuple[Model, str]], message: str
) -> None:
    model, output = make()
    found = problems_of(tmp_path, model, output)
    assert any(message in text for text in found), found
    with pytest.raises(ReadError) as caught:
        read_model(tmp_path / "model.onnx")
    assert str(caught.value).count("\n") == 0


def test_files_that_are_no_models(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    whole = model.proto(model.quantise(y, 0.02)).SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(SEED)
    for content in (b"not a model", rng.bytes(2000)):
        path.write_bytes(content)
        (problem,) = check_model(path)
        assert problem.reason.startswith("it is not an ONNX")
    for length in range(0, len(whole), 23):  # wherever it ends, there is no traceback
        path.write_bytes(whole[:length])
        assert check_model(path)
    for _ in range(150):  # nor whatever is changed
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        check_model(path)


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(32, 3, 8, 8))
    path = tmp_path / "model.onnx"
    onnx.save(
        model.proto(model.quantise(y, 0.02)), path, save_as_external_data=True, location="weights"
    )
    assert check_model(path) == []
    (tmp_path / "weights").unlink()
    (problem,) = check_model(path)
    assert problem.reason == "its weights are in another file that is not there: 'weights'"


def test_an_old_opset(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8, opset=6)
    found = problems_of(tmp_path, model, model.node("Relu", "x"))
    assert found == ["its opset is 6, older than 7; export it with opset 7 or newer"]
