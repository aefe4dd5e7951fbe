"""TFLite models run by its reference kernels, for comparison with what is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import OpResolverType
from tflite_models import SAME, VALID, Model, network_inputs, run_reference

from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork
from thresher.golden.read import ReadError, check_model, read_model

__all__ = [
    "LOWEST",
    "MODELS",
    "SEED",
    "UNIT",
    "activations",
    "conv_model",
    "equals_reference",
    "gate_weights",
    "problems_of",
    "relu_of",
    "shared",
    "stored_inputs",
]

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
