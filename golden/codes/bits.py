"""Bit strings, most significant bit first, and the error of every decoder here.

The first bit of a string is the most significant bit of its first byte, hence of its first
big-endian memory word.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thresher.golden.descriptors import ErrorCode

__all__ = ["BitReader", "BitWriter", "CodeError", "pack_fields"]

Int64Array = npt.NDArray[np.int64]

MAX_FIELD = 63  # widest field, so that every shift of a 64-bit integer is defined


class CodeError(ValueError):
    """A coded stream that is damaged.

    Parameters
    ----------
    reason
        What is wrong, in words.
    position
        The bit (of a row of activations: the word) at which the faulty part begins.
    code
        What the hardware reports for the same stream.
    """

    def __init__(self, reason: str, position: int, code: ErrorCode, unit: str = "bit") -> None:
        super().__init__(f"{reason}, at {unit} {position}")
        self.reason = reason
        self.position = position
        self.code = code


def pack_fields(values: npt.ArrayLike, widths: npt.ArrayLike) -> bytes:
    """Write numbers one after another, the last byte filled with zeros.

    Parameters
    ----------
    values
        Integers of shape ``(n,)``; negative ones are written in two's complement.
    widths
        Bits of each number, 0 to 63, of shape ``(n,)`` or ``()``.

    Raises
    ------
    ValueError
        If a width is out of range or a number does not fit its width.

    Examples
    --------
    >>> pack_fields([1, -1, 0], [2, 3, 4]).hex()
    '7800'
    """
    numbers = np.asarray(values, dtype=np.int64)
    bits = np.broadcast_to(np.asarray(widths, dtype=np.int64), numbers.shape)
    if bits.size and (bits.min() < 0 or bits.max() > MAX_FIELD):
        raise ValueError(f"widths must be in 0..{MAX_FIELD}")
    # A number fits if nothing but sign is left above its field: 0, or -1 below a set sign bit.
    above = numbers >> np.minimum(bits, MAX_FIELD)
    negative = (above == -1) & (bits > 0) & (numbers >> np.maximum(bits - 1, 0) == -1)
    if not np.all((above == 0) | negative):
        at = int(np.flatnonzero(~((above == 0) | negative))[0])
        raise ValueError(f"{numbers[at]} does not fit {bits[at]} bits")

    used = bits > 0
    numbers, bits = numbers[used], bits[used]
    if not bits.size:
        return b""
    ends = np.cumsum(bits)
    starts = ends - bits
    fields = (numbers & ((np.int64(1) << bits) - 1)).astype(np.uint64)
    word = starts >> 6
    over = bits - (64 - (starts & 63))  # bits that fall into the next word
    high = (fields >> np.maximum(over, 0).astype(np.uint64)) << np.maximum(-over, 0).astype(
        np.uint64
    )
    first = np.flatnonzero(np.diff(word, prepend=-1))
    words = np.zeros((int(ends[-1]) + 63) // 64, dtype=np.uint64)
    words[word[first]] = np.bitwise_or.reduceat(high, first)
    spilt = over > 0
    words[word[spilt] + 1] |= fields[spilt] << (64 - over[spilt]).astype(np.uint64)
    return words.astype(">u8").tobytes()[: (int(ends[-1]) + 7) // 8]


class BitWriter:
    """Collects numbers and packs them at once.

    Examples
    --------
    >>> writer = BitWriter()
    >>> writer.write(5, 3)
    >>> writer.write_many([-1, 2], 4)
    >>> len(writer), writer.to_bytes().hex(), writer.to_bytes(word_bits=32).hex()
    (11, 'be40', 'be400000')
    """

    def __init__(self) -> None:
        self._values: list[Int64Array] = []
        self._widths: list[Int64Array] = []
        self._length = 0

    def __len__(self) -> int:
        """Bits written so far."""
        return self._length

    def write(self, value: int, width: int) -> None:
        """Append one number of 0 to 63 bits."""
        self.write_many([value], width)

    def write_many(self, values: npt.ArrayLike, widths: npt.ArrayLike) -> None:
        """Append numbers; their widths have the same shape ``(n,)``, or are one for all."""
        numbers = np.asarray(values, dtype=np.int64)
        bits = np.broadcast_to(np.asarray(widths, dtype=np.int64), numbers.shape)
        self._values.append(numbers)
        self._widths.append(bits)
        self._length += int(bits.sum())

    def to_bytes(self, word_bits: int = 8) -> bytes:
        """Return the string, filled with zero bits to whole words.

        Raises
        ------
        ValueError
            If a number does not fit its width.
        """
        if word_bits <= 0 or word_bits % 8:
            raise ValueError(f"word_bits must be a positive multiple of 8, not {word_bits!r}")
        if not self._values:
            return b""
        packed = pack_fields(np.concatenate(self._values), np.concatenate(self._widths))
        return packed + bytes(-len(packed) % (word_bits // 8))


class BitReader:
    """Reads numbers from a bit string.

    Parameters
    ----------
    data
        The string.
    position
        First bit to read.

    Raises
    ------
    CodeError
        From the reading methods, with ``ErrorCode.STREAM_SHORT``, if the string ends too early.

    Examples
    --------
    >>> reader = BitReader(bytes.fromhex("be40"))
    >>> reader.read(3), reader.read_many(2, 4, signed=True).tolist(), reader.position
    (5, [-1, 2], 11)
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = bytes(data)
        self._bytes = np.frombuffer(self._data, dtype=np.uint8)
        self.position = position

    @property
    def size(self) -> int:
        """Bits of the whole string."""
        return 8 * len(self._data)

    @property
    def remaining(self) -> int:
        """Bits that are left."""
        return self.size - self.position

    def _need(self, bits: int) -> None:
        if bits > self.remaining:
            raise CodeError(
                f"stream ends after {self.remaining} of {bits} bits",
                self.position,
                ErrorCode.STREAM_SHORT,
            )

    def read(self, width: int) -> int:
        """Take one unsigned number."""
        self._need(width)
        end = self.position + width
        part = self._data[self.position // 8 : (end + 7) // 8]
        self.position = end
        return int.from_bytes(part) >> (-end % 8) & ((1 << width) - 1)

    def read_many(self, count: int, width: int, *, signed: bool = False) -> Int64Array:
        """Take ``count`` numbers of 1 to 63 bits each; shape ``(count,)``."""
        self._need(count * width)
        end = self.position + count * width
        first = self.position // 8
        bits = np.unpackbits(self._bytes[first : (end + 7) // 8])
        fields = bits[self.position - 8 * first :][: count * width].reshape(count, width)
        powers = np.int64(1) << np.arange(width - 1, -1, -1, dtype=np.int64)
        if signed:
            powers[0] = -powers[0]
        self.position = end
        return fields.astype(np.int64) @ powers

    def windows(self, count: int, width: int) -> Int64Array:
        """Return the next ``width`` bits from each of ``count`` positions on; takes none.

        Parameters
        ----------
        count
            Positions: the current one and those that follow it.
        width
            Bits of a window, 0 to 17. Beyond the end of the string they are zero.
        """
        first = self.position // 8
        length = (self.position + count + 7) // 8 - first
        octets = np.zeros(length + 2, dtype=np.int64)
        part = self._bytes[first : first + length + 2]
        octets[: part.size] = part
        wide = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
        shifted = wide[:, None] >> (24 - width - np.arange(8)) & ((1 << width) - 1)
        return shifted.ravel()[self.position - 8 * first :][:count]
