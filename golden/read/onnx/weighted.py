"""ONNX operations that multiply by constants: convolutions, products, normalisations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from thresher.golden.network import Shape
from thresher.golden.read.gathering import NOWHERE
from thresher.golden.read.onnx.arguments import (
    bias_of,
    check_known,
    one_a_channel,
    real_of,
    tensor_of,
)
from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.nodes import Nodes
from thresher.golden.read.onnx.values import (
    Array,
    Floats,
    Refusal,
    Tensor,
    Value,
    Weighted,
    Weights,
    check_zero,
    per_channel,
)
from thresher.golden.read.onnx.windows import windows

__all__ = ["WeightedOperations"]


class WeightedOperations(Nodes):
    """Convolutions, products with constant matrices, and factors and offsets a channel."""

    def convolution(self, node: Node, values: list[Value | None]) -> Value:
        """Conv of (1, C, H, W), or of (1, C, W) as a map of one row."""
        quantised = self.weights_of(values[1])
        if quantised.values.ndim not in {3, 4}:
            raise Refusal(
                f"it is a convolution of {quantised.values.ndim - 2} spatial axes",
                "use one of height and width",
            )
        kernel = quantised.values.shape[2:]
        factor = one_a_channel(quantised)
        offset = bias_of(values[2] if node.has(2) else None, len(factor))
        windows(node, (4095, 4095), kernel)
        value = tensor_of(values[0])
        check_known(value)
        real = self.layers.linear(value)
        layer, padding = self.layers.as_map(real, real.layer)
        _, height, width = self.layers.shapes[layer]
        size = height + padding[0] + padding[2], width + padding[1] + padding[3]
        spec = windows(node, size, kernel)
        geometry: dict[str, Any] = {
            "stride": spec.stride,
            "dilation": spec.dilation,
            "padding": tuple(a + b for a, b in zip(padding, spec.padding, strict=True)),
            "groups": int(node.attributes.get("group", 1)),
        }
        weights = quantised.values.reshape(*quantised.values.shape[:2], *spec.kernel)
        shape = _shape_of(self.layers.shapes[layer], weights, geometry)
        places = np.arange(int(np.prod(shape))).reshape(1, *shape)
        return Weighted(
            name=node.name,
            shape=shape,
            places=places if real.places.ndim != 3 else places[:, :, 0],
            layer=layer,
            weights=weights,
            factor=factor * real.scale,
            offset=offset,
            geometry=geometry,
        )

    def gemm(self, node: Node, values: list[Value | None]) -> Value:
        """Gemm of a vector."""
        alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        weights = self.weights_of(values[1])
        if node.attributes.get("transA", 0):
            raise Refusal("its transA is 1", "give its input as a row")
        if not node.attributes.get("transB", 0):
            weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = one_a_channel(weights) * alpha
        offset = bias_of(values[2] if node.has(2) else None, len(factor)) * beta
        return self._product(node, values[0], weights.values, factor, offset)

    def matmul(self, node: Node, values: list[Value | None]) -> Value:
        """MatMul by a constant matrix."""
        if isinstance(values[0], np.ndarray | Weights):
            raise Refusal("its first input is constant", "put the constant second")
        weights = self.weights_of(values[1])
        if weights.values.ndim != 2:
            raise Refusal(f"its weights have {weights.values.ndim} axes", "give them two")
        weights = Weights(values=weights.values.T, scale=weights.scale.T)
        factor = one_a_channel(weights)
        offset = np.zeros(len(factor))
        return self._product(node, values[0], weights.values, factor, offset)

    def _product(
        self, node: Node, value: Value | None, weights: Array, factor: Floats, offset: Floats
    ) -> Value:
        """Return ``weights`` (out, in) times a vector, or times that at each position of a map."""
        tensor = tensor_of(value)
        check_known(tensor)
        real = self.layers.linear(tensor)
        outputs, inputs = weights.shape
        if real.places.shape[-1] != inputs:
            raise Refusal(
                f"its input has {real.places.shape[-1]} values, its weights take {inputs}",
                "correct its shape",
            )
        *ahead, _ = real.places.shape
        rows = int(np.prod(ahead))
        layer = real.layer
        if layer == "input" and rows > 1:
            sides = ahead[1:] if len(ahead) == 3 else (1, rows)
            self.layers.arrange(real.places.reshape(rows, inputs).T.reshape(inputs, *sides))
        places = self.layers.placed(real, layer).reshape(rows, inputs)
        shape = self.layers.shapes[layer]
        size = shape[1] * shape[2]
        if rows == 1:
            wide = np.zeros((outputs, shape[0] * size), weights.dtype)
            inside = places[0] != NOWHERE
            np.add.at(wide.T, places[0][inside], weights[:, inside].T)  # a value may be there twice
            made = outputs, 1, 1
            out = np.arange(outputs)
            geometry = None
        else:
            order, position = places[0] // size, places[:, 0] % size
            if rows != size or not np.array_equal(places, order * size + position[:, None]):
                raise Refusal(
                    f"its input of shape {real.places.shape} is no map with its channels last",
                    "give it a vector, or a map transposed to (1, H, W, C)",
                )
            wide = np.zeros((outputs, shape[0], 1, 1), weights.dtype)
            np.add.at(wide[:, :, 0, 0].T, order, weights.T)
            made = outputs, shape[1], shape[2]
            out = position[:, None] + np.arange(outputs) * size
            geometry = {
                "stride": (1, 1), "dilation": (1, 1), "padding": (0,) * 4, "groups": 1
            }  # fmt: skip
        return Weighted(
            name=node.name,
            shape=made,
            places=out.reshape(*ahead, outputs),
            layer=layer,
            weights=wide,
            factor=factor * real.scale,
            offset=offset,
            geometry=geometry,
        )

    def batch_normalization(self, node: Node, values: list[Value | None]) -> Value:
        """BatchNormalization, folded into the sums before it or a depthwise convolution."""
        gamma, beta, mean, variance = (real_of(item).astype(np.float64) for item in values[1:5])
        if node.attributes.get("training_mode", 0):
            raise Refusal("it is in training mode", "export the model for inference")
        gain = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        value = tensor_of(values[0])
        check_known(value)
        axes = (1, -1, *(1,) * (value.places.ndim - 2))
        return self._affine(node, value, gain.reshape(axes), (beta - mean * gain).reshape(axes))

    def _affine(self, node: Node, value: Tensor, gain: Array, offset: Array) -> Value:
        """Return ``value * gain + offset``, constants that may differ by channel."""
        if isinstance(value, Weighted) and value.is_plain:
            gains, offsets = (
                per_channel(item, value.places, value.shape) for item in (gain, offset)
            )
            if gains is None or offsets is None:
                raise Refusal("its constant is not one a channel", "use one value a channel")
            return replace(
                value, factor=value.factor * gains, offset=value.offset * gains + offsets
            )
        real = self.layers.linear(value)
        layer = real.layer
        if real.places.ndim in {3, 4}:
            layer, padding = self.layers.as_map(real, layer)
            if any(padding):
                raise Refusal("its input is padded", "pad its result instead")
            shape = self.layers.shapes[layer]
            places = np.arange(int(np.prod(shape))).reshape(real.places.shape)
        else:
            places = self.layers.placed(real, layer)
            shape = self.layers.shapes[layer]
            check_zero(places, float(np.abs(offset).max()))
        gains, offsets = (per_channel(item, places, shape) for item in (gain, offset))
        if gains is None or offsets is None:
            raise Refusal("its constant is not one a channel", "use one value a channel")
        return Weighted(
            name=node.name,
            shape=shape,
            places=places,
            layer=layer,
            weights=np.full((shape[0], 1, 1, 1), 127),  # room for a bias between two inputs
            factor=gains * real.scale / 127,
            offset=offsets,
            geometry={
                "stride": (1, 1),
                "dilation": (1, 1),
                "padding": (0,) * 4,
                "groups": shape[0],
            },
        )


def _shape_of(source: Shape, weights: Array, geometry: Mapping[str, Any]) -> Shape:
    """Return the shape of a convolution's output, if it takes its input."""
    channels, *size = source
    if weights.shape[1] * geometry["groups"] != channels or len(weights) % geometry["groups"]:
        raise Refusal(
            f"its weights {weights.shape} and {geometry['groups']} groups do not fit"
            f" {channels} channels",
            "correct them",
        )
    sizes = []
    for axis, length in enumerate(size):
        extent = (weights.shape[2 + axis] - 1) * geometry["dilation"][axis] + 1
        room = length + geometry["padding"][axis] + geometry["padding"][axis + 2] - extent
        if room < 0:
            raise Refusal("its kernel is larger than its padded input", "use a smaller one")
        sizes.append(room // geometry["stride"][axis] + 1)
    return len(weights), sizes[0], sizes[1]
