"""Graphs of ONNX files: loaded, checked as a whole, in order, their constants found."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx.reference import ReferenceEvaluator

from thresher.golden.errors import ThresherError
from thresher.golden.read.problems import Problems

__all__ = ["Graph", "Node", "read_graph"]

OLDEST = 7  # opset since which arithmetic broadcasts as numpy does
_AGAIN = "export the model again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation.

    Parameters
    ----------
    name
        As in the file, or its operation and number there.
    op
        Operation type, whatever its domain.
    inputs, outputs
        Names of tensors; empty where an optional one is left out.
    attributes
        Values by name: numbers, texts, lists and arrays.
    proto
        The node itself.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto

    def has(self, position: int) -> bool:
        """Whether an input is given."""
        return position < len(self.inputs) and bool(self.inputs[position])


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A graph with one input and one output.

    Parameters
    ----------
    nodes
        In an order in which each comes after what it reads.
    constants
        Arrays of the initialisers.
    input, input_shape, input_type
        Name, shape with a batch of 1, and numpy dtype of the input.
    output
        Name of the output.
    shapes
        Of the tensors for which shape inference knows one, a batch of 1.
    opsets
        Version of each domain; the domain of ONNX itself is empty.
    """

    name: str
    nodes: tuple[Node, ...]
    constants: dict[str, npt.NDArray[Any]]
    input: str
    input_shape: tuple[int, ...]
    input_type: np.dtype[Any]
    output: str
    shapes: Mapping[str, tuple[int, ...]]
    opsets: Mapping[str, int]
    _evaluators: dict[int, tuple[Node, ReferenceEvaluator]] = field(default_factory=dict)

    def evaluate(self, node: Node, arrays: Sequence[npt.NDArray[Any] | None]) -> list[Any]:
        """Return a node's outputs for arrays, by ONNX' reference implementation.

        Moving elements works for arrays of any type, also of places in place of values.
        """
        known = self._evaluators.get(id(node))
        if known is None:
            proto = onnx.NodeProto()
            proto.CopyFrom(node.proto)
            if proto.domain == "com.microsoft":
                proto.domain = ""
            undefined = onnx.TensorProto.UNDEFINED
            graph = onnx.helper.make_graph(
                [proto],
                "node",
                [onnx.helper.make_tensor_value_info(x, undefined, None) for x in node.inputs if x],
                [onnx.helper.make_tensor_value_info(x, undefined, None) for x in node.outputs if x],
            )
            version = self.opsets.get("", 20)
            if node.proto.domain == "com.microsoft":
                version = max(version, 20)  # where that domain's functions became ONNX' own
            model = onnx.helper.make_model(
                graph, opset_imports=[onnx.helper.make_opsetid("", version)]
            )
            known = node, ReferenceEvaluator(model)
            self._evaluators[id(node)] = known
        feeds = {
            name: array
            for name, array in zip(node.inputs, arrays, strict=False)
            if name and array is not None
        }
        return list(known[1].run(None, feeds))


def read_graph(path: Path, problems: Problems) -> Graph | None:
    """Load an ONNX file.

    Parameters
    ----------
    path
        The file; tensors stored outside it lie beside it.
    problems
        Receives what is wrong with the graph as a whole.

    Returns
    -------
    graph
        None if it cannot be gone through node by node.

    Raises
    ------
    ThresherError
        If the file cannot be read.
    """
    model = _load(path, problems)
    if model is None:
        return None
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opsets = {
        "" if item.domain == "ai.onnx" else item.domain: item.version for item in model.opset_import
    }
    version = opsets.get("", 0)
    if version < OLDEST:
        problems.add(
            f"its opset is {version or 'not given'}, older than {OLDEST}",
            f"export it with opset {OLDEST} or newer",
        )
        return None
    before = len(problems.found)
    constants = _constants(model.graph, problems)
    nodes = _ordered(_nodes(model.graph, problems), constants, model, problems)
    inputs = [item for item in model.graph.input if item.name not in constants]
    for what, items in (("input", inputs), ("output", model.graph.output)):
        if len(items) != 1:
            names = ", ".join(repr(item.name) for item in items)
            problems.add(
                f"it has {len(items)} {what}s" + (f" ({names})" if names else ""),
                f"cut it to a model with one {what}",
            )
    if nodes is None or len(inputs) != 1 or not model.graph.output:
        return None
    shape = _input_shape(inputs[0], problems)
    if shape is None:
        return None
    _check(model, nodes, problems, before)
    return Graph(
        name=path.stem,
        nodes=tuple(nodes),
        constants=constants,
        input=inputs[0].name,
        input_shape=shape,
        input_type=_dtype(inputs[0].type.tensor_type.elem_type),
        output=model.graph.output[0].name,
        shapes=_shapes(model, inputs[0].name, shape),
        opsets=opsets,
    )


def _load(path: Path, problems: Problems) -> onnx.ModelProto | None:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ThresherError(
            f"{path}: it cannot be read ({error.strerror}); check the file's name"
        ) from error
    except DecodeError:
        problems.add("it is not an ONNX file, or only a part of one", "copy or export it again")
        return None
    texts = [item.name for item in (*model.graph.input, *model.graph.initializer)]
    texts += [item.name for item in model.graph.output]
    for node in model.graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [item.name for item in node.attribute]
    if any(isinstance(text, bytes) for text in texts):  # as protobuf gives what is not UTF-8
        problems.add("it is damaged: a name is no text", "copy or export it again")
        return None
    if not model.graph.node:
        problems.add("it is not an ONNX model with at least one node", "copy or export it again")
        return None
    missing = _missing_files(model, path.parent)
    if missing:
        problems.add(
            f"its weights are in another file that is not there: {', '.join(missing)}",
            "put that file beside it, or save the model as one file",
        )
        return None
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        problems.add(
            f"its weights are in another file that cannot be read ({_first_line(error)})",
            "put that file beside it, or save the model as one file",
        )
        return None
    return model


def _missing_files(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the names of the files that should have the model's weights and are not there."""
    names = {
        entry.value
        for item in model.graph.initializer
        if item.data_location == onnx.TensorProto.EXTERNAL
        for entry in item.external_data
        if entry.key == "location"
    }
    return sorted(
        repr(name) for name in names if isinstance(name, str) and not (folder / name).exists()
    )


def _constants(graph: onnx.GraphProto, problems: Problems) -> dict[str, npt.NDArray[Any]]:
    constants = {}
    for item in graph.initializer:
        try:
            constants[item.name] = onnx.numpy_helper.to_array(item)
        except Exception as error:  # whatever damaged bytes lead to
            problems.add(
                f"this initializer cannot be read ({_first_line(error)})",
                "copy or export the model again",
                node=item.name,
            )
            constants[item.name] = np.zeros(1, np.float32)
    for item in graph.sparse_initializer:
        problems.add("this initializer is sparse", "store it as a dense one", node=item.values.name)
    return constants


def _nodes(graph: onnx.GraphProto, problems: Problems) -> list[Node]:
    nodes = []
    for number, proto in enumerate(graph.node):
        name = proto.name or f"{proto.op_type.lower()}_{number}"
        attributes = {}
        for item in proto.attribute:
            try:
                attributes[item.name] = _attribute(item)
            except Exception as error:  # whatever damaged bytes lead to
                problems.add(
                    f"its attribute {item.name!r} cannot be read ({_first_line(error)})",
                    "copy or export the model again",
                    node=name,
                    op=proto.op_type,
                )
        nodes.append(
            Node(
                name=name,
                op=proto.op_type,
                inputs=tuple(proto.input),
                outputs=tuple(proto.output),
                attributes=attributes,
                proto=proto,
            )
        )
    return nodes


def _attribute(item: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _ordered(
    nodes: list[Node],
    constants: Mapping[str, object],
    model: onnx.ModelProto,
    problems: Problems,
) -> list[Node] | None:
    """Sort the nodes; report tensors that nothing makes, or two do, and cycles."""
    makers: dict[str, int] = {}
    known = {*constants, *(item.name for item in model.graph.input), ""}
    complete = True
    for number, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in makers or name in known:
                problems.add(
                    f"its output {name!r} is made twice", _AGAIN, node=node.name, op=node.op
                )
                complete = False
            makers[name] = number
    readers: dict[int, set[int]] = {}
    for number, node in enumerate(nodes):
        readers[number] = {makers[name] for name in node.inputs if name in makers}
        for name in node.inputs:
            if name not in known and name not in makers:
                problems.add(
                    f"it reads {name!r}, which nothing makes", _AGAIN, node=node.name, op=node.op
                )
                complete = False
    for item in model.graph.output:
        if item.name not in makers:
            problems.add(f"no node makes its output {item.name!r}", _AGAIN)
            complete = False
    try:
        order = list(graphlib.TopologicalSorter(readers).static_order())
    except graphlib.CycleError as error:
        cycle = [nodes[number].name for number in reversed(error.args[1])]
        problems.add(f"its nodes form a cycle: {' -> '.join(map(repr, cycle))}", _AGAIN)
        return None
    if not complete:
        return None
    placed = set(order[: len(nodes)])
    assert len(placed) == len(nodes), "every node is sorted"
    # The file's own order, where it is one.
    given = all(max(before, default=-1) < number for number, before in readers.items())
    return nodes if given else [nodes[number] for number in order]


def _input_shape(item: onnx.ValueInfoProto, problems: Problems) -> tuple[int, ...] | None:
    tensor = item.type.tensor_type
    if not tensor.HasField("shape") or not tensor.shape.dim:
        problems.add("the shape of the input is not given", "fix it at export", node=item.name)
        return None
    shape = [1]
    for axis, size in enumerate(tensor.shape.dim):
        if axis == 0:
            if size.dim_value > 1:
                problems.add(
                    f"its batch is {size.dim_value}",
                    "export it with a batch of 1, or of any size",
                    node=item.name,
                )
            continue
        if size.dim_value < 1:
            problems.add(
                f"axis {axis} of the input has no fixed size"
                + (f" ({size.dim_param!r})" if size.dim_param else ""),
                "fix it at export, or with onnxruntime.tools.make_dynamic_shape_fixed",
                node=item.name,
            )
        shape.append(size.dim_value)
    if len(shape) == 1:
        problems.add(
            "the input has one axis, no batch", "export it with a batch of 1", node=item.name
        )
        return None
    return tuple(shape) if min(shape) > 0 else None


def _check(model: onnx.ModelProto, nodes: list[Node], problems: Problems, before: int) -> None:
    """Let ONNX check the model, unless its problems are known already."""
    if len(problems.found) > before:
        return
    sorted_model = onnx.ModelProto()
    sorted_model.CopyFrom(model)
    del sorted_model.graph.node[:]
    del sorted_model.graph.value_info[:]  # nothing needs them, and some tools write bad ones
    sorted_model.graph.node.extend(node.proto for node in nodes)
    for item in sorted_model.graph.output:
        item.type.tensor_type.shape.SetInParent()  # runtimes do without it
    try:
        onnx.checker.check_model(sorted_model)
    except (onnx.checker.ValidationError, ValueError) as error:
        problems.add(
            f"it is not valid ONNX ({_first_line(error)})", f"{_AGAIN}, or with a newer opset"
        )


def _shapes(
    model: onnx.ModelProto, source: str, shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for item in fixed.graph.input:
        if item.name == source:
            for dimension, size in zip(item.type.tensor_type.shape.dim, shape, strict=True):
                dimension.Clear()
                dimension.dim_value = size
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    shapes = {}
    for item in [*inferred.graph.value_info, *inferred.graph.output]:
        sizes = [size.dim_value for size in item.type.tensor_type.shape.dim]
        if sizes and not sizes[0]:
            sizes[0] = 1  # the batch
        if min(sizes, default=1) > 0:
            shapes[item.name] = tuple(sizes)
    return shapes


def _dtype(kind: int) -> np.dtype[Any]:
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, ValueError, TypeError):
        return np.dtype(object)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
