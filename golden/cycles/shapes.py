"""Layer shapes of well-known networks, for estimates where there is no data.

Sources: K. He et al., "Deep Residual Learning for Image Recognition" (2016), table 1, with the
stride in the 3 x 3 convolution as most implementations have it; K. Simonyan, A. Zisserman, "Very
Deep Convolutional Networks" (2015), configuration D; M. Sandler et al., "MobileNetV2" (2018),
table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True)
class Shape:
    """A convolution of square maps and kernels, and the pooling merged into it.

    Parameters
    ----------
    name
        Of the layer.
    channels, size
        Of the input map.
    out
        Output channels.
    kernel, stride, padding, groups
        Of the convolution. A fully connected layer has the map as its kernel.
    pool
        Kernel, stride, padding of max pooling; kernel 0: none.
    """

    name: str
    channels: int
    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    pool: tuple[int, int, int] = (0, 1, 0)

    @property
    def out_size(self) -> int:
        """Rows of the convolution's output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def written_size(self) -> int:
        """Rows of the pooled output."""
        kernel, stride, padding = self.pool
        return (self.out_size + 2 * padding - kernel) // stride + 1 if kernel else self.out_size

    @property
    def macs(self) -> int:
        """Multiplications of the dense convolution, those with padding included."""
        weights = self.out * self.channels // self.groups * self.kernel**2
        return weights * self.out_size**2


def _resnet_50() -> list[Shape]:
    layers = [Shape("conv1", 3, 224, 64, 7, 2, 3, pool=(3, 2, 1))]
    channels, size = 64, 56
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=2):
        for block in range(blocks):
            name = f"conv{stage}_{block + 1}"
            stride = 2 if stage > 2 and block == 0 else 1
            layers.append(Shape(f"{name}.1", channels, size, width, 1))
            layers.append(Shape(f"{name}.2", width, size, width, 3, stride, 1))
            layers.append(Shape(f"{name}.3", width, size // stride, 4 * width, 1))
            if block == 0:
                layers.append(Shape(f"{name}.short", channels, size, 4 * width, 1, stride))
            channels, size = 4 * width, size // stride
    return [*layers, Shape("fc", 2048, 1, 1000, 1)]


def _vgg_16() -> list[Shape]:
    layers = []
    channels, size = 3, 224
    for stage, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for number in range(1, count + 1):
            pool = (2, 2, 0) if number == count else (0, 1, 0)
            layers.append(Shape(f"conv{stage}_{number}", channels, size, width, 3, 1, 1, pool=pool))
            channels = width
        size //= 2
    return [
        *layers,
        Shape("fc6", 512, 7, 4096, 7),
        Shape("fc7", 4096, 1, 4096, 1),
        Shape("fc8", 4096, 1, 1000, 1),
    ]


def _mobilenet_v2() -> list[Shape]:
    layers = [Shape("conv", 3, 224, 32, 3, 2, 1)]
    channels, size, number = 32, 112, 0
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    blocks += [(6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, out, count, first_stride in blocks:
        for repeat in range(count):
            number += 1
            stride = first_stride if repeat == 0 else 1
            wide = channels * expansion
            if expansion > 1:
                layers.append(Shape(f"block{number}.expand", channels, size, wide, 1))
            layers.append(Shape(f"block{number}.depth", wide, size, wide, 3, stride, 1, wide))
            size //= stride
            layers.append(Shape(f"block{number}.project", wide, size, out, 1))
            channels = out
    return [*layers, Shape("last", 320, 7, 1280, 1), Shape("fc", 1280, 1, 1000, 1)]


SHAPES: dict[str, Callable[[], list[Shape]]] = {
    "resnet-50": _resnet_50,
    "vgg-16": _vgg_16,
    "mobilenet-v2": _mobilenet_v2,
}
