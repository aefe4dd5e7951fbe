"""``.thr`` files: the same network back, small, and no damage unnoticed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thresher.golden.builtin import mnist_digits, resolve_network
from thresher.golden.codes.weights import encode_layer
from thresher.golden.config import MultiplierKind
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork, Linear
from thresher.golden.random_network import random_network
from thresher.golden.thr_file import ThrError, from_bytes, load, save, to_bytes


@pytest.fixture(scope="module")
def network() -> CompressedNetwork:
    made = random_network(np.random.default_rng(5), layers=4, channels=3, size=5)
    return replace(
        made, metadata={"accuracy": 0.984, "made by": ["test"]}, multiplier=MultiplierKind.SHIFT
    )


def sealed(
    header: bytes, arrays: bytes = b"", weights: bytes = b"", first: str = "header"
) -> bytes:
    """A file whose own digest is right, whatever it holds."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in ((first, header), ("arrays", arrays), ("weights", weights)):
            archive.writestr(name, content)
        archive.comment = bytes(71)
    data = file.getvalue()[:-71]
    return data + b"sha256 " + hashlib.sha256(data).hexdigest().encode()


def members(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return (
            json.loads(archive.read("header")),
            archive.read("arrays"),
            archive.read("weights"),
        )


@pytest.mark.parametrize("seed", range(60))
def test_a_network_comes_back(seed: int, tmp_path: Path) -> None:
    made = random_network(np.random.default_rng(seed), pool_first=bool(seed % 2))
    path = tmp_path / "network.thr"
    save(made, path)
    again = load(path)
    assert again == made
    assert to_bytes(again) == path.read_bytes() == to_bytes(made)


def test_everything_beside_the_layers_comes_back(network: CompressedNetwork) -> None:
    again = from_bytes(to_bytes(network))
    assert again == network
    assert again.metadata == network.metadata
    assert again.multiplier is MultiplierKind.SHIFT


def test_any_changed_byte_is_noticed(network: CompressedNetwork) -> None:
    data = to_bytes(network)
    rng = np.random.default_rng(1)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        with pytest.raises(ThrError, match=r"^digits\.thr: it is .*; copy it again"):
            from_bytes(bytes(changed), "digits.thr")


def test_a_cut_or_longer_file_is_noticed(network: CompressedNetwork) -> None:
    data = to_bytes(network)
    for changed in (*(data[:end] for end in range(0, len(data), 7)), data + b"\0", b"\0" + data):
        with pytest.raises(ThrError):
            from_bytes(changed)


def damage(change: Callable[[dict[str, Any]], object]) -> Callable[[CompressedNetwork], bytes]:
    def make(network: CompressedNetwork) -> bytes:
        header, arrays, weights = members(to_bytes(network))
        change(header)
        content = {key: value for key, value in header.items() if key != "sha256"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        parts = b"".join(hashlib.sha256(part).digest() for part in (text, arrays, weights))
        header["sha256"] = hashlib.sha256(parts).hexdigest()
        return sealed(json.dumps(header).encode(), arrays, weights)

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (damage(lambda header: header.update(version=3)), "of version 3.*update Thresher"),
        (damage(lambda header: header.update(format="other")), "format must be"),
        (damage(lambda header: header.pop("name")), "not valid .*name"),
        (damage(lambda header: header.update(extra=1)), "not valid .*extra"),
        (damage(lambda header: header["layers"][0].update(extra=1)), "unknown fields"),
        (damage(lambda header: header["layers"][0].update(type="recurrent")), "recurrent"),
        (damage(lambda header: header["layers"].pop()), "more arrays than layers"),
        (damage(lambda header: header["layers"][0]["bias"].update(width=9)), "9 bytes is cut off"),
        (damage(lambda header: header["layers"][0]["weights"].update(bytes=3)), "not valid"),
        (damage(lambda header: header["layers"][0]["bias"].update(count=-1)), "not valid"),
        (damage(lambda header: header.update(layers=7)), "not valid"),
        (lambda _: sealed(b"{"), "not valid"),
        (lambda _: sealed(b"[]"), "not valid"),
        (lambda _: sealed(b'{"format":"thresher network","version":2,"sha256":""}'), "SHA-256"),
        (lambda _: sealed(b"[" * 100_000), "not valid"),
        (lambda _: sealed(b"{}", first="other"), "members must be"),
    ],
)
def test_a_wrong_content_is_refused_in_one_line(
    make: Callable[[CompressedNetwork], bytes], message: str, network: CompressedNetwork
) -> None:
    with pytest.raises(ThrError, match=message) as error:
        from_bytes(make(network), "digits.thr")
    assert str(error.value).startswith("digits.thr: ")
    assert "\n" not in str(error.value)


def test_a_file_is_little_more_than_its_coded_weights() -> None:
    rng = np.random.default_rng(0)
    codebook = np.arange(-16, 16)
    layers = []
    source = "input"
    for name, out, size, density in (
        ("a", 300, 784, 0.08),
        ("b", 100, 300, 0.09),
        ("c", 10, 100, 0.26),
    ):
        drawn = np.clip(np.rint(rng.normal(0, 5, size=(out, size))), -16, 15).astype(np.int64)
        weights = np.where(rng.random((out, size)) < density, drawn + 16, 16).astype(np.uint8)
        scale = rng.integers(1 << 15, 1 << 16, size=out)
        bias = rng.integers(-5000, 5000, size=out)
        layers.append(
            Linear(name=name, inputs=(source,), weights=weights, codebook=codebook, bias=bias,
                   scale=scale, shift=np.full(out, 22)),
        )  # fmt: skip
        source = name
    network = CompressedNetwork(
        name="lenet-300-100", input_shape=(1, 28, 28), input_range=(0, 255), layers=tuple(layers)
    )
    coded = sum(len(encode_layer(one.weights.ravel(), one.codebook)) for one in layers)
    constants = 410 * 4  # two bytes of bias and of scale
    assert len(to_bytes(network)) < coded + constants + 1200
    assert len(to_bytes(network)) < 27_000


def test_a_failed_save_leaves_the_old_file(
    network: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.thr"
    save(network, path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("thresher.golden.thr_file.os.fsync", fail)
    with pytest.raises(ThrError, match=r"be written \(No space left on device\); choose"):
        save(replace(network, name="other"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_or_folder_is_named(network: CompressedNetwork, tmp_path: Path) -> None:
    with pytest.raises(ThrError, match=r"none\.thr: it cannot be read .No such file"):
        load(tmp_path / "none.thr")
    with pytest.raises(ThrError, match="cannot be written"):
        save(network, tmp_path / "none" / "network.thr")
    with pytest.raises(ThrError, match="cannot be read"):
        load(tmp_path)


def test_metadata_must_be_json(network: CompressedNetwork) -> None:
    for value in (object(), float("nan")):
        with pytest.raises(ThrError, match="metadata must be JSON"):
            to_bytes(replace(network, metadata={"value": value}))


def test_a_network_is_found_by_its_path(network: CompressedNetwork, tmp_path: Path) -> None:
    path = tmp_path / "network.thr"
    save(network, path)
    assert resolve_network(path) == network
    with pytest.raises(ThresherError, match=r"none: there is no such file.*lenet-300-100, lenet-5"):
        resolve_network("none")


def test_digits_are_chosen_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(20 * 784, dtype=np.int64).reshape(20, 28, 28).astype(np.uint8)
    monkeypatch.setattr(
        "thresher.golden.builtin._all_digits", lambda: (images, np.arange(20, dtype=np.uint8))
    )
    for spec, chosen in (("mnist", slice(20)), ("mnist:7", [7]), ("mnist:2-4", slice(2, 5))):
        found, labels = mnist_digits(spec)
        assert np.array_equal(found[:, 0], images[chosen])
        assert np.array_equal(labels, np.arange(20)[chosen])
    for spec in ("digits", "mnist:20", "mnist:5-4", "mnist:-1"):
        with pytest.raises(ThresherError, match=f"not '{spec}'"):
            mnist_digits(spec)
