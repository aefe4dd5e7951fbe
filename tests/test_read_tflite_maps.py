"""TFLite: maps that are moved, joined and padded are what the reference kernels make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tflite_models import SAME, VALID, Model
from tflite_reference import activations, equals_reference, stored_inputs

from thresher.golden.read import read_model


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
