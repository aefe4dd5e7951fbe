"""Array of processing elements: the sums that it forms, from their definition.

The twin of :mod:`thresher.hw.array`. It knows tokens, taps and accumulators, but no time: how
elements wait for one another changes no sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.config import Config
from thresher.golden.multipliers import multiply

__all__ = ["ArrayRun", "Taps", "Token", "array", "pe"]

Int64Array = npt.NDArray[np.int64]


class Token(NamedTuple):
    """Work on the taps of groups ``lo`` to ``hi``, or a row marker; fields as in the hardware."""

    marker: int = 0
    open: int = 0
    lo: int = 0
    hi: int = 0
    base: int = 0
    value: int = 0


@dataclass(frozen=True)
class Taps:
    """Contents of the stores of one processing element.

    Parameters
    ----------
    pointers
        Tap address of the first tap of each group; up to ``group_depth``.
    offsets, codes
        Accumulator offset and weight code at each tap address; ``tap_depth`` of each.
    """

    pointers: Int64Array
    offsets: Int64Array
    codes: Int64Array


@dataclass(frozen=True, kw_only=True)
class ArrayRun:
    """What the array needs to know of a run.

    Parameters
    ----------
    out_width
        Positions of an output row.
    channels
        N, channels of the widest column: accumulators of a position.
    """

    out_width: int
    channels: int

    @property
    def row_size(self) -> int:
        """Accumulators of an output row."""
        return self.out_width * self.channels


def pe(
    tokens: Sequence[Token], taps: Taps, config: Config, run: ArrayRun, channels: int
) -> Int64Array:
    """Return the sums of the rows that ``tokens`` complete.

    Parameters
    ----------
    tokens
        All tokens of a run, in order.
    taps
        What the loader has written.
    config, run
        The machine, the run.
    channels
        Channels of the element's column, 0 to ``run.channels``.

    Returns
    -------
    sums
        int64 array of shape (rows, out_width * channels), wrapped to ``accumulator_bits``.

    Examples
    --------
    Two taps, of weights 3 and -1 on accumulators 0 and 1, meet the activations 5 and 2:

    >>> taps = Taps(np.array([0, 2]), np.array([0, 1]), np.array([3, 0xFF]))
    >>> work = [Token(lo=0, hi=1, base=0, value=5), Token(lo=0, hi=1, base=1, value=2)]
    >>> tokens = [Token(marker=1, open=1), *work, Token(marker=1)]
    >>> pe(tokens, taps, Config(), ArrayRun(out_width=3, channels=1), 1).tolist()
    [[15, 1, -2]]
    """
    depth = config.accumulator_depth
    accumulators = np.zeros(depth, dtype=np.int64)
    columns = np.arange(run.out_width)[:, None] * run.channels + np.arange(channels)
    rows: list[Int64Array] = []
    for token in tokens:
        if token.marker and not token.open:
            at = (len(rows) * run.row_size + columns.ravel()) % depth
            rows.append(_wrapped(accumulators[at], config.accumulator_bits))
            accumulators[at] = 0
        elif not token.marker:
            start, end = taps.pointers[token.lo], taps.pointers[token.hi]
            at = (start + np.arange((end - start) % config.tap_depth)) % config.tap_depth
            products = multiply(
                token.value,
                taps.codes[at],
                config.multiplier,
                config.weight_bits,
                config.activation_bits,
            )
            np.add.at(accumulators, (token.base + taps.offsets[at]) % depth, products)
    return np.array(rows, dtype=np.int64).reshape(len(rows), run.out_width * channels)


def array(
    tokens: Sequence[Sequence[Token]],
    taps: Sequence[Sequence[Taps]],
    config: Config,
    run: ArrayRun,
    channels: Sequence[int],
) -> list[Int64Array]:
    """Return the sums of each column: those of its elements, added.

    Parameters
    ----------
    tokens
        Tokens of each lane; the number of completed rows is the same in all.
    taps
        ``taps[r][c]`` is what the loaders have written to element (r, c).
    config, run
        The machine, the run.
    channels
        Channels of each column.

    Returns
    -------
    sums
        For each column, an int64 array of shape (rows, out_width * channels).
    """
    return [
        _wrapped(
            np.sum(
                [
                    pe(lane, row[column], config, run, count)
                    for lane, row in zip(tokens, taps, strict=True)
                ],
                axis=0,
            ),
            config.accumulator_bits,
        )
        for column, count in enumerate(channels)
    ]


def _wrapped(values: Int64Array, bits: int) -> Int64Array:
    """Return ``values`` as two's complement numbers of ``bits`` bits."""
    half = 1 << (bits - 1)
    return np.asarray((values + half) % (2 * half) - half)
