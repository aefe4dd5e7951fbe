"""Dense networks: float weights and an architecture, read from an ``.npz`` file.

The file holds

* ``architecture``: a text, JSON, described below;
* ``<layer>.weight`` of every convolution (out, in / groups, kernel height, kernel width) and of
  every linear layer (out, in), any float type;
* ``<layer>.bias`` of the same layers, (out,); missing means zeros.

The JSON is an object::

    {"name": "tiny", "input_shape": [1, 28, 28], "input_range": [0, 255], "input_scale": 0.0039,
     "layers": [
       {"name": "conv1", "kind": "convolution", "relu": true, "stride": [1, 1],
        "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1},
       {"name": "pool1", "kind": "max_pool", "kernel": [2, 2], "stride": [2, 2]},
       {"name": "flatten", "kind": "flatten"},
       {"name": "ip1", "kind": "linear", "relu": false}]}

``input_scale`` is the real value of the integer input 1; there is no mean, so that a zero stays
zero. Layers form a chain. Their kinds are ``convolution``, ``linear``, ``max_pool``,
``average_pool`` and ``flatten``. Strides, kernels and dilations are [y, x], paddings
[top, left, bottom, right]; what is left out has the values above, ``relu`` false, a pool's stride
its kernel.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError

__all__ = ["DenseError", "DenseLayer", "DenseNetwork", "Kind", "load_dense", "save_dense"]

FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

WEIGHTED = {"convolution": 4, "linear": 2}
POOLS = {"max_pool", "average_pool"}
Kind = str

# What a layer of each kind may say, beside its name and kind.
_FIELDS = {
    "convolution": {"relu", "stride", "padding", "dilation", "groups"},
    "linear": {"relu"},
    "max_pool": {"kernel", "stride", "padding"},
    "average_pool": {"kernel", "stride", "padding"},
    "flatten": set[str](),
}
_NETWORK_FIELDS = {"name", "input_shape", "input_range", "input_scale", "layers"}


class DenseError(ThresherError):
    """A dense network that cannot be read; the message names the layer or array."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseLayer:
    """One layer of a dense network.

    Parameters
    ----------
    name, kind
        As in the file.
    weight, bias
        Float arrays of a convolution or linear layer, else None.
    relu
        The output is ``max(0, .)`` of the sums.
    kernel, stride, padding, dilation, groups
        As in the file; a convolution's kernel is that of its weights.
    """

    name: str
    kind: Kind
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    relu: bool = False
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def run(self, x: FloatArray) -> FloatArray:
        """Return the output for inputs (n, C, H, W), in floats."""
        match self.kind:
            case "flatten":
                return x.reshape(len(x), -1, 1, 1)
            case "linear":
                assert self.weight is not None
                x = (x.reshape(len(x), -1) @ self.weight.T)[:, :, None, None]
            case "convolution":
                x = self._convolve(x)
            case _:
                windows = self._windows(x, -np.inf if self.kind == "max_pool" else 0.0)
                pooled = (
                    windows.max((-2, -1)) if self.kind == "max_pool" else windows.mean((-2, -1))
                )
                return cast(FloatArray, pooled)
        if self.bias is not None:
            x = x + self.bias[:, None, None]
        return np.maximum(x, 0) if self.relu else x

    def _convolve(self, x: FloatArray) -> FloatArray:
        assert self.weight is not None
        windows = self._windows(x, 0.0)
        parts = [
            np.tensordot(inputs, weights, axes=((1, 4, 5), (1, 2, 3)))
            for inputs, weights in zip(
                np.split(windows, self.groups, 1), np.split(self.weight, self.groups), strict=True
            )
        ]
        return np.concatenate(parts, axis=-1).transpose(0, 3, 1, 2)

    def _windows(self, x: FloatArray, fill: float) -> FloatArray:
        top, left, bottom, right = self.padding
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
        extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        if padded.shape[2] < extent[0] or padded.shape[3] < extent[1]:
            raise DenseError(
                f"layer {self.name!r}: the input {x.shape[1:]} is smaller than its window"
            )
        windows = np.lib.stride_tricks.sliding_window_view(padded, extent, (2, 3))
        return windows[
            :, :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseNetwork:
    """A chain of layers with float weights.

    Parameters
    ----------
    name
        Name of the network.
    input_shape
        (C, H, W).
    input_range
        Least and greatest integer input.
    input_scale
        Real value of the integer input 1.
    layers
        First to last.

    Raises
    ------
    DenseError
        If a layer does not take its input's shape.
    """

    name: str
    input_shape: tuple[int, int, int]
    input_range: tuple[int, int]
    input_scale: float
    layers: tuple[DenseLayer, ...]

    def __post_init__(self) -> None:
        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise DenseError("two layers have the same name")
        x = np.zeros((1, *self.input_shape))
        for layer in self.layers:
            if layer.weight is not None:
                found = x.size if layer.kind == "linear" else x.shape[1]
                wanted = layer.weight.shape[1] * layer.groups
                if found != wanted:
                    raise DenseError(
                        f"layer {layer.name!r}: its weights {layer.weight.shape} take {wanted} "
                        f"inputs, but there are {found}, from the shape {x.shape[1:]}"
                    )
                if len(layer.weight) % layer.groups:
                    raise DenseError(
                        f"layer {layer.name!r}: {len(layer.weight)} outputs are not divisible "
                        f"into {layer.groups} groups"
                    )
            x = layer.run(x)

    def scaled(self, inputs: npt.ArrayLike) -> FloatArray:
        """Return the real values of integer inputs.

        Raises
        ------
        DenseError
            If they are not integers in the network's range, the shape is not the network's, or
            there is no input.
        """
        x = np.asarray(inputs)
        if not np.issubdtype(x.dtype, np.integer):
            raise DenseError(f"inputs must be integers, not {x.dtype}")
        if x.ndim != 4 or x.shape[1:] != self.input_shape or not len(x):
            shape = ", ".join(map(str, self.input_shape))
            raise DenseError(f"inputs must have shape (n, {shape}), n at least 1, not {x.shape}")
        low, high = self.input_range
        if x.min() < low or x.max() > high:
            raise DenseError(f"inputs must be in {low}..{high}, not {x.min()}..{x.max()}")
        return x * self.input_scale

    def run(self, inputs: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return every layer's output (n, C, H, W), in floats.

        Parameters
        ----------
        inputs
            Integers (n, C, H, W), as the compressed network takes them.

        Raises
        ------
        DenseError
            If the shape is not the network's.
        """
        x = self.scaled(inputs)
        outputs = {}
        for layer in self.layers:
            outputs[layer.name] = x = layer.run(x)
        return outputs


def load_dense(path: str | PathLike[str]) -> DenseNetwork:
    """Read a dense network; the module's docstring has the format.

    Raises
    ------
    DenseError
        If the file is no ``.npz`` file, or an array or a field is missing or wrong.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data[:2] != b"PK":
            raise DenseError(
                f"{path} is not an .npz file: write weights and architecture with numpy.savez"
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DenseError(f"there is no file {path}") from None
    except DenseError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DenseError(f"{path} cannot be read as an .npz file: {error}") from None
    if "architecture" not in arrays:
        raise DenseError(
            f"{path} has no array 'architecture': add the layers in JSON,"
            " as the docstring of golden.compress.dense says"
        )
    try:
        architecture = json.loads(str(arrays.pop("architecture")))
    except json.JSONDecodeError as error:
        raise DenseError(f"'architecture' is not JSON: {error}") from None
    return from_arrays(architecture, arrays)


def save_dense(network: DenseNetwork, path: str | PathLike[str]) -> None:
    """Write a dense network; weights are kept as 32-bit floats."""
    layers: list[dict[str, object]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    for layer in network.layers:
        said = sorted(_FIELDS[layer.kind])
        layers.append(
            {"name": layer.name, "kind": layer.kind} | {key: getattr(layer, key) for key in said}
        )
        for part in ("weight", "bias"):
            array = getattr(layer, part)
            if array is not None:
                arrays[f"{layer.name}.{part}"] = array.astype(np.float32)
    architecture = {
        "name": network.name,
        "input_shape": network.input_shape,
        "input_range": network.input_range,
        "input_scale": network.input_scale,
        "layers": layers,
    }
    arrays["architecture"] = np.array(json.dumps(architecture))
    np.savez_compressed(Path(path), **arrays)  # type: ignore[arg-type]  # seen as allow_pickle


def from_arrays(
    architecture: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> DenseNetwork:
    """Make a dense network of the JSON object and the arrays of the module's docstring.

    Raises
    ------
    DenseError
        If an array or a field is missing or wrong.
    """
    if not isinstance(architecture, Mapping):
        raise DenseError("'architecture' must be a JSON object")
    _only("architecture", architecture, _NETWORK_FIELDS, {"input_shape", "layers"})
    layers = architecture["layers"]
    if not isinstance(layers, list) or not layers:
        raise DenseError(f"layers must be a list of at least one layer, not {layers!r}")
    made = tuple(_make_layer(number, layer, arrays) for number, layer in enumerate(layers))
    known = {f"{layer.name}.{part}" for layer in made for part in ("weight", "bias")}
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise DenseError(f"the array {unknown[0]!r} belongs to no layer")
    input_scale = architecture.get("input_scale", 1 / 255)
    if not isinstance(input_scale, float | int) or not 0 < input_scale < np.inf:
        raise DenseError(f"input_scale must be a positive number, not {input_scale!r}")
    shape = _integers("architecture", "input_shape", architecture["input_shape"], 3, 1)
    range_ = _integers("architecture", "input_range", architecture.get("input_range", (0, 255)), 2)
    return DenseNetwork(
        name=str(architecture.get("name", "network")),
        input_shape=cast(tuple[int, int, int], shape),
        input_range=cast(Pair, range_),
        input_scale=float(input_scale),
        layers=made,
    )


def _make_layer(
    number: int, said: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> DenseLayer:
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        raise DenseError(f"layer {number} must be an object with a name, not {said!r}")
    name, kind = said["name"], said.get("kind")
    where = f"layer {name!r}"
    if kind not in _FIELDS:
        raise DenseError(f"{where}: kind must be one of {', '.join(_FIELDS)}, not {kind!r}")
    _only(where, said, _FIELDS[kind] | {"name", "kind"}, {"kernel"} if kind in POOLS else set())
    if not isinstance(said.get("relu", False), bool):
        raise DenseError(f"{where}: relu must be true or false, not {said['relu']!r}")
    kernel = _integers(where, "kernel", said.get("kernel", (1, 1)), 2, 1)
    weight = bias = None
    if kind in WEIGHTED:
        weight = _float_array(f"{name}.weight", arrays)
        if weight.ndim != WEIGHTED[kind] or not weight.size:
            axes = "(out, in)" if kind == "linear" else "(out, in / groups, height, width)"
            raise DenseError(f"{name}.weight must have shape {axes}, not {weight.shape}")
        kernel = weight.shape[2:] if kind == "convolution" else kernel
        bias = np.zeros(len(weight))
        if f"{name}.bias" in arrays:
            bias = _float_array(f"{name}.bias", arrays)
        if bias.shape != (len(weight),):
            raise DenseError(f"{name}.bias must have shape ({len(weight)},), not {bias.shape}")
    stride = said.get("stride", kernel if kind in POOLS else (1, 1))
    return DenseLayer(
        name=name,
        kind=kind,
        weight=weight,
        bias=bias,
        relu=said.get("relu", False),
        kernel=cast(Pair, kernel),
        stride=cast(Pair, _integers(where, "stride", stride, 2, 1)),
        padding=cast(Padding, _integers(where, "padding", said.get("padding", (0, 0, 0, 0)), 4, 0)),
        dilation=cast(Pair, _integers(where, "dilation", said.get("dilation", (1, 1)), 2, 1)),
        groups=_integers(where, "groups", (said.get("groups", 1),), 1, 1)[0],
    )


def _float_array(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
    if name not in arrays:
        raise DenseError(f"there is no array {name!r}")
    array = arrays[name]
    if not np.issubdtype(array.dtype, np.floating):
        raise DenseError(f"{name} must be floats, not {array.dtype}")
    if not np.isfinite(array).all():
        raise DenseError(f"{name} holds a number that is not finite")
    return array.astype(np.float64)


def _integers(
    where: str, name: str, value: object, count: int, low: int | None = None
) -> tuple[int, ...]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != count
        or not all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        or (low is not None and min(value) < low)
    ):
        least = "" if low is None else f" of at least {low}"
        raise DenseError(f"{where}: {name} must be {count} integers{least}, not {value!r}")
    return tuple(value)


def _only(where: str, said: Mapping[str, Any], known: set[str], needed: set[str]) -> None:
    for name in sorted(needed - set(said)):
        raise DenseError(f"{where}: {name} is missing")
    for name in sorted(set(said) - known):
        raise DenseError(f"{where}: there is no field {name!r}")
