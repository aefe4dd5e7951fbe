"""Random runs of the activation parts."""

from __future__ import annotations

import numpy as np

from thresher.golden.descriptors import RUN

__all__ = ["random_run", "sparse"]

Shape = tuple[int, int, int, int]


def random_run(
    rng: np.random.Generator, *, send_zeros: bool = False
) -> tuple[dict[str, int], list[int], Shape]:
    """Return a run's fields, its segments' channels, and the shape of a lane's input."""
    run = {field.name: 0 for word in RUN.words for field in word}
    maps, height, width = (int(rng.integers(1, high)) for high in (4, 7, 8))
    segments: list[int] = rng.integers(1, 6, rng.integers(1, 4)).tolist()
    stride_y, stride_x = (int(rng.integers(1, 4)) for _ in range(2))
    pad_y, pad_x = (int(rng.integers(0, 4)) for _ in range(2))
    whole_map = rng.random() < 0.2
    if whole_map:
        pad_y = pad_x = 0
    extents = []
    for size, pad in ((height, pad_y), (width, pad_x)):
        extents.append(size if whole_map else int(rng.integers(1, size + pad + 1)))
    out_height, out_width = (
        (size + pad + int(rng.integers(0, 3)) - extent) // stride + 1
        for size, pad, extent, stride in (
            (height, pad_y, extents[0], stride_y),
            (width, pad_x, extents[1], stride_x),
        )
    )
    channels = int(rng.integers(1, 5))
    kernel_height, kernel_width = -(-extents[0] // stride_y), -(-extents[1] // stride_x)
    phase_groups = kernel_height * kernel_width
    run |= {
        "maps": maps,
        "send_zeros": send_zeros,
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "pad_y": pad_y,
        "pad_x": pad_x,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "channels": channels,
        "row_size": out_width * channels,
        "map_size": out_height * out_width * channels,
        "extent_y": extents[0],
        "group_base": int(rng.integers(0, 50)),
        "channel_groups": stride_y * stride_x * phase_groups,
        "phase_groups": phase_groups,
    }
    return run, segments, (maps, sum(segments), height, width)


def sparse(rng: np.random.Generator, shape: tuple[int, ...], bits: int = 9) -> np.ndarray:
    """Signed values of ``bits`` bits, of which a random share is zero; at times all or none."""
    high = 1 << bits - 1
    values = rng.integers(-high, high, shape)
    share = rng.choice([0.0, 0.3, 0.7, 0.95, 1.0])
    return np.where(rng.random(shape) < share, 0, np.where(values == 0, 1, values))
