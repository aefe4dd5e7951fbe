"""ONNX models: what is read computes what onnxruntime computes; what cannot be read says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from thresher.golden.errors import ThresherError
from thresher.golden.inference import infer
from thresher.golden.network import (
    AveragePool,
    ChannelShuffle,
    CompressedNetwork,
    Convolution,
    Lookup,
    MaxPool,
    Multiply,
)
from thresher.golden.pooling import average_pool, lacking
from thresher.golden.read import Calibration, ReadError, check_model, read_model
from thresher.golden.read.onnx import read_onnx_dense
from thresher.golden.thr_file import load, save

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


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"group": 2, "pads": [1, 1, 1, 1]},
        {"group": 4, "pads": [1, 0, 1, 0]},
        {"pads": [4, 4, 4, 4]},
    ],
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_convolutions(tmp_path: Path, attributes: dict[str, Any], dtype: Any) -> None:
    model = Model(1, 4, 9, 8)
    x = model.both("x", 0.03, 7 if dtype == np.int8 else 130, dtype)
    w = model.weights(8, 4 // attributes.get("group", 1), 3, 3)
    b = model.bias(8, 0.03, by_channel=True)
    y = model.node("Conv", x, w, b, kernel_shape=[3, 3], **attributes)
    network = check_read(
        tmp_path, model, model.quantise(y, 0.06, 3 if dtype == np.int8 else 120, dtype)
    )
    assert [type(layer) for layer in network.layers] == [Convolution]


@pytest.mark.parametrize("axis", [0, None])
def test_unsigned_weights_with_a_zero_point_have_nine_bits(
    tmp_path: Path, axis: int | None
) -> None:
    model = Model(1, 3, 6, 6)
    w = model.weights(5, 3, 3, 3, axis=axis, dtype=np.uint8)
    y = model.node("Conv", model.both("x", 0.02), w)
    network = check_read(tmp_path, model, model.quantise(model.node("Relu", y), 0.05, -128))
    (layer,) = network.layers
    assert isinstance(layer, Convolution)
    assert layer.codebook.min() == -131


def test_a_convolution_of_a_row(tmp_path: Path) -> None:
    model = Model(1, 4, 20)
    y = model.node("Conv", model.both("x", 0.02), model.weights(6, 4, 5), pads=[2, 1], strides=[2])
    y = model.node("MaxPool", model.both(y, 0.05), kernel_shape=[2], strides=[2])
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.input_shape == (4, 1, 20)


def test_a_one_by_one_kernel_may_be_padded(tmp_path: Path) -> None:
    model = Model(1, 4, 5, 5)
    w, b = model.weights(3, 4, 1, 1), model.constant(np.array([0.5, -1, 2], np.float32))
    y = model.node("Conv", model.both("x", 0.02), w, b, pads=[1, 1, 1, 1])
    network = check_read(tmp_path, model, model.quantise(y, 0.03))
    assert network.shapes()[network.output] == (3, 7, 7)


def test_quantised_biases_and_fake_quantised_weights(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6)
    b = model.bias(4, 0.0004)
    floats = model.constant(model.rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    w = model.both(floats, 0.02)
    y = model.node("Conv", model.both("x", 0.02), w, b)
    check_read(tmp_path, model, model.quantise(y, 0.0613))


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(tmp_path: Path, transposed: int) -> None:
    model = Model(1, 2, 4, 4)
    flat = model.node("Flatten", model.both("x", 0.02))
    w = model.weights(*((9, 32) if transposed else (32, 9)), axis=1 - transposed)
    b = model.bias(9, 0.01, by_channel=True)
    y = model.node("Gemm", flat, w, b, transB=transposed, alpha=0.5, beta=2.0)
    network = check_read(tmp_path, model, model.quantise(y, 0.04, -20), count=200)
    assert network.input_shape == (2, 4, 4)


def test_matmul_and_bias_of_a_vector_and_of_a_map(tmp_path: Path) -> None:
    model = Model(1, 5, 6, 3)
    x = model.both("x", 0.02, 5)
    w = model.weights(3, 7, axis=1)
    b = model.bias(7, 0.02, by_channel=True)
    y = model.both(model.node("Add", model.node("MatMul", x, w), b), 0.03)
    y = model.node("ReduceMean", y, axes=[1, 2], keepdims=0)
    y = model.node("MatMul", model.both(y, 0.0103), model.weights(7, 4, axis=None))
    b = model.bias(4, 0.0103, by_channel=True)
    network = check_read(tmp_path, model, model.quantise(model.node("Add", b, y), 0.02), count=300)
    assert network.input_shape == (3, 5, 6)
    assert network.metadata["input"]["layout"] == "NHWC"  # type: ignore[index]


def test_activation_functions_and_maximum_pooling_before_quantising(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    limits = model.constant(np.float32(-1)), model.constant(np.float32(2.5))
    y = model.node("Clip", y, *limits)
    y = model.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    y = model.both(y, 0.03, -5)
    y = model.node("Conv", y, model.weights(4, 4, 1, 1))
    network = check_read(tmp_path, model, model.quantise(model.node("Relu", y), 0.02, -128))
    assert network.shapes()[network.output] == (4, 4, 4)


def test_batch_normalisation_is_folded(tmp_path: Path) -> None:
    def batch_norm(model: Model, x: str) -> str:
        numbers = [model.rng.normal(size=6), *model.rng.normal(size=(2, 6))]
        parts = [*numbers, model.rng.uniform(0.5, 2, 6)]
        return model.node(
            "BatchNormalization", x, *(model.constant(x.astype(np.float32)) for x in parts)
        )

    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(6, 3, 3, 3))
    y = model.both(model.node("Relu", batch_norm(model, y)), 0.04, -128)
    y = model.quantise(batch_norm(model, y), 0.03)
    network = check_read(tmp_path, model, y, part=FLOAT_BIAS)
    assert len(network.layers) == 2


def test_float_biases_are_rounded_to_the_step_of_the_sums(tmp_path: Path) -> None:
    model = Model(1, 3, 9, 9)
    w, b = model.weights(6, 3, 3, 3), model.constant(np.linspace(-1, 1, 6).astype(np.float32))
    y = model.node("Conv", model.both("x", 0.02), w, b)
    check_read(tmp_path, model, model.quantise(y, 0.06), part=FLOAT_BIAS)


@pytest.mark.parametrize("scales", [(0.05, 0.011), (0.011, 0.05), (0.02, 0.02)])
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums_of_different_scales(tmp_path: Path, scales: tuple[float, float], op: str) -> None:
    model = Model(1, 4, 8, 8)
    one, other = model.both("x", 0.02, 11), None
    one = model.both(model.node("Conv", one, model.weights(4, 4, 1, 1)), scales[0], 9)
    other = model.both(model.node("Conv", one, model.weights(4, 4, 1, 1)), scales[1], -30)
    y = model.node("Relu", model.node(op, one, other))
    check_read(tmp_path, model, model.quantise(y, 0.025, -128))


def test_a_sum_of_a_tensor_and_itself_or_a_number_is_a_table(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    x = model.both("x", 0.02, 11)
    y = model.both(model.node("Add", x, x), 0.03)
    y = model.node("Mul", model.constant(np.float32(0.7)), y)
    y = model.node("Div", y, model.constant(np.float32([3.0])))
    network = check_read(tmp_path, model, model.quantise(y, 0.01))
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_sum_of_integers_that_are_read_with_two_scales(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    q = model.quantise("x", 0.02, 11)
    y = model.node("Add", model.dequantise(q, 0.02, 11), model.dequantise(q, 0.0413, 11))
    check_read(tmp_path, model, model.quantise(y, 0.071))


def test_constants_by_channel(tmp_path: Path) -> None:
    model = Model(1, 4, 8, 8)
    y = model.both("x", 0.02, 11)
    gains = model.constant(np.array([1.37, -0.51, 0.23, 0.0], np.float32).reshape(1, 4, 1, 1))
    offsets = model.constant(np.array([0.107, 0.21, -0.33, 0.5], np.float32).reshape(4, 1, 1))
    y = model.node("Add", model.node("Mul", y, gains), offsets)
    network = check_read(tmp_path, model, model.quantise(y, 0.02))
    assert [type(layer) for layer in network.layers] == [Convolution]


@pytest.mark.parametrize("op", ["Add", "Sub", "BatchNormalization"])
@pytest.mark.parametrize("reverse", [False, True])
def test_offsets_by_channel_take_the_weights_that_suit_them(
    tmp_path: Path, op: str, *, reverse: bool
) -> None:
    model = Model(1, 50, 16, 16)
    x = model.both("x", 0.02, 11)
    numbers = model.rng.normal(size=(4, 50)).astype(np.float32)
    if op == "BatchNormalization":
        numbers[3] = np.abs(numbers[3]) + 0.2
        y = model.node(op, x, *map(model.constant, numbers))
    else:
        constant = model.constant(numbers[0].reshape(1, 50, 1, 1))
        y = model.node(op, *((constant, x) if reverse else (x, constant)))
    check_read(tmp_path, model, model.quantise(y, 0.031, -3))


@pytest.mark.parametrize("signs", [1, 2])
@pytest.mark.parametrize("behind", ["input", "Conv", "Gemm"])
def test_slopes_by_channel(tmp_path: Path, behind: str, signs: int) -> None:
    model = Model(1, 6, 9, 8)
    slopes = model.rng.uniform(0, 1, 6)
    if signs == 2:
        slopes[[1, 3]] *= -0.5
        slopes[4] = 0
    y, shape = model.both("x", 0.02, 11), (6, 1, 1)
    if behind == "Conv":
        y = model.node("Conv", y, model.weights(6, 6, 3, 3), model.bias(6, 0.02, by_channel=True))
    elif behind == "Gemm":
        y, shape = model.node("Flatten", y), (1, 6)
        y = model.node("Gemm", y, model.weights(6, 432), transB=1)
    y = model.node("PRelu", y, model.constant(slopes.astype(np.float32).reshape(shape)))
    y = model.node("Clip", y, model.constant(np.float32(-0.9)), model.constant(np.float32(1.7)))
    network = check_read(tmp_path, model, model.quantise(y, 0.023, 7), count=40)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Add") == signs
    assert kinds.count("Linear" if behind == "Gemm" else "Convolution") == signs + 1


@pytest.mark.parametrize("op", ["LeakyRelu", "PRelu"])
def test_one_slope_of_sums_that_are_not_quantised(tmp_path: Path, op: str) -> None:
    model = Model(1, 3, 9, 8)
    y = model.both("x", 0.02, 11)
    y = model.node("Conv", y, model.weights(6, 3, 3, 3), model.bias(6, 0.02, by_channel=True))
    if op == "LeakyRelu":
        y = model.node(op, y, alpha=0.21)
    else:
        y = model.node(op, y, model.constant(np.float32([-0.21])))
    network = check_read(tmp_path, model, model.quantise(y, 0.023, 7), count=40)
    assert [type(layer).__name__ for layer in network.layers] == ["Convolution"] * 2 + ["Add"]


@pytest.mark.parametrize("slopes", [1, 5])
def test_slopes_of_a_float_model(tmp_path: Path, slopes: int) -> None:
    model = Model(1, 3, 9, 9)
    y = with_floats(model, "Conv", "x", 5, 3, 3, 3)
    numbers = model.rng.uniform(-0.3, 0.6, (slopes, 1, 1)).astype(np.float32)
    y = model.node("PRelu", y, model.constant(numbers))
    dense = check_dense(tmp_path, model, with_floats(model, "Conv", y, 4, 5, 3, 3), count=10)
    kinds = [layer.kind for layer in dense.layers]
    assert kinds == ["convolution", "unary", "convolution"] if slopes == 1 else "add" in kinds


def focus(model: Model, x: str) -> str:
    """Return every second row and column, of four beginnings, as channels."""
    parts = []
    for y0, x0 in ((0, 0), (1, 0), (0, 1), (1, 1)):
        numbers = ([y0, x0], [1 << 30, 1 << 30], [2, 3], [2, 2])
        parts.append(model.node("Slice", x, *(model.constant(np.array(n)) for n in numbers)))
    return model.node("Concat", *parts, axis=1)


@pytest.mark.parametrize("is_float", [False, True])
def test_rows_and_columns_as_channels(tmp_path: Path, *, is_float: bool) -> None:
    model = Model(1, 3, 8, 10)
    if is_float:
        y = with_floats(model, "Conv", focus(model, "x"), 5, 12, 3, 3)
        check_dense(tmp_path, model, y, count=10)
        return
    y = focus(model, model.both("x", 0.02, 11))
    y = model.node("Conv", y, model.weights(5, 12, 3, 3), pads=[1] * 4)
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert [type(layer) for layer in network.layers] == [Convolution] * 2
    assert network.layers[0].kernel == network.layers[0].stride == (2, 2)  # type: ignore[attr-defined]


def test_a_shortcut_of_every_second_place_with_channels_of_zeros(tmp_path: Path) -> None:
    model = Model(1, 4, 9, 8)
    x = model.both("x", 0.02, 11)
    y = model.node("Conv", x, model.weights(8, 4, 3, 3), pads=[1] * 4, strides=[2, 2])
    y = model.both(y, 0.05, -4)
    ends = (np.array([0, 0]), np.array([9, 8]), np.array([2, 3]), np.array([2, 2]))
    z = model.node("Slice", x, *map(model.constant, ends))
    z = model.node("Pad", z, model.constant(np.array([0, 2, 0, 0, 0, 2, 0, 0])))
    check_read(tmp_path, model, model.quantise(model.node("Add", y, z), 0.0613))


@pytest.mark.parametrize("quantised", [True, False])
def test_concatenations(tmp_path: Path, quantised: bool) -> None:
    model = Model(1, 3, 7, 7)
    x = model.both("x", 0.02)
    parts = []
    for channels, scale in ((4, 0.03), (5, 0.05)):
        y = model.node("Conv", x, model.weights(channels, 3, 3, 3), pads=[1, 1, 1, 1])
        parts.append(model.both(y, scale, 4) if quantised else model.node("Relu", y))
    y = model.both(model.node("Concat", *parts, x, axis=1), 0.04, -9)
    y = model.node("Conv", y, model.weights(4, 12, 1, 1))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert network.shapes()[network.output] == (4, 7, 7)


def test_a_channel_shuffle(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6)
    y = model.node("Conv", model.both("x", 0.02), model.weights(8, 3, 1, 1))
    y = model.both(y, 0.03, 4)
    y = model.node("Reshape", y, model.constant(np.array([1, 2, 4, 6, 6])))
    y = model.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = model.node("Reshape", y, model.constant(np.array([1, -1, 6, 6])))
    first = model.node("Split", y, outputs=2, axis=1)
    second = f"{first}_1"
    y = model.node("Conv", first, model.weights(4, 1, 3, 3), pads=[1] * 4, group=4)
    y = model.node("Concat", second, model.both(y, 0.05), axis=1)
    y = model.node("Conv", model.both(y, 0.04), model.weights(3, 8, 1, 1))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    orders = [layer.order for layer in network.layers if isinstance(layer, ChannelShuffle)]
    assert sorted(orders) == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_slices_and_gathers_of_channels(tmp_path: Path) -> None:
    model = Model(1, 6, 5, 5)
    x = model.both("x", 0.02)
    bounds = (model.constant(np.array([number])) for number in (1, 6, 1, 2))
    y = model.node("Slice", x, *bounds)
    one = model.both(model.node("Conv", y, model.weights(3, 3, 1, 1)), 0.05)
    y = model.node("Gather", x, model.constant(np.array([4, 0, 2])), axis=1)
    y = model.node("Add", one, y)
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    orders = [layer.order for layer in network.layers if isinstance(layer, ChannelShuffle)]
    assert sorted(orders) == [(1, 3, 5), (4, 0, 2)]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 0.7}),
        ("Selu", {}),
        ("Celu", {"alpha": 1.5}),
        ("ThresholdedRelu", {"alpha": 0.4}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("HardSigmoid", {"alpha": 0.15, "beta": 0.4}),
        ("HardSwish", {}),
        ("Mish", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Erf", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("Exp", {}),
        ("Abs", {}),
        ("Neg", {}),
        ("Ceil", {}),
        ("Floor", {}),
    ],
)
def test_functions_of_one_value_are_tables(
    tmp_path: Path, op: str, attributes: dict[str, Any]
) -> None:
    model = Model(1, 2, 30, 30, opset=20)
    y = model.node(op, model.both("x", 0.03, 20), **attributes)
    network = check_read(tmp_path, model, model.quantise(y, 0.013, -30))
    assert [type(layer) for layer in network.layers] == [Lookup]


def test_products_of_functions_of_one_value(tmp_path: Path) -> None:
    model = Model(1, 2, 30, 30)
    x = model.both("x", 0.05, 20)
    y = model.both(model.node("Mul", x, model.node("HardSigmoid", x, alpha=1 / 6)), 0.02, -100)
    y = model.node("Mul", model.node("Sigmoid", y), y)
    network = check_read(tmp_path, model, model.quantise(y, 0.02, -100), scale=3)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_function_of_which_each_step_is_quantised_is_one_table(tmp_path: Path) -> None:
    """Hard-swish as onnxruntime's quantiser leaves it."""
    model = Model(1, 2, 30, 30)
    x = model.both("x", 0.05, 20)
    gate = model.both(model.node("Add", x, model.constant(np.float32(3))), 0.05, -60)
    limits = (model.constant(np.float32(limit)) for limit in (0, 6))
    gate = model.both(model.node("Clip", gate, *limits), 0.024, -128)
    y = model.both(model.node("Mul", x, gate), 0.2, -100)
    y = model.node("Div", y, model.constant(np.float32(6)))
    network = check_read(tmp_path, model, model.quantise(y, 0.04, -100), scale=3)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_a_residual_of_functions_of_one_value_is_one_table(tmp_path: Path) -> None:
    model = Model(1, 4, 9, 9)
    x = model.both(model.node("Conv", model.both("x", 0.03), model.weights(6, 4, 3, 3)), 0.1, 3)
    one = model.both(model.node("Sigmoid", x), 0.004, -128)
    other = model.both(model.node("Tanh", x), 0.008)
    y = model.node("Add", one, other)
    network = check_read(tmp_path, model, model.quantise(y, 0.01, 5))
    assert [type(layer) for layer in network.layers] == [Convolution, Lookup]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_products_of_two_maps(tmp_path: Path, dtype: Any) -> None:
    """Also of maps whose channels are elsewhere, with a limit and a maximum pooling behind."""
    middle = 0 if dtype == np.int8 else 128
    model = Model(1, 4, 9, 9)
    source = model.both("x", 0.03, middle, dtype)
    x = model.both(model.node("Conv", source, model.weights(6, 4, 3, 3)), 0.1, middle + 3, dtype)
    y = model.both(model.node("Conv", source, model.weights(6, 4, 3, 3)), 0.1137, middle - 9, dtype)
    y = model.node("Gather", y, model.constant(np.array([3, 1, 0, 2, 5, 4])), axis=1)
    y = model.node("Relu", model.node("Mul", x, y))
    y = model.node("MaxPool", y, kernel_shape=[2, 2])
    network = check_read(tmp_path, model, model.quantise(y, 0.2, middle - 100, dtype), count=20)
    assert [type(layer) for layer in network.layers] == [
        Convolution, Convolution, ChannelShuffle, Multiply, MaxPool
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["map", "vector", "swapped"])
def test_squeeze_and_excite(tmp_path: Path, form: str) -> None:
    model = Model(1, 4, 9, 7)
    x = model.both(model.node("Conv", model.both("x", 0.03), model.weights(6, 4, 3, 3)), 0.1, -20)
    if form == "vector":
        mean = model.node("ReduceMean", x, axes=[2, 3], keepdims=0)
        y = model.both(
            model.node("MatMul", model.both(mean, 0.01), model.weights(6, 6, axis=None)), 0.01
        )
        y = model.both(model.node("HardSigmoid", y, alpha=1 / 6), 0.004, -128)
        y = model.node("Reshape", y, model.constant(np.array([1, 6, 1, 1])))
    else:
        mean = model.both(model.node("GlobalAveragePool", x), 0.01)
        y = model.both(model.node("Conv", mean, model.weights(6, 6, 1, 1)), 0.01)
        y = model.both(model.node("Sigmoid", y), 0.004, -128)
    y = model.node("Mul", *((y, x) if form == "swapped" else (x, y)))
    network = check_read(tmp_path, model, model.quantise(y, 0.07, -7), count=20)
    assert [type(layer).__name__ for layer in network.layers] == [
        "Convolution",
        "AveragePool",
        "Linear" if form == "vector" else "Convolution",
        "Lookup",
        "Multiply",
    ]


@pytest.mark.parametrize(("dtype", "middle"), [(np.int8, 0), (np.uint8, 128)])
def test_qlinear_products_of_maps(tmp_path: Path, dtype: Any, middle: int) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = Model(1, 3, 12, 12, kind=kind)
    at_x = q_linear_parts(model, 0.04, middle + 5, dtype)
    at_mean = q_linear_parts(model, 0.002, middle, dtype)
    at_y = q_linear_parts(model, 0.0013, middle - 100, dtype)
    mean = model.node("QLinearGlobalAveragePool", "x", *at_x, *at_mean)
    y = model.node("QLinearMul", mean, *at_mean, "x", *at_x, *at_y)
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, 12, 12])
    network = check_read(tmp_path, model, y)
    assert [type(layer) for layer in network.layers] == [AveragePool, Multiply]


@pytest.mark.parametrize(("dtype", "middle"), [(np.int8, 0), (np.uint8, 128)])
def test_qlinear_products_of_functions_of_one_value(
    tmp_path: Path, dtype: Any, middle: int
) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = Model(1, 3, 12, 12, kind=kind)
    at_x = q_linear_parts(model, 0.04, middle + 5, dtype)
    at_gate = q_linear_parts(model, 0.004, middle - 128, dtype)
    at_y = q_linear_parts(model, 0.03, middle - 100, dtype)
    gate = model.node("QLinearSigmoid", "x", *at_x, *at_gate)
    y = model.node("QLinearMul", "x", *at_x, gate, *at_gate, *at_y)
    third = model.constant(np.array(middle + 30, dtype))
    at_third = q_linear_parts(model, 0.01137, middle, dtype)
    y = model.node("QLinearMul", y, *at_y, third, *at_third, *at_y)
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, 12, 12])
    network = check_read(tmp_path, model, y)
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup]


def test_an_output_whose_shape_is_not_given(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    y = model.quantise(model.node("Conv", model.both("x", 0.02), model.weights(4, 2, 3, 3)), 0.1)
    proto = model.proto(y)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "model.onnx")
    assert check_model(tmp_path / "model.onnx") == []


def test_a_relu_that_is_not_quantised_again_is_a_table(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    y = model.node("Relu", model.both("x", 0.02, 20))
    y = model.node("Conv", y, model.weights(4, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.03))
    assert [type(layer) for layer in network.layers] == [Lookup, Convolution]


def test_requantised_and_reinterpreted_tensors(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    q = model.quantise("x", 0.02, 20)
    y = model.dequantise(q, 0.05, -3)  # other numbers for the same integers
    y = model.both(y, 0.03, 7)
    y = model.node("Conv", y, model.weights(4, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.1))
    assert [type(layer) for layer in network.layers] == [Lookup, Lookup, Convolution]


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]},
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
)
def test_maximum_pooling(tmp_path: Path, size: tuple[int, int], attributes: dict[str, Any]) -> None:
    model = Model(1, 3, *size)
    check_read(tmp_path, model, model.node("MaxPool", model.quantise("x", 0.02, 5), **attributes))


@pytest.mark.parametrize("scale", [0.02, 0.015, 0.004])
def test_average_pooling(tmp_path: Path, scale: float) -> None:
    model = Model(1, 3, 9, 9)
    y = model.node(
        "AveragePool", model.both("x", 0.02, 20), kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 0, 1], count_include_pad=1,
    )  # fmt: skip
    network = check_read(tmp_path, model, model.quantise(y, scale, 20))
    (layer,) = network.layers
    assert isinstance(layer, AveragePool)
    assert layer.clip == (None if scale == 0.02 else (-148, 107))


_CUT = [
    {"kernel_shape": [3, 3], "pads": [1] * 4},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
    {
        **{"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        **{"ceil_mode": 1, "count_include_pad": 1},
    },
    {"kernel_shape": [1, 5], "strides": [1, 3], "pads": [0, 2, 0, 2]},
    {"kernel_shape": [7, 4], "pads": [3, 3, 3, 0]},
    {"kernel_shape": [9, 9], "pads": [4] * 4},
    {"kernel_shape": [9, 5], "strides": [4, 2], "pads": [4, 2, 4, 2]},
    {"kernel_shape": [19, 17], "pads": [9, 8, 9, 8]},
]


@pytest.mark.parametrize("source", ["x", "conv"])
@pytest.mark.parametrize("is_float", [False, True])
def test_a_map_concatenated_with_itself(tmp_path: Path, source: str, is_float: bool) -> None:
    model = Model(1, 3, 8, 8)
    if is_float:
        y = "x" if source == "x" else with_floats(model, "Conv", "x", 3, 3, 3, 3)
        y = model.node("Concat", y, y, y, axis=1)
        check_dense(tmp_path, model, with_floats(model, "Conv", y, 4, 9, 3, 3), count=10)
        return
    y = model.both("x", 0.02)
    if source == "conv":
        y = model.both(model.node("Conv", y, model.weights(3, 3, 3, 3)), 0.05)
    y = model.node("Concat", y, y, y, axis=1)
    y = model.node("Conv", y, model.weights(4, 9, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.2))
    assert {"Concat"} < {type(layer).__name__ for layer in network.layers}


@pytest.mark.parametrize("attributes", _CUT)
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_averages_of_windows_that_the_edges_cut(
    tmp_path: Path, size: tuple[int, int], attributes: dict[str, Any]
) -> None:
    model = Model(1, 3, *size)
    y = model.node("AveragePool", model.both("x", 0.02, 20), **attributes)
    check_read(tmp_path, model, model.quantise(y, 0.013, 20))


@pytest.mark.parametrize("scale", [0.02, 1 / 64])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [4, 4]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
        *_CUT,
    ],
)
def test_averages_of_equal_scales_differ_in_exact_halves_alone(
    tmp_path: Path, attributes: dict[str, Any], scale: float
) -> None:
    model = Model(1, 3, 9, 8)
    output = model.quantise(
        model.node("AveragePool", model.both("x", scale, 20), **attributes), scale, 20
    )
    # Single precision rounds a half up or down, as its inputs happen to have been rounded.
    network = check_read(tmp_path, model, output, part=0.9)
    (layer,) = network.layers
    assert isinstance(layer, AveragePool)
    inputs = np.random.default_rng(SEED).normal(size=(200, 3, 9, 8)).astype(np.float32)
    ours, theirs = (one[layer.name] for one in compare(tmp_path / "model.onnx", network, inputs))
    windows = layer.kernel, layer.stride, layer.padding[:2], network.shapes()[layer.name][1:]
    sums = average_pool(
        as_stored(network, inputs), *windows, scale=1, shift=0, rounding=layer.rounding
    )
    table = np.array(layer.cut_scales or ((layer.scale,),))
    places = [
        lacking(size, *side) * (count > 1)
        for size, count, *side in zip((9, 8), table.shape, *windows, strict=True)
    ]
    divisors = np.rint((1 << layer.shift) / table[np.ix_(*places)]).astype(np.int64)
    halves = 2 * sums % (2 * divisors) == divisors
    assert np.array_equal(ours[~halves], theirs[~halves])
    dyadic = halves & (divisors & (divisors - 1) == 0)  # golden computes these without error
    if scale == 1 / 64:  # and single precision, too
        assert np.array_equal(ours[dyadic], theirs[dyadic])
    elif dyadic.any():
        assert (ours == theirs)[dyadic].mean() > 0.55


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("attributes", _CUT)
def test_averages_of_integers_whose_windows_the_edges_cut(
    tmp_path: Path, attributes: dict[str, Any], dtype: Any
) -> None:
    model = Model(1, 3, 9, 8)
    at_x, at_y = (q_linear_parts(model, scale, 9, dtype) for scale in (0.02, 0.0131))
    x = model.node("QuantizeLinear", "x", *at_x)
    y = model.node("QLinearAveragePool", x, *at_x, *at_y, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.output = helper.make_tensor_value_info(y, kind, [1, 3, None, None])
    check_read(tmp_path, model, y)


@pytest.mark.parametrize("attributes", _CUT)
def test_averages_of_windows_that_the_edges_cut_of_a_float_model(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    model = Model(1, 3, 9, 8)
    y = model.node("AveragePool", with_floats(model, "Conv", "x", 4, 3, 3, 3), **attributes)
    check_dense(tmp_path, model, y, count=10)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"])
def test_pooling_of_whole_maps(tmp_path: Path, op: str) -> None:
    model = Model(1, 5, 6, 7)
    more = {"axes": [2, 3]} if op == "ReduceMean" else {}
    y = model.both(model.node(op, model.both("x", 0.02, 20), **more), 0.01)
    y = model.node("Squeeze", y, model.constant(np.array([2, 3])))
    y = model.node("MatMul", y, model.weights(5, 6, axis=None))
    check_read(tmp_path, model, model.quantise(y, 0.03), count=200)


@pytest.mark.parametrize("axis", [2, 3, -1])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_means_of_rows_or_columns(tmp_path: Path, axis: int, layout: str, keepdims: int) -> None:
    model = Model(1, 5, 6, 7)
    y = model.node("Conv", model.both("x", 0.02, 20), model.weights(5, 5, 1, 1))
    y = model.both(y, 0.05, 20)
    if layout == "NHWC":
        y = model.node("Transpose", y, perm=[0, 2, 3, 1])
        axis = 1 if axis == 2 else 2
    y = model.node("ReduceMean", y, axes=[axis], keepdims=keepdims)
    if layout == "NHWC":
        y = model.node("Transpose", y, perm=[0, 3, 1, 2] if keepdims else [0, 2, 1])
    network = check_read(tmp_path, model, model.quantise(y, 0.021), count=200)
    assert isinstance(network.layers[1], AveragePool)
    assert network.layers[1].kernel in {(6, 1), (1, 7)}


def test_a_mean_over_channels_is_told(tmp_path: Path) -> None:
    model = Model(1, 5, 6, 7)
    y = model.node("ReduceMean", model.both("x", 0.02), axes=[1])
    (line,) = problems_of(tmp_path, model, model.quantise(y, 0.02))
    assert "it takes the mean over axes [1], not over height or width" in line


def test_padding_before_convolution_and_pooling(tmp_path: Path) -> None:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 1, 0, 0, 0, 2, 1]))
    y = model.node(
        "Conv", model.node("Pad", model.both("x", 0.02, 9), pads), model.weights(3, 2, 3, 3)
    )
    y = model.both(model.node("Relu", y), 0.03, -128)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 0, 0]))
    y = model.node("MaxPool", model.node("Pad", y, pads), kernel_shape=[2, 2], strides=[2, 2])
    network = check_read(tmp_path, model, model.quantise(y, 0.03, -128))
    assert network.shapes()[network.output] == (3, 5, 4)


def test_a_padded_table_and_values_taken_twice(tmp_path: Path) -> None:
    model = Model(1, 2, 6, 6)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = model.node("Tanh", model.node("Pad", model.both("x", 0.02), pads))
    y = model.both(model.node("Conv", model.both(y, 0.01), model.weights(3, 2, 3, 3)), 0.03)
    y = model.node("GlobalAveragePool", y)
    y = model.node("Flatten", model.both(y, 0.0071))
    y = model.node("Gather", y, model.constant(np.array([2, 0, 2])), axis=1)
    half = model.constant(np.int8([[60, 3, 5], [-9, 40, 50]]))
    w = model.dequantise(half, 0.01)
    y = model.node("Gemm", y, w, transB=1)
    check_read(tmp_path, model, model.quantise(y, 0.004), count=200)


def test_an_input_with_channels_last_and_a_map_flattened_with_channels_last(
    tmp_path: Path,
) -> None:
    model = Model(1, 6, 5, 3)
    y = model.node("Transpose", model.both("x", 0.02, 9), perm=[0, 3, 1, 2])
    y = model.both(model.node("Conv", y, model.weights(4, 3, 3, 3)), 0.05)
    y = model.node("Transpose", y, perm=[0, 2, 3, 1])
    y = model.node("Reshape", y, model.constant(np.array([1, -1])))
    y = model.node("Gemm", y, model.weights(4 * 3 * 4, 6, axis=None))
    network = check_read(tmp_path, model, model.quantise(y, 0.3), count=100)
    assert network.metadata["input"] == {
        "scale": pytest.approx(0.02),
        "zero_point": 9,
        "dtype": "float32",
        "layout": "NHWC",
        "shape": [6, 5, 3],
    }


def test_a_shape_that_is_computed(tmp_path: Path) -> None:
    model = Model(1, 2, 4, 4)
    y = model.both(model.node("Conv", model.both("x", 0.02), model.weights(3, 2, 3, 3)), 0.04)
    size = model.node("Gather", model.node("Shape", y), model.constant(np.array(0)))
    size = model.node("Unsqueeze", size, model.constant(np.array([0])))
    shape = model.node("Concat", size, model.constant(np.array([-1])), axis=0)
    y = model.node("Gemm", model.node("Reshape", y, shape), model.weights(7, 12), transB=1)
    check_read(tmp_path, model, model.quantise(y, 0.2), count=200)


def test_a_batch_of_any_size(tmp_path: Path) -> None:
    model = Model("batch", 2, 4, 4)
    y = model.node("Conv", model.both("x", 0.02), model.weights(3, 2, 3, 3))
    check_read(tmp_path, model, model.quantise(y, 0.03), count=40)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_an_integer_input(tmp_path: Path, kind: int) -> None:
    model = Model(1, 2, 6, 6, kind=kind)
    dtype = np.int8 if kind == TensorProto.INT8 else np.uint8
    x = model.dequantise("x", 0.01, 30, dtype)
    y = model.node("Conv", x, model.weights(3, 2, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.metadata["input"]["dtype"] == np.dtype(dtype).name  # type: ignore[index]
    assert network.input_range == ((-158, 97) if dtype == np.int8 else (-30, 225))


def test_pictures_that_the_model_scales(tmp_path: Path) -> None:
    model = Model(1, 3, 6, 6, kind=TensorProto.UINT8)
    y = model.node("Div", model.node("Cast", "x", to=1), model.constant(np.float32(255)))
    y = model.node("Sub", y, model.constant(np.float32(0.45)))
    y = model.node("Conv", model.both(y, 0.005, -20), model.weights(3, 3, 3, 3))
    network = check_read(tmp_path, model, model.quantise(y, 0.05))
    assert network.input_range == (0, 255)


def test_a_softmax_at_the_end_is_the_hosts(tmp_path: Path) -> None:
    model = Model(1, 12)
    y = model.node("Gemm", model.both("x", 0.02), model.weights(12, 5, axis=None))
    y = model.node("Softmax", model.both(y, 0.04, 6))
    network = check_read(tmp_path, model, model.both(y, 1 / 256, -128), count=300)
    assert network.metadata["output"] == {
        "scale": pytest.approx(0.04), "zero_point": 6, "softmax": True
    }  # fmt: skip


def q_linear_parts(model: Model, scale: float, zero_point: int, dtype: Any) -> tuple[str, str]:
    return model.constant(np.float32(scale)), model.constant(np.array(zero_point, dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_nodes_of_integers(tmp_path: Path, dtype: Any) -> None:
    model = Model(1, 3, 8, 8)
    middle = 0 if dtype == np.int8 else 128
    at_x = q_linear_parts(model, 0.02, middle + 5, dtype)
    x = model.node("QuantizeLinear", "x", *at_x)

    def convolved(x: str, at: tuple[str, str], channels: int, scale: float) -> Any:
        weights = model.constant(model.rng.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8))
        scales = model.constant(model.rng.uniform(0.002, 0.01, channels).astype(np.float32))
        zeros = model.constant(np.zeros(channels, np.int8))
        bias = model.constant(model.rng.integers(-3000, 3000, channels).astype(np.int32))
        result = q_linear_parts(model, scale, middle - 7, dtype)
        y = model.node(
            "QLinearConv", x, *at, weights, scales, zeros, *result, bias, pads=[1, 1, 1, 1]
        )
        return y, result

    one, at_one = convolved(x, at_x, 3, 0.02)
    other, at_other = convolved(one, at_one, 3, 0.05)
    at_sum = q_linear_parts(model, 0.045, middle, dtype)
    total = model.node("QLinearAdd", one, *at_one, other, *at_other, *at_sum)
    at_joined = q_linear_parts(model, 0.05, middle + 2, dtype)
    y = model.node("QLinearConcat", *at_joined, total, *at_sum, other, *at_other, axis=1)
    at_soft = q_linear_parts(model, 0.004, 0 if middle else -128, dtype)
    y = model.node("QLinearSigmoid", y, *at_joined, *at_soft)
    at_leaky = q_linear_parts(model, 0.005, middle - 100, dtype)
    y = model.node("QLinearLeakyRelu", y, *at_soft, *at_leaky, alpha=0.3)
    at_pool = q_linear_parts(model, 0.00613, middle - 100, dtype)
    y = model.node(
        "QLinearAveragePool", y, *at_leaky, *at_pool, kernel_shape=[2, 2], strides=[2, 2]
    )
    at_mean = q_linear_parts(model, 0.0053, middle - 90, dtype)
    y = model.node("QLinearGlobalAveragePool", y, *at_pool, *at_mean)
    y = model.node("Reshape", y, model.constant(np.array([1, 6])))
    weights = model.constant(model.rng.integers(-127, 128, (6, 9)).astype(np.int8))
    scales = q_linear_parts(model, 0.01, 0, np.int8)
    at_product = q_linear_parts(model, 0.02, middle, dtype)
    y = model.node("QLinearMatMul", y, *at_mean, weights, *scales, *at_product)
    weights = model.constant(model.rng.integers(-127, 128, (4, 9)).astype(np.int8))
    bias = model.constant(model.rng.integers(-300, 300, 4).astype(np.int32))
    at_end = q_linear_parts(model, 0.02, middle, dtype)
    y = model.node("QGemm", y, *at_product, weights, *scales, bias, *at_end, transB=1)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.output = helper.make_tensor_value_info(y, kind, [1, 4])
    check_read(tmp_path, model, y, count=40)


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


# What cannot be read.


def test_problems_name_node_operation_reason_and_what_would_work(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    y = model.node("Conv", y, model.weights(4, 4, 1, 1))
    y = model.node("Conv", model.both(y, 0.02), model.weights(4, 4, 1, 1))
    y = model.node("LRN", model.both(y, 0.02), size=3)
    y = model.node("Gemm", model.node("Flatten", model.both(y, 0.02)), model.constant(
        np.ones((4 * 36, 2), np.float32)))  # fmt: skip
    assert problems_of(tmp_path, model, model.quantise(y, 0.02)) == [
        (
            "node 'Conv5' (Conv): its input is not quantised ('Conv3' computes it); "
            "quantise it there (QuantizeLinear, DequantizeLinear)"
        ),
        (
            "node 'LRN12' (LRN): this operation is not supported; "
            "replace it, or cut the model there and let the host compute it"
        ),
        (
            "node 'Gemm16' (Gemm): its weights are of float32; "
            "quantise it (QuantizeLinear, DequantizeLinear) to int8 or uint8"
        ),
    ]


def bad_convolution(scale: float = 0.05, **attributes: Any) -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    w = model.weights(4, 4 // attributes.pop("share", 1), 3, 3)
    y = model.node("Conv", model.both("x", 0.02), w, **attributes)
    return model, model.quantise(y, scale)


def bad_scale(scale: float) -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    return model, model.quantise(model.both("x", scale), 0.05)


def activations_by_channel() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    parts = model.constant(np.float32([0.1, 0.2])), model.constant(np.int8([0, 0]))
    q = model.node("QuantizeLinear", "x", *parts, axis=1)
    return model, model.quantise(model.node("DequantizeLinear", q, *parts, axis=1), 0.05)


def zero_point_of_another_type() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(
        model.dequantise(model.quantise("x", 0.02), 0.02, 128, np.uint8), 0.05
    )


def sixteen_bits() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8, opset=21)
    return model, model.both("x", 0.02, 0, np.int16)


def asymmetric_weights_by_channel() -> tuple[Model, str]:
    model = Model(1, 8, 8, 8)
    values = model.constant((np.arange(8 * 8 * 36) % 256).astype(np.uint8).reshape(8, 8, 6, 6))
    scales = model.constant(np.full(8, 0.01, np.float32))
    zeros = model.constant(np.arange(100, 108).astype(np.uint8))
    w = model.node("DequantizeLinear", values, scales, zeros, axis=0)
    return model, model.quantise(model.node("Conv", model.both("x", 0.02), w), 0.05)


def weights_by_input_channel() -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 4, 3, 3, axis=1))
    return model, model.quantise(y, 0.05)


def three_axes() -> tuple[Model, str]:
    model = Model(1, 2, 4, 4, 4)
    y = model.node("Conv", model.both("x", 0.02), model.weights(2, 2, 3, 3, 3))
    return model, model.quantise(y, 0.05)


def integer_bias() -> tuple[Model, str]:
    model = Model(1, 4, 8, 8)
    b = model.constant(np.zeros(4, np.int32))
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 4, 3, 3), b)
    return model, model.quantise(y, 0.05)


def computed_integers() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8, kind=TensorProto.UINT8)
    w = model.constant(np.ones((2, 2, 3, 3), np.uint8))
    return model, model.node("ConvInteger", "x", w)


def float_output() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.node("Conv", model.both("x", 0.02), model.weights(4, 2, 3, 3))


def product_by_place() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    x = model.both("x", 0.02)
    y = model.both(model.node("Conv", x, model.weights(1, 2, 1, 1)), 0.03)
    return model, model.quantise(model.node("Mul", x, y), 0.05)


def quotient_of_maps() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    x = model.both("x", 0.02)
    y = model.both(model.node("Conv", x, model.weights(2, 2, 1, 1)), 0.03)
    return model, model.quantise(model.node("Div", x, y), 0.05)


def cut_windows() -> tuple[Model, str]:
    model = Model(1, 2, 22, 8)
    y = model.node("AveragePool", model.both("x", 0.02), kernel_shape=[39, 9], pads=[19, 4] * 2)
    return model, model.quantise(y, 0.05)


def dilated_pool() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.node("MaxPool", model.both("x", 0.02), kernel_shape=[2, 2], dilations=[2, 2])
    return model, model.quantise(y, 0.05)


def padding_without_end() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 0, 1 << 23, 0, 0, 0, 0]))
    y = model.node("Pad", model.both("x", 0.02), pads)
    return model, model.quantise(y, 0.05)


def vector_as_a_map() -> tuple[Model, str]:
    model = Model(1, 8)
    y = model.both(model.node("Gemm", model.both("x", 0.02), model.weights(8, 16, axis=None)), 0.05)
    y = model.node("Reshape", y, model.constant(np.array([1, 1, 4, 4])))
    return model, model.quantise(model.node("Conv", y, model.weights(2, 1, 3, 3)), 0.05)


def values_twice() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.both("x", 0.02)
    y = model.node("Concat", y, y, axis=2)
    return model, model.quantise(model.node("Conv", y, model.weights(3, 2, 3, 3)), 0.05)


def function_of_padding() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    pads = model.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = model.node("Sigmoid", model.node("Pad", model.both("x", 0.02), pads))
    y = model.node("Conv", model.both(y, 0.004, -128), model.weights(4, 2, 3, 3))
    return model, model.quantise(y, 0.05)


def softmax_within() -> tuple[Model, str]:
    model = Model(1, 8)
    y = model.both(model.node("Softmax", model.both("x", 0.02)), 0.004, -128)
    return model, model.quantise(model.node("Gemm", y, model.weights(8, 4, axis=None)), 0.05)


def two_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, 8, 8]))
    y = model.node("Add", model.both("x", 0.02), model.both("z", 0.02))
    return model, model.quantise(y, 0.05)


def unknown_size() -> tuple[Model, str]:
    model = Model(1, 2, "height", 8)
    return model, model.both("x", 0.02)


def large_batch() -> tuple[Model, str]:
    model = Model(4, 2, 8, 8)
    return model, model.both("x", 0.02)


def cycle() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.node("Add", "x", "t1")
    return model, model.node("Relu", "t0")


def missing_tensor() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(model.node("Add", "x", "nothing"), 0.02)


def constant_output() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    model.both("x", 0.02)
    return model, model.node("Relu", model.constant(np.ones(3, np.float32)))


def too_few_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    return model, model.quantise(model.node("Add", model.both("x", 0.02)), 0.02)


def two_different_inputs() -> tuple[Model, str]:
    model = Model(1, 2, 8, 8)
    y = model.node("Add", model.both("x", 0.02), model.both("x", 0.03))
    return model, model.quantise(y, 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bad_convolution(share=2), "its weights (4, 2, 3, 3) and 1 groups do not fit 4 "),
        (lambda: bad_convolution(kernel_shape=[5, 5]), "its kernel_shape (5, 5) is not that of"),
        (lambda: bad_convolution(strides=[0, 1]), "its strides are (0, 1); give 2 of at least 1"),
        (lambda: bad_convolution(pads=[1, 1]), "its pads are [1, 1]; give 4 of at least 0"),
        (lambda: bad_convolution(dilations=[9, 9]), "its kernel is larger than its padded input"),
        (lambda: bad_scale(0.0), "its scale is 0; calibrate again: scales are positive numbers"),
        (lambda: bad_scale(-0.1), "its scale is -0.1"),
        (lambda: bad_scale(np.nan), "its scale is nan"),
        (lambda: bad_convolution(1e30), "its scales differ too much"),
        (activations_by_channel, "its activations have 2 scales, one a channel"),
        (zero_point_of_another_type, "its zero point is of uint8, its input is not"),
        (sixteen_bits, "its zero point is of int16, so its activations are, too"),
        (asymmetric_weights_by_channel, "different values, more than 256"),
        (weights_by_input_channel, "its weights have several scales in one output channel"),
        (integer_bias, "its bias is of int32; put a DequantizeLinear before it"),
        (three_axes, "it is a convolution of 3 spatial axes; use one of height and width"),
        (computed_integers, "not supported; quantise statically, with calibration data"),
        (float_output, "the output is not quantised"),
        (product_by_place, "it multiplies by values that differ within a channel; multiply a map"),
        (quotient_of_maps, "it combines two tensors that are not functions of one value"),
        (cut_windows, "a window has 19 of its 39 rows outside of the map, more than 15"),
        (padding_without_end, "it makes 134,217,856 values; pad to"),
        (dilated_pool, "its dilations are (2, 2); pool without dilation"),
        (vector_as_a_map, "its input is no map of channels but (16, 1, 1) in another"),
        (values_twice, "its input has values of 'input' more than once; concatenate different"),
        (function_of_padding, "its input is padded with zeros, which become 0.5; pad its result"),
        (softmax_within, "it comes after a softmax, which the host takes"),
        (two_inputs, "it has 2 inputs ('x', 'z'); cut it to a model with one input"),
        (unknown_size, "axis 2 of the input has no fixed size ('height')"),
        (large_batch, "its batch is 4; export it with a batch of 1, or of any size"),
        (cycle, "its nodes form a cycle"),
        (missing_tensor, "it reads 'nothing', which nothing makes"),
        (constant_output, "the output does not depend on the input"),
        (too_few_inputs, "(Add): it has 1 inputs; use nodes of two"),
        (two_different_inputs, "the input is quantised twice, differently"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of ONNX' shape inference
def test_what_cannot_be_read_says_why(
    tmp_path: Path, make: Callable[[], tuple[Model, str]], message: str
) -> None:
    model, output = make()
    found = problems_of(tmp_path, model, output)
    assert any(message in text for text in found), found
    with pytest.raises(ReadError) as caught:
        read_model(tmp_path / "model.onnx")
    assert str(caught.value).count("\n") == 0


def test_files_that_are_no_models(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(4, 3, 3, 3))
    whole = model.proto(model.quantise(y, 0.02)).SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(SEED)
    for content in (b"not a model", rng.bytes(2000)):
        path.write_bytes(content)
        (problem,) = check_model(path)
        assert problem.reason.startswith("it is not an ONNX")
    for length in range(0, len(whole), 23):  # wherever it ends, there is no traceback
        path.write_bytes(whole[:length])
        assert check_model(path)
    for _ in range(150):  # nor whatever is changed
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        check_model(path)


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8)
    y = model.node("Conv", model.both("x", 0.02), model.weights(32, 3, 8, 8))
    path = tmp_path / "model.onnx"
    onnx.save(
        model.proto(model.quantise(y, 0.02)), path, save_as_external_data=True, location="weights"
    )
    assert check_model(path) == []
    (tmp_path / "weights").unlink()
    (problem,) = check_model(path)
    assert problem.reason == "its weights are in another file that is not there: 'weights'"


def test_an_old_opset(tmp_path: Path) -> None:
    model = Model(1, 3, 8, 8, opset=6)
    found = problems_of(tmp_path, model, model.node("Relu", "x"))
    assert found == ["its opset is 6, older than 7; export it with opset 7 or newer"]


# Models of floats.


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
