"""Deep Compression's ``.net`` files: weights that are pruned, shared and run-length-coded.

The layers are those of a Caffe ``.prototxt`` beside the file. Integers and floats are little
endian. First one u32 a convolution, in the order of the ``.prototxt``: its entries. Then, a
convolution after another:

* its codebook, 256 f32, of which the first is 0;
* its biases, one f32 an output channel;
* a code an entry, one u8;
* a gap an entry, 4 bits, two a byte, the low half first.

An entry stands for ``gap`` zeros and the weight ``codebook[code]``, in the order of the weights
(out, in / groups, height, width). A longer run of zeros has entries of gap 15 and code 0.

Reference
---------
S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016; the file of its SqueezeNet.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.calibrate import quantise
from thresher.golden.compress.dense import DenseError, DenseLayer, DenseNetwork
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.read.caffe import CaffeNetwork, read_caffe
from thresher.golden.read.calibration import Calibration
from thresher.golden.read.problems import Problems
from thresher.golden.read.prototxt import parse

__all__ = ["image_of", "read_net", "read_net_dense"]

_CODES = 256
_MEAN = (104, 117, 123)  # of ImageNet's pictures: blue, green, red
_TEXT = {*b"\t\n\r", *range(32, 127)}
_SIDE = 256  # to which a picture of ImageNet is scaled, before it is cut
_LARGEST = 1 << 31  # bytes; a file of more is no such file


def read_net(
    path: Path, calibration: Calibration | None, problems: Problems
) -> CompressedNetwork | None:
    """Read a network; a :data:`thresher.golden.read.Reader`.

    The weights stay shared: their codebooks are rounded to 8 bits, one step a layer.

    Parameters
    ----------
    path
        The ``.net`` file. Its ``.prototxt`` has the same name, or is the only one beside it.
    calibration
        Samples from which the steps of the activations are taken: real inputs (n, C, H, W), or
        pictures.
    problems
        Takes what is wrong.

    Returns
    -------
    network
        None where there is a problem.
    """
    read = _read(path, problems)
    if calibration is None:
        problems.add(
            "its weights are shared, but its activations are floats",
            "give samples to calibrate with: --calibrate PICTURE ... or --calibrate X.npy",
        )
    if read is None or calibration is None:
        return None
    dense, softmax = read
    image = image_of(dense.input_shape)
    samples = calibration.inputs(dense.input_shape, image)
    said: dict[str, object] = {
        "input": {
            "zero_point": 0,
            "dtype": "float32",
            "layout": "NCHW",
            "shape": list(dense.input_shape),
        },
        "output": {"softmax": softmax},
        "source": {
            "format": "Deep Compression",
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    }
    if image is not None:
        said["image"] = image
        low, high = -max(_MEAN), 255 - min(_MEAN)
        if low <= samples.min() and samples.max() <= high and _are_integers(samples):
            dense = replace(dense, input_range=(low, high), input_scale=1.0)  # pixels as they are
            said["input"] = {"scale": 1.0, **said["input"]}  # type: ignore[dict-item]
    try:
        return quantise(
            dense, samples, percentile=calibration.percentile, shared=True, metadata=said
        )
    except DenseError as error:
        problems.add(str(error), "give other samples to calibrate with, or prune again")
        return None


def read_net_dense(path: Path) -> DenseNetwork:
    """Read a network's float weights.

    Raises
    ------
    ReadError
        If the file has problems.
    """
    problems = Problems(path)
    read = _read(path, problems)
    problems.raise_if_any()
    assert read is not None
    return read[0]


def image_of(shape: tuple[int, int, int]) -> dict[str, object] | None:
    """Return how Caffe's models of ImageNet take a picture, for an input of three channels."""
    channels, height, width = shape
    if channels != 3:
        return None
    scaled = [_SIDE, _SIDE] if _SIDE // 2 < min(height, width) <= _SIDE else [height, width]
    return {
        "resize": scaled,
        "crop": [height, width],
        "order": "BGR",
        "mean": list(_MEAN),
        "std": [1, 1, 1],
    }


def _are_integers(samples: npt.NDArray[np.floating]) -> bool:
    return bool((samples == np.rint(samples)).all())


def _read(path: Path, problems: Problems) -> tuple[DenseNetwork, bool] | None:
    """Return the network and whether it ends with a softmax."""
    architecture = _architecture(path, problems)
    if architecture is None or problems.found:
        return None
    assert architecture.input_shape is not None
    try:
        dense = DenseNetwork(
            name=architecture.name,
            input_shape=architecture.input_shape,
            layers=tuple(architecture.layers.values()),
        )
    except DenseError as error:
        problems.add(str(error), "correct the .prototxt file")
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ThresherError(f"{path} cannot be read: {error.strerror}") from None
    if data and all(byte in _TEXT for byte in data[:1024]):
        problems.add(
            "it is text, not weights", "give the .net file, its .prototxt file being beside it"
        )
        return None
    layers = [layer for layer in dense.layers if layer.weight is not None]
    weights = _weights(data, layers, problems)
    if weights is None:
        return None
    made = (
        replace(layer, weight=weights[layer.name][0], bias=weights[layer.name][1])
        if layer.name in weights
        else layer
        for layer in dense.layers
    )
    return replace(dense, layers=tuple(made)), architecture.softmax


def _architecture(path: Path, problems: Problems) -> CaffeNetwork | None:
    prototxt = path.with_suffix(".prototxt")
    if not prototxt.is_file():
        others = sorted(path.parent.glob("*.prototxt"))
        if len(others) != 1:
            names = ", ".join(other.name for other in others[:3]) + ", ..." * (len(others) > 3)
            problems.add(
                f"its layers are described by {prototxt.name}, which is missing, and"
                + (f" of {names} any may be meant" if others else " no other .prototxt is there"),
                f"put the network's .prototxt file beside it as {prototxt.name}",
            )
            return None
        prototxt = others[0]
    try:
        return read_caffe(parse(prototxt.read_text()), problems)
    except OSError as error:
        problems.add(f"{prototxt.name} cannot be read: {error.strerror}", "make it readable")
    except UnicodeDecodeError:
        problems.add(f"{prototxt.name} is no text", "give the .prototxt file as text")
    except ThresherError as error:
        problems.add(f"{prototxt.name}, {error}", "correct the .prototxt file")
    return None


def _weights(
    data: bytes, layers: list[DenseLayer], problems: Problems
) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] | None:
    """Return each layer's weights and biases."""
    place = 4 * len(layers)
    if len(data) < place:
        problems.add(
            f"it ends {place - len(data):,} bytes early, within the numbers of entries of its"
            f" {len(layers)} layers",
            "give the whole file",
        )
        return None
    counts = np.frombuffer(data, dtype="<u4", count=len(layers)).tolist()
    sizes = [
        4 * (_CODES + len(_weight(layer))) + count + (count + 1) // 2
        for layer, count in zip(layers, counts, strict=True)
    ]
    for layer, count in zip(layers, counts, strict=True):
        if count > _weight(layer).size:
            problems.add(
                f"the file has {count:,} entries for its {_weight(layer).size:,} weights",
                "give the .prototxt file of this network",
                node=layer.name,
                op="Convolution",
            )
    if problems.found:
        return None
    missing = place + sum(sizes) - len(data)
    if missing:
        what = f"ends {missing:,} bytes early" if missing > 0 else f"has {-missing:,} bytes more"
        problems.add(
            f"it {what}: its layers take {place + sum(sizes):,}, it has {len(data):,}",
            "give the whole file" if missing > 0 else "give the .prototxt file of this network",
        )
        return None
    weights = {}
    for layer, count, size in zip(layers, counts, sizes, strict=True):
        made = _layer_weights(data[place : place + size], layer, count, problems)
        place += size
        if made is not None:
            weights[layer.name] = made
    return None if problems.found else weights


def _layer_weights(
    data: bytes, layer: DenseLayer, count: int, problems: Problems
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    shape = _weight(layer).shape
    floats = np.frombuffer(data, dtype="<f4", count=_CODES + shape[0])
    codebook, bias = floats[:_CODES], floats[_CODES:]
    codes = np.frombuffer(data, dtype=np.uint8, count=count, offset=floats.nbytes)
    pairs = np.frombuffer(data, dtype=np.uint8, offset=floats.nbytes + count)
    gaps = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[:count]
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    where = {"node": layer.name, "op": "Convolution"}
    if not np.isfinite(floats).all():
        problems.add("its codebook or biases are not finite", "give an undamaged file", **where)
    elif codebook[0] != 0:
        problems.add(
            f"entry 0 of its codebook is {codebook[0]}, not 0",
            "give the .prototxt file of this network, or an undamaged file",
            **where,
        )
    elif count and places[-1] >= _weight(layer).size:
        problems.add(
            f"its entries reach weight {places[-1]:,} of {_weight(layer).size:,}",
            "give the .prototxt file of this network, or an undamaged file",
            **where,
        )
    else:
        weight = np.zeros(_weight(layer).size, dtype=np.float32)
        weight[places] = codebook[codes]
        return weight.reshape(shape), bias.copy()
    return None


def _weight(layer: DenseLayer) -> npt.NDArray[np.floating]:
    assert layer.weight is not None
    return layer.weight
