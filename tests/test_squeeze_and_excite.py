"""Networks of squeeze-and-excite from the file to RTL: MobileNetV3's blocks, EfficientNet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx_models import Model as OnnxModel
from onnx_models import as_stored, check_equal
from test_machine import check
from tflite_models import SAME
from tflite_models import Model as TFLiteModel
from tflite_reference import equals_reference

from thresher.golden.config import Config, Skip
from thresher.golden.network import Add, CompressedNetwork, Multiply
from thresher.golden.read import check_model, read_model

pytestmark = pytest.mark.cocotb

SEED = 20261124


def mobile_net() -> onnx.ModelProto:
    """Blocks of MobileNetV3: expanded, depthwise, squeezed and excited, with residuals; floats."""
    model = OnnxModel(1, 3, 32, 32)

    def convolved(x: str, *shape: int, **attributes: Any) -> str:
        weights = model.rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        parts = weights.astype(np.float32), (model.rng.normal(size=shape[0]) / 5).astype(np.float32)
        return model.node("Conv", x, *map(model.constant, parts), **attributes)

    def hard_swish(x: str) -> str:
        return model.node("Mul", x, model.node("HardSigmoid", x, alpha=1 / 6))

    def excited(x: str, channels: int) -> str:
        squeezed = channels // 4
        y = convolved(model.node("GlobalAveragePool", x), squeezed, channels, 1, 1)
        y = convolved(model.node("Relu", y), channels, squeezed, 1, 1)
        return model.node("Mul", x, model.node("HardSigmoid", y, alpha=1 / 6))

    def block(x: str, channels: int, wide: int, side: int, out: int, *, stride: int = 1) -> str:
        y = hard_swish(convolved(x, wide, channels, 1, 1))
        around = {"pads": [side // 2] * 4, "strides": [stride, stride], "group": wide}
        y = excited(hard_swish(convolved(y, wide, 1, side, side, **around)), wide)
        y = convolved(y, out, wide, 1, 1)
        return y if stride > 1 or channels != out else model.node("Add", x, y)

    x = hard_swish(convolved("x", 8, 3, 3, 3, pads=[1] * 4, strides=[2, 2]))
    x = block(x, 8, 16, 3, 12, stride=2)
    x = block(x, 12, 36, 5, 12)
    x = block(x, 12, 24, 3, 12)
    x = hard_swish(convolved(x, 32, 12, 1, 1))
    x = hard_swish(convolved(model.node("GlobalAveragePool", x), 24, 32, 1, 1))
    return model.proto(convolved(x, 10, 24, 1, 1))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, npt.NDArray[np.float32]]:
    """MobileNetV3's blocks as onnxruntime quantises them, and inputs."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("mobile_net")
    samples = np.random.default_rng(SEED).normal(size=(12, 1, 3, 32, 32)).astype(np.float32)

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.left = iter([{"x": sample} for sample in samples])

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return next(self.left, None)

    onnx.save(mobile_net(), folder / "float.onnx")
    path = folder / "model.onnx"
    quantization.quantize_static(
        folder / "float.onnx",
        path,
        Samples(),
        activation_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    return path, samples[:, 0]


def hard_sigmoid(model: TFLiteModel, source: int) -> int:
    """Add the nodes ``relu6(x + 3) * (1 / 6)``, as converters leave them; return the output."""
    shape, scales = model.tensors[source]["shape"], model.tensors[source]["scales"]
    three = model.constant([127], "INT8", scale=3 / 255, zero_point=-128)
    sixth = model.constant([127], "INT8", scale=1 / 6 / 255, zero_point=-128)
    moved = model.tensor(shape, scale=scales, zero_point=-9)
    limited = model.tensor(shape, scale=6 / 255, zero_point=-128)
    target = model.tensor(shape, scale=1 / 255, zero_point=-128)
    model.node("ADD", [source, three], [moved])
    model.node("RELU6", [moved], [limited])
    model.node("MUL", [limited, sixth], [target])
    return target


def efficient_net() -> TFLiteModel:
    """Blocks of EfficientNet, and a gate of a map's own shape; int8."""
    model = TFLiteModel(SEED)

    def activation(shape: tuple[int, ...], scale: float, zero_point: int = 0) -> int:
        return model.tensor(shape, scale=scale, zero_point=zero_point)

    def weighted(source: int, out: int, side: int = 1, stride: int = 1, **more: Any) -> int:
        _, height, width, channels = model.tensors[source]["shape"]
        depthwise = more.pop("depthwise", False)
        shape = (1, side, side, channels) if depthwise else (out, side, side, channels)
        weights = model.weights(shape, axis=3 if depthwise else 0)
        scales = np.array(model.tensors[weights]["scales"])
        model.tensors[weights]["scales"] = (scales * 0.2 + scales.mean() * 0.8).tolist()
        step = model.tensors[source]["scales"][0] * scales.mean()
        taps = side * side * (1 if depthwise else channels)
        bias = model.constant(model.rng.integers(-3000, 3000, out))
        size = -(-height // stride), -(-width // stride)
        zero_point = -128 if more.get("FusedActivationFunction") else int(model.rng.integers(-9, 9))
        target = activation((1, *size, out), step * 50 * taps**0.5, zero_point)
        model.node(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            [source, weights, bias],
            [target],
            StrideH=stride,
            StrideW=stride,
            Padding=SAME,
            **({"DepthMultiplier": 1} if depthwise else {}),
            **more,
        )
        return target

    def product(one: int, other: int, scale: float) -> int:
        shape = model.tensors[one]["shape"]
        target = activation(shape, model.tensors[one]["scales"][0] * scale, -20)
        model.node("MUL", [one, other], [target])
        return target

    def sigmoid(source: int) -> int:
        target = activation(model.tensors[source]["shape"], 1 / 256, -128)
        model.node("LOGISTIC", [source], [target])
        return target

    def excited(source: int) -> int:
        channels = model.tensors[source]["shape"][-1]
        mean = activation((1, 1, 1, channels), model.tensors[source]["scales"][0] / 3)
        model.node("MEAN", [source, model.constant([1, 2])], [mean], KeepDims=True)
        gate = weighted(mean, channels // 4, FusedActivationFunction=1)
        last = weighted(gate, channels)
        last = hard_sigmoid(model, last) if channels > 16 else sigmoid(last)
        return product(source, last, 0.7)

    def block(source: int, wide: int, side: int, out: int, stride: int) -> int:
        swish = weighted(source, wide)
        swish = product(swish, sigmoid(swish), 0.8)
        deep = weighted(swish, wide, side, stride, depthwise=True)
        target = weighted(excited(product(deep, sigmoid(deep), 0.8)), out)
        if stride > 1:
            return target
        total = activation(model.tensors[source]["shape"], model.tensors[source]["scales"][0], 3)
        model.node("ADD", [source, target], [total])
        return total

    x = weighted(activation((1, 32, 32, 3), 0.03, 5), 8, 3, 2)
    x = block(x, 16, 3, 12, 2)
    x = block(x, 36, 5, 12, 1)
    x = product(weighted(x, 16), sigmoid(weighted(x, 16)), 0.7)
    mean = activation((1, 1, 1, 16), model.tensors[x]["scales"][0] / 3)
    model.node("MEAN", [x, model.constant([1, 2])], [mean], KeepDims=True)
    weighted(mean, 10)
    return model


def products_of(network: CompressedNetwork) -> list[tuple[int, ...]]:
    """Return the shapes of the second inputs of a network's products."""
    shapes = network.shapes()
    return [shapes[layer.inputs[1]] for layer in network.layers if isinstance(layer, Multiply)]


def test_mobile_net_equals_onnxruntime(quantised: tuple[Path, npt.NDArray[np.float32]]) -> None:
    path, inputs = quantised
    assert [str(problem) for problem in check_model(path)] == []
    network = read_model(path)
    assert products_of(network) == [(16, 1, 1), (36, 1, 1), (24, 1, 1)]
    assert sum(isinstance(layer, Add) for layer in network.layers) == 2
    check_equal(path, network, inputs)


@pytest.mark.parametrize("keep_layers", [False, True])
@pytest.mark.parametrize("lanes", [2, 4])
def test_mobile_net_in_rtl_equals_golden(
    quantised: tuple[Path, npt.NDArray[np.float32]], lanes: int, *, keep_layers: bool
) -> None:
    path, inputs = quantised
    network = read_model(path)
    stored = as_stored(network, inputs[:2])
    check(network, stored, Config(lanes=lanes), Skip.BOTH, keep_layers=keep_layers)


def test_efficient_net_equals_litert(tmp_path: Path) -> None:
    model = efficient_net()
    path = model.save(tmp_path / "m.tflite")
    rng = np.random.default_rng(SEED)
    network = equals_reference(path, rng.integers(-128, 128, (8, 32, 32, 3)).astype(np.int8))
    assert products_of(network) == [(16, 1, 1), (36, 1, 1), (16, 8, 8)]


@pytest.mark.parametrize("keep_layers", [False, True])
@pytest.mark.parametrize("lanes", [2, 4])
def test_efficient_net_in_rtl_equals_golden(
    tmp_path: Path, lanes: int, *, keep_layers: bool
) -> None:
    network = read_model(efficient_net().save(tmp_path / "m.tflite"))
    low, high = network.input_range
    inputs = np.random.default_rng(SEED).integers(low, high + 1, (2, *network.input_shape))
    check(network, inputs, Config(lanes=lanes), Skip.BOTH, keep_layers=keep_layers, stall=60)
