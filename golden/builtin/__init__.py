"""Networks and digits that come with the package."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.thr_file import load

__all__ = ["NETWORKS", "mnist_digits", "resolve_network"]

NETWORKS = ("lenet-300-100", "lenet-5")

_MODELS = (".tflite", ".onnx", ".net")
_FOLDER = Path(__file__).parent
_SPEC = re.compile(r"mnist(?::(?P<first>\d+)(?P<range>-(?P<last>\d+))?)?")


def resolve_network(name_or_path: str | os.PathLike[str]) -> CompressedNetwork:
    """Return a network by its built-in name, from a ``.thr`` file, or from a model of another tool.

    Raises
    ------
    ThresherError
        If it is none; a :class:`~thresher.golden.thr_file.ThrError` if the file is not valid, a
        :class:`~thresher.golden.read.ReadError` if the model cannot be imported as it is.
    """
    text = os.fspath(name_or_path)
    if text in NETWORKS:
        return load(_FOLDER / f"{text}.thr")
    if not Path(text).exists():
        raise ThresherError(
            f"{text}: there is no such file or built-in network; "
            f"give a .thr file or one of {', '.join(NETWORKS)}"
        )
    if Path(text).suffix.lower() in _MODELS:
        from thresher.golden.read import read_model  # noqa: PLC0415  # readers are heavy

        return read_model(Path(text))
    return load(text)


def mnist_digits(spec: str = "mnist") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return some of the built-in digits of the MNIST test set.

    Parameters
    ----------
    spec
        ``mnist`` for all, ``mnist:7`` for one, ``mnist:0-9`` for several; counted from 0.

    Returns
    -------
    images, labels
        uint8 of shape (n, 1, 28, 28), and int64 of shape (n,).

    Raises
    ------
    ThresherError
        If ``spec`` is none of these, or counts past the last digit.
    """
    images, labels = _all_digits()
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ThresherError(f"digits must be 'mnist', 'mnist:7' or 'mnist:0-9', not {spec!r}")
    first = int(match["first"] or 0)
    last = int(match["last"] or 0) if match["range"] else first
    if match["first"] is None:
        last = len(images) - 1
    if not first <= last < len(images):
        raise ThresherError(f"digits must be in 0..{len(images) - 1}, not {spec!r}")
    chosen = slice(first, last + 1)
    return images[chosen, None].copy(), labels[chosen].astype(np.int64)


@lru_cache
def _all_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]:
    with np.load(_FOLDER / "mnist_digits.npz") as file:
        return file["images"], file["labels"]
