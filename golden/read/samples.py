"""Files that a network takes as inputs: arrays and pictures."""

from __future__ import annotations

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

__all__ = ["read_real_array", "read_samples"]


def read_samples(
    paths: Sequence[str | PathLike[str]],
    image: Mapping[str, Any] | None,
    shape: tuple[int, ...],
) -> npt.NDArray[np.float32]:
    """Return real inputs from files of arrays and pictures.

    Parameters
    ----------
    paths
        ``.npy``, ``.npz`` (its array ``x``, or its only one) and pictures, in any mixture. An
        array holds one input or several.
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
        array = read_real_array(path)
        array = array[None] if array.shape == shape else array
        if array.shape[1:] != shape or not len(array):
            wanted = ", ".join(map(str, shape))
            raise ThresherError(f"{path} has shape {array.shape}: the network takes (n, {wanted})")
        parts.append(array)
    if not parts:
        raise ThresherError("there is no sample; give at least one .npy file or picture")
    return np.concatenate(parts)


def read_real_array(path: str | PathLike[str]) -> npt.NDArray[np.float32]:
    """Return the array of a ``.npy`` file, or the array ``x`` or only array of an ``.npz`` file.

    Raises
    ------
    ThresherError
        If the file is none, or its numbers are not finite.
    """
    write = "write one array of numbers with numpy.save"
    try:
        with Path(path).open("rb") as file:
            magic = file.read(6)
            if magic[:4] != b"PK\x03\x04" and magic != b"\x93NUMPY":
                raise ThresherError(
                    f"{path} is no .npy or .npz file and not named as a picture is: {write}"
                )
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                array = loaded
            elif "x" in loaded.files or len(loaded.files) == 1:
                array = loaded["x" if "x" in loaded.files else loaded.files[0]]
            else:
                raise ThresherError(f"{path} has the arrays {loaded.files}: call the inputs 'x'")
    except ThresherError:
        raise
    except FileNotFoundError:
        raise ThresherError(
            f"{path}: there is no such file; give a .npy file or pictures"
        ) from None
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise ThresherError(f"{path} cannot be read as a .npy file ({error}): {write}") from None
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ThresherError(f"{path} holds {array.dtype}: {write}")
    if not np.isfinite(array).all():
        raise ThresherError(f"{path} holds numbers that are not finite: {write}")
    return array.astype(np.float32)
