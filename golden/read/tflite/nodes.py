"""What the operations of TFLite share: inputs, options, limits and windows of a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.network import Range
from thresher.golden.read.tflite.arithmetic import FUNCTIONS, LIMITS, activation_limits
from thresher.golden.read.tflite.builder import Builder, NodeError, Padding, View
from thresher.golden.read.tflite.file import Node, Tensor

__all__ = [
    "AGAIN",
    "Window",
    "check_shape",
    "codebook",
    "inputs_of",
    "limits_of",
    "options_of",
    "same_quantisation",
    "same_scale",
    "stored_limits",
    "window_of",
    "with_padding",
]

Int64Array = npt.NDArray[np.int64]

AGAIN = "convert it again"
_SAME = 0


@dataclass(frozen=True, kw_only=True)
class Window:
    """Where the windows of a convolution or pooling lie, each pair as (y, x)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)


def inputs_of(node: Node, least: int) -> tuple[int, ...]:
    """Return a node's inputs, of which the first ``least`` must be there; one if it is one."""
    if len(node.inputs) < least or -1 in node.inputs[:least] or not node.outputs:
        raise NodeError(f"it has {len(node.inputs)} inputs, not {least}", AGAIN)
    return node.inputs if least > 1 else node.inputs[:1]


def options_of(node: Node) -> dict[str, Any]:
    """Return a node's options by the names of the schema."""
    if not node.options and node.op not in {"ADD", "CONCATENATION", "SOFTMAX", *FUNCTIONS}:
        raise NodeError("it has no options", AGAIN)
    return {"Axis": 0, **node.options}


def codebook(values: Int64Array) -> dict[str, Any]:
    """Return integer weights as ``codebook`` and ``weights`` of a layer."""
    entries, indices = np.unique(values, return_inverse=True)
    return {"codebook": entries, "weights": indices.reshape(values.shape).astype(np.uint8)}


def limits_of(node: Node, target: Tensor) -> Range:
    """Return least and greatest output after a node's fused activation, zero point removed."""
    fused = node.options.get("FusedActivationFunction", 0)
    try:
        low, high = activation_limits(fused, target.dtype, target.scale, target.zero_point)
    except KeyError:
        raise NodeError(
            f"its fused activation function {fused} is not read", "use a layer of its own for it"
        ) from None
    return low - target.zero_point, high - target.zero_point


def stored_limits(target: Tensor) -> Range:
    """Return least and greatest value of a tensor's type, zero point removed."""
    low, high = LIMITS[target.dtype]
    return low - target.zero_point, high - target.zero_point


def window_of(
    options: dict[str, Any],
    kernel: tuple[int, ...],
    size: tuple[int, int],
    padding: int,
) -> Window:
    """Return where the windows lie (TFLite, ``ComputePaddingHeightWidth``)."""
    stride = options["StrideH"], options["StrideW"]
    dilation = options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)
    if min(*stride, *dilation, *kernel) < 1:
        raise NodeError(f"kernel, stride and dilation are {kernel}, {stride}, {dilation}", AGAIN)
    before, after = [], []
    for axis in range(2):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        steps = -(-size[axis] // stride[axis])
        total = max((steps - 1) * stride[axis] + extent - size[axis], 0) if padding == _SAME else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return Window(
        kernel=(kernel[0], kernel[1]),
        stride=stride,
        dilation=dilation,
        padding=(before[0], before[1], after[0], after[1]),
    )


def with_padding(
    builder: Builder, source: Tensor, view: View, window: Window
) -> tuple[View, Window]:
    """Return view and window with the padding of a node before folded in, if it fits."""
    if source.number not in builder.padded or any(window.padding):
        return view, window
    unpadded, padding = builder.padded[source.number]
    extent = [
        (size - 1) * dilation + 1
        for size, dilation in zip(window.kernel, window.dilation, strict=True)
    ]
    if any(amount >= size for amount, size in zip(padding, extent * 2, strict=True)):
        return view, window
    return unpadded, replace(window, padding=padding)


def same_scale(builder: Builder, node: Node) -> tuple[Tensor, Tensor]:
    """Return input and output of a node that keeps scale and zero point."""
    source = builder.activation(inputs_of(node, 1)[0])
    target = builder.activation(node.outputs[0])
    if not same_quantisation(source, target):
        raise NodeError(
            "its output has another scale or zero point than its input", "quantise both alike"
        )
    return source, target


def same_quantisation(source: Tensor, target: Tensor) -> bool:
    """Return whether two tensors have one type, scale and zero point."""
    return (
        source.dtype == target.dtype
        and source.scale == target.scale
        and source.zero_point == target.zero_point
    )


def check_shape(places: Int64Array, target: Tensor) -> None:
    """Raise if a node's output does not have the shape that the file says."""
    if places.shape != target.shape[1:]:
        raise NodeError(
            f"its output has shape {target.shape}, and it makes {(1, *places.shape)}", AGAIN
        )
