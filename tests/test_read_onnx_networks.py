"""ONNX: whole networks, quantised by onnxruntime or as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import (
    SEED,
    Array,
    Model,
    as_stored,
    check_equal,
    float_model,
    mlperf_tiny,
    session,
    task,
)

from thresher.golden.inference import infer
from thresher.golden.read import Calibration, check_model, read_model


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.filterwarnings("ignore")  # of onnxruntime's quantiser
def test_models_that_onnxruntime_quantised(tmp_path: Path, form: str, by_channel: bool) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(SEED)
    samples = [{"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(20)]

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.left, None)

    onnx.save(float_model(), tmp_path / "float.onnx")
    path = tmp_path / "model.onnx"
    quantization.quantize_static(
        tmp_path / "float.onnx",
        path,
        Samples(),
        quant_format=getattr(quantization.QuantFormat, form),
        per_channel=by_channel,
    )
    assert [str(problem) for problem in check_model(path)] == []
    network = read_model(path)
    inputs = np.concatenate([sample["x"] for sample in samples])
    assert len(check_equal(path, network, inputs)) >= 8


@pytest.mark.data
@pytest.mark.parametrize("name", ["ic", "kws", "vww", "ad"])
@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_each_layer_of_mlperf_tiny_equals_the_runtimes(name: str, count: int) -> None:
    path = mlperf_tiny(f"{name}.onnx")
    assert check_model(path) == []
    network = read_model(path)
    inputs, _ = task(name, count)
    ours = check_equal(path, network, inputs)
    quantised = sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    assert len(ours) == quantised - 1  # all but the input


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("ic", 500), ("kws", 1000), ("vww", 100)])
def test_accuracy_on_mlperf_tiny_is_the_runtimes(name: str, count: int) -> None:
    path = mlperf_tiny(f"{name}.onnx")
    network = read_model(path)
    inputs, labels = task(name, count)
    stored = as_stored(network, inputs)
    ours = infer(network, stored, counts=False, keep=[network.output]).outputs[network.output]
    runtime = session(onnx.load(path), [])
    (source,) = runtime.get_inputs()
    theirs = [runtime.run(None, {source.name: inputs[k : k + 1]})[0].argmax() for k in range(count)]
    accuracy = (ours.reshape(count, -1).argmax(axis=1) == labels).mean()
    print(f"{name}: {accuracy:.4f}, the runtime {(np.array(theirs) == labels).mean():.4f}")
    assert accuracy == pytest.approx((np.array(theirs) == labels).mean(), abs=0.003)


def test_samples_give_an_integer_model_densities(tmp_path: Path) -> None:
    model = Model(1, 6, 6, 3)
    y = model.node("Transpose", model.both("x", 0.02), perm=[0, 3, 1, 2])
    y = model.node("Relu", model.node("Conv", y, model.weights(4, 3, 3, 3)))
    path = tmp_path / "model.onnx"
    onnx.save(model.proto(model.quantise(y, 0.02, -128)), path)
    samples = np.random.default_rng(SEED).normal(size=(9, 6, 6, 3))
    network = read_model(path, Calibration(samples=samples))
    (layer,) = network.layers
    outputs = infer(network, as_stored(network, samples), counts=False).outputs[layer.name]
    part = (outputs != 0).mean(axis=(0, 2, 3))
    digits = network.metadata["densities"][layer.name]  # type: ignore[index]
    assert [int(digit, 16) for digit in digits] == np.rint(15 * part).tolist()
    assert read_model(path).layers == network.layers
