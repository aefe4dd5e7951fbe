"""TFLite's MUL: by a constant, of two functions of one value, or of two maps.

Each function takes the builder and a node, and sets the view of the node's output or raises a
:class:`~thresher.golden.read.tflite.builder.NodeError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import Rounding
from thresher.golden.network import Lookup, Multiply
from thresher.golden.read.tflite.arithmetic import quantize_multiplier, rescaled
from thresher.golden.read.tflite.builder import INT8, Builder, NodeError, View
from thresher.golden.read.tflite.file import Node
from thresher.golden.read.tflite.nodes import check_shape, inputs_of, limits_of
from thresher.golden.read.tflite.weights import read_product

__all__ = ["read_mul"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Function:
    """A view as a function of a layer's output: ``values[x - first]`` for a stored x."""

    layer: str
    first: int
    values: Int64Array


def read_mul(builder: Builder, node: Node) -> None:
    """Read MUL."""
    numbers = inputs_of(node, 2)[:2]
    if any(builder.tensor(number).data is not None for number in numbers):
        read_product(builder, node)
        return
    first, second = (builder.activation(number) for number in numbers)
    target = builder.activation(node.outputs[0])
    if not first.dtype == second.dtype == target.dtype:
        raise NodeError(f"its inputs are {first.dtype} and {second.dtype}", INT8)
    views = builder.view(numbers[0]), builder.view(numbers[1])
    factors = _of_one(builder, *views)
    factor = float(first.scale * second.scale / target.scale)
    if factors is None:
        _product_of_maps(builder, node, views, factor)
        return
    one, other = factors
    products = rescaled(one.values * other.values, factor)
    source = replace(views[0], layer=one.layer, values=builder.ranges[one.layer])
    table = np.clip(products, *limits_of(node, target))
    made = builder.lookup(source, builder.unique(f"mul{node.number}"), target, table)
    check_shape(made.places, target)
    builder.views[target.number] = made


def _product_of_maps(builder: Builder, node: Node, views: tuple[View, View], factor: float) -> None:
    """Read the product of two maps of one shape, or of a map and one value a channel."""
    target = builder.activation(node.outputs[0])
    name = builder.unique(f"mul{node.number}")
    one, other = views
    if one.places.size < other.places.size:
        one, other = other, one
    if one.places.size > other.places.size:
        one, other = builder.map(one), _by_channel(builder, one, other, name)
    elif one.shape != other.shape or not np.array_equal(one.places, other.places):
        one, other = (builder.contiguous(view, name) for view in (one, other))
        if one.shape != other.shape or not np.array_equal(one.places, other.places):
            raise NodeError("its inputs are maps in different orders", "give both one order")
    scale, shift = quantize_multiplier(factor)
    layer = Multiply(
        name=name,
        inputs=(one.layer, other.layer),
        scale=scale,
        shift=shift,
        rounding=Rounding.DOUBLE,
        clip=limits_of(node, target),
    )
    made = builder.add(layer, target if builder.is_in_order(one) else None)
    builder.views[target.number] = replace(made, places=one.places.reshape(target.shape[1:]))


def _by_channel(builder: Builder, map_: View, factors: View, name: str) -> View:
    """Return a view of the layer whose value k multiplies a map's channel k."""
    channels = map_.places.shape[-1]
    order = np.arange(factors.places.size).reshape(factors.places.shape)
    try:
        wide = np.broadcast_to(order, map_.places.shape)
    except ValueError:
        wide = np.zeros((), np.int64)
    found = builder.contiguous(factors, name)
    if found.shape != (channels, 1, 1) or not np.array_equal(
        wide, np.broadcast_to(np.arange(channels), map_.places.shape)
    ):
        raise NodeError(
            f"it multiplies a map {map_.places.shape} by values of shape {factors.places.shape}",
            "multiply it by a map of its shape, or by one value a channel",
        )
    return found


def _of_one(builder: Builder, one: View, other: View) -> tuple[_Function, _Function] | None:
    """Return two views as functions of one layer's values, the nearest; None if there is none."""
    if not np.array_equal(one.places, other.places):
        return None
    before = list(_traced(builder, one))
    for second in _traced(builder, other):
        for first in before:
            if first.layer == second.layer:
                return first, second
    return None


def _traced(builder: Builder, view: View) -> Iterator[_Function]:
    """Yield a view as a function of its layer, of what that looks up, and so on."""
    low, high = view.values
    found = _Function(layer=view.layer, first=low, values=np.arange(low, high + 1))
    layers = {layer.name: layer for layer in builder.layers}
    yield found
    while isinstance(table := layers.get(found.layer), Lookup):
        values = found.values[table.table - found.first]
        found = _Function(layer=table.inputs[0], first=table.first, values=values)
        yield found
