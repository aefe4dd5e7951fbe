"""ONNX operations on one or two values at a time: functions, sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thresher.golden.read.onnx.arguments import (
    check_known,
    is_constant,
    optional,
    real_of,
    tensor_of,
)
from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.nodes import HOST
from thresher.golden.read.onnx.values import (
    Array,
    Parts,
    Pending,
    Product,
    Real,
    Refusal,
    Source,
    Stored,
    Sum,
    Tensor,
    Value,
    Weighted,
    per_channel,
)
from thresher.golden.read.onnx.weighted import WeightedOperations

__all__ = ["Functions"]


class Functions(WeightedOperations):
    """Functions of one value, and of two tensors, of which one may be constant."""

    def function(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of one value."""
        value = tensor_of(values[0])
        rest = [optional(item) for item in values[1:]]
        check_known(value)
        if isinstance(value, Pending):
            limits = _limits(node, rest)
            if limits is not None:
                return value.clipped(*limits)
            if node.op == "LeakyRelu" and not self.in_floats:
                return self._sloped(node, value, np.array([node.attributes.get("alpha", 0.01)]))
        return self.applied(value, lambda x: self._evaluated(node, [x, *rest]))

    def applied(self, value: Tensor, function: Any) -> Real:
        """Return a function of a value."""
        real = value if isinstance(value, Real) else self.layers.linear(value)
        before = real.function or _same
        with np.errstate(all="ignore"):  # a node that is not sound is found here
            found = function(before(np.zeros(1, np.float32)))
        if np.shape(found) != (1,):
            raise Refusal("it does not give one value for each", HOST)
        return replace(real, function=lambda x: function(before(x)))

    def _evaluated(self, node: Node, arrays: Sequence[Any]) -> Any:
        return self.graph.evaluate(node, arrays)[0]

    def _sloped(self, node: Node, value: Tensor, slopes: Array) -> Value:
        """Return a value, where it is negative times a slope a channel.

        It is the sum of what is not negative, and of products of what is: one sum of those of
        positive slopes, one of those of negative ones. What is not quantised is computed for each.
        """
        base: Value = value
        if self.in_floats or not (isinstance(value, Weighted) and value.is_plain):
            real = self.layers.linear(value)
            if np.unique(slopes).size == 1:
                number = slopes.ravel()[:1]
                return self.applied(real, lambda x: self._evaluated(node, [x, number]))
            base = self._affine(node, real, np.ones(()), np.zeros(()))
        assert isinstance(base, Weighted)
        by_channel = per_channel(slopes.astype(np.float64), base.places, base.shape)
        if by_channel is None or not np.isfinite(by_channel).all():
            raise Refusal("its slope is not one a channel", "use one slope, or one a channel")
        parts = [replace(base, name=f"{node.name}/positive", low=0.0)]
        for has, low, high in ((by_channel > 0, -np.inf, 0.0), (by_channel < 0, 0.0, np.inf)):
            if has.any():
                taken = has.reshape(-1, *(1,) * (base.weights.ndim - 1))
                product = replace(
                    base,
                    name=f"{node.name}/slopes",
                    weights=np.where(taken, base.weights, 0),
                    factor=base.factor * np.where(has, by_channel, 1),
                    offset=base.offset * np.where(has, by_channel, 0),
                    low=low,
                    high=high,
                )
                parts.append(product)
        return Parts(name=node.name, shape=base.shape, places=base.places, parts=tuple(parts))

    def of_two(self, node: Node, values: list[Value | None]) -> Value:
        """Return a function of two tensors, of which one may be constant."""
        if len(values) != 2:
            raise Refusal(f"it has {len(values)} inputs", "use nodes of two")
        constant = [index for index, value in enumerate(values) if is_constant(value)]
        tensors = [tensor_of(value) for index, value in enumerate(values) if index not in constant]
        for tensor in tensors:
            check_known(tensor)
        if constant:
            return self._with_constant(node, tensors[0], real_of(values[constant[0]]), constant[0])
        one, other = (x if isinstance(x, Real) else self.layers.linear(x) for x in tensors)
        of_one = self.layers.of_one(one, other)
        if of_one is not None:
            first, second = (item.function or _same for item in of_one)
            return replace(
                of_one[0], function=lambda x: self._evaluated(node, [first(x), second(x)])
            )
        if node.op == "Mul":
            return self._product_of_maps(node, one, other)
        if node.op not in {"Add", "Sub"}:
            raise Refusal("it combines two tensors that are not functions of one value", HOST)
        if node.op == "Sub":
            other = self.applied(other, np.negative)
        return self._sum(node, one, other)

    def _sum(self, node: Node, one: Tensor, other: Tensor) -> Value:
        first, second = self.layers.linear(one), self.layers.linear(other, "second input")
        layer, operand, places = self.layers.aligned(first, second)
        shape = self.layers.shapes[layer]
        if self.layers.shapes[operand] != shape:
            raise Refusal("its inputs are maps of different shapes", "give both one shape")
        return Sum(
            name=node.name,
            shape=shape,
            places=places,
            layers=(layer, operand),
            scales=(first.scale, second.scale),
        )

    def _product_of_maps(self, node: Node, one: Tensor, other: Tensor) -> Value:
        """Return the product of two maps of one shape, or of a map and one value a channel."""
        first, second = self.layers.linear(one), self.layers.linear(other, "second input")
        if first.places.size < second.places.size:
            first, second = second, first
        if first.places.size == second.places.size:
            layer, operand, places = self.layers.aligned(first, second)
        else:
            layer, operand, places = self.layers.by_channel(first, second)
        shape = self.layers.shapes[layer]
        if self.layers.shapes[operand] not in {shape, (shape[0], 1, 1)}:
            raise Refusal("its inputs are maps of different shapes", "give both one shape")
        return Product(
            name=node.name,
            shape=shape,
            places=places,
            layers=(layer, operand),
            scales=(first.scale, second.scale),
        )

    def _with_constant(self, node: Node, value: Tensor, constant: Array, position: int) -> Value:
        if isinstance(value, Source | Stored):
            value = self.layers.linear(value)
        if np.broadcast_shapes(value.places.shape, constant.shape) != value.places.shape:
            raise Refusal("its constant makes its result larger", "export it of one shape")
        if isinstance(value, Real) and np.unique(constant).size == 1:
            number = constant.ravel()[:1].astype(np.float32)
            return self.applied(
                value,
                lambda x: self._evaluated(node, [x, number] if position else [number, x]),
            )
        if (node.op, position) == ("PRelu", 1):
            return self._sloped(node, value, constant)
        if node.op in {"Max", "Min"} and isinstance(value, Pending):
            limit = float(constant.ravel()[0])
            if np.unique(constant).size == 1:
                return value.clipped(*((limit, np.inf) if node.op == "Max" else (-np.inf, limit)))
        wide = constant.astype(np.float64)
        one, zero = np.ones(()), np.zeros(())
        affine = {
            ("Add", 0): (one, wide),
            ("Add", 1): (one, wide),
            ("Sub", 0): (-one, wide),
            ("Sub", 1): (one, -wide),
            ("Mul", 0): (wide, zero),
            ("Mul", 1): (wide, zero),
            ("Div", 1): (1 / np.where(wide == 0, np.nan, wide), zero),
        }
        if (node.op, position) not in affine:
            raise Refusal("its constant differs by channel", "use Add, Sub, Mul or Div for that")
        return self._affine(node, value, *affine[node.op, position])


def _limits(node: Node, rest: Sequence[Array | None]) -> tuple[float, float] | None:
    """Return the limits of a function that only limits, else None."""
    if node.op == "Relu":
        return 0.0, np.inf
    if node.op != "Clip":
        return None
    given = [
        float(rest[index].ravel()[0]) if index < len(rest) and rest[index] is not None  # type: ignore[union-attr]
        else float(node.attributes.get(name, default))
        for index, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)))
    ]  # fmt: skip
    return given[0], given[1]


def _same(values: Any) -> Any:
    return values
