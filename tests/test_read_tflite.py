"""TFLite: what operations compute of values is what the reference kernels compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType
from tflite_models import SAME, VALID, Model
from tflite_reference import (
    LOWEST,
    UNIT,
    activations,
    conv_model,
    equals_reference,
    gate_weights,
    problems_of,
    stored_inputs,
)

from thresher.golden.network import Convolution, Lookup, Multiply


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
