"""A compiled program on the cycle model: the cycles of each run, and what it waits for loads.

The model reads what the machine reads: the descriptors and weight streams of the image. Only what
the machine itself would write, the outputs of the layers, is taken from golden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.bits import BitReader, CodeError
from thresher.golden.codes.huffman import DecodeTable
from thresher.golden.codes.weights import read_tables
from thresher.golden.compiler.predict import stored_values
from thresher.golden.compiler.program import Program
from thresher.golden.config import Config
from thresher.golden.cycles.ahead import sequence_ahead
from thresher.golden.cycles.kernels import kernel
from thresher.golden.cycles.latencies import CHUNK, COMPACT_CHUNK
from thresher.golden.cycles.loads import (
    Constants,
    Load,
    Stream,
    TableSizes,
    make_load,
    stream_fields,
)
from thresher.golden.cycles.runs import LaneInput, PortLoads, RunCycles, Taps, predict_run
from thresher.golden.cycles.sequence import LoadStep, ProgramCycles, RunStep
from thresher.golden.descriptors import (
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    ErrorCode,
    Kind,
    Record,
)

__all__ = ["ProgramCycles", "predict_cycles"]

Int64Array = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


def _unpack(record: Record, words: Sequence[int]) -> dict[str, int]:
    """Return the fields of a record."""
    values = {}
    for fields, word in zip(record.words, words, strict=True):
        at = 0
        for field in fields:
            value = word >> at & ((1 << field.bits) - 1)
            if field.signed and value >> field.bits - 1:
                value -= 1 << field.bits
            values[field.name] = value
            at += field.bits
    return values


class _Descriptors:
    """Descriptor words of an image, from the program's first one on."""

    def __init__(self, program: Program) -> None:
        # Memory words are big-endian, and their lowest descriptor word comes first.
        bits = program.image[program.program :].view(">u8")[:, ::-1]
        self._words: list[int] = bits.ravel().tolist()
        self.at = 0

    def peek(self) -> int:
        return self._words[self.at]

    def take(self, record: Record) -> dict[str, int]:
        first = self.at
        self.at += len(record.words)
        return _unpack(record, self._words[first : self.at])


class _Tables(NamedTuple):
    """Codes of a column, and which of its weights are zero, as they stay in its loader."""

    runs: tuple[Int64Array, Int64Array, int]
    indices: tuple[Int64Array, Int64Array, int]
    nothing: ByteArray


class _Loaders:
    """The weight loaders: what each load brings."""

    def __init__(self, program: Program) -> None:
        self._config = program.config
        self._word = program.config.port_bits // 8
        self._image = np.concatenate([program.image.ravel(), np.zeros(kernel().WINDOW, np.uint8)])
        self._tables: list[_Tables | None] = [None] * program.config.lanes

    def load(
        self, load: Mapping[str, int], lanes: Sequence[Mapping[str, int]], latency: int
    ) -> tuple[Taps, Load]:
        """Return what the elements hold, and how long that takes."""
        config = self._config
        chunk = CHUNK if config.pair_cycles == 1 else COMPACT_CHUNK
        geometry = (
            config.run_symbols - 1, max(1, load["channels"]), load["kernel_height"],
            load["kernel_width"], load["row_size"], chunk,
        )  # fmt: skip
        words = sum(lane["words"] for lane in lanes)
        pointers = np.zeros((config.lanes, config.group_depth + 1, config.lanes), np.int32)
        low = np.empty(8 * words * self._word, np.uint8)
        at = groups = 0
        streams = []
        for number, lane in enumerate(lanes):
            first, size = lane["address"] * self._word, lane["words"] * self._word
            data = self._image[first : first + size + kernel().WINDOW]
            bits, cycles = self._read_tables(data.tobytes(), number, lane["channels"])
            tables = self._tables[number]
            if tables is None:
                raise CodeError("no tables for the weights", int(bits.sum()), ErrorCode.CODE_UNUSED)
            needs = np.zeros(8 * size // chunk, np.int64)
            taps, most, end, known = kernel().read_stream(
                data, bits, cycles, *tables, geometry, at, pointers[:, :, number], low[at:], needs
            )
            if taps < 0:
                raise CodeError("weights are cut off", int(bits.sum()), ErrorCode.STREAM_SHORT)
            at, groups = at + taps, max(groups, most)
            streams.append(Stream(end, needs[:known]))
        taken = Taps(np.ascontiguousarray(pointers[:, : groups + 1]), low[:at].copy())
        return taken, make_load(streams, config, latency=latency)

    def _read_tables(
        self, data: bytes, column: int, channels: int
    ) -> tuple[Int64Array, Int64Array]:
        """Go up to a stream's first row and return its fields, see :func:`stream_fields`.

        Tables that come with it stay.
        """
        config = self._config
        reader = BitReader(data)
        constants = Constants(channels, bool(reader.read(1)))
        reader.position += constants.bits(config)
        lookup = bool(reader.read(1))
        if lookup:
            reader.position += config.activation_bits << config.activation_bits
        sizes = None
        if reader.read(1):
            tables = read_tables(reader, config)
            runs, indices = DecodeTable(tables.run_lengths), DecodeTable(tables.index_lengths)
            self._tables[column] = _Tables(
                (runs.symbol, runs.length, runs.width),
                (indices.symbol, indices.length, indices.width),
                np.asarray(tables.codebook == 0, np.uint8),
            )
            sizes = TableSizes(tables.run_symbols, tables.index_symbols)
        return stream_fields(constants, lookup, sizes, config)


class _Values:
    """Which values are not zero, of every segment that a program reads or writes."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._made: dict[int, tuple[str, Int64Array, int]] = {}
        self._held: dict[str, ByteArray] = {}
        self._lock = Lock()
        for name, stored in program.maps.items():
            segments = zip(stored.addresses, stored.segments, stored.pitches, strict=True)
            for addresses, streams, pitch in segments:
                for address, mine in zip(addresses, streams, strict=True):
                    if mine.size:
                        self._made[address] = (name, mine, pitch)

    def mask(self, address: int) -> ByteArray:
        """Return 1 where a value is not zero, shape (maps, height, width, channels)."""
        name, mine, pitch = self._made[address]
        if name == "input":
            return self._stored(address, mine.size, pitch)
        with self._lock:
            if name not in self._held:
                held = stored_values(self._program.maps[name], self._values(name))
                self._held[name] = (held != 0).view(np.uint8)
        return np.ascontiguousarray(self._held[name][:, mine].transpose(0, 2, 3, 1))

    def _values(self, name: str) -> Mapping[str, Int64Array]:
        """Return the values that a map may be made of: outputs of layers; of a copy, the input's.

        Of the input only whether they are zero.
        """
        outputs, stored = self._program.inference.outputs, self._program.maps["input"]
        if all(source != "input" for source, _ in self._program.maps[name].content):
            return outputs
        mask = np.zeros((self._program.inputs, *stored.shape), np.int64)
        for address, (made, mine, pitch) in self._made.items():
            if made == "input":
                part = self._stored(address, mine.size, pitch)
                mask[:, mine] = part.transpose(0, 3, 1, 2)
        return {"input": mask, **outputs}

    def _stored(self, address: int, channels: int, pitch: int) -> ByteArray:
        """Read a mask of the inputs from the image."""
        image, fmt = self._program.image, self._program.config.rlc
        _, height, width = self._program.maps["input"].shape
        masks = [
            kernel().read_mask(
                image.ravel(), (address + number * pitch) * image.shape[1], image.shape[1], height,
                width * channels, fmt.run_bits, fmt.pair_bits, fmt.pairs,
            )
            for number in range(self._program.inputs)
        ]  # fmt: skip
        return np.stack(masks).reshape(-1, height, width, channels)

    def row_words(self, address: int, channels: int) -> Int64Array:
        """Return what a column writes of each row from an address on, over all maps.

        Words without headers, and continuation pairs: shape (2, rows).
        """
        if not channels:
            return np.zeros((2, 0), np.int64)
        mask = self.mask(address)
        fmt = self._program.config.rlc
        rows = mask.shape[0] * mask.shape[1]
        return np.stack(kernel().row_words(mask.ravel(), rows, fmt.max_run, fmt.pairs))


class _Run(NamedTuple):
    """A RUN's records: its fields, and those of each lane's segments, output and operand."""

    fields: Mapping[str, int]
    lanes: list[Mapping[str, int]]
    segments: list[list[Mapping[str, int]]]
    operands: list[Mapping[str, int]]

    def predict(  # noqa: PLR0917
        self,
        taps: Taps,
        values: _Values,
        config: Config,
        latency: int,
        record: int,
        shared: PortLoads,
    ) -> RunCycles:
        """Predict the run, see :func:`predict_run`."""
        run = self.fields
        rounds = run["maps"] if run["round_groups"] else 1
        made: dict[tuple[tuple[int, int], ...], LaneInput] = {}  # lanes may all read the same
        inputs, written, operands = [], [], []
        for number, lane in enumerate(self.lanes):
            key = tuple((one["address"], one["channels"]) for one in self.segments[number])
            if key not in made:
                made[key] = _lane_input(key, run, values)
            inputs.append(made[key])
            first, pitch = lane["out_address"], run["out_pitch"]
            rows = [values.row_words(first + k * pitch, lane["channels"]) for k in range(rounds)]
            written.append(np.concatenate(rows, axis=1))
            if self.operands:
                operand = self.operands[number]["address"]
                words = 1 + values.row_words(operand, lane["channels"])[0]
                # One that is broadcast has one row a map, with the first that is written.
                step = run["pooled_height"] if run["broadcast"] else 1
                taken = np.zeros(rows[0].shape[1], np.int64)
                taken[::step] = words
                operands.append(taken)
        channels = [lane["channels"] for lane in self.lanes]
        return predict_run(
            run,
            inputs,
            taps,
            channels,
            config,
            written,
            record,
            shared,
            operands=operands,
            latency=latency,
        )


def predict_cycles(program: Program, *, latency: int = 4) -> ProgramCycles:
    """Predict the cycles of a program.

    Parameters
    ----------
    program
        What the machine would run.
    latency
        Of the memory, from a request to its response.

    Raises
    ------
    ThresherError
        If numba is missing.
    """
    config = program.config
    values = _Values(program)
    descriptors = _Descriptors(program)
    loaders = _Loaders(program)
    loaded: list[Taps] = []
    steps: list[LoadStep | RunStep] = []
    runs = 0
    while (kind := descriptors.peek() & 3) != Kind.END:
        first = descriptors.at
        if kind == Kind.LOAD:
            load = descriptors.take(LOAD)
            lanes = [descriptors.take(LOAD_LANE) for _ in range(config.lanes)]
            taps, predicted = loaders.load(load, lanes, latency)
            loaded.append(taps)
            steps.append(LoadStep(load["needs"], descriptors.at - first, predicted))
            continue
        run = _take_run(descriptors, config)
        predict = partial(run.predict, loaded[runs], values, config, latency)
        size = descriptors.at - first
        held = size - len(RUN.words) if run.fields["pool_scales"] else 0
        steps.append(RunStep(run.fields["needs"], size, predict, held, _guess(program, runs)))
        runs += 1
    return sequence_ahead(steps, config, latency=latency)


def _take_run(descriptors: _Descriptors, config: Config) -> _Run:
    run = _Run(descriptors.take(RUN), [], [], [])
    for _ in range(run.fields["pool_scales"]):
        descriptors.take(POOL_SCALE)
    for _ in range(config.lanes):
        lane = descriptors.take(RUN_LANE)
        run.lanes.append(lane)
        run.segments.append([descriptors.take(RUN_SEGMENT) for _ in range(lane["segments"])])
        if run.fields["add"]:
            run.operands.append(descriptors.take(RUN_SEGMENT))
    return run


def _guess(program: Program, number: int) -> int:
    """Return about how many cycles a run takes."""
    counted, lanes = program.expected_counters[number], program.config.lanes
    words = counted["words_in"] + counted["words_out"]
    return max(counted["macs"] // lanes**2, counted["tokens"] // lanes, words)


def _lane_input(
    segments: Sequence[tuple[int, int]], run: Mapping[str, int], values: _Values
) -> LaneInput:
    masks = []
    for address, channels in segments:
        mask = values.mask(address)
        if run["round_groups"]:
            mask = np.repeat(mask, run["maps"], axis=0)
        masks.append(mask.reshape(run["maps"], run["height"], run["width"] * channels))
    mask = np.concatenate(masks, axis=2).ravel() if masks else np.zeros(0, np.uint8)
    return LaneInput([channels for _, channels in segments], mask)
