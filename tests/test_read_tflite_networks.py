"""TFLite: published networks compute what the reference kernels do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter
from tflite_models import network_inputs
from tflite_reference import MODELS, SEED, equals_reference, shared

from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork
from thresher.golden.read import read_model


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
