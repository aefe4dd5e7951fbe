"""From a TFLite file to a network, if its graph is one of integers."""

from __future__ import annotations

from pathlib import Path

from thresher.golden.network import CompressedNetwork
from thresher.golden.read.calibration import Calibration
from thresher.golden.read.problems import Problems
from thresher.golden.read.tflite.builder import INT8, Builder
from thresher.golden.read.tflite.file import Graph, read_graph
from thresher.golden.read.tflite.layers import BUILDERS

__all__ = ["read_tflite"]


def read_tflite(
    path: Path, calibration: Calibration | None, problems: Problems
) -> CompressedNetwork | None:
    """Read a ``.tflite`` model of int8 or uint8.

    Parameters
    ----------
    path
        The file.
    calibration
        Must be None: an integer model has its own scales.
    problems
        Receives what stands in the way.

    Returns
    -------
    network
        None if there are problems. Its outputs are those of TFLite's reference kernels.

    Raises
    ------
    ThresherError
        If the file cannot be read or a package is missing.
    """
    graph = read_graph(path, problems)
    if graph is None or not _check_graph(graph, problems):
        return None
    if calibration is not None:
        problems.add("calibration is for float models", "leave it out")
    return Builder(path, graph, problems).network(BUILDERS)


def _check_graph(graph: Graph, problems: Problems) -> bool:
    """Return whether the graph is one of integers with one input and one output."""
    before = len(problems.found)
    for what, numbers in (("input", graph.inputs), ("output", graph.outputs)):
        names = ", ".join(repr(graph.tensors[number].name) for number in numbers)
        if len(numbers) != 1:
            problems.add(
                f"it has {len(numbers)} {what}s" + (f" ({names})" if names else ""),
                f"convert it with one {what}",
            )
    heavy = [
        node
        for node in graph.nodes
        if node.op in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    ]
    types = [
        (graph.tensors[node.inputs[0]].dtype, graph.tensors[node.inputs[1]].dtype)
        for node in heavy
        if len(node.inputs) >= 2 and min(node.inputs[:2]) >= 0
    ]
    floats = [weights for values, weights in types if values in {"FLOAT32", "FLOAT16"}]
    if floats and len(floats) == len(types):
        kind = (
            "a float model"
            if all(weights in {"FLOAT32", "FLOAT16"} for weights in floats)
            else "a hybrid model: its weights are integers, its activations float"
        )
        problems.add(f"it is {kind}", f"{INT8}, or give the float model as ONNX")
    return len(problems.found) == before
