"""ONNX: models of floats compute what onnxruntime does, and are quantised by samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import (
    SEED,
    Model,
    as_stored,
    check_dense,
    float_model,
    mlperf_tiny,
    problems_of,
    session,
    task,
    with_floats,
)

from thresher.golden.errors import ThresherError
from thresher.golden.inference import infer
from thresher.golden.read import Calibration, check_model, read_model
from thresher.golden.read.onnx import read_onnx_dense


def test_a_float_model(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(float_model(), path)
    assert [problem.reason for problem in check_model(path)] == [
        "it is a model of floats, without scales"
    ]
    dense = read_onnx_dense(path)
    assert [layer.kind for layer in dense.layers] == [
        "convolution", "convolution", "convolution", "add", "max_pool", "convolution",
        "convolution", "concat", "average_pool", "linear",
    ]  # fmt: skip
    assert [layer.clip for layer in dense.layers[:2]] == [(0, np.inf)] * 2


def test_batch_normalisation_and_constants_of_a_float_model(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    y = with_floats(model, "Conv", "x", 6, 3, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    parts = [*model.rng.normal(size=(3, 6)), model.rng.uniform(0.5, 2, 6)]
    constants = [model.constant(part.astype(np.float32)) for part in parts]
    y = model.node("BatchNormalization", y, *constants)
    y = model.node("Mul", y, model.constant(np.linspace(-1, 1, 6, dtype=np.float32)[:, None, None]))
    y = model.node("Clip", y, model.constant(np.float32(0)), model.constant(np.float32(6)))
    y = model.node("BatchNormalization", y, *constants)
    y = model.node("Gemm", model.node("Flatten", y), model.constant(
        model.rng.normal(size=(150, 4)).astype(np.float32)))  # fmt: skip
    dense = check_dense(tmp_path, model, y)
    assert [layer.kind for layer in dense.layers] == ["convolution", "convolution", "linear"]
    assert dense.layers[0].clip == (0, 6)


@pytest.mark.parametrize(
    ("op", "attributes", "function"),
    [
        ("Sigmoid", {}, "sigmoid"),
        ("Tanh", {}, "tanh"),
        ("LeakyRelu", {"alpha": 0.3}, "leaky_relu"),
        ("Elu", {"alpha": 0.6}, "elu"),
        ("Selu", {}, "selu"),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, "hard_sigmoid"),
        ("HardSwish", {}, "hard_swish"),
        ("Mish", {}, "mish"),
        ("Softplus", {}, "softplus"),
        ("Gelu", {}, "gelu"),
        ("Abs", {}, "abs"),
    ],
)
def test_functions_of_a_float_model(
    tmp_path: Path, op: str, attributes: dict[str, Any], function: str
) -> None:
    model = Model(1, 3, 8, 8, opset=20)
    y = model.node(op, with_floats(model, "Conv", "x", 4, 3, 3, 3), **attributes)
    y = model.node("GlobalAveragePool", with_floats(model, "Conv", y, 4, 4, 3, 3))
    dense = check_dense(tmp_path, model, y, count=20)
    assert [layer.function for layer in dense.layers if layer.kind == "unary"] == [function]


def test_products_of_maps_of_a_float_model(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    x = with_floats(model, "Conv", "x", 6, 3, 3, 3)
    gate = model.node("Tanh", with_floats(model, "Conv", "x", 6, 3, 3, 3))
    y = model.node("Relu", model.node("Mul", gate, x))
    excited = with_floats(model, "Conv", model.node("GlobalAveragePool", y), 6, 6, 1, 1)
    y = model.node("Mul", model.node("HardSigmoid", excited), y)
    dense = check_dense(tmp_path, model, with_floats(model, "Conv", y, 4, 6, 3, 3))
    assert [layer.kind for layer in dense.layers] == [
        "convolution", "convolution", "unary", "multiply", "average_pool", "convolution",
        "unary", "multiply", "convolution",
    ]  # fmt: skip


def test_products_that_are_known_functions_of_a_float_model(tmp_path: Path) -> None:
    model = Model(1, 8, 8, 3)
    x = model.node("Transpose", "x", perm=[0, 3, 1, 2])
    y = with_floats(model, "Conv", x, 4, 3, 3, 3)
    y = model.node("Mul", y, model.node("Sigmoid", y))
    y = with_floats(model, "Conv", y, 4, 4, 3, 3)
    three, six = model.constant(np.float32(3)), model.constant(np.float32(6))
    gate = model.node("Clip", model.node("Add", y, three), model.constant(np.float32(0)), six)
    y = model.node("Div", model.node("Mul", y, gate), six)
    y = with_floats(model, "Conv", y, 3, 4, 3, 3)
    dense = check_dense(tmp_path, model, y)
    functions = [layer.function for layer in dense.layers if layer.kind == "unary"]
    assert functions == ["silu", "hard_swish"]


def test_a_shuffle_of_a_float_model(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Relu", with_floats(model, "Conv", "x", 8, 3, 1, 1))
    y = model.node("Reshape", y, model.constant(np.array([1, 2, 4, 8, 8])))
    y = model.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = model.node("Reshape", y, model.constant(np.array([1, 8, 8, 8])))
    first = model.node("Split", y, outputs=2, axis=1)
    y = with_floats(model, "Conv", first, 4, 1, 3, 3, pads=[1] * 4, group=4)
    y = model.node("Concat", f"{first}_1", y, axis=1)
    y = model.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = model.node("ReduceMean", with_floats(model, "Conv", y, 5, 8, 1, 1), axes=[2, 3], keepdims=0)
    dense = check_dense(tmp_path, model, y, count=10)
    assert "channel_shuffle" in {layer.kind for layer in dense.layers}


@pytest.mark.parametrize("op", ["Sin", "LRN", "Sqrt"])
def test_what_cannot_be_read_of_a_float_model_says_why(tmp_path: Path, op: str) -> None:
    model = Model(1, 3, 8, 8)
    y = with_floats(model, "Conv", "x", 4, 3, 3, 3)
    y = model.node(op, y, **({"size": 3} if op == "LRN" else {}))
    found = problems_of(tmp_path, model, with_floats(model, "Conv", y, 4, 4, 3, 3))
    wanted = (
        "its input is a function that is none of abs, clip, "
        if op == "Sqrt"
        else f"node '{op}1' ({op}): this operation is not supported; "
    )
    assert len(found) == 2
    assert wanted in found[0]


def test_samples_must_fit_a_float_model(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    path = tmp_path / "float.onnx"
    onnx.save(model.proto(with_floats(model, "Conv", "x", 4, 3, 3, 3)), path)
    with pytest.raises(ThresherError, match="the network takes"):
        read_model(path, Calibration(samples=np.zeros((2, 3, 7, 8))))


@pytest.mark.data
@pytest.mark.slow
def test_accuracy_of_a_float_model_stays(tmp_path: Path) -> None:
    pictures, labels = task("ic", 500)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    inputs = ((pictures / 255 - mean) / std).transpose(0, 3, 1, 2)
    network = read_model(mlperf_tiny("alibaba_ic.onnx"), Calibration(samples=inputs[:100]))
    stored = as_stored(network, inputs)
    found = infer(network, stored, counts=False, keep=[network.output]).outputs[network.output]
    accuracy = (found.reshape(500, -1).argmax(axis=1) == labels).mean()
    print(f"alibaba_ic: {accuracy:.4f}")
    assert accuracy == pytest.approx(0.838, abs=0.006)  # of floats


@pytest.mark.data
@pytest.mark.parametrize("name", ["alibaba_ic", "vww_float"])
def test_float_models_compute_what_the_runtime_does(name: str) -> None:
    path = mlperf_tiny(f"{name}.onnx")
    dense = read_onnx_dense(path)
    inputs = np.random.default_rng(SEED).uniform(size=(2, *dense.input_shape)).astype(np.float32)
    runtime = session(onnx.load(path), [])
    (source,) = runtime.get_inputs()
    found = np.array([runtime.run(None, {source.name: inputs[k : k + 1]})[0] for k in range(2)])
    made = dense.forward(inputs)[dense.output].reshape(2, -1)
    if name == "vww_float":  # ends in a softmax
        made = np.exp(made) / np.exp(made).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(made, found.reshape(2, -1), rtol=1e-3, atol=1e-4)
