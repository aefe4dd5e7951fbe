"""What is done with any node of an ONNX graph: its inputs found, its problems noted.

What is computed is kept until it is known how it is to be stored, and becomes a layer then: see
:class:`thresher.golden.read.onnx.maps.Maps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from thresher.golden.read.onnx.arguments import array_of, constant_of, is_constant, tensor_of
from thresher.golden.read.onnx.graph import Graph, Node
from thresher.golden.read.onnx.maps import Maps
from thresher.golden.read.onnx.values import (
    Array,
    Refusal,
    Tensor,
    Unclear,
    Unknown,
    Value,
    Weights,
)
from thresher.golden.read.problems import Problems

__all__ = ["HOST", "MOVING", "Nodes"]

HOST = "replace it, or cut the model there and let the host compute it"

MOVING = {
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operations that move elements about."""


class Nodes:
    """Turns a graph into layers, node by node, and notes the problems of each.

    Parameters
    ----------
    graph
        The graph.
    maps
        Receives the layers.
    problems
        Receives what stands in the way.
    """

    methods: ClassVar[Mapping[str, str]] = {}
    """Methods by operation: of (node, values of its inputs), returning its output's value."""

    takes_constants: ClassVar[frozenset[str]] = frozenset()
    """Operations whose method is called for constants, too."""

    instead: ClassVar[Mapping[str, str]] = {}
    """What would work instead of an operation that is not supported."""

    in_floats: ClassVar[bool] = False
    """Whether layers may have values that are not quantised."""

    def __init__(self, graph: Graph, maps: Maps, problems: Problems) -> None:
        self.graph, self.layers, self.problems = graph, maps, problems
        self.values: dict[str, Value] = dict(graph.constants)

    def weights_of(self, value: Value | None) -> Weights:
        """Return constant weights."""
        raise NotImplementedError

    def settled(self, value: Tensor) -> Tensor:
        """Return a value for an operation on several."""
        return value

    def name(self, name: str, value: Value) -> None:
        """Take note of the tensor that a value is."""

    def take(self, node: Node) -> None:
        """Find the values of a node's outputs; note its problems."""
        values = [self.values[name] if name else None for name in node.inputs]
        made: Sequence[Value]
        try:
            made = self._made(node, values)
        except Unclear:
            made = []
        except Refusal as refusal:
            self.problems.add(refusal.reason, refusal.instead, node=node.name, op=node.op)
            made = []
        except Exception as error:  # whatever a node that is not sound leads to
            text = " ".join(str(error).split()) or type(error).__name__
            self.problems.add(
                f"its inputs or attributes do not fit together ({text[:120]})",
                "correct the node, or export the model again",
                node=node.name,
                op=node.op,
            )
            made = []
        for number, name in enumerate(node.outputs):
            if not name:
                continue
            if number < len(made):
                self.values[name] = made[number]
                self.name(name, made[number])
            else:
                shape = self.graph.shapes.get(name, (1, 1, 1, 1))
                self.values[name] = Unknown(places=np.zeros(shape, np.int64))

    def _made(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        op = node.op
        if op == "Constant":
            return [constant_of(node)]
        if op == "Shape":
            return [self._shape(node, values[0])]
        folds = op not in self.takes_constants and bool(values)
        if folds and all(value is None or is_constant(value) for value in values):
            return self._folded(node, values)
        if op in MOVING:
            return self._moved(node, values)
        if op not in self.methods:
            raise Refusal("this operation is not supported", self.instead.get(op, HOST))
        return [getattr(self, self.methods[op])(node, values)]

    def _shape(self, node: Node, value: Value | None) -> Array:
        array = value if isinstance(value, np.ndarray) else None
        shape = array.shape if array is not None else tensor_of(value).places.shape
        if isinstance(value, Unknown):
            raise Unclear
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return np.array(shape[start:end], np.int64)

    def _moved(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        value = tensor_of(values[0])
        rest = [array_of(item, "parameter") for item in values[1:]]
        moved = self.graph.evaluate(node, [value.places, *rest])
        for places in moved:
            if places.ndim == 0 or not places.size:
                raise Refusal("its result is empty, or no array", "take it out")
        return [replace(value, places=places.astype(np.int64)) for places in moved]

    def _folded(self, node: Node, values: list[Value | None]) -> Sequence[Value]:
        weights = values[0]
        if node.op not in MOVING or not isinstance(weights, Weights):
            arrays = [x.real() if isinstance(x, Weights) else x for x in values]
            return self.graph.evaluate(node, arrays)  # type: ignore[arg-type]
        rest = [array_of(item, "parameter") for item in values[1:]]
        parts = (
            self.graph.evaluate(node, [array, *rest]) for array in (weights.values, weights.scale)
        )
        return [Weights(values=a, scale=b) for a, b in zip(*parts, strict=True)]

    def passed(self, node: Node, values: list[Value | None]) -> Value:
        """Return an input that the node does not change."""
        value = tensor_of(values[0])
        if node.op == "Cast" and node.attributes.get("to") != 1:  # FLOAT
            raise Refusal("it casts to something other than float32", "take it out")
        return value
