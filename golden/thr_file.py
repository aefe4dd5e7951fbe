"""``.thr`` files: a compressed network in one small file that shows any damage.

A zip archive of three members, the same bytes for the same network:

========== ========================================================================
header     JSON: version, SHA-256 of the content, the network without its arrays
arrays     codebooks, biases, scales, shifts: each in as few bytes a value as it needs,
           the lowest byte of all values first, one array after another
weights    for each layer with weights its stream of ``golden.codes.weights.encode_layer``
========== ========================================================================

The archive's comment is the SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights import decode_layer, encode_layer
from thresher.golden.descriptors import Rounding
from thresher.golden.errors import ThresherError
from thresher.golden.network import (
    Add,
    AveragePool,
    ChannelShuffle,
    CompressedNetwork,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
)

__all__ = ["ThrError", "from_bytes", "load", "save", "to_bytes"]

VERSION = 2
FORMAT = "thresher network"

_TYPES: dict[str, type[Layer]] = {
    "convolution": Convolution,
    "linear": Linear,
    "max_pool": MaxPool,
    "average_pool": AveragePool,
    "flatten": Flatten,
    "add": Add,
    "multiply": Multiply,
    "concat": Concat,
    "channel_shuffle": ChannelShuffle,
    "lookup": Lookup,
}
_NAMES = {layer_type: name for name, layer_type in _TYPES.items()}
_MEMBERS = ("header", "arrays", "weights")
_LATER = {"cut_scales"}  # fields that older files do not have; left out where they are None
_LARGEST = 1 << 30  # bytes of an unpacked member
_COMMENT = b"sha256 "
_COMMENT_BYTES = len(_COMMENT) + 64
_AGAIN = "copy it again or make it anew ('thresher compress', 'thresher import')"


class ThrError(ThresherError):
    """A file that cannot be written, read or trusted; one line: file, reason, fix."""


def to_bytes(network: CompressedNetwork) -> bytes:
    """Return the file's content; equal networks give equal bytes.

    Raises
    ------
    ThrError
        If the metadata is nothing that JSON holds.
    """
    arrays: list[bytes] = []
    weights: list[bytes] = []
    layers = [_pack_layer(layer, arrays, weights) for layer in network.layers]
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": network.name,
        "input_shape": network.input_shape,
        "input_range": network.input_range,
        "multiplier": network.multiplier.value,
        "metadata": dict(network.metadata),
        "layers": layers,
    }
    try:
        header["sha256"] = _content_digest(header, b"".join(arrays), b"".join(weights))
    except (TypeError, ValueError) as error:
        raise ThrError(
            f"network {network.name!r}: metadata must be JSON ({error}); use texts and numbers"
        ) from None
    contents = (_json(header), b"".join(arrays), b"".join(weights))

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in zip(_MEMBERS, contents, strict=True):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the same on every system
            info.external_attr = 0o644 << 16
            is_coded = name == "weights"
            info.compress_type = zipfile.ZIP_STORED if is_coded else zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=9)
        archive.comment = bytes(_COMMENT_BYTES)
    data = file.getvalue()[:-_COMMENT_BYTES]
    return data + _comment(data)


def from_bytes(data: bytes, name: str = "network") -> CompressedNetwork:
    """Return the network of a file's content; ``name`` is the file's name in errors.

    Raises
    ------
    ThrError
        If a single byte differs from what was written, or the content is no valid network.
    """
    if data[:4] != b"PK\x03\x04":
        raise ThrError(f"{name}: it is not a .thr file, or its beginning is damaged; {_AGAIN}")
    if data[-_COMMENT_BYTES:] != _comment(data[:-_COMMENT_BYTES]):
        raise ThrError(f"{name}: it is damaged, its bytes do not match its SHA-256; {_AGAIN}")
    try:
        return _parse(data)
    except _Version as error:
        raise ThrError(
            f"{name}: it is of version {error}, and only {VERSION} is known; update Thresher"
        ) from None
    except _PARSE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ThrError(f"{name}: its content is not valid ({reason}); {_AGAIN}") from error


def save(network: CompressedNetwork, path: str | os.PathLike[str]) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    ThrError
        If the file cannot be written, or the metadata is nothing that JSON holds.
    """
    target = Path(path)
    data = to_bytes(network)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as error:
        raise ThrError(
            f"{target}: it cannot be written ({error.strerror}); choose a folder that can be"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> CompressedNetwork:
    """Read a file and check every byte of it.

    Raises
    ------
    ThrError
        If it cannot be read, is damaged, or is no valid network.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ThrError(
            f"{path}: it cannot be read ({error.strerror}); check the file's name"
        ) from None
    return from_bytes(data, str(path))


class _Version(Exception):
    """A version that is not known."""


_PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,  # of zipfile: a way of packing
    RecursionError,
    RuntimeError,  # of zipfile: an encrypted member
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _comment(data: bytes) -> bytes:
    return _COMMENT + hashlib.sha256(data).hexdigest().encode()


def _json(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _content_digest(header: Mapping[str, Any], arrays: bytes, weights: bytes) -> str:
    content = {key: value for key, value in header.items() if key != "sha256"}
    parts = (_json(content), arrays, weights)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _pack_layer(layer: Layer, arrays: list[bytes], weights: list[bytes]) -> dict[str, Any]:
    """Return the layer's part of the header, and append its arrays and weights."""
    packed: dict[str, Any] = {"type": _NAMES[type(layer)]}
    for item in fields(layer):
        value = getattr(layer, item.name)
        if value is None and item.name in _LATER:
            continue
        if item.name == "weights":
            stream = encode_layer(value.ravel(), getattr(layer, "codebook"))  # noqa: B009  # of weighted layers
            weights.append(stream)
            packed["weights"] = {"shape": value.shape, "bytes": len(stream)}
        elif isinstance(value, np.ndarray):
            width = _byte_width(value)
            planes = value.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].T
            arrays.append(planes.tobytes())
            packed[item.name] = {"count": value.size, "width": width}
        else:
            packed[item.name] = value.name if isinstance(value, Rounding) else value
    return packed


def _byte_width(values: npt.NDArray[np.int64]) -> int:
    magnitude = max(int(values.max()), -int(values.min()) - 1)
    return magnitude.bit_length() // 8 + 1


def _parse(data: bytes) -> CompressedNetwork:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if tuple(info.filename for info in infos) != _MEMBERS:
            raise ValueError(f"members must be {_MEMBERS}")
        if max(info.file_size for info in infos) > _LARGEST:
            raise ValueError(f"a member has more than {_LARGEST} bytes")
        header_bytes, array_bytes, weight_bytes = (archive.read(info) for info in infos)
    header = json.loads(header_bytes)
    if header.pop("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}")
    if header["version"] != VERSION:
        raise _Version(header["version"])
    del header["version"]
    digest = header.pop("sha256")
    expected = _content_digest(
        {**header, "format": FORMAT, "version": VERSION}, array_bytes, weight_bytes
    )
    if digest != expected:
        raise ValueError("the content does not match its SHA-256")
    arrays, weights = io.BytesIO(array_bytes), io.BytesIO(weight_bytes)
    layers = tuple(_parse_layer(packed, arrays, weights) for packed in header.pop("layers"))
    if arrays.read(1) or weights.read(1):
        raise ValueError("there are more arrays than layers")
    return CompressedNetwork(layers=layers, **header)


def _parse_layer(packed: dict[str, Any], arrays: io.BytesIO, weights: io.BytesIO) -> Layer:
    layer_type = _TYPES[packed.pop("type")]
    values: dict[str, Any] = {}
    for item in fields(layer_type):  # in the order in which they were written
        if item.name in _LATER and item.name not in packed:
            continue
        value = packed.pop(item.name)
        if item.name == "weights":
            stream = weights.read(value["bytes"])
            shape = tuple(value["shape"])
            size = int(np.prod(shape))
            values["weights"] = decode_layer(stream, size).reshape(shape)
        elif isinstance(value, dict):
            values[item.name] = _parse_array(arrays, value["count"], value["width"])
        else:
            values[item.name] = Rounding[value] if item.name == "rounding" else value
    if packed:
        raise ValueError(f"unknown fields {sorted(packed)}")
    return layer_type(**values)


def _parse_array(arrays: io.BytesIO, count: int, width: int) -> npt.NDArray[np.int64]:
    content = arrays.read(count * width)
    if len(content) != count * width or not 1 <= width <= 8:
        raise ValueError(f"an array of {count} values of {width} bytes is cut off")
    planes = np.frombuffer(content, dtype=np.uint8).reshape(width, count)
    values = np.zeros(count, dtype=np.int64)
    for place, plane in enumerate(planes):
        values |= plane.astype(np.int64) << 8 * place
    unused = 64 - 8 * width
    return values << unused >> unused
