"""``thresher import``, and inputs as an imported network's source has them."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tflite_models import VALID, Model

from thresher.golden.builtin import resolve_network
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.read.inputs import network_inputs
from thresher.scripts.main import main
from thresher.scripts.options import read_inputs


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code, output and errors."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    done = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, done.out, done.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with a convolution of 4 x 5 maps of 2 channels, scale 0.5, zero point -28."""
    made = Model()
    source = made.tensor((1, 4, 5, 2), "INT8", 0.5, -28)
    inputs = [source, made.weights((3, 3, 3, 2)), made.bias(3)]
    target = made.tensor((1, 2, 3, 3), "INT8", 0.3, 4)
    made.node("CONV_2D", inputs, [target], Padding=VALID, StrideH=1, StrideW=1)
    return made.save(tmp_path / "small.tflite")


@pytest.fixture
def network(model: Path) -> CompressedNetwork:
    return resolve_network(model)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def _make_picture(path: Path) -> None:
    pytest.importorskip("PIL.Image").new("RGB", (4, 4)).save(path, format="PNG")


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _take_weights_away(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, 2, 4, 4]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [weights]))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (path.parent / "w.bin").unlink()


@pytest.mark.parametrize(
    ("suffix", "spoil", "message"),
    [
        (".tflite", _cut_off, "damaged or cut off"),
        (".tflite", lambda path: path.write_bytes(b""), "it is empty; copy or export it again"),
        (".onnx", lambda path: path.write_bytes(b""), "it is empty; copy or export it again"),
        (".tflite", _make_picture, "it is not a TFLite model"),
        (".onnx", _make_picture, "it is not an ONNX file, or only a part of one"),
        (".tflite", _make_folder, "is a folder; give a .tflite, .onnx or .net file"),
        (".tflite", Path.unlink, "there is no such file"),
        (".png", _make_picture, "files named .png are not read"),
        (
            ".onnx",
            _take_weights_away,
            "its weights are in another file that is not there: 'w.bin'; put that file beside it",
        ),
    ],
)
def test_files_that_are_no_models_are_told_in_one_line(
    *,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    path = model.rename(model.with_suffix(suffix))
    spoil(path)
    code, out, errors = run(capsys, "import", path, "-o", tmp_path / "new" / "net.thr")
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"thresher: error: {path}")
    assert message in line
    assert not (tmp_path / "new").exists()
    code, out, errors = run(capsys, "import", path, "--check")
    assert code == 2
    assert message in out + errors


def test_import_writes_the_network(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, figures = tmp_path / "new" / "net.thr", tmp_path / "figures.json"
    code, out, _ = run(capsys, "import", model, "-o", target, "--json", figures)
    assert code == 0
    assert "small: input 2 x 4 x 5, -100..155" in out
    assert "1 layer: 1 Convolution" in out
    assert f"written to {target}" in out
    assert resolve_network(target) == resolve_network(model)
    found = json.loads(figures.read_text())
    assert found["weights"] == 54
    assert found["macs"] == 54 * 6
    assert found["file_bytes"] == target.stat().st_size


@pytest.mark.parametrize("brought", [False, True])
def test_import_keeps_names_of_classes(
    *, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], brought: bool
) -> None:
    names = [f"class of {number}" for number in range(18)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    if brought:
        with zipfile.ZipFile(model, "a") as archive:
            archive.write(tmp_path / "names.txt", "labels.txt")
    given = () if brought else ("--labels", tmp_path / "names.txt")
    assert run(capsys, "import", model, *given)[0] == 0
    assert resolve_network(model.with_suffix(".thr")).metadata["classes"] == names


def test_import_without_a_name_writes_beside_the_model(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "import", model)[0] == 0
    assert model.with_suffix(".thr").is_file()


def test_samples_of_an_integer_model_give_densities(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 4, 5, 2), -28, np.int8))
    code, _, _ = run(capsys, "import", model, "--calibrate", tmp_path / "x.npy")
    assert code == 0
    made = resolve_network(model.with_suffix(".thr"))
    assert made.metadata["densities"]["input"] == "00"  # type: ignore[index]


def test_check_lists_problems_and_says_so_by_its_code(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "import", model, "--check")
    assert (code, out) == (0, f"{model}: 0 problems\n")
    made = Model()
    source, target = made.tensor((1, 4, 5, 2)), made.tensor((1, 4, 5, 2), "INT16")
    made.node("COS", [source], [target])
    made.node("RELU", [target], [made.tensor((1, 4, 5, 2))])
    bad = made.save(tmp_path / "bad.tflite")
    code, out, _ = run(capsys, "import", bad, "--check")
    assert code == 2
    assert [line.split(";")[0] for line in out.splitlines()] == [
        "node '0' (COS): this operation is not read",
        "node '1' (RELU): tensor 't1': 16-bit activations are not read",
        f"{bad}: 2 problems",
    ]
    code, out, _ = run(capsys, "import", bad, "--check", "--json", "-")
    assert [problem["op"] for problem in json.loads(out)["problems"]] == ["COS", "RELU"]
    code, out, err = run(capsys, "import", bad)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "node '0' (COS)" in err
    assert "(and 1 more: see --check)" in err
    assert not bad.with_suffix(".thr").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.tflite", "there is no such file; give a .tflite, .onnx or .net file"),
        ("model.h5", "files named .h5 are not read"),
        ("folder.onnx", "folder.onnx is a folder; give a .tflite, .onnx or .net file"),
    ],
)
def test_other_files_are_refused(
    name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.h5").write_bytes(b"HDF")
    (tmp_path / "folder.onnx").mkdir()
    code, _, err = run(capsys, "import", tmp_path / name)
    assert code == 2
    assert reason in err


def expected(network: CompressedNetwork, stored: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    return (stored.astype(np.int64) + 28).transpose(0, 3, 1, 2)


def stored_values(count: int = 3) -> npt.NDArray[np.int8]:
    return np.random.default_rng(4).integers(-128, 128, (count, 4, 5, 2)).astype(np.int8)


def test_stored_values_lose_their_zero_point(network: CompressedNetwork) -> None:
    stored = stored_values()
    wanted = expected(network, stored)
    for array in (stored, stored.reshape(3, 40)):
        assert np.array_equal(network_inputs(array, network, "x"), wanted)
    assert np.array_equal(network_inputs(stored[0], network, "x"), wanted[:1])
    assert np.array_equal(network_inputs(stored[0].ravel(), network, "x"), wanted[:1])


def test_other_integers_have_no_zero_point(network: CompressedNetwork) -> None:
    wanted = expected(network, stored_values())
    assert np.array_equal(network_inputs(wanted, network, "x"), wanted)
    assert np.array_equal(network_inputs(wanted.transpose(0, 2, 3, 1), network, "x"), wanted)


def test_real_values_are_quantised_halves_to_even_and_limited(network: CompressedNetwork) -> None:
    real = np.zeros((4, 5, 2))
    real[0, 0] = [0.25, 0.75]
    real[0, 1] = [1e9, -1e9]
    made = network_inputs(real, network, "x")
    assert made[0, :, 0, :2].tolist() == [[0, 155], [2, -100]]
    real[0, 0, 0] = np.nan
    with pytest.raises(ThresherError, match="x holds numbers that are not finite"):
        network_inputs(real, network, "x")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 4, 4, 2)), r"has shape \(2, 4, 4, 2\): .* takes \(n, 2, 4, 5\) or \(n, 4, 5"),
        (np.full((1, 4, 5, 2), 200), "has values in 200..200: network small takes -100..155"),
        (np.zeros((4, 5, 2), bool), "holds bool: give integers"),
        (np.zeros((0, 4, 5, 2)), "has shape"),
        (np.array(3), "has shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    network: CompressedNetwork, array: npt.NDArray[Any], reason: str
) -> None:
    with pytest.raises(ThresherError, match=reason):
        network_inputs(array, network, "x")


def test_archives_hold_inputs_and_labels(network: CompressedNetwork, tmp_path: Path) -> None:
    stored = stored_values(5)
    np.savez(tmp_path / "x.npz", x=stored, y=np.arange(5), note="text")
    inputs, labels = read_inputs(str(tmp_path / "x.npz"), network)
    assert np.array_equal(inputs, expected(network, stored))
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4]
    inputs, labels = read_inputs(f"{tmp_path / 'x.npz'}:1-3", network)
    assert np.array_equal(inputs, expected(network, stored)[1:4])
    assert labels is not None
    assert labels.tolist() == [1, 2, 3]
    assert len(read_inputs(f"{tmp_path / 'x.npz'}:4", network)[0]) == 1
    with pytest.raises(ThresherError, match=r"inputs must be in 0\.\.4"):
        read_inputs(f"{tmp_path / 'x.npz'}:3-5", network)
    np.savez(tmp_path / "one.npz", stored)
    assert read_inputs(str(tmp_path / "one.npz"), network)[1] is None


def test_a_missing_package_is_named_with_its_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    code, _, err = run(capsys, "import", model)
    assert code == 2
    assert 'run pip install "thresher[import]"' in err


def test_verbs_take_a_model_as_it_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", model)
    assert code == 0
    assert "conv0" in out


def test_a_percentile_beyond_all_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "import", model, "--percentile", "101")
    assert code == 2
    assert "--percentile 101.0: give more than 0, and 100 at most" in err
