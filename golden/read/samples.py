"""Files that a network takes as inputs: arrays and pictures."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError
from thresher.golden.read.pictures import SUFFIXES, read_picture

__all__ = ["read_arrays", "read_samples"]

_SOME = re.compile(r"(?P<path>.*\.np[yz]):(?P<first>\d+)(-(?P<last>\d+))?")


def read_samples(
    paths: Sequence[str | PathLike[str]],
    image: Mapping[str, Any] | None,
    shape: tuple[int, ...],
) -> npt.NDArray[np.float32]:
    """Return real inputs from files of arrays and pictures.

    Parameters
    ----------
    paths
        Files of arrays, as :func:`read_arrays` takes them, and pictures, in any mixture. An array
        holds one input or several.
    image
        How a picture becomes an input, as :func:`thresher.golden.read.pictures.read_picture` has
        it; None where it is not known.
    shape
        Of one input; (C, H, W) if there are pictures.

    Returns
    -------
    samples
        Floats (n, *shape), in the order of the files.

    Raises
    ------
    ThresherError
        If a file cannot be read, or what it holds is no such input.
    """
    parts = []
    for path in map(Path, paths):
        if path.suffix.lower() in SUFFIXES:
            if image is None or len(shape) != 3:
                raise ThresherError(
                    f"{path}: how the network takes pictures is not known; give a .npy file of"
                    f" floats (n, {', '.join(map(str, shape))})"
                )
            parts.append(read_picture(path, image, (shape[0], shape[1], shape[2]))[None])
            continue
        array = _read_real_array(path)
        array = array[None] if array.shape == shape else array
        if array.shape[1:] != shape or not len(array):
            wanted = ", ".join(map(str, shape))
            raise ThresherError(f"{path} has shape {array.shape}: the network takes (n, {wanted})")
        parts.append(array)
    if not parts:
        raise ThresherError("there is no sample; give at least one .npy file or picture")
    return np.concatenate(parts)


def read_arrays(name: str | PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs ``x`` of a file, and other arrays of an ``.npz`` file.

    Parameters
    ----------
    name
        A ``.npy`` file, or an ``.npz`` file with an array ``x`` or one array only. Behind it,
        ``:FIRST-LAST`` or ``:ONE`` for some of the inputs, counted from 0; the array ``y``, if it
        is as long, is that of the same inputs.

    Raises
    ------
    ThresherError
        If the file cannot be read, or does not have so many inputs.
    """
    match = _SOME.fullmatch(str(name))
    path = Path(match["path"] if match else name)
    arrays = _arrays_of(path)
    if match is None:
        return arrays
    count = len(arrays["x"]) if arrays["x"].ndim else 0
    first = int(match["first"])
    last = int(match["last"] or first)
    if not first <= last < count:
        raise ThresherError(f"{name}: inputs must be in 0..{count - 1}")
    chosen = {
        key: array[first : last + 1] if array.shape[:1] == (count,) else array
        for key, array in arrays.items()
    }
    return chosen


def _arrays_of(path: Path) -> dict[str, npt.NDArray[Any]]:
    write = "write one array of numbers with numpy.save"
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            if magic[:4] != b"PK\x03\x04" and magic != b"\x93NUMPY":
                raise ThresherError(f"{path} is not a .npy file: {write}")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise ThresherError(
            f"{path}: there is no such file; give a .npy or .npz file or a picture"
        ) from None
    except ThresherError:
        raise
    except (ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise ThresherError(f"{path} cannot be read as a .npy file ({error}): {write}") from None
    except OSError as error:
        raise ThresherError(f"{path} cannot be read ({error.strerror}): {write}") from None
    if len(arrays) == 1:
        return {"x": next(iter(arrays.values()))}
    if "x" not in arrays:
        raise ThresherError(
            f"{path} is an archive of {', '.join(arrays) or 'nothing'}: call the inputs x"
        )
    return arrays


def _read_real_array(name: str | PathLike[str]) -> npt.NDArray[np.float32]:
    array = read_arrays(name)["x"]
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ThresherError(f"{name} holds {array.dtype}: give numbers")
    if not np.isfinite(array).all():
        raise ThresherError(f"{name} holds numbers that are not finite: leave these inputs out")
    return array.astype(np.float32)
