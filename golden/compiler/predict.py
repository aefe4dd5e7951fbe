"""Prediction of the machine's counters from geometry and values, without the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import rlc_map_words
from thresher.golden.compiler.layout import StoredMap
from thresher.golden.compiler.passes import Pass
from thresher.golden.compiler.stages import Stage, outputs_met, token_pieces
from thresher.golden.config import Config, Skip

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


class _Streams:
    """Values of stored maps, and the words that they take, each worked out once."""

    def __init__(
        self, maps: Mapping[str, StoredMap], values: Mapping[str, IntArray], config: Config
    ) -> None:
        self.maps, self.values, self.config = maps, values, config
        self.inputs = len(values["input"])
        self._held: dict[str, IntArray] = {}
        self._words: dict[tuple[str, int, int], int] = {}

    def contents(self, name: str) -> IntArray:
        """Return a map, (n, C, H, W)."""
        if name not in self._held:
            self._held[name] = stored_values(self.maps[name], self.values)
        return self._held[name]

    def words(self, name: str, segment: int, number: int) -> int:
        """Words of a segment's stream for a lane, over all inputs."""
        key = (name, segment, number)
        if key not in self._words:
            self._words[key] = self.words_of(name, self.maps[name].segments[segment][number])
        return self._words[key]

    def words_of(self, name: str, channels: IntArray) -> int:
        """Words of a stream of these channels of a map, over all inputs."""
        if channels.size == 0:
            return 0
        rows = self.contents(name)[:, channels].transpose(0, 2, 3, 1)
        return rlc_map_words(rows.reshape(rows.shape[0] * rows.shape[1], -1), self.config.rlc)


@dataclass(frozen=True)
class _Met:
    """What the activations of a stage's input are, over all inputs.

    Attributes
    ----------
    sent, nonzero
        Activations that each (channel, ky, kx) meets: those sent, those that are not zero.
    tokens
        Tokens of all lanes in one round.
    """

    sent: IntArray
    nonzero: IntArray
    tokens: int

    @classmethod
    def of(cls, part: Pass, streams: _Streams, skip: Skip) -> _Met:
        """Count them for the stage of a pass."""
        stage = part.stage
        source = np.zeros((streams.inputs, *stage.in_shape), np.int64)
        tokens = []
        for stream in part.reading.streams:
            contents = streams.contents(stream.map)
            wanted = stream.channels >= 0
            source[:, stream.channels[wanted]] = contents[:, stream.stored[wanted]]
            sent = _sent(contents[:, stream.stored], skip)
            tokens.append(int((sent.sum(axis=(0, 1)) * token_pieces(stage)).sum()))
        return cls(
            sent=_meetings(stage, _sent(source, skip)),
            nonzero=_meetings(stage, source != 0),
            tokens=sum(tokens[number] for lane in part.reading.lanes for number in lane),
        )


def _sent(values: IntArray, skip: Skip) -> BoolArray:
    """Return which values become tokens."""
    return values != 0 if skip.skips_activations else np.ones_like(values, bool)


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
    streams = _Streams(maps, values, config)
    predicted = []
    met: _Met | None = None
    last: Stage | None = None
    for part in passes:
        if met is None or part.stage is not last:
            met, last = _Met.of(part, streams, skip), part.stage
        where = (part.taps.channel, part.taps.ky, part.taps.kx)
        macs = int(met.sent[where].sum())
        useful = int(met.nonzero[where][part.stage.codebook[part.taps.index] != 0].sum())
        read = sum(
            streams.words(stream.map, stream.segment, stream.number)
            for lane in range(config.lanes)
            for stream in part.reading.of(lane)
        )
        if part.operand is not None:
            read += sum(streams.words(*part.operand, lane) for lane in range(config.lanes))
        predicted.append(
            {
                "macs": macs,
                "gated": macs - useful if skip is Skip.GATE else 0,
                "tokens": met.tokens * part.rounds,
                "words_in": read * part.rounds,
                "words_out": sum(
                    streams.words_of(part.stage.result, mine)
                    for columns in part.segments
                    for mine in columns
                ),
            }
        )
    return predicted
