"""TFLite's ADD and SUB, of two maps or with constants, and PRELU, which is a sum of two maps.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.builder.NodeError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import ADD_HEADROOM, add
from thresher.golden.descriptors import Rounding
from thresher.golden.network import Add, Convolution, Range
from thresher.golden.read.tflite.arithmetic import quantize_multiplier, rescaled
from thresher.golden.read.tflite.builder import INT8, Builder, NodeError, View
from thresher.golden.read.tflite.file import Node, Tensor
from thresher.golden.read.tflite.nodes import (
    check_shape,
    codebook,
    inputs_of,
    limits_of,
    stored_limits,
)
from thresher.golden.requantise import requantise

__all__ = ["read_prelu", "read_sum"]

Int64Array = npt.NDArray[np.int64]

_SHIFT = ADD_HEADROOM  # to the left, of the operands before they are scaled


def read_sum(builder: Builder, node: Node) -> None:
    """Read ADD and SUB: of a negated map, where it is subtracted."""
    numbers = inputs_of(node, 2)[:2]
    constants = [number for number in numbers if builder.tensor(number).data is not None]
    if len(constants) == 2:
        raise NodeError("both its inputs are constants", "fold it at conversion")
    if constants:
        _read_with_constant(builder, node, *numbers)
        return
    first, second = (builder.activation(number) for number in numbers)
    target = builder.activation(node.outputs[0])
    if first.shape != second.shape:
        raise NodeError(
            f"its inputs have shapes {first.shape} and {second.shape}", "give both one shape"
        )
    other = builder.view(second.number)
    if node.op == "SUB":
        other = _negated(builder, node, other)
    made = _added(builder, node, (first, builder.view(first.number)), (second, other), target)
    builder.views[target.number] = made


def _added(
    builder: Builder, node: Node, first: tuple[Tensor, View], second: tuple[Tensor, View],
    target: Tensor,
) -> View:  # fmt: skip
    """Add a layer of the sum of two views, each with a tensor that has its scale."""
    if first[0].scale < second[0].scale:
        first, second = second, first
    one, other = first[1], second[1]
    name = f"{node.op.lower()}{node.number}"
    if not (one.shape == other.shape and np.array_equal(one.places, other.places)):
        one, other = (builder.contiguous(view, name) for view in (one, other))
        if one.shape != other.shape or not np.array_equal(one.places, other.places):
            raise NodeError("its inputs are maps in different orders", "give both one order")
    (operand_scale, operand_shift), (scale, shift) = _multipliers(first[0], second[0], target)[1:]
    layer = Add(
        name=builder.unique(name),
        inputs=(one.layer, other.layer),
        operand_scale=operand_scale,
        operand_shift=operand_shift,
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=limits_of(node, target),
    )
    in_order = builder.is_in_order(one)
    made = builder.add(layer, target if in_order else None)
    return replace(made, places=one.places.reshape(target.shape[1:]))


def _multipliers(
    first: Tensor, second: Tensor, target: Tensor
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return multiplier and shift of both inputs and of the sum, as the kernels prepare them."""
    twice = 2.0 * float(max(first.scale, second.scale))
    total = twice / (float(1 << _SHIFT) * float(target.scale))
    if total >= 1:
        raise NodeError("its output's scale is less than 2^-19 of its inputs'", "quantise it again")
    one, other = (quantize_multiplier(float(each.scale) / twice) for each in (first, second))
    return one, other, quantize_multiplier(total)


def _negated(builder: Builder, node: Node, view: View) -> View:
    low, high = view.values
    name = builder.unique(f"{node.op.lower()}{node.number}_negated")
    return builder.lookup(view, name, None, -np.arange(low, high + 1))


def _read_with_constant(builder: Builder, node: Node, first: int, second: int) -> None:
    """Read a sum with one constant, or one a channel.

    With one it is a function of one value. Else the constants are a map, which a convolution
    without weights makes of its biases.
    """
    subtracts_map = node.op == "SUB" and builder.tensor(first).data is not None
    subtracts_constant = node.op == "SUB" and not subtracts_map
    constant, source = builder.tensor(first), builder.tensor(second)
    if constant.data is None:
        constant, source = source, constant
    source = builder.activation(source.number)
    target = builder.activation(node.outputs[0])
    constants = _constants(builder, source, constant, target)
    view = builder.view(source.number)
    name = f"{node.op.lower()}{node.number}"
    of_source, of_constant, of_sum = _multipliers(source, constant, target)

    # What the kernel computes of each value and constant.
    values = np.arange(view.values[0], view.values[1] + 1)
    scaled = _multiplied(values << _SHIFT, of_source)
    offsets = _multiplied(constants << _SHIFT, of_constant)
    sums = (-scaled if subtracts_map else scaled) + (-offsets if subtracts_constant else offsets)[
        :, None
    ]
    limits = limits_of(node, target)
    wanted = np.clip(_multiplied(sums, of_sum), *limits)
    if constants.size == 1:
        made = builder.lookup(view, builder.unique(name), target, wanted[0])
        check_shape(made.places, target)
        builder.views[target.number] = made
        return

    view = builder.map(_negated(builder, node, view) if subtracts_map else view)
    biases = -constants if subtracts_constant else constants
    flat = _constant_map(builder, f"{name}_constants", view, biases)
    made = _added(builder, node, (source, view), (constant, flat), target)
    layer = builder.layers[-1]
    assert isinstance(layer, Add)
    terms = np.broadcast_arrays(-values if subtracts_map else values, biases[:, None])
    if source.scale < constant.scale:
        terms = terms[::-1]
    if not np.array_equal(_sum_of(layer, terms), wanted):  # halves, rounded up on either side of 0
        raise NodeError("its difference has exact halves", "add a negative constant instead")
    builder.views[target.number] = made


def _constant_map(builder: Builder, name: str, view: View, biases: Int64Array) -> View:
    """Add a map of the shape of a view that has one value in each channel."""
    channels = view.shape[0]
    layer = Convolution(
        name=builder.unique(name),
        inputs=(view.layer,),
        **codebook(np.zeros((channels, 1, 1, 1), np.int64)),
        bias=biases,
        scale=np.ones(channels, np.int64),
        shift=np.zeros(channels, np.int64),
        rounding=Rounding.DOUBLE,
        clip=(int(biases.min()), int(biases.max())),
        groups=channels,
    )
    return builder.add(layer)


def _sum_of(layer: Add, terms: Sequence[Int64Array]) -> Int64Array:
    """Return what a layer makes of its two inputs."""
    return add(
        *terms,
        operand_scale=layer.operand_scale,
        operand_shift=layer.operand_shift,
        scale=layer.scale,
        shift=layer.shift,
        rounding=layer.rounding,
        clip=layer.clip,
    )


def _constants(builder: Builder, source: Tensor, constant: Tensor, target: Tensor) -> Int64Array:
    """Return a node's constants without their zero point: one, or one a channel."""
    if not source.dtype == constant.dtype == target.dtype:
        raise NodeError(f"its inputs are {source.dtype} and {constant.dtype}", INT8)
    if constant.scales.size != 1 or not constant.scales[0] > 0:
        raise NodeError(f"its constant {constant.name!r} has no scale, or several", INT8)
    data = builder.constant(constant.number, "constant").astype(np.int64)
    one_a_channel = data.shape[-1:] == source.shape[-1:] == (data.size,)
    if (np.unique(data).size != 1 and not one_a_channel) or data.ndim > len(source.shape):
        raise NodeError(
            f"its constant {constant.name!r} has shape {data.shape} beside {source.shape}",
            "use one number, or one a channel",
        )
    values = data.ravel() - constant.zero_point
    return values if np.unique(values).size > 1 else values[:1]


def _multiplied(values: Int64Array, multiplier: tuple[int, int]) -> Int64Array:
    """Return ``MultiplyByQuantizedMultiplier`` of values."""
    return requantise(values, *multiplier, Rounding.DOUBLE)


def read_prelu(builder: Builder, node: Node) -> None:
    """Read PRELU: of one slope a table, else the sum of a table and of a depthwise convolution.

    The table has the outputs of what is not negative, the convolution those of what is: one of
    both is 0.
    """
    source = builder.activation(inputs_of(node, 2)[0])
    target = builder.activation(node.outputs[0])
    slope = builder.tensor(node.inputs[1])
    data = builder.constant(slope.number, "slope").astype(np.int64)
    if not source.dtype == slope.dtype == target.dtype:
        raise NodeError(f"its input is {source.dtype} and its output {target.dtype}", INT8)
    if slope.scales.size != 1 or not slope.scales[0] > 0:
        raise NodeError(f"its slope {slope.name!r} has no scale, or several", INT8)
    view = builder.view(source.number)
    values = np.arange(view.values[0], view.values[1] + 1)
    above = rescaled(values, float(source.scale / target.scale))
    factor = float(source.scale * slope.scale / target.scale)
    limits = stored_limits(target)
    name = f"prelu{node.number}"
    slopes = data.ravel() - slope.zero_point
    if np.unique(slopes).size == 1:
        table = np.where(values >= 0, above, rescaled(values * int(slopes[0]), factor))
        made = builder.lookup(view, builder.unique(name), target, np.clip(table, *limits))
    else:
        view = builder.map(view)
        if not data.shape[-1:] == (view.shape[0],) == (data.size,):
            raise NodeError(
                f"its slopes have shape {data.shape} beside {source.shape}",
                "use one slope, or one a channel",
            )
        table = np.clip(np.where(values >= 0, above, 0), *limits)
        positive = builder.lookup(view, builder.unique(f"{name}_positive"), None, table)
        below = _sloped(builder, name, view, slopes, factor=factor, limits=limits)
        layer = Add(
            name=builder.unique(name),
            inputs=(positive.layer, below.layer),
            operand_scale=1,
            operand_shift=1,
            scale=1,
            shift=_SHIFT - 1,
            rounding=Rounding.DOUBLE,
            clip=limits,
        )
        made = builder.add(layer, target)
    check_shape(made.places, target)
    builder.views[target.number] = made


def _sloped(
    builder: Builder, name: str, view: View, slopes: Int64Array, *, factor: float, limits: Range
) -> View:
    """Add the products of what is negative and a slope a channel; of what is not they are 0."""
    has_negative = bool((slopes < 0).any())
    if has_negative:
        low, high = view.values
        table = np.minimum(np.arange(low, high + 1), 0)
        view = builder.lookup(view, builder.unique(f"{name}_negative"), None, table)
    channels = view.shape[0]
    scale, shift = quantize_multiplier(factor)
    layer = Convolution(
        name=builder.unique(f"{name}_slopes"),
        inputs=(view.layer,),
        **codebook(slopes.reshape(channels, 1, 1, 1)),
        bias=np.zeros(channels, np.int64),
        scale=np.full(channels, scale),
        shift=np.full(channels, shift),
        rounding=Rounding.DOUBLE,
        clip=(limits[0], limits[1] if has_negative else 0),
        groups=channels,
    )
    return builder.add(layer)
