"""Fusing: two convolutions of one source as one stage, so that the source is read once.

A kernel that is smaller than the other's is that kernel with fewer taps: a 1x1 becomes the centre
of a 3x3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from thresher.golden.compiler.stages import Stage, Taps
from thresher.golden.compiler.views import View

__all__ = ["fused"]

_ENTRIES = 256


def fused(one: Stage, other: Stage) -> Stage | None:
    """Return the stage that makes the channels of both, ``one``'s first; None if there is none."""
    big, small = (one, other) if np.prod(one.extent) >= np.prod(other.extent) else (other, one)
    alike = (
        _same_source(one.source, other.source)
        and one.out_shape[1:] == other.out_shape[1:]
        and one.stride == other.stride
        and one.clip == other.clip
        and one.rounding == other.rounding
        and one.pooling == other.pooling
        and one.addition is other.addition is None
        and one.lookup is other.lookup is None
    )
    moved = _moved(small, big) if alike else None
    if moved is None:
        return None
    codebook, index = np.unique(np.concatenate([one.codebook, other.codebook]), return_inverse=True)
    if codebook.size > _ENTRIES:
        return None
    first, second = (moved, other) if small is one else (one, moved)
    index_of = index[: one.codebook.size], index[one.codebook.size :]
    channels = one.out_shape[0] + other.out_shape[0]
    taps = Taps(
        np.concatenate([first.taps.output, second.taps.output + one.out_shape[0]]),
        np.concatenate([first.taps.channel, second.taps.channel]),
        np.concatenate([first.taps.ky, second.taps.ky]),
        np.concatenate([first.taps.kx, second.taps.kx]),
        np.concatenate([index_of[0][first.taps.index], index_of[1][second.taps.index]]),
    )
    return replace(
        big,
        name=f"{one.name}+{other.name}",
        result=f"{one.result}+{other.result}",
        content=one.content + other.content,
        out_shape=(channels, *one.out_shape[1:]),
        result_shape=(channels, *one.result_shape[1:]),
        taps=taps,
        codebook=codebook,
        bias=np.concatenate([one.bias, other.bias]),
        scale=np.concatenate([one.scale, other.scale]),
        shift=np.concatenate([one.shift, other.shift]),
    )


def _same_source(one: View, other: View) -> bool:
    return (
        one.shape == other.shape
        and len(one.parts) == len(other.parts)
        and all(
            name == name_other and np.array_equal(channels, channels_other)
            for (name, channels), (name_other, channels_other) in zip(
                one.parts, other.parts, strict=True
            )
        )
    )


def _moved(small: Stage, big: Stage) -> Stage | None:
    """Return the smaller stage with its taps where they lie in the bigger kernel."""
    steps = []
    for axis in range(2):
        offset = big.padding[axis] - small.padding[axis]
        dilation = big.dilation[axis]
        single = small.kernel[axis] == 1
        if (
            offset < 0
            or offset + small.extent[axis] > big.extent[axis]
            or offset % dilation
            or not (single or small.dilation[axis] == dilation)
        ):
            return None
        steps.append(offset // dilation)
    taps = small.taps
    ky, kx = taps.ky + steps[0], taps.kx + steps[1]
    return replace(small, taps=Taps(taps.output, taps.channel, ky, kx, taps.index))
