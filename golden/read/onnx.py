"""ONNX models: of integers as they are, of floats with calibration samples."""

from __future__ import annotations

import hashlib
from pathlib import Path

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.read import Calibration
from thresher.golden.read.problems import Problems

__all__ = ["read_onnx"]

_INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def read_onnx(
    path: Path, calibration: Calibration | None, problems: Problems
) -> CompressedNetwork | None:
    """Read an ``.onnx`` model.

    Parameters
    ----------
    path
        The file.
    calibration
        For a float model; an integer model has its own scales.
    problems
        Receives what stands in the way.

    Returns
    -------
    network
        None if there are problems. An integer network's outputs are those of a runtime that
        computes sums exactly and rounds once.

    Raises
    ------
    ThresherError
        If the file cannot be read, or a package is missing.
    """
    try:
        from thresher.golden.read.onnx_graph import read_graph  # noqa: PLC0415  # needs its extra
        from thresher.golden.read.onnx_integer import IntegerReader  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ThresherError(
            f"{path}: reading ONNX needs the package {error.name}; install thresher[import]"
        ) from error
    graph = read_graph(path, problems)
    if graph is None:
        return None
    source: dict[str, object] = {
        "format": "onnx",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    is_integer = any(
        node.op in _INTEGER or node.op.startswith("QLinear") or node.op.endswith("Integer")
        for node in graph.nodes
    )
    if not is_integer:
        problems.add("it is a float model", "quantise it to int8 first")
        return None
    if calibration is not None:
        problems.add("calibration is for float models", "leave it out")
    return IntegerReader(graph, problems).network(source)
