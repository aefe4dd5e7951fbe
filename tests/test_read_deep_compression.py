"""Deep Compression's files: written here by their description, read, and compared."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from net_files import PROTOTXT, Weights, coded, random_weights, write
from scipy.signal import correlate  # type: ignore[import-untyped, unused-ignore]

from thresher.golden.compress.dense import RELU
from thresher.golden.errors import ThresherError
from thresher.golden.inference import infer
from thresher.golden.network import WeightedLayer
from thresher.golden.read import Calibration, ReadError, check_model, read_model
from thresher.golden.read.deep_compression import image_of, read_net_dense
from thresher.golden.read.pictures import read_picture
from thresher.golden.read.prototxt import parse

SEED = 20261124
DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SQUEEZENET = DATA / "deep_compression" / "compressed_SqueezeNet.net"


def by_scipy(weights: Weights, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What the network above computes, written out."""

    def convolve(
        maps: npt.NDArray[Any], name: str, pad: tuple[int, int], stride: int = 1, groups: int = 1
    ) -> npt.NDArray[Any]:
        weight, bias = weights[name]
        maps = np.pad(maps, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
        share = len(maps) // groups
        sums = [
            sum(
                correlate(maps[n * groups // len(weight) * share + c], kernel[c], mode="valid")
                for c in range(share)
            )[::stride, ::stride]
            for n, kernel in enumerate(weight.astype(np.float64))
        ]
        return np.stack(sums) + bias[:, None, None]

    c1 = np.maximum(convolve(x, "c1", (1, 1), stride=2), 0)
    rows, positions = -(-(c1.shape[1] - 3) // 2) + 1, -(-(c1.shape[2] - 3) // 2) + 1
    p1 = np.stack(
        [
            np.stack(
                [c1[:, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3].max((1, 2)) for z in range(positions)]
            )
            for y in range(rows)
        ]
    ).transpose(2, 0, 1)
    left = np.maximum(convolve(p1, "left", (0, 1), groups=2), 0)
    both = np.concatenate([left, convolve(p1, "right", (0, 0))])
    return np.asarray(np.maximum(convolve(both, "last", (1, 1)), 0).mean((1, 2)))


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_weights_are_those_that_were_written(density: float, tmp_path: Path) -> None:
    weights = random_weights(np.random.default_rng(SEED), density)
    dense = read_net_dense(write(tmp_path, coded(weights)))
    found = {layer.name: layer for layer in dense.layers if layer.weight is not None}
    assert list(found) == list(weights)
    for name, (weight, bias) in weights.items():
        assert np.array_equal(found[name].weight, weight)  # type: ignore[arg-type]
        assert np.array_equal(found[name].bias, bias)  # type: ignore[arg-type]
    names = ["c1", "p1", "left", "right", "both", "last", "mean"]
    assert [layer.name for layer in dense.layers] == names
    assert [found[name].clip == RELU for name in weights] == [True, True, False, True]


@pytest.mark.parametrize("seed", range(5))
def test_the_network_computes_what_its_description_says(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, 0.5)
    dense = read_net_dense(write(tmp_path, coded(weights)))
    samples = rng.normal(size=(2, 3, 13, 12))
    found = dense.forward(samples)["mean"]
    for sample, values in zip(samples, found, strict=True):
        assert np.allclose(values.ravel(), by_scipy(weights, sample), rtol=1e-4, atol=1e-5)


def test_weights_stay_shared_and_pruned(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    weights = random_weights(rng)
    path = write(tmp_path, coded(weights))
    samples = rng.normal(size=(8, 3, 13, 12))
    network = read_model(path, Calibration(samples=samples))
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            weight = weights[layer.name][0]
            assert len(layer.codebook) <= len(np.unique(weight)) + 1
            dense = layer.dense_weights()
            step = np.abs(weight).max() / 127
            assert np.abs(dense * step - weight).max() <= step * 0.501
            assert not dense[weight == 0].any()
    assert network.shapes()["last"] == read_net_dense(path).shapes()["last"]
    assert network.metadata["source"]["format"] == "Deep Compression"  # type: ignore[index]
    assert network.metadata["output"]["softmax"] is True  # type: ignore[index]
    assert network.metadata["image"]["crop"] == [13, 12]  # type: ignore[index]
    step = network.metadata["input"]["scale"]  # type: ignore[index]
    inputs = np.clip(np.rint(samples / step), *network.input_range).astype(np.int64)
    found = infer(network, inputs).outputs["mean"] * network.metadata["output"]["scale"]  # type: ignore[index]
    exact = read_net_dense(path).forward(samples)["mean"]
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_pictures_calibrate_and_keep_their_pixels(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    rng = np.random.default_rng(SEED)
    path = write(tmp_path, coded(random_weights(rng)))
    pixels = rng.integers(0, 256, (13, 12, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    network = read_model(path, Calibration(files=(tmp_path / "a.png",)))
    assert network.input_range == (-123, 151)
    assert network.metadata["input"]["scale"] == 1.0  # type: ignore[index]
    values = read_picture(tmp_path / "a.png", network.metadata["image"], (3, 13, 12))  # type: ignore[arg-type]
    expected = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([104, 117, 123])[:, None, None]
    assert np.array_equal(values, expected)


def test_without_samples_one_problem_says_what_to_give(tmp_path: Path) -> None:
    path = write(tmp_path, coded(random_weights(np.random.default_rng(SEED))))
    (problem,) = check_model(path)
    assert "activations are floats; give samples to calibrate with: --calibrate" in str(problem)
    with pytest.raises(ReadError, match="--calibrate PICTURE"):
        read_model(path)


NetChange = Callable[[bytes], bytes]
FIRST_CODES = 4 * 4 + 4 * (256 + 8)

NET_MISTAKES: list[tuple[NetChange, str]] = [
    (lambda net: net[:-3], r"it ends 3 bytes early: its layers take [\d,]+, it has [\d,]+; give"),
    (lambda net: net[:9], "it ends 7 bytes early, within the numbers of entries of its 4 layers"),
    (lambda _: b"", "it ends 16 bytes early"),
    (lambda net: net + bytes(5), "it has 5 bytes more"),
    (
        lambda net: struct.pack("<I", 4000) + net[4:],
        r"node 'c1' \(Convolution\): the file has 4,000 entries for its 216 weights",
    ),
    (
        lambda net: net[:16] + struct.pack("<f", np.nan) + net[20:],
        "node 'c1' .*: its codebook or biases are not finite",
    ),
    (
        lambda net: net[:16] + struct.pack("<f", 0.5) + net[20:],
        r"node 'c1' .*: entry 0 of its codebook is 0\.5, not 0",
    ),
    (
        lambda net: net[:FIRST_CODES] + b"\xff" * 200 + net[FIRST_CODES + 200 :],
        r"node 'c1' .*: its entries reach weight [\d,]+ of 216",
    ),
]


@pytest.mark.parametrize(("change", "message"), NET_MISTAKES)
def test_a_damaged_file_is_named(change: NetChange, message: str, tmp_path: Path) -> None:
    net = coded(random_weights(np.random.default_rng(SEED), 0.5))
    path = write(tmp_path, change(net))
    with pytest.raises(ReadError, match=message):
        read_model(path, Calibration(samples=np.ones((1, 3, 13, 12))))


PROTOTXT_MISTAKES = [
    ("name:", "name", r"tiny\.prototxt, line 2: a colon was expected after name"),
    ("pool: MAX", "pool: STOCHASTIC", r"node 'p1' \(Pooling\): its pool is STOCHASTIC; use MAX"),
    ('"Dropout"', '"LRN"', r"node 'drop' \(LRN\): it is not supported; use Convolution, ReLU"),
    ('"Dropout"', '"InnerProduct"', r"\(InnerProduct\): it is not supported"),
    ('bottom: "p1" top: "left"', 'bottom: "p9" top: "left"', "no layer before it gives 'p9'"),
    ("group: 2", "group: 3", "its 3 groups do not divide 8 inputs and 4 outputs"),
    ("num_output: 8", "num_output: 0", "'c1' .*: its num_output is 0; give a positive number"),
    ("stride: 2 pad: 1", "stride: 2 pad: one", "'c1' .*: its pad is 'one'"),
    ("stride: 2 pad: 1", "strides: 2", "'c1' .*: its field strides is not known"),
    ('"both" type', '"c1" type', "'c1' .*: another layer has its name"),
    ("kernel_h: 1", "kernel_h: 7", "'left' .*: the input .* is smaller than its window"),
    ('input: "data"', 'inputs: "data"', "'c1' .*: no layer before it gives 'data'"),
    ("dim: 12 }", "}", "data: its shape is"),
    ('bottom: "mean"', 'bottom: "left"', "'prob' .*: it is not of the last layer"),
    ("num_output: 5", "num_output: 7", "it ends 8 bytes early"),
    ("layer {", "layers {", "of an old version of Caffe"),
]


@pytest.mark.parametrize(("old", "new", "message"), PROTOTXT_MISTAKES)
def test_a_description_with_a_mistake_names_it(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in PROTOTXT
    net = coded(random_weights(np.random.default_rng(SEED)))
    path = write(tmp_path, net, PROTOTXT.replace(old, new, 1))
    with pytest.raises(ReadError, match=message):
        read_model(path, Calibration(samples=np.ones((1, 3, 13, 12))))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2)]
)
def test_means_divide_as_in_caffe(kernel: int, stride: int, pad: int, tmp_path: Path) -> None:
    net = coded(random_weights(np.random.default_rng(SEED)))
    window = f"pool: AVE kernel_size: {kernel} stride: {stride} pad: {pad}"
    path = write(tmp_path, net, PROTOTXT.replace("pool: MAX kernel_size: 3 stride: 2", window))
    samples = np.random.default_rng(SEED).normal(size=(2, 3, 13, 12))
    values = dict(read_net_dense(path).values(samples))
    maps, means = values["c1"], values["p1"]
    height, width = maps.shape[2:]
    for y, x in np.ndindex(means.shape[2:]):
        top, left = y * stride - pad, x * stride - pad
        rows = min(top + kernel, height + pad) - top  # padding counts, what is beyond does not
        columns = min(left + kernel, width + pad) - left
        window_values = maps[:, :, max(0, top) : top + kernel, max(0, left) : left + kernel]
        expected = window_values.sum(axis=(2, 3)) / (rows * columns)
        np.testing.assert_allclose(means[:, :, y, x], expected)
    assert read_model(path, Calibration(samples=samples)).layer("p1").cut_scales  # type: ignore[attr-defined]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = PROTOTXT.replace('"Dropout"', '"LRN"').replace("pool: MAX", "pool: STOCHASTIC")
    path = write(tmp_path, b"", text)
    assert [problem.op for problem in check_model(path)] == ["Pooling", "LRN", ""]


def test_the_description_is_found_beside_the_file(tmp_path: Path) -> None:
    net = coded(random_weights(np.random.default_rng(SEED)))
    path = write(tmp_path, net, None)
    (problem, _) = check_model(path)
    assert "tiny.prototxt, which is missing, and no other .prototxt is there" in str(problem)
    (tmp_path / "deploy.prototxt").write_text(PROTOTXT)
    assert read_net_dense(path).name == "Tiny"
    (tmp_path / "other.prototxt").write_text(PROTOTXT)
    with pytest.raises(ReadError, match=r"of deploy\.prototxt, other\.prototxt any may be"):
        read_net_dense(path)


def test_text_in_place_of_weights_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, PROTOTXT.encode())
    with pytest.raises(ReadError, match=r"tiny\.net: it is text, not weights; give the \.net file"):
        read_net_dense(path)


@pytest.mark.parametrize("seed", range(30))
def test_a_file_of_random_damage_raises_no_other_error(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    net = bytearray(coded(random_weights(rng)))
    text = bytearray(PROTOTXT.encode())
    damaged = net if seed % 2 else text
    for place in rng.integers(0, len(damaged), 8):
        damaged[place] = rng.integers(32, 127)
    path = write(tmp_path, bytes(net), text.decode())
    try:
        read_model(path, Calibration(samples=rng.normal(size=(1, 3, 13, 12))))
    except ThresherError as error:
        assert "\n" not in str(error)  # noqa: PT017  # some damage is harmless


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1 }", "line 1: a field's name was expected, not '}'"),
        ("a {\n b: 1", "line 2: a field's name was expected, not 'the end'"),
        ("a: ]", "line 1: a value was expected, not ']'"),
        ("\na: $", r"line 2: '\$' begins no word"),
        ("a {" * 60, "more than 50 messages within one another"),
    ],
)
def test_malformed_text_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ThresherError, match=message):
        parse(text)


def test_every_form_of_a_value_is_read() -> None:
    text = r"""a: 'it\'s' "joined" b: -1.5e2 b: .5f b: 0x10 c < d: true; > e { }, f: [1, 2]"""
    assert parse(text) == {
        "a": ["it'sjoined"],
        "b": [-150.0, 0.5, 16],
        "c": [{"d": [True]}],
        "e": [{}],
        "f": [1, 2],
    }


# --- SqueezeNet, if it is there --------------------------------------------------------------


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.float32]:
    if not SQUEEZENET.is_file():
        pytest.skip(f"SqueezeNet's weights are not in {SQUEEZENET.parent}")
    files = [DATA / "photos" / name for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    image = image_of((3, 227, 227))
    assert image is not None
    return np.stack([read_picture(file, image, (3, 227, 227)) for file in files])


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def named(probabilities: npt.NDArray[np.float64]) -> dict[str, float]:
    names = (DATA / "photos" / "imagenet_classes.txt").read_text().splitlines()
    return dict(zip(names, probabilities.tolist(), strict=True))


@pytest.mark.data
def test_squeezenet_has_the_weights_that_it_should(photos: npt.NDArray[np.float32]) -> None:
    dense = read_net_dense(SQUEEZENET)
    weights = [layer.weight for layer in dense.layers if layer.weight is not None]
    assert len(weights) == 26
    assert sum(weight.size for weight in weights) == 1_244_448
    assert sum(np.count_nonzero(weight) for weight in weights) == 415_921
    chelsea, coffee = (
        named(softmax(row)) for row in dense.forward(photos[:2])[dense.output][:, :, 0, 0]
    )
    assert chelsea["Egyptian cat"] == pytest.approx(0.70, abs=0.005)
    assert chelsea["tiger cat"] == pytest.approx(0.14, abs=0.005)
    assert chelsea["tabby"] == pytest.approx(0.12, abs=0.005)
    assert coffee["espresso"] == pytest.approx(0.96, abs=0.005)


@pytest.mark.data
def test_squeezenet_in_integers_sees_the_same(photos: npt.NDArray[np.float32]) -> None:
    network = read_model(SQUEEZENET, Calibration(samples=photos))
    dense = read_net_dense(SQUEEZENET)
    result = infer(network, photos.astype(np.int64))
    outputs = result.outputs[network.output][:, :, 0, 0]
    exact = dense.forward(photos)[dense.output][:, :, 0, 0]
    assert (outputs.argmax(1) == exact.argmax(1)).all()
    scale = network.metadata["output"]["scale"]  # type: ignore[index]
    error = np.abs(outputs * scale - exact)
    assert error.max() < 0.08 * exact.max()
    assert np.square(error).mean() < 0.08**2 * np.square(exact).mean()
    chelsea = named(softmax(outputs[0] * scale))
    assert chelsea["Egyptian cat"] == pytest.approx(0.70, abs=0.08)
    assert sorted(chelsea, key=chelsea.__getitem__)[:-4:-1] == [
        "Egyptian cat",
        "tiger cat",
        "tabby",
    ]
    weights = [one for one in network.layers if isinstance(one, WeightedLayer)]
    assert all(len(one.codebook) <= 256 for one in weights)
    assert 0.97 * 415_921 < sum(np.count_nonzero(one.dense_weights()) for one in weights) <= 415_921
    # Multiplications a photograph: of the float network's 861 M, 351 M are by no zero.
    assert result.total.macs.dense / 3 == pytest.approx(861e6, rel=0.001)
    assert 0.9 * 351e6 < result.total.macs.both / 3 < 351e6
