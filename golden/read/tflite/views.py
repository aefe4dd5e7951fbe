"""Operations of TFLite that move values: they change a view, and padding is left to its readers.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.builder.NodeError`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Convolution
from thresher.golden.read.gathering import NOWHERE
from thresher.golden.read.tflite.builder import Builder, NodeError
from thresher.golden.read.tflite.file import Node, Tensor
from thresher.golden.read.tflite.nodes import (
    AGAIN,
    check_shape,
    codebook,
    inputs_of,
    options_of,
    same_quantisation,
    same_scale,
    stored_limits,
)

__all__ = [
    "read_pad",
    "read_reshape",
    "read_slice",
    "read_split",
    "read_strided_slice",
    "read_transpose",
]

Int64Array = npt.NDArray[np.int64]


def read_reshape(builder: Builder, node: Node) -> None:
    """Read RESHAPE, SQUEEZE and EXPAND_DIMS: another shape of the same values."""
    source, target = _views_pair(builder, node)
    view = builder.view(source.number)
    if view.places.size != math.prod(target.shape):
        raise NodeError(f"it makes shape {target.shape} of {source.shape}", AGAIN)
    builder.views[target.number] = replace(view, places=view.places.reshape(target.shape[1:]))


def read_transpose(builder: Builder, node: Node) -> None:
    """Read TRANSPOSE: the same values in another order."""
    source, target = same_scale(builder, node)
    order = [int(axis) for axis in builder.constant(inputs_of(node, 2)[1], "order").ravel()]
    if sorted(order) != list(range(len(source.shape))) or order[0] != 0:
        raise NodeError(f"it orders the dimensions as {order}", "leave the batch first")
    view = builder.view(source.number)
    places = view.places.transpose([axis - 1 for axis in order[1:]])
    check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def read_pad(builder: Builder, node: Node) -> None:
    """Read PAD and PADV2: zeros around a map, which the node behind adds if it can."""
    source, target = same_scale(builder, node)
    amounts = builder.constant(node.inputs[1], "padding")
    if (
        amounts.shape != (len(source.shape), 2)
        or not np.issubdtype(amounts.dtype, np.integer)
        or amounts.min() < 0
        or amounts[0].any()
    ):
        raise NodeError(f"its padding is {amounts.tolist()}", AGAIN)
    wanted = tuple(np.add(source.shape, amounts.sum(axis=1)).tolist())
    if target.shape != wanted:
        raise NodeError(f"its output has shape {target.shape}, and it makes {wanted}", AGAIN)
    if len(node.inputs) > 2 and node.inputs[2] >= 0:
        value = int(builder.constant(node.inputs[2], "value").ravel()[0])
        if value != source.zero_point:
            raise NodeError(
                f"it pads with {value}, and zero is {source.zero_point}", "pad with zeros"
            )
    if len(source.shape) != 4:
        raise NodeError(f"its padding is {amounts.tolist()}", "pad a map of four dimensions")
    view = builder.map(builder.view(source.number))
    if amounts[3].any():
        places = np.pad(view.places, amounts[1:].tolist(), constant_values=NOWHERE)
        made = builder.part(view, places, f"pad{node.number}", target)
        if made is None:
            raise NodeError(f"its padding is {amounts.tolist()}", "pad less")
        check_shape(made.places, target)
        builder.views[target.number] = made
        return
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in amounts[1:3])
    builder.padded[target.number] = view, (top, left, bottom, right)
    # For readers that cannot pad themselves: each channel through a kernel of one weight.
    channels = view.shape[0]
    kernel = np.zeros((channels, 1, top + bottom + 1, left + right + 1), np.int64)
    kernel[:, :, bottom, right] = 1
    limits = np.array(stored_limits(target))
    layer = Convolution(
        name=builder.unique(f"pad{node.number}"),
        inputs=(view.layer,),
        **codebook(kernel),
        bias=np.zeros(channels, np.int64),
        scale=np.ones(channels, np.int64),
        shift=np.zeros(channels, np.int64),
        clip=(int(limits[0]), int(limits[1])),
        padding=(top + bottom, left + right) * 2,
        groups=channels,
    )
    builder.views[target.number] = builder.add(layer, target)


def read_split(builder: Builder, node: Node) -> None:
    """Read SPLIT and SPLIT_V: parts of the values."""
    axis_number, number = inputs_of(node, 2)[:2]
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
        if not same_quantisation(source, target):
            raise NodeError("its outputs have another scale than its input", AGAIN)
        end = begin + target.shape[axis]
        places = np.moveaxis(np.moveaxis(view.places, axis - 1, 0)[begin:end], 0, axis - 1)
        check_shape(places, target)
        builder.views[output] = replace(view, places=places)
        begin = end
    if begin != source.shape[axis]:
        raise NodeError("its outputs are not all of its input", AGAIN)


def read_strided_slice(builder: Builder, node: Node) -> None:
    """Read STRIDED_SLICE: some of the values."""
    source, target = same_scale(builder, node)
    begins, ends, steps = (
        builder.constant(number, "place").ravel() for number in inputs_of(node, 4)[1:4]
    )
    options = options_of(node)
    if any(options[key] for key in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset")):
        raise NodeError("it makes or drops dimensions", "slice channels by begin, end and step")
    if len(begins) != len(source.shape) or 0 in steps:
        raise NodeError("its places do not fit its input", AGAIN)
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
    check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def read_slice(builder: Builder, node: Node) -> None:
    """Read SLICE: some of the values."""
    source, target = same_scale(builder, node)
    begins, sizes = (
        builder.constant(number, "place").ravel() for number in inputs_of(node, 3)[1:3]
    )
    if len(begins) != len(source.shape) or len(sizes) != len(source.shape):
        raise NodeError("its places do not fit its input", AGAIN)
    slices = [
        slice(int(begin), None if size == -1 else int(begin + size))
        for begin, size in zip(begins, sizes, strict=True)
    ]
    view = builder.view(source.number)
    places = view.places[None][tuple(slices)][0]
    check_shape(places, target)
    builder.views[target.number] = replace(view, places=places)


def _views_pair(builder: Builder, node: Node) -> tuple[Tensor, Tensor]:
    """Return input and output of a view; after the end of the network they may be float."""
    number = inputs_of(node, 1)[0]
    source, target = builder.tensor(number), builder.tensor(node.outputs[0])
    if source.dtype == target.dtype == "FLOAT32" and number in builder.views:
        return source, target
    return same_scale(builder, node)
