"""Dense networks: graphs of layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.dense.layer import DenseError, DenseLayer, FloatArray, Pair, Shape

__all__ = ["DenseNetwork"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseNetwork:
    """A graph of layers with float weights; the last layer is the output.

    Parameters
    ----------
    name
        Name of the network.
    input_shape
        (C, H, W).
    layers
        Each after those that it reads.
    input_range
        Least and greatest integer input; None to choose it when the network is quantised.
    input_scale
        Real value of the integer input 1, likewise.

    Raises
    ------
    DenseError
        If a layer does not take its inputs' shapes, or a name is wrong.
    """

    name: str
    input_shape: Shape
    layers: tuple[DenseLayer, ...]
    input_range: Pair | None = None
    input_scale: float | None = None

    def __post_init__(self) -> None:
        layers, before = [], "input"
        for layer in self.layers:
            layers.append(layer if layer.inputs else replace(layer, inputs=(before,)))
            before = layer.name
        if not layers:
            raise DenseError("a network must have at least one layer, not 0")
        object.__setattr__(self, "layers", tuple(layers))
        if (self.input_range is None) != (self.input_scale is None):
            raise DenseError("input_range and input_scale must be given together")
        self.shapes()

    @property
    def output(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of the input and of each layer's output."""
        shapes = {"input": self.input_shape}
        for layer in self.layers:
            if layer.name in shapes:
                raise DenseError(
                    "a layer is named 'input'"
                    if layer.name == "input"
                    else f"two layers have the same name {layer.name!r}"
                )
            for source in layer.inputs:
                if source not in shapes:
                    raise layer.error(f"its input {source!r} is no layer before it")
            shapes[layer.name] = layer.output_shape(*(shapes[name] for name in layer.inputs))
        return shapes

    def readers(self) -> dict[str, list[str]]:
        """Return the names of the layers that read each value, once for each time."""
        found: dict[str, list[str]] = {"input": []}
        for layer in self.layers:
            found[layer.name] = []
            for source in layer.inputs:
                found[source].append(layer.name)
        return found

    def with_weights(self, weights: Mapping[str, FloatArray]) -> DenseNetwork:
        """Return the network with other weights for the layers named in ``weights``."""
        layers = (
            replace(layer, weight=weights[layer.name]) if layer.name in weights else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))

    def scaled(self, inputs: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the real values of integer inputs.

        Raises
        ------
        DenseError
            If they are not integers in the network's range, the shape is not the network's, or
            there is no input.
        """
        x = np.asarray(inputs)
        if self.input_range is None or self.input_scale is None:
            raise DenseError(f"network {self.name!r} has no integer inputs: quantise it")
        if not np.issubdtype(x.dtype, np.integer):
            raise DenseError(f"inputs must be integers, not {x.dtype}")
        self.check_shape(x)
        low, high = self.input_range
        if x.min() < low or x.max() > high:
            raise DenseError(f"inputs must be in {low}..{high}, not {x.min()}..{x.max()}")
        return x * self.input_scale

    def run(self, inputs: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return every layer's output (n, C, H, W), in 64-bit floats.

        Parameters
        ----------
        inputs
            Integers (n, C, H, W), as the compressed network takes them.

        Raises
        ------
        DenseError
            As :meth:`scaled`.
        """
        return dict(self.values(self.scaled(inputs)))

    def forward(
        self, inputs: npt.ArrayLike, keep: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Return outputs (n, C, H, W) for real inputs, in 32-bit floats.

        Parameters
        ----------
        inputs
            Real inputs (n, C, H, W).
        keep
            Names of the layers whose outputs are returned; the last layer alone if None.
        """
        kept = {self.output} if keep is None else set(keep)
        x = np.asarray(inputs, dtype=np.float32)
        return {name: value for name, value in self.values(x) if name in kept}

    def values(self, inputs: FloatArray) -> Iterator[tuple[str, FloatArray]]:
        """Yield each layer's name and output for real inputs; of the inputs' type.

        Only outputs that are still to be read are held.

        Raises
        ------
        DenseError
            If the shape is not the network's, or there is no input.
        """
        self.check_shape(inputs)
        waiting = {name: len(readers) for name, readers in self.readers().items()}
        held = {"input": inputs}
        for layer in self.layers:
            held[layer.name] = layer.run(*(held[source] for source in layer.inputs))
            yield layer.name, held[layer.name]
            for source in layer.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    del held[source]

    def check_shape(self, x: npt.NDArray[Any]) -> None:
        """Raise a :class:`DenseError` if inputs (n, C, H, W) do not fit or there are none."""
        if x.ndim != 4 or x.shape[1:] != tuple(self.input_shape) or not len(x):
            shape = ", ".join(map(str, self.input_shape))
            raise DenseError(f"inputs must have shape (n, {shape}), n at least 1, not {x.shape}")
