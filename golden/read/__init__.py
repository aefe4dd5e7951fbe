"""Readers: from a model file of another tool to a compressed network, or to what is wrong with it.

A reader goes through the whole file and notes every :class:`Problem` in a :class:`Problems`; it
builds layers only where there is none. So one reading tells all that has to be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.read.calibration import Calibration
from thresher.golden.read.problems import Problem, Problems, ReadError

__all__ = ["Calibration", "Problem", "Problems", "ReadError", "check_model", "read_model"]

Reader = Callable[[Path, Calibration | None, Problems], CompressedNetwork | None]


def read_model(path: Path, calibration: Calibration | None = None) -> CompressedNetwork:
    """Read a model.

    Parameters
    ----------
    path
        A ``.tflite``, ``.onnx`` or Deep Compression ``.net`` file (its ``.prototxt`` beside it).
    calibration
        Samples for a float model; an integer model has its own scales.

    Raises
    ------
    ReadError
        If the model has problems; its message names the first and how many there are.
    ThresherError
        If the file cannot be read, or a package is missing.
    """
    problems = Problems(path)
    network = _reader(path)(path, calibration, problems)
    problems.raise_if_any()
    assert network is not None, "a reader without problems gives a network"
    return network


def check_model(path: Path, calibration: Calibration | None = None) -> list[Problem]:
    """Return every problem of a model, none if it can be imported (with these samples)."""
    problems = Problems(path)
    _reader(path)(path, calibration, problems)
    return problems.found


def _read_empty(path: Path, calibration: Calibration | None, problems: Problems) -> None:
    del path, calibration
    problems.add("it is empty", "copy or export it again")


def _reader(path: Path) -> Reader:
    """Return the reader of a kind of file; each brings its own packages."""
    if path.is_dir():
        raise ThresherError(f"{path} is a folder; give a .tflite, .onnx or .net file")
    if not path.is_file():
        raise ThresherError(f"{path}: there is no such file; give a .tflite, .onnx or .net file")
    if path.suffix.lower() in {".tflite", ".onnx"} and path.stat().st_size == 0:
        return _read_empty
    match path.suffix.lower():
        case ".tflite":
            from thresher.golden.read.tflite import read_tflite  # noqa: PLC0415  # needs its extra

            return read_tflite
        case ".onnx":
            from thresher.golden.read.onnx import read_onnx  # noqa: PLC0415  # needs its extra

            return read_onnx
        case ".net":
            from thresher.golden.read.deep_compression import read_net  # noqa: PLC0415

            return read_net
    raise ThresherError(
        f"{path}: files named {path.suffix or 'without a suffix'} are not read;"
        " give a .tflite, .onnx or .net file"
    )
