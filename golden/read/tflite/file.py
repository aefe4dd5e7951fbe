"""The parts of a ``.tflite`` file: tensors, nodes and their options, with every offset checked.

The format is that of TensorFlow Lite's ``schema.fbs``, version 3, read by the package ``tflite``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError
from thresher.golden.read.problems import Problems

__all__ = ["Graph", "Node", "Tensor", "read_graph"]

IDENTIFIER = b"TFL3"

_OPTIONS = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": (
        "Pool2DOptions",
        (
            "Padding",
            "StrideH",
            "StrideW",
            "FilterHeight",
            "FilterWidth",
            "FusedActivationFunction",
        ),
    ),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": (
        "Conv2DOptions",
        (
            "Padding",
            "StrideH",
            "StrideW",
            "DilationHFactor",
            "DilationWFactor",
            "FusedActivationFunction",
        ),
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        (
            "Padding",
            "StrideH",
            "StrideW",
            "DilationHFactor",
            "DilationWFactor",
            "FusedActivationFunction",
        ),
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "GELU": ("GeluOptions", ("Approximate",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "SPLIT": ("SplitOptions", ("NumSplits",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
}
_OPTIONS["MAX_POOL_2D"] = _OPTIONS["AVERAGE_POOL_2D"]
_OPTIONS["REDUCE_MAX"] = _OPTIONS["MEAN"]

_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}

# What reading past a damaged offset raises, in flatbuffers and numpy.
_DAMAGE = (
    struct.error,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A tensor.

    Parameters
    ----------
    number
        Its place in the file.
    name
        Its name.
    dtype
        Name of its type, e.g. ``"INT8"``.
    shape
        Its shape, the batch first; -1 where a size is not fixed. A batch that is not fixed is 1.
    scales, zero_points
        Its quantisation; empty if it has none, one of each for the tensor or one a channel.
    axis
        The dimension of the channels, where it has a scale for each of them.
    data
        Its values if it is a constant.
    is_variable
        Whether it keeps its value from one run to the next.
    """

    number: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int
    data: npt.NDArray | None
    is_variable: bool

    @property
    def scale(self) -> np.float32:
        """Scale of the whole tensor."""
        return np.float32(self.scales[0])

    @property
    def zero_point(self) -> int:
        """Zero point of the whole tensor."""
        return int(self.zero_points[0])


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operation.

    Parameters
    ----------
    number
        Its place in the file.
    op
        Name of its operation, e.g. ``"CONV_2D"``; that of a custom one is its own.
    inputs, outputs
        Numbers of tensors, -1 for an input that is left out.
    options
        Its options by the names of the schema.
    """

    number: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The one graph of a file.

    Parameters
    ----------
    tensors, nodes
        In the order of the file; a node comes after those that it reads from.
    inputs, outputs
        Numbers of tensors.
    """

    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def readers(self, tensor: int) -> list[Node]:
        """Return the nodes that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]


def read_graph(path: Path, problems: Problems) -> Graph | None:
    """Return the graph of a file, or None if it has none; then ``problems`` says why.

    Raises
    ------
    ThresherError
        If the file cannot be read, or the package ``tflite`` is missing.
    """
    try:
        import tflite  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
    except ImportError:
        raise ThresherError(
            f'{path}: .tflite files need the package tflite; run pip install "thresher[import]"'
        ) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ThresherError(
            f"{path}: it cannot be read ({error.strerror}); check the file's name"
        ) from None
    if content[4:8] != IDENTIFIER:
        problems.add("it is not a TFLite model: its bytes 4 to 7 are not TFL3", "convert it again")
        return None
    try:
        return _Parser(tflite, content).graph(problems)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        if isinstance(error, struct.error):
            reason = f"it has {len(content):,} bytes and refers to some behind them"
        problems.add(
            f"its content is damaged or cut off ({reason})", "copy it again or convert it again"
        )
        return None


class _Parser:
    """Reads one file; anything that does not fit raises one of ``_DAMAGE``."""

    def __init__(self, tflite: Any, content: bytes) -> None:
        self.tflite = tflite
        self.content = content
        self.op_names = _names(tflite.BuiltinOperator)
        self.type_names = _names(tflite.TensorType)
        self.option_names = _names(tflite.BuiltinOptions)

    def graph(self, problems: Problems) -> Graph | None:
        model = self.tflite.Model.GetRootAs(self.content, 0)
        if model.Version() != 3:
            raise ValueError(f"schema version {model.Version()}")
        graphs = self._count(model.SubgraphsLength())
        if graphs != 1:
            problems.add(
                f"it has {graphs} graphs", "convert a model without conditions, loops and calls"
            )
            return None
        self.model = model
        graph = model.Subgraphs(0)
        self.codes = [
            self._code(model.OperatorCodes(k)) for k in self._up_to(model, "OperatorCodes")
        ]
        tensors = tuple(
            self._tensor(k, graph.Tensors(k), problems) for k in self._up_to(graph, "Tensors")
        )
        nodes = tuple(self._node(k, graph.Operators(k)) for k in self._up_to(graph, "Operators"))
        made = Graph(
            tensors=tensors,
            nodes=nodes,
            inputs=_numbers(graph.InputsAsNumpy()),
            outputs=_numbers(graph.OutputsAsNumpy()),
        )
        for number in (*made.inputs, *made.outputs):
            tensors[_checked(number, 0, len(tensors))]
        for node in nodes:
            for number in (*node.inputs, *node.outputs):
                _checked(number, -1, len(tensors))
        return made

    def _count(self, length: int) -> int:
        if not 0 <= length <= len(self.content) // 4:
            raise ValueError(f"a list of {length} in {len(self.content)} bytes")
        return length

    def _up_to(self, table: Any, name: str) -> range:
        return range(self._count(getattr(table, f"{name}Length")()))

    def _code(self, code: Any) -> str:
        # Older files have the code in a byte, newer ones in a word.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == self.tflite.BuiltinOperator.CUSTOM:
            return _text(code.CustomCode()) or "CUSTOM"
        return self.op_names.get(number, f"operation {number}")

    def _tensor(self, number: int, tensor: Any, problems: Problems) -> Tensor:
        name = _text(tensor.Name()) or str(number)
        dtype = self.type_names.get(tensor.Type(), f"type {tensor.Type()}")
        shape, signature = _numbers(tensor.ShapeAsNumpy()), _numbers(tensor.ShapeSignatureAsNumpy())
        if len(signature) == len(shape):
            shape = tuple(
                size if wanted >= 0 or (axis == 0 and size == 1) else -1
                for axis, (size, wanted) in enumerate(zip(shape, signature, strict=True))
            )
        quantisation = tensor.Quantization()
        scales, zero_points, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        if quantisation is not None and self._count(quantisation.ScaleLength()):
            scales = np.array(quantisation.ScaleAsNumpy(), np.float32)
            zero_points = np.zeros(scales.size, np.int64)
            if self._count(quantisation.ZeroPointLength()):
                zero_points = np.array(quantisation.ZeroPointAsNumpy(), np.int64)
            if zero_points.size == 1:
                zero_points = np.repeat(zero_points, scales.size)
            if zero_points.size != scales.size:
                raise ValueError(f"tensor {name} has {scales.size} scales")
            axis = quantisation.QuantizedDimension()
            if not (np.isfinite(scales) & (scales >= 0)).all():
                raise ValueError(f"tensor {name} has a scale that is no positive number")
        if tensor.Sparsity() is not None:
            problems.add(
                "it is stored as sparse", "convert without sparsity in the file", node=name
            )
        return Tensor(
            number=number,
            name=name,
            dtype=dtype,
            shape=shape,
            scales=scales,
            zero_points=zero_points,
            axis=axis,
            data=self._data(tensor, name, dtype, shape),
            is_variable=bool(tensor.IsVariable()),
        )

    def _data(
        self, tensor: Any, name: str, dtype: str, shape: tuple[int, ...]
    ) -> npt.NDArray | None:
        buffer = self.model.Buffers(_checked(tensor.Buffer(), 0, self.model.BuffersLength()))
        if buffer.Offset() > 1:
            raise ValueError(f"tensor {name} lies outside of the flatbuffer")
        length = buffer.DataLength()
        if length == 0 or dtype not in _DTYPES or tensor.Sparsity() is not None:
            return None
        if length > len(self.content):
            raise ValueError(f"tensor {name} has {length} bytes")
        values: npt.NDArray = np.frombuffer(buffer.DataAsNumpy().tobytes(), _DTYPES[dtype])
        if values.size != math.prod(shape):
            raise ValueError(f"tensor {name} has {length} bytes for shape {shape}")
        return values.reshape(shape)

    def _node(self, number: int, operator: Any) -> Node:
        op = self.codes[_checked(operator.OpcodeIndex(), 0, len(self.codes))]
        options = {}
        if op in _OPTIONS:
            name, wanted = _OPTIONS[op]
            found = self.option_names.get(operator.BuiltinOptionsType())
            table = operator.BuiltinOptions()
            reader = getattr(self.tflite, name)()
            if found == name and table is not None:
                reader.Init(table.Bytes, table.Pos)
                options = {key: getattr(reader, key)() for key in wanted}
            elif found not in {None, "NONE"}:
                raise ValueError(f"node {number} has {found}")
        return Node(
            number=number,
            op=op,
            inputs=_numbers(operator.InputsAsNumpy()),
            outputs=_numbers(operator.OutputsAsNumpy()),
            options=options,
        )


def _names(constants: Any) -> dict[int, str]:
    return {value: name for name, value in vars(constants).items() if isinstance(value, int)}


def _numbers(values: Any) -> tuple[int, ...]:
    """Return an array of flatbuffers, which is 0 if it is not there, as a tuple."""
    return () if isinstance(values, int) else tuple(int(value) for value in values)


def _text(content: bytes | None) -> str:
    return "" if content is None else content.decode("utf-8", "replace")


def _checked(number: int, low: int, end: int) -> int:
    if not low <= number < end:
        raise IndexError(f"number {number} of {end}")
    return number
