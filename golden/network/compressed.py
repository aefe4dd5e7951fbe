"""A compressed network: layers that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thresher.golden.config import MultiplierKind
from thresher.golden.network.layer import ACTIVATION, Layer, Range, Shape, is_integer
from thresher.golden.network.weighted import WeightedLayer

__all__ = ["CompressedNetwork"]


@dataclass(frozen=True, kw_only=True)
class CompressedNetwork:
    """Layers in an order in which each comes after its inputs. The last one is the output.

    Parameters
    ----------
    name
        Name of the network.
    input_shape
        (channels, height, width) of an input.
    input_range
        Least and greatest input value, within 16 bits.
    layers
        At least one layer.
    multiplier
        The multiplier for which the weights were chosen.
    metadata
        Anything that JSON holds, e.g. how the network was trained.

    Raises
    ------
    ValueError
        If the layers do not fit together; the message names the layer.
    """

    name: str
    input_shape: Shape
    input_range: Range
    layers: tuple[Layer, ...]
    multiplier: MultiplierKind = MultiplierKind.EXACT
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a network's name must be a text, not {self.name!r}")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        object.__setattr__(self, "input_range", tuple(self.input_range))
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "multiplier", MultiplierKind(self.multiplier))
        if len(self.input_shape) != 3 or not all(
            is_integer(size) and 1 <= size <= most
            for size, most in zip(self.input_shape, (65535, 4095, 4095), strict=True)
        ):
            raise ValueError(
                f"input_shape must be (channels, height, width) in 1..65535, 1..4095, 1..4095, "
                f"not {self.input_shape}"
            )
        low, high = ACTIVATION
        if len(self.input_range) != 2 or not all(
            is_integer(value) and low <= value <= high for value in self.input_range
        ):
            raise ValueError(f"input_range must be in {low}..{high}, not {self.input_range}")
        if self.input_range[0] > self.input_range[1]:
            raise ValueError(f"input_range must be (low, high), not {self.input_range}")
        if not self.layers:
            raise ValueError("a network must have at least one layer, not 0")
        known = {"input"}
        for layer in self.layers:
            if layer.name in known:
                raise ValueError(f"layer {layer.name!r}: the name is taken")
            for source in layer.inputs:
                if source not in known:
                    raise ValueError(
                        f"layer {layer.name!r}: its input {source!r} is no layer before it"
                    )
            known.add(layer.name)
        self._derived  # noqa: B018  # checks that shapes fit together

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``.

        Raises
        ------
        KeyError
            If there is none; the message lists the names.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r} in {[layer.name for layer in self.layers]}")

    @property
    def output(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name

    def shapes(self) -> dict[str, Shape]:
        """Return each layer's output (channels, height, width), and that of ``"input"``."""
        return dict(self._derived[0])

    def ranges(self) -> dict[str, Range]:
        """Return each layer's least and greatest possible output, and those of ``"input"``."""
        return dict(self._derived[1])

    def with_codebooks(self, codebooks: Mapping[str, npt.ArrayLike]) -> CompressedNetwork:
        """Return the network with other codebooks for the layers named in ``codebooks``."""
        layers = [
            replace(layer, codebook=np.asarray(codebooks[layer.name]))
            if isinstance(layer, WeightedLayer) and layer.name in codebooks
            else layer
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))

    @cached_property
    def _derived(self) -> tuple[dict[str, Shape], dict[str, Range]]:
        shapes = {"input": self.input_shape}
        ranges = {"input": self.input_range}
        for layer in self.layers:
            shapes[layer.name] = layer.output_shape(*(shapes[source] for source in layer.inputs))
            values = layer.output_range(*(ranges[source] for source in layer.inputs))
            if values[0] < ACTIVATION[0] or values[1] > ACTIVATION[1]:
                raise ValueError(
                    f"layer {layer.name!r}: its outputs must fit 16 bits, "
                    f"not reach {values[0]}..{values[1]}"
                )
            ranges[layer.name] = values
        return shapes, ranges
