"""ONNX models put together node by node, and their comparison with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
import pytest
from onnx import TensorProto, helper, numpy_helper

from thresher.golden.compress.dense import DenseNetwork
from thresher.golden.inference import infer
from thresher.golden.network import ChannelShuffle, CompressedNetwork, Multiply
from thresher.golden.read import Calibration, check_model, read_model
from thresher.golden.read.onnx import read_onnx_dense
from thresher.golden.thr_file import load, save

__all__ = [
    "FLOAT_BIAS",
    "SEED",
    "Array",
    "Model",
    "as_stored",
    "check_dense",
    "check_equal",
    "check_read",
    "compare",
    "float_model",
    "focus",
    "mlperf_tiny",
    "problems_of",
    "q_linear_parts",
    "session",
    "task",
    "with_floats",
]

SEED = 20261124
MLPERF_TINY = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf_tiny"

Array = npt.NDArray[Any]

# A float bias is rounded to an integer: half a step of the sums at most, here a 200th of an output.
FLOAT_BIAS = 0.995


class Model:
    """A model of one input and one output that is put together node by node."""

    def __init__(
        self, *shape: int | str, kind: int = TensorProto.FLOAT, opset: int = 17, seed: int = SEED
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", kind, shape)]
        self.opset = opset
        self.output: onnx.ValueInfoProto | None = None

    def constant(self, array: npt.ArrayLike) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        domain = "com.microsoft" if op in MICROSOFT else ""
        names = [f"t{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(outputs)]
        self.nodes.append(
            helper.make_node(
                op, inputs, names, name=f"{op}{len(self.nodes)}", domain=domain, **attributes
            )
        )
        return names[0]

    def quantise(self, x: str, scale: float, zero_point: int = 0, dtype: Any = np.int8) -> str:
        scales = self.constant(np.float32(scale)), self.constant(np.array(zero_point, dtype))
        return self.node("QuantizeLinear", x, *scales)

    def dequantise(self, x: str, scale: float, zero_point: int = 0, dtype: Any = np.int8) -> str:
        scales = self.constant(np.float32(scale)), self.constant(np.array(zero_point, dtype))
        return self.node("DequantizeLinear", x, *scales)

    def both(self, x: str, scale: float, zero_point: int = 0, dtype: Any = np.int8) -> str:
        return self.dequantise(self.quantise(x, scale, zero_point, dtype), scale, zero_point, dtype)

    def weights(self, *shape: int, axis: int | None = 0, dtype: Any = np.int8) -> str:
        """Quantised weights with one scale, or one for each of an axis."""
        limits = np.iinfo(dtype)
        values = self.rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        count = 1 if axis is None else shape[axis]
        scales = self.rng.uniform(0.001, 0.01, count).astype(np.float32)
        zero = np.full(count, 131 if dtype == np.uint8 else 0, dtype)
        parts = (scales[0], zero[0]) if axis is None else (scales, zero)
        more = {} if axis is None else {"axis": axis}
        return self.node(
            "DequantizeLinear", self.constant(values), *map(self.constant, parts), **more
        )

    def bias(self, count: int, step: float, *, by_channel: bool = False) -> str:
        """Integer biases, of a step, or of one times the last weights' scales."""
        scale = np.float32(step)
        if by_channel:
            scale = numpy_helper.to_array(self.initializers[-2]) * scale
        values = self.rng.integers(-3000, 3000, count).astype(np.int32)
        return self.node("DequantizeLinear", self.constant(values), self.constant(scale), axis=0)

    def proto(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs,
            [self.output or onnx.ValueInfoProto(name=output)],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8)
        )


MICROSOFT = {
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
}


def session(model: onnx.ModelProto, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session without optimisations that gives further tensors."""
    more = onnx.ModelProto()
    more.CopyFrom(model)
    known = {item.name for item in model.graph.output}
    more.graph.output.extend(onnx.ValueInfoProto(name=x) for x in outputs if x not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(more.SerializeToString(), options)


def as_stored(network: CompressedNetwork, real: Array) -> Array:
    """Return the network's input for real inputs, as its metadata says."""
    spec: Any = network.metadata["input"]
    stored = real.astype(np.int64)
    if spec["dtype"] == "float32":
        stored = np.rint(real / np.float32(spec["scale"])).astype(np.int64) + spec["zero_point"]
        low, high = network.input_range
        stored = np.clip(stored, low + spec["zero_point"], high + spec["zero_point"])
    if spec["layout"] == "NHWC":
        stored = stored.transpose(0, 3, 1, 2)
    return (stored - spec["zero_point"]).reshape(len(real), *network.input_shape)


def compare(
    path: Path, network: CompressedNetwork, inputs: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return each layer's stored values by golden and by onnxruntime, where it has a tensor."""
    tensors: Any = network.metadata["tensors"]
    zero_points: Any = network.metadata["zero_points"]
    ours = infer(network, as_stored(network, inputs), counts=False).outputs
    runtime = session(onnx.load(path), list(tensors.values()))
    name = runtime.get_inputs()[0].name
    theirs: dict[str, list[Array]] = {layer: [] for layer in tensors}
    for k in range(len(inputs)):
        found = runtime.run(list(tensors.values()), {name: inputs[k : k + 1]})
        for layer, values in zip(tensors, found, strict=True):
            shape = network.shapes()[layer]
            stored = values.astype(np.int64).reshape(shape) - zero_points.get(layer, 0)
            theirs[layer].append(stored)
    return {x: ours[x] for x in tensors}, {x: np.array(theirs[x]) for x in tensors}


def one_layer(network: CompressedNetwork, name: str, inputs: Sequence[Array]) -> Array:
    """Return a layer's outputs for outputs of the layers that it reads."""
    layer = network.layer(name)
    ranges = [network.ranges()[source] for source in layer.inputs]
    parts, first = [], 0
    if isinstance(layer, Multiply):  # by one value a channel, or by the map that has it everywhere
        inputs = inputs[0], np.broadcast_to(inputs[1], inputs[0].shape)
    for number, maps in enumerate(inputs):
        order = tuple(range(first, first + maps.shape[1]))
        parts.append(ChannelShuffle(name=f"part{number}", order=order))
        first += maps.shape[1]
    alone = CompressedNetwork(
        name="alone",
        input_shape=(first, *inputs[0].shape[2:]),
        input_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
        layers=(*parts, replace(layer, inputs=tuple(part.name for part in parts))),
    )
    joined = np.concatenate(inputs, axis=1)
    return infer(alone, joined, counts=False, keep=[name]).outputs[name]


def check_equal(
    path: Path, network: CompressedNetwork, inputs: Array, part: float = 0.999
) -> dict[str, Array]:
    """At least a part of all values is equal; given the runtime's inputs, none is off by two.

    A runtime computes in single precision, so that a value near a half may be rounded the other
    way; the layers after it multiply the difference.
    """
    ours, theirs = compare(path, network, inputs)
    same = sum(int((ours[x] == theirs[x]).sum()) for x in ours)
    assert same >= part * sum(ours[x].size for x in ours)
    maps = {"input": as_stored(network, inputs)}
    for layer in network.layers:
        made = one_layer(network, layer.name, [maps[source] for source in layer.inputs])
        maps[layer.name] = theirs.get(layer.name, made)
        difference = np.abs(made - maps[layer.name])
        assert difference.max() <= 1, layer.name
        assert (difference == 0).sum() >= part * difference.size, layer.name
    return ours


def check_read(
    tmp_path: Path,
    model: Model,
    output: str,
    *,
    count: int = 12,
    scale: float = 1.0,
    part: float = 0.999,
) -> CompressedNetwork:
    """Read a model and compare all of its tensors for random inputs."""
    path = tmp_path / "model.onnx"
    onnx.save(model.proto(output), path)
    assert [str(problem) for problem in check_model(path)] == []
    network = read_model(path)
    tensor = model.inputs[0].type.tensor_type
    shape = [count, *(size.dim_value for size in tensor.shape.dim[1:])]
    rng = np.random.default_rng(SEED)
    if tensor.elem_type == TensorProto.FLOAT:
        inputs = (rng.normal(size=shape) * scale).astype(np.float32)
    else:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        limits = np.iinfo(dtype)
        inputs = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    ours = check_equal(path, network, inputs, part)
    assert network.output in ours
    for values in ours.values():
        assert np.unique(values).size > 2, "the test is of no use"
    save(network, tmp_path / "model.thr")
    again = load(tmp_path / "model.thr")
    assert again.layers == network.layers
    assert again.metadata == network.metadata
    return network


def problems_of(tmp_path: Path, model: Model, output: str) -> list[str]:
    path = tmp_path / "model.onnx"
    onnx.save(model.proto(output), path)
    return [str(problem) for problem in check_model(path)]


def focus(model: Model, x: str) -> str:
    """Return every second row and column, of four beginnings, as channels."""
    parts = []
    for y0, x0 in ((0, 0), (1, 0), (0, 1), (1, 1)):
        numbers = ([y0, x0], [1 << 30, 1 << 30], [2, 3], [2, 2])
        parts.append(model.node("Slice", x, *(model.constant(np.array(n)) for n in numbers)))
    return model.node("Concat", *parts, axis=1)


def q_linear_parts(model: Model, scale: float, zero_point: int, dtype: Any) -> tuple[str, str]:
    return model.constant(np.float32(scale)), model.constant(np.array(zero_point, dtype))


def float_model() -> onnx.ModelProto:
    """Return a small float network with a residual, a branch and a linear layer."""
    model = Model(1, 3, 16, 16)

    def convolved(x: str, *shape: int, **attributes: Any) -> str:
        weights = model.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        parts = weights.astype(np.float32), model.rng.normal(size=shape[0]).astype(np.float32)
        return model.node("Conv", x, *map(model.constant, parts), **attributes)

    x = model.node("Relu", convolved("x", 8, 3, 3, 3, pads=[1] * 4, strides=[2, 2]))
    y = model.node("Relu", convolved(x, 8, 1, 3, 3, pads=[1] * 4, group=8))
    y = model.node("Add", convolved(y, 8, 8, 1, 1), x)
    y = model.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    branches = [model.node("Relu", convolved(y, 4, 8, size, size, pads=[size // 2] * 4))
                for size in (1, 3)]  # fmt: skip
    y = model.node("GlobalAveragePool", model.node("Concat", *branches, axis=1))
    y = model.node("Reshape", y, model.constant(np.array([1, 8])))
    weights = model.constant(model.rng.normal(size=(5, 8)).astype(np.float32))
    bias = model.constant(model.rng.normal(size=5).astype(np.float32))
    return model.proto(model.node("Gemm", y, weights, bias, transB=1))


def mlperf_tiny(name: str) -> Path:
    path = MLPERF_TINY / name
    if not path.is_file():
        pytest.skip(f"needs {name} of MLPerf Tiny's results at {MLPERF_TINY}")
    return path


def task(name: str, count: int) -> tuple[Array, Array]:
    """Return real inputs of a task's model, and labels, if there are any."""
    match name:
        case "ic":
            with np.load(mlperf_tiny("cifar10_500_lossless.npz")) as data:
                return data["x"][:count].astype(np.float32), data["y"][:count]
        case "kws":
            with np.load(mlperf_tiny("kws01.npz")) as data:
                stored = data["x"][:count].astype(np.float32).reshape(-1, 490)
                return (stored - 83) * np.float32(0.5847029), data["y"][:count]
        case "vww":
            with np.load(mlperf_tiny("vww01_rgb_100.npz")) as data:
                pictures = data["x"][:count].astype(np.float32).transpose(0, 3, 1, 2)
                return pictures / 255, data["y"][:count]
    rng = np.random.default_rng(SEED)
    return rng.normal(size=(count, 640)).astype(np.float32) * 4 - 12, np.zeros(0)


def check_dense(tmp_path: Path, model: Model, output: str, *, count: int = 4) -> DenseNetwork:
    """Read a float model and compare its output for random inputs."""
    path = tmp_path / "float.onnx"
    onnx.save(model.proto(output), path)
    dense = read_onnx_dense(path)
    (source,) = session(onnx.load(path), []).get_inputs()
    inputs = np.random.default_rng(SEED).normal(size=(count, *source.shape[1:]))
    network = read_model(path, Calibration(samples=inputs))
    spec: Any = network.metadata["input"]
    runtime = session(onnx.load(path), [])
    real = inputs.astype(np.float32)
    found = [runtime.run(None, {"x": real[k : k + 1]})[0].ravel() for k in range(count)]
    maps = inputs.transpose(0, 3, 1, 2) if spec["layout"] == "NHWC" else inputs
    made = dense.forward(maps.reshape(count, *dense.input_shape))[dense.output].reshape(count, -1)
    np.testing.assert_allclose(made, found, rtol=1e-4, atol=1e-4)
    # The integer network is that of the dense one, whose tests are elsewhere.
    stored = infer(network, as_stored(network, inputs), keep=[network.output], counts=False)
    step = network.metadata["output"]["scale"]  # type: ignore[index]
    estimate = stored.outputs[network.output].reshape(count, -1) * step
    assert np.corrcoef(estimate.ravel(), np.ravel(found))[0, 1] > 0.99
    return dense


def with_floats(model: Model, op: str, x: str, *shape: int, **attributes: Any) -> str:
    weights = model.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    bias = model.rng.normal(size=shape[0])
    parts = (model.constant(part.astype(np.float32)) for part in (weights, bias))
    return model.node(op, x, *parts, **attributes)
