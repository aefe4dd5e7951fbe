"""What each operation of TFLite is in layers.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.NodeError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.descriptors import Rounding
from thresher.golden.network import (
    Add,
    AveragePool,
    Concat,
    Convolution,
    Linear,
    MaxPool,
    Range,
)
from thresher.golden.read.tflite import INT8, Builder, NodeError, View
from thresher.golden.read.tflite_arithmetic import (
    FUNCTIONS,
    LIMITS,
    activation_limits,
    mean_multiplier,
    quantize_multiplier,
    reciprocal,
    table,
)
from thresher.golden.read.tflite_file import Node, Tensor

__all__ = ["BUILDERS"]

Int64Array = npt.NDArray[np.int64]
Padding = tuple[int, int, int, int]

_SAME, _VALID = 0, 1
_SHORT = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "dw", "FULLY_CONNECTED": "fc"}
_AGAIN = "convert it again"


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Where the windows of a convolution or pooling lie, each pair as (y, x)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)


def _convolution(builder: Builder, node: Node) -> None:
    source, weights, target = _operands(builder, node)
    if len(weights.shape) != 4:
        raise NodeError(f"its weights have shape {weights.shape}", _AGAIN)
    options = _options(node)
    depthwise = node.op == "DEPTHWISE_CONV_2D"
    values = _weight_values(builder, source, weights, channel_axis=3 if depthwise else 0)
    view = builder.map(builder.view(source.number))
    channels = view.shape[0]
    if depthwise:
        # (1, rows, columns, out): output channel k belongs to input channel k // multiplier.
        values = values.transpose(3, 0, 1, 2)
        groups = channels
    else:
        values = values.transpose(0, 3, 1, 2)
        groups = channels // values.shape[1] if channels % values.shape[1] == 0 else 0
    out = values.shape[0]
    if groups == 0 or values.shape[1] * groups != channels or out % groups:
        raise NodeError(
            f"its weights of shape {weights.shape} do not fit {channels} input channels", _AGAIN
        )
    window = _window(options, values.shape[2:], view.shape[1:], options["Padding"])
    scale, shift = _multipliers(source, weights, target, out, node)
    view, window = _with_padding(builder, source, view, window)
    layer = Convolution(
        name=builder.name(f"{_SHORT[node.op]}{node.number}"),
        inputs=(view.layer,),
        **_codebook(values),
        bias=_bias(builder, node, out),
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=_clip(node, target),
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=groups,
    )
    builder.views[target.number] = builder.add(layer, target)


def _fully_connected(builder: Builder, node: Node) -> None:
    source, weights, target = _operands(builder, node)
    options = _options(node)
    if options.get("WeightsFormat", 0) != 0:
        raise NodeError("its weights are shuffled", "convert without shuffled weights")
    if len(weights.shape) != 2:
        raise NodeError(f"its weights have shape {weights.shape}", _AGAIN)
    values = _weight_values(builder, source, weights, channel_axis=0)
    view = builder.view(source.number)
    out, inputs = values.shape
    if view.places.size % inputs:
        raise NodeError(f"it takes {inputs} values, and its input has {view.places.size}", _AGAIN)
    scale, shift = _multipliers(source, weights, target, out, node)
    shared: dict[str, Any] = {
        "name": builder.name(f"{_SHORT[node.op]}{node.number}"),
        "bias": _bias(builder, node, out),
        "scale": scale,
        "shift": shift,
        "rounding": Rounding.HALF_UP,  # this kernel rounds once, unlike the others
        "clip": _clip(node, target),
    }
    if view.places.size == inputs:
        size = math.prod(view.shape)
        placed = np.zeros((out, size), np.int64)
        placed[:, view.places.ravel()] = values
        layer: Linear | Convolution = Linear(inputs=(view.layer,), **_codebook(placed), **shared)
    else:  # the same weights at each place of a map
        view = builder.map(view)
        if view.shape[0] != inputs:
            raise NodeError(
                f"it takes {inputs} values, and its input has shape {source.shape}",
                "give it a whole input, or its channels at each place",
            )
        layer = Convolution(inputs=(view.layer,), **_codebook(values[:, :, None, None]), **shared)
    builder.views[target.number] = builder.add(layer, target)


def _add(builder: Builder, node: Node) -> None:
    first, second = (builder.activation(number) for number in _inputs(node, 2))
    target = builder.activation(node.outputs[0])
    for source in (first, second):
        if builder.tensor(source.number).data is not None:
            raise NodeError(
                f"its input {source.name!r} is a constant", "fold it into the bias before it"
            )
    if first.shape != second.shape:
        raise NodeError(
            f"its inputs have shapes {first.shape} and {second.shape}", "give both one shape"
        )
    if first.scale < second.scale:
        first, second = second, first
    one, other = builder.view(first.number), builder.view(second.number)
    if not (one.shape == other.shape and np.array_equal(one.places, other.places)):
        one, other = (builder.contiguous(view, f"add{node.number}") for view in (one, other))
        if one.shape != other.shape or not np.array_equal(one.places, other.places):
            raise NodeError("its inputs are maps in different orders", "give both one order")
    twice = 2.0 * float(first.scale)
    total = twice / (float(1 << ADD_HEADROOM) * float(target.scale))
    if total >= 1:
        raise NodeError("its output's scale is less than 2^-19 of its inputs'", "quantise it again")
    operand_scale, operand_shift = quantize_multiplier(float(second.scale) / twice)
    scale, shift = quantize_multiplier(total)
    layer = Add(
        name=builder.name(f"add{node.number}"),
        inputs=(one.layer, other.layer),
        operand_scale=operand_scale,
        operand_shift=operand_shift,
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=_clip(node, target),
    )
    in_order = builder.is_in_order(one)
    made = builder.add(layer, target if in_order else None)
    builder.views[target.number] = replace(made, places=one.places.reshape(target.shape[1:]))


def _concatenation(builder: Builder, node: Node) -> None:
    target = builder.activation(node.outputs[0])
    if _options(node).get("FusedActivationFunction", 0):
        raise NodeError("it has an activation function", "use one of its own behind it")
    axis = _options(node)["Axis"]
    axis += len(target.shape) if axis < 0 else 0
    if not 1 <= axis < len(target.shape):
        raise NodeError(f"it joins along dimension {axis}", "join channels")
    views = []
    for place, number in enumerate(node.inputs):
        source = builder.activation(number)
        view = builder.view(number)
        if len(source.shape) != len(target.shape):
            raise NodeError(f"its inputs have shapes like {source.shape}", _AGAIN)
        if not _same_quantisation(source, target):
            if source.dtype != "UINT8":
                raise NodeError(
                    f"its input {source.name!r} has another scale or zero point than its output,"
                    " which TFLite takes for uint8 only",
                    "quantise its inputs with one scale",
                )
            name = builder.name(f"concat{node.number}_{place}")
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
        name=builder.name(f"concat{node.number}"), inputs=tuple(view.layer for view in views)
    )
    made = builder.add(layer)
    offsets = np.cumsum([0, *(math.prod(view.shape) for view in views)])[:-1]
    places = np.concatenate(
        [view.places + offset for view, offset in zip(views, offsets, strict=True)], axis=axis - 1
    )
    _check_shape(places, target)
    made = replace(made, places=places)
    if builder.is_in_order(made):
        builder.tensors[layer.name] = target
    builder.views[target.number] = made


def _pool(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    options = _options(node)
    view = builder.map(builder.view(source.number))
    kernel = options["FilterHeight"], options["FilterWidth"]
    window = _window(options, kernel, view.shape[1:], options["Padding"])
    limits = _limits(node, target)
    if node.op == "AVERAGE_POOL_2D":
        layer = _average(builder, node, view, window, limits)
        builder.views[target.number] = builder.add(layer, target)
        return
    if view.values[0] >= 0:  # then a padded zero is never more than what is there
        view, window = _with_padding(builder, source, view, window)
    name = builder.name(f"maxpool{node.number}")
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
    builder: Builder, node: Node, view: View, window: _Window, limits: Range
) -> AveragePool:
    source = builder.tensor(node.inputs[0])
    if any(window.padding):
        raise NodeError(
            "its windows reach over the edge of the map, where TFLite divides by the number of"
            " places inside",
            "use VALID padding, or windows that fit the map",
        )
    count = window.kernel[0] * window.kernel[1]
    greatest = count * max(abs(limit) for limit in LIMITS[source.dtype])
    divisor = reciprocal(count, greatest)
    if divisor is None:
        raise NodeError(f"its windows have {count} places", "use windows of fewer places")
    return AveragePool(
        name=builder.name(f"avgpool{node.number}"),
        inputs=(view.layer,),
        kernel=window.kernel,
        stride=window.stride,
        scale=divisor[0],
        shift=divisor[1],
        rounding=Rounding.HALF_AWAY,
        origin=source.zero_point,
        clip=limits,
    )


def _mean(builder: Builder, node: Node) -> None:
    source = builder.activation(_inputs(node, 2)[0])
    target = builder.activation(node.outputs[0])
    view = _over_the_map(builder, node, source)
    count = view.shape[1] * view.shape[2]
    scale, shift = mean_multiplier(float(source.scale) / float(target.scale), count)
    layer = AveragePool(
        name=builder.name(f"mean{node.number}"),
        inputs=(view.layer,),
        kernel=view.shape[1:],
        stride=(1, 1),
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=_stored_limits(target),
    )
    builder.views[target.number] = builder.add(layer, target)


def _reduce_max(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    view = _over_the_map(builder, node, source)
    name = builder.name(f"maxpool{node.number}")
    layer = MaxPool(name=name, inputs=(view.layer,), kernel=view.shape[1:], stride=(1, 1))
    builder.views[target.number] = builder.add(layer, target)


def _over_the_map(builder: Builder, node: Node, source: Tensor) -> View:
    """Return the whole map that a node reduces to one place."""
    axes = builder.constant(node.inputs[1], "list of dimensions").ravel()
    rank = len(source.shape)
    reduced = sorted({int(axis) + (rank if axis < 0 else 0) for axis in axes})
    if rank not in {3, 4} or reduced != list(range(1, rank - 1)):
        raise NodeError(
            f"it reduces dimensions {reduced} of shape {source.shape}",
            "reduce rows and columns, all of them",
        )
    return builder.map(builder.view(source.number))


def _function_of_one(builder: Builder, node: Node) -> None:
    source = builder.activation(_inputs(node, 1)[0])
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
    name = builder.name(f"{node.op.lower()}{node.number}")
    view = builder.view(source.number)
    made = builder.lookup(view, name, target, _table(node, view, source, target))
    _check_shape(made.places, target)
    builder.views[target.number] = made


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
    number = _inputs(node, 1)[0]
    if builder.tensor(number).dtype == "FLOAT32":
        raise NodeError(
            "float values are quantised in the middle of the network", f"{INT8}, in all layers"
        )
    source, target = builder.activation(number), builder.activation(node.outputs[0])
    view = builder.view(number)
    name = builder.name(f"quantize{node.number}")
    made = builder.lookup(view, name, target, _table(node, view, source, target))
    _check_shape(made.places, target)
    builder.views[target.number] = made


def _dequantize(builder: Builder, node: Node) -> None:
    source = builder.activation(_inputs(node, 1)[0])
    view = builder.view(source.number)
    _check_end(builder, node)
    builder.views[node.outputs[0]] = view


def _softmax(builder: Builder, node: Node) -> None:
    number = _inputs(node, 1)[0]
    if builder.tensor(number).dtype != "FLOAT32":
        builder.activation(number)
    view = builder.view(number)
    if _options(node).get("Beta", 1.0) != 1.0:
        raise NodeError(f"its beta is {_options(node)['Beta']}", "use a softmax with beta 1")
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


def _reshape(builder: Builder, node: Node) -> None:
    source, target = _views_pair(builder, node)
    view = builder.view(source.number)
    if view.places.size != math.prod(target.shape):
        raise NodeError(f"it makes shape {target.shape} of {source.shape}", _AGAIN)
    builder.views[target.number] = replace(view, places=view.places.reshape(target.shape[1:]))


def _transpose(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    order = [int(axis) for axis in builder.constant(_inputs(node, 2)[1], "order").ravel()]
    if sorted(order) != list(range(len(source.shape))) or order[0] != 0:
        raise NodeError(f"it orders the dimensions as {order}", "leave the batch first")
    view = builder.view(source.number)
    places = view.places.transpose([axis - 1 for axis in order[1:]])
    _check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def _pad(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    amounts = builder.constant(node.inputs[1], "padding")
    if amounts.shape != (len(source.shape), 2) or amounts.min() < 0 or amounts[0].any():
        raise NodeError(f"its padding is {amounts.tolist()}", _AGAIN)
    if len(node.inputs) > 2 and node.inputs[2] >= 0:
        value = int(builder.constant(node.inputs[2], "value").ravel()[0])
        if value != source.zero_point:
            raise NodeError(
                f"it pads with {value}, and zero is {source.zero_point}", "pad with zeros"
            )
    if len(source.shape) != 4 or amounts[3].any():
        raise NodeError(f"its padding is {amounts.tolist()}", "pad rows and columns only")
    view = builder.map(builder.view(source.number))
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in amounts[1:3])
    builder.padded[target.number] = view, (top, left, bottom, right)
    # For readers that cannot pad themselves: each channel through a kernel of one weight.
    channels = view.shape[0]
    kernel = np.zeros((channels, 1, top + bottom + 1, left + right + 1), np.int64)
    kernel[:, :, bottom, right] = 1
    limits = np.array(_stored_limits(target))
    layer = Convolution(
        name=builder.name(f"pad{node.number}"),
        inputs=(view.layer,),
        **_codebook(kernel),
        bias=np.zeros(channels, np.int64),
        scale=np.ones(channels, np.int64),
        shift=np.zeros(channels, np.int64),
        clip=(int(limits[0]), int(limits[1])),
        padding=(top + bottom, left + right) * 2,
        groups=channels,
    )
    builder.views[target.number] = builder.add(layer, target)


def _split(builder: Builder, node: Node) -> None:
    axis_number, number = _inputs(node, 2)[:2]
    if node.op == "SPLIT_V":
        number, axis_number = node.inputs[0], node.inputs[2]
    source = builder.activation(number)
    axis = int(builder.constant(axis_number, "dimension").ravel()[0])
    axis += len(source.shape) if axis < 0 else 0
    if not 1 <= axis < len(source.shape):
        raise NodeError(f"it splits dimension {axis}", "split the channels")
    view = builder.view(number)
    begin = 0
    for output in node.outputs:
        target = builder.activation(output)
        if not _same_quantisation(source, target):
            raise NodeError("its outputs have another scale than its input", _AGAIN)
        end = begin + target.shape[axis]
        places = np.moveaxis(np.moveaxis(view.places, axis - 1, 0)[begin:end], 0, axis - 1)
        _check_shape(places, target)
        builder.views[output] = replace(view, places=places)
        begin = end
    if begin != source.shape[axis]:
        raise NodeError("its outputs are not all of its input", _AGAIN)


def _strided_slice(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    begins, ends, steps = (
        builder.constant(number, "place").ravel() for number in _inputs(node, 4)[1:4]
    )
    options = _options(node)
    if any(options[key] for key in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset")):
        raise NodeError("it makes or drops dimensions", "slice channels by begin, end and step")
    if len(begins) != len(source.shape) or 0 in steps:
        raise NodeError("its places do not fit its input", _AGAIN)
    slices = [
        slice(
            None if options["BeginMask"] >> axis & 1 else int(begin),
            None if options["EndMask"] >> axis & 1 else int(end),
            int(step),
        )
        for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True))
    ]
    view = builder.view(source.number)
    places = view.places[None][tuple(slices)][0]
    _check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def _slice(builder: Builder, node: Node) -> None:
    source, target = _same_scale(builder, node)
    begins, sizes = (builder.constant(number, "place").ravel() for number in _inputs(node, 3)[1:3])
    if len(begins) != len(source.shape) or len(sizes) != len(source.shape):
        raise NodeError("its places do not fit its input", _AGAIN)
    slices = [
        slice(int(begin), None if size == -1 else int(begin + size))
        for begin, size in zip(begins, sizes, strict=True)
    ]
    view = builder.view(source.number)
    places = view.places[None][tuple(slices)][0]
    _check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def _space_to_batch(builder: Builder, node: Node) -> None:
    """Read a dilated convolution: rows and columns dealt out to a batch, and gathered again."""
    instead = "use a convolution with a dilation"
    chain = [node]
    for ops in ({"CONV_2D", "DEPTHWISE_CONV_2D"}, {"BATCH_TO_SPACE_ND"}):
        readers = builder.graph.readers(chain[-1].outputs[0])
        if len(readers) != 1 or readers[0].op not in ops:
            raise NodeError("no convolution of its own and BATCH_TO_SPACE_ND follow", instead)
        chain.append(readers[0])
    _, convolution, gather = chain
    builder.done |= {convolution.number, gather.number}
    source = builder.activation(node.inputs[0])
    target = builder.activation(gather.outputs[0])
    block = builder.constant(node.inputs[1], "block").ravel()
    paddings = builder.constant(node.inputs[2], "padding")
    crops = builder.constant(gather.inputs[2], "crops")
    options = convolution.options
    stride = options.get("StrideH"), options.get("StrideW")
    same_block = np.array_equal(block, builder.constant(gather.inputs[1], "block").ravel())
    if block.size != 2 or paddings.shape != (2, 2) or crops.shape != (2, 2) or not same_block:
        raise NodeError("its block or padding is not of rows and columns", instead)
    if stride != (1, 1) or options.get("Padding") != _VALID:
        raise NodeError("the convolution between has a stride or a padding", instead)
    (top, bottom), (left, right) = (paddings - crops).tolist()
    if min(top, bottom, left, right) < 0:
        raise NodeError("it crops more than it pads", instead)
    view = builder.map(builder.view(source.number))
    builder.padded[source.number] = view, (top, left, bottom, right)
    joined = replace(
        convolution,
        inputs=(source.number, *convolution.inputs[1:]),
        outputs=(target.number,),
        options={**options, "DilationHFactor": int(block[0]), "DilationWFactor": int(block[1])},
    )
    try:
        _convolution(builder, joined)
    finally:
        del builder.padded[source.number]


def _operands(builder: Builder, node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors of input, weights and output of a node with weights."""
    source = builder.activation(_inputs(node, 2)[0])
    target = builder.activation(node.outputs[0])
    weights = builder.tensor(node.inputs[1])
    if source.dtype != target.dtype:
        raise NodeError(f"its input is {source.dtype} and its output {target.dtype}", INT8)
    return source, weights, target


def _inputs(node: Node, least: int) -> tuple[int, ...]:
    if len(node.inputs) < least or -1 in node.inputs[:least] or not node.outputs:
        raise NodeError(f"it has {len(node.inputs)} inputs, not {least}", _AGAIN)
    return node.inputs if least > 1 else node.inputs[:1]


def _options(node: Node) -> dict[str, Any]:
    if not node.options and node.op not in {"ADD", "CONCATENATION", "SOFTMAX", *FUNCTIONS}:
        raise NodeError("it has no options", _AGAIN)
    return {"Axis": 0, **node.options}


def _weight_values(
    builder: Builder, source: Tensor, weights: Tensor, channel_axis: int
) -> Int64Array:
    """Return a node's integer weights, zero point removed."""
    what = f"its weights {weights.name!r}"
    if weights.dtype != source.dtype:
        raise NodeError(f"{what} are {weights.dtype} beside {source.dtype} activations", INT8)
    if weights.data is None:
        raise NodeError(f"{what} are no constant", "convert with constant weights")
    if weights.scales.size == 0 or not (weights.scales > 0).all():
        raise NodeError(f"{what} have no scale", INT8)
    if weights.scales.size > 1:
        if weights.dtype == "UINT8":
            raise NodeError(f"{what} have a scale a channel", "use int8 for scales a channel")
        if weights.axis != channel_axis or weights.scales.size != weights.shape[channel_axis]:
            raise NodeError(
                f"{what} have {weights.scales.size} scales along dimension {weights.axis}",
                f"give one, or one an output channel (dimension {channel_axis})",
            )
    if weights.dtype == "INT8" and weights.zero_points.any():
        raise NodeError(f"{what} have a zero point that is not 0", "quantise weights symmetrically")
    return weights.data.astype(np.int64) - int(weights.zero_points[0])


def _codebook(values: Int64Array) -> dict[str, Any]:
    codebook, indices = np.unique(values, return_inverse=True)
    return {"codebook": codebook, "weights": indices.reshape(values.shape).astype(np.uint8)}


def _bias(builder: Builder, node: Node, out: int) -> Int64Array:
    if len(node.inputs) < 3 or node.inputs[2] < 0:
        return np.zeros(out, np.int64)
    bias = builder.tensor(node.inputs[2])
    if bias.dtype != "INT32":
        raise NodeError(f"its bias {bias.name!r} is {bias.dtype}", "quantise it to int32")
    values = builder.constant(bias.number, "bias").ravel()
    if values.size != out:
        raise NodeError(f"its bias has {values.size} values for {out} channels", _AGAIN)
    return values.astype(np.int64)


def _multipliers(
    source: Tensor, weights: Tensor, target: Tensor, out: int, node: Node
) -> tuple[Int64Array, Int64Array]:
    """Return multiplier and shift of each output channel, as the kernels prepare them."""
    if weights.scales.size == 1 and (source.dtype == "UINT8" or node.op == "FULLY_CONNECTED"):
        factors = [float(source.scale * weights.scale) / float(target.scale)]
    else:
        factors = [
            float(source.scale) * float(scale) / float(target.scale) for scale in weights.scales
        ]
    pairs = [quantize_multiplier(factor) for factor in factors]
    scale, shift = np.array(pairs * (out if len(pairs) == 1 else 1), np.int64).T
    return scale, shift


def _limits(node: Node, target: Tensor) -> Range:
    """Return least and greatest output after a node's fused activation, zero point removed."""
    fused = node.options.get("FusedActivationFunction", 0)
    try:
        low, high = activation_limits(fused, target.dtype, target.scale, target.zero_point)
    except KeyError:
        raise NodeError(
            f"its fused activation function {fused} is not read", "use a layer of its own for it"
        ) from None
    return low - target.zero_point, high - target.zero_point


_clip = _limits


def _stored_limits(target: Tensor) -> Range:
    low, high = LIMITS[target.dtype]
    return low - target.zero_point, high - target.zero_point


def _window(
    options: dict[str, Any],
    kernel: tuple[int, ...],
    size: tuple[int, int],
    padding: int,
) -> _Window:
    """Return where the windows lie (TFLite, ``ComputePaddingHeightWidth``)."""
    stride = options["StrideH"], options["StrideW"]
    dilation = options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)
    if min(*stride, *dilation, *kernel) < 1:
        raise NodeError(f"kernel, stride and dilation are {kernel}, {stride}, {dilation}", _AGAIN)
    before, after = [], []
    for axis in range(2):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        steps = -(-size[axis] // stride[axis])
        total = max((steps - 1) * stride[axis] + extent - size[axis], 0) if padding == _SAME else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return _Window(
        kernel=(kernel[0], kernel[1]),
        stride=stride,
        dilation=dilation,
        padding=(before[0], before[1], after[0], after[1]),
    )


def _with_padding(
    builder: Builder, source: Tensor, view: View, window: _Window
) -> tuple[View, _Window]:
    """Return view and window with the padding of a node before folded in, if it fits."""
    if source.number not in builder.padded or any(window.padding):
        return view, window
    unpadded, padding = builder.padded[source.number]
    extent = [
        (size - 1) * dilation + 1
        for size, dilation in zip(window.kernel, window.dilation, strict=True)
    ]
    if any(amount >= size for amount, size in zip(padding, extent * 2, strict=True)):
        return view, window
    return unpadded, replace(window, padding=padding)


def _same_scale(builder: Builder, node: Node) -> tuple[Tensor, Tensor]:
    """Return input and output of a node that keeps scale and zero point."""
    source = builder.activation(_inputs(node, 1)[0])
    target = builder.activation(node.outputs[0])
    if not _same_quantisation(source, target):
        raise NodeError(
            "its output has another scale or zero point than its input", "quantise both alike"
        )
    return source, target


def _views_pair(builder: Builder, node: Node) -> tuple[Tensor, Tensor]:
    """Return input and output of a view; after the end of the network they may be float."""
    number = _inputs(node, 1)[0]
    source, target = builder.tensor(number), builder.tensor(node.outputs[0])
    if source.dtype == target.dtype == "FLOAT32" and number in builder.views:
        return source, target
    return _same_scale(builder, node)


def _same_quantisation(source: Tensor, target: Tensor) -> bool:
    return (
        source.dtype == target.dtype
        and source.scale == target.scale
        and source.zero_point == target.zero_point
    )


def _check_shape(places: Int64Array, target: Tensor) -> None:
    if places.shape != target.shape[1:]:
        raise NodeError(
            f"its output has shape {target.shape}, and it makes {(1, *places.shape)}", _AGAIN
        )


BUILDERS: dict[str, Callable[[Builder, Node], None]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEQUANTIZE": _dequantize,
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _quantize,
    "REDUCE_MAX": _reduce_max,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    **dict.fromkeys(FUNCTIONS, _function_of_one),
}
"""For each operation that is read, what makes its layers."""
