"""Canonical Huffman codes of limited length.

Reference
---------
L. L. Larmore, D. S. Hirschberg, "A Fast Algorithm for Optimal Length-Limited Huffman Codes",
Journal of the ACM 37(3), 1990 (package-merge). Canonical order as in RFC 1951, section 3.2.2:
shorter codes first, codes of equal length in the order of their symbols.

An alphabet with exactly one used symbol has nothing to tell: its length field is 1 and a symbol
costs no bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, CodeError, pack_fields
from thresher.golden.descriptors import ErrorCode
from thresher.golden.integers import integers

__all__ = [
    "CodeError",
    "DecodeTable",
    "canonical_codes",
    "checked_lengths",
    "code_lengths",
    "coded_bits",
    "entropy_bits",
    "huffman_decode",
    "huffman_encode",
    "symbol_fields",
]

Int64Array = npt.NDArray[np.int64]

MAX_LENGTH = 15  # a length is sent in four bits
BLOCK_BITS = 1 << 17  # bit positions that a decoder looks at together


def _counts(frequencies: npt.ArrayLike) -> Int64Array:
    array = integers("frequencies", frequencies)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1:
        raise ValueError(f"frequencies must have shape (n,), not {array.shape}")
    if array.min() < 0:
        raise ValueError("frequencies must not be negative")
    return array


def code_lengths(frequencies: npt.ArrayLike, limit: int) -> Int64Array:
    """Choose the code lengths of least total size among those up to ``limit``.

    Parameters
    ----------
    frequencies
        How often each symbol occurs, integers of shape ``(n,)``, not negative.
    limit
        Longest code, 1 to 15.

    Returns
    -------
    lengths
        int64 of shape ``(n,)``: 0 for a symbol that does not occur, else 1 to ``limit``.

    Raises
    ------
    TypeError
        If the frequencies are not integers.
    ValueError
        If the limit is out of range, a frequency is negative, or there are more used symbols
        than codes of ``limit`` bits.

    Notes
    -----
    Package-merge: a coin collector buys 2n - 2 coins of least value from a list which for each
    length holds all symbols and the pairs of the list before. Only how many coins of each list
    are bought is kept; these are the rarest symbols' coins and the first pairs.

    Examples
    --------
    >>> code_lengths([1, 0, 20, 4, 2, 1], 15).tolist()
    [4, 0, 1, 2, 3, 4]
    >>> code_lengths([1, 0, 20, 4, 2, 1], 3).tolist()
    [3, 0, 1, 3, 3, 3]
    """
    counts = _counts(frequencies)
    if not 1 <= limit <= MAX_LENGTH:
        raise ValueError(f"limit must be in 1..{MAX_LENGTH}, not {limit!r}")
    lengths = np.zeros(counts.size, dtype=np.int64)
    used = np.flatnonzero(counts)
    if used.size > 1 << limit:
        raise ValueError(f"{used.size} symbols do not fit codes of {limit} bits; raise code_bits")
    if used.size <= 1:
        lengths[used] = 1
        return lengths

    rarest_first = used[np.argsort(counts[used], kind="stable")]
    coins = counts[rarest_first]
    merged = coins
    coins_before = [np.arange(1, coins.size + 1)]  # in each list, coins among its first items
    for _ in range(limit - 1):
        pairs = merged[: merged.size & ~1].reshape(-1, 2).sum(axis=1)
        merged = np.concatenate([coins, pairs])
        order = np.argsort(merged, kind="stable")
        merged = merged[order]
        coins_before.append(np.cumsum(order < coins.size))
    take = 2 * used.size - 2
    for before in reversed(coins_before):
        if take == 0:
            break
        bought = int(before[take - 1])
        lengths[rarest_first[:bought]] += 1
        take = 2 * (take - bought)
    return lengths


def checked_lengths(lengths: npt.ArrayLike) -> Int64Array:
    """Return code lengths of shape ``(n,)``, 0 to 15, as an array.

    Raises
    ------
    ValueError
        If a length is out of range or the lengths violate Kraft's inequality.
    """
    array = np.asarray(lengths, dtype=np.int64)
    if array.ndim != 1:
        raise ValueError(f"lengths must have shape (n,), not {array.shape}")
    if array.size and (array.min() < 0 or array.max() > MAX_LENGTH):
        raise ValueError(f"lengths must be in 0..{MAX_LENGTH}")
    used = array[array > 0]
    if used.size == 1 and used[0] != 1:
        raise ValueError(f"the length of an only symbol must be 1, not {used[0]}")
    if int((1 << MAX_LENGTH - used).sum()) > 1 << MAX_LENGTH:
        raise ValueError("more codes than their lengths allow")
    return array


def canonical_codes(lengths: npt.ArrayLike) -> Int64Array:
    """Assign the codes that belong to the lengths.

    Parameters
    ----------
    lengths
        Code lengths of shape ``(n,)``, 0 to 15, 0 for an unused symbol.

    Returns
    -------
    codes
        int64 of shape ``(n,)``: the code in the lowest ``lengths`` bits, 0 for unused symbols.

    Raises
    ------
    ValueError
        If a length is out of range or the lengths violate Kraft's inequality.

    Examples
    --------
    >>> canonical_codes([2, 0, 1, 3, 3]).tolist()
    [2, 0, 0, 6, 7]
    """
    array = checked_lengths(lengths)
    order = np.flatnonzero(array)
    order = order[np.argsort(array[order], kind="stable")]
    # In units of the smallest code's share, a code begins where the shares before it end.
    shares = np.int64(1) << (MAX_LENGTH - array[order])
    codes = np.zeros(array.size, dtype=np.int64)
    codes[order] = (np.cumsum(shares) - shares) >> (MAX_LENGTH - array[order])
    return codes


def symbol_fields(symbols: npt.ArrayLike, lengths: npt.ArrayLike) -> tuple[Int64Array, Int64Array]:
    """Look up the codes and widths of symbols, for ``BitWriter.write_many``.

    Raises
    ------
    ValueError
        If a symbol has no code.

    Examples
    --------
    >>> codes, widths = symbol_fields([0, 2, 4], [2, 0, 1, 3, 3])
    >>> codes.tolist(), widths.tolist()
    ([2, 0, 7], [2, 1, 3])
    """
    array = np.asarray(symbols, dtype=np.int64)
    table = checked_lengths(lengths)
    if array.size and (array.min() < 0 or array.max() >= table.size):
        raise ValueError(f"symbols must be in 0..{table.size - 1}")
    if not np.all(table[array]):
        raise ValueError(f"symbol {array[table[array] == 0][0]} has no code")
    if np.count_nonzero(table) == 1:
        return np.zeros_like(array), np.zeros_like(array)
    return canonical_codes(table)[array], table[array]


def huffman_encode(symbols: npt.ArrayLike, lengths: npt.ArrayLike) -> bytes:
    """Encode symbols of shape ``(n,)``, the last byte filled with zeros.

    Raises
    ------
    ValueError
        If a symbol has no code or the lengths are no code.

    Examples
    --------
    >>> huffman_encode([2, 0, 4, 3], [2, 0, 1, 3, 3]).hex()
    '5f00'
    """
    return pack_fields(*symbol_fields(symbols, lengths))


class DecodeTable:
    """What each window of the longest code's width begins with.

    Parameters
    ----------
    lengths
        Code lengths, as for :func:`canonical_codes`.

    Attributes
    ----------
    width
        Bits of a window: the longest length, 0 for at most one used symbol.
    symbol, length
        int64 of shape ``(1 << width,)``: first symbol of a window and the bits it takes;
        -1 and 0 where the window begins with no code.

    Examples
    --------
    >>> table = DecodeTable([2, 0, 2, 1])
    >>> table.width, table.symbol.tolist(), table.length.tolist()
    (2, [3, 3, 0, 2], [1, 1, 2, 2])
    """

    def __init__(self, lengths: npt.ArrayLike) -> None:
        array = checked_lengths(lengths)
        used = np.flatnonzero(array)
        self.symbols = array.size
        self.width = int(array.max()) if used.size > 1 else 0
        self.symbol = np.full(1 << self.width, -1, dtype=np.int64)
        self.length = np.zeros(1 << self.width, dtype=np.int64)
        if used.size == 1:
            self.symbol[0] = used[0]
        elif used.size:
            order = used[np.argsort(array[used], kind="stable")]
            repeats = np.int64(1) << (self.width - array[order])
            filled = int(repeats.sum())
            self.symbol[:filled] = np.repeat(order, repeats)
            self.length[:filled] = np.repeat(array[order], repeats)

    def fault(self, window: int, position: int, remaining: int) -> CodeError:
        """Describe why no symbol can be read from a window.

        Codes fill the windows from 0 upward, so a window that is cut off by the end of the
        stream, its missing bits read as zeros, is unused only if every continuation is.
        """
        if self.symbol[window] < 0:
            return CodeError("unused code", position, ErrorCode.CODE_UNUSED)
        length = int(self.length[window])
        return CodeError(
            f"stream ends after {remaining} of a symbol's {length} bits",
            position,
            ErrorCode.STREAM_SHORT,
        )


def huffman_decode(
    data: bytes, count: int, lengths: npt.ArrayLike, *, position: int = 0
) -> Int64Array:
    """Decode ``count`` symbols, from bit ``position`` on.

    Returns
    -------
    symbols
        int64 of shape ``(count,)``.

    Raises
    ------
    CodeError
        At an unused code (``ErrorCode.CODE_UNUSED``) or where the stream ends inside a symbol
        (``ErrorCode.STREAM_SHORT``); it names the symbol's first bit.
    ValueError
        If the lengths are no code.

    Examples
    --------
    >>> huffman_decode(bytes.fromhex("5f00"), 4, [2, 0, 1, 3, 3]).tolist()
    [2, 0, 4, 3]
    """
    table = DecodeTable(lengths)
    reader = BitReader(data, position)
    parts: list[Int64Array] = []
    left = count
    while left:
        # Where would the next symbol begin, had one begun here? Then walk from symbol to symbol.
        block = max(1, min(BLOCK_BITS, left * table.width, reader.remaining + 1))
        windows = reader.windows(block, table.width)
        following = np.arange(block) + table.length[windows]
        following[(table.symbol[windows] < 0) | (following > reader.remaining)] = -1
        starts, end = walk(following, left)
        parts.append(table.symbol[windows[starts]])
        left -= starts.size
        if end < 0:
            at = -1 - end
            raise table.fault(int(windows[at]), reader.position + at, reader.remaining - at)
        reader.position += end
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def walk(following: Int64Array, count: int) -> tuple[Int64Array, int]:
    """Follow links from 0 for ``count`` steps, or out of the array, or to a fault.

    Returns
    -------
    starts
        Places from which a step was made.
    end
        Where the walk ended; ``-1 - place`` if the link of ``place`` is -1.
    """
    links = following.tolist()
    size = len(links)
    starts: list[int] = []
    at = 0
    while at < size and len(starts) < count:
        link = links[at]
        if link < 0:
            return np.array(starts, dtype=np.int64), -1 - at
        starts.append(at)
        at = link
    return np.array(starts, dtype=np.int64), at


def coded_bits(frequencies: npt.ArrayLike, lengths: npt.ArrayLike) -> int:
    """Size of all symbols together, without the table.

    Examples
    --------
    >>> coded_bits([4, 2, 1, 1], [1, 2, 3, 3]), coded_bits([0, 9], [0, 1])
    (14, 0)
    """
    table = checked_lengths(lengths)
    if np.count_nonzero(table) <= 1:
        return 0
    return int(_counts(frequencies) @ table)


def entropy_bits(frequencies: npt.ArrayLike) -> float:
    """Shannon's bound: no code of independent symbols is shorter in total, in bits.

    Examples
    --------
    >>> entropy_bits([4, 2, 1, 1]), entropy_bits([7]), entropy_bits([])
    (14.0, 0.0, 0.0)
    """
    counts = _counts(frequencies)
    used = counts[counts > 0].astype(np.float64)
    total = used.sum()
    return float(used @ np.log2(total / used)) if used.size else 0.0
