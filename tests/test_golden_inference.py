"""Reference inference against loops over the definition, and against SciPy."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import correlate

from thresher.golden.codes.rlc import RLCFormat, rlc_encode_row
from thresher.golden.config import MultiplierKind
from thresher.golden.descriptors import Rounding
from thresher.golden.inference import Macs, infer, seen_by
from thresher.golden.multipliers import represent
from thresher.golden.network import (
    AveragePool,
    CompressedNetwork,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    WeightedLayer,
)
from thresher.golden.random_network import random_inputs, random_network

Maps = npt.NDArray[np.int64]


HALF_AWAY = Rounding.HALF_AWAY


def rounded(value: int, scale: int, shift: int, rounding: Rounding) -> int:
    if rounding is Rounding.DOUBLE and shift > 31:
        return rounded(rounded(value, scale, 31, Rounding.HALF_UP), 1, shift - 31, HALF_AWAY)
    down, rest = divmod(value * scale, 1 << shift)
    twice = 2 * rest - (1 << shift)
    if twice != 0:
        return down + (twice > 0)
    match rounding:
        case Rounding.HALF_UP | Rounding.DOUBLE:
            return down + 1
        case Rounding.HALF_AWAY:
            return down + (value > 0)
        case Rounding.HALF_EVEN:
            return down + down % 2


def pairs(
    layer: WeightedLayer, one: Maps
) -> dict[tuple[int, int, int], list[tuple[int, int, bool]]]:
    """Return for each output its (weight, activation, whether it is inside the map)."""
    dense = layer.dense_weights()
    if isinstance(layer, Linear):
        return {
            (o, 0, 0): [(int(w), int(a), True) for w, a in zip(dense[o], one.flat, strict=True)]
            for o in range(len(dense))
        }
    assert isinstance(layer, Convolution)
    found = {}
    out, height, width = layer.output_shape(one.shape)
    inner = one.shape[0] // layer.groups
    for o, y, x in product(range(out), range(height), range(width)):
        terms = []
        for c, ky, kx in product(range(inner), *map(range, layer.kernel)):
            row = y * layer.stride[0] + ky * layer.dilation[0] - layer.padding[0]
            column = x * layer.stride[1] + kx * layer.dilation[1] - layer.padding[1]
            inside = 0 <= row < one.shape[1] and 0 <= column < one.shape[2]
            channel = o // (out // layer.groups) * inner + c
            value = int(one[channel, row, column]) if inside else 0
            terms.append((int(dense[o, c, ky, kx]), value, inside))
        found[o, y, x] = terms
    return found


def slowly(layer: Layer, one: Maps) -> Maps:
    """The definition, value after value, for one input."""
    shape = layer.output_shape(one.shape)
    if isinstance(layer, Flatten):
        return one.reshape(shape)
    values = np.zeros(shape, dtype=np.int64)
    if isinstance(layer, WeightedLayer):
        for (o, y, x), terms in pairs(layer, one).items():
            acc = int(layer.bias[o]) + sum(w * a for w, a, _ in terms)
            result = rounded(acc, int(layer.scale[o]), int(layer.shift[o]), layer.rounding)
            values[o, y, x] = min(max(result, layer.clip[0]), layer.clip[1])
        return values
    assert isinstance(layer, MaxPool | AveragePool)
    for c, y, x in np.ndindex(shape):
        top = y * layer.stride[0] - layer.padding[0]
        left = x * layer.stride[1] - layer.padding[1]
        window = one[c, max(top, 0) : top + layer.kernel[0], max(left, 0) : left + layer.kernel[1]]
        if isinstance(layer, MaxPool):
            values[c, y, x] = window.max()
        else:
            scale = layer.scale
            if layer.cut_scales is not None:
                rows, columns = (layer.kernel[k] - window.shape[k] for k in (0, 1))
                by_rows, by_columns = np.shape(layer.cut_scales)  # 1: alike for any number
                scale = layer.cut_scales[rows * (by_rows > 1)][columns * (by_columns > 1)]
            total = int(window.sum()) + layer.origin * window.size
            mean = rounded(total, scale, layer.shift, layer.rounding)
            values[c, y, x] = mean - layer.origin
    return values


def count_slowly(layer: WeightedLayer, maps: Maps, *, padded: bool) -> Macs:
    terms = [
        (w != 0, a != 0)
        for one in maps
        for values in pairs(layer, one).values()
        for w, a, inside in values
        if inside or padded
    ]
    return Macs(
        dense=len(terms),
        weights=sum(w for w, _ in terms),
        activations=sum(a for _, a in terms),
        both=sum(w and a for w, a in terms),
    )


@pytest.mark.parametrize("seed", range(60))
def test_outputs_and_macs_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, channels=4, size=7, pool_first=bool(seed % 2))
    maps = {"input": random_inputs(rng, network, 2)}
    result = infer(network, maps["input"])
    for layer in network.layers:
        source = maps[layer.inputs[0]]
        expected = np.stack([slowly(layer, one) for one in source])
        assert np.array_equal(result.outputs[layer.name], expected), layer
        maps[layer.name] = expected
        counts = result.counts[layer.name]
        if isinstance(layer, WeightedLayer):
            assert counts.macs == count_slowly(layer, source, padded=True)
            assert counts.macs_in_bounds == count_slowly(layer, source, padded=False)
        else:
            assert counts.macs == counts.macs_in_bounds == Macs()


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_a_convolution_is_scipys_correlation(stride: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    layer = Convolution(
        name="conv",
        weights=rng.integers(256, size=(6, 3, 5, 4)).astype(np.uint8),
        codebook=np.arange(-128, 128),
        bias=rng.integers(-1000, 1000, size=6),
        scale=[1] * 6,
        shift=[7] * 6,
        clip=(-32768, 32767),
        stride=stride,
        padding=(2, 1, 3, 0),
    )
    network = CompressedNetwork(
        name="one", input_shape=(3, 13, 11), input_range=(-256, 255), layers=(layer,)
    )
    inputs = rng.integers(-256, 256, size=(2, 3, 13, 11))
    around = np.pad(inputs, ((0, 0), (0, 0), (2, 3), (1, 0)))
    for one, output in zip(around, infer(network, inputs).outputs["conv"], strict=True):
        for o, kernel in enumerate(layer.dense_weights()):
            sums = correlate(one, kernel, mode="valid", method="direct")[0]
            acc = sums[:: stride[0], :: stride[1]] + layer.bias[o]
            assert np.array_equal(output[o], np.clip((acc + 64) >> 7, -32768, 32767))


def test_sums_beyond_single_precision_are_exact() -> None:
    size = 3000
    weights = np.ones((1, size), dtype=np.uint8)
    layer = Linear(
        name="sum", weights=weights, codebook=[0, 255], bias=[1], scale=[1], shift=[16],
        clip=(-32768, 32767),
    )  # fmt: skip
    network = CompressedNetwork(
        name="one", input_shape=(size, 1, 1), input_range=(0, 32767), layers=(layer,)
    )
    inputs = np.full((1, size, 1, 1), 32767)
    inputs[0, 0] = 1
    expected = (1 + 255 * int(inputs.sum()) + (1 << 15)) >> 16
    assert infer(network, inputs[:, :, :, :]).outputs["sum"].item() == min(expected, 32767)


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    network = random_network(rng, layers=3)
    inputs = random_inputs(rng, network, 9)
    whole = infer(network, inputs)
    monkeypatch.setattr("thresher.golden.inference.reference._BATCH_VALUES", 1)
    one_by_one = infer(network, inputs)
    assert one_by_one.counts == whole.counts
    for name, values in whole.outputs.items():
        assert np.array_equal(one_by_one.outputs[name], values)
    assert infer(network, inputs[:0]).outputs[network.output].shape[0] == 0
    assert set(infer(network, inputs, keep=[network.output]).outputs) == {network.output}


@pytest.mark.parametrize("seed", range(12))
def test_coded_activations_are_counted_without_coding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fmt = RLCFormat(run_bits=int(rng.integers(1, 6)), value_bits=9)
    network = random_network(rng, layers=2)
    inputs = random_inputs(rng, network, 3)
    result = infer(network, inputs, rlc=fmt)
    first = result.counts[network.layers[0].name]
    for maps, size in (
        (inputs, first.inputs),
        (result.outputs[network.layers[0].name], first.outputs),
    ):
        rows = maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1] * maps.shape[3])
        words = sum(1 + len(rlc_encode_row(row, fmt)) for row in rows)
        assert size.bytes_coded == 8 * words
        assert size.values == maps.size
        assert size.nonzero == np.count_nonzero(maps)
        assert size.bytes_entropy <= size.bytes_coded
    low, high = network.input_range
    assert first.inputs.bytes_dense == inputs.size * (1 if high - low < 256 and high < 256 else 2)


def test_the_total_is_the_sum() -> None:
    rng = np.random.default_rng(2)
    network = random_network(rng, layers=4, kinds=("convolution", "linear"))
    result = infer(network, random_inputs(rng, network, 2))
    parts = result.counts.values()
    assert result.total.macs.both == sum(part.macs.both for part in parts)
    assert result.total.weights.bytes_dense == sum(part.weights.values for part in parts)


@pytest.mark.parametrize("kind", MultiplierKind)
def test_a_multiplier_sees_represented_weights(kind: MultiplierKind) -> None:
    rng = np.random.default_rng(4)
    network = random_network(rng, layers=2, kinds=("convolution",))
    inputs = random_inputs(rng, network, 2)
    seen = network.with_codebooks(
        {
            layer.name: represent(layer.codebook, kind, 8)
            for layer in network.layers
            if isinstance(layer, WeightedLayer)
        }
    )
    assert seen_by(network, kind) == seen
    expected = infer(seen, inputs).outputs[network.output]
    assert np.array_equal(infer(network, inputs, kind).outputs[network.output], expected)


def test_bad_inputs_are_refused() -> None:
    layer = Flatten(name="flat")
    network = CompressedNetwork(
        name="one", input_shape=(1, 2, 3), input_range=(0, 255), layers=(layer,)
    )
    with pytest.raises(TypeError, match="inputs must be integers, not float64"):
        infer(network, np.zeros((1, 1, 2, 3)))
    with pytest.raises(ValueError, match=r"inputs must have shape \(n, 1, 2, 3\), not \(1, 2, 3\)"):
        infer(network, np.zeros((1, 2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match=r"inputs must be in 0\.\.255, not 256"):
        infer(network, np.full((1, 1, 2, 3), 256))
    with pytest.raises(KeyError, match="no layer 'other'"):
        infer(network, np.zeros((1, 1, 2, 3), dtype=np.int64), keep=["other"])


@pytest.mark.slow
def test_ten_thousand_digits_take_less_than_a_minute() -> None:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> dict[str, Any]:
        return {
            "weights": (rng.integers(16, size=shape) * (rng.random(shape) < 0.2)).astype(np.uint8),
            "codebook": np.arange(16),
            "bias": np.zeros(shape[0], np.int64),
            "scale": np.ones(shape[0], np.int64),
            "shift": np.full(shape[0], 6),
        }

    network = CompressedNetwork(
        name="lenet-5",
        input_shape=(1, 28, 28),
        input_range=(0, 255),
        layers=(
            Convolution(name="conv1", **weights(20, 1, 5, 5)),
            MaxPool(name="pool1", inputs=("conv1",), kernel=(2, 2), stride=(2, 2)),
            Convolution(name="conv2", inputs=("pool1",), **weights(50, 20, 5, 5)),
            MaxPool(name="pool2", inputs=("conv2",), kernel=(2, 2), stride=(2, 2)),
            Linear(name="fc1", inputs=("pool2",), **weights(500, 800)),
            Linear(name="fc2", inputs=("fc1",), **weights(10, 500)),
        ),
    )
    digits = rng.integers(256, size=(10_000, 1, 28, 28), dtype=np.uint8)
    begin = time.process_time()
    infer(network, digits, keep=["fc2"])
    assert time.process_time() - begin < 60
