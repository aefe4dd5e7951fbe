"""Caffe's networks: the layers that a ``.prototxt`` file describes.

Reference
---------
Y. Jia et al., "Caffe", 2014. Windows of pooling are counted rounded up, and none begins beyond the
map and its padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from thresher.golden.compress.dense import RELU, UNBOUNDED, DenseError, DenseLayer, Shape
from thresher.golden.read.problems import Problems
from thresher.golden.read.prototxt import Message

__all__ = ["CaffeNetwork", "read_caffe"]

Pair = tuple[int, int]

_HOST = {"Softmax"}
_NOTHING = {"Dropout", "Split"}  # what they do, they do in training
_SUPPORTED = "Convolution, ReLU, Pooling, Concat, Dropout, Softmax"
_TRAINING = {"type", "name", "bottom", "top", "param", "include", "exclude", "phase", "loss_weight"}
# Fields of a layer's own parameters that are read, and those that change nothing.
_KNOWN = {
    "Convolution": {
        *("num_output", "bias_term", "group", "axis", "dilation"),
        *("kernel_size", "kernel_h", "kernel_w", "stride", "stride_h", "stride_w"),
        *("pad", "pad_h", "pad_w", "weight_filler", "bias_filler", "engine"),
    },
    "Pooling": {
        *("pool", "global_pooling", "round_mode", "kernel_size", "kernel_h", "kernel_w"),
        *("stride", "stride_h", "stride_w", "pad", "pad_h", "pad_w", "engine"),
    },
    "ReLU": {"negative_slope", "engine"},
    "Concat": {"axis", "concat_dim"},
    "Softmax": {"axis", "engine"},
    "Dropout": {"dropout_ratio"},
}


@dataclass
class CaffeNetwork:
    """Layers of a ``.prototxt`` file, their weights zeros.

    Parameters
    ----------
    problems
        Takes what is wrong.
    name, input_shape
        As in the file; the shape is None while none is known.
    layers
        By name, each after its inputs.
    softmax
        The file ends with a softmax, which the host takes.
    """

    problems: Problems
    name: str = "network"
    input_shape: Shape | None = None
    layers: dict[str, DenseLayer] = field(default_factory=dict)
    softmax: bool = False
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _of_blob: dict[str, str] = field(default_factory=dict)  # the layer whose output a blob is
    _read: set[str] = field(default_factory=set)

    def add_input(self, blob: str, shape: list[Any]) -> None:
        """Note the network's input, of one picture or several."""
        self._of_blob[blob] = ""
        if self.input_shape is not None:
            self.problems.add("there are several inputs", "keep one", node=blob, op="Input")
        elif len(shape) not in {2, 4} or not all(isinstance(n, int) and n > 0 for n in shape[1:]):
            self.problems.add(
                f"its shape is {shape}", "give it as count, channels, height, width", node=blob
            )
        else:
            channels, height, width = [*shape[1:], 1, 1][:3]
            self.input_shape = self._shapes["input"] = channels, height, width
            self._of_blob[blob] = "input"

    def add(self, message: Message) -> None:
        """Add a layer, or note why not."""
        name, op = str(_last(message, "name", "")), str(_last(message, "type", ""))
        tops = [str(top) for top in message.get("top", [])]
        if op == "Input":
            shapes = _submessage(message, "input_param").get("shape", [])
            for top, shape in zip(tops, shapes * len(tops), strict=False):  # one may be for all
                self.add_input(top, shape.get("dim", []) if isinstance(shape, dict) else [])
            return
        try:
            made = self._made(name, op, message)
        except DenseError as error:
            text = str(error).removeprefix(f"layer {name!r}: ")
            self.problems.add(text, "correct the .prototxt file", node=name, op=op)
            made = None
        except _Refusal as refusal:
            self.problems.add(refusal.reason, refusal.instead, node=name, op=op)
            made = None
        for top in tops:
            self._of_blob[top] = made or ""

    def _made(self, name: str, op: str, message: Message) -> str:
        """Return the name of the layer whose output that of a Caffe layer is."""
        inputs = self._inputs(name, op, message)
        own = _submessage(message, _PARAMETERS.get(op, ""))
        if "" in inputs:
            return ""  # of a layer that has a problem
        if self.softmax:
            raise _Refusal("it follows a softmax", "end with the softmax")
        if op in _NOTHING:
            return inputs[0]
        if op in _HOST:
            if _last(own, "axis", 1) != 1:
                raise _Refusal("its axis is not that of the channels", "use axis 1")
            if inputs[0] != next(reversed(self.layers), None):
                raise _Refusal("it is not of the last layer", "end with the softmax")
            self.softmax = True
            return inputs[0]
        shapes = tuple(self._shapes[source] for source in inputs)
        before = self.layers.get(inputs[0])
        layer = _layer(name, op, tuple(inputs), own, shapes)
        if (
            layer.kind == "unary"
            and layer.function == "relu"
            and before is not None
            and before.kind == "convolution"
            and before.clip == UNBOUNDED
            and before.name not in self._read
            and message["bottom"] == message["top"]
        ):
            self.layers[before.name] = replace(before, clip=RELU)
            return before.name
        if name in self.layers:
            raise _Refusal("another layer has its name", "give it another one")
        self._shapes[name] = layer.output_shape(*shapes)
        self.layers[name] = layer
        self._read.update(inputs)
        return name

    def _inputs(self, name: str, op: str, message: Message) -> list[str]:
        """Return the layers that a Caffe layer reads, "" for one that has a problem."""
        if op not in _KNOWN and op not in _NOTHING:
            raise _Refusal("it is not supported", f"use {_SUPPORTED}")
        if len(message.get("top", [])) != 1 or not message.get("bottom"):
            raise _Refusal("it must have inputs and one output", "correct the .prototxt file")
        if not name or name == "input":
            raise _Refusal(f"its name is {name!r}", "give it a name other than 'input'")
        own = _submessage(message, _PARAMETERS.get(op, ""))
        unknown = sorted(set(own) - _KNOWN.get(op, set()))
        more = sorted(set(message) - _TRAINING - {_PARAMETERS.get(op, "")})
        if unknown or more:
            raise _Refusal(f"its field {(unknown + more)[0]} is not known", "leave it out")
        inputs = []
        for bottom in message["bottom"]:
            if bottom not in self._of_blob:
                raise _Refusal(f"no layer before it gives {bottom!r}", "correct the .prototxt file")
            inputs.append(self._of_blob[bottom])
        return inputs

    def finish(self) -> None:
        """Note what is wrong with the network as a whole."""
        if self.problems.found:
            return
        if self.input_shape is None:
            self.problems.add(
                "the .prototxt file has no input", "add a layer of the type Input with its shape"
            )
        elif not self.layers:
            self.problems.add("the .prototxt file has no layer", "give the deployed network's")
        else:
            read = {source for layer in self.layers.values() for source in layer.inputs}
            unread = [name for name in self.layers if name not in read]
            for name in unread[:-1]:
                self.problems.add(
                    "its output is not used", "keep one output", node=name, op="Output"
                )


class _Refusal(Exception):
    """Why a layer is not read."""

    def __init__(self, reason: str, instead: str) -> None:
        super().__init__(reason)
        self.reason, self.instead = reason, instead


_PARAMETERS = {
    "Convolution": "convolution_param",
    "Pooling": "pooling_param",
    "ReLU": "relu_param",
    "Concat": "concat_param",
    "Softmax": "softmax_param",
    "Dropout": "dropout_param",
}


def read_caffe(message: Message, problems: Problems) -> CaffeNetwork:
    """Return the layers of a parsed ``.prototxt`` file.

    Parameters
    ----------
    message
        The file's fields.
    problems
        Takes what is wrong, layer by layer.
    """
    network = CaffeNetwork(problems, name=str(_last(message, "name", "network")) or "network")
    dims = message.get("input_dim", [])
    shapes = message.get("input_shape", [])
    for number, blob in enumerate(message.get("input", [])):
        if number < len(shapes) and isinstance(shapes[number], dict):
            network.add_input(str(blob), shapes[number].get("dim", []))
        else:
            network.add_input(str(blob), dims[4 * number : 4 * number + 4])
    if "layers" in message:
        problems.add(
            "the .prototxt file has 'layers', of an old version of Caffe",
            "upgrade it with Caffe's upgrade_net_proto_text",
        )
    for layer in message.get("layer", []):
        if not isinstance(layer, dict):
            problems.add(f"'layer' must be a message, not {layer!r}", "correct the .prototxt file")
        elif not any(
            isinstance(rule, dict) and "TRAIN" in rule.get("phase", [])
            for rule in layer.get("include", [])
        ):
            network.add(layer)
    network.finish()
    return network


def _layer(
    name: str, op: str, inputs: tuple[str, ...], own: Message, shapes: tuple[Shape, ...]
) -> DenseLayer:
    if op == "Concat":
        if _last(own, "axis", _last(own, "concat_dim", 1)) != 1:
            raise _Refusal("its axis is not that of the channels", "use axis 1")
        return DenseLayer(name=name, kind="concat", inputs=inputs)
    if len(inputs) != 1:
        raise _Refusal(f"it has {len(inputs)} inputs", "give it one")
    if op == "ReLU":
        slope = _last(own, "negative_slope", 0)
        if not isinstance(slope, int | float):
            raise _Refusal(f"its negative_slope is {slope!r}", "give a number")
        said: dict[str, Any] = {"function": "relu"}
        if slope:
            said = {"function": "leaky_relu", "parameters": (float(slope),)}
        return DenseLayer(name=name, kind="unary", inputs=inputs, **said)
    if op == "Pooling":
        return _pooling(name, inputs, own, shapes[0])
    top, left = _pair(own, "pad", 0, least=0)
    outputs, groups = _count(own, "num_output", None), _count(own, "group", 1)
    if _last(own, "axis", 1) != 1 or _last(own, "bias_term", True) is not True:
        raise _Refusal("it has no bias, or another axis", "give it biases, and the axis 1")
    if shapes[0][0] % groups or outputs % groups:
        raise _Refusal(
            f"its {groups} groups do not divide {shapes[0][0]} inputs and {outputs} outputs",
            "correct group or num_output",
        )
    size = (outputs, shapes[0][0] // groups, *_pair(own, "kernel_size", None, short="kernel"))
    return DenseLayer(
        name=name,
        kind="convolution",
        inputs=inputs,
        weight=np.broadcast_to(np.zeros(1), size),  # its own come from another file
        bias=np.zeros(outputs),
        stride=_pair(own, "stride", 1),
        padding=(top, left, top, left),
        dilation=_pair(own, "dilation", 1),
        groups=groups,
    )


def _pooling(name: str, inputs: tuple[str, ...], own: Message, shape: Shape) -> DenseLayer:
    kinds = {"MAX": "max_pool", "AVE": "average_pool", 0: "max_pool", 1: "average_pool"}
    kind = kinds.get(_last(own, "pool", "MAX"))
    if kind is None:
        raise _Refusal(f"its pool is {_last(own, 'pool', '')}", "use MAX or AVE")
    if _last(own, "global_pooling", False) is True:
        return DenseLayer(name=name, kind=kind, inputs=inputs, kernel=shape[1:], stride=shape[1:])
    kernel = _pair(own, "kernel_size", None, short="kernel")
    stride, pad = _pair(own, "stride", 1), _pair(own, "pad", 0, least=0)
    over = []
    for axis, size in enumerate(shape[1:]):
        room = size + 2 * pad[axis] - kernel[axis]
        if room < 0:
            raise _Refusal(f"its input {shape} is smaller than its window", "use a smaller one")
        down = _last(own, "round_mode", "CEIL") in {"FLOOR", 1}
        count = (room if down else room + stride[axis] - 1) // stride[axis] + 1
        if pad[axis] and (count - 1) * stride[axis] >= size + pad[axis]:
            count -= 1  # a window beyond the map and its padding
        over.append((count - 1) * stride[axis] - room)
    bottom, right = (max(0, pad[axis] + over[axis]) for axis in (0, 1))
    beyond = max(0, over[0]), max(0, over[1])
    return DenseLayer(
        name=name,
        kind=kind,
        inputs=inputs,
        kernel=kernel,
        stride=stride,
        padding=(*pad, bottom, right),
        uncounted=(0, 0, *beyond) if kind == "average_pool" else (0, 0, 0, 0),
    )


def _last(message: Mapping[str, list[Any]], name: str, none: Any) -> Any:
    values = message.get(name)
    return values[-1] if values else none


def _submessage(message: Message, name: str) -> Message:
    value = _last(message, name, {})
    return value if isinstance(value, dict) else {}


def _count(own: Message, name: str, none: int | None) -> int:
    value = _last(own, name, none)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 16:
        raise _Refusal(f"its {name} is {value!r}", "give a positive number")
    return value


def _pair(own: Message, name: str, none: int | None, *, least: int = 1, short: str = "") -> Pair:
    """Return (y, x) of a field that may be given once, twice, or for each axis."""
    sides = [_last(own, f"{short or name}_{axis}", None) for axis in "hw"]
    given = own.get(name, [])
    values = sides if None not in sides else [*given, *given][:2] if len(given) == 1 else given
    values = values or [none, none]
    if len(values) != 2 or not all(
        isinstance(item, int) and not isinstance(item, bool) and least <= item <= 4095
        for item in values
    ):
        raise _Refusal(
            f"its {name} is {values if len(values) != 2 else values[0]!r}", "give whole numbers"
        )
    return values[0], values[1]
