"""ONNX models of floats: their graph as a dense network, which calibration samples quantise.

What convolutions and linear layers compute is kept until something else reads it, so that batch
normalisations, biases and ReLUs after them become a part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.calibrate import quantise
from thresher.golden.compress.dense import UNBOUNDED, Bounds, DenseError, DenseLayer, DenseNetwork
from thresher.golden.compress.functions import FUNCTIONS, apply
from thresher.golden.network import (
    ChannelShuffle,
    CompressedNetwork,
    Concat,
    Convolution,
    Flatten,
    Layer,
    MaxPool,
    Range,
)
from thresher.golden.read.calibration import Calibration
from thresher.golden.read.map_layers import needed_for
from thresher.golden.read.onnx.graph import Graph
from thresher.golden.read.onnx.maps import Maps
from thresher.golden.read.onnx.operations import Operations
from thresher.golden.read.onnx.values import (
    Array,
    Mean,
    Parts,
    Pending,
    Product,
    Real,
    Refusal,
    Scores,
    Source,
    Sum,
    Tensor,
    Unclear,
    Unknown,
    Value,
    Weighted,
    Weights,
    check_zero,
)
from thresher.golden.read.problems import Problems

__all__ = ["FloatReader"]

_CALIBRATE = "give samples: --calibrate X.npy"
_PROBES = np.linspace(-40, 40, 16001, dtype=np.float32)  # where functions are told apart


class DenseLayers(Maps):
    """Dense layers made so far; parameters are those of :class:`Maps`."""

    def __init__(self, source_shape: tuple[int, ...]) -> None:
        super().__init__(source_shape)
        self.layers: list[DenseLayer] = []
        self._computed: dict[int, tuple[Tensor, Real]] = {}

    def add(self, layer: Layer, zero_point: int) -> str:
        name, inputs = layer.name, layer.inputs
        match layer:
            case MaxPool():
                made = DenseLayer(
                    name=name,
                    kind="max_pool",
                    inputs=inputs,
                    kernel=layer.kernel,
                    stride=layer.stride,
                    padding=layer.padding,
                )
            case Convolution():  # of ones
                made = DenseLayer(
                    name=name,
                    kind="convolution",
                    inputs=inputs,
                    weight=layer.dense_weights().astype(np.float64),
                    bias=np.zeros(layer.out_channels),
                    stride=layer.stride,
                    padding=layer.padding,
                    groups=layer.groups,
                )
            case ChannelShuffle():
                made = DenseLayer(
                    name=name, kind="channel_shuffle", inputs=inputs, order=layer.order
                )
            case Concat():
                made = DenseLayer(name=name, kind="concat", inputs=inputs)
            case Flatten():
                made = DenseLayer(name=name, kind="flatten", inputs=inputs)
            case _:
                raise TypeError(f"no dense layer for {type(layer).__name__}")
        return self.add_dense(made)

    def add_dense(self, layer: DenseLayer) -> str:
        """Add a layer; return its name.

        Raises
        ------
        Refusal
            If it does not take its inputs.
        """
        try:
            shape = layer.output_shape(*(self.shapes[name] for name in layer.inputs))
        except DenseError as error:
            raise Refusal(str(error), "change that, or let the host compute it") from error
        self.layers.append(layer)
        self.shapes[layer.name] = shape
        return layer.name

    def stored_range(self, layer: str) -> Range:
        return -1, 1  # of either sign, as far as is known

    def linear(self, value: Tensor, what: str = "input") -> Real:
        known = self._computed.get(id(value))
        if known is None:
            # The value is kept, so that no other has its identity.
            known = value, self._linear(value)
            self._computed[id(value)] = known
        return known[1]

    def _linear(self, value: Tensor) -> Real:
        match value:
            case Source():
                return Real(layer="input", scale=1.0, places=value.places)
            case Pending():
                layer = self._made(value)
                for pool in value.pools:
                    pooling = MaxPool(name=self.unique(f"{layer}/pool"), inputs=(layer,), **pool)
                    layer = self.add(pooling, 0)
                return Real(layer=layer, scale=1.0, places=value.places)
            case Real():
                return value if value.function is None else self._applied(value)
        raise Refusal("it comes after a softmax, which the host takes", "end the model there")

    def _made(self, value: Pending) -> str:
        name = self.unique(value.name)
        clip = value.low, value.high
        match value:
            case Weighted():
                weight = value.weights * value.factor.reshape(-1, *(1,) * (value.weights.ndim - 1))
                return self.add_dense(
                    _dense(
                        name=name,
                        kind="linear" if value.geometry is None else "convolution",
                        inputs=(value.layer,),
                        weight=weight,
                        bias=value.offset,
                        clip=clip,
                        **(value.geometry or {}),
                    )
                )
            case Parts():
                layers = [self._made(part) for part in value.parts]
                total = layers[0]
                for layer in layers[1:]:
                    bounds = clip if layer == layers[-1] else UNBOUNDED
                    total = self.add_dense(
                        _dense(
                            name=self.unique(value.name),
                            kind="add",
                            inputs=(total, layer),
                            clip=bounds,
                        )
                    )
                return total
            case Sum():
                return self.add_dense(_dense(name=name, kind="add", inputs=value.layers, clip=clip))
            case Product():
                product = _dense(name=name, kind="multiply", inputs=value.layers, clip=clip)
                return self.add_dense(product)
            case Mean():
                layer = self.add_dense(
                    _dense(
                        name=name,
                        kind="average_pool",
                        inputs=(value.layer,),
                        uncounted=value.uncounted,
                        **value.windows,
                    )
                )
                return self._limited(layer, clip)
        raise TypeError(f"no dense layer for {type(value).__name__}")

    def _limited(self, layer: str, clip: Bounds) -> str:
        if clip == UNBOUNDED:
            return layer
        return self.add_dense(
            _dense(
                name=self.unique(f"{layer}/clip"),
                kind="unary",
                inputs=(layer,),
                function="clip",
                parameters=clip,
            )
        )

    def _applied(self, value: Real) -> Real:
        """Return a layer of a function, by finding the one that has its values."""
        assert value.function is not None
        self.placed(value, value.layer)
        with np.errstate(all="ignore"):
            wanted = np.asarray(value.function(_PROBES), np.float64)
        check_zero(value.places, float(wanted[_PROBES.size // 2]))
        name = self.unique(f"{value.layer}/function")
        gain = (wanted[-1] - wanted[0]) / (_PROBES[-1] - _PROBES[0])
        offset = float(wanted[_PROBES.size // 2])
        if _agree(wanted, gain * _PROBES + offset):
            channels = self.shapes[value.layer][0]
            made = _dense(
                name=name,
                kind="convolution",
                inputs=(value.layer,),
                weight=np.full((channels, 1, 1, 1), gain),
                bias=np.full(channels, offset),
                groups=channels,
            )
        else:
            function, parameters = self._named(wanted)
            made = _dense(
                name=name,
                kind="unary",
                inputs=(value.layer,),
                function=function,
                parameters=parameters,
            )
        places = self.placed(value, value.layer)
        return Real(layer=self.add_dense(made), scale=1.0, places=places)

    def _named(self, wanted: npt.NDArray[np.float64]) -> tuple[str, tuple[float, ...]]:
        """Return the function, and its parameters, that has the values of ``_PROBES``."""
        middle = _PROBES.size // 2
        slope = (wanted[middle + 1] - wanted[middle]) / (_PROBES[middle + 1] - _PROBES[middle])
        candidates: list[tuple[str, tuple[float, ...]]] = [(name, ()) for name in FUNCTIONS]
        candidates += [
            ("clip", (float(wanted.min()), float(wanted.max()))),
            ("elu", (float(-wanted[0]),)),
            ("hard_sigmoid", (float(slope), float(wanted[middle]))),
            ("leaky_relu", (float(wanted[0] / _PROBES[0]),)),
        ]
        for name, parameters in candidates:
            if _agree(wanted, apply(name, _PROBES.astype(np.float64), parameters)):
                return name, parameters
        raise Refusal(
            "its input is a function that is none of " + ", ".join(FUNCTIONS),
            "use one of them, or quantise the model to int8 first",
        )


class FloatReader(Operations):
    """Turns a graph into a dense network.

    Parameters
    ----------
    graph
        The graph.
    problems
        Receives what stands in the way.
    """

    instead: ClassVar[Mapping[str, str]] = {}
    in_floats: ClassVar[bool] = True
    layers: DenseLayers

    def __init__(self, graph: Graph, problems: Problems) -> None:
        super().__init__(graph, DenseLayers(graph.input_shape), problems)
        self._readers: dict[str, int] = {graph.output: 1}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers[name] = self._readers.get(name, 0) + 1

    def network(
        self, source: dict[str, object], calibration: Calibration | None
    ) -> CompressedNetwork | None:
        """Return the network, quantised, or None if there are problems.

        Parameters
        ----------
        source
            ``metadata["source"]``.
        calibration
            Samples.
        """
        graph = self.graph
        read = self.dense()
        if calibration is None:
            self.problems.add("it is a model of floats, without scales", _CALIBRATE)
        if calibration is None or read is None:
            return None
        dense, output = read
        samples = calibration.inputs(graph.input_shape[1:])
        said: dict[str, object] = {
            "source": source,
            "input": {"layout": self.layers.layout(), "shape": list(graph.input_shape[1:])},
            "output": output,
        }
        try:
            return quantise(
                dense,
                self.layers.arranged(samples),
                percentile=calibration.percentile,
                metadata=said,
            )
        except DenseError as error:
            self.problems.add(str(error), "give other samples, or change that layer")
            return None

    def dense(self) -> tuple[DenseNetwork, dict[str, object]] | None:
        """Return the float network and ``metadata["output"]``, or None if there are problems."""
        graph = self.graph
        numbers = np.arange(int(np.prod(graph.input_shape))).reshape(graph.input_shape)
        self.values[graph.input] = Source(places=numbers)
        if graph.input_type != np.float32:
            self.problems.add(
                f"the input is of {graph.input_type}", "give it one of float32", node=graph.input
            )
        for node in graph.nodes:
            self.take(node)
        try:
            read = self._dense()
        except Unclear:
            return None
        except Refusal as refusal:
            self.problems.add(refusal.reason, refusal.instead, node=graph.output)
            return None
        except DenseError as error:
            self.problems.add(str(error), "change that layer")
            return None
        return None if self.problems.found else read

    def _dense(self) -> tuple[DenseNetwork, dict[str, object]]:
        """Return the dense network, and ``metadata["output"]``."""
        end = self.values[self.graph.output]
        if isinstance(end, Unknown):
            raise Unclear
        if not isinstance(end, Tensor):
            raise Refusal("the output does not depend on the input", "export the model again")
        output: dict[str, object] = {"softmax": isinstance(end, Scores)}
        real = end if isinstance(end, Scores) else self.layers.linear(end, "output")
        layer, layout = self.output_layer(real)
        if layout is not None:
            output["layout"] = layout
        if layer == "input":
            raise Refusal("the output is the input, nothing is computed", "export another model")
        needed = needed_for(layer, self.layers.layers)
        shape = self.layers.input_shape
        if "input" not in needed or shape is None:
            raise Refusal("the output does not depend on the input", "export the model again")
        if self.layers.layout() is None:
            raise Refusal(
                "the input is rearranged before the first layer in a way other than NHWC to NCHW",
                "give the model its input as (1, C, H, W)",
            )
        layers = tuple(item for item in self.layers.layers if item.name in needed)
        return DenseNetwork(name=self.graph.name, input_shape=shape, layers=layers), output

    def weights_of(self, value: Value | None) -> Weights:
        """Return float weights."""
        if isinstance(value, Unknown):
            raise Unclear
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
            raise Refusal("its weights are no constant floats", "give them as initializers")
        if not np.isfinite(value).all():
            raise Refusal("its weights are not all finite", "train or export the model again")
        values = value.astype(np.float64)
        return Weights(values=values, scale=np.broadcast_to(1.0, values.shape))

    def settled(self, value: Tensor) -> Tensor:
        return self.layers.linear(value)

    def name(self, name: str, value: Value) -> None:
        """Compute a value that several nodes read once."""
        if isinstance(value, Pending | Real) and self._readers.get(name, 0) > 1:
            try:
                self.values[name] = self.layers.linear(value)
            except Refusal:
                return  # its readers may take it as it is


def _dense(**arguments: object) -> DenseLayer:
    """Return a dense layer; its error is a reason."""
    try:
        return DenseLayer(**arguments)  # type: ignore[arg-type]  # of many types
    except DenseError as error:
        raise Refusal(str(error), "change that, or let the host compute it") from error


def _agree(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=1e-5, atol=1e-5))
