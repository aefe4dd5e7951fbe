"""From an ONNX file to a network: which reader takes it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from thresher.golden.compress.dense import DenseNetwork
from thresher.golden.densities import with_densities
from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork
from thresher.golden.read.calibration import Calibration
from thresher.golden.read.inputs import network_inputs
from thresher.golden.read.problems import Problems

if TYPE_CHECKING:
    from thresher.golden.read.onnx.graph import Graph

__all__ = ["read_onnx", "read_onnx_dense"]

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
        Samples. A float model's scales are taken from them; an integer model has its own, and
        gets the densities of its channels.
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
    graph = _graph(path, problems)
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
        from thresher.golden.read.onnx.float_model import FloatReader  # noqa: PLC0415

        return FloatReader(graph, problems).network(source, calibration)
    from thresher.golden.read.onnx.integer_model import IntegerReader  # noqa: PLC0415

    network = IntegerReader(graph, problems).network(source)
    if network is None or calibration is None:
        return network
    samples = calibration.inputs(graph.input_shape[1:])
    return with_densities(network, network_inputs(samples, network, "the array of samples"))


def read_onnx_dense(path: Path) -> DenseNetwork:
    """Read a float model's layers and weights.

    Raises
    ------
    ReadError
        If the model has problems.
    ThresherError
        If the file cannot be read, or a package is missing.
    """
    problems = Problems(path)
    graph = _graph(path, problems)
    problems.raise_if_any()
    assert graph is not None
    from thresher.golden.read.onnx.float_model import FloatReader  # noqa: PLC0415  # needs its extra

    read = FloatReader(graph, problems).dense()
    problems.raise_if_any()
    assert read is not None
    return read[0]


def _graph(path: Path, problems: Problems) -> Graph | None:
    try:
        from thresher.golden.read.onnx.graph import read_graph  # noqa: PLC0415  # needs its extra
    except ModuleNotFoundError as error:
        raise ThresherError(
            f"{path}: reading ONNX needs the package {error.name}; install thresher[import]"
        ) from error
    return read_graph(path, problems)
