"""From views of tensors to layers: what the operations of TFLite build a network with.

Each tensor of the file is a *view* of a layer's output: for each of its elements the place in the
layer's flattened (channel, row, column) map. Reshaping, transposing and slicing change the view
alone. A layer that needs a map gets the view's own layer, or a channel shuffle of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.network import CompressedNetwork, Layer, Lookup, Range, Shape
from thresher.golden.read.map_layers import MapLayers, channels_of, needed_for
from thresher.golden.read.problems import Problems
from thresher.golden.read.tflite.arithmetic import LIMITS
from thresher.golden.read.tflite.file import Graph, Node, Tensor

__all__ = ["INT8", "Builder", "NodeError", "Padding", "View"]

Int64Array = npt.NDArray[np.int64]
Padding = tuple[int, int, int, int]

_MOST_VALUES = 1 << 24  # of a tensor
_INTEGERS = ("INT8", "UINT8")
_INSTEAD_OP = "replace it, or cut the model before it and let the host compute the rest"
INT8 = "convert with full integer quantisation (int8 inputs, outputs and weights)"


class NodeError(ValueError):
    """What stands in the way at a node: reason, and what would work."""

    def __init__(self, reason: str, instead: str) -> None:
        super().__init__(reason)
        self.reason, self.instead = reason, instead


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A tensor as a part of a layer's output.

    Parameters
    ----------
    layer
        Name of the layer.
    shape
        The layer's (channels, height, width).
    places
        For each element of the tensor, without its batch, its place in the layer's flattened map.
    values
        Least and greatest value, zero point removed.
    """

    layer: str
    shape: Shape
    places: Int64Array
    values: Range


class Builder(MapLayers):
    """Turns a graph into layers, node by node, and notes the problems of each."""

    def __init__(self, path: Path, graph: Graph, problems: Problems) -> None:
        super().__init__("_")
        self.path, self.graph, self.problems = path, graph, problems
        self.layers: list[Layer] = []
        self.ranges: dict[str, Range] = {}
        self.views: dict[int, View] = {}
        self.tensors: dict[str, Tensor] = {}
        self.done: set[int] = set()  # nodes that were taken together with one before
        self.softmax = False
        self.broken: set[int] = set()  # tensors whose node has a problem
        self.padded: dict[int, tuple[View, Padding]] = {}  # tensors, as what is padded how far

    def network(
        self, builders: Mapping[str, Callable[[Builder, Node], None]]
    ) -> CompressedNetwork | None:
        """Return the network, or None if there are problems.

        Parameters
        ----------
        builders
            For each operation that is read, what makes its layers.
        """
        source = self.graph.tensors[self.graph.inputs[0]]
        self._begin(source)
        for node in self.graph.nodes:
            if node.number in self.done or self._is_of_shapes(node):
                continue
            self._attempt(node, builders.get(node.op))
        output = self.graph.outputs[0]
        end = self.views.get(output)
        if end is None:
            if not self.problems.found:
                self.problems.add(
                    f"no node makes its output {self.tensor(output).name!r}", "convert it again"
                )
            return None
        if self.problems.found:
            return None
        try:
            return self._finished(source, self.contiguous(end, "output"))
        except NodeError as error:
            self.problems.add(error.reason, error.instead)
        except ValueError as error:
            self.problems.add(str(error), "change that layer, or convert it again")
        return None

    def tensor(self, number: int) -> Tensor:
        """Return a tensor of the file."""
        return self.graph.tensors[number]

    def view(self, number: int) -> View:
        """Return the view that a node reads."""
        if number in self.views:
            return self.views[number]
        tensor = self.tensor(number)
        if tensor.data is not None:
            raise NodeError(
                f"its input {tensor.name!r} is a constant", "fold it into the weights or bias"
            )
        if number not in self.broken:
            raise NodeError(
                f"it reads {tensor.name!r}, which no node before it makes", "convert it again"
            )
        # The node before has a problem; go on as if it had none, to find those of this one.
        shape = self._map_shape(tensor.shape[1:])
        low, high = LIMITS.get(tensor.dtype, (-128, 127))
        return self._whole(f"tensor {number}", shape, tensor.shape[1:], (low - high, high - low))

    def constant(self, number: int, what: str) -> npt.NDArray:
        """Return a constant input."""
        data = self.tensor(number).data
        if data is None:
            raise NodeError(
                f"its {what} is no constant", "convert with constant weights and shapes"
            )
        return data

    def add(self, layer: Layer, tensor: Tensor | None = None) -> View:
        """Append a layer and return a view of all its output.

        Parameters
        ----------
        layer
            The layer.
        tensor
            The tensor that is its output, in (row, column, channel) order.
        """
        shape = layer.output_shape(*(self.shapes[name] for name in layer.inputs))
        values = layer.output_range(*(self.ranges[name] for name in layer.inputs))
        self.layers.append(layer)
        self.shapes[layer.name] = shape
        self.ranges[layer.name] = values
        wanted: tuple[int, ...] = (shape[1], shape[2], shape[0])
        if tensor is not None:
            self._name_output(layer.name, tensor)
            wanted = tensor.shape[1:]
        return self._whole(layer.name, shape, wanted, values)

    def _name_output(self, layer: str, tensor: Tensor) -> None:
        """Note which tensor a layer's output is."""
        self.tensors[layer] = tensor
        channels, height, width = self.shapes[layer]
        if math.prod(tensor.shape) != channels * height * width:
            raise NodeError(
                f"its output has shape {tensor.shape}, and it makes {(height, width, channels)}",
                "convert it again",
            )

    def add_moving(self, layer: Layer) -> str:
        return self.add(layer).layer

    def stored_range(self, layer: str) -> Range:
        return self.ranges[layer]

    def map(self, view: View, *, gathers: bool = True) -> View:
        """Return a view of a whole map of rows, columns and channels.

        A channel shuffle is added where channels are in another order, or only some; where rows or
        columns are, too, a convolution of one tap, unless ``gathers`` is false.

        Raises
        ------
        NodeError
            If the view cuts the map otherwise.
        """
        channels, height, width = view.shape
        if view.places.size % (height * width) == 0 and view.places.ndim:
            places = view.places.reshape(height, width, -1)
            order = channels_of(np.moveaxis(places, 2, 0), view.shape)
            if order is not None and view.places.shape[-1] == len(order):
                if order == tuple(range(channels)):
                    return replace(view, places=places)
                if len(set(order)) == len(order):
                    return self._shuffled(view, order)
        made = self.part(view, view.places) if gathers else None
        if made is not None:
            return made
        raise NodeError(
            f"a map is reshaped or transposed to {view.places.shape} from {height} x {width} x"
            f" {channels}",
            "keep rows, columns and channels as they are; channels alone may change places",
        )

    def part(
        self,
        view: View,
        places: Int64Array,
        name: str | None = None,
        tensor: Tensor | None = None,
    ) -> View | None:
        """Return a view of a map of some of a layer's values, by a convolution of one tap.

        Parameters
        ----------
        view
            Says which layer.
        places
            Of the map (rows, columns, channels), or less dimensions; -1 for a zero.
        name
            Of the convolution.
        tensor
            What it is.
        """
        if not 1 <= places.ndim <= 3:
            return None
        wanted = np.moveaxis(places.reshape((1,) * (3 - places.ndim) + places.shape), 2, 0)
        layer = self.gathered(view.layer, wanted, name)
        if layer is None:
            return None
        if tensor is not None:
            self._name_output(layer, tensor)
        channels, height, width = self.shapes[layer]
        return self._again(layer, (height, width, channels))

    def contiguous(self, view: View, name: str) -> View:
        """Return a view of a whole layer: a map, or a vector in the view's order."""
        try:
            return self.map(view, gathers=view.places.ndim == 3)
        except NodeError:
            pass
        if np.array_equal(np.sort(view.places.ravel()), np.arange(math.prod(view.shape))):
            whole = self._whole(
                view.layer, view.shape, view.shape[1:] + view.shape[:1], view.values
            )
            if np.array_equal(whole.places.ravel(), view.places.ravel()):
                return view
        flat = self._again(self.flattened(view.layer, f"{name}_flat"), view.places.shape)
        return self._shuffled(flat, tuple(view.places.ravel().tolist()))

    def lookup(self, view: View, name: str, tensor: Tensor | None, table: Int64Array) -> View:
        """Return the view after a function of one value; it sees the layer as a whole.

        Parameters
        ----------
        view
            The input.
        name
            Name of the layer.
        tensor
            What the output is.
        table
            An output for each value in ``view.values``; none is needed if they are the values.
        """
        low, high = view.values
        if np.array_equal(table, np.arange(low, high + 1)):
            return view
        layer = Lookup(name=name, inputs=(view.layer,), first=low, table=table)
        made = self.add(layer)
        if tensor is not None and self.is_in_order(view):
            self.tensors[name] = tensor
        return replace(made, places=view.places)

    def is_in_order(self, view: View) -> bool:
        """Return whether a view is its layer's whole output in (row, column, channel) order."""
        whole = (
            self._whole(view.layer, view.shape, view.places.shape, view.values)
            if (view.places.size == math.prod(view.shape))
            else None
        )
        return whole is not None and np.array_equal(whole.places, view.places)

    def clamped(self, view: View, name: str, tensor: Tensor, limits: Range) -> View:
        """Return the view with its values limited, which takes a layer if any is outside."""
        low, high = view.values
        if limits[0] <= low and high <= limits[1]:
            return view
        self.tensors.pop(view.layer, None)
        table = np.clip(np.arange(low, high + 1), *limits)
        return self.lookup(view, self.unique(f"{name}_clip"), tensor, table)

    def activation(self, number: int) -> Tensor:
        """Return a tensor of activations after checking its type, quantisation and shape.

        Raises
        ------
        NodeError
            If it is not a fixed shape of one input's int8 or uint8 with one scale.
        """
        tensor = self.tensor(number)
        what = f"tensor {tensor.name!r}"
        if tensor.dtype not in _INTEGERS:
            kind = {"INT16": "16-bit activations are"}.get(tensor.dtype, f"{tensor.dtype} is")
            raise NodeError(f"{what}: {kind} not read", INT8)
        if tensor.scales.size == 0 or not (tensor.scales > 0).all():
            raise NodeError(f"{what} has no scale", INT8)
        if tensor.scales.size > 1:
            raise NodeError(
                f"{what} has a scale a channel", "quantise activations with one scale a tensor"
            )
        if -1 in tensor.shape:
            raise NodeError(
                f"{what} has a size that is not fixed: {tensor.shape}", "fix the shapes"
            )
        values = math.prod(tensor.shape)
        if min(tensor.shape, default=1) < 1 or values > _MOST_VALUES:
            raise NodeError(
                f"{what} has shape {tensor.shape}", f"use shapes of 1 to {_MOST_VALUES:,} values"
            )
        if not tensor.shape or tensor.shape[0] != 1:
            raise NodeError(
                f"{what} has shape {tensor.shape}, and the first size, the batch, must be 1",
                "convert it with a batch of 1",
            )
        if tensor.is_variable:
            raise NodeError(f"{what} keeps its value between runs", "convert a model without state")
        return tensor

    def _begin(self, source: Tensor) -> None:
        """Make the view of the input, in the shape in which the first layer takes it."""
        path: list[Node] = []
        shape = source.shape[1:]
        number = source.number
        while len(path) < len(self.graph.nodes):
            readers = self.graph.readers(number)
            if len(readers) != 1 or readers[0].op not in {"RESHAPE", "EXPAND_DIMS", "QUANTIZE"}:
                break
            if not readers[0].outputs or len(self.tensor(readers[0].outputs[0]).shape) > 4:
                break
            number = readers[0].outputs[0]
            path.append(readers[0])
            shape = self.tensor(number).shape[1:]
            if len(shape) == 3:
                break
        typed = source
        if source.dtype == "FLOAT32" and path and path[0].op == "QUANTIZE":
            typed = self.tensor(path[0].outputs[0])
            self.done.add(path[0].number)
        self.typed_input = typed
        try:
            self.activation(typed.number)
            if typed is not source and (-1 in source.shape or source.shape != typed.shape):
                raise NodeError(f"it has shape {source.shape}", "fix the shapes")
            if min(shape, default=1) < 1 or math.prod(shape) != math.prod(typed.shape[1:]):
                shape = typed.shape[1:]
            low, high = (limit - typed.zero_point for limit in LIMITS[typed.dtype])
            self.shapes["input"] = self._map_shape(shape)
            self.ranges["input"] = (low, high)
            view = self._whole("input", self.shapes["input"], typed.shape[1:], (low, high))
            self.views[typed.number] = view
        except NodeError as error:
            self.broken |= {typed.number}
            self.problems.add(error.reason, error.instead, node=f"input {source.name!r}")

    def _attempt(self, node: Node, build: Callable[[Builder, Node], None] | None) -> None:
        try:
            if build is None:
                raise NodeError("this operation is not read", _INSTEAD_OP)
            build(self, node)
        except NodeError as error:
            self.problems.add(error.reason, error.instead, node=str(node.number), op=node.op)
        except (ValueError, IndexError, KeyError, ArithmeticError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.problems.add(reason, "convert it again", node=str(node.number), op=node.op)
        self.broken |= set(node.outputs) - set(self.views)

    def _is_of_shapes(self, node: Node) -> bool:
        """Whether a node computes with shapes, which are fixed here, and not with activations."""
        return bool(node.outputs) and all(
            self.tensor(number).dtype in {"INT32", "INT64"} for number in node.outputs
        )

    def _whole(self, layer: str, shape: Shape, wanted: tuple[int, ...], values: Range) -> View:
        if not 0 < math.prod(shape) <= _MOST_VALUES:
            raise NodeError(
                f"a map has shape {shape}", f"use maps of at most {_MOST_VALUES:,} values"
            )
        places = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        if layer.startswith("tensor "):
            self.shapes[layer], self.ranges[layer] = shape, values
        return View(
            layer=layer,
            shape=shape,
            places=places.transpose(1, 2, 0).reshape(wanted),
            values=values,
        )

    @staticmethod
    def _map_shape(shape: tuple[int, ...]) -> Shape:
        """Return (channels, height, width) of a shape without batch, channels last."""
        if len(shape) > 3:
            raise NodeError(f"it has {len(shape) + 1} dimensions", "use at most 4")
        height, width, channels = (1,) * (3 - len(shape)) + tuple(shape)
        return channels, height, width

    def _shuffled(self, view: View, order: tuple[int, ...]) -> View:
        if len(set(order)) != len(order):
            raise NodeError("it repeats channels", "use each channel once")
        return self._again(self.selected(view.layer, order), view.places.shape)

    def _again(self, name: str, wanted: tuple[int, ...]) -> View:
        return self._whole(name, self.shapes[name], wanted, self.ranges[name])

    def _finished(self, source: Tensor, end: View) -> CompressedNetwork:
        """Return the network of the layers that the output depends on."""
        needed = needed_for(end.layer, self.layers)
        layers = [layer for layer in self.layers if layer.name in needed]
        if "input" not in needed:
            raise NodeError("its output does not depend on its input", "convert it again")
        if not layers:
            raise NodeError("it has no layer: its output is its input", "give a model with layers")
        kept = {
            layer.name: self.tensors[layer.name] for layer in layers if layer.name in self.tensors
        }
        output, typed = self.output, self.typed_input
        metadata: dict[str, Any] = {
            "source": {
                "format": "tflite",
                "file": self.path.name,
                "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            },
            "input": {
                "scale": float(typed.scale),
                "zero_point": typed.zero_point,
                "dtype": source.dtype.lower(),
                "layout": "NHWC",
                "shape": list(source.shape[1:]),
            },
            "output": {
                "scale": float(output.scale),
                "zero_point": output.zero_point,
                "softmax": self.softmax,
            },
            "zero_points": {
                name: tensor.zero_point for name, tensor in kept.items() if tensor.zero_point
            },
            "tensors": {name: tensor.name for name, tensor in kept.items()},
        }
        return CompressedNetwork(
            name=self.path.stem,
            input_shape=self.shapes["input"],
            input_range=self.ranges["input"],
            layers=tuple(layers),
            metadata=metadata,
        )

    @property
    def output(self) -> Tensor:
        """The tensor that is the network's output: the file's, or what its softmax is taken of."""
        number = self.graph.outputs[0]
        for node in reversed(self.graph.nodes):
            if number in node.outputs and node.op in {"SOFTMAX", "DEQUANTIZE"} and node.inputs:
                number = node.inputs[0]
        return self.tensor(number)
