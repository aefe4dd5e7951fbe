"""ONNX operations that pool: maxima and means of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from thresher.golden.network import MaxPool
from thresher.golden.read.onnx.arguments import array_of, check_known, tensor_of
from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.nodes import Nodes
from thresher.golden.read.onnx.values import (
    Int64Array,
    Joined,
    Mean,
    Pending,
    Refusal,
    Stored,
    Tensor,
    Value,
    is_whole,
)
from thresher.golden.read.onnx.windows import Padding, Windows, windows

__all__ = ["Pools"]


class Pools(Nodes):
    """Maxima and means of windows, and of whole rows, columns or maps."""

    def max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """MaxPool."""
        if len(node.outputs) > 1 and node.outputs[1]:
            raise Refusal("it gives indices", "leave its second output out")
        return self._max_pool(
            node, tensor_of(values[0]), lambda height, width: windows(node, (height, width))
        )

    def global_max_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalMaxPool."""
        return self._max_pool(node, tensor_of(values[0]), _whole)

    def _max_pool(self, node: Node, value: Tensor, find: Callable[[int, int], Windows]) -> Value:
        check_known(value)
        if isinstance(value, Pending):
            spec = find(*value.shape[1:])
            _check_pool(spec)
            if isinstance(value, Joined) or not is_whole(value.places, value.shape):
                self.layers.linear(value)
            probe = MaxPool(name="pool", **spec.pool())
            shape = probe.output_shape(value.shape)
            places = _like(value.places, shape)
            return replace(value, shape=shape, places=places, pools=(*value.pools, spec.pool()))
        view = value if isinstance(value, Stored) else self.layers.linear(value)
        layer, padding = self.layers.as_map(view, view.layer)
        _, height, width = self.layers.shapes[layer]
        if any(padding):
            if self.layers.stored_range(layer)[0] < 0:
                raise Refusal(
                    "its input is padded with zeros and may be less", "give it pads instead"
                )
            height, width = height + padding[0] + padding[2], width + padding[1] + padding[3]
        spec = find(height, width)
        _check_pool(spec)
        arguments = spec.pool()
        arguments["padding"] = tuple(a + b for a, b in zip(spec.padding, padding, strict=True))
        pool = MaxPool(name=self.layers.unique(node.name), inputs=(layer,), **arguments)
        name = self.layers.add(pool, self.layers.zero_point(layer))
        return replace(view, layer=name, places=_like(view.places, self.layers.shapes[name]))

    def average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """AveragePool."""
        counts_padding = bool(node.attributes.get("count_include_pad", 0))

        def find(height: int, width: int) -> Windows:
            return windows(node, (height, width))

        return self._average(node, tensor_of(values[0]), find, counts_padding=counts_padding)

    def global_average_pool(self, node: Node, values: list[Value | None]) -> Value:
        """GlobalAveragePool."""
        return self._average(node, tensor_of(values[0]), _whole)

    def _average(
        self,
        node: Node,
        value: Tensor,
        find: Callable[[int, int], Windows],
        *,
        counts_padding: bool = False,
    ) -> Value:
        check_known(value)
        real = self.layers.linear(value)
        layer, padding = self.layers.as_map(real, real.layer)
        channels, height, width = self.layers.shapes[layer]
        spec = find(height + padding[0] + padding[2], width + padding[1] + padding[3])
        _check_pool(spec)
        arguments = spec.pool()
        arguments["padding"] = tuple(a + b for a, b in zip(spec.padding, padding, strict=True))
        shape = MaxPool(name="pool", **arguments).output_shape((channels, height, width))
        return Mean(
            name=node.name,
            shape=shape,
            places=_like(real.places, shape),
            layer=layer,
            scale=real.scale,
            windows=arguments,
            uncounted=self._uncounted(node, spec, counts_padding=counts_padding),
        )

    @staticmethod
    def _uncounted(node: Node, spec: Windows, *, counts_padding: bool) -> Padding:
        if not counts_padding:
            return spec.padding
        if node.op == "QLinearAveragePool":  # counts what rounding the size up adds, too
            return (0, 0, 0, 0)
        return (0, 0, *spec.overhang)

    def reduce_mean(self, node: Node, values: list[Value | None]) -> Value:
        """ReduceMean over all of height, of width or of both, wherever these axes are."""
        value = tensor_of(values[0])
        check_known(value)
        count = value.places.ndim
        given = node.attributes.get("axes")
        if node.has(1):
            given = array_of(values[1], "axes").tolist()
        axes = [axis % count for axis in (given or range(count))]
        real = self.layers.linear(value)
        rest = [axis for axis in range(count) if axis not in axes]
        places = self.layers.placed(real, real.layer)
        shape = self.layers.shapes[real.layer]
        rows = places.transpose(*rest, *axes).reshape(
            -1, int(np.prod([places.shape[axis] for axis in axes]))
        )
        for kernel in (shape[1:], (1, shape[2]), (shape[1], 1)):
            made = (shape[0], shape[1] // kernel[0], shape[2] // kernel[1])
            order = _windows_of(rows, shape, kernel)
            if order is not None:
                break
        else:
            raise Refusal(
                f"it takes the mean over axes {axes}, not over height or width",
                "take the mean over whole rows, columns or channels",
            )
        kept = bool(node.attributes.get("keepdims", 1))
        result = [
            1 if axis in axes else places.shape[axis] for axis in range(count)
            if kept or axis not in axes
        ]  # fmt: skip
        return Mean(
            name=node.name,
            shape=made,
            places=order.reshape(result),
            layer=real.layer,
            scale=real.scale,
            windows={"kernel": kernel, "stride": (1, 1), "padding": (0, 0, 0, 0)},
        )


def _check_pool(spec: Windows) -> None:
    if spec.dilation != (1, 1):
        raise Refusal(f"its dilations are {spec.dilation}", "pool without dilation")


def _whole(height: int, width: int) -> Windows:
    return Windows(
        kernel=(height, width),
        stride=(1, 1),
        dilation=(1, 1),
        padding=(0, 0, 0, 0),
        overhang=(0, 0),
    )


def _windows_of(
    rows: Int64Array, shape: tuple[int, int, int], kernel: tuple[int, int]
) -> Int64Array | None:
    """Return which window of a map of ``shape`` each row of places is; None if one is none."""
    channels, height, width = shape
    numbers = np.arange(channels * height * width).reshape(
        channels, height // kernel[0], kernel[0], width // kernel[1], kernel[1]
    )
    windows = numbers.transpose(0, 1, 3, 2, 4).reshape(-1, kernel[0] * kernel[1])
    if rows.shape[1] != windows.shape[1] or rows.min() < 0:
        return None
    owner = np.empty(numbers.size, np.int64)
    owner[windows] = np.arange(len(windows))[:, None]
    order = owner[rows[:, 0]]
    return order if np.array_equal(np.sort(rows, axis=1), windows[order]) else None


def _like(places: Int64Array, shape: tuple[int, int, int]) -> Int64Array:
    """Return places of a whole map, of as many axes as another tensor has."""
    whole = np.arange(int(np.prod(shape))).reshape(1, *shape)
    return whole[:, :, 0] if places.ndim == 3 else whole
