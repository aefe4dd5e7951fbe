"""Files of dense networks: float weights and an architecture, in ``.npz``.

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
       {"name": "conv2", "kind": "convolution", "inputs": ["pool1"], "clip": [0, 6]},
       {"name": "sum", "kind": "add", "inputs": ["pool1", "conv2"]},
       {"name": "swish", "kind": "unary", "function": "hard_swish"},
       {"name": "flatten", "kind": "flatten"},
       {"name": "ip1", "kind": "linear", "relu": false}]}

``input_scale`` is the real value of the integer input 1; there is no mean, so that a zero stays
zero. Where it and ``input_range`` are null, they are chosen when the network is quantised. A layer
that names no ``inputs`` reads the layer before it, the first one ``"input"``. Kinds and fields are
those of ``golden.compress.dense.DenseLayer``; ``"relu": true`` is the ``clip`` [0, null], where
null is no bound. Strides, kernels and dilations are [y, x], paddings [top, left, bottom, right];
what is left out has the values above, ``relu`` false, a pool's stride its kernel.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from thresher.golden.compress.dense import (
    POOLS,
    RELU,
    UNBOUNDED,
    WEIGHTED,
    Bounds,
    DenseError,
    DenseLayer,
    DenseNetwork,
    Padding,
    Pair,
    Shape,
)

__all__ = ["from_arrays", "load_dense", "save_dense"]

# What a layer of each kind may say, beside its name, kind and inputs.
_FIELDS: dict[str, set[str]] = {
    "convolution": {"clip", "stride", "padding", "dilation", "groups"},
    "linear": {"clip"},
    "max_pool": {"kernel", "stride", "padding"},
    "average_pool": {"kernel", "stride", "padding", "uncounted"},
    "flatten": set(),
    "add": {"clip"},
    "multiply": {"clip"},
    "concat": set(),
    "channel_shuffle": {"order"},
    "unary": {"function", "parameters"},
}
_NEEDED = {
    "max_pool": {"kernel"},
    "average_pool": {"kernel"},
    "add": {"inputs"},
    "multiply": {"inputs"},
    "concat": {"inputs"},
    "channel_shuffle": {"order"},
    "unary": {"function"},
}
_NETWORK_FIELDS = {"name", "input_shape", "input_range", "input_scale", "layers"}


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
            " as the docstring of golden.compress.dense_file says"
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
        said = {key: getattr(layer, key) for key in sorted(_FIELDS[layer.kind])}
        if "clip" in said:
            said["clip"] = [bound if math.isfinite(bound) else None for bound in layer.clip]
        layers.append({"name": layer.name, "kind": layer.kind, "inputs": layer.inputs} | said)
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
    if input_scale is None and architecture.get("input_range") is None:
        return DenseNetwork(
            name=str(architecture.get("name", "network")),
            input_shape=_shape(architecture),
            layers=made,
        )
    if not isinstance(input_scale, float | int) or not 0 < input_scale < np.inf:
        raise DenseError(f"input_scale must be a positive number, not {input_scale!r}")
    range_ = _integers("architecture", "input_range", architecture.get("input_range", (0, 255)), 2)
    return DenseNetwork(
        name=str(architecture.get("name", "network")),
        input_shape=_shape(architecture),
        input_range=cast(Pair, range_),
        input_scale=float(input_scale),
        layers=made,
    )


def _shape(architecture: Mapping[str, Any]) -> Shape:
    shape = _integers("architecture", "input_shape", architecture["input_shape"], 3, 1)
    return cast(Shape, shape)


def _make_layer(
    number: int, said: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> DenseLayer:
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        raise DenseError(f"layer {number} must be an object with a name, not {said!r}")
    name, kind = said["name"], said.get("kind")
    where = f"layer {name!r}"
    if kind not in _FIELDS:
        raise DenseError(f"{where}: kind must be one of {', '.join(_FIELDS)}, not {kind!r}")
    known = _FIELDS[kind] | {"name", "kind", "inputs"}
    _only(where, said, known | ({"relu"} if "clip" in known else set()), _NEEDED.get(kind, set()))
    inputs = said.get("inputs", [])
    if not isinstance(inputs, list | tuple) or not all(isinstance(item, str) for item in inputs):
        raise DenseError(f"{where}: inputs must be names of layers, not {inputs!r}")
    kernel = _integers(where, "kernel", said.get("kernel", (1, 1)), 2, 1)
    weight = bias = None
    if kind in WEIGHTED:
        weight = _float_array(f"{name}.weight", arrays)
        if weight.ndim != WEIGHTED[kind] or not weight.size:
            axes = "(out, in)" if kind == "linear" else "(out, in / groups, height, width)"
            raise DenseError(f"{name}.weight must have shape {axes}, not {weight.shape}")
        bias = np.zeros(len(weight))
        if f"{name}.bias" in arrays:
            bias = _float_array(f"{name}.bias", arrays)
        if bias.shape != (len(weight),):
            raise DenseError(f"{name}.bias must have shape ({len(weight)},), not {bias.shape}")
    order = said.get("order", ())
    stride = said.get("stride", kernel if kind in POOLS else (1, 1))
    return DenseLayer(
        name=name,
        kind=kind,
        inputs=tuple(inputs),
        weight=weight,
        bias=bias,
        clip=_bounds(where, said),
        kernel=cast(Pair, kernel),
        stride=cast(Pair, _integers(where, "stride", stride, 2, 1)),
        padding=cast(Padding, _integers(where, "padding", said.get("padding", (0, 0, 0, 0)), 4, 0)),
        uncounted=cast(
            Padding, _integers(where, "uncounted", said.get("uncounted", (0, 0, 0, 0)), 4, 0)
        ),
        dilation=cast(Pair, _integers(where, "dilation", said.get("dilation", (1, 1)), 2, 1)),
        groups=_integers(where, "groups", (said.get("groups", 1),), 1, 1)[0],
        order=_integers(where, "order", order, len(order) if isinstance(order, list) else 0),
        function=str(said.get("function", "")),
        parameters=_numbers(where, "parameters", said.get("parameters", ())),
    )


def _bounds(where: str, said: Mapping[str, Any]) -> Bounds:
    if not isinstance(said.get("relu", False), bool):
        raise DenseError(f"{where}: relu must be true or false, not {said['relu']!r}")
    if "clip" not in said:
        return RELU if said.get("relu") else UNBOUNDED
    if "relu" in said:
        raise DenseError(f"{where}: give relu or clip, not both")
    clip = said["clip"]
    if not isinstance(clip, list | tuple) or len(clip) != 2:
        raise DenseError(f"{where}: clip must be [low, high], null for no bound, not {clip!r}")
    bounds = [none if item is None else item for item, none in zip(clip, UNBOUNDED, strict=True)]
    low, high = _numbers(where, "clip", bounds)
    return low, high


def _numbers(where: str, name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int | float) and not isinstance(item, bool) and not math.isnan(item)
        for item in value
    ):
        raise DenseError(f"{where}: {name} must be numbers, not {value!r}")
    return tuple(float(item) for item in value)


def _float_array(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
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
        or (low is not None and min(value, default=low) < low)
    ):
        least = "" if low is None else f" of at least {low}"
        raise DenseError(f"{where}: {name} must be {count} integers{least}, not {value!r}")
    return tuple(value)


def _only(where: str, said: Mapping[str, Any], known: set[str], needed: set[str]) -> None:
    for name in sorted(needed - set(said)):
        raise DenseError(f"{where}: {name} is missing")
    for name in sorted(set(said) - known):
        raise DenseError(f"{where}: there is no field {name!r}")
