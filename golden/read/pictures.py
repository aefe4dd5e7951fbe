"""Pictures as real inputs of a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError

__all__ = ["SUFFIXES", "read_picture"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What files of pictures are named."""

_BGR = {"RGB": slice(None), "BGR": slice(None, None, -1)}


def read_picture(
    path: str | PathLike[str], image: Mapping[str, Any], shape: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    """Return a picture as a network takes it.

    It is scaled to ``resize``, whatever its own proportions, bilinearly; the middle is cut out of
    it; of each channel the mean is taken, and the rest divided by the deviation.

    Parameters
    ----------
    path
        A file of any format that pillow reads. What is transparent is black.
    image
        ``resize`` [height, width], ``crop`` [height, width], ``order`` "RGB" or "BGR", ``mean``
        and ``std``, one a channel in that order, for values in 0..255. What is missing changes
        nothing: the size is that of ``shape``, the order RGB.
    shape
        (C, H, W) of the network's input; a network of one channel takes the picture's brightness.

    Returns
    -------
    values
        Floats (C, H, W).

    Raises
    ------
    ThresherError
        If pillow is not installed, the file is no picture or broken, or ``image`` does not fit
        ``shape``.
    """
    path = Path(path)
    channels, height, width = shape
    if channels not in {1, 3}:
        raise ThresherError(
            f"{path}: a network of {channels} input channels takes no pictures; give a .npy file"
        )
    crop = _pair(path, image, "crop", (height, width))
    resize = _pair(path, image, "resize", crop)
    if crop != (height, width) or resize < crop or resize[1] < crop[1]:
        raise ThresherError(
            f"{path}: a picture of {list(resize)}, cut to {list(crop)}, does not fit the network's"
            f" {height} x {width}; correct the metadata 'image'"
        )
    order = image.get("order", "RGB")
    if order not in _BGR:
        raise ThresherError(f"{path}: the order of channels must be RGB or BGR, not {order!r}")
    values = _pixels(path, channels, resize)
    top, left = (resize[0] - crop[0]) // 2, (resize[1] - crop[1]) // 2
    values = values[top : top + height, left : left + width, _BGR[order]].transpose(2, 0, 1)
    mean, std = (
        _per_channel(path, image, name, channels, none) for name, none in (("mean", 0), ("std", 1))
    )
    return np.ascontiguousarray((values - mean) / std, dtype=np.float32)


def _pixels(path: Path, channels: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return a picture (height, width, channels) scaled to ``size``, its values 0 to 255."""
    try:
        from PIL import Image  # noqa: PLC0415  # the extra `import`
    except ImportError:
        raise ThresherError(
            f"{path}: pillow, which reads pictures, is missing:"
            " install it with `pip install 'thresher[import]'`"
        ) from None
    if not path.is_file():
        raise ThresherError(f"{path}: there is no such picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                picture = file.convert("L" if channels == 1 else "RGB")
    # Pillow's decoders raise all of these for broken files.
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ThresherError(
            f"{path} cannot be read as a picture ({error}); give a whole PNG or JPEG file"
        ) from None
    picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32).reshape(*size, channels)


def _pair(
    path: Path, image: Mapping[str, Any], name: str, none: tuple[int, int]
) -> tuple[int, int]:
    value = image.get(name, none)
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(item, int) and 0 < item <= 1 << 14 for item in value)
    ):
        raise ThresherError(f"{path}: the metadata image.{name} must be [height, width]: {value!r}")
    return value[0], value[1]


def _per_channel(
    path: Path, image: Mapping[str, Any], name: str, channels: int, none: float
) -> npt.NDArray[np.float32]:
    value = image.get(name, [none] * channels)
    if (
        not isinstance(value, list | tuple)
        or len(value) != channels
        or not all(isinstance(item, int | float) for item in value)
        or (name == "std" and not all(value))
    ):
        raise ThresherError(
            f"{path}: the metadata image.{name} must be {channels} numbers, not {value!r}"
        )
    return np.array(value, dtype=np.float32).reshape(channels, 1, 1)
