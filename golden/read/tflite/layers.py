"""What each operation of TFLite is in layers.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.builder.NodeError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network import AveragePool, Concat, MaxPool, Range
from thresher.golden.pooling import divisors
from thresher.golden.read.tflite.arithmetic import (
    FUNCTIONS,
    LIMITS,
    mean_multiplier,
    reciprocals,
    table,
)
from thresher.golden.read.tflite.builder import INT8, Builder, NodeError, View
from thresher.golden.read.tflite.file import Node, Tensor
from thresher.golden.read.tflite.nodes import (
    AGAIN,
    Window,
    check_shape,
    inputs_of,
    limits_of,
    options_of,
    same_quantisation,
    same_scale,
    stored_limits,
    window_of,
    with_padding,
)
from thresher.golden.read.tflite.products import read_mul
from thresher.golden.read.tflite.sums import read_prelu, read_sum
from thresher.golden.read.tflite.views import (
    read_pad,
    read_reshape,
    read_slice,
    read_split,
    read_strided_slice,
    read_transpose,
)
from thresher.golden.read.tflite.weights import (
    read_convolution,
    read_fully_connected,
    read_space_to_batch,
)

__all__ = ["BUILDERS"]

Int64Array = npt.NDArray[np.int64]


def _concatenation(builder: Builder, node: Node) -> None:
    target = builder.activation(node.outputs[0])
    if options_of(node).get("FusedActivationFunction", 0):
        raise NodeError("it has an activation function", "use one of its own behind it")
    axis = options_of(node)["Axis"]
    axis += len(target.shape) if axis < 0 else 0
    if not 1 <= axis < len(target.shape):
        raise NodeError(f"it joins along dimension {axis}", "join channels")
    views = []
    for place, number in enumerate(node.inputs):
        source = builder.activation(number)
        view = builder.view(number)
        if len(source.shape) != len(target.shape):
            raise NodeError(f"its inputs have shapes like {source.shape}", AGAIN)
        if not same_quantisation(source, target):
            if source.dtype != "UINT8":
                raise NodeError(
                    f"its input {source.name!r} has another scale or zero point than its output,"
                    " which TFLite takes for uint8 only",
                    "quantise its inputs with one scale",
                )
            name = builder.unique(f"concat{node.number}_{place}")
            view = builder.lookup(view, name, None, _table(node, view, source, target))
        if len(source.shape) == 4:
            view = builder.map(view)
        elif view.shape[1:] != (1, 1):
            view = builder.contiguous(view, f"concat{node.number}_{place}")
        views.append(view)
    if len({view.shape[1:] for view in views}) != 1:
        shapes = [builder.tensor(number).shape for number in node.inputs]
        raise NodeError(f"its inputs have shapes {shapes}", "join maps of one height and width")
    if len(views) == 1:
        builder.views[target.number] = views[0]
        return
    layer = Concat(
        name=builder.unique(f"concat{node.number}"), inputs=tuple(view.layer for view in views)
    )
    made = builder.add(layer)
    offsets = np.cumsum([0, *(math.prod(view.shape) for view in views)])[:-1]
    places = np.concatenate(
        [view.places + offset for view, offset in zip(views, offsets, strict=True)], axis=axis - 1
    )
    check_shape(places, target)
    made = replace(made, places=places)
    if builder.is_in_order(made):
        builder.tensors[layer.name] = target
    builder.views[target.number] = made


def _pool(builder: Builder, node: Node) -> None:
    source, target = same_scale(builder, node)
    options = options_of(node)
    view = builder.map(builder.view(source.number))
    kernel = options["FilterHeight"], options["FilterWidth"]
    window = window_of(options, kernel, view.shape[1:], options["Padding"])
    limits = limits_of(node, target)
    if node.op == "AVERAGE_POOL_2D":
        layer = _average(builder, node, view, window, limits)
        builder.views[target.number] = builder.add(layer, target)
        return
    if view.values[0] >= 0:  # then a padded zero is never more than what is there
        view, window = with_padding(builder, source, view, window)
    name = builder.unique(f"maxpool{node.number}")
    made = builder.add(
        MaxPool(
            name=name,
            inputs=(view.layer,),
            kernel=window.kernel,
            stride=window.stride,
            padding=window.padding,
        ),
        target,
    )
    builder.views[target.number] = builder.clamped(made, name, target, limits)


def _average(
    builder: Builder, node: Node, view: View, window: Window, limits: Range
) -> AveragePool:
    source = builder.tensor(node.inputs[0])
    try:
        rows, columns = divisors(
            view.shape[1:], window.kernel, window.stride, window.padding, window.padding
        )
    except ValueError as error:
        raise NodeError(str(error), "use smaller windows") from None
    greatest = max(abs(limit) for limit in LIMITS[source.dtype])
    divided = reciprocals([height * width for height in rows for width in columns], greatest)
    if divided is None:
        places = window.kernel[0] * window.kernel[1]
        raise NodeError(f"its windows have {places} places", "use windows of fewer places")
    scales, shift = divided
    table = tuple(map(tuple, np.reshape(scales, (len(rows), len(columns))).tolist()))
    return AveragePool(
        name=builder.unique(f"avgpool{node.number}"),
        inputs=(view.layer,),
        kernel=window.kernel,
        stride=window.stride,
        padding=window.padding,
        scale=scales[0],
        shift=shift,
        rounding=Rounding.HALF_AWAY,
        origin=source.zero_point,
        clip=limits,
        cut_scales=table if len(scales) > 1 else None,
    )


def _mean(builder: Builder, node: Node) -> None:
    source = builder.activation(inputs_of(node, 2)[0])
    target = builder.activation(node.outputs[0])
    view, kernel = _reduced(builder, node, source)
    count = kernel[0] * kernel[1]
    scale, shift = mean_multiplier(float(source.scale) / float(target.scale), count)
    layer = AveragePool(
        name=builder.unique(f"mean{node.number}"),
        inputs=(view.layer,),
        kernel=kernel,
        stride=(1, 1),
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=stored_limits(target),
    )
    builder.views[target.number] = builder.add(layer, target)


def _reduce_max(builder: Builder, node: Node) -> None:
    source, target = same_scale(builder, node)
    view, kernel = _reduced(builder, node, source)
    name = builder.unique(f"maxpool{node.number}")
    layer = MaxPool(name=name, inputs=(view.layer,), kernel=kernel, stride=(1, 1))
    builder.views[target.number] = builder.add(layer, target)


def _reduced(builder: Builder, node: Node, source: Tensor) -> tuple[View, tuple[int, int]]:
    """Return the map that a node reduces, and over how many rows and columns."""
    axes = builder.constant(node.inputs[1], "list of dimensions").ravel()
    rank = len(source.shape)
    reduced = sorted({int(axis) + (rank if axis < 0 else 0) for axis in axes})
    if rank not in {3, 4} or not reduced or not set(reduced) <= set(range(1, rank - 1)):
        raise NodeError(
            f"it reduces dimensions {reduced} of shape {source.shape}",
            "reduce rows, columns or both",
        )
    view = builder.map(builder.view(source.number))
    height = view.shape[1] if rank == 4 and 1 in reduced else 1
    return view, (height, view.shape[2] if rank - 2 in reduced else 1)


def _function_of_one(builder: Builder, node: Node) -> None:
    source = builder.activation(inputs_of(node, 1)[0])
    target = builder.activation(node.outputs[0])
    if source.dtype != target.dtype:
        raise NodeError(f"its input is {source.dtype} and its output {target.dtype}", INT8)
    if node.op == "LOGISTIC":
        low, _ = LIMITS[target.dtype]
        if float(target.scale) != 1 / 256 or target.zero_point != low:
            raise NodeError(
                f"its output has scale {target.scale} and zero point {target.zero_point}",
                f"use 1/256 and {low}, as TFLite wants",
            )
    name = builder.unique(f"{node.op.lower()}{node.number}")
    view = builder.view(source.number)
    made = builder.lookup(view, name, target, _table(node, view, source, target))
    check_shape(made.places, target)
    builder.views[target.number] = made


def _gelu(builder: Builder, node: Node) -> None:
    by_tanh = options_of(node).get("Approximate", 0)
    _function_of_one(builder, replace(node, op="GELU by tanh") if by_tanh else node)


def _table(node: Node, view: View, source: Tensor, target: Tensor) -> Int64Array:
    """Return a function's outputs for each value of a view, zero points removed."""
    low, high = view.values
    stored = np.arange(low, high + 1) + source.zero_point
    made = table(
        node.op,
        stored,
        (source.scale, source.zero_point),
        (target.scale, target.zero_point),
        node.options.get("Alpha", 0.0),
    )
    return np.clip(made, *LIMITS[target.dtype]) - target.zero_point


def _quantize(builder: Builder, node: Node) -> None:
    number = inputs_of(node, 1)[0]
    if builder.tensor(number).dtype == "FLOAT32":
        raise NodeError(
            "float values are quantised in the middle of the network", f"{INT8}, in all layers"
        )
    source, target = builder.activation(number), builder.activation(node.outputs[0])
    view = builder.view(number)
    name = builder.unique(f"quantize{node.number}")
    made = builder.lookup(view, name, target, _table(node, view, source, target))
    check_shape(made.places, target)
    builder.views[target.number] = made


def _dequantize(builder: Builder, node: Node) -> None:
    source = builder.activation(inputs_of(node, 1)[0])
    view = builder.view(source.number)
    _check_end(builder, node)
    builder.views[node.outputs[0]] = view


def _softmax(builder: Builder, node: Node) -> None:
    number = inputs_of(node, 1)[0]
    if builder.tensor(number).dtype != "FLOAT32":
        builder.activation(number)
    view = builder.view(number)
    if options_of(node).get("Beta", 1.0) != 1.0:
        raise NodeError(f"its beta is {options_of(node)['Beta']}", "use a softmax with beta 1")
    _check_end(builder, node)
    if len(view.places.shape) > 1 and view.places.shape[-1] != view.places.size:
        raise NodeError("it is taken at several places", "let the host compute it")
    builder.softmax = True
    builder.views[node.outputs[0]] = view


def _check_end(builder: Builder, node: Node) -> None:
    """Raise if anything but the end of the network reads a node's output."""
    for reader in builder.graph.readers(node.outputs[0]):
        if reader.op not in {"DEQUANTIZE", "SOFTMAX", "RESHAPE", "QUANTIZE"}:
            raise NodeError(
                f"node {reader.number} ({reader.op}) reads it, and only the end of a network may",
                "cut the model before it and let the host compute the rest",
            )


BUILDERS: dict[str, Callable[[Builder, Node], None]] = {
    "ADD": read_sum,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": read_convolution,
    "DEPTHWISE_CONV_2D": read_convolution,
    "DEQUANTIZE": _dequantize,
    "EXPAND_DIMS": read_reshape,
    "FULLY_CONNECTED": read_fully_connected,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "MUL": read_mul,
    "PAD": read_pad,
    "PADV2": read_pad,
    "PRELU": read_prelu,
    "QUANTIZE": _quantize,
    "REDUCE_MAX": _reduce_max,
    "RESHAPE": read_reshape,
    "SLICE": read_slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_BATCH_ND": read_space_to_batch,
    "SPLIT": read_split,
    "SPLIT_V": read_split,
    "SQUEEZE": read_reshape,
    "STRIDED_SLICE": read_strided_slice,
    "SUB": read_sum,
    "TRANSPOSE": read_transpose,
    **dict.fromkeys(FUNCTIONS, _function_of_one),
    "GELU": _gelu,
}
"""For each operation that is read, what makes its layers."""
