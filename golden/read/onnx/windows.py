"""Windows of ONNX' convolutions and poolings: strides, dilations and paddings from attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.values import Refusal

__all__ = ["Padding", "Windows", "windows"]

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where the windows of a map lie.

    Parameters
    ----------
    kernel, stride, dilation
        (y, x).
    padding
        (top, left, bottom, right), with what rounding the size up adds at the bottom and right.
    overhang
        The part of the padding, (bottom, right), that rounding the size up added.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding
    overhang: Pair

    def pool(self) -> dict[str, Any]:
        """Return the keyword arguments of a pooling layer."""
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}


def windows(node: Node, size: Pair, kernel: tuple[int, ...] | None = None) -> Windows:
    """Return a node's windows.

    Parameters
    ----------
    node
        A convolution or pooling of a map, or of a row.
    size
        Height and width of its input.
    kernel
        Of its weights; its attribute's if None.

    Raises
    ------
    Refusal
        If it is not two-dimensional, or its attributes do not fit together.
    """
    attributes = node.attributes
    given = tuple(attributes.get("kernel_shape", kernel or ()))
    if kernel is not None and given != tuple(kernel):
        raise Refusal(f"its kernel_shape {given} is not that of its weights {kernel}", "correct it")
    axes = len(given)
    if axes not in {1, 2}:
        raise Refusal(f"it has {axes} spatial axes", "use one of height and width")

    def pair(name: str) -> Pair:
        values = tuple(int(x) for x in attributes.get(name) or (1,) * axes)
        if len(values) != axes or min(values) < 1:
            raise Refusal(f"its {name} are {values}", f"give {axes} of at least 1")
        return (1, values[0]) if axes == 1 else (values[0], values[1])

    shape = (1, given[0]) if axes == 1 else (given[0], given[1])
    stride, dilation = pair("strides"), pair("dilations")
    pads = [int(x) for x in attributes.get("pads") or (0,) * (2 * axes)]
    if len(pads) != 2 * axes or min(pads) < 0:
        raise Refusal(f"its pads are {pads}", f"give {2 * axes} of at least 0")
    if axes == 1:
        pads = [0, pads[0], 0, pads[1]]
    sides = []
    for axis in range(2):
        extent = (shape[axis] - 1) * dilation[axis] + 1
        given_pads = pads[axis], pads[axis + 2]
        sides.append(_padding(node, size[axis], extent, stride[axis], given_pads))
    (top, bottom, over_y), (left, right, over_x) = sides
    return Windows(
        kernel=shape,
        stride=stride,
        dilation=dilation,
        padding=(top, left, bottom, right),
        overhang=(over_y, over_x),
    )


def _padding(node: Node, size: int, extent: int, stride: int, given: Pair) -> tuple[int, int, int]:
    """Return the padding of one axis: before the map, behind it, what of that rounds a size up."""
    first, last = given
    auto = node.attributes.get("auto_pad", "NOTSET") or "NOTSET"
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        total = max(0, (-(-size // stride) - 1) * stride + extent - size)
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        last = total - first
    elif auto == "VALID":
        first = last = 0
    elif auto != "NOTSET":
        raise Refusal(f"its auto_pad is {auto!r}", "give it pads")
    room = size + first + last - extent
    extra = 0
    if node.attributes.get("ceil_mode", 0) == 1 and room >= 0 and room % stride:
        start = -(-room // stride) * stride  # of the last window
        if start < size + first:  # a window in the padding alone is none
            extra = start - room
    return first, last + extra, extra
