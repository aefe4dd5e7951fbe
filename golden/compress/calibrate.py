"""Integer arithmetic for a dense network, its scales taken from what samples give.

Weights are symmetric integers. A value that is never negative becomes 0..255, any other
-256..255; real zero is 0. Values that a step-preserving layer (max pooling, flattening, a shuffle,
a concatenation) connects have one step, the greatest that any of them needs: so the inputs of a
concatenation need no rescaling. A mean has a step of its own, for it is smaller than what it is the
mean of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.addition import ADD_HEADROOM
from thresher.golden.compress.dense import RELU, UNBOUNDED, DenseError, DenseLayer, DenseNetwork
from thresher.golden.compress.functions import apply, is_never_negative
from thresher.golden.compress.quantise import (
    IntegerWeights,
    activation_step,
    quantise_channels,
    quantise_codebook,
    quantise_factor,
    quantise_mean,
)
from thresher.golden.compress.share import share
from thresher.golden.densities import with_densities
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
    Range,
    Shape,
)

__all__ = ["SIGNED", "SIGNED_TOP", "UNSIGNED", "calibrate", "quantise", "quantise_input"]

SIGNED_TOP = 250  # leaves room to 255 for inputs beyond the calibration samples
UNSIGNED, SIGNED = (0, 255), (-256, 255)
CODEBOOK_ENTRIES = 256
BIAS_BITS = 32
CHANNEL_BIAS = 1 << 22  # a channel's greatest bias, where its weights would allow a smaller step

_KEEP_STEP = {"max_pool", "flatten", "channel_shuffle", "concat"}


def quantise(
    dense: DenseNetwork,
    samples: npt.ArrayLike,
    *,
    percentile: float = 100.0,
    shared: bool = False,
    weight_bits: int = 8,
    metadata: Mapping[str, object] | None = None,
) -> CompressedNetwork:
    """Return the integer network of a dense one.

    Parameters
    ----------
    dense
        Float weights. Its zeros stay zeros.
    samples
        Real inputs (n, C, H, W), from which the steps of the activations are taken. All samples go
        through the network together, layer by layer.
    percentile
        Of the magnitudes of a layer's outputs that are to be represented; what is above it is
        clipped. The input's and the last layer's are all represented.
    shared
        The weights of each layer are shared, by at most 255 values beside zero; these are rounded
        with one step a layer. Otherwise each output channel has its own step, and the codebook of
        a layer is the integers that occur.
    weight_bits
        Width of the integer weights: 2 to 8, or 9 where they are shared.
    metadata
        For the compressed network. ``scale``, ``zero_point`` and the like are added to its
        ``"input"`` and ``"output"``.

    Returns
    -------
    network
        Its layers have the names of the dense ones. Its metadata has the densities of the samples.

    Raises
    ------
    DenseError
        If the network cannot be expressed in integers, or the samples do not fit it.
    """
    x = np.asarray(samples, dtype=np.float32)
    if not np.isfinite(x).all():
        raise DenseError("samples must be finite numbers")
    weights = {}
    for layer in dense.layers:
        if layer.weight is None:
            continue
        try:
            weights[layer.name] = (
                _shared_weights(layer, weight_bits)
                if shared
                else quantise_channels(layer.weight, 0.0, weight_bits)
            )
        except ValueError as error:
            raise layer.error(str(error)) from None
    return calibrate(dense, x, weights, percentile=percentile, metadata=metadata)


def calibrate(
    dense: DenseNetwork,
    samples: npt.NDArray[np.floating],
    weights: Mapping[str, IntegerWeights],
    *,
    percentile: float = 100.0,
    metadata: Mapping[str, object] | None = None,
) -> CompressedNetwork:
    """Return the integer network of a dense one whose weights are integers already.

    Parameters are those of :func:`quantise`; further:

    Parameters
    ----------
    weights
        Of each layer that has weights, by name.
    """
    dense.check_shape(samples)
    dense, rescaled = _with_rescaled_inputs(dense)
    weights = {**weights, **rescaled}
    steps, never_negative = _steps(dense, samples, weights, percentile)
    low_high = dense.input_range or (UNSIGNED if never_negative["input"] else SIGNED)
    making = _Making(
        steps=steps,
        never_negative=never_negative,
        ranges={"input": low_high},
        shapes=dense.shapes(),
    )
    for layer in dense.layers:
        try:
            making.add(layer, weights.get(layer.name))
        except DenseError:
            raise
        except ValueError as error:
            raise layer.error(str(error).removeprefix(f"layer {layer.name!r}: ")) from None
    said = dict(metadata or {})
    if dense.input_scale is None:
        _describe(said, "input", {"scale": steps["input"], "zero_point": 0, "dtype": "float32"})
        _describe(said, "input", {"layout": "NCHW", "shape": list(dense.input_shape)})
    _describe(said, "output", {"scale": steps[dense.output], "zero_point": 0})
    network = CompressedNetwork(
        name=dense.name,
        input_shape=dense.input_shape,
        input_range=low_high,
        layers=tuple(making.layers),
        metadata=said,
    )
    return with_densities(network, quantise_input(samples, steps["input"], low_high))


def quantise_input(samples: npt.ArrayLike, step: float, low_high: Range) -> npt.NDArray[np.int64]:
    """Return the integers nearest to real inputs, clipped to the network's range."""
    scaled = np.rint(np.asarray(samples, dtype=np.float64) / step)
    return np.clip(scaled, *low_high).astype(np.int64)


def _describe(metadata: dict[str, object], key: str, more: Mapping[str, object]) -> None:
    """Add to an entry what it does not say."""
    said = metadata.get(key, {})
    metadata[key] = {**more, **(said if isinstance(said, Mapping) else {})}


def _shared_weights(layer: DenseLayer, weight_bits: int) -> IntegerWeights:
    assert layer.weight is not None
    values = np.unique(layer.weight[layer.weight != 0])
    if len(values) >= CODEBOOK_ENTRIES:
        raise ValueError(
            f"shared weights must have at most {CODEBOOK_ENTRIES - 1} values beside zero,"
            f" not {len(values)}"
        )
    shared = share(layer.weight, CODEBOOK_ENTRIES)
    indices, codebook, step = quantise_codebook(shared, weight_bits)
    return IntegerWeights(indices=indices, codebook=codebook, steps=np.full(len(indices), step))


def _with_rescaled_inputs(dense: DenseNetwork) -> tuple[DenseNetwork, dict[str, IntegerWeights]]:
    """Rescale an input of given scale where a concatenation reads it.

    Returns
    -------
    network, weights
        With depthwise convolutions, and the weights of these.
    """
    if dense.input_range is None:
        return dense, {}
    shapes, of_input = dense.shapes(), {"input"}
    layers: list[DenseLayer] = []
    weights = {}
    for layer in dense.layers:
        inputs = layer.inputs
        for number, source in enumerate(inputs if layer.kind == "concat" else ()):
            if source not in of_input:
                continue
            name, channels = f"{layer.name}.input{number}", shapes[source][0]
            one = np.ones((channels, 1, 1, 1), dtype=np.uint8)
            weights[name] = IntegerWeights(
                indices=one, codebook=np.array([0, 1]), steps=np.ones(channels)
            )
            rescaling = DenseLayer(
                name=name,
                kind="convolution",
                inputs=(source,),
                weight=one.astype(np.float64),
                groups=channels,
                clip=RELU if dense.input_range[0] >= 0 else UNBOUNDED,
            )
            layers.append(rescaling)
            inputs = (*inputs[:number], name, *inputs[number + 1 :])
        if layer.kind in _KEEP_STEP and layer.inputs[0] in of_input and inputs == layer.inputs:
            of_input.add(layer.name)
        layers.append(replace(layer, inputs=inputs))
    return replace(dense, layers=tuple(layers)), weights


def _steps(
    dense: DenseNetwork,
    samples: npt.NDArray[np.floating],
    weights: Mapping[str, IntegerWeights],
    percentile: float,
) -> tuple[dict[str, float], dict[str, bool]]:
    """Return each value's step, and whether it is never negative."""
    # The group of a value: all that step-preserving layers connect it with.
    group = {"input": "input"}
    for layer in dense.layers:
        group[layer.name] = layer.name
        if layer.kind in _KEEP_STEP:
            joined = {group[source] for source in layer.inputs} | {layer.name}
            first = group[layer.inputs[0]]
            group = {name: first if of in joined else of for name, of in group.items()}

    never_negative = {"input": dense.input_range[0] >= 0 if dense.input_range else False}
    if dense.input_range is None:
        never_negative["input"] = bool(samples.min() >= 0)
    needed: dict[str, float] = {}
    if dense.input_scale is None:
        top = UNSIGNED[1] if never_negative["input"] else SIGNED_TOP
        needed[group["input"]] = activation_step(samples, top)

    # The network as it will be: the next layers' steps follow from what they will really see.
    seen = dense.with_weights({name: made.dense() for name, made in weights.items()})
    layers = {layer.name: layer for layer in dense.layers}
    for name, value in seen.values(samples):
        layer = layers[name]
        never_negative[name] = _is_never_negative(layer, never_negative)
        if layer.kind in _KEEP_STEP:
            continue
        top = UNSIGNED[1] if never_negative[name] else SIGNED_TOP
        try:
            part = 100.0 if group[name] == group[dense.output] else percentile
            step = activation_step(value, top, part)
        except ValueError as error:
            raise layer.error(str(error)) from None
        needed[group[name]] = max(step, needed.get(group[name], 0.0))
    if dense.input_scale is not None:
        needed[group["input"]] = dense.input_scale
    return {name: needed[of] for name, of in group.items()}, never_negative


def _is_never_negative(layer: DenseLayer, known: Mapping[str, bool]) -> bool:
    match layer.kind:
        case "convolution" | "linear":
            return layer.clip[0] >= 0
        case "add" | "multiply":
            return layer.clip[0] >= 0 or all(known[source] for source in layer.inputs)
        case "unary":
            return is_never_negative(layer.function, layer.parameters)
    return all(known[source] for source in layer.inputs)


@dataclass
class _Making:
    """Integer layers, made one after another."""

    steps: Mapping[str, float]
    never_negative: Mapping[str, bool]
    ranges: dict[str, Range]
    shapes: Mapping[str, Shape]
    layers: list[Layer] = field(default_factory=list)

    def add(self, layer: DenseLayer, weights: IntegerWeights | None) -> None:
        made = self._made(layer, weights)
        self.layers.append(made)
        self.ranges[layer.name] = made.output_range(*(self.ranges[name] for name in layer.inputs))

    def _made(self, layer: DenseLayer, weights: IntegerWeights | None) -> Layer:  # noqa: PLR0911  # one a kind
        if weights is not None:
            return self._weighted(layer, weights)
        name, inputs = layer.name, layer.inputs
        match layer.kind:
            case "flatten":
                return Flatten(name=name, inputs=inputs)
            case "concat":
                return Concat(name=name, inputs=inputs)
            case "channel_shuffle":
                return ChannelShuffle(name=name, inputs=inputs, order=layer.order)
            case "add":
                return self._addition(layer)
            case "multiply":
                return self._product(layer)
            case "unary":
                return self._lookup(layer)
        return self._pool(layer)

    def _pool(self, layer: DenseLayer) -> MaxPool | AveragePool:
        common = {
            "name": layer.name,
            "inputs": layer.inputs,
            "kernel": layer.kernel,
            "stride": layer.stride,
            "padding": layer.padding,
        }
        if layer.kind == "max_pool":
            return MaxPool(**common)  # type: ignore[arg-type]  # values of many types
        factor = self.steps[layer.inputs[0]] / self.steps[layer.name]
        return AveragePool(
            **common,  # type: ignore[arg-type]  # values of many types
            **quantise_mean(factor, layer.divisors(self.shapes[layer.inputs[0]])),
            clip=self._clip(layer),
        )

    def _clip(self, layer: DenseLayer) -> Range:
        low, high = UNSIGNED if self.never_negative[layer.name] else SIGNED
        least, greatest = (np.rint(bound / self.steps[layer.name]) for bound in layer.clip)
        low, high = int(max(low, least)), int(min(high, greatest))
        if low > high:
            raise ValueError(f"its bounds {layer.clip} hold no value of the samples")
        return low, high

    def _addition(self, layer: DenseLayer) -> Add:
        first, second = sorted(layer.inputs, key=lambda name: -self.steps[name])
        great, small = self.steps[first], self.steps[second]
        operand_scale, operand_shift = quantise_factor(small / (2 * great))
        scale, shift = quantise_factor(great / self.steps[layer.name] / (1 << ADD_HEADROOM - 1))
        return Add(
            name=layer.name,
            inputs=(first, second),
            operand_scale=operand_scale,
            operand_shift=operand_shift,
            scale=scale,
            shift=shift,
            clip=self._clip(layer),
        )

    def _product(self, layer: DenseLayer) -> Multiply:
        first, second = (self.steps[name] for name in layer.inputs)
        scale, shift = quantise_factor(first * second / self.steps[layer.name])
        return Multiply(
            name=layer.name, inputs=layer.inputs, scale=scale, shift=shift, clip=self._clip(layer)
        )

    def _lookup(self, layer: DenseLayer) -> Lookup:
        (source,) = layer.inputs
        low, high = self.ranges[source]
        real = apply(
            layer.function, np.arange(low, high + 1) * self.steps[source], layer.parameters
        )
        table = np.clip(np.rint(real / self.steps[layer.name]), *self._clip(layer))
        return Lookup(name=layer.name, inputs=layer.inputs, first=low, table=table.astype(np.int64))

    def _weighted(self, layer: DenseLayer, weights: IntegerWeights) -> Convolution | Linear:
        in_step, out_step = self.steps[layer.inputs[0]], self.steps[layer.name]
        real_bias = np.zeros(len(weights.steps)) if layer.bias is None else layer.bias
        if np.ptp(weights.steps):
            assert layer.weight is not None
            least = np.abs(real_bias) / (in_step * CHANNEL_BIAS)
            if (least > weights.steps).any():
                weights = quantise_channels(layer.weight, least)
        bias = np.rint(real_bias / (weights.steps * in_step))
        if np.abs(bias).max() >= 1 << BIAS_BITS - 1:
            greatest = np.abs(real_bias).max()
            raise ValueError(f"its bias of {greatest:.3g} does not fit {BIAS_BITS} bits")
        factors = [quantise_factor(step * in_step / out_step) for step in weights.steps.tolist()]
        common = {
            "name": layer.name,
            "inputs": layer.inputs,
            "codebook": weights.codebook,
            "bias": bias.astype(np.int64),
            "scale": np.array([scale for scale, _ in factors]),
            "shift": np.array([shift for _, shift in factors]),
            "clip": self._clip(layer),
        }
        if layer.kind == "linear":
            return Linear(weights=weights.indices, **common)  # type: ignore[arg-type]
        return Convolution(
            weights=weights.indices,
            **common,  # type: ignore[arg-type]  # values of many types
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
