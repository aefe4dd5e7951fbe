"""Prediction of the machine's counters from geometry and values, without the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import rlc_map_words
from thresher.golden.compiler.passes import Pass
from thresher.golden.compiler.reading import Stream
from thresher.golden.compiler.stages import Stage, outputs_met, token_pieces
from thresher.golden.config import Config, Skip

if TYPE_CHECKING:
    from thresher.golden.compiler.layout import StoredMap

__all__ = ["predict_counters", "stored_values"]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def stored_values(stored: StoredMap, values: Mapping[str, IntArray]) -> IntArray:
    """Return what a map holds, shape (n, C, H, W), from the values of the network's layers."""
    parts = []
    for name, channels in stored.content:
        value = values[name]
        parts.append(value.reshape(len(value), -1, *stored.shape[1:])[:, channels])
    return np.concatenate(parts, axis=1)


def _meetings(stage: Stage, sent: BoolArray) -> IntArray:
    """Activations that each (channel, ky, kx) meets, over all inputs."""
    by_row = sent.sum(axis=0) @ outputs_met(stage, 1).astype(np.int64)  # (c, h, kx)
    return np.asarray(np.einsum("chk,hl->clk", by_row, outputs_met(stage, 0).astype(np.int64)))


def _words(values: IntArray, channels: IntArray, config: Config) -> int:
    """Words of a stream of these channels, over all inputs."""
    if channels.size == 0:
        return 0
    rows = values[:, channels].transpose(0, 2, 3, 1)
    return rlc_map_words(rows.reshape(rows.shape[0] * rows.shape[1], -1), config.rlc)


def predict_counters(
    passes: Sequence[Pass],
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
    maps
        Where each map lies.
    values
        The network's input and all its layers' outputs, shape (n, C, H, W).

    Returns
    -------
    counters
        ``macs``, ``gated``, ``tokens``, ``words_in``, ``words_out`` of every run.
    """
    held: dict[str, IntArray] = {}
    words: dict[tuple[str, int, int], int] = {}

    def contents(name: str) -> IntArray:
        if name not in held:
            held[name] = stored_values(maps[name], values)
        return held[name]

    def stream_words(name: str, segment: int, number: int) -> int:
        key = (name, segment, number)
        if key not in words:
            words[key] = _words(contents(name), maps[name].segments[segment][number], config)
        return words[key]

    def tokens(stage: Stage, stream: Stream) -> int:
        sent = contents(stream.map)[:, stream.stored]
        each = sent != 0 if skip.skips_activations else np.ones_like(sent, bool)
        return int((each.sum(axis=(0, 1)) * token_pieces(stage)).sum())

    predicted = []
    meetings: tuple[IntArray, IntArray, int] | None = None
    last: Stage | None = None
    for part in passes:
        stage = part.stage
        if meetings is None or stage is not last:
            source = np.zeros((len(values["input"]), *stage.in_shape), np.int64)
            for stream in part.reading.streams:
                wanted = stream.channels >= 0
                source[:, stream.channels[wanted]] = contents(stream.map)[:, stream.stored[wanted]]
            nonzero = source != 0
            sent = nonzero if skip.skips_activations else np.ones_like(nonzero)
            by_stream = [tokens(stage, stream) for stream in part.reading.streams]
            total = sum(by_stream[number] for lane in part.reading.lanes for number in lane)
            meetings, last = (_meetings(stage, sent), _meetings(stage, nonzero), total), stage
        met, met_nonzero, total = meetings
        taps = part.taps
        where = (taps.channel, taps.ky, taps.kx)
        macs = int(met[where].sum())
        useful = int(met_nonzero[where][stage.codebook[taps.index] != 0].sum())
        read = sum(
            stream_words(stream.map, stream.segment, stream.number)
            for lane in range(config.lanes)
            for stream in part.reading.of(lane)
        )
        if part.operand is not None:
            read += sum(stream_words(*part.operand, lane) for lane in range(config.lanes))
        result = contents(stage.result)
        predicted.append(
            {
                "macs": macs,
                "gated": macs - useful if skip is Skip.GATE else 0,
                "tokens": total * part.rounds,
                "words_in": read * part.rounds,
                "words_out": sum(
                    _words(result, mine, config) for columns in part.segments for mine in columns
                ),
            }
        )
    return predicted
