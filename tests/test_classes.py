"""Names of classes: from a file, from a model's metadata, and beside what a network says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork, Linear, Lookup
from thresher.golden.read.classes import (
    attached_classes,
    classes_of,
    read_classes,
    with_classes,
)
from thresher.golden.thr_file import load, save
from thresher.scripts.classes import print_classes, top
from thresher.scripts.main import main

NAMES = ["cat", "dog", "rocket launch"]


def network(*, sigmoid: bool = False, softmax: bool = False) -> CompressedNetwork:
    """Three outputs, which are the inputs."""
    layer = Linear(
        name="sums",
        weights=np.eye(3, dtype=np.uint8),
        codebook=np.array([0, 1]),
        bias=np.zeros(3, np.int64),
        scale=np.ones(3, np.int64),
        shift=np.zeros(3, np.int64),
    )
    table = Lookup(name="table", inputs=("sums",), first=0, table=np.arange(256))
    return CompressedNetwork(
        name="three",
        input_shape=(3, 1, 1),
        input_range=(0, 255),
        layers=(layer, table) if sigmoid else (layer,),
        metadata={"output": {"scale": 0.5, "zero_point": 0, "softmax": softmax}},
    )


def test_names_are_kept_in_the_file_of_the_network(tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("cat\r\n dog \nrocket launch\n\n")
    assert read_classes(names, network()) == NAMES
    assert classes_of(network()) is None
    save(with_classes(network(), NAMES), tmp_path / "net.thr")
    assert classes_of(load(tmp_path / "net.thr")) == NAMES
    assert classes_of(with_classes(network(), NAMES[:2])) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog\n", "labels.txt has 2 names, and three has 3 outputs; give one name a line$"),
        (b"background\ncat\ndog\nrocket", "has 4 names.*; leave its first line out, if that is a"),
        (b"\x89PNG\r\n\x1a\n\0\0", "labels.txt is no text; give one name a line, in UTF-8"),
        (b"cat\0\ndog\nrocket", "labels.txt is no text"),
        (None, "labels.txt cannot be read .No such file or directory.; give a text file"),
    ],
)
def test_files_that_are_no_names_are_told(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ThresherError, match=message):
        read_classes(path, network())


def test_names_behind_a_model_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"a model of any content")
    assert attached_classes(path, network()) is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vocabulary.txt", "a\nb\n")
        archive.writestr("labels.txt", "\n".join(NAMES))
    assert attached_classes(path, network()) == NAMES
    whole = path.read_bytes()
    for place in range(22, len(whole), 3):  # no traceback, whatever is damaged
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        attached_classes(path, network())


def test_probabilities_are_a_softmax_unless_a_function_ends_the_network() -> None:
    output = np.array([0, 4, 2])
    shares = np.exp([0.0, 2, 1]) / np.exp([0.0, 2, 1]).sum()
    for net in (network(), network(softmax=True), network(sigmoid=True, softmax=True)):
        found = top(net, output, NAMES)
        assert [one["index"] for one in found] == [1, 2, 0]
        assert found[0]["probability"] == pytest.approx(shares[1], abs=1e-4)
    assert top(network(sigmoid=True), output, NAMES)[0] == {
        "index": 1,
        "name": "dog",
        "probability": None,
    }


def test_one_input_takes_lines_and_several_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    found = [top(network(), np.array(one), NAMES) for one in ([0, 4, 2], [9, 0, 0])]
    print_classes(found[:1], NAMES, None)
    assert capsys.readouterr().out.splitlines() == [
        "predictions",
        "  0.665  dog",
        "  0.245  rocket launch",
        "  0.090  cat",
    ]
    print_classes(found, NAMES, [1, 2])
    assert capsys.readouterr().out.splitlines() == [
        "predictions",
        "  0  0.665 dog, 0.245 rocket launch, 0.090 cat; is dog",
        "  1  0.978 cat, 0.011 dog, 0.011 rocket launch; is rocket launch",
        "1 of 2 as labelled",
    ]
    print_classes(found * 6, NAMES, None)
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["predictions (--json has five of each)", "   0  0.665 dog"]
    assert len(out) == 13


def test_simulate_prints_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(network(), tmp_path / "net.thr")
    np.savez(tmp_path / "x.npz", x=np.array([[0, 4, 2], [9, 0, 0]]), y=np.array([1, 0]))
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("simulate", str(tmp_path / "net.thr"), "-i", str(tmp_path / "x.npz")),
                *("--lanes", "1", "--labels", str(tmp_path / "labels.txt")),
                *("--json", str(tmp_path / "figures.json")),
            ]
        )
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "  0  0.665 dog, 0.245 rocket launch, 0.090 cat; is dog\n" in out
    assert "2 of 2 as labelled\n" in out
    figures: Any = json.loads((tmp_path / "figures.json").read_text())
    assert figures["top"][1][0] == {"index": 0, "name": "cat", "probability": 0.9783}
