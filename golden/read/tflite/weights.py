"""Operations of TFLite with weights: convolutions and fully connected layers.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.builder.NodeError`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network import Convolution, Linear
from thresher.golden.read.tflite.arithmetic import quantize_multiplier, rescaled
from thresher.golden.read.tflite.builder import INT8, Builder, NodeError
from thresher.golden.read.tflite.file import Node, Tensor
from thresher.golden.read.tflite.nodes import (
    AGAIN,
    check_shape,
    codebook,
    inputs_of,
    limits_of,
    options_of,
    window_of,
    with_padding,
)

__all__ = ["read_convolution", "read_fully_connected", "read_product", "read_space_to_batch"]

Int64Array = npt.NDArray[np.int64]

_VALID = 1
_SHORT = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "dw", "FULLY_CONNECTED": "fc"}


def read_convolution(builder: Builder, node: Node) -> None:
    """Read CONV_2D, also grouped, and DEPTHWISE_CONV_2D."""
    source, weights, target = _operands(builder, node)
    if len(weights.shape) != 4:
        raise NodeError(f"its weights have shape {weights.shape}", AGAIN)
    options = options_of(node)
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
            f"its weights of shape {weights.shape} do not fit {channels} input channels", AGAIN
        )
    window = window_of(options, values.shape[2:], view.shape[1:], options["Padding"])
    scale, shift = _multipliers(source, weights, target, out, node)
    view, window = with_padding(builder, source, view, window)
    layer = Convolution(
        name=builder.unique(f"{_SHORT[node.op]}{node.number}"),
        inputs=(view.layer,),
        **codebook(values),
        bias=_bias(builder, node, out),
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=limits_of(node, target),
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=groups,
    )
    builder.views[target.number] = builder.add(layer, target)


def read_fully_connected(builder: Builder, node: Node) -> None:
    """Read FULLY_CONNECTED; at several places of a map it is a 1x1 convolution."""
    source, weights, target = _operands(builder, node)
    options = options_of(node)
    if options.get("WeightsFormat", 0) != 0:
        raise NodeError("its weights are shuffled", "convert without shuffled weights")
    if len(weights.shape) != 2:
        raise NodeError(f"its weights have shape {weights.shape}", AGAIN)
    values = _weight_values(builder, source, weights, channel_axis=0)
    view = builder.view(source.number)
    out, inputs = values.shape
    if view.places.size % inputs:
        raise NodeError(f"it takes {inputs} values, and its input has {view.places.size}", AGAIN)
    scale, shift = _multipliers(source, weights, target, out, node)
    shared: dict[str, Any] = {
        "name": builder.unique(f"{_SHORT[node.op]}{node.number}"),
        "bias": _bias(builder, node, out),
        "scale": scale,
        "shift": shift,
        "rounding": Rounding.HALF_UP,  # this kernel rounds once, unlike the others
        "clip": limits_of(node, target),
    }
    if view.places.size == inputs:
        size = math.prod(view.shape)
        placed = np.zeros((out, size), np.int64)
        placed[:, view.places.ravel()] = values
        layer: Linear | Convolution = Linear(inputs=(view.layer,), **codebook(placed), **shared)
    else:  # the same weights at each place of a map
        view = builder.map(view)
        if view.shape[0] != inputs:
            raise NodeError(
                f"it takes {inputs} values, and its input has shape {source.shape}",
                "give it a whole input, or its channels at each place",
            )
        layer = Convolution(inputs=(view.layer,), **codebook(values[:, :, None, None]), **shared)
    builder.views[target.number] = builder.add(layer, target)


def read_product(builder: Builder, node: Node) -> None:
    """Read MUL by a constant: of one, a lookup; of one a channel, a depthwise convolution."""
    numbers = inputs_of(node, 2)[:2]
    constants = [number for number in numbers if builder.tensor(number).data is not None]
    if len(constants) != 1:
        raise NodeError("both its inputs are constants", "fold it at conversion")
    factor = builder.tensor(constants[0])
    source = builder.activation(numbers[numbers[0] == constants[0]])
    target = builder.activation(node.outputs[0])
    if not source.dtype == factor.dtype == target.dtype:
        raise NodeError(f"its inputs are {source.dtype} and {factor.dtype}", INT8)
    if factor.scales.size != 1 or not factor.scales[0] > 0:
        raise NodeError(f"its constant {factor.name!r} has no scale, or several", INT8)
    data = builder.constant(factor.number, "factor")
    multiplier = float(source.scale * factor.scale / target.scale)
    if data.size == 1:
        view = builder.view(source.number)
        low, high = view.values
        products = np.arange(low, high + 1) * (int(data.flat[0]) - factor.zero_point)
        table = np.clip(rescaled(products, multiplier), *limits_of(node, target))
        made = builder.lookup(view, builder.unique(f"mul{node.number}"), target, table)
        check_shape(made.places, target)
        builder.views[target.number] = made
        return
    view = builder.map(builder.view(source.number))
    channels = view.shape[0]
    if data.size != channels or data.shape[-1] != channels:
        raise NodeError(
            f"its constant {factor.name!r} has shape {data.shape} beside {source.shape}",
            "multiply by one number, or by one a channel",
        )
    values = np.broadcast_to(data.ravel().astype(np.int64) - factor.zero_point, channels)
    scale, shift = quantize_multiplier(multiplier)
    layer = Convolution(
        name=builder.unique(f"mul{node.number}"),
        inputs=(view.layer,),
        **codebook(values.reshape(channels, 1, 1, 1)),
        bias=np.zeros(channels, np.int64),
        scale=np.full(channels, scale),
        shift=np.full(channels, shift),
        rounding=Rounding.DOUBLE,
        clip=limits_of(node, target),
        groups=channels,
    )
    builder.views[target.number] = builder.add(layer, target)


def read_space_to_batch(builder: Builder, node: Node) -> None:
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
        read_convolution(builder, joined)
    finally:
        del builder.padded[source.number]


def _operands(builder: Builder, node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors of input, weights and output of a node with weights."""
    source = builder.activation(inputs_of(node, 2)[0])
    target = builder.activation(node.outputs[0])
    weights = builder.tensor(node.inputs[1])
    if source.dtype != target.dtype:
        raise NodeError(f"its input is {source.dtype} and its output {target.dtype}", INT8)
    return source, weights, target


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


def _bias(builder: Builder, node: Node, out: int) -> Int64Array:
    if len(node.inputs) < 3 or node.inputs[2] < 0:
        return np.zeros(out, np.int64)
    bias = builder.tensor(node.inputs[2])
    if bias.dtype != "INT32":
        raise NodeError(f"its bias {bias.name!r} is {bias.dtype}", "quantise it to int32")
    values = builder.constant(bias.number, "bias").ravel()
    if values.size != out:
        raise NodeError(f"its bias has {values.size} values for {out} channels", AGAIN)
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
