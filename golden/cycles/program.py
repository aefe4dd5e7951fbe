"""A compiled program on the cycle model: the cycles of each run, and what it waits for loads.

The model reads what the machine reads: the descriptors and weight streams of the image. Only what
the machine itself would write, the outputs of the layers, is taken from golden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.weights import Column, ColumnLoad, ColumnTables, decode_column
from thresher.golden.compiler.layout import Words
from thresher.golden.compiler.predict import stored_values
from thresher.golden.compiler.program import Program
from thresher.golden.cycles.loads import element_cycles, load_cycles
from thresher.golden.cycles.runs import ElementTaps, LaneInput, kernel, predict_run
from thresher.golden.cycles.sequence import LoadStep, ProgramCycles, RunStep, sequence
from thresher.golden.descriptors import (
    LOAD,
    LOAD_LANE,
    POOL_SCALE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
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

    def __init__(self, program: Program, words: Words) -> None:
        self._words, self._first = words, program.program
        self._per_word = program.config.port_bits // 64
        self.at = 0

    def peek(self) -> int:
        word, part = divmod(self.at, self._per_word)
        return self._words[self._first + word] >> 64 * part & ((1 << 64) - 1)

    def take(self, record: Record) -> dict[str, int]:
        words = []
        for _ in record.words:
            words.append(self.peek())
            self.at += 1
        return _unpack(record, words)


class _Values:
    """Which values are not zero, of every segment that a program reads."""

    def __init__(self, program: Program, words: Words) -> None:
        self._program, self._words = program, words
        self._made: dict[int, tuple[str, Int64Array]] = {}
        self._held: dict[str, Int64Array] = {}
        for name, stored in program.maps.items():
            for addresses, streams in zip(stored.addresses, stored.segments, strict=True):
                for address, mine in zip(addresses, streams, strict=True):
                    if mine.size:
                        self._made[address] = (name, mine)

    def _values(self, address: int) -> Int64Array:
        """Return what is stored from an address on, shape (maps, channels, height, width)."""
        program = self._program
        name, mine = self._made[address]
        if name not in self._held:
            if name == "input":
                held = program.maps[name].decode(self._words, program.inputs, program.config)
            else:
                held = stored_values(program.maps[name], program.inference.outputs)
            self._held[name] = held
        return self._held[name][:, mine]

    def mask(self, segment: Mapping[str, int], run: Mapping[str, int]) -> ByteArray:
        """Return 1 where a value is not zero, shape (maps, height, width x channels)."""
        values = self._values(segment["address"]).transpose(0, 2, 3, 1)
        if run["round_groups"]:
            values = np.repeat(values, run["maps"], axis=0)
        return np.asarray(values.reshape(run["maps"], run["height"], -1) != 0, np.uint8)

    def row_words(self, address: int, channels: int) -> Int64Array:
        """Return the words of each row that a column writes from an address on, over all maps."""
        if not channels:
            return np.zeros(0, np.int64)
        values = self._values(address)
        mask = np.ascontiguousarray(values.transpose(0, 2, 3, 1) != 0, np.uint8).ravel()
        fmt = self._program.config.rlc
        rows = len(values) * values.shape[2]
        return np.asarray(kernel().row_words(mask, rows, fmt.max_run, fmt.pairs), np.int64)


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
    lanes = range(config.lanes)
    words = Words(program.image)
    values = _Values(program, words)
    descriptors = _Descriptors(program, words)
    tables: list[ColumnTables | None] = [None] * config.lanes
    loaded: list[list[Column]] = []
    steps: list[LoadStep | RunStep] = []
    runs = 0
    while (kind := descriptors.peek() & 3) != Kind.END:
        first = descriptors.at
        if kind == Kind.LOAD:
            load = descriptors.take(LOAD)
            load_lanes = [descriptors.take(LOAD_LANE) for _ in lanes]
            columns = []
            for number, lane in enumerate(load_lanes):
                data = program.image[lane["address"] : lane["address"] + lane["words"]].tobytes()
                fields = ColumnLoad.from_fields(load, lane)
                columns.append(decode_column(data, config, fields, previous=tables[number]))
            same = all(new.tables is old for new, old in zip(columns, tables, strict=True))
            tables = [column.tables for column in columns]
            loaded.append(columns)
            predicted = load_cycles(
                [
                    [
                        element_cycles(row.positions, row.groups, load["channels"], config)
                        for row in column.rows
                    ]
                    for column in columns
                ],
                [lane["channels"] for lane in load_lanes],
                sum(lane["words"] for lane in load_lanes),
                None if same else columns[0].tables.codebook.size,
                config,
                latency=latency,
            )
            steps.append(LoadStep(load["needs"], descriptors.at - first, predicted))
        else:
            run = descriptors.take(RUN)
            for _ in range(run["pool_scales"]):
                descriptors.take(POOL_SCALE)
            lane_inputs, column_channels, out_words = [], [], []
            for _ in lanes:
                lane = descriptors.take(RUN_LANE)
                segments = [descriptors.take(RUN_SEGMENT) for _ in range(lane["segments"])]
                rounds = run["maps"] if run["round_groups"] else 1
                written = np.concatenate(
                    [
                        values.row_words(
                            lane["out_address"] + at * run["out_pitch"], lane["channels"]
                        )
                        for at in range(rounds)
                    ]
                )
                if run["add"]:
                    # The operand's words take the port in step with those that are written.
                    operand = descriptors.take(RUN_SEGMENT)
                    written = written + 1 + values.row_words(operand["address"], lane["channels"])
                lane_inputs.append(_lane_input(segments, run, values))
                column_channels.append(lane["channels"])
                out_words.append(written)
            elements = [
                _element_taps(loaded[runs][column], row, run) for row in lanes for column in lanes
            ]
            runs += 1
            predict = partial(
                predict_run,
                run,
                lane_inputs,
                elements,
                column_channels,
                config,
                out_words,
                latency=latency,
            )
            size = descriptors.at - first
            held = size - len(RUN.words) if run["pool_scales"] else 0
            steps.append(RunStep(run["needs"], size, predict, held))
    return sequence(steps, config, latency=latency)


def _lane_input(
    segments: Sequence[Mapping[str, int]], run: Mapping[str, int], values: _Values
) -> LaneInput:
    masks = [values.mask(segment, run) for segment in segments]
    mask = np.concatenate(masks, axis=2).ravel() if masks else np.zeros(0, np.uint8)
    return LaneInput([segment["channels"] for segment in segments], mask)


def _element_taps(column: Column, row: int, run: Mapping[str, int]) -> ElementTaps:
    taps = column.rows[row]
    group = taps.positions // max(1, run["channels"])
    return ElementTaps(
        np.bincount(group, minlength=taps.groups),
        np.asarray(taps.offsets & 3, np.uint8),
        np.asarray(taps.codes == 0, np.uint8) if run["gate"] else None,
    )
