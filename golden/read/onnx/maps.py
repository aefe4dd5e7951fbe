"""Tensors of a graph as maps of layers: which layer's, and which of its channels.

What layers are is left to classes derived from :class:`Maps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Concat, Layer, Shape
from thresher.golden.read.gathering import NOWHERE
from thresher.golden.read.map_layers import MapLayers, channels_of
from thresher.golden.read.onnx.values import (
    Int64Array,
    Real,
    Refusal,
    Stored,
    Tensor,
    without_padding,
)

__all__ = ["Maps", "rescaled"]


class Maps(MapLayers):
    """Layers made so far, and their shapes.

    The input's map is arranged by the first node that computes with it.

    Parameters
    ----------
    source_shape
        Shape of the input as the model has it, its batch of 1 included.
    """

    def __init__(self, source_shape: tuple[int, ...]) -> None:
        super().__init__("/")
        self.source_shape = source_shape
        self.input_shape: Shape | None = None
        self.zero_points: dict[str, int] = {}
        self._arrangement: Int64Array | None = None  # place in the map of each input element

    def add(self, layer: Layer, zero_point: int) -> str:
        """Add a layer that moves values or takes their maximum; return its name.

        Raises
        ------
        Refusal
            If it does not take its inputs.
        """
        raise NotImplementedError

    def add_moving(self, layer: Layer) -> str:
        return self.add(layer, self.zero_point(layer.inputs[0]))

    def linear(self, value: Tensor, what: str = "input") -> Real:
        """Return a value as a scale times what a layer stores.

        Raises
        ------
        Refusal
            If it is not stored.
        """
        raise NotImplementedError

    def zero_point(self, layer: str) -> int:
        """Return the zero point of what a layer stores, or the input."""
        return self.zero_points.get(layer, 0)

    def of_one(self, one: Real, other: Real) -> tuple[Real, Real] | None:
        """Return two tensors as functions of one layer's values, if they are that.

        Tables between that layer and theirs, as there are where a model quantises each step of a
        function (x * hard-sigmoid(x)), become a part of the functions.

        Parameters
        ----------
        one, other
            The tensors, of one shape.

        Returns
        -------
        one, other
            The same tensors, of one layer and scale; None if they are not of one value each.
        """
        if not np.array_equal(self.placed(one, one.layer), self.placed(other, other.layer)):
            return None
        before = self.traced(one)
        for second in self.traced(other):
            for first in before:
                if first.layer != second.layer:
                    continue
                if first.scale != second.scale:
                    return rescaled(first), rescaled(second)
                return first, second
        return None

    def traced(self, value: Real) -> list[Real]:
        """Return a tensor as a function of its layer, and of layers that lead to that."""
        return [value]

    def placed(self, value: Tensor, layer: str) -> Int64Array:
        """Return a tensor's places in the map of its layer."""
        return self._placed(value.places, layer)

    def _placed(self, places: Int64Array, layer: str) -> Int64Array:
        if layer != "input":
            return places
        self.arrange(self._default_map(places))
        assert self._arrangement is not None
        known = places != NOWHERE
        return np.where(known, self._arrangement[np.where(known, places, 0)], NOWHERE)

    def as_map(
        self, value: Tensor, layer: str, *, gathers: bool = True
    ) -> tuple[str, tuple[int, int, int, int]]:
        """Return the layer whose map a tensor (1, C, H, W) or (1, C, W) is, and zeros around it.

        Parameters
        ----------
        value, layer
            The tensor, and the layer of its places.
        gathers
            Whether to add a convolution where it is some rows or columns of a map, or has channels
            of zeros.

        Raises
        ------
        Refusal
            If it is not one, even with its channels selected.
        """
        source = value.places
        if source.ndim not in {3, 4} or source.shape[0] != 1:
            raise Refusal(
                f"its input has shape {source.shape}", "give it one of shape (1, C, H, W)"
            )
        places = source[0] if source.ndim == 4 else source[0][:, None, :]
        inner = without_padding(places)
        if inner is None:
            gathered = self.gathered(layer, self._placed(places, layer)) if gathers else None
            if gathered is None:
                raise Refusal("its input has zeros in its midst", "pad height and width alone")
            return gathered, (0, 0, 0, 0)
        inside, padding = inner
        if layer == "input":
            self.arrange(inside)
            assert self._arrangement is not None
            inside = self._arrangement[inside]
        channels = channels_of(inside, self.shapes[layer])
        if channels is None and inside.shape[1:] == (1, 1):
            layer = self.flattened(layer)
            channels = channels_of(inside, self.shapes[layer])
        if channels is None and gathers:
            gathered = self.gathered(layer, inside)
            if gathered is not None:
                return gathered, padding
        if channels is None and np.unique(inside).size < inside.size:
            raise Refusal(
                f"its input has values of {layer!r} more than once",
                "concatenate different maps, or add up the weights of what is repeated",
            )
        if channels is None:
            raise Refusal(
                f"its input is no map of channels but {self.shapes[layer]} in another arrangement",
                "keep (channels, height, width) up to here",
            )
        return self.selected(layer, channels), padding

    def _default_map(self, places: Int64Array) -> Int64Array:
        """Arrange the input as its shape suggests."""
        shape = self.source_shape[1:]
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        if places.ndim == 4 and places.size == numbers.size:
            return np.asarray(places[0])
        if len(shape) == 3:
            is_nhwc = shape[2] in {1, 3} and shape[0] not in {1, 3}
            return numbers.transpose(2, 0, 1) if is_nhwc else numbers
        if len(shape) == 2:
            return numbers[None]
        return np.asarray(numbers.reshape(-1, 1, 1))

    def arrange(self, places: Int64Array) -> None:
        """Arrange the input as the map (channels, height, width) of ``places``, if it is not yet.

        Where that is a part of it, it is arranged as its shape suggests.
        """
        if self._arrangement is not None:
            return
        numbers = np.arange(int(np.prod(self.source_shape)))
        if not np.array_equal(np.sort(places.ravel()), numbers):
            places = self._default_map(numbers)
        if max(places.shape) > 4095:
            raise Refusal(
                f"its input of {places.shape} is larger than 4095 in an axis",
                "give the input as a map (1, C, H, W)",
            )
        self._arrangement = np.empty_like(numbers)
        self._arrangement[places.ravel()] = numbers
        channels, height, width = places.shape
        self.input_shape = self.shapes["input"] = channels, height, width

    def arranged(self, samples: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return inputs (n, *shape as the model has it) as maps (n, C, H, W)."""
        assert self._arrangement is not None
        assert self.input_shape is not None
        maps = np.empty((len(samples), self._arrangement.size), samples.dtype)
        maps[:, self._arrangement] = samples.reshape(len(samples), -1)
        return maps.reshape(len(samples), *self.input_shape)

    def layout(self) -> str | None:
        """Return how the source's input becomes the map: NCHW, NHWC or None for neither."""
        assert self._arrangement is not None
        numbers = np.arange(self._arrangement.size)
        if np.array_equal(self._arrangement, numbers):
            return "NCHW"
        if len(self.source_shape) == 4:
            moved = numbers.reshape(self.source_shape[1:]).transpose(2, 0, 1)
            if np.array_equal(self._arrangement[moved.ravel()], numbers):
                return "NHWC"
        return None

    def joined(self, parts: Sequence[Stored], axis: int, name: str) -> Stored:
        """Return tensors one after another along an axis."""
        tensors = []
        several = len({part.layer for part in parts}) > 1
        for part in parts:
            try:
                layer, padding = self.as_map(part, part.layer, gathers=several)
            except Refusal:
                tensors.append((part.layer, self.placed(part, part.layer)))
                continue
            if any(padding):
                raise Refusal("one of its inputs is padded", "pad the result instead")
            size = int(np.prod(self.shapes[layer]))
            tensors.append((layer, np.arange(size).reshape(part.places.shape)))
        layers = list(dict.fromkeys(layer for layer, _ in tensors))
        sizes = [int(np.prod(self.shapes[layer])) for layer in layers]
        starts = dict(zip(layers, np.cumsum([0, *sizes[:-1]]), strict=True))
        places = np.concatenate(
            [
                np.where(places == NOWHERE, NOWHERE, places + starts[layer])
                for layer, places in tensors
            ],
            axis=axis,
        )
        target = parts[0].target
        if len(layers) == 1:
            return Stored(layer=layers[0], places=places, target=target)
        concat = Concat(name=self.unique(name), inputs=tuple(layers))
        zero_point = target.zero_point if target is not None else 0
        return Stored(layer=self.add(concat, zero_point), places=places, target=target)

    def aligned(self, one: Real, other: Real) -> tuple[str, str, Int64Array]:
        """Return two layers whose maps, element for element, are two tensors of one shape.

        Returns
        -------
        layers, places
            Names, and the places of the tensors' elements in either.
        """
        if one.places.shape != other.places.shape:
            raise Refusal(
                f"its inputs have shapes {one.places.shape} and {other.places.shape}",
                "give both one shape",
            )
        for first, second in ((one, other), (other, one)):
            places, others = (self.placed(item, item.layer) for item in (first, second))
            shape = self.shapes[first.layer]
            size = int(np.prod(shape))
            if not np.array_equal(np.sort(places.ravel()), np.arange(size)):
                continue
            relation = np.empty(size, np.int64)
            relation[places.ravel()] = others.ravel()
            if (relation == NOWHERE).any():
                continue
            channels = channels_of(relation.reshape(shape), self.shapes[second.layer])
            if channels is None:
                continue
            layers = first.layer, self.selected(second.layer, channels)
            if first is other:
                layers = layers[1], layers[0]
            return *layers, places
        maps = [self.as_map(item, item.layer) for item in (one, other)]
        if any(maps[0][1]) or any(maps[1][1]):
            raise Refusal("one of its inputs is padded", "pad the result instead")
        shape = self.shapes[maps[0][0]]
        if self.shapes[maps[1][0]] != shape:
            raise Refusal("its inputs are arranged differently", "give both one arrangement")
        places = np.arange(int(np.prod(shape))).reshape(one.places.shape)
        return maps[0][0], maps[1][0], places

    def by_channel(self, map_: Real, factors: Real) -> tuple[str, str, Int64Array]:
        """Return layers of a map and of one value for each of its channels, by which to multiply.

        Parameters
        ----------
        map_
            A whole map, in any arrangement.
        factors
            A tensor that is broadcast to it.

        Returns
        -------
        layers, places
            Names; the second layer has shape (channels, 1, 1). The places of the product's elements
            in the map.
        """
        instead = "multiply a map by a map of its shape, or by one value a channel"
        places = self.placed(map_, map_.layer)
        shape = self.shapes[map_.layer]
        size = shape[1] * shape[2]
        if not np.array_equal(np.sort(places.ravel()), np.arange(shape[0] * size)):
            layer, padding = self.as_map(map_, map_.layer)
            if any(padding):
                raise Refusal("one of its inputs is padded", "pad the result instead")
            return self.by_channel(self._whole(map_, layer), factors)
        others = self.placed(factors, factors.layer)
        try:
            wide = np.broadcast_to(others, places.shape)
        except ValueError:
            raise Refusal(
                f"its inputs have shapes {places.shape} and {others.shape}", instead
            ) from None
        relation = np.empty(places.size, np.int64)
        relation[places.ravel()] = wide.ravel()
        by_channel = relation.reshape(shape[0], size)
        if (by_channel != by_channel[:, :1]).any() or (by_channel == NOWHERE).any():
            raise Refusal("it multiplies by values that differ within a channel", instead)
        operand = self.flattened(factors.layer)
        return map_.layer, self.selected(operand, tuple(by_channel[:, 0].tolist())), places

    def _whole(self, value: Real, layer: str) -> Real:
        places = np.arange(int(np.prod(self.shapes[layer]))).reshape(value.places.shape)
        return replace(value, layer=layer, places=places)


def rescaled(value: Real) -> Real:
    """Return a tensor as a function of the stored values themselves."""
    scale, function = np.float32(value.scale), value.function or _same
    return replace(value, scale=1.0, function=lambda stored: function(stored * scale))


def _same(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values
