"""Prediction of the machine's counters from geometry and values, without the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import rlc_encode_map
from thresher.golden.compiler.passes import Pass
from thresher.golden.compiler.stages import Stage
from thresher.golden.config import Config, Skip

if TYPE_CHECKING:
    from thresher.golden.compiler.program import StoredMap

__all__ = ["predict_counters"]

IntArray = npt.NDArray[np.int64]


def _outputs_met(stage: Stage, axis: int) -> npt.NDArray[np.bool_]:
    """Whether the input position on an axis meets an output through a kernel position.

    Shape (input positions, kernel positions).
    """
    size, kernel = stage.in_shape[axis + 1], stage.weights.shape[axis + 2]
    padded = np.arange(size)[:, None] + stage.padding[axis]
    offset = padded - np.arange(kernel)[None, :] * stage.dilation[axis]
    output = offset // stage.stride[axis]
    inside = (output >= 0) & (output < stage.out_shape[axis + 1])
    return np.asarray((offset % stage.stride[axis] == 0) & inside)


def _meetings(stage: Stage, sent: npt.NDArray[np.bool_]) -> IntArray:
    """Activations that each (channel, ky, kx) meets, over all inputs."""
    by_row = np.einsum("chw,wk->chk", sent.sum(axis=0), _outputs_met(stage, 1).astype(np.int64))
    return np.asarray(
        np.einsum("chk,hl->clk", by_row, _outputs_met(stage, 0).astype(np.int64)), np.int64
    )


def _ranges(stage: Stage, axis: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """For each input position: how many kernel groups of its phase are valid; are they all."""
    size = stage.in_shape[axis + 1]
    groups = stage.phase_shape[axis]
    at = (np.arange(size) + stage.padding[axis]) // stage.stride[axis]
    low = np.maximum(0, at - stage.out_shape[axis + 1] + 1)
    high = np.minimum(groups - 1, at)
    valid = np.maximum(0, high - low + 1)
    return valid, np.asarray(valid == groups)


def _tokens(stage: Stage, sent: npt.NDArray[np.bool_], channels: list[IntArray]) -> int:
    rows, _ = _ranges(stage, 0)
    columns, whole = _ranges(stage, 1)
    pieces = np.where(whole[None, :], np.minimum(rows, 1)[:, None], rows[:, None])
    pieces = pieces * (columns > 0)
    per_channel = np.einsum("nchw,hw->c", sent.astype(np.int64), pieces)
    return int(sum(per_channel[mine].sum() for mine in channels))


def _stream_words(values: IntArray, mine: IntArray, config: Config) -> int:
    if mine.size == 0:
        return 0
    height = values.shape[2]
    return sum(
        len(rlc_encode_map(one[mine].transpose(1, 2, 0).reshape(height, -1), config.rlc))
        for one in values
    )


def predict_counters(
    passes: list[Pass],
    maps: Mapping[str, StoredMap],
    values: Mapping[str, IntArray],
    config: Config,
    skip: Skip,
) -> list[dict[str, int]]:
    """Predict, for every run, the counters that do not depend on time.

    Parameters
    ----------
    passes
        The runs.
    maps, values
        Where each value lies and what it is, shape (n, C, H, W).

    Returns
    -------
    counters
        ``macs``, ``gated``, ``tokens``, ``words_in``, ``words_out`` of every run.
    """
    read: dict[str, int] = {}
    meetings: dict[str, tuple[IntArray, IntArray, int]] = {}
    predicted = []
    for part in passes:
        stage = part.stage
        placement = maps[stage.source].placement
        lanes = [placement.lane(lane) for lane in range(config.lanes)]
        source = values[stage.source].reshape(-1, *stage.in_shape)
        if stage.source not in read:
            segments = placement.segments
            words = [
                [
                    _stream_words(source, mine, config)
                    for mine in segment[: 1 if placement.shared else None]
                ]
                for segment in segments
            ]
            total = sum(sum(segment) for segment in words)
            read[stage.source] = total * (config.lanes if placement.shared else 1)
        if stage.name not in meetings:
            nonzero = source != 0
            sent = nonzero if skip.skips_activations else np.ones_like(nonzero)
            meetings[stage.name] = (
                _meetings(stage, sent),
                _meetings(stage, nonzero),
                _tokens(stage, sent, lanes),
            )
        met, met_nonzero, tokens = meetings[stage.name]
        taps = part.taps
        where = (taps.channel, taps.ky, taps.kx)
        macs = int(met[where].sum())
        useful = int(met_nonzero[where][stage.codebook[taps.index] != 0].sum())
        result = values[stage.result]
        predicted.append(
            {
                "macs": macs,
                "gated": macs - useful if skip is Skip.GATE else 0,
                "tokens": tokens,
                "words_in": read[stage.source],
                "words_out": sum(_stream_words(result, mine, config) for mine in part.columns),
            }
        )
    return predicted
