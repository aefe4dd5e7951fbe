"""Small ``.tflite`` files, made by the schema alone, and what LiteRT's kernels compute of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from thresher.golden.network import CompressedNetwork

__all__ = ["Model", "network_inputs", "run_reference"]

OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4} | dict.fromkeys(
    ("ELU", "HARD_SWISH", "PRELU", "RELU_N1_TO_1", "RESHAPE", "SHAPE", "SPACE_TO_BATCH_ND"), 1
)
SAME, VALID = 0, 1


@dataclass
class Model:
    """Tensors and nodes of a model that is being made."""

    seed: int = 1
    tensors: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "INT8",
        scale: float | Sequence[float] | None = 0.05,
        zero_point: int | Sequence[int] = 0,
        **more: Any,
    ) -> int:
        """Add a tensor; ``data``, ``axis``, ``name``, ``signature`` are further properties."""
        scales = [] if scale is None else np.atleast_1d(scale).tolist()
        zero_points = np.broadcast_to(zero_point, len(scales)).tolist()
        self.tensors.append(
            {"shape": shape, "dtype": dtype, "scales": scales, "zero_points": zero_points, **more}
        )
        return len(self.tensors) - 1

    def constant(self, values: npt.ArrayLike, dtype: str = "INT32", **more: Any) -> int:
        """Add a constant tensor, without a scale unless one is given."""
        data = np.asarray(values)
        more.setdefault("scale", None)
        return self.tensor(data.shape, dtype, data=data, **more)

    def weights(
        self, shape: Sequence[int], dtype: str = "INT8", *, axis: int | None = 0, **more: Any
    ) -> int:
        """Add random weights, with a scale for each index of ``axis``, or one if it is None."""
        low, high = (-127, 128) if dtype == "INT8" else (0, 256)
        data = self.rng.integers(low, high, shape)
        data[self.rng.random(shape) < 0.3] = more.get("zero_point", 0)
        count = 1 if axis is None else shape[axis]
        more.setdefault("scale", (self.rng.random(count) * 0.01 + 0.001).tolist())
        return self.tensor(shape, dtype, data=data, axis=axis or 0, **more)

    def bias(self, count: int) -> int:
        """Add a random bias."""
        return self.constant(self.rng.integers(-3000, 3000, count))

    def node(self, op: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add a node; options by their names in the schema."""
        self.nodes.append({"op": op, "inputs": inputs, "outputs": outputs, "options": options})

    def save(
        self, path: Path, inputs: Sequence[int] = (0,), outputs: Sequence[int] | None = None
    ) -> Path:
        """Write the file; its output is the last node's by default."""
        path.write_bytes(self.content(inputs, outputs or self.nodes[-1]["outputs"]))
        return path

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Return the bytes of the file."""
        builder = flatbuffers.Builder(4096)
        buffers = [b""]
        tensors = [
            self._tensor(builder, tensor, k, buffers) for k, tensor in enumerate(self.tensors)
        ]
        ops = sorted({node["op"] for node in self.nodes})
        nodes = [self._node(builder, node, ops) for node in self.nodes]
        codes = [_code(builder, op) for op in ops]
        parts = {
            "Tensors": _offsets(builder, tensors),
            "Operators": _offsets(builder, nodes),
            "Inputs": builder.CreateNumpyVector(np.array(inputs, np.int32)),
            "Outputs": builder.CreateNumpyVector(np.array(outputs, np.int32)),
        }
        graph = _table(builder, "SubGraph", parts)
        made = []
        for content in buffers:
            data = {"Data": builder.CreateByteVector(content)} if content else {}
            made.append(_table(builder, "Buffer", data))
        model = _table(
            builder,
            "Model",
            {
                "Version": 3,
                "OperatorCodes": _offsets(builder, codes),
                "Subgraphs": _offsets(builder, [graph]),
                "Buffers": _offsets(builder, made),
            },
        )
        builder.Finish(model, b"TFL3")
        return bytes(builder.Output())

    def _tensor(
        self, builder: Any, tensor: Mapping[str, Any], number: int, buffers: list[bytes]
    ) -> int:
        quantisation = {
            "Scale": builder.CreateNumpyVector(np.array(tensor["scales"], np.float32)),
            "ZeroPoint": builder.CreateNumpyVector(np.array(tensor["zero_points"], np.int64)),
            "QuantizedDimension": tensor.get("axis", 0),
        }
        parts = {
            "Name": builder.CreateString(tensor.get("name", f"t{number}")),
            "Shape": builder.CreateNumpyVector(np.array(tensor["shape"], np.int32)),
            "Type": getattr(tflite.TensorType, tensor["dtype"]),
            "Buffer": 0,
        }
        if tensor["scales"]:
            parts["Quantization"] = _table(builder, "QuantizationParameters", quantisation)
        if "signature" in tensor:
            signature = np.array(tensor["signature"], np.int32)
            parts["ShapeSignature"] = builder.CreateNumpyVector(signature)
        if "data" in tensor:
            parts["Buffer"] = len(buffers)
            buffers.append(tensor["data"].astype(tensor["dtype"].lower()).tobytes())
        return _table(builder, "Tensor", parts)

    def _node(self, builder: Any, node: Mapping[str, Any], ops: list[str]) -> int:
        parts = {
            "OpcodeIndex": ops.index(node["op"]),
            "Inputs": builder.CreateNumpyVector(np.array(node["inputs"], np.int32)),
            "Outputs": builder.CreateNumpyVector(np.array(node["outputs"], np.int32)),
        }
        if node["op"] in OPTIONS:
            name = OPTIONS[node["op"]]
            options = dict(node["options"])
            if name in {"Conv2DOptions", "DepthwiseConv2DOptions"}:
                options = {"DilationHFactor": 1, "DilationWFactor": 1, **options}
            parts["BuiltinOptions"] = _table(builder, name, options)
            parts["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
        return _table(builder, "Operator", parts)


def _code(builder: Any, op: str) -> int:
    number = getattr(tflite.BuiltinOperator, op, None)
    if number is None:
        custom = builder.CreateString(op)
        code = tflite.BuiltinOperator.CUSTOM
        return _table(
            builder,
            "OperatorCode",
            {"BuiltinCode": code, "DeprecatedBuiltinCode": code, "CustomCode": custom},
        )
    parts = {"BuiltinCode": number, "DeprecatedBuiltinCode": min(number, 127)}
    return _table(builder, "OperatorCode", {**parts, "Version": VERSIONS.get(op, 2)})


def _table(builder: Any, name: str, parts: Mapping[str, Any]) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for key, value in parts.items():
        getattr(tflite, f"{name}Add{key}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def network_inputs(network: CompressedNetwork, stored: npt.NDArray) -> npt.NDArray[np.int64]:
    """Return stored inputs (n, ...), in the file's layout, as the network takes them."""
    channels, height, width = network.input_shape
    info: Any = network.metadata["input"]
    values = stored.astype(np.int64) - info["zero_point"]
    return values.reshape(len(stored), height, width, channels).transpose(0, 3, 1, 2)


def run_reference(
    path: Path,
    network: CompressedNetwork,
    stored: npt.NDArray,
    resolver: OpResolverType = OpResolverType.BUILTIN_REF,
) -> dict[str, npt.NDArray[np.int64]]:
    """Return what LiteRT's reference kernels compute for each tensor that is a layer's output.

    Parameters
    ----------
    path
        The model.
    network
        What was read from it.
    stored
        Inputs (n, ...) of the file's type.
    resolver
        Which kernels.

    Returns
    -------
    outputs
        Of each layer, with its shape and its zero point removed.
    """
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=resolver is OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    numbers = {item["name"]: item["index"] for item in interpreter.get_tensor_details()}
    (source,) = interpreter.get_input_details()
    names: Any = network.metadata["tensors"]
    zero_points: Any = network.metadata["zero_points"]
    shapes = network.shapes()
    outputs: dict[str, list[npt.NDArray]] = {name: [] for name in names}
    for one in stored:
        interpreter.set_tensor(source["index"], one[None])
        interpreter.invoke()
        for name, tensor in names.items():
            channels, height, width = shapes[name]
            values = interpreter.get_tensor(numbers[tensor]).astype(np.int64)
            values = values.reshape(height, width, channels).transpose(2, 0, 1)
            outputs[name].append(values - zero_points.get(name, 0))
    return {name: np.stack(values) for name, values in outputs.items()}
