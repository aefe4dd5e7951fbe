"""Layout: where everything lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import rlc_decode_map, rlc_encode_map
from thresher.golden.compiler.passes import Pass
from thresher.golden.compiler.plan import Segments
from thresher.golden.compiler.stages import Stage
from thresher.golden.compiler.views import Parts
from thresher.golden.config import Config
from thresher.golden.network import Shape

__all__ = ["Layout", "StoredMap", "Words", "store_input", "store_result"]

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StoredMap:
    """Where a map lies in memory.

    Parameters
    ----------
    shape
        (channels, height, width).
    content
        Values of the network whose channels it has.
    segments
        Channels of each stream of each segment.
    addresses
        ``addresses[s][k]``: first header of stream k of segment s, of the first input.
    pitches
        ``pitches[s]``: words from one input to the next.
    """

    shape: Shape
    content: Parts
    segments: Segments
    addresses: list[list[int]]
    pitches: list[int]

    def decode(self, memory: Words, inputs: int, config: Config) -> IntArray:
        """Read the map back from memory, shape (inputs, channels, height, width)."""
        channels, height, width = self.shape
        values = np.zeros((inputs, channels, height, width), np.int64)
        for columns, addresses, pitch in zip(
            self.segments, self.addresses, self.pitches, strict=True
        ):
            for mine, address in zip(columns, addresses, strict=True):
                for number in range(inputs if mine.size else 0):
                    at = address + number * pitch
                    rows = rlc_decode_map(memory, at, height, width * mine.size, config.rlc)
                    rows = rows.reshape(height, width, mine.size)
                    values[number, mine] = rows.transpose(2, 0, 1)
        return values


class Words:
    """Memory bytes seen as a sequence of word integers."""

    def __init__(self, memory: ByteArray) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, address: int) -> int:
        return int.from_bytes(self._memory[address].tobytes(), "big")


class Layout:
    """Memory being laid out: an address counter and the words to write."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.next = 0
        self.parts: list[tuple[int, bytes]] = []

    def reserve(self, words: int) -> int:
        """Leave room; returns its address."""
        address = self.next
        self.next += words
        return address

    def put(self, words: Sequence[int]) -> int:
        """Lay out words; returns their address."""
        size = self.config.port_bits // 8
        return self.put_bytes(b"".join(word.to_bytes(size, "big") for word in words))

    def put_bytes(self, content: bytes) -> int:
        """Lay out bytes, filled up to a whole word; returns their address."""
        size = self.config.port_bits // 8
        content += bytes(-len(content) % size)
        address = self.reserve(len(content) // size)
        self.parts.append((address, content))
        return address

    def image(self) -> ByteArray:
        """Return the memory, shape (words, bytes of a word).

        Raises
        ------
        ValueError
            If it is larger than addresses reach.
        """
        if self.next > 1 << self.config.address_bits:
            raise ValueError(
                f"the image needs {self.next} words and address_bits is "
                f"{self.config.address_bits}; raise address_bits"
            )
        size = self.config.port_bits // 8
        image = np.zeros((self.next, size), np.uint8)
        for address, content in self.parts:
            words = np.frombuffer(content, np.uint8).reshape(-1, size)
            image[address : address + len(words)] = words
        return image


def store_input(values: IntArray, segments: Segments, layout: Layout) -> StoredMap:
    """Encode the network's inputs, of shape (n, channels, height, width)."""
    _, channels, height, _ = values.shape
    addresses, pitches = [], []
    for columns in segments:
        coded = [
            [
                rlc_encode_map(one[mine].transpose(1, 2, 0).reshape(height, -1), layout.config.rlc)
                for one in values
                if mine.size
            ]
            for mine in columns
        ]
        for mine in columns:
            _check_row(values.shape[3] * mine.size, layout.config)
        pitch = max((len(words) for streams in coded for words in streams), default=0)
        addresses.append(
            [
                layout.put([word for words in one for word in words + [0] * (pitch - len(words))])
                for one in coded
            ]
        )
        pitches.append(pitch)
    return StoredMap(
        shape=(channels, *values.shape[2:]),
        content=(("input", np.arange(channels)),),
        segments=segments,
        addresses=addresses,
        pitches=pitches,
    )


def store_result(stage: Stage, passes: Sequence[Pass], inputs: int, layout: Layout) -> StoredMap:
    """Leave room for what a stage stores: a header a row, and every pair holding one value."""
    _, height, width = stage.result_shape
    addresses, pitches = [], []
    for part in passes:
        shares = [part.made(column) // part.rounds for column in range(len(part.columns))]
        for share in shares:
            _check_row(width * share, layout.config)
        sizes = [height * (1 + -(-width * share // layout.config.rlc.pairs)) for share in shares]
        pitch = sum(sizes)
        for _ in range(part.rounds):
            first = layout.reserve(pitch * inputs)
            addresses.append([first + sum(sizes[:lane]) for lane in range(len(sizes))])
            pitches.append(pitch)
    return StoredMap(
        shape=stage.result_shape,
        content=stage.content,
        segments=[columns for part in passes for columns in part.segments],
        addresses=addresses,
        pitches=pitches,
    )


def _check_row(values: int, config: Config) -> None:
    """Raise if a row of so many values may have more words than its count holds."""
    words = -(-values // config.rlc.pairs)
    if words >= 1 << config.count_bits:
        raise ValueError(
            f"a row of {values} values may need {words} words and count_bits is "
            f"{config.count_bits}; raise count_bits"
        )
