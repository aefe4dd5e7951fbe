"""Dense graphs against other implementations, and integer networks against dense ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]
import pytest
from onnx import TensorProto, helper, numpy_helper

from thresher.golden.compress.calibrate import quantise, quantise_input
from thresher.golden.compress.dense import (
    RELU,
    RELU6,
    UNBOUNDED,
    DenseError,
    DenseLayer,
    DenseNetwork,
    folded,
)
from thresher.golden.compress.dense_file import from_arrays, load_dense, save_dense
from thresher.golden.compress.functions import FUNCTIONS, apply, is_never_negative
from thresher.golden.compress.quantise import quantise_channels
from thresher.golden.config import Config
from thresher.golden.inference import infer
from thresher.golden.network import (
    Add,
    Concat,
    Convolution,
    Lookup,
    WeightedLayer,
    check_accumulators,
)

SEED = 20261124
SHAPE = (3, 13, 11)

FloatArray = npt.NDArray[np.float64]


def random_graph(rng: np.random.Generator, **more: Any) -> DenseNetwork:
    """Every kind of layer, with strides, paddings, dilations, groups and branches."""

    def weighted(name: str, kind: str, *shape: int, **fields: Any) -> DenseLayer:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        channels = np.exp(rng.normal(size=(shape[0], *[1] * (len(shape) - 1))) / 2)
        weight = rng.normal(size=shape) * scale * channels
        bias = rng.normal(size=shape[0]) / 10
        return DenseLayer(name=name, kind=kind, weight=weight, bias=bias, **fields)

    def conv(name: str, *shape: int, **fields: Any) -> DenseLayer:
        return weighted(name, "convolution", *shape, **fields)

    layers = (
        conv("c1", 8, 3, 3, 2, stride=(1, 2), padding=(1, 0, 2, 1), clip=RELU),
        conv("wide", 6, 8, 1, 1, inputs=("c1",), padding=(1, 1, 1, 1), clip=RELU6),
        DenseLayer(name="p1", kind="max_pool", kernel=(3, 3), stride=(2, 2), padding=(1, 0, 1, 1)),
        conv("depthwise", 8, 1, 3, 3, inputs=("c1",), padding=(1, 1, 1, 1), groups=8, clip=RELU6),
        conv(
            "dilated", 8, 2, 3, 3, inputs=("c1",), padding=(2, 2, 2, 2), dilation=(2, 2), groups=4
        ),
        DenseLayer(name="sum", kind="add", inputs=("depthwise", "dilated"), clip=RELU),
        DenseLayer(name="squeezed", kind="max_pool", inputs=("dilated",), kernel=(14, 6)),
        DenseLayer(name="excited", kind="unary", function="sigmoid"),
        DenseLayer(name="scaled", kind="multiply", inputs=("dilated", "excited"), clip=RELU6),
        DenseLayer(name="swish", kind="unary", inputs=("dilated",), function="hard_swish"),
        DenseLayer(name="gated", kind="multiply", inputs=("swish", "scaled")),
        DenseLayer(name="both", kind="concat", inputs=("sum", "gated")),
        DenseLayer(name="shuffled", kind="channel_shuffle", order=tuple(range(15, -1, -2))),
        conv("c2", 5, 8, 3, 3, stride=(2, 2)),
        DenseLayer(
            name="cut",
            kind="average_pool",
            kernel=(3, 3),
            stride=(1, 1),
            padding=(1, 1, 1, 1),
            uncounted=(1, 1, 1, 1),
        ),
        DenseLayer(name="p2", kind="average_pool", kernel=(2, 2), stride=(1, 1)),
        DenseLayer(name="flat", kind="flatten"),
        weighted("f1", "linear", 7, 5 * 5 * 1),
        DenseLayer(name="leaky", kind="unary", function="leaky_relu", parameters=(0.3,)),
        weighted("f2", "linear", 4, 7),
    )
    return DenseNetwork(name="graph", input_shape=SHAPE, layers=layers, **more)


ONNX_FUNCTIONS = {
    "abs": "Abs",
    "clip": "Clip",
    "elu": "Elu",
    "gelu": "Gelu",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
    "leaky_relu": "LeakyRelu",
    "mish": "Mish",
    "relu": "Relu",
    "selu": "Selu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "tanh": "Tanh",
}


def in_onnx(network: DenseNetwork) -> bytes:  # noqa: PLR0912  # one a kind
    """The same graph as an ONNX model, every layer's value an output."""
    nodes, constants = [], []
    for layer in network.layers:
        names = list(layer.inputs)
        for part in ("weight", "bias"):
            if (array := getattr(layer, part)) is not None:
                names.append(f"{layer.name}.{part}")
                constants.append(numpy_helper.from_array(array.astype(np.float32), names[-1]))
        window: dict[str, Any] = {
            "kernel_shape": layer.kernel,
            "strides": layer.stride,
            "pads": layer.padding,
        }
        unclipped = layer.name if layer.clip == UNBOUNDED else f"{layer.name}.unclipped"
        match layer.kind:
            case "convolution":
                more: dict[str, Any] = {"dilations": layer.dilation, "group": layer.groups}
                nodes.append(helper.make_node("Conv", names, [unclipped], **window, **more))
            case "linear":
                flat, matrix = f"{layer.name}.flat", f"{layer.name}.matrix"
                nodes.append(helper.make_node("Flatten", names[:1], [flat]))
                gemm = helper.make_node("Gemm", [flat, *names[1:]], [matrix], transB=1)
                nodes.append(gemm)
                nodes.append(helper.make_node("Unsqueeze", [matrix, "axes"], [unclipped]))
            case "max_pool":
                nodes.append(helper.make_node("MaxPool", names, [layer.name], **window))
            case "average_pool":
                node = helper.make_node(
                    "AveragePool",
                    names,
                    [layer.name],
                    count_include_pad=int(not any(layer.uncounted)),
                    **window,
                )
                nodes.append(node)
            case "flatten":
                nodes.append(helper.make_node("Flatten", names, [f"{layer.name}.flat"]))
                more_names = [f"{layer.name}.flat", "axes"]
                nodes.append(helper.make_node("Unsqueeze", more_names, [layer.name]))
            case "add" | "multiply":
                op = {"add": "Add", "multiply": "Mul"}[layer.kind]
                nodes.append(helper.make_node(op, names, [unclipped]))
            case "concat":
                nodes.append(helper.make_node("Concat", names, [layer.name], axis=1))
            case "channel_shuffle":
                order = f"{layer.name}.order"
                constants.append(numpy_helper.from_array(np.array(layer.order), order))
                nodes.append(helper.make_node("Gather", [*names, order], [layer.name], axis=1))
            case "unary":
                said: dict[str, Any] = dict(zip(["alpha"], layer.parameters, strict=False))
                kind = ONNX_FUNCTIONS[layer.function]
                nodes.append(helper.make_node(kind, names, [layer.name], **said))
        if unclipped != layer.name:
            bounds = [f"{layer.name}.{end}" for end in ("low", "high")]
            for name, bound in zip(bounds, layer.clip, strict=True):
                constants.append(numpy_helper.from_array(np.array(bound, np.float32), name))
            nodes.append(helper.make_node("Clip", [unclipped, *bounds], [layer.name]))
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *network.input_shape])],
        [
            helper.make_tensor_value_info(layer.name, TensorProto.FLOAT, None)
            for layer in network.layers
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def by_onnxruntime(network: DenseNetwork, samples: FloatArray) -> dict[str, npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(in_onnx(network), providers=["CPUExecutionProvider"])
    names = [layer.name for layer in network.layers]
    values = session.run(names, {"input": samples.astype(np.float32)})
    return dict(zip(names, values, strict=True))


def samples_of(rng: np.random.Generator, count: int = 24) -> FloatArray:
    return rng.normal(size=(count, *SHAPE))


# --- floats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_dense_graph_computes_what_onnxruntime_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, samples = random_graph(rng), samples_of(rng, 3)
    expected = by_onnxruntime(network, samples)
    found = network.forward(samples, keep=expected)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert np.allclose(found[name], values, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("name", sorted(ONNX_FUNCTIONS))
def test_a_function_is_onnxs(name: str) -> None:
    x = np.linspace(-8, 8, 321).reshape(1, 3, 107, 1)
    layer = DenseLayer(name="f", kind="unary", function=name)
    network = DenseNetwork(name="n", input_shape=(3, 107, 1), layers=(layer,))
    expected = by_onnxruntime(network, x)["f"]
    assert np.allclose(network.forward(x)["f"], expected, atol=2e-6)


def test_functions_without_an_operator_of_onnx() -> None:
    x = np.linspace(-9, 9, 100)
    assert np.allclose(apply("relu6", x), np.minimum(np.maximum(x, 0), 6))
    assert np.allclose(apply("silu", x), x / (1 + np.exp(-x)))


def test_the_functions_that_are_never_negative() -> None:
    never = {name for name in FUNCTIONS if is_never_negative(name)}
    assert never == {"abs", "hard_sigmoid", "relu", "relu6", "sigmoid", "softplus"}
    assert is_never_negative("clip", (0.0, 3.0))


def test_a_network_holds_only_what_is_still_read() -> None:
    rng = np.random.default_rng(SEED)
    network, samples = random_graph(rng), samples_of(rng, 2)
    assert list(network.forward(samples)) == ["f2"]


def test_a_batch_normalisation_is_folded_into_the_layer_before() -> None:
    rng = np.random.default_rng(SEED)

    def scaling(name: str, channels: int, **more: Any) -> DenseLayer:
        return DenseLayer(
            name=name,
            kind="convolution",
            weight=rng.normal(size=(channels, 1, 1, 1)),
            bias=rng.normal(size=channels),
            groups=channels,
            **more,
        )

    def unary(name: str, function: str, **more: Any) -> DenseLayer:
        return DenseLayer(name=name, kind="unary", function=function, **more)

    layers = (
        DenseLayer(name="c", kind="convolution", weight=rng.normal(size=(4, 3, 3, 3))),
        scaling("c_bn", 4),
        unary("c_relu", "relu6"),
        scaling("alone", 4),  # what it scales is bounded
        DenseLayer(name="branch", kind="convolution", weight=rng.normal(size=(4, 4, 1, 1))),
        scaling("twice", 4),  # what it scales is read twice
        DenseLayer(name="sum", kind="add", inputs=("branch", "twice")),
        unary("sum_clip", "clip", parameters=(-1.0, 2.0)),
        unary("again", "relu"),
        DenseLayer(name="f", kind="linear", weight=rng.normal(size=(2, 4 * 11 * 9))),
        scaling("f_bn", 2),
        unary("f_tanh", "tanh"),
    )
    network = DenseNetwork(name="n", input_shape=SHAPE, layers=layers)
    less = folded(network)
    names = ["c_relu", "alone", "branch", "twice", "again", "f_bn", "f_tanh"]
    assert [layer.name for layer in less.layers] == names
    assert {layer.name: layer.clip for layer in less.layers}["again"] == (0.0, 2.0)
    samples = samples_of(rng, 3)
    expected = network.forward(samples, keep=names)
    for name, values in less.forward(samples, keep=names).items():
        assert np.allclose(values, expected[name], rtol=1e-4, atol=1e-4), name


def test_a_file_keeps_a_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    network, samples = random_graph(rng), samples_of(rng, 2)
    save_dense(network, tmp_path / "n.npz")
    again = load_dense(tmp_path / "n.npz")
    assert again.input_range is None
    assert again.input_scale is None
    assert np.allclose(again.forward(samples)["f2"], network.forward(samples)["f2"], atol=1e-4)
    for one, other in zip(network.layers, again.layers, strict=True):
        assert one.inputs == other.inputs
        assert one.clip == other.clip


GRAPH_MISTAKES = [
    ({"name": "a", "kind": "add"}, "layer 'a': inputs is missing"),
    ({"name": "a", "kind": "add", "inputs": ["input"]}, "'a': a add takes 2 inputs, not 1"),
    ({"name": "a", "kind": "flatten", "inputs": ["b"]}, "'a': its input 'b' is no layer before"),
    ({"name": "a", "kind": "flatten", "inputs": "b"}, "'a': inputs must be names of layers"),
    ({"name": "a", "kind": "unary", "function": "sin"}, "'a': function must be one of abs"),
    ({"name": "a", "kind": "channel_shuffle", "order": [4]}, "'a': order must name some of 1"),
    ({"name": "input", "kind": "flatten"}, "a layer is named 'input'"),
    (
        {"name": "a", "kind": "add", "inputs": ["input", "input"], "clip": [6, 0]},
        r"'a': clip must be \(low, high\) with low < high",
    ),
    (
        {"name": "a", "kind": "add", "inputs": ["input", "input"], "clip": [0, 6], "relu": True},
        "'a': give relu or clip, not both",
    ),
    (
        {"name": "a", "kind": "unary", "function": "elu", "parameters": [1, 2]},
        r"'a': elu must have 1 parameters, not \(1\.0, 2\.0\)",
    ),
]


@pytest.mark.parametrize(("layer", "message"), GRAPH_MISTAKES)
def test_a_graph_with_a_mistake_names_it(layer: dict[str, Any], message: str) -> None:
    architecture = {"input_shape": [1, 4, 4], "layers": [layer]}
    with pytest.raises(DenseError, match=message):
        from_arrays(json.loads(json.dumps(architecture)), {})


# --- integers --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_an_integer_network_computes_nearly_what_the_dense_one_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense, samples = random_graph(rng), samples_of(rng)
    network = quantise(dense, samples)
    said = network.metadata["input"]
    assert isinstance(said, dict)
    assert said["shape"] == list(SHAPE)
    inputs = quantise_input(samples, said["scale"], network.input_range)
    outputs = infer(network, inputs).outputs
    exact = dense.forward(samples, keep=[layer.name for layer in dense.layers])
    for name, real in exact.items():
        ours = outputs[name]
        assert ours.shape == real.shape
        step = float((ours * real).sum() / np.square(ours).sum())
        error = np.abs(ours * step - real)  # of nine roundings of 8 or 9 bits, one after another
        assert error.max() < 0.08 * np.abs(real).max(), name
        assert np.square(error).mean() < 0.05**2 * np.square(real).mean(), name
    output = network.metadata["output"]
    assert isinstance(output, dict)
    error = np.abs(outputs["f2"] * output["scale"] - exact["f2"])
    assert error.max() < 0.08 * np.abs(exact["f2"]).max()
    check_accumulators(network, Config().accumulator_bits)
    assert set(network.metadata["densities"]) == {"input", *exact}  # type: ignore[call-overload]


def test_values_that_are_never_negative_have_the_range_0_to_255() -> None:
    rng = np.random.default_rng(SEED)
    ranges = quantise(random_graph(rng), samples_of(rng)).ranges()
    for name in ("c1", "wide", "p1", "depthwise", "sum"):
        assert ranges[name][0] == 0, name
        assert ranges[name][1] <= 255, name
    for name in ("input", "dilated", "f2"):
        assert ranges[name] == (-256, 255), name


def test_a_bound_is_the_same_real_number_in_integers() -> None:
    rng = np.random.default_rng(SEED)
    dense, samples = random_graph(rng), samples_of(rng) * 20
    made = quantise(dense, samples).layer("wide")
    assert isinstance(made, Convolution)
    assert made.clip == (0, 255)  # the greatest sample is 6, so that 255 is


def test_each_channel_has_its_own_step_unless_weights_are_shared() -> None:
    rng = np.random.default_rng(SEED)
    dense, samples = random_graph(rng), samples_of(rng)
    for layer in quantise(dense, samples).layers:
        if isinstance(layer, WeightedLayer):
            weights = np.abs(layer.dense_weights()).reshape(layer.out_channels, -1)
            assert (weights.max(axis=1) == 127).all(), layer.name
            assert len(set(zip(layer.scale, layer.shift, strict=True))) > 1
            assert len(layer.codebook) <= 256
    few = {
        layer.name: np.rint(layer.weight * 20) / 20
        for layer in dense.layers
        if layer.weight is not None
    }
    shared = quantise(dense.with_weights(few), samples, shared=True)
    for layer in shared.layers:
        if isinstance(layer, WeightedLayer):
            assert len(set(layer.scale)) == len(set(layer.shift)) == 1
            values = len(np.unique(few[layer.name]))
            assert np.count_nonzero(layer.codebook) <= values
            assert np.array_equal(layer.dense_weights() == 0, few[layer.name] == 0)


def test_weights_that_are_not_shared_are_refused_as_shared() -> None:
    layer = DenseLayer(name="f", kind="linear", weight=np.linspace(1, 2, 429 * 2).reshape(2, 429))
    dense = DenseNetwork(name="n", input_shape=SHAPE, layers=(layer,))
    with pytest.raises(DenseError, match="'f': shared weights must have at most 255 values"):
        quantise(dense, np.ones((1, *SHAPE)), shared=True)


def test_the_inputs_of_a_concatenation_have_one_step() -> None:
    rng = np.random.default_rng(SEED)
    layers = tuple(
        DenseLayer(
            name=name,
            kind="convolution",
            inputs=("input",),
            weight=rng.normal(size=(2, 3, 1, 1)) * scale,
            clip=RELU,
        )
        for name, scale in (("small", 0.5), ("large", 2.0))
    )
    both = DenseLayer(name="both", kind="concat", inputs=("small", "large", "input"))
    samples = np.abs(samples_of(rng))
    free = DenseNetwork(name="n", input_shape=SHAPE, layers=(*layers, both))
    given = DenseNetwork(
        name="n",
        input_shape=SHAPE,
        layers=(*layers, both),
        input_range=(0, 255),
        input_scale=1 / 32,
    )
    for dense in (free, given):
        network = quantise(dense, samples)
        made = network.layer("both")
        assert isinstance(made, Concat)
        scale = network.metadata["output"]["scale"]  # type: ignore[index]
        step = dense.input_scale or network.metadata["input"]["scale"]  # type: ignore[index]
        inputs = quantise_input(samples, step, network.input_range)
        found = infer(network, inputs).outputs["both"] * scale
        exact = dense.forward(inputs * step)["both"]
        assert np.abs(found - exact).max() < 0.02 * exact.max()
    assert network.layer("both").inputs == ("small", "large", "both.input2")


def test_an_addition_takes_the_greater_step_first() -> None:
    rng = np.random.default_rng(SEED)
    network = quantise(random_graph(rng), samples_of(rng))
    made = network.layer("sum")
    assert isinstance(made, Add)
    assert made.operand_scale / 2**made.operand_shift <= 0.5


def test_a_lookup_covers_every_input() -> None:
    rng = np.random.default_rng(SEED)
    network = quantise(random_graph(rng), samples_of(rng))
    made = network.layer("swish")
    assert isinstance(made, Lookup)
    low, high = network.ranges()[made.inputs[0]]
    assert (made.first, len(made.table)) == (low, high - low + 1)


def test_a_percentile_clips_hidden_layers_only() -> None:
    rng = np.random.default_rng(SEED)
    dense, samples = random_graph(rng), samples_of(rng)
    whole, part = (quantise(dense, samples, percentile=p) for p in (100.0, 90.0))
    inputs = quantise_input(samples, whole.metadata["input"]["scale"], (-256, 255))  # type: ignore[index]
    tops = [(infer(n, inputs).outputs["c1"] == 255).mean() for n in (whole, part)]
    assert tops[1] > 0.02 > tops[0]
    assert not (infer(part, inputs).outputs["f2"] == 255).any()


def test_a_channel_of_tiny_weights_keeps_its_bias() -> None:
    weight = np.array([[1.0], [1e-12], [0.0]]).reshape(3, 1, 1, 1)
    bias = np.array([0.5, 0.25, 0.75])
    layer = DenseLayer(name="c", kind="convolution", weight=weight, bias=bias)
    dense = DenseNetwork(name="n", input_shape=(1, 2, 2), layers=(layer,))
    samples = np.random.default_rng(SEED).random((4, 1, 2, 2))
    network = quantise(dense, samples)
    check_accumulators(network, 32)
    inputs = quantise_input(samples, network.metadata["input"]["scale"], network.input_range)  # type: ignore[index]
    found = infer(network, inputs).outputs["c"] * network.metadata["output"]["scale"]  # type: ignore[index]
    assert np.allclose(found, dense.forward(samples)["c"], atol=0.01)


def test_channels_are_rounded_to_half_a_step() -> None:
    weight = np.random.default_rng(SEED).normal(size=(9, 4, 3, 3))
    made = quantise_channels(weight)
    assert (np.abs(made.dense() - weight) <= made.steps[:, None, None, None] * 0.500001).all()
    with pytest.raises(ValueError, match=r"weight_bits must be in 2\.\.8 for a step a channel"):
        quantise_channels(weight, 0.0, 9)


def test_quantise_names_what_is_wrong() -> None:
    rng = np.random.default_rng(SEED)
    dense, samples = random_graph(rng), samples_of(rng)
    with pytest.raises(DenseError, match=r"inputs must have shape \(n, 3, 13, 11\), n at least 1"):
        quantise(dense, samples[:0])
    with pytest.raises(DenseError, match="samples must be finite"):
        quantise(dense, samples * np.nan)
    with pytest.raises(DenseError, match="layer 'c1': percentile must be above 0"):
        quantise(dense, samples, percentile=0)
