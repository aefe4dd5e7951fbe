"""Compression: each stage against its definition, and the built-in networks' figures."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.cluster.vq import kmeans2  # type: ignore[import-untyped, unused-ignore]

import thresher.golden
from thresher.golden.compress.dense import RELU, DenseError, DenseLayer, DenseNetwork
from thresher.golden.compress.dense_file import load_dense, save_dense
from thresher.golden.compress.funnel import STAGES, compress, funnel
from thresher.golden.compress.prune import prune_below, prune_to_density
from thresher.golden.compress.quantise import (
    activation_step,
    quantise_codebook,
    quantise_factor,
)
from thresher.golden.compress.share import kmeans_1d, share
from thresher.golden.config import Config
from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork, WeightedLayer, check_accumulators
from thresher.golden.thr_file import load, save

SEED = 20260714
ROOT = Path(__file__).resolve().parents[1]
BUILT_IN = Path(thresher.golden.__file__).parent / "builtin"
MNIST = ROOT.parent / "shared" / "data" / "mnist"

# Bytes and top-1 error of Deep Compression, ICLR 2016, tables 1 to 3.
PUBLISHED = {"lenet-300-100": (27_000, 0.0158), "lenet-5": (44_000, 0.0080)}

FloatArray = npt.NDArray[np.float64]


def small_network(rng: np.random.Generator) -> DenseNetwork:
    def weighted(name: str, kind: str, *shape: int, **more: Any) -> DenseLayer:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weight = rng.normal(size=shape) * scale
        return DenseLayer(
            name=name, kind=kind, weight=weight, bias=rng.normal(size=shape[0]) / 10, **more
        )

    return DenseNetwork(
        name="small",
        input_shape=(2, 12, 12),
        input_range=(0, 255),
        input_scale=1 / 255,
        layers=(
            weighted("c1", "convolution", 8, 2, 3, 3, clip=RELU, padding=(1, 1, 1, 1)),
            DenseLayer(name="p1", kind="max_pool", kernel=(2, 2), stride=(2, 2)),
            weighted("c2", "convolution", 12, 4, 3, 3, clip=RELU, stride=(2, 1), groups=2),
            DenseLayer(name="p2", kind="average_pool", kernel=(2, 2), stride=(1, 1)),
            DenseLayer(name="flat", kind="flatten"),
            weighted("f1", "linear", 20, 36, clip=RELU),
            weighted("f2", "linear", 5, 20),
        ),
    )


def small_inputs(rng: np.random.Generator, count: int = 50) -> npt.NDArray[np.int64]:
    return rng.integers(0, 256, (count, 2, 12, 12)) * (rng.random((count, 2, 12, 12)) < 0.6)


def squared_error(values: FloatArray, centroids: FloatArray) -> float:
    return float((np.abs(values[:, None] - centroids).min(1) ** 2).sum())


def best_squared_error(values: FloatArray, count: int) -> float:
    """Try every way to cut the sorted values into intervals."""
    ordered = np.sort(values)
    return min(
        sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(ordered, list(cuts)))
        for cuts in itertools.combinations(range(1, len(ordered)), count - 1)
    )


# --- pruning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, 0.08, 0.29, 0.5, 1.0])
def test_pruning_keeps_the_largest_magnitudes(density: float) -> None:
    weights = np.random.default_rng(SEED).normal(size=(10, 10))
    pruned = prune_to_density(weights, density)
    kept = pruned != 0
    assert kept.sum() == round(100 * density)
    assert np.array_equal(pruned[kept], weights[kept])
    if 0 < density < 1:
        assert np.abs(weights[kept]).min() > np.abs(weights[~kept]).max()


def test_pruning_keeps_no_more_than_asked_for_among_equals() -> None:
    assert np.count_nonzero(prune_to_density(np.ones(10), 0.35)) == 3


def test_pruning_leaves_its_argument_alone() -> None:
    weights = np.ones(4)
    prune_to_density(weights, 0)
    prune_below(weights, 99)
    assert weights.tolist() == [1, 1, 1, 1]


def test_threshold_pruning_is_in_standard_deviations() -> None:
    weights = np.random.default_rng(SEED).normal(size=10_000) * 7
    assert np.mean(prune_below(weights, 2.0) != 0) == pytest.approx(0.0455, abs=0.005)


def test_pruning_names_bad_parameters() -> None:
    with pytest.raises(ValueError, match=r"density must be in 0\.\.1, not 1\.5"):
        prune_to_density([1.0], 1.5)
    with pytest.raises(ValueError, match="factor must be at least 0, not -1"):
        prune_below([1.0], -1)


# --- sharing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_kmeans_is_a_fixed_point_near_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, count = rng.normal(size=14), int(rng.integers(2, 6))
    centroids = kmeans_1d(values, count)
    nearest = np.abs(values[:, None] - centroids).argmin(1)
    assert np.allclose(centroids, [values[nearest == i].mean() for i in range(len(centroids))])
    best = best_squared_error(values, count)
    assert best <= squared_error(values, centroids) * (1 + 1e-9)
    assert squared_error(values, centroids) < 3 * best + 0.05 * np.square(values).sum()


def test_kmeans_finds_clusters_that_are_apart() -> None:
    rng = np.random.default_rng(SEED)
    centres = np.array([-5.0, -1.0, 2.0, 8.0])
    values = (centres[:, None] + rng.uniform(-0.3, 0.3, (4, 4))).ravel()
    assert squared_error(values, kmeans_1d(values, 4)) == pytest.approx(
        best_squared_error(values, 4)
    )


def test_kmeans_equals_scipy_from_the_same_start() -> None:
    values = np.random.default_rng(SEED).triangular(-1, 0, 1, size=2000)
    start = np.linspace(values.min(), values.max(), 16)
    expected, _ = kmeans2(values, start, iter=300, minit="matrix", missing="raise")
    assert np.allclose(kmeans_1d(values, 16), expected)


def test_kmeans_keeps_few_distinct_values_exactly() -> None:
    values = np.repeat([0.1, -0.7, 0.3], 5)
    assert kmeans_1d(values, 3).tolist() == [-0.7, 0.1, 0.3]
    assert kmeans_1d([2.0, 4.0], 1).tolist() == [3.0]


def test_kmeans_names_bad_parameters() -> None:
    with pytest.raises(ValueError, match="at least one value, not 0"):
        kmeans_1d([], 3)
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        kmeans_1d([1.0], 0)


@pytest.mark.parametrize("entries", [2, 3, 16, 256])
def test_sharing_takes_the_nearest_centroid_and_keeps_zeros(entries: int) -> None:
    rng = np.random.default_rng(SEED)
    weights = prune_to_density(rng.normal(size=(30, 40)), 0.4)
    shared = share(weights, entries)
    assert len(shared.codebook) <= entries
    assert shared.codebook[0] == 0
    assert np.array_equal(shared.indices == 0, weights == 0)
    kept = weights != 0
    nearest = np.abs(weights[kept][:, None] - shared.codebook[1:]).min(1)
    assert np.allclose(np.abs(shared.dense() - weights)[kept], nearest)


def test_sharing_of_zeros_has_one_entry() -> None:
    shared = share(np.zeros((2, 3)), 16)
    assert shared.codebook.tolist() == [0.0]
    assert not shared.indices.any()


@pytest.mark.parametrize("entries", [1, 257])
def test_sharing_names_a_bad_codebook_size(entries: int) -> None:
    with pytest.raises(ValueError, match=rf"entries must be in 2\.\.256, not {entries}"):
        share([1.0], entries)


# --- quantisation ----------------------------------------------------------------------------


@pytest.mark.parametrize("weight_bits", [2, 4, 8, 9])
def test_codebooks_are_rounded_and_merged(weight_bits: int) -> None:
    shared = share(np.random.default_rng(SEED).normal(size=3000), 64)
    indices, codebook, step = quantise_codebook(shared, weight_bits)
    assert np.abs(codebook).max() == 2 ** (weight_bits - 1) - 1
    assert codebook[0] == 0
    assert len(np.unique(codebook)) == len(codebook)
    assert np.abs(codebook[indices] * step - shared.dense()).max() <= step / 2 * (1 + 1e-9)


@pytest.mark.parametrize("factor", [1e-9, 3.3e-5, 0.5, 1 / 3, 1 - 2**-20, 1, 77.7, 30000.0])
@pytest.mark.parametrize("bits", [1, 8, 16, 31])
def test_factors_are_near(factor: float, bits: int) -> None:
    scale, shift = quantise_factor(factor, bits)
    assert 0 < scale < 2**31
    assert 0 <= shift <= 63
    assert scale / 2**shift == pytest.approx(factor, rel=2.0**-bits)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan"), 1e30, 1e-30])
def test_factors_out_of_range_are_named(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must"):
        quantise_factor(factor)


def test_a_percentile_clips_outliers() -> None:
    values = np.concatenate([np.zeros(10_000), np.linspace(0.01, 1, 1000), [50.0]])
    assert activation_step(values, 100) == 0.5
    assert activation_step(values, 100, 99.0) == pytest.approx(0.01, rel=0.02)


# --- the whole way ---------------------------------------------------------------------------


def test_the_integer_network_computes_nearly_what_the_dense_one_does() -> None:
    rng = np.random.default_rng(SEED)
    dense, inputs = small_network(rng), small_inputs(rng)
    network = compress(dense, inputs, entries=256)
    exact = dense.run(inputs)
    outputs = infer(network, inputs).outputs
    for layer in dense.layers:
        ours, real = outputs[layer.name], exact[layer.name]
        assert ours.shape == real.shape
        step = float((ours * real).sum() / np.square(ours).sum())
        assert np.abs(ours * step - real).max() < 0.06 * np.abs(real).max(), layer.name
    check_accumulators(network, Config().accumulator_bits)


def test_densities_and_codebooks_are_as_asked_for() -> None:
    rng = np.random.default_rng(SEED)
    network = compress(
        small_network(rng),
        small_inputs(rng),
        density={"c2": 0.25, "f1": 0.1},
        entries={"c1": 5, "f1": 9},
    )
    weights = {
        layer.name: layer.dense_weights()
        for layer in network.layers
        if isinstance(layer, WeightedLayer)
    }
    density = {name: np.count_nonzero(w) / w.size for name, w in weights.items()}
    assert 0.2 < density["c2"] <= 0.25
    assert 0.08 < density["f1"] <= 0.1
    assert density["c1"] > 0.9
    assert len(np.unique(weights["c1"])) <= 5
    assert len(np.unique(weights["f1"])) <= 9


def test_weights_that_are_shared_already_are_only_rounded() -> None:
    rng = np.random.default_rng(SEED)
    weight = rng.choice([0.0, -1.27, 0.5, 1.0], (6, 288))
    layer = DenseLayer(name="f", kind="linear", weight=weight, bias=np.zeros(6))
    dense = DenseNetwork(
        name="n", input_shape=(2, 12, 12), input_range=(0, 255), input_scale=1.0, layers=(layer,)
    )
    made = compress(dense, small_inputs(rng), entries=4).layer("f")
    assert isinstance(made, WeightedLayer)
    assert np.array_equal(made.dense_weights(), np.rint(weight * 100))


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_every_stage_makes_the_network_smaller(density: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    weight = rng.laplace(size=(100, 288))
    layer = DenseLayer(name="f", kind="linear", weight=weight, bias=np.zeros(100))
    dense = DenseNetwork(
        name="n", input_shape=(2, 12, 12), input_range=(0, 255), input_scale=1.0, layers=(layer,)
    )
    network = compress(dense, small_inputs(rng), density=density)
    stages = funnel(network)
    assert [stage.name for stage in stages] == list(STAGES)
    assert stages[0].bytes == 4 * (100 * 288 + 100)
    sizes = [stage.bytes for stage in stages]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    save(network, tmp_path / "n.thr")
    assert (tmp_path / "n.thr").stat().st_size < sizes[-1] + 1000


def test_a_layer_of_zeros_is_compressed() -> None:
    layer = DenseLayer(name="f", kind="linear", weight=np.zeros((3, 288)), bias=np.zeros(3))
    dense = DenseNetwork(
        name="n", input_shape=(2, 12, 12), input_range=(0, 255), input_scale=1.0, layers=(layer,)
    )
    inputs = small_inputs(np.random.default_rng(SEED))
    network = compress(dense, inputs)
    assert not infer(network, inputs).outputs["f"].any()
    assert funnel(network)[-1].bytes < 100


def test_compress_names_what_is_wrong() -> None:
    rng = np.random.default_rng(SEED)
    dense, inputs = small_network(rng), small_inputs(rng)
    with pytest.raises(DenseError, match="no layer 'c9' with weights"):
        compress(dense, inputs, density={"c9": 0.1})
    with pytest.raises(DenseError, match=r"layer 'c1': entries must be in 2\.\.256, not 300"):
        compress(dense, inputs, entries=300)
    with pytest.raises(DenseError, match=r"layer 'c1': density must be in 0\.\.1, not -1"):
        compress(dense, inputs, density=-1)
    with pytest.raises(DenseError, match="n at least 1, not "):
        compress(dense, inputs[:0])
    with pytest.raises(DenseError, match=r"inputs must have shape \(n, 2, 12, 12\)"):
        compress(dense, inputs[:, :1])
    with pytest.raises(DenseError, match="inputs must be integers, not float64"):
        compress(dense, inputs / 1)
    with pytest.raises(DenseError, match=r"inputs must be in 0\.\.255, not -\d+\.\.0"):
        compress(dense, -inputs)
    with pytest.raises(DenseError, match=r"layer 'c1': weight_bits must be in 2\.\.9, not 12"):
        compress(dense, inputs, weight_bits=12)
    with pytest.raises(DenseError, match="layer 'c1': percentile must be above 0"):
        compress(dense, inputs, percentile=0)


# --- dense files -----------------------------------------------------------------------------


def test_a_dense_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    dense, inputs = small_network(rng), small_inputs(rng)
    save_dense(dense, tmp_path / "small.npz")
    again = load_dense(tmp_path / "small.npz")
    for name, values in dense.run(inputs).items():
        assert np.allclose(again.run(inputs)[name], values, atol=1e-5)
    assert [layer.name for layer in again.layers] == [layer.name for layer in dense.layers]
    assert again.input_scale == dense.input_scale


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    layers = [
        {"name": "p", "kind": "max_pool", "kernel": [2, 2]},
        {"name": "f", "kind": "linear"},
    ]
    architecture = {"input_shape": [1, 4, 4], "layers": layers}
    arrays: dict[str, Any] = {"f.weight": np.ones((2, 4), np.float32)}
    np.savez(tmp_path / "n.npz", architecture=json.dumps(architecture), **arrays)
    dense = load_dense(tmp_path / "n.npz")
    assert dense.layers[0].stride == (2, 2)
    assert dense.input_range == (0, 255)
    assert dense.run(np.full((1, 1, 4, 4), 255))["f"].ravel().tolist() == [4, 4]


Change = Callable[[dict[str, Any], dict[str, Any]], object]

MISTAKES: list[tuple[Change, str]] = [
    (lambda _, arrays: arrays.pop("architecture"), "has no array 'architecture'"),
    (lambda _, arrays: arrays.update(architecture="{"), "'architecture' is not JSON"),
    (lambda _, arrays: arrays.update(architecture="[]"), "must be a JSON object"),
    (lambda _, arrays: arrays.pop("c.weight"), r"there is no array 'c\.weight'"),
    (
        lambda _, arrays: arrays.update({"c.weight": np.ones((3, 1, 3))}),
        r"c\.weight must have shape \(out, in / groups, height, width\), not \(3, 1, 3\)",
    ),
    (
        lambda _, arrays: arrays.update({"c.bias": np.ones(4)}),
        r"c\.bias must have shape \(3,\), not \(4,\)",
    ),
    (
        lambda _, arrays: arrays.update({"f.weight": np.ones((2, 13))}),
        r"layer 'f': its weights \(2, 13\) take 13 inputs, but there are 12",
    ),
    (
        lambda _, arrays: arrays.update({"f.weight": np.ones((2, 12), int)}),
        r"f\.weight must be floats, not int64",
    ),
    (
        lambda _, arrays: arrays.update({"f.bias": np.array([0, np.nan])}),
        r"f\.bias holds a number that is not finite",
    ),
    (lambda _, arrays: arrays.update(extra=np.ones(2)), "array 'extra' belongs to no layer"),
    (lambda said, _: said.pop("layers"), "architecture: layers is missing"),
    (lambda said, _: said.update(layers=[]), "at least one layer"),
    (lambda said, _: said.update(mean=3), "architecture: there is no field 'mean'"),
    (lambda said, _: said.update(input_shape=[4, 4]), "input_shape must be 3 integers of at"),
    (lambda said, _: said.update(input_scale=0), "input_scale must be a positive number, not 0"),
    (lambda said, _: said["layers"][0].pop("name"), "layer 0 must be an object with a name"),
    (lambda said, _: said["layers"][0].update(kind="lstm"), "layer 'c': kind must be one of"),
    (lambda said, _: said["layers"][0].update(stide=[1, 1]), "'c': there is no field 'stide'"),
    (lambda said, _: said["layers"][0].update(stride=2), "'c': stride must be 2 integers"),
    (lambda said, _: said["layers"][0].update(relu=1), "relu must be true or false, not 1"),
    (
        lambda said, arrays: [
            said.update(layers=[{"name": "a", "kind": "flatten"}] * 2),
            *(arrays.pop(name) for name in list(arrays) if name != "architecture"),
        ],
        "two layers have the same name",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_dense_file_with_a_mistake_names_it(change: Change, message: str, tmp_path: Path) -> None:
    layers = [{"name": "c", "kind": "convolution", "relu": True}, {"name": "f", "kind": "linear"}]
    said: dict[str, Any] = {"name": "n", "input_shape": [1, 4, 4], "layers": layers}
    arrays: dict[str, Any] = {
        "c.weight": np.ones((3, 1, 3, 3)),
        "c.bias": np.ones(3),
        "f.weight": np.ones((2, 12)),
        "architecture": None,
    }
    change(said, arrays)
    if arrays.get("architecture", "") is None:
        arrays["architecture"] = json.dumps(said)
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(DenseError, match=message):
        load_dense(tmp_path / "n.npz")


def test_a_file_that_is_no_dense_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.npz"
    with pytest.raises(DenseError, match="there is no file"):
        load_dense(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(DenseError, match=r"is not an \.npz file: write weights"):
        load_dense(path)
    save_dense(small_network(np.random.default_rng(SEED)), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DenseError, match="cannot be read as an"):
        load_dense(path)


# --- the built-in networks -------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def built_in(request: pytest.FixtureRequest) -> CompressedNetwork:
    return load(BUILT_IN / f"{request.param}.thr")


def integer_error(
    network: CompressedNetwork, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> float:
    logits = infer(network, images[:, None], keep=[network.output]).outputs[network.output]
    return float(np.mean(logits[:, :, 0, 0].argmax(1) != labels))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_built_in_files_are_smaller_than_published(name: str) -> None:
    assert (BUILT_IN / f"{name}.thr").stat().st_size < PUBLISHED[name][0]


def test_built_in_networks_have_more_than_92_percent_zeros(built_in: CompressedNetwork) -> None:
    layers = [layer for layer in built_in.layers if isinstance(layer, WeightedLayer)]
    zeros = sum(int((layer.dense_weights() == 0).sum()) for layer in layers)
    assert zeros > 0.92 * sum(layer.weights.size for layer in layers)


def test_built_in_networks_shrink_at_every_stage(built_in: CompressedNetwork) -> None:
    sizes = [stage.bytes for stage in funnel(built_in)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 39 * sizes[-1]  # Deep Compression: 39 and 40


def test_built_in_networks_fit_the_default_machine(built_in: CompressedNetwork) -> None:
    check_accumulators(built_in, 24)
    for layer in built_in.layers:
        if isinstance(layer, WeightedLayer):
            assert np.abs(layer.codebook).max() <= 127
            assert np.count_nonzero(layer.codebook == 0) == 1


def test_built_in_networks_know_the_built_in_digits(built_in: CompressedNetwork) -> None:
    with np.load(BUILT_IN / "mnist_digits.npz") as file:
        images, labels = file["images"], file["labels"]
    assert images.shape == (200, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    assert integer_error(built_in, images, labels) <= 0.01


@pytest.mark.data
def test_built_in_networks_are_at_least_as_accurate_as_published(
    built_in: CompressedNetwork,
) -> None:
    if not MNIST.is_dir():
        pytest.skip(f"MNIST's test images are not in {MNIST}")
    images = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    error = integer_error(
        built_in,
        np.frombuffer(images, np.uint8).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8),
    )
    assert error <= PUBLISHED[built_in.name][1]
    assert error == pytest.approx(built_in.metadata["test_error"])
