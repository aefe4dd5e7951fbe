"""Weight loader and its parts: equal to the reference under stalls, on time, and never stuck."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from amaranth.sim import Simulator

from thresher.golden.codes.bits import CodeError
from thresher.golden.codes.huffman import DecodeTable, code_lengths
from thresher.golden.codes.weights import (
    Column,
    ColumnLoad,
    ColumnRow,
    ColumnStream,
    ColumnTables,
    WeightFormat,
    column_tables,
    decode_column,
    encode_column,
    zero_runs,
)
from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.hw.weights.bit_reader import BitReader
from thresher.hw.weights.huffman_decoder import HuffmanDecoder
from thresher.hw.weights.weight_loader import WeightLoader
from thresher.sim.runner import run_cocotb
from thresher.sim.streams import drive_stream
from thresher.sim.weight_loader import Load, Loaded, simulate_loads

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

SEED = 20
SMALL = Config(
    lanes=2, tap_depth=256, group_depth=64, accumulator_depth=64, channel_depth=16, port_bits=64
)
LOAD = {
    "channels": 5,
    "row_size": 17,
    "kernel_height": 2,
    "kernel_width": 3,
    "group_base": 60,  # start pointers wrap around
    "channel_base": 14,  # so do the constants
}
LANE = {"channels": 3}


def random_stream(
    rng: np.random.Generator,
    config: Config,
    *,
    groups: Sequence[int] | int = 12,
    channels: int = LOAD["channels"],
    density: float = 0.4,
    symbols: int = 9,
    constants: int = LANE["channels"],
    lookup: bool = False,
    shared: bool = False,
) -> ColumnStream:
    """Draw a column's load; ``groups`` is one number for all rows or one for each."""
    rows = []
    for count in np.broadcast_to(groups, config.lanes).tolist():
        positions = np.flatnonzero(rng.random(count * channels) < density)
        rows.append(ColumnRow(count, positions, rng.integers(0, symbols, positions.size)))
    times = constants if shared else 1
    half = 1 << (config.accumulator_bits - 1)
    outputs = 1 << (config.activation_bits - 1)
    return ColumnStream(
        bias=rng.integers(-half, half, constants),
        scale=rng.integers(0, 1 << config.scale_bits, 1 if shared else constants).repeat(times),
        shift=rng.integers(0, 64, 1 if shared else constants).repeat(times),
        codebook=rng.integers(0, 1 << config.weight_code_bits, symbols),
        rows=rows,
        lookup=rng.integers(-outputs, outputs, 2 * outputs) if lookup else None,
    )


def encode(stream: ColumnStream, config: Config, *, plain: bool = False) -> bytes:
    """Encode a load with tables, or with weights as they are."""
    return encode_column(stream, config, codes=column_tables([stream], config, plain=plain))


def random_gaps(rng: np.random.Generator) -> list[int]:
    return rng.integers(0, rng.choice([1, 4, 40]), 7, endpoint=False).tolist()


def expect_equal(config: Config, load: Load, loaded: Loaded, column: Column) -> None:
    """Assert that the loader has written what the reference says, in its order."""
    assert loaded.error is ErrorCode.NONE
    base = load.load["channel_base"]
    assert loaded.constants == [
        ((base + n) % config.channel_depth, *map(int, values))
        for n, values in enumerate(zip(column.bias, column.scale, column.shift, strict=True))
    ]
    table = [] if column.lookup is None else column.lookup.tolist()
    assert loaded.lookup == list(enumerate(table))
    for i, row in enumerate(column.rows):
        columns = (row.addresses, row.offsets, row.codes)
        taps = list(zip(*(values.tolist() for values in columns), strict=True))
        assert [tap[1:] for tap in loaded.taps if tap[0] == i] == taps
        pointers = [
            ((load.load["group_base"] + group) % config.group_depth, value)
            for group, value in enumerate(row.pointers.tolist())
        ]
        assert [pointer[1:] for pointer in loaded.pointers if pointer[0] == i] == pointers


def check_streams(
    config: Config,
    streams: Sequence[tuple[bytes, dict[str, int], dict[str, int]]],
    *,
    seed: int,
    stalled: bool = True,
) -> tuple[list[Loaded], list[Column]]:
    """Load streams one after another and compare all that is written with the reference."""
    rng = np.random.default_rng(seed)
    tap_starts = [0] * config.lanes
    tables: ColumnTables | None = None
    loads, columns = [], []
    for data, load, lane in streams:
        fields = ColumnLoad.from_fields(load, lane)
        column = decode_column(data, config, fields, previous=tables, tap_starts=tap_starts)
        tap_starts, tables = [row.end for row in column.rows], column.tables
        gaps = random_gaps(rng) if stalled else (0,)
        loads.append(Load(data=data, load=load, lane=lane, gaps=gaps, surplus=int(rng.integers(3))))
        columns.append(column)
    results = simulate_loads(config, loads)
    for load_given, loaded, column in zip(loads, results, columns, strict=True):
        expect_equal(config, load_given, loaded, column)
    return results, columns


# --- parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("port_bits", [64, 256])
@pytest.mark.parametrize("widest", [3, 32])
def test_bit_reader_shows_the_bits_in_order(port_bits: int, widest: int) -> None:
    rng = np.random.default_rng(SEED)
    words = [int.from_bytes(rng.bytes(port_bits // 8)) for _ in range(24)]
    text = "".join(f"{word:0{port_bits}b}" for word in words)
    dut = BitReader(Config(port_bits=port_bits))

    async def producer(ctx: SimulatorContext) -> None:
        await drive_stream(ctx, dut.i, words, rng.integers(0, 6, len(words)).tolist())

    async def consumer(ctx: SimulatorContext) -> None:
        position = 0
        for _ in range(40 * len(text)):
            available = min(32, ctx.get(dut.available))
            window = f"{ctx.get(dut.window):032b}"
            assert window == text[position:][:available].ljust(32, "0")
            assert ctx.get(dut.position) == position
            taken = int(rng.integers(0, min(available, widest), endpoint=True))
            ctx.set(dut.consume, taken)
            position += taken
            await ctx.tick()
            if position == len(text):
                break
        assert position == len(text)
        assert ctx.get(dut.drained)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(producer)
    simulator.add_testbench(consumer)
    simulator.run()


def test_bit_reader_gives_a_window_a_cycle() -> None:
    dut = BitReader(Config(port_bits=64))

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(2)
        for cycle in range(100):
            assert ctx.get(dut.available) >= 32, f"cycle {cycle}"
            ctx.set(dut.consume, 32)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def huffman_tables(symbols: int, code_bits: int) -> list[list[int]]:
    """Lengths worth a try: incomplete, skewed, full, single, empty, fewer than ``symbols``."""
    rng = np.random.default_rng(SEED)
    skewed = np.minimum(np.arange(1, symbols + 1), code_bits)
    while np.sum(2.0**-skewed) > 1:
        skewed = skewed[:-1] if skewed.size <= code_bits + 1 else skewed[: code_bits + 1]
    tables = [
        skewed.tolist(),
        skewed[:-1].tolist(),  # the last code is missing
        [0] * (symbols - 1) + [1],
        [0, 1] + [0] * (symbols - 3),
        [0] * symbols,
        [1] * 2,
    ]
    for spread in (1, 5, 20):
        counts = (rng.random(symbols) ** spread * 1000).astype(np.int64)
        if symbols <= 1 << code_bits:
            tables.append(code_lengths(counts, code_bits).tolist())
    return tables


@pytest.mark.parametrize(("symbols", "code_bits"), [(8, 5), (32, 8), (256, 9)])
def test_huffman_decoder_equals_golden_for_every_window(symbols: int, code_bits: int) -> None:
    dut = HuffmanDecoder(symbols, code_bits)

    async def load(ctx: SimulatorContext, lengths: Sequence[int]) -> None:
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        fields = [{"length": length, "last": 0} for length in lengths]
        await drive_stream(ctx, dut.table, [*fields[:-1], {**fields[-1], "last": 1}])
        assert not ctx.get(dut.ready_to_decode)
        await ctx.tick().repeat(len(lengths) + code_bits)
        assert ctx.get(dut.ready_to_decode), "later than the docstring says"
        assert not ctx.get(dut.malformed)

    async def testbench(ctx: SimulatorContext) -> None:
        for lengths in huffman_tables(symbols, code_bits):
            await load(ctx, lengths)
            golden = DecodeTable(lengths)
            expected: list[int] = []
            for window in range(1 << code_bits):
                narrow = window >> (code_bits - golden.width)
                symbol = int(golden.symbol[narrow])
                expected.append(symbol)
                ctx.set(dut.window, window)
                assert ctx.get(dut.unused) == (symbol < 0)
                if symbol >= 0:
                    assert ctx.get(dut.length) == golden.length[narrow]
                    assert ctx.get(dut.final) == (symbol == symbols - 1)
                if window >= 2 and expected[window - 2] >= 0:
                    assert ctx.get(dut.symbol) == expected[window - 2]
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("lengths", [[1, 1, 1], [2] * 5, [3] * 8 + [5], [1, 6], [2, 0, 0]], ids=str)
def test_huffman_decoder_refuses_lengths_that_are_no_code(lengths: list[int]) -> None:
    dut = HuffmanDecoder(16, 5)

    async def testbench(ctx: SimulatorContext) -> None:
        fields = [
            {"length": length, "last": n == len(lengths) - 1} for n, length in enumerate(lengths)
        ]
        await drive_stream(ctx, dut.table, fields)
        await ctx.tick().until(dut.ready_to_decode)
        assert ctx.get(dut.malformed)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        assert not ctx.get(dut.malformed)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


# --- loader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_random_streams_equal_golden_under_any_stalls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    streams = []
    for _ in range(8):
        stream = random_stream(
            rng,
            SMALL,
            groups=rng.integers(0, 40, SMALL.lanes).tolist(),
            density=float(rng.choice([0.0, 0.02, 0.3, 0.9, 1.0])),
            symbols=int(rng.choice([1, 2, 9, 60])),
            shared=bool(rng.integers(2)),
        )
        streams.append((encode(stream, SMALL, plain=bool(rng.integers(2))), LOAD, LANE))
    check_streams(SMALL, streams, seed=seed)


@pytest.mark.parametrize(
    "config",
    [
        Config(lanes=1, accumulator_bits=40, multiplier="shift", code_bits=15),
        Config(lanes=4, weight_run_bits=1, code_bits=9, scale_bits=8, port_bits=256),
        Config(lanes=8, weight_run_bits=8, accumulator_bits=16),
        Config(lanes=2, pair_cycles=6, code_bits=14, port_bits=64),
    ],
    ids=["one-lane", "shortest-runs", "longest-runs", "six-cycles-a-pair"],
)
def test_other_sizes_equal_golden(config: Config) -> None:
    rng = np.random.default_rng(SEED)
    streams = [
        (
            encode(random_stream(rng, config, density=density, shared=plain), config, plain=plain),
            LOAD,
            LANE,
        )
        for density, plain in ((0.5, False), (0.5, True), (0.05, False), (0.05, True))
    ]
    check_streams(config, streams, seed=SEED)


def test_single_symbol_alphabets_cost_no_bits() -> None:
    rng = np.random.default_rng(SEED)
    both = random_stream(rng, SMALL, density=1, symbols=1)  # all runs 0, all indices 0
    runs = random_stream(rng, SMALL, density=1, symbols=5)
    indices = random_stream(rng, SMALL, density=0.3, symbols=1)
    streams = [(encode(stream, SMALL), LOAD, LANE) for stream in (both, runs, indices)]
    results, columns = check_streams(SMALL, streams, seed=SEED)
    assert len(results[0].taps) == SMALL.lanes * 12 * LOAD["channels"]
    assert columns[0].bits < columns[1].bits


def test_only_escapes_can_be_the_single_run_symbol_of_an_element() -> None:
    # A pass of zeros whose column has tables from elsewhere: the escape alone, at no bits.
    escapes = ColumnTables(np.eye(32, dtype=np.int64)[31], np.array([1]), np.array([7]))
    nothing = np.zeros(0, dtype=np.int64)
    empty = ColumnStream(nothing, nothing, nothing, np.array([7]), [(3, nothing, nothing)] * 2)
    data = bytearray(encode_column(empty, SMALL, codes=escapes))
    tables = 9 + 4 * 32 + 9 + 4 + SMALL.weight_code_bits
    at = 3 + tables + 16  # of the first element's pairs, 20 bits
    number = int.from_bytes(data) | 2 << (8 * len(data) - at - 20)
    loads = [
        Load(data=number.to_bytes(len(data)), load={**LOAD, "channels": n}, lane={"channels": 0})
        for n in (21, 20)
    ]
    fits, too_long = simulate_loads(SMALL, loads)  # 62 zeros in 63 positions, in 60 positions
    assert (fits.error, fits.taps, len(fits.pointers)) == (ErrorCode.NONE, [], 8)
    assert (too_long.error, too_long.position) == (ErrorCode.RUN_PAST_END, at + 20)


@pytest.mark.parametrize("pair_cycles", [1, 6])
def test_longest_codes_take_as_long_as_all_others(pair_cycles: int) -> None:
    longest = 15 if pair_cycles == 1 else 14
    config = dataclasses.replace(
        SMALL,
        code_bits=longest,
        weight_run_bits=4,
        pair_cycles=pair_cycles,
        accumulator_depth=256,
    )
    skewed = np.zeros(16, dtype=np.int64)
    skewed[: longest + 1] = [*range(1, longest + 1), longest]
    rng = np.random.default_rng(SEED)
    codebook = rng.integers(0, 256, 16)
    channels = 16 * 12
    positions = np.cumsum(np.tile([15, 14, 15], 12)) - 1  # the runs 14, 13, 14
    row = ColumnRow(4, positions[positions < channels * 4], np.full(36, longest))
    ones = np.ones(3, dtype=np.int64)
    stream = ColumnStream(ones, ones, ones, codebook, [row, row])
    codes = ColumnTables(skewed, skewed, codebook)
    data = encode_column(stream, config, codes=codes)
    load = {**LOAD, "channels": channels}
    for stalled in (False, True):
        results, _ = check_streams(config, [(data, load, LANE)], seed=SEED, stalled=stalled)
        cycles = results[0].tap_cycles[:36]
        if not stalled:
            if pair_cycles == 1:
                assert cycles == list(range(cycles[0], cycles[0] + 36))
            else:  # and one more for each chunk of 16 bits, one for each word
                bits = 36 * 2 * longest
                most = 6 * 35 + bits // 16 + bits // config.port_bits
                assert 6 * 35 <= cycles[-1] - cycles[0] <= most


def test_longest_runs_and_escapes_cross_many_groups() -> None:
    rng = np.random.default_rng(SEED)
    streams = []
    for channels in (1, 31, 64):
        load = {**LOAD, "channels": channels}
        for positions in ([], [0], [199], [30, 61, 93, 199], [31, 63, 199]):
            row = ColumnRow(
                -(-200 // channels),
                np.array(positions, dtype=np.int64),
                np.zeros(len(positions), dtype=np.int64),
            )
            stream = dataclasses.replace(random_stream(rng, SMALL), rows=[row, row])
            streams.append((encode(stream, SMALL, plain=channels == 31), load, LANE))
    check_streams(SMALL, streams, seed=SEED)


def test_empty_elements_write_their_pointers() -> None:
    rng = np.random.default_rng(SEED)
    streams = [
        (encode_column(random_stream(rng, SMALL, groups=groups, symbols=k), SMALL), LOAD, lane)
        for groups, k, lane in [([0, 0], 3, LANE), ([0, 7], 3, LANE), ([7, 0], 3, LANE)]
    ]
    nothing = random_stream(rng, SMALL, groups=9, density=0, symbols=0, constants=0)
    streams.append((encode_column(nothing, SMALL), LOAD, {"channels": 0}))
    results, _ = check_streams(SMALL, streams, seed=SEED)
    assert results[0].pointers == [(0, 60, 0), (1, 60, 0)]
    assert results[3].constants == []


@pytest.mark.parametrize("pair_cycles", [1, 6])
def test_escapes_are_forgotten_with_their_table(pair_cycles: int) -> None:
    config = dataclasses.replace(SMALL, pair_cycles=pair_cycles)
    one = random_stream(np.random.default_rng(SEED), config, groups=16)
    streams = []
    for positions in ([40, 79], [0, 1, 3]):  # with escapes; runs of 0 and 1
        row = ColumnRow(16, np.array(positions), np.zeros(len(positions), dtype=np.int64))
        stream = dataclasses.replace(one, rows=[row, row])
        streams.append((encode(stream, config, plain=True), LOAD, LANE))
    check_streams(config, streams, seed=SEED)


@pytest.mark.parametrize("plain", [False, True])
def test_tables_of_the_previous_load_stay(*, plain: bool) -> None:
    rng = np.random.default_rng(SEED)
    first = random_stream(rng, SMALL, symbols=20)
    tables = decode_column(
        encode(first, SMALL, plain=plain), SMALL, ColumnLoad.from_fields(LOAD, LANE)
    ).tables
    second = dataclasses.replace(first, rows=first.rows[::-1])
    streams = [
        (encode(first, SMALL, plain=plain), LOAD, LANE),
        (encode_column(second, SMALL, tables=False, codes=tables), LOAD, LANE),
    ]
    check_streams(SMALL, streams, seed=SEED)


def test_a_lookup_table_takes_a_cycle_an_entry() -> None:
    rng = np.random.default_rng(SEED)
    stream = random_stream(rng, SMALL, lookup=True)
    plain = dataclasses.replace(stream, lookup=None)
    streams = [(encode_column(one, SMALL), LOAD, LANE) for one in (stream, plain, stream)]
    results, _ = check_streams(SMALL, streams, seed=SEED, stalled=False)
    assert results[0].cycles - results[1].cycles == 1 << SMALL.activation_bits
    check_streams(SMALL, streams, seed=SEED + 1)


def test_a_machine_without_lookup_refuses_a_table() -> None:
    rng = np.random.default_rng(SEED)
    data = encode_column(random_stream(rng, SMALL, lookup=True), SMALL)
    without = dataclasses.replace(SMALL, lookup=0)
    assert check_damaged(without, [data], SEED) == {ErrorCode.CODE_UNUSED}
    assert fault_of(data, without) == (ErrorCode.CODE_UNUSED, 1 + LANE["channels"] * (32 + 31 + 6))


def test_tap_addresses_go_on_until_reset() -> None:
    data = encode_column(random_stream(np.random.default_rng(SEED), SMALL, density=1), SMALL)
    loads = [
        Load(data=data, load=LOAD, lane=LANE, reset_taps=reset) for reset in (False, False, True)
    ]
    results = simulate_loads(SMALL, loads)
    assert [loaded.taps[0][1] for loaded in results] == [0, 60, 0]


@pytest.mark.parametrize("plain", [False, True])
def test_one_pair_a_cycle_and_one_further_group_a_cycle(*, plain: bool) -> None:
    rng = np.random.default_rng(SEED)
    fmt = WeightFormat(run_bits=SMALL.weight_run_bits, code_bits=SMALL.code_bits)
    streams, expected = [], []
    for density in (1.0, 0.7, 0.2, 0.02):
        stream = random_stream(rng, SMALL, groups=40, density=density)
        codes = column_tables([stream], SMALL, plain=plain)
        cycles = 1 + 3 * LANE["channels"] + 2 + 1 + codes.run_symbols  # fields
        building = codes.run_symbols + SMALL.code_bits + 1
        if not plain:  # the index's alphabet, lengths, codebook or building meanwhile
            building = max(building, 1 + 9 + 9 + SMALL.code_bits + 1)
        cycles += building
        for groups, positions, indices in stream.rows:
            runs, symbols = zero_runs(positions, indices, fmt)
            last = np.cumsum(runs + (symbols >= 0)) - 1
            entered = np.diff(last // LOAD["channels"], prepend=-1, append=groups)
            cycles += runs.size + int(np.maximum(entered[:-1] - 1, 0).sum() + entered[-1])
        streams.append((encode_column(stream, SMALL, codes=codes), LOAD, LANE))
        expected.append(cycles)
    results, _ = check_streams(SMALL, streams, seed=SEED, stalled=False)
    overheads = [loaded.cycles - cycles for loaded, cycles in zip(results, expected, strict=True)]
    assert max(overheads) <= 14 + 3 * SMALL.lanes, overheads
    cycles = results[0].tap_cycles
    assert cycles[:200] == list(range(cycles[0], cycles[0] + 200))
    assert cycles[200] == cycles[199] + 4  # the next element: three cycles for its fields


# --- damaged streams ------------------------------------------------------------------------


def fault_of(data: bytes, config: Config) -> tuple[ErrorCode, int] | None:
    """What the reference finds wrong; None if nothing."""
    try:
        decode_column(data, config, ColumnLoad.from_fields(LOAD, LANE))
    except CodeError as error:
        return error.code, error.position
    return None


def expect_within_groups(loaded: Loaded) -> None:
    """Assert that pointers are written in order and each tap belongs to an entered group."""
    for row in {pointer[0] for pointer in loaded.pointers}:
        addresses = [pointer[1] for pointer in loaded.pointers if pointer[0] == row]
        expected = [(LOAD["group_base"] + n) % SMALL.group_depth for n in range(len(addresses))]
        assert addresses == expected
    assert {tap[0] for tap in loaded.taps} <= {pointer[0] for pointer in loaded.pointers}


def check_damaged(config: Config, damaged: Sequence[bytes], seed: int) -> set[ErrorCode]:
    """Load damaged streams: error and position as in the reference, no write out of place."""
    rng = np.random.default_rng(seed)
    loads = [
        Load(data=data, load=LOAD, lane=LANE, gaps=random_gaps(rng), reset_taps=True)
        for data in damaged
    ]
    results = simulate_loads(config, loads)
    found = set()
    for load, loaded in zip(loads, results, strict=True):
        expected = fault_of(load.data, config)
        found.add(loaded.error)
        expect_within_groups(loaded)
        if expected is None:
            assert loaded.error is ErrorCode.NONE
        else:
            assert (loaded.error, loaded.position) == expected
    return found


@pytest.mark.parametrize(
    ("seed", "pair_cycles", "plain"),
    [
        (SEED, 1, False),
        (SEED + 1, 1, False),
        (SEED + 2, 6, False),
        (SEED + 3, 1, True),
        (SEED + 4, 6, True),
    ],
)
def test_flipped_bits_end_with_the_reference_error(
    seed: int, pair_cycles: int, *, plain: bool
) -> None:
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(SMALL, lanes=1, pair_cycles=pair_cycles)
    damaged = []
    while len(damaged) < 24:
        stream = random_stream(rng, config, density=0.5, symbols=int(rng.choice([1, 4, 30])))
        data = bytearray(encode(stream, config, plain=plain))
        for bit in rng.integers(210, 8 * len(data), rng.integers(1, 3)).tolist():  # behind `tables`
            data[bit // 8] ^= 0x80 >> bit % 8
        try:
            column = decode_column(bytes(data), config, ColumnLoad.from_fields(LOAD, LANE))
            if column.rows[0].groups > 300:  # right, but takes long
                continue
        except CodeError:
            pass
        damaged.append(bytes(data))
    assert ErrorCode.CODE_UNUSED in check_damaged(config, damaged, seed)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("pair_cycles", [1, 6])
def test_truncated_streams_are_short(pair_cycles: int, *, plain: bool) -> None:
    rng = np.random.default_rng(SEED)
    config = dataclasses.replace(SMALL, pair_cycles=pair_cycles)
    data = encode(random_stream(rng, config, symbols=30), config, plain=plain)
    cut = [data[:at] for at in range(0, len(data), 8)]
    assert check_damaged(config, cut, SEED) == {ErrorCode.STREAM_SHORT}


def test_truncated_lookup_tables_are_short() -> None:
    rng = np.random.default_rng(SEED)
    config = dataclasses.replace(SMALL, activation_bits=6)
    data = encode_column(random_stream(rng, config, lookup=True), config)
    cut = [data[:at] for at in range(0, len(data), 8)]
    assert check_damaged(config, cut, SEED) == {ErrorCode.STREAM_SHORT}


def test_fewer_groups_than_weights_is_a_run_past_the_end() -> None:
    rng = np.random.default_rng(SEED)
    stream = random_stream(rng, SMALL, density=0.5)
    damaged = []
    for groups in (0, 1, 11):
        _, positions, indices = stream.rows[0]
        rows = [(groups, positions, indices), stream.rows[1]]
        damaged.append(encode(dataclasses.replace(stream, rows=rows), SMALL))
    assert check_damaged(SMALL, damaged, SEED) == {ErrorCode.RUN_PAST_END}


def test_no_tables_after_reset_are_unused_codes() -> None:
    rng = np.random.default_rng(SEED)
    stream = random_stream(rng, SMALL)
    tables = decode_column(
        encode_column(stream, SMALL), SMALL, ColumnLoad.from_fields(LOAD, LANE)
    ).tables
    data = encode_column(stream, SMALL, tables=False, codes=tables)
    assert check_damaged(SMALL, [data], SEED) == {ErrorCode.CODE_UNUSED}


def test_an_error_does_not_outlive_the_next_start() -> None:
    data = encode_column(random_stream(np.random.default_rng(SEED), SMALL), SMALL)
    loads = [
        Load(data=part, load=LOAD, lane=LANE, reset_taps=True)
        for part in (data[:-8], data, data[:16])
    ]
    short, whole, shorter = simulate_loads(SMALL, loads)
    assert short.error is shorter.error is ErrorCode.STREAM_SHORT
    expect_equal(
        SMALL, loads[1], whole, decode_column(data, SMALL, ColumnLoad.from_fields(LOAD, LANE))
    )


@pytest.mark.cocotb
def test_verilog_equals_golden(tmp_path: Path) -> None:
    count = run_cocotb(
        WeightLoader(SMALL),
        test_module="cocotb_weight_loader",
        build_dir=tmp_path,
        env={"CONFIG": json.dumps(dataclasses.asdict(SMALL))},
    )
    assert count == 2
