"""Pictures and arrays as inputs, and what the demo makes of a photograph."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from net_files import PROTOTXT, coded, random_weights

from thresher.golden.errors import ThresherError
from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork, Flatten
from thresher.golden.read.pictures import read_picture
from thresher.golden.read.samples import read_samples
from thresher.scripts import photo
from thresher.scripts.classes import top
from thresher.scripts.main import main

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

SEED = 20261124


def pixels(height: int = 9, width: int = 7) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(folder: Path, array: npt.NDArray[np.uint8], name: str = "a.png", **more: Any) -> Path:
    Image.fromarray(array).save(folder / name, **more)
    return folder / name


# --- pictures --------------------------------------------------------------------------------


def test_pixels_come_as_they_are_if_nothing_is_asked_for(tmp_path: Path) -> None:
    array = pixels()
    values = read_picture(save(tmp_path, array), {}, (3, 9, 7))
    assert values.dtype == np.float32
    assert np.array_equal(values, array.transpose(2, 0, 1))


def test_mean_and_deviation_are_in_the_order_of_the_channels(tmp_path: Path) -> None:
    array = pixels()
    image = {"order": "BGR", "mean": [1, 2, 3], "std": [2.0, 4.0, 8.0]}
    values = read_picture(save(tmp_path, array), image, (3, 9, 7))
    blue, green, red = (array[:, :, channel].astype(float) for channel in (2, 1, 0))
    assert np.allclose(values, np.stack([(blue - 1) / 2, (green - 2) / 4, (red - 3) / 8]))


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    array = pixels()
    image = {"resize": [9, 7], "crop": [4, 3]}
    values = read_picture(save(tmp_path, array), image, (3, 4, 3))
    assert np.array_equal(values, array[2:6, 2:5].transpose(2, 0, 1))


def test_a_picture_is_squashed_to_its_size(tmp_path: Path) -> None:
    array = np.zeros((40, 80, 3), np.uint8)
    array[:20, :, 0] = 200
    values = read_picture(save(tmp_path, array), {"resize": [10, 10]}, (3, 10, 10))
    assert (values[0, :4] == 200).all()
    assert not values[0, 6:].any()
    assert not values[1:].any()


def test_a_network_of_one_channel_takes_the_brightness(tmp_path: Path) -> None:
    array = np.full((5, 5, 3), [255, 255, 255], np.uint8)
    assert (read_picture(save(tmp_path, array), {}, (1, 5, 5)) == 255).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.gif"])
def test_other_formats_and_modes_are_read(name: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / name)
    values = read_picture(tmp_path / name, {}, (3, 8, 8))
    assert np.abs(values - 100).max() <= 1


@pytest.mark.parametrize(
    ("image", "shape", "message"),
    [
        ({"crop": [4, 4]}, (3, 9, 7), r"cut to \[4, 4\], does not fit the network's 9 x 7"),
        ({"resize": [8, 7]}, (3, 9, 7), r"a picture of \[8, 7\], cut to \[9, 7\], does not fit"),
        ({"resize": "big"}, (3, 9, 7), r"image\.resize must be \[height, width\]"),
        ({"order": "RBG"}, (3, 9, 7), "order of channels must be RGB or BGR, not 'RBG'"),
        ({"mean": [1]}, (3, 9, 7), r"image\.mean must be 3 numbers, not \[1\]"),
        ({"std": [1, 0, 1]}, (3, 9, 7), r"image\.std must be 3 numbers, not \[1, 0, 1\]"),
        ({}, (4, 9, 7), r"a network of 4 input channels takes no pictures; give a \.npy"),
    ],
)
def test_what_does_not_fit_is_named(
    image: dict[str, Any], shape: tuple[int, int, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ThresherError, match=message):
        read_picture(save(tmp_path, pixels()), image, shape)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tiff"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "noise"])
def test_a_broken_picture_is_one_error(name: str, damage: str, tmp_path: Path) -> None:
    path = save(tmp_path, pixels(50, 40), name)
    data = path.read_bytes()
    noise = np.random.default_rng(SEED).integers(0, 256, len(data), dtype=np.uint8).tobytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no picture",
            "cut": data[: len(data) // 2],
            "noise": data[:30] + noise[30:],
        }[damage]
    )
    with pytest.raises(ThresherError, match=f"{name} cannot be read as a picture"):
        read_picture(path, {"resize": [50, 40]}, (3, 50, 40))


def test_a_missing_picture_and_a_missing_package_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ThresherError, match="there is no such picture"):
        read_picture(tmp_path / "none.png", {}, (3, 9, 7))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ThresherError, match=r"pillow.* is missing: install .*thresher\[import\]"):
        read_picture(tmp_path / "none.png", {}, (3, 9, 7))


# --- samples ---------------------------------------------------------------------------------


def test_files_of_several_kinds_are_samples_in_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    one, some = rng.normal(size=(3, 9, 7)), rng.normal(size=(2, 3, 9, 7))
    np.save(tmp_path / "one.npy", one)
    np.savez(tmp_path / "some.npz", x=some, y=np.arange(2))
    picture = save(tmp_path, pixels())
    files = [tmp_path / "one.npy", picture, tmp_path / "some.npz"]
    samples = read_samples(files, {}, (3, 9, 7))
    assert samples.shape == (4, 3, 9, 7)
    assert np.allclose(samples[[0, 2, 3]], np.concatenate([one[None], some]))
    assert np.array_equal(samples[1], pixels().transpose(2, 0, 1))


def test_samples_that_are_none_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    np.save(tmp_path / "x.npy", rng.normal(size=(2, 3, 8, 7)))
    np.save(tmp_path / "nan.npy", np.full((1, 3, 9, 7), np.nan))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    (tmp_path / "x.txt").write_text("1 2 3")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    shape = (3, 9, 7)
    for name, message in {
        "x.npy": r"has shape \(2, 3, 8, 7\): the network takes \(n, 3, 9, 7\)",
        "nan.npy": "holds numbers that are not finite",
        "text.npy": "holds <U1",
        "two.npz": r"is an archive of a, b: call the inputs x",
        "x.txt": r"is not a \.npy file",
        "x.npy:1-2": r"x\.npy:1-2: inputs must be in 0\.\.1",
        "cut.npy": r"cannot be read as a \.npy file",
        "none.npy": "there is no such file",
    }.items():
        with pytest.raises(ThresherError, match=message):
            read_samples([tmp_path / name], {}, shape)
    with pytest.raises(ThresherError, match="there is no sample"):
        read_samples([], {}, shape)
    with pytest.raises(ThresherError, match="how the network takes pictures is not known"):
        read_samples([save(tmp_path, pixels())], None, shape)
    assert len(read_samples([f"{tmp_path}/x.npy:1"], None, (3, 8, 7))) == 1


# --- the demo --------------------------------------------------------------------------------


def test_the_data_folder_is_looked_for_where_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("THRESHER_DATA", raising=False)
    with pytest.raises(ThresherError, match=r"data/deep_compression/.* and \.\./shared/data/deep"):
        photo.find_data(None)
    for place in ("shared/data", "work/data", "other", "given"):
        model = tmp_path / place / photo.MODEL
        model.parent.mkdir(parents=True)
        model.write_bytes(b"")
        if place == "shared/data":
            assert photo.find_data(None) == Path("../shared/data")
    assert photo.find_data(None) == Path("data")
    monkeypatch.setenv("THRESHER_DATA", str(tmp_path / "other"))
    assert photo.find_data(None) == tmp_path / "other"
    assert photo.find_data(tmp_path / "given") == tmp_path / "given"
    with pytest.raises(ThresherError, match="with --data or THRESHER_DATA"):
        photo.find_data(tmp_path / "work")


def test_the_greatest_outputs_have_names_and_probabilities() -> None:
    layer = Flatten(name="out")
    network = CompressedNetwork(
        name="n",
        input_shape=(4, 1, 1),
        input_range=(0, 255),
        layers=(layer,),
        metadata={"output": {"scale": 0.5}},
    )
    found = top(network, np.array([[[4]], [[0]], [[6]], [[4]]]), ["a", "b", "c", "d"], 3)
    assert [(one["index"], one["name"]) for one in found] == [(2, "c"), (0, "a"), (3, "d")]
    shares = np.exp([2.0, 0.0, 3.0, 2.0])
    assert found[0]["probability"] == pytest.approx(shares[2] / shares.sum(), abs=1e-4)
    unknown = CompressedNetwork(
        name="n", input_shape=(4, 1, 1), input_range=(0, 255), layers=(layer,)
    )
    assert top(unknown, np.arange(4), None, 1) == [{"index": 3, "name": None, "probability": None}]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small network under SqueezeNet's name, and a photograph."""
    folder = tmp_path / "data"
    model = folder / photo.MODEL
    model.parent.mkdir(parents=True)
    model.write_bytes(coded(random_weights(np.random.default_rng(SEED))))
    (model.parent / "deploy.prototxt").write_text(PROTOTXT)
    (folder / "photos").mkdir()
    save(folder / "photos", pixels(13, 12), "one.png")
    (folder / "photos" / "imagenet_classes.txt").write_text("\n".join("abcdef"))
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_network_is_imported_once(data: Path) -> None:
    picture = data / "photos" / "one.png"
    network = photo.squeezenet(data, picture)
    (kept,) = (data.parent / "cache" / "networks").iterdir()
    before = kept.stat().st_mtime_ns
    assert photo.squeezenet(data, picture) == network
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(b"damaged")
    assert photo.squeezenet(data, picture) == network
    save(data / "photos", pixels(13, 12) // 2, "two.png")  # more to calibrate with
    photo.squeezenet(data, picture)
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.cocotb
def test_the_demo_says_what_the_machine_sees(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = photo.squeezenet(data, data / "photos" / "one.png")
    monkeypatch.delenv("THRESHER_CACHE")  # where simulators are built already
    options = ["demo", "--network", "squeezenet", "--data", str(data), "--lanes", "2"]
    figures = data / "figures.json"
    with pytest.raises(SystemExit) as exit_:
        main([*options, "--json", str(figures)])
    out = capsys.readouterr().out
    assert exit_.value.code == 0, out
    report = json.loads(figures.read_text())
    image = network.metadata["image"]
    assert isinstance(image, dict)
    inputs = read_picture(data / "photos" / "one.png", image, network.input_shape)[None]
    logits = infer(network, inputs.astype(np.int64)).outputs[network.output].ravel()
    assert report["top"][0]["name"] == "abcdef"[logits.argmax()]
    assert report["values_compared"] > 0
    assert report["values_different"] == report["counters_different"] == 0
    assert f"{report['top'][0]['probability']:.3f}  {report['top'][0]['name']}" in out
    assert f"{report['values_compared']:,} values compared, 0 differ" in out
