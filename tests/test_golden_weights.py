"""Weight streams: pairs, layers in files, columns of the hardware; sound and damaged ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.golden.codes.bits import CodeError
from thresher.golden.codes.huffman import canonical_codes, entropy_bits
from thresher.golden.codes.weights import (
    Column,
    ColumnLoad,
    ColumnRow,
    ColumnStream,
    ColumnTables,
    WeightFormat,
    best_format,
    column_tables,
    decode_column,
    decode_layer,
    encode_column,
    encode_layer,
    expand_runs,
    zero_runs,
)
from thresher.golden.config import Config, MultiplierKind
from thresher.golden.descriptors import ErrorCode

SMALL = Config(lanes=2, accumulator_bits=16, scale_bits=8, weight_run_bits=2, code_bits=6)
CONSTANT_BITS = SMALL.accumulator_bits + SMALL.scale_bits + 6


def make_stream(
    config: Config,
    *,
    seed: int,
    groups: int,
    channels: int,
    entries: int,
    density: float,
    lookup: bool = False,
) -> ColumnStream:
    rng = np.random.default_rng(seed)
    half = 1 << (config.accumulator_bits - 1)
    outputs = 1 << (config.activation_bits - 1)
    rows = []
    for _ in range(config.lanes):
        positions = np.flatnonzero(rng.random(groups * channels) < density)
        rows.append(ColumnRow(groups, positions, rng.integers(0, entries, positions.size)))
    return ColumnStream(
        bias=rng.integers(-half, half, channels),
        scale=rng.integers(0, 1 << config.scale_bits, channels),
        shift=rng.integers(0, 64, channels),
        codebook=rng.integers(0, 1 << config.weight_code_bits, entries),
        rows=rows,
        lookup=rng.integers(-outputs, outputs, 2 * outputs) if lookup else None,
    )


def load_of(stream: ColumnStream) -> ColumnLoad:
    channels = stream.bias.size
    return ColumnLoad(
        channels=channels,
        column_channels=channels,
        row_size=9 * channels,
        kernel_height=2,
        kernel_width=3,
    )


def assert_same(column: Column, stream: ColumnStream) -> None:
    for name in ("bias", "scale", "shift"):
        assert np.array_equal(getattr(column, name), getattr(stream, name))
    assert (column.lookup is None) == (stream.lookup is None)
    assert column.lookup is None or np.array_equal(column.lookup, np.asarray(stream.lookup))
    plain = column.tables.plain
    assert plain or np.array_equal(column.tables.codebook, stream.codebook)
    for decoded, (groups, positions, indices) in zip(column.rows, stream.rows, strict=True):
        assert decoded.groups == groups
        assert np.array_equal(decoded.positions, positions)
        codes = np.asarray(stream.codebook)[indices] % len(column.tables.codebook)
        assert np.array_equal(decoded.indices, codes if plain else indices)


def as_bits(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


def as_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(1 + len(bits) // 8)[1:]


# --- pairs ----------------------------------------------------------------------------------


@given(st.integers(1, 8), st.sets(st.integers(0, 3000), max_size=60))
def test_pairs_are_those_of_the_definition_and_survive(run_bits: int, places: set[int]) -> None:
    fmt = WeightFormat(run_bits=run_bits)
    positions = sorted(places)
    indices = [place % 7 for place in positions]
    expected, at = [], 0
    for place, index in zip(positions, indices, strict=True):
        while place - at >= fmt.escape:
            expected.append((fmt.escape, -1))
            at += fmt.escape
        expected.append((place - at, index))
        at = place + 1
    runs, symbols = zero_runs(positions, indices, fmt)
    assert list(zip(runs.tolist(), symbols.tolist(), strict=True)) == expected
    back = expand_runs(runs, symbols, fmt)
    assert (back[0].tolist(), back[1].tolist()) == (positions, indices)


@pytest.mark.parametrize(
    ("positions", "indices", "message"),
    [
        ([3, 3], [0, 0], "positions must increase"),
        ([-1], [0], "positions must increase from 0"),
        ([1, 2], [0], "share a shape"),
        ([1], [-1], "indices must not be negative"),
    ],
)
def test_bad_positions_are_refused(positions: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zero_runs(positions, indices, WeightFormat())


def test_bad_pairs_are_refused() -> None:
    fmt = WeightFormat(run_bits=2)
    with pytest.raises(ValueError, match=r"runs must be in 0\.\.3"):
        expand_runs([4], [0], fmt)
    with pytest.raises(ValueError, match="an escape, and only it"):
        expand_runs([3], [0], fmt)
    with pytest.raises(ValueError, match="an escape, and only it"):
        expand_runs([2], [-1], fmt)
    with pytest.raises(ValueError, match=r"run_bits must be in 1\.\.8, not 9"):
        WeightFormat(run_bits=9)
    with pytest.raises(ValueError, match=r"code_bits must be in 1\.\.15, not 16"):
        WeightFormat(code_bits=16)


# --- layers ---------------------------------------------------------------------------------


@given(
    st.integers(0, 400),
    st.integers(1, 256),
    st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    st.integers(0, 3),
    st.integers(0, 2**32),
)
def test_layers_survive(size: int, entries: int, density: float, zeros: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codebook = rng.permutation(np.arange(1, entries + 1))
    codebook[:zeros] = 0
    indices = rng.integers(0, entries, size)
    indices[rng.random(size) >= density] = 0
    data = encode_layer(indices, codebook)
    decoded = decode_layer(data, size)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, indices)


def test_the_size_of_a_layer_is_near_its_entropy() -> None:
    rng = np.random.default_rng(11)
    indices = rng.binomial(31, 0.5, 40_000) * (rng.random(40_000) < 0.09)
    codebook = np.arange(32)
    positions = np.flatnonzero(indices)
    fmt = best_format(positions)
    runs, symbols = zero_runs(positions, indices[positions], fmt)
    bound = entropy_bits(np.bincount(runs)) + entropy_bits(np.bincount(symbols[symbols >= 0]))
    tables = 4 * fmt.run_symbols + 4 * 32 + 100
    size = 8 * len(encode_layer(indices, codebook))
    assert bound <= size <= 1.03 * bound + tables


@pytest.mark.parametrize("density", [0.01, 0.1, 0.4, 1.0])
def test_the_best_format_is_the_smallest_by_encoding(density: float) -> None:
    rng = np.random.default_rng(2)
    indices = (rng.random(5000) < density).astype(np.int64)
    sizes = [
        len(encode_layer(indices, [0, 1], WeightFormat(run_bits=run_bits, code_bits=15)))
        for run_bits in range(1, 9)
    ]
    assert len(encode_layer(indices, [0, 1])) == min(sizes)


def test_a_cut_or_lengthened_layer_is_refused() -> None:
    rng = np.random.default_rng(5)
    indices = rng.integers(0, 9, 60) * (rng.random(60) < 0.4)
    data = encode_layer(indices, np.arange(9))
    for length in range(len(data)):
        with pytest.raises(CodeError):
            decode_layer(data[:length], 60)
    with pytest.raises(CodeError, match="more bits than pairs"):
        decode_layer(data + b"\0", 60)
    with pytest.raises(CodeError, match="for 60 weights, 61 expected, at bit 4"):
        decode_layer(data, 61)


def test_a_layer_with_flipped_bits_gives_indices_or_an_error() -> None:
    rng = np.random.default_rng(6)
    indices = rng.integers(0, 5, 40) * (rng.random(40) < 0.5)
    data = encode_layer(indices, np.arange(5))
    places = []
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        try:
            decoded = decode_layer(bytes(damaged), 40)
        except CodeError as error:
            places.append(error.position)
        else:
            assert decoded.shape == (40,)
    assert len(places) > 4 * len(data)
    assert 0 <= min(places) <= max(places) <= 8 * len(data)


@pytest.mark.parametrize(
    ("indices", "codebook", "message"),
    [
        ([0, 3], [0, 1, 2], r"indices must be in 0\.\.2"),
        ([[0]], [0], "indices must have shape"),
        ([0], [[0]], "codebook must have shape"),
    ],
)
def test_bad_layers_are_refused(indices: list[int], codebook: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_layer(indices, codebook)


# --- columns --------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("lookup", [False, True])
def test_a_column_is_the_bit_string_of_the_interface(*, lookup: bool, plain: bool) -> None:
    config = replace(SMALL, activation_bits=4, code_bits=8)
    stream = ColumnStream(
        bias=np.array([-2]),
        scale=np.array([200]),
        shift=np.array([7]),
        codebook=np.array([5, 0x80, 0xFF]),
        rows=[
            ColumnRow(9, np.array([0, 1, 6]), np.array([0, 2, 0])),  # runs 0, 0, escape, 1
            ColumnRow(0, np.array([], dtype=int), np.array([], dtype=int)),
        ],
        lookup=np.arange(-8, 8) if lookup else None,
    )
    table = "1" + "".join(f"{value & 15:04b}" for value in range(-8, 8)) if lookup else "0"
    # runs 0 0 3 1: lengths 1, 2, 0, 2; indices 0 2 0: lengths 1, 0, 1
    indices = ["000000010", "0001", "0000", "0001", "00000101", "10000000", "11111111"]
    weights = ["0", "1", "0"]
    if plain:
        indices, weights = ["100000000"], ["00000101", "11111111", "00000101"]
    expected = [
        "1", "1111111111111110", "11001000", "000111",
        table,
        "1",
        "000000011", "0001", "0010", "0000", "0010",
        *indices,
        f"{9:016b}", f"{4:020b}", "0", weights[0], "0", weights[1], "11", "10", weights[2],
        f"{0:016b}", f"{0:020b}",
    ]  # fmt: skip
    assert canonical_codes([1, 2, 0, 2]).tolist() == [0, 2, 0, 3]
    bits = "".join(expected)
    data = encode_column(stream, config, codes=column_tables([stream], config, plain=plain))
    assert len(data) % 8 == 0
    assert as_bits(data) == bits + "0" * (-len(bits) % 64)
    assert decode_column(data, config, load_of(stream)).bits == len(bits)


@pytest.mark.parametrize("multiplier", list(MultiplierKind))
@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize(
    ("groups", "entries", "density"), [(40, 256, 0.9), (60, 1, 0.1), (200, 16, 0.01), (0, 4, 1.0)]
)
def test_columns_survive(
    multiplier: MultiplierKind, lanes: int, groups: int, entries: int, density: float
) -> None:
    config = Config(lanes=lanes, multiplier=multiplier)
    stream = make_stream(
        config,
        seed=groups,
        groups=groups,
        channels=3,
        entries=entries,
        density=density,
        lookup=bool(lanes > 1),
    )
    sizes = {}
    for plain in (False, True, None):
        codes = column_tables([stream], config, plain=plain)
        data = encode_column(stream, config, codes=codes)
        assert len(data) % (config.port_bits // 8) == 0
        column = decode_column(data + b"\xff" * 40, config, load_of(stream))
        assert_same(column, stream)
        assert 0 <= 8 * len(data) - column.bits < config.port_bits
        assert column.tables.plain == codes.plain
        sizes[plain] = column.bits
    assert sizes[None] == min(sizes[False], sizes[True])


def test_scale_and_shift_of_all_channels_are_sent_once() -> None:
    stream = make_stream(SMALL, seed=1, groups=5, channels=4, entries=2, density=0.5)
    for differ in ("", "scale", "shift"):
        constants = {"scale": np.full(4, 9), "shift": np.full(4, 8)}
        if differ:
            constants[differ][3] += 1
        one = replace(stream, **constants)
        column = decode_column(encode_column(one, SMALL), SMALL, load_of(one))
        assert_same(column, one)
        assert column.shared == (not differ)
        if not differ:
            least = column.bits
        else:
            assert column.bits - least == 3 * (SMALL.scale_bits + 6)


def test_only_as_many_run_lengths_are_sent_as_are_used() -> None:
    none = np.zeros(0, dtype=np.int64)
    sizes = []
    for positions in ([0, 1, 2], [0, 2, 4], [0, 1, 7]):
        row = ColumnRow(9, np.array(positions), np.zeros(3, dtype=np.int64))
        stream = ColumnStream(none, none, none, np.array([1]), [row, (0, none, none)])
        codes = column_tables([stream], SMALL)
        column = decode_column(
            encode_column(stream, SMALL, codes=codes), SMALL, replace(load_of(stream), channels=1)
        )
        assert np.array_equal(column.tables.run_lengths, codes.run_lengths)
        sizes.append((codes.run_symbols, column.bits))
    assert [symbols for symbols, _ in sizes] == [1, 2, 4]
    # The runs 0 0 0; 0 1 1; 0 0 3 2 themselves have 0, 3 and 6 bits.
    assert np.diff([bits for _, bits in sizes]).tolist() == [4 + 3, 8 + 6 - 3]


def test_a_column_without_channels_or_codebook_survives() -> None:
    none = np.zeros(0, dtype=np.int64)
    stream = ColumnStream(none, none, none, none, [(3, none, none), (0, none, none)])
    data = encode_column(stream, SMALL)
    column = decode_column(data, SMALL, replace(load_of(stream), channels=4))
    assert column.tables.codebook.tolist() == [0]  # one that is not used
    assert_same(column, replace(stream, codebook=np.zeros(1, dtype=np.int64)))
    assert column.rows[0].pointers.tolist() == [0, 0, 0, 0]


def test_taps_and_pointers_follow_the_definition() -> None:
    stream = make_stream(SMALL, seed=8, groups=24, channels=4, entries=9, density=0.3)
    load = replace(load_of(stream), group_base=7)
    starts = [SMALL.tap_depth - 5, 11]
    column = decode_column(encode_column(stream, SMALL), SMALL, load, tap_starts=starts)
    for row, start, (groups, positions, indices) in zip(
        column.rows, starts, stream.rows, strict=True
    ):
        for k, (position, index) in enumerate(zip(positions, indices, strict=True)):
            group, n = divmod(int(position), 4)
            ky, kx = divmod(group % 6, 3)
            offset = (n - (ky * load.row_size + kx * 4)) % SMALL.accumulator_depth
            assert row.offsets[k] == offset
            assert row.codes[k] == stream.codebook[index]
            assert row.addresses[k] == (start + k) % SMALL.tap_depth
        for group in range(groups + 1):
            before = int(np.sum(positions // 4 < group))
            assert row.pointers[group] == (start + before) % SMALL.tap_depth
        assert row.end == (start + len(positions)) % SMALL.tap_depth


def test_tables_stay_from_one_load_to_the_next() -> None:
    first = make_stream(SMALL, seed=1, groups=30, channels=2, entries=8, density=0.2)
    second = make_stream(SMALL, seed=2, groups=30, channels=2, entries=8, density=0.6)
    second = replace(second, codebook=first.codebook)
    codes = column_tables([first, second], SMALL)
    with_tables = encode_column(first, SMALL, codes=codes)
    without = encode_column(second, SMALL, tables=False, codes=codes)
    column = decode_column(with_tables, SMALL, load_of(first))
    assert_same(column, first)
    again = decode_column(
        without,
        SMALL,
        load_of(second),
        previous=column.tables,
        tap_starts=[row.end for row in column.rows],
    )
    assert_same(again, second)
    assert again.rows[1].addresses[0] == column.rows[1].end
    with pytest.raises(CodeError, match="unused code"):
        decode_column(without, SMALL, load_of(second))
    with pytest.raises(ValueError, match="codes must be given"):
        encode_column(second, SMALL, tables=False)
    with pytest.raises(ValueError, match="same codebook"):
        column_tables([first, replace(second, codebook=np.zeros(8, dtype=int))], SMALL)
    with pytest.raises(ValueError, match="codes are for another codebook"):
        encode_column(replace(first, codebook=np.zeros(8, dtype=int)), SMALL, codes=codes)
    with pytest.raises(ValueError, match="plain weights have 8 bits, code_bits is 6"):
        column_tables([first], SMALL, plain=True)


def damaged_cases() -> list[tuple[str, str, ErrorCode, int, str]]:
    """Streams of one row without constants: name, bits, error, position, reason."""
    head = f"{4:016b}"
    run_table = "000000010" + "0001" + "0010" * 2  # codes 0, 10, 11
    index_table = f"{1:09b}" + "0001" * 2 + "0" * 16  # codes 0, 1
    one_index = f"{1:09b}" + "0010" * 2 + "0" * 16  # codes 00, 01
    tables = "001" + run_table + index_table
    pairs = len(tables) + 36
    rest = "0" * 64
    return [
        ("run code", "001" + "000000010" + "0010" * 3 + index_table + head + f"{2:020b}" + "000"
         + "11" + rest, ErrorCode.CODE_UNUSED, pairs + 3, "unused code"),
        ("index code", "001" + run_table + one_index + head + f"{1:020b}" + "0" + "10" + rest,
         ErrorCode.CODE_UNUSED, pairs + 1, "unused code"),
        ("no run symbols", "001" + "0" * 13 + index_table + head + f"{1:020b}" + rest,
         ErrorCode.CODE_UNUSED, pairs - 8, "unused code"),
        ("run symbols", "001" + f"{4:09b}" + "0" * 4000,
         ErrorCode.CODE_UNUSED, 3, "run symbol 4, the last is 3"),
        ("plain runs", "001" + "1" + "0" * 4000, ErrorCode.CODE_UNUSED, 3, "plain runs"),
        ("too many runs", "001" + f"{3:09b}" + "0001" * 4 + index_table + rest,
         ErrorCode.CODE_UNUSED, 12, "more codes"),
        ("long code", "001" + f"{3:09b}" + "0111" * 4 + index_table + rest,
         ErrorCode.CODE_UNUSED, 12, "code longer than 6 bits"),
        ("long index", "001" + run_table + "0" * 9 + "0111" + rest,
         ErrorCode.CODE_UNUSED, 33, "code longer than 6 bits"),
        ("plain", "001" + run_table + f"{256:09b}" + "0" * 4000,
         ErrorCode.CODE_UNUSED, 24, "plain weights of 8 bits, the longest code has 6"),
        ("short lookup", "01" + "0" * 70, ErrorCode.STREAM_SHORT, 2, "ends after 70 of 4608"),
        ("short symbols", "001" + "00000", ErrorCode.STREAM_SHORT, 3, "ends after 5 of 9"),
        ("short table", "001" + run_table[:13], ErrorCode.STREAM_SHORT, 12, "ends after 4 of 12"),
        ("short run", tables + f"{16:016b}" + f"{9:020b}" + "00" + "1",
         ErrorCode.STREAM_SHORT, pairs + 2, "1 of a symbol's 2 bits"),
        ("short index", tables + f"{16:016b}" + f"{9:020b}" + "00" + "0",
         ErrorCode.STREAM_SHORT, pairs + 3, "0 of a symbol's 1 bits"),
        ("weight past end", tables + head + f"{4:020b}" + "00" + "111" + "110" + "00" + rest,
         ErrorCode.RUN_PAST_END, pairs + 5, "run past the 4 groups of row 0"),
        ("unused code behind", tables + head + f"{3:020b}" + "111" + "110" + "11",
         ErrorCode.RUN_PAST_END, pairs + 3, "run past"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "code", "position", "reason"),
    [case[1:] for case in damaged_cases()],
    ids=[case[0] for case in damaged_cases()],
)
def test_damaged_columns_name_reason_and_place(
    bits: str, code: ErrorCode, position: int, reason: str
) -> None:
    config = replace(SMALL, lanes=1, tap_depth=64)
    load = ColumnLoad(channels=1, column_channels=0, row_size=1)
    data = as_bytes(bits)
    with pytest.raises(CodeError, match=reason) as caught:
        decode_column(data, config, load)
    assert (caught.value.code, caught.value.position) == (code, position)


def test_a_trailing_escape_past_the_end_is_an_error_but_up_to_it_is_not() -> None:
    config = replace(SMALL, lanes=1)
    only_escapes = "001" + f"{3:09b}" + "0000" * 3 + "0001" + f"{0:09b}" + "0000" + "0" * 8
    for groups, fails in [(6, False), (5, True)]:
        data = as_bytes(only_escapes + f"{groups:016b}" + f"{2:020b}")
        load = ColumnLoad(channels=1, column_channels=0, row_size=1)
        if fails:
            with pytest.raises(CodeError, match="run past the 5 groups"):
                decode_column(data, config, load)
        else:
            assert decode_column(data, config, load).rows[0].positions.size == 0


def test_any_cut_column_is_an_error() -> None:
    stream = make_stream(SMALL, seed=4, groups=12, channels=2, entries=5, density=0.4)
    data = encode_column(stream, SMALL)
    bits = decode_column(data, SMALL, load_of(stream)).bits
    for length in range(bits // 8):
        with pytest.raises(CodeError) as caught:
            decode_column(data[:length], SMALL, load_of(stream))
        assert caught.value.code is ErrorCode.STREAM_SHORT


@given(st.integers(0, 2**32), st.data())
def test_a_column_with_flipped_bits_gives_a_column_or_an_error(
    seed: int, data: st.DataObject
) -> None:
    stream = make_stream(SMALL, seed=seed, groups=12, channels=2, entries=5, density=0.3)
    coded = bytearray(encode_column(stream, SMALL))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(coded) - 1), max_size=3)):
        coded[bit // 8] ^= 0x80 >> bit % 8
    try:
        column = decode_column(bytes(coded), SMALL, load_of(stream))
    except CodeError as error:
        place = error.position
    else:
        place = column.bits
        for row in column.rows:
            assert row.positions.size == 0 or row.positions[-1] < row.groups * 2
    assert 0 <= place <= 8 * len(coded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.array([1 << 15, 0])}, r"bias must be in -32768\.\.32767"),
        ({"scale": np.array([256, 0])}, "scale below 256"),
        ({"shift": np.array([64, 0])}, "shift below 64"),
        ({"bias": np.array([0.5, 0])}, "constants must be integers"),
        ({"codebook": np.full(4, 256)}, "weight codes must have 8 bits"),
        ({"codebook": np.zeros(257, dtype=int)}, "codebook must have shape"),
        ({"codebook": np.zeros(1, dtype=int)}, r"indices must be in 0\.\.0"),
        (
            {"lookup": np.zeros(8, dtype=int)},
            r"lookup must be integers of shape \(512,\), not int64",
        ),
        ({"lookup": np.zeros(512)}, r"lookup must be integers of shape \(512,\), not float64"),
        ({"lookup": np.full(512, 256)}, r"lookup must be in -256\.\.255, not 256\.\.256"),
        ({"rows": []}, "rows must be 2, one a lane, not 0"),
        ({"rows": [(1 << 16, np.zeros(0, int), np.zeros(0, int))] * 2}, "65536 groups, 0 pairs"),
    ],
)
def test_bad_columns_are_refused(change: dict[str, object], message: str) -> None:
    stream = make_stream(SMALL, seed=3, groups=10, channels=2, entries=4, density=0.5)
    with pytest.raises(ValueError, match=message):
        encode_column(replace(stream, **change), SMALL)


def test_a_machine_without_lookup_takes_no_table() -> None:
    stream = make_stream(SMALL, seed=3, groups=10, channels=2, entries=4, density=0.5, lookup=True)
    without = replace(SMALL, lookup=0)
    with pytest.raises(ValueError, match="lookup must be None for a machine without lookup"):
        encode_column(stream, without)
    with pytest.raises(CodeError, match="lookup table for a machine without") as caught:
        decode_column(encode_column(stream, SMALL), without, load_of(stream))
    assert (caught.value.code, caught.value.position) == (
        ErrorCode.CODE_UNUSED,
        1 + 2 * CONSTANT_BITS,
    )


def test_negative_weight_codes_are_twos_complement() -> None:
    stream = make_stream(SMALL, seed=3, groups=10, channels=2, entries=2, density=0.5)
    stream = replace(stream, codebook=np.array([-1, -128]))
    column = decode_column(encode_column(stream, SMALL), SMALL, load_of(stream))
    assert column.tables.codebook.tolist() == [0xFF, 0x80]


def test_a_load_takes_its_fields_from_the_records() -> None:
    load = {"channels": 4, "row_size": 40, "kernel_height": 3, "kernel_width": 2, "group_base": 9}
    assert ColumnLoad.from_fields(load, {"channels": 3}) == ColumnLoad(
        channels=4, column_channels=3, row_size=40, kernel_height=3, kernel_width=2, group_base=9
    )


def test_given_tables_must_have_a_code_for_each_weight() -> None:
    stream = make_stream(SMALL, seed=3, groups=10, channels=2, entries=2, density=0.5)
    codes = ColumnTables(np.array([1, 1, 0, 0]), np.array([1, 1]), np.asarray(stream.codebook))
    with pytest.raises(ValueError, match="has no code"):
        encode_column(stream, SMALL, codes=codes)
