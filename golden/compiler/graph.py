"""From the layers of a network to stages, and to views of what the stages store.

A linear layer is a convolution whose kernel is the map. Pooling, lookup and addition are merged
into the convolutions before them if nothing else reads those; otherwise they go behind an identity
convolution. Concatenation, shuffling and flattening are views.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.stages import Addition, Pooling, Stage, Taps, identity
from thresher.golden.compiler.views import View
from thresher.golden.network import (
    Add,
    AveragePool,
    ChannelShuffle,
    CompressedNetwork,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
    WeightedLayer,
)

__all__ = ["Graph", "graph_of", "without_addition"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """A network as the machine runs it.

    Parameters
    ----------
    stages
        In order: each comes after what it reads.
    views
        Each value that is stored, or that is a view of what is stored, by name.
    """

    stages: list[Stage]
    views: dict[str, View]


def graph_of(
    network: CompressedNetwork, activation_bits: int, *, keep_layers: bool = False
) -> Graph:
    """Split a network into stages.

    Parameters
    ----------
    network
        The network, its codebooks as the multiplier sees them.
    activation_bits
        Width of an activation; an identity convolution clips to its range.
    keep_layers
        Nothing is merged, so that every layer's output is stored.
    """
    builder = _Builder(network, activation_bits, keep_layers=keep_layers)
    for layer in network.layers:
        builder.add(layer)
    output = network.output
    if "input" in builder.views[output].maps:
        builder.copy(output)
    return Graph(list(builder.stages.values()), builder.views)


def without_addition(stage: Stage, clip: tuple[int, int]) -> tuple[Stage, Stage]:
    """Take an adding stage apart: its convolution, and the addition behind an identity."""
    addition = stage.addition
    if addition is None:
        raise ValueError(f"stage {stage.name} does not add")
    name, shape = f"{addition.plain}:plain", stage.out_shape
    content = ((addition.plain, np.arange(shape[0])),)
    plain = replace(stage, result=name, content=content, addition=None)
    copy = identity(
        name=addition.layer.name,
        source=View.whole(name, shape),
        result=stage.result,
        content=stage.content,
        clip=clip,
    )
    return plain, replace(copy, addition=addition)


class _Builder:
    """Stages and views as they grow, layer by layer."""

    def __init__(
        self, network: CompressedNetwork, activation_bits: int, *, keep_layers: bool
    ) -> None:
        self.network = network
        self.shapes = network.shapes()
        self.bits = activation_bits
        self.full = (-(1 << activation_bits - 1), (1 << activation_bits - 1) - 1)
        self.keep_layers = keep_layers
        self.readers = Counter(name for layer in network.layers for name in layer.inputs)
        self.views = {"input": View.whole("input", network.input_shape)}
        self.stages: dict[str, Stage] = {}  # by the map that they store

    def add(self, layer: Layer) -> None:
        """Take up the next layer."""
        match layer:
            case Flatten():
                view = self.views[layer.inputs[0]]
                flat = view.flat or view.shape[1:] != (1, 1)
                self.views[layer.name] = replace(view, flat=flat)
            case Concat():
                self._concat(layer)
            case ChannelShuffle():
                self.views[layer.name] = self._map(layer.inputs[0]).select(layer.order)
            case Convolution():
                self._weighted(layer, self._map(layer.inputs[0]))
            case Linear():
                self._weighted(layer, replace(self.views[layer.inputs[0]], flat=False))
            case MaxPool() | AveragePool():
                self._pool(layer)
            case Lookup():
                table = self._table(layer)
                ready = self._mergeable(layer.inputs[0])
                if ready is not None:
                    self._merge(layer, ready, lambda stage: _looked_up(stage, table))
                else:
                    stage = self._behind_identity(layer, self.views[layer.inputs[0]])
                    self._store(replace(stage, lookup=table))
            case Add() | Multiply():
                self._add(layer)
            case _:
                raise TypeError(f"layer {layer.name!r}: no stage for {type(layer).__name__}")

    def copy(self, name: str) -> None:
        """Store a value that is a view of the network's input."""
        view = self.views[name]
        self._store(self._identity(name, view, name, name))
        self.views[name] = replace(View.whole(name, view.shape), flat=view.flat)

    def _store(self, stage: Stage) -> None:
        self.stages[stage.result] = stage

    def _identity(self, layer: str, view: View, result: str, value: str) -> Stage:
        content = ((value, np.arange(view.shape[0])),)
        return identity(
            name=layer,
            source=replace(view, flat=False),
            result=result,
            content=content,
            clip=self.full,
        )

    def _behind_identity(self, layer: Layer, view: View) -> Stage:
        """Return the copy behind which the layer goes, and view its result."""
        shape = (view.shape[0], *self.shapes[layer.name][1:]) if not view.flat else view.shape
        self.views[layer.name] = replace(View.whole(layer.name, shape), flat=view.flat)
        return self._identity(layer.name, view, layer.name, layer.name)

    def _map(self, name: str) -> View:
        """Return the value as a map: a flattened one is flattened in earnest."""
        view = self.views[name]
        if not view.flat:
            return view
        shape = self.shapes[name]
        result = f"{name}:vector" if name in self.stages else name
        self._store(
            identity(
                name=name,
                source=replace(view, flat=False),
                result=result,
                content=((name, np.arange(shape[0])),),
                clip=self.full,
                flatten=True,
            )
        )
        self.views[name] = View.whole(result, shape)
        return self.views[name]

    def _concat(self, layer: Concat) -> None:
        views = [self.views[name] for name in layer.inputs]
        alike = all(view.flat for view in views) and len({view.shape[1:] for view in views}) == 1
        if not alike:
            views = [self._map(name) for name in layer.inputs]
        whole = views[0]
        for view in views[1:]:
            whole = whole.then(view)
        self.views[layer.name] = whole

    def _weighted(self, layer: WeightedLayer, view: View) -> None:
        out_shape = self.shapes[layer.name]
        if isinstance(layer, Convolution):
            taps, kernel = Taps.of(layer.weights, layer.groups), layer.kernel
            stride, dilation = layer.stride, layer.dilation
            padding = (layer.padding[0], layer.padding[1])
            more = _absent_taps(layer)
            taps = replace(taps, ky=taps.ky + more[0], kx=taps.kx + more[1])
            kernel = (kernel[0] + 2 * more[0], kernel[1] + 2 * more[1])
            padding = (padding[0] + more[0] * dilation[0], padding[1] + more[1] * dilation[1])
        else:
            taps, kernel = Taps.of(layer.weights.reshape(-1, *view.shape)), view.shape[1:]
            stride, dilation, padding = (1, 1), (1, 1), (0, 0)
        self._store(
            Stage(
                name=layer.name,
                source=view,
                result=layer.name,
                content=((layer.name, np.arange(out_shape[0])),),
                in_shape=view.shape,
                out_shape=out_shape,
                result_shape=out_shape,
                taps=taps,
                kernel=kernel,
                codebook=np.asarray(layer.codebook, np.int64),
                bias=np.asarray(layer.bias, np.int64),
                scale=np.asarray(layer.scale, np.int64),
                shift=np.asarray(layer.shift, np.int64),
                rounding=layer.rounding,
                clip=layer.clip,
                stride=stride,
                padding=padding,
                dilation=dilation,
            )
        )
        self.views[layer.name] = View.whole(layer.name, out_shape)

    def _pool(self, layer: MaxPool | AveragePool) -> None:
        shape = self.shapes[layer.name]
        pooling = Pooling.of(layer, shape)

        def pooled(stage: Stage) -> Stage:
            result_shape = (stage.out_shape[0], *shape[1:])
            return replace(stage, pooling=pooling, result_shape=result_shape)

        view = self._map(layer.inputs[0])
        ready = self._mergeable(layer.inputs[0])
        if ready is not None:
            self._merge(layer, ready, pooled)
        else:
            self._store(pooled(self._behind_identity(layer, view)))

    def _add(self, layer: Add | Multiply) -> None:
        views = [self._map(name) for name in layer.inputs]
        order = list(self.stages)
        choices = []  # the later stage first: the other's result is there already
        for which, name in enumerate(layer.inputs):
            if views[which].shape != self.shapes[layer.name]:
                continue  # one value a channel is an operand
            ready = self._mergeable(name)
            if ready is not None and len(ready) == 1 and _is_plain(views[which]):
                choices.append((order.index(ready[0].result), which, ready))
        if choices:
            _, which, ready = max(choices, key=lambda choice: choice[0])
        else:
            which, ready = 0, None
        plain, other = layer.inputs[which], layer.inputs[1 - which]
        operand = self._whole_maps(layer, other, views[1 - which])
        addition = Addition(layer=layer, operand=operand, scale_operand=which == 0, plain=plain)
        if ready is None:
            self._store(replace(self._behind_identity(layer, views[which]), addition=addition))
            return
        self.stages[ready[0].result] = self.stages.pop(ready[0].result)  # behind its operand
        self._merge_into(layer, plain, ready, lambda stage: replace(stage, addition=addition))

    def _whole_maps(self, layer: Layer, name: str, view: View) -> View:
        """Return a view of the value that takes each channel of its maps exactly once."""
        maps = view.maps
        if "input" not in maps and all(
            view.covers(map_name, self.stages[map_name].out_shape[0]) for map_name in maps
        ):
            return view
        result = f"{layer.name}:operand"
        self._store(self._identity(layer.name, view, result, name))
        return View.whole(result, view.shape)

    def _table(self, layer: Lookup) -> IntArray:
        """Return the outputs for inputs 0, 1, ... of two's complement order."""
        size = 1 << self.bits
        inputs = (np.arange(size) + (size >> 1)) % size - (size >> 1)
        place = inputs - layer.first
        known = (place >= 0) & (place < layer.table.size)
        return np.where(known, layer.table[np.where(known, place, 0)], 0)

    def _mergeable(self, name: str) -> list[Stage] | None:
        """Return the stages that make a value, if one layer alone reads what they make."""
        if self.keep_layers or not self._read_once(name):
            return None
        view = self.views[name]
        stages = [self.stages.get(map_name) for map_name in view.maps]
        ready = [
            stage
            for stage in stages
            if stage is not None
            and stage.is_last_step
            and view.covers(stage.result, stage.out_shape[0])
        ]
        return ready if len(ready) == len(stages) else None

    def _read_once(self, name: str) -> bool:
        if name == "input" or self.readers[name] != 1:
            return False
        layer = self.network.layer(name)
        if isinstance(layer, Concat | ChannelShuffle | Flatten) and name not in self.stages:
            return all(self._read_once(source) for source in layer.inputs)
        return True

    def _merge(self, layer: Layer, ready: list[Stage], change: Callable[[Stage], Stage]) -> None:
        self._merge_into(layer, layer.inputs[0], ready, change)

    def _merge_into(
        self, layer: Layer, source: str, ready: list[Stage], change: Callable[[Stage], Stage]
    ) -> None:
        """Let the stages that make the source make the layer's output instead."""
        view = self.views[source]
        names = {
            stage.result: layer.name if len(ready) == 1 else f"{layer.name}:{stage.result}"
            for stage in ready
        }
        merged = {}
        for stage in ready:
            places, channels = view.places(stage.result)
            content = ((layer.name, places[np.argsort(channels)]),)
            merged[stage.result] = replace(
                change(stage), result=names[stage.result], content=content
            )
        stages = [merged.get(name, stage) for name, stage in self.stages.items()]
        self.stages = {stage.result: stage for stage in stages}
        gone = [name for name, old in self.views.items() if set(old.maps) & names.keys()]
        for name in gone:
            del self.views[name]
        shape = (view.shape[0], *next(iter(merged.values())).result_shape[1:])
        self.views[layer.name] = replace(view.renamed(names), shape=shape)


def _looked_up(stage: Stage, table: IntArray) -> Stage:
    """Return a stage that looks its outputs up, in one table with what it looked up before."""
    return replace(stage, lookup=table if stage.lookup is None else table[stage.lookup])


def _is_plain(view: View) -> bool:
    """Whether a view is a whole map in its own order."""
    _, channels = view.parts[0]
    return len(view.parts) == 1 and np.array_equal(channels, np.arange(channels.size))


def _absent_taps(layer: Convolution) -> tuple[int, int]:
    """Return how many rows and columns of absent taps lie on each side of a kernel.

    A row of the output is complete with an input row that it meets. Where padding is as high as the
    kernel or higher, some rows meet none; a higher kernel, with as much more padding, meets one.
    """
    lacking = (max(layer.padding[axis::2]) - (layer.extent[axis] - 1) for axis in (0, 1))
    above, left = (
        max(0, -(-amount // dilation))
        for amount, dilation in zip(lacking, layer.dilation, strict=True)
    )
    return above, left
