"""TFLite models as networks: all tensors equal LiteRT's reference kernels; bad models are told."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_models import SAME, VALID, Model, network_inputs, run_reference

from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork, Convolution, Lookup, Multiply
from thresher.golden.read import ReadError, check_model, read_model

SEED = 20260722
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf_tiny"
LOWEST = {"INT8": -128, "UINT8": 0}


def stored_inputs(model: Model, count: int = 8) -> npt.NDArray:
    """Random inputs of the whole range, and the extremes."""
    source = model.tensors[0]
    low = LOWEST[source["dtype"]]
    shape = (count, *source["shape"][1:])
    values = np.random.default_rng(SEED).integers(low, low + 256, shape)
    values[0], values[1] = low, low + 255
    return values.astype(source["dtype"].lower())


def equals_reference(
    path: Path, stored: npt.NDArray, resolver: OpResolverType = OpResolverType.BUILTIN_REF
) -> CompressedNetwork:
    """Read a model, compare all its layers and return the network."""
    network = read_model(path)
    inputs = network_inputs(network, stored)
    made = infer(network, inputs, counts=False).outputs
    expected = run_reference(path, network, stored, resolver)
    assert network.output in expected
    for name, values in expected.items():
        assert np.array_equal(made[name], values), name
    return network


def conv_model(
    dtype: str = "INT8",
    *,
    op: str = "CONV_2D",
    size: tuple[int, int, int] = (9, 8, 3),
    kernel: tuple[int, int] = (3, 3),
    out: int = 6,
    padding: int = SAME,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    fused: int = 0,
    per_channel: bool = True,
    seed: int = 1,
) -> Model:
    """A convolution; the output's scale is such that few outputs are clipped."""
    model = Model(seed)
    low = LOWEST[dtype]
    zero = low + int(model.rng.integers(0, 256))
    source = model.tensor((1, *size), dtype, 0.02, zero)
    depthwise = op == "DEPTHWISE_CONV_2D"
    shape = (1, *kernel, out) if depthwise else (out, *kernel, size[2])
    axis = (3 if depthwise else 0) if per_channel else None
    more: dict[str, Any] = {"zero_point": 117} if dtype == "UINT8" else {}
    weights = model.weights(shape, dtype, axis=axis, **more)
    scale = 0.02 * float(np.mean(model.tensors[weights]["scales"]))
    bias = model.constant(model.rng.integers(-3000, 3000, out), scale=scale)
    height, width = (
        -(-(side if padding == SAME else side - (taps - 1) * far) // step)
        for side, taps, far, step in zip(size[:2], kernel, dilation, stride, strict=True)
    )
    target = model.tensor((1, height, width, out), dtype, 0.031, low + 100)
    options = {"DepthMultiplier": out // size[2]} if depthwise else {}
    model.node(
        op,
        [source, weights, bias],
        [target],
        Padding=padding,
        StrideH=stride[0],
        StrideW=stride[1],
        DilationHFactor=dilation[0],
        DilationWFactor=dilation[1],
        FusedActivationFunction=fused,
        **options,
    )
    return model


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"padding": VALID, "stride": (2, 3)},
        {"stride": (2, 2), "fused": 3},
        {"stride": (2, 1), "kernel": (4, 5), "fused": 1},
        {"dilation": (2, 3), "fused": 2, "padding": VALID, "size": (11, 13, 3)},
        {"dilation": (2, 2), "per_channel": False},
    ],
)
def test_convolutions_equal_the_reference(
    tmp_path: Path, dtype: str, op: str, more: dict[str, Any]
) -> None:
    more = {"per_channel": dtype == "INT8", **more}
    for seed in range(3):
        model = conv_model(dtype, op=op, seed=seed, **more)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model))


UNIT = {"StrideH": 1, "StrideW": 1, "Padding": VALID}


def gate_weights(model: Model, source: int, dtype: str) -> list[int]:
    """Add weights and bias of a 1x1 convolution that keeps the number of channels."""
    zero = {"zero_point": 131} if dtype == "UINT8" else {}
    channels = model.tensors[source]["shape"][-1]
    weights = model.weights((channels, 1, 1, channels), dtype, axis=None, **zero)
    scale = model.tensors[source]["scales"][0] * model.tensors[weights]["scales"][0]
    return [weights, model.constant(model.rng.integers(-3000, 3000, channels), scale=scale)]


def activations(model: Model, shape: tuple[int, ...], dtype: str = "INT8", **more: Any) -> int:
    """A tensor of activations with a scale and zero point of its own."""
    more.setdefault("scale", float(model.rng.uniform(0.01, 0.1)))
    more.setdefault("zero_point", LOWEST[dtype] + int(model.rng.integers(0, 256)))
    return model.tensor(shape, dtype, **more)


def test_grouped_convolution_equals_the_reference(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 5, 5, 6))
    target = activations(model, (1, 5, 5, 4))
    inputs = [source, model.weights((4, 3, 3, 3)), model.bias(4)]
    model.node("CONV_2D", inputs, [target], Padding=SAME, StrideH=1, StrideW=1)
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert network.layers[0].groups == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(1, 30), (1, 3, 2, 5)])
def test_fully_connected_equals_the_reference(
    tmp_path: Path, dtype: str, per_channel: bool, shape: tuple[int, ...]
) -> None:
    if dtype == "UINT8" and per_channel:
        pytest.skip("TFLite has no uint8 weights with a scale a channel")
    for seed in range(6):
        model = Model(seed)
        source = activations(model, shape, dtype, scale=0.02)
        more: dict[str, Any] = {"zero_point": 140} if dtype == "UINT8" else {}
        weights = model.weights((7, 30), dtype, axis=0 if per_channel else None, **more)
        scale = np.array(model.tensors[weights]["scales"][:1], np.float32) * np.float32(0.02)
        bias = model.constant(model.rng.integers(-3000, 3000, 7), scale=scale)
        target = activations(model, (1, 7), dtype)
        model.node("FULLY_CONNECTED", [source, weights, bias], [target], FusedActivationFunction=1)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 40))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_sums_of_maps_equal_the_reference(tmp_path: Path, dtype: str, op: str) -> None:
    for seed in range(8):
        model = Model(seed)
        shape = (1, 4, 4, 5)
        source = activations(model, shape, dtype)
        other = activations(model, shape, dtype)
        if seed == 0:
            model.tensors[other]["scales"] = model.tensors[source]["scales"]
        target = activations(model, shape, dtype, scale=0.15)
        model.node("QUANTIZE", [source], [other])
        operands = [source, other] if seed < 5 else [other, source]
        model.node(op, operands, [target], FusedActivationFunction=seed % 4)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("op", ["ADD", "SUB"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1, 1, 5)])
def test_sums_with_constants_equal_the_reference(
    tmp_path: Path, dtype: str, op: str, shape: tuple[int, ...]
) -> None:
    for seed in range(16):
        model = Model(seed)
        source = activations(model, (1, 16, 16, 5), dtype)
        low = LOWEST[dtype]
        more: dict[str, Any] = {"scale": (0.004, 0.2)[seed % 2], "zero_point": low + 100 + seed}
        constant = model.constant(model.rng.integers(low, low + 256, shape), dtype, **more)
        target = activations(model, (1, 16, 16, 5), dtype, scale=(0.05, 0.2)[seed // 2 % 2])
        operands = [source, constant] if seed % 3 else [constant, source]
        model.node(op, operands, [target], FusedActivationFunction=seed % 4)
        stored = stored_inputs(model)
        every = np.arange(256).reshape(16, 16, 1) + low
        stored[-1] = np.broadcast_to(every, stored[-1].shape).astype(stored.dtype)
        network = equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored)
        kinds = [type(layer).__name__ for layer in network.layers]
        assert kinds == ["Lookup"] if np.prod(shape) == 1 else kinds[-2:] == ["Convolution", "Add"]


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 1, 5)])
def test_products_with_constants_equal_the_reference(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    for seed in range(8):
        model = Model(seed)
        source = activations(model, (1, 4, 4, 5), dtype)
        low = LOWEST[dtype]
        more: dict[str, Any] = {"scale": 0.013, "zero_point": low + 100 + seed}
        factor = model.constant(model.rng.integers(low, low + 256, shape), dtype, **more)
        target = activations(model, (1, 4, 4, 5), dtype, scale=(0.05, 0.2)[seed % 2])
        operands = [source, factor] if seed % 3 else [factor, source]
        model.node("MUL", operands, [target], FusedActivationFunction=seed % 4)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize(
    ("op", "size", "kernel", "options"),
    [
        ("MAX_POOL_2D", (7, 8), (3, 2), {"Padding": SAME, "StrideH": 2, "StrideW": 2}),
        ("MAX_POOL_2D", (7, 8), (3, 3), {"StrideH": 2, "FusedActivationFunction": 3}),
        ("AVERAGE_POOL_2D", (8, 6), (2, 2), {"Padding": SAME, "StrideH": 2, "StrideW": 2}),
        ("AVERAGE_POOL_2D", (8, 6), (3, 4), {"FusedActivationFunction": 1}),
        ("AVERAGE_POOL_2D", (25, 5), (25, 5), {"StrideH": 25, "StrideW": 5}),
        ("AVERAGE_POOL_2D", (7, 7), (7, 7), {}),
        ("AVERAGE_POOL_2D", (7, 8), (3, 3), {"Padding": SAME}),
        ("AVERAGE_POOL_2D", (7, 8), (3, 3), {"Padding": SAME, "StrideH": 2, "StrideW": 2}),
        ("AVERAGE_POOL_2D", (5, 7), (2, 2), {"Padding": SAME, "StrideH": 2, "StrideW": 2}),
        ("AVERAGE_POOL_2D", (6, 9), (1, 4), {"Padding": SAME, "FusedActivationFunction": 1}),
        ("AVERAGE_POOL_2D", (9, 8), (7, 6), {"Padding": SAME, "StrideW": 3}),
        ("AVERAGE_POOL_2D", (1, 2), (3, 3), {"Padding": SAME}),
        ("AVERAGE_POOL_2D", (10, 6), (9, 8), {"Padding": SAME}),
        ("AVERAGE_POOL_2D", (5, 8), (9, 15), {"Padding": SAME}),
        ("AVERAGE_POOL_2D", (12, 3), (7, 13), {"Padding": SAME, "StrideH": 2}),
        ("MAX_POOL_2D", (10, 6), (9, 13), {"Padding": SAME}),
    ],
)
def test_pools_equal_the_reference(
    *,
    tmp_path: Path,
    dtype: str,
    op: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    options: dict[str, int],
) -> None:
    options = {"Padding": VALID, "StrideH": 1, "StrideW": 1, **options}
    options.update(FilterHeight=kernel[0], FilterWidth=kernel[1])
    is_same = options["Padding"] == SAME
    for seed in range(4):
        model = Model(seed)
        source = activations(model, (1, *size, 3), dtype, scale=0.03)
        zero = model.tensors[source]["zero_points"]
        height, width = (
            -(-(side if is_same else side - taps + 1) // step)
            for side, taps, step in zip(
                size, kernel, (options["StrideH"], options["StrideW"]), strict=True
            )
        )
        target = model.tensor((1, height, width, 3), dtype, 0.03, zero)
        model.node(op, [source], [target], **options)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 30))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_means_equal_the_reference(tmp_path: Path, dtype: str, keep: bool, same: bool) -> None:
    for seed in range(6):
        model = Model(seed)
        height, width = (int(size) for size in model.rng.integers(1, 9, 2))
        source = activations(model, (1, height, width, 5), dtype, scale=0.03)
        shape = (1, 1, 1, 5) if keep else (1, 5)
        target = activations(model, shape, dtype, scale=float(model.rng.uniform(0.01, 0.03)))
        if same:
            model.tensors[target] = {**model.tensors[source], "shape": shape}
        model.node("MEAN", [source, model.constant([1, 2])], [target], KeepDims=keep)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 50))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("op", ["MEAN", "REDUCE_MAX"])
@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("size", [(1, 7), (6, 5)])
@pytest.mark.parametrize("keep", [False, True])
def test_reducing_rows_or_columns_equals_the_reference(
    *, tmp_path: Path, dtype: str, op: str, axis: int, size: tuple[int, int], keep: bool
) -> None:
    model = Model(abs(axis))
    source = activations(model, (1, *size, 5), dtype, scale=0.03)
    left = size[1] if axis == 1 else size[0]
    shape = (1, left, 5)
    if keep:
        shape = (1, 1, left, 5) if axis == 1 else (1, left, 1, 5)
    target = activations(model, shape, dtype, scale=0.021)
    if op == "REDUCE_MAX":
        model.tensors[target] = {**model.tensors[source], "shape": shape}
    model.node(op, [source, model.constant([axis])], [target], KeepDims=keep)
    equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model, 50))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize(
    "op",
    [
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "LOGISTIC",
        "TANH",
        "HARD_SWISH",
        "LEAKY_RELU",
        "ELU",
        "QUANTIZE",
    ],
)
def test_functions_equal_the_reference(tmp_path: Path, dtype: str, op: str) -> None:
    if (op, dtype) == ("ELU", "UINT8"):
        pytest.skip("TFLite has no ELU of uint8")
    for seed in range(8):
        model = Model(seed)
        source = activations(model, (1, 16, 16, 1), dtype)
        target = activations(model, (1, 16, 16, 1), dtype)
        if op == "LOGISTIC":
            model.tensors[target].update(scales=[1 / 256], zero_points=[LOWEST[dtype]])
        model.node(op, [source], [target], Alpha=(0.1, -0.3, 1.7)[seed % 3])
        values = np.arange(256).reshape(1, 16, 16, 1) + LOWEST[dtype]
        # The set of reference kernels has no ELU; its only kernel is in the other set.
        kernels = OpResolverType.BUILTIN if op == "ELU" else OpResolverType.BUILTIN_REF
        network = equals_reference(
            model.save(tmp_path / f"{seed}.tflite"), values.astype(dtype.lower()), kernels
        )
        assert len(network.layers) == 1


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_products_of_functions_of_one_value_are_one_table(tmp_path: Path, dtype: str) -> None:
    for seed in range(8):
        model = Model(seed)
        shape = (1, 16, 16, 1)
        source, gate, target = (activations(model, shape, dtype) for _ in range(3))
        model.tensors[gate].update(scales=[1 / 256], zero_points=[LOWEST[dtype]])
        model.node("LOGISTIC", [source], [gate])
        if seed % 4 == 3:
            limited = activations(model, shape, dtype, scale=1 / 250)
            model.node("RELU_N1_TO_1", [gate], [limited])
            gate = limited
        factors = ([source, gate], [gate, source], [source, source], [source, gate])[seed % 4]
        model.node("MUL", factors, [target], FusedActivationFunction=seed % 3)
        values = np.arange(256).reshape(1, 16, 16, 1) + LOWEST[dtype]
        path = model.save(tmp_path / f"{seed}.tflite")
        network = equals_reference(path, values.astype(dtype.lower()))
        assert len(network.layers) == 1


@pytest.mark.parametrize("sixth_last", [False, True])
@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_hard_swish_in_steps_is_one_table(tmp_path: Path, dtype: str, *, sixth_last: bool) -> None:
    """``x * (relu6(x + 3) * (1 / 6))``, or ``(x * relu6(x + 3)) * (1 / 6)``."""
    low, shape = LOWEST[dtype], (1, 16, 16, 1)
    model = Model()
    number: dict[str, Any] = {"dtype": dtype, "zero_point": low}
    source = model.tensor(shape, dtype, 0.05, low + 120)
    three = model.constant([255 + low], scale=3 / 255, **number)
    sixth = model.constant([255 + low], scale=1 / 6 / 255, **number)
    moved, limited = (
        model.tensor(shape, dtype, 0.05, low + 60),
        model.tensor(shape, dtype, 0.024, low),
    )
    model.node("ADD", [source, three], [moved])
    model.node("RELU6", [moved], [limited])
    between, target = (
        model.tensor(shape, dtype, 0.004, low),
        model.tensor(shape, dtype, 0.04, low + 9),
    )
    if sixth_last:
        model.tensors[between].update(scales=[0.15], zero_points=[low + 9])
        model.node("MUL", [source, limited], [between])
        model.node("MUL", [between, sixth], [target])
    else:
        model.node("MUL", [limited, sixth], [between])
        model.node("MUL", [source, between], [target])
    values = (np.arange(256).reshape(shape) + low).astype(dtype.lower())
    network = equals_reference(model.save(tmp_path / "m.tflite"), values)
    assert [type(layer) for layer in network.layers] == [Lookup] * (1 + sixth_last)


def test_a_product_of_functions_of_a_convolution_is_one_table(tmp_path: Path) -> None:
    """SiLU, and a hard-swish in steps whose limit is a node of its own, after a convolution."""
    model = conv_model()
    shape = model.tensors[model.nodes[-1]["outputs"][0]]["shape"]
    for op in ("LOGISTIC", "RELU6"):
        source = model.nodes[-1]["outputs"][0]
        gate, target = activations(model, shape), activations(model, shape)
        if op == "LOGISTIC":
            model.tensors[gate].update(scales=[1 / 256], zero_points=[-128])
        model.node(op, [source], [gate])
        model.node("MUL", [source, gate], [target])
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert [type(layer) for layer in network.layers] == [Convolution, Lookup, Lookup]


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_products_of_two_maps_equal_the_reference(tmp_path: Path, dtype: str) -> None:
    for seed in range(8):
        model = conv_model(dtype, per_channel=dtype == "INT8")
        model.rng = np.random.default_rng(seed)
        source = model.nodes[-1]["outputs"][0]
        shape = model.tensors[source]["shape"]
        gate, target = (activations(model, shape, dtype) for _ in range(2))
        model.node("CONV_2D", [source, *gate_weights(model, source, dtype)], [gate], **UNIT)
        factors = [source, gate] if seed % 2 else [gate, source]
        model.tensors[target]["scales"] = [(0.02, 0.2)[seed % 3 == 0]]
        model.node("MUL", factors, [target], FusedActivationFunction=seed % 4)
        network = equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model))
        assert isinstance(network.layers[-1], Multiply)


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("keep", [False, True])
def test_products_by_one_value_a_channel_equal_the_reference(
    tmp_path: Path, dtype: str, keep: bool
) -> None:
    """Squeeze-and-excite; the values have a row and a column of their own, or are a vector."""
    for seed in range(6):
        model = conv_model(dtype, per_channel=dtype == "INT8")
        model.rng = np.random.default_rng(seed)
        source = model.nodes[-1]["outputs"][0]
        shape = model.tensors[source]["shape"]
        channels = shape[-1]
        squeezed = (1, 1, 1, channels) if keep else (1, channels)
        mean, excited, gate = (activations(model, squeezed, dtype) for _ in range(3))
        target = activations(model, shape, dtype)
        axes = model.constant([1, 2])
        model.node("MEAN", [source, axes], [mean], KeepDims=keep)
        weights = gate_weights(model, mean, dtype)
        if keep:
            model.node("CONV_2D", [mean, *weights], [excited], **UNIT)
        else:
            model.tensors[weights[0]]["shape"] = (channels, channels)
            model.node("FULLY_CONNECTED", [mean, *weights], [excited])
        model.tensors[gate].update(scales=[1 / 256], zero_points=[LOWEST[dtype]])
        model.node("LOGISTIC", [excited], [gate])
        factors = [source, gate] if seed % 2 else [gate, source]
        model.node("MUL", factors, [target], FusedActivationFunction=seed % 4)
        network = equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model))
        product = network.layers[-1]
        assert isinstance(product, Multiply)
        assert network.shapes()[product.inputs[1]] == (channels, 1, 1)


def test_products_that_are_not_by_channel_are_told(tmp_path: Path) -> None:
    model = conv_model()
    source = model.nodes[-1]["outputs"][0]
    _, height, width, channels = model.tensors[source]["shape"]
    gate = activations(model, (1, height, width, 1))
    weights = model.weights((1, 1, 1, channels), axis=None)
    model.node("CONV_2D", [source, weights, model.bias(1)], [gate], **UNIT)
    model.node("MUL", [source, gate], [activations(model, (1, height, width, channels))])
    (line,) = problems_of(model, tmp_path / "m.tflite")
    assert "it multiplies a map (9, 8, 6) by values of shape (9, 8, 1); multiply it by" in line


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("by_tanh", [False, True])
def test_gelu_equals_the_kernel(tmp_path: Path, dtype: str, by_tanh: bool) -> None:
    for seed in range(8):
        model = Model(seed)
        source = activations(model, (1, 16, 16, 1), dtype)
        target = activations(model, (1, 16, 16, 1), dtype)
        model.node("GELU", [source], [target], Approximate=by_tanh)
        values = np.arange(256).reshape(1, 16, 16, 1) + LOWEST[dtype]
        path = model.save(tmp_path / f"{seed}.tflite")
        equals_reference(path, values.astype(dtype.lower()), OpResolverType.BUILTIN)


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_prelu_of_one_slope_equals_the_reference(tmp_path: Path, dtype: str) -> None:
    for seed in range(8):
        model = Model(seed)
        source = activations(model, (1, 16, 16, 1), dtype)
        low = LOWEST[dtype]
        slope = model.constant(
            np.full((1, 1, 1), low + 30 * seed), dtype, scale=0.011, zero_point=low + 100
        )
        target = activations(model, (1, 16, 16, 1), dtype)
        model.node("PRELU", [source, slope], [target])
        values = np.arange(256).reshape(1, 16, 16, 1) + low
        path = model.save(tmp_path / f"{seed}.tflite")
        equals_reference(path, values.astype(dtype.lower()))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize("signs", [0, 1])
def test_prelu_of_slopes_by_channel_equals_the_reference(
    tmp_path: Path, dtype: str, signs: int
) -> None:
    for seed in range(8):
        model = Model(seed)
        source = activations(model, (1, 16, 16, 6), dtype)
        low = LOWEST[dtype]
        zero = low + (100 if signs else 0)
        slopes = model.rng.integers(low, low + 256, (1, 1, 6))
        slope = model.constant(slopes, dtype, scale=0.007, zero_point=zero)
        target = activations(model, (1, 16, 16, 6), dtype)
        model.node("PRELU", [source, slope], [target])
        every = np.arange(256).reshape(16, 16, 1) + low
        stored = np.broadcast_to(every, (1, 16, 16, 6)).astype(dtype.lower())
        network = equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored)
        assert len(network.layers) == 3 + signs


@pytest.mark.parametrize("from_type", ["INT8", "UINT8"])
def test_quantize_between_types_equals_the_reference(tmp_path: Path, from_type: str) -> None:
    to_type = {"INT8": "UINT8", "UINT8": "INT8"}[from_type]
    for seed in range(4):
        model = Model(seed)
        source = activations(model, (1, 4, 4, 2), from_type)
        other = activations(model, (1, 4, 4, 2), to_type)
        target = activations(model, (1, 4, 4, 2), to_type)
        model.node("QUANTIZE", [source], [other])
        model.node("RELU", [other], [target])
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 20))


def test_uint8_input_that_only_moves_its_zero_costs_no_layer(tmp_path: Path) -> None:
    model = Model()
    source = model.tensor((1, 4, 4, 2), "UINT8", 0.5, 128)
    moved = model.tensor((1, 4, 4, 2), "INT8", 0.5, 0)
    target = activations(model, (1, 4, 4, 2))
    model.node("QUANTIZE", [source], [moved])
    model.node("RELU", [moved], [target])
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert [layer.name for layer in network.layers] == ["relu1"]
    assert network.metadata["input"] == {
        "scale": 0.5,
        "zero_point": 128,
        "dtype": "uint8",
        "layout": "NHWC",
        "shape": [4, 4, 2],
    }


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_concatenation_equals_the_reference(tmp_path: Path, dtype: str) -> None:
    for seed in range(4):
        model = Model(seed)
        source = activations(model, (1, 4, 3, 2), dtype, scale=0.04)
        zero = model.tensors[source]["zero_points"]
        other = model.tensor((1, 4, 3, 2), dtype, 0.04, zero)
        model.node("LEAKY_RELU", [source], [other], Alpha=0.3)
        third = activations(model, (1, 4, 3, 2), dtype)
        target = model.tensor((1, 4, 3, 4), dtype, 0.04, zero)
        inputs = [source, other]
        if dtype == "UINT8":  # rescaled
            model.node("RELU6", [source], [third])
            inputs, model.tensors[target]["shape"] = [source, other, third], (1, 4, 3, 6)
        model.node("CONCATENATION", inputs, [target], Axis=3 if seed else -1)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 20))


@pytest.mark.parametrize("then", ["CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D", "HARD_SWISH"])
@pytest.mark.parametrize("op", ["PAD", "PADV2"])
def test_padding_equals_the_reference(tmp_path: Path, op: str, then: str) -> None:
    model = Model()
    source = model.tensor((1, 6, 5, 3), "INT8", 0.04, 7)
    padded = model.tensor((1, 9, 7, 3), "INT8", 0.04, 7)
    inputs = [source, model.constant([[0, 0], [1, 2], [2, 0], [0, 0]])]
    if op == "PADV2":
        inputs.append(model.constant(7, "INT8", scale=0.04, zero_point=7))
    model.node(op, inputs, [padded])
    window = {"Padding": VALID, "StrideH": 2, "StrideW": 2}
    if then == "CONV_2D":
        target = activations(model, (1, 4, 3, 4))
        inputs = [padded, model.weights((4, 3, 3, 3)), model.bias(4)]
        model.node("CONV_2D", inputs, [target], **window)
    elif then == "HARD_SWISH":
        model.node(then, [padded], [activations(model, (1, 9, 7, 3))])
    else:
        target = model.tensor((1, 4, 3, 3), "INT8", 0.04, 7)
        model.node(then, [padded], [target], FilterHeight=3, FilterWidth=3, **window)
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert len(network.layers) == (1 if then == "CONV_2D" else 2)


def test_flattened_map_gets_its_weights_in_channel_order(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 3, 4, 5))
    flat = model.tensor(
        (1, 60), "INT8", model.tensors[source]["scales"], model.tensors[source]["zero_points"]
    )
    model.node("RESHAPE", [source, model.constant([1, 60])], [flat])
    target = activations(model, (1, 9))
    model.node("FULLY_CONNECTED", [flat, model.weights((9, 60)), -1], [target])
    equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))


def test_fully_connected_at_each_place_is_a_convolution(tmp_path: Path) -> None:
    for seed in range(4):
        model = Model(seed)
        source = activations(model, (1, 4, 3, 5), scale=0.02)
        target = activations(model, (1, 4, 3, 7))
        inputs = [source, model.weights((7, 5), axis=None), model.bias(7)]
        model.node("FULLY_CONNECTED", inputs, [target], KeepNumDims=True)
        equals_reference(model.save(tmp_path / f"{seed}.tflite"), stored_inputs(model, 40))


def test_vectors_are_joined_in_the_order_of_the_file(tmp_path: Path) -> None:
    model = Model()
    more = {"scale": 0.1, "zero_point": 9}
    source = model.tensor((1, 2, 3, 4), **more)
    flat, other = model.tensor((1, 24), **more), model.tensor((1, 24), **more)
    joined = model.tensor((1, 48), **more)
    model.node("RESHAPE", [source, model.constant([1, 24])], [flat])
    model.node("LEAKY_RELU", [flat], [other], Alpha=0.4)
    model.node("CONCATENATION", [flat, other], [joined], Axis=1)
    inputs = [joined, model.weights((5, 48)), model.bias(5)]
    model.node("FULLY_CONNECTED", inputs, [activations(model, (1, 5))])
    equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))


def test_arithmetic_of_shapes_is_left_out(tmp_path: Path) -> None:
    model = Model()
    source = model.tensor((1, 3, 2, 2), "INT8", 0.1, 4, signature=(-1, 3, 2, 2))
    shape = model.tensor((4,), "INT32", None)
    batch = model.tensor((), "INT32", None)
    wanted = model.tensor((2,), "INT32", None)
    flat = model.tensor((1, 12), "INT8", 0.1, 4, signature=(-1, 12))
    model.node("SHAPE", [source], [shape], OutType=2)
    slices = [model.constant([place]) for place in (0, 1, 1)]
    model.node("STRIDED_SLICE", [shape, *slices], [batch], ShrinkAxisMask=1)
    model.node("PACK", [batch, model.constant(12)], [wanted], ValuesCount=2)
    model.node("RESHAPE", [source, wanted], [flat])
    inputs = [flat, model.weights((5, 12)), model.bias(5)]
    model.node("FULLY_CONNECTED", inputs, [activations(model, (1, 5))])
    equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))


_SLICES = [  # begins, ends, steps
    ([0, 1, 0, 0], [1, 8, 6, 6], [1, 2, 2, 1]),
    ([0, 0, 1, 1], [1, 7, 5, 6], [1, 1, 1, 2]),
    ([0, 2, 1, 0], [1, 5, 5, 6], [1, 1, 3, 1]),
    ([0, 3, 2, 0], [1, 4, 3, 6], [1, 1, 1, 1]),
]


@pytest.mark.parametrize(("begins", "ends", "steps"), _SLICES)
@pytest.mark.parametrize("behind", ["DEPTHWISE_CONV_2D", "MAX_POOL_2D", "ADD"])
def test_some_rows_and_columns_equal_the_reference(
    tmp_path: Path, begins: list[int], ends: list[int], steps: list[int], behind: str
) -> None:
    model = Model(3)
    source = activations(model, (1, 8, 6, 6))
    size = tuple(
        -(-(end - begin) // step) for begin, end, step in zip(begins, ends, steps, strict=True)
    )
    part = model.tensor(size, "INT8", **_quantisation(model, source))
    masks = dict.fromkeys(
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"), 0
    )
    places = [model.constant(numbers) for numbers in (begins, ends, steps)]
    model.node("STRIDED_SLICE", [source, *places], [part], **masks)
    window = {"Padding": SAME, "StrideH": 1, "StrideW": 1}
    if behind == "MAX_POOL_2D":
        target = model.tensor(size, "INT8", **_quantisation(model, source))
        model.node(behind, [part], [target], FilterHeight=2, FilterWidth=2, **window)
    else:
        target = activations(model, size)
        inputs = [part, model.weights((1, 3, 3, size[3]), axis=3), model.bias(size[3])]
        model.node("DEPTHWISE_CONV_2D", inputs, [target], DepthMultiplier=1, **window)
    if behind == "ADD":
        model.node("ADD", [part, target], [activations(model, size)])
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert len(network.layers) == (3 if behind == "ADD" else 2)


def _quantisation(model: Model, tensor: int) -> dict[str, Any]:
    known = model.tensors[tensor]
    return {"scale": known["scales"], "zero_point": known["zero_points"]}


@pytest.mark.parametrize("amounts", [[[0, 0], [0, 3]], [[1, 0], [2, 1]]])
def test_a_shortcut_with_zeros_for_channels_equals_the_reference(
    tmp_path: Path, amounts: list[list[int]]
) -> None:
    model = Model(4)
    rows, channels = amounts
    source = activations(model, (1, 5, 6, 3))
    wide = (1, 5 + sum(rows), 6, 3 + sum(channels))
    padded = model.tensor(wide, "INT8", **_quantisation(model, source))
    padding = model.constant([[0, 0], rows, [0, 0], channels])
    model.node("PAD", [source, padding], [padded])
    target = activations(model, wide)
    inputs = [padded, model.weights((wide[3], 1, 1, wide[3])), model.bias(wide[3])]
    made = activations(model, wide)
    model.node("CONV_2D", inputs, [made], Padding=SAME, StrideH=1, StrideW=1)
    model.node("ADD", [made, padded], [target])
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert "pad0" in network.metadata["tensors"]  # type: ignore[operator]


def test_an_output_in_another_order_is_put_in_order(tmp_path: Path) -> None:
    model = Model()
    more = {"scale": 0.1, "zero_point": 9}
    source = model.tensor((1, 2, 3, 4), **more)
    made, flat = model.tensor((1, 2, 3, 4), **more), model.tensor((1, 24), **more)
    model.node("LEAKY_RELU", [source], [made], Alpha=0.4)
    model.node("RESHAPE", [made, model.constant([1, 24])], [flat])
    path = model.save(tmp_path / "m.tflite")
    network = equals_reference(path, stored_inputs(model))
    assert network.shapes()[network.output] == (4, 2, 3)


def test_flat_input_takes_the_shape_of_its_reshape(tmp_path: Path) -> None:
    model = Model()
    source = model.tensor((1, 24), "INT8", 0.1, 3)
    image = model.tensor((1, 4, 3, 2), "INT8", 0.1, 3)
    model.node("RESHAPE", [source, model.constant([1, 4, 3, 2])], [image])
    inputs = [image, model.weights((4, 3, 3, 2)), model.bias(4)]
    target = activations(model, (1, 4, 3, 4))
    model.node("CONV_2D", inputs, [target], Padding=SAME, StrideH=1, StrideW=1)
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert network.input_shape == (2, 4, 3)
    assert network.metadata["input"]["shape"] == [24]  # type: ignore[index]


def test_channel_shuffle_of_reshapes_is_one_layer(tmp_path: Path) -> None:
    model = Model()
    more = {"scale": 0.1, "zero_point": -3}
    source = model.tensor((1, 4, 3, 6), **more)
    groups = model.tensor((1, 4, 3, 2, 3), **more)
    turned = model.tensor((1, 4, 3, 3, 2), **more)
    target = model.tensor((1, 4, 3, 6), **more)
    end = activations(model, (1, 4, 3, 4))
    model.node("RESHAPE", [source, model.constant([1, 4, 3, 2, 3])], [groups])
    model.node("TRANSPOSE", [groups, model.constant([0, 1, 2, 4, 3])], [turned])
    model.node("RESHAPE", [turned, model.constant([1, 4, 3, 6])], [target])
    inputs = [target, model.weights((4, 1, 1, 6)), model.bias(4)]
    model.node("CONV_2D", inputs, [end], Padding=SAME, StrideH=1, StrideW=1)
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert network.layers[0].order == (0, 3, 1, 4, 2, 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("op", ["SPLIT", "STRIDED_SLICE"])
def test_slices_of_channels_equal_the_reference(tmp_path: Path, op: str) -> None:
    model = Model()
    more = {"scale": 0.1, "zero_point": -3}
    source = model.tensor((1, 4, 3, 6), **more)
    low, high = model.tensor((1, 4, 3, 3), **more), model.tensor((1, 4, 3, 3), **more)
    if op == "SPLIT":
        model.node(op, [model.constant(3), source], [low, high], NumSplits=2)
    else:
        for target, begin in ((low, 0), (high, 3)):
            ends = model.constant([0, 0, 0, begin + 3])
            begins, steps = model.constant([0, 0, 0, begin]), model.constant([1, 1, 1, 1])
            model.node(op, [source, begins, ends, steps], [target], EndMask=7, BeginMask=7)
    left, right = activations(model, (1, 4, 3, 4)), activations(model, (1, 4, 3, 4))
    for half, target in ((low, left), (high, right)):
        inputs = [half, model.weights((4, 3, 3, 3)), model.bias(4)]
        model.node("CONV_2D", inputs, [target], Padding=SAME, StrideH=1, StrideW=1)
    model.node("ADD", [left, right], [activations(model, (1, 4, 3, 4), scale=0.2)])
    equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))


def test_dilation_by_a_batch_is_a_dilated_convolution(tmp_path: Path) -> None:
    model = Model()
    more = {"scale": 0.1, "zero_point": -3}
    source = model.tensor((1, 7, 9, 2), **more)
    dealt = model.tensor((4, 6, 7, 2), **more)
    made = model.tensor((4, 4, 5, 3), scale=0.2, zero_point=5)
    target = model.tensor((1, 7, 9, 3), scale=0.2, zero_point=5)
    block = model.constant([2, 2])
    model.node("SPACE_TO_BATCH_ND", [source, block, model.constant([[2, 3], [2, 3]])], [dealt])
    inputs = [dealt, model.weights((3, 3, 3, 2)), model.bias(3)]
    model.node("CONV_2D", inputs, [made], Padding=VALID, StrideH=1, StrideW=1)
    model.node("BATCH_TO_SPACE_ND", [made, block, model.constant([[0, 1], [0, 1]])], [target])
    network = equals_reference(model.save(tmp_path / "m.tflite"), stored_inputs(model))
    assert network.layers[0].dilation == (2, 2)  # type: ignore[attr-defined]


def test_ends_and_beginnings_of_float_are_the_hosts(tmp_path: Path) -> None:
    model = Model()
    source = model.tensor((1, 6), "FLOAT32", None)
    stored = model.tensor((1, 6), "INT8", 0.1, 5)
    model.node("QUANTIZE", [source], [stored])
    made = activations(model, (1, 4), scale=0.2)
    model.node("FULLY_CONNECTED", [stored, model.weights((4, 6)), model.bias(4)], [made])
    soft = model.tensor((1, 4), "INT8", 1 / 256, -128)
    model.node("SOFTMAX", [made], [soft], Beta=1.0)
    model.node("DEQUANTIZE", [soft], [model.tensor((1, 4), "FLOAT32", None)])
    network = read_model(model.save(tmp_path / "m.tflite"))
    assert network.metadata["input"]["dtype"] == "float32"  # type: ignore[index]
    assert network.metadata["output"] == {
        "scale": pytest.approx(0.2),
        "zero_point": model.tensors[made]["zero_points"][0],
        "softmax": True,
    }


MODELS = {
    "ic": "ic_pretrainedResnet_int8.tflite",
    "kws": "kws_ref_model_int8.tflite",
    "vww": "vww_96_int8.tflite",
    "ad": "ad01_int8.tflite",
}


def shared(name: str) -> Path:
    """Return a file that is not part of the project, or skip."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {DATA}")
    return path


def real_inputs(task: str, shape: tuple[int, ...], count: int) -> npt.NDArray[np.int8]:
    """The task's own inputs where there are some, stored as int8; else random ones."""
    if task == "kws":
        return np.load(shared("kws01.npz"))["x"][:count, ..., None]
    if task == "ad":
        rng = np.random.default_rng(SEED)
        return np.clip(rng.normal(60, 30, (count, *shape)), -128, 127).astype(np.int8)
    name = {"ic": "cifar10_500_lossless.npz", "vww": "vww01_rgb_100.npz"}[task]
    pixels = np.load(shared(name))["x"][:count]
    return (pixels.astype(np.int64) - 128).astype(np.int8)


def read_shared(task: str) -> tuple[Path, CompressedNetwork]:
    path = shared(MODELS[task])
    return path, read_model(path)


@pytest.mark.data
@pytest.mark.parametrize("task", MODELS)
def test_every_tensor_of_a_real_model_equals_the_reference(task: str) -> None:
    path, network = read_shared(task)
    shape: Any = network.metadata["input"]["shape"]  # type: ignore[index]
    stored = real_inputs(task, tuple(shape), 3)
    noise = np.random.default_rng(SEED).integers(-128, 128, (1, *shape)).astype(np.int8)
    network = equals_reference(path, np.concatenate([stored, noise]))
    assert set(network.metadata["tensors"]) == {  # type: ignore[call-overload]
        layer.name for layer in network.layers
    }


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("task", MODELS)
def test_every_tensor_of_twenty_inputs_equals_the_reference(task: str) -> None:
    path, network = read_shared(task)
    shape: Any = network.metadata["input"]["shape"]  # type: ignore[index]
    equals_reference(path, real_inputs(task, tuple(shape), 20))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "labels"),
    [("kws", "kws01.npz"), ("ic", "cifar10_500_lossless.npz"), ("vww", "vww01_rgb_100.npz")],
)
def test_accuracy_on_whole_sets_is_that_of_litert(task: str, labels: str) -> None:
    path, network = read_shared(task)
    wanted = np.load(shared(labels))["y"]
    stored = real_inputs(task, (), len(wanted))
    inputs = network_inputs(network, stored)
    started = time.process_time()  # of all threads, so that other work does not count
    scores = infer(network, inputs, counts=False, keep=[network.output]).outputs[network.output]
    assert len(stored) / (time.process_time() - started) >= 20
    found = scores.reshape(len(stored), -1).argmax(axis=1)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    expected = []
    for one in stored:
        interpreter.set_tensor(source["index"], one[None])
        interpreter.invoke()
        expected.append(int(interpreter.get_tensor(target["index"]).argmax()))
    ours, theirs = np.mean(found == wanted), np.mean(np.array(expected) == wanted)
    print(f"{task}: {ours:.1%} by golden, {theirs:.1%} by LiteRT, of {len(wanted)}")
    assert abs(ours - theirs) <= 0.003
    assert ours >= {"kws": 0.90, "ic": 0.87, "vww": 0.80}[task]


def problems_of(model: Model, path: Path, **more: Any) -> list[str]:
    """Return all problems of a model as lines; reading it must name the first."""
    model.save(path, **more)
    found = [str(problem) for problem in check_model(path)]
    if found:
        with pytest.raises(ReadError, match=re.escape(found[0])):
            read_model(path)
    else:
        read_model(path)
    return found


def relu_of(model: Model, source: int) -> int:
    """Add a RELU and return its output."""
    shape = model.tensors[source]["shape"]
    target = activations(model, shape, model.tensors[source]["dtype"])
    model.node("RELU", [source], [target])
    return target


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    model = conv_model()
    source = model.nodes[0]["outputs"][0]
    shape = model.tensors[source]["shape"]
    middle = activations(model, shape)
    rows = model.constant(np.arange(shape[1])[:, None, None], "INT8", scale=0.1)
    model.node("SUB", [source, rows], [middle])
    wrong = activations(model, (1, 4, 4, shape[3]))
    pool = {"Padding": SAME, "StrideH": 1, "StrideW": 1, "FilterHeight": 9, "FilterWidth": 3}
    model.node("AVERAGE_POOL_2D", [middle], [wrong], **pool)
    model.node("RFFT2D", [wrong], [activations(model, (1, 4, 4, 6))])
    found = problems_of(model, tmp_path / "m.tflite")
    assert [line.split(":")[0] for line in found] == [
        "node '1' (SUB)",
        "node '2' (AVERAGE_POOL_2D)",
        "node '3' (RFFT2D)",
    ]


def float_model() -> Model:
    model = conv_model()
    for number, tensor in enumerate(model.tensors):
        tensor.update(dtype="FLOAT32", scales=[], zero_points=[], name=f"t{number}")
    return model


def hybrid_model() -> Model:
    model = conv_model()
    for number in (model.nodes[0]["inputs"][0], model.nodes[0]["outputs"][0]):
        model.tensors[number].update(dtype="FLOAT32", scales=[], zero_points=[])
    return model


def changed(tensor: int, node: dict[str, Any] | None = None, **changes: Any) -> Model:
    """A convolution with one tensor (0 input, 1 weights, 2 bias, 3 output) or its node changed."""
    model = conv_model()
    model.tensors[tensor].update(changes)
    model.nodes[0]["options"].update(node or {})
    return model


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (float_model(), "it is a float model; convert with full integer quantisation"),
        (hybrid_model(), "it is a hybrid model: its weights are integers"),
        (changed(3, dtype="INT16"), "node '0' (CONV_2D): tensor 't3': 16-bit activations are not"),
        (changed(0, dtype="INT16"), "input 't0': tensor 't0': 16-bit activations are not read"),
        (changed(3, scales=[], zero_points=[]), "tensor 't3' has no scale"),
        (changed(0, shape=(2, 9, 8, 3)), "the batch, must be 1; convert it with a batch of 1"),
        (changed(0, signature=(1, -1, 8, 3)), "tensor 't0' has a size that is not fixed"),
        (changed(1, axis=1), "scales along dimension 1; give one, or one an output channel"),
        (changed(1, zero_points=[3] * 6), "zero point that is not 0; quantise weights symm"),
        (changed(1, scales=[], zero_points=[]), "its weights 't1' have no scale"),
        (changed(1, dtype="UINT8"), "its weights 't1' are UINT8 beside INT8 activations"),
        (changed(2, dtype="INT64"), "its bias 't2' is INT64; quantise it to int32"),
        (changed(3, shape=(1, 9, 7, 6)), "its output has shape (1, 9, 7, 6), and it makes (9, 8"),
        (changed(3, {"StrideH": 0}), "kernel, stride and dilation are (3, 3), (0, 1), (1, 1)"),
        (changed(3, {"FusedActivationFunction": 4}), "its fused activation function 4 is not read"),
        (changed(1, shape=(6, 3, 3, 2), data=np.ones((6, 3, 3, 2))), "do not fit 3 input channels"),
        (changed(0, shape=(1, 9, 8, 3, 1)), "it has 5 dimensions; use at most 4"),
    ],
)
def test_a_problem_is_one_line(tmp_path: Path, model: Model, line: str) -> None:
    found = problems_of(model, tmp_path / "m.tflite")
    assert any(line in text for text in found), found
    assert all("\n" not in text for text in found)


def test_several_ends_are_named(tmp_path: Path) -> None:
    model = conv_model()
    end = model.nodes[0]["outputs"][0]
    found = problems_of(model, tmp_path / "m.tflite", outputs=[end, relu_of(model, end)])
    assert found == ["it has 2 outputs ('t3', 't4'); convert it with one output"]


def test_reading_before_making_and_loops_are_told(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 2, 2, 1))
    first, second = activations(model, (1, 2, 2, 1)), activations(model, (1, 2, 2, 1))
    model.node("ADD", [source, second], [first])
    model.node("RELU", [first], [second])
    assert problems_of(model, tmp_path / "m.tflite") == [
        "node '0' (ADD): it reads 't2', which no node before it makes; convert it again"
    ]


def test_an_end_without_a_way_from_the_input_is_told(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 2, 2, 1))
    relu_of(model, source)
    loose = activations(model, (1, 2, 2, 1))
    found = problems_of(model, tmp_path / "m.tflite", outputs=[loose])
    assert found == ["no node makes its output 't2'; convert it again"]


def test_a_constant_of_each_place_is_told(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 2, 2, 1))
    constant = model.constant(np.arange(4).reshape(1, 2, 2, 1), "INT8", scale=0.1, zero_point=0)
    model.node("ADD", [source, constant], [activations(model, (1, 2, 2, 1))])
    (line,) = problems_of(model, tmp_path / "m.tflite")
    assert "its constant 't1' has shape (1, 2, 2, 1) beside (1, 2, 2, 1); use one number" in line


def test_softmax_in_the_middle_is_told(tmp_path: Path) -> None:
    model = Model()
    source = activations(model, (1, 4))
    target = activations(model, (1, 4))
    model.node("SOFTMAX", [source], [target], Beta=1.0)
    relu_of(model, target)
    (line,) = problems_of(model, tmp_path / "m.tflite")
    assert "node 1 (RELU) reads it, and only the end of a network may" in line


def test_damaged_files_are_one_problem_and_never_a_traceback(tmp_path: Path) -> None:
    content = conv_model().save(tmp_path / "whole.tflite").read_bytes()
    rng = np.random.default_rng(SEED)
    path = tmp_path / "m.tflite"
    for case in range(600):
        damaged = bytearray(content)
        if case % 3 == 0:
            damaged = damaged[: int(rng.integers(0, len(content)))]
        else:
            for place in rng.integers(8, len(content), 1 + case % 5):
                damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        for problem in check_model(path):
            assert "\n" not in str(problem)
    path.write_bytes(b"not a model at all")
    assert [str(problem) for problem in check_model(path)] == [
        "it is not a TFLite model: its bytes 4 to 7 are not TFL3; convert it again"
    ]
