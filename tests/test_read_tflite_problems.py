"""TFLite: what cannot be read says why, in one line, and what would work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tflite_models import SAME, Model
from tflite_reference import SEED, activations, conv_model, problems_of, relu_of

from thresher.golden.read import check_model


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
