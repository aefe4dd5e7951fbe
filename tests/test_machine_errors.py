"""Damaged streams, rows and programs: the machine stops with a named error, or it finishes.

It never hangs, and never writes anywhere but where its results and counters belong.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from program_records import program_records

from thresher.golden.compiler import FitError, Program, compile_network
from thresher.golden.config import Config, Skip
from thresher.golden.descriptors import LOAD, RUN, ErrorCode, Rounding, counter_words
from thresher.golden.network import Add, CompressedNetwork, Convolution
from thresher.golden.random_network import random_inputs, random_network
from thresher.sim.compare import compare_values, expected_outputs
from thresher.sim.job import Image
from thresher.sim.machine import MachineError, run_machine

# The machine of one lane of test_machine.py, so that the build is shared.
CONFIG = Config(
    lanes=1,
    tap_depth=512,
    group_depth=512,
    accumulator_depth=128,
    pool_depth=128,
    channel_depth=16,
    fifo_depth=2,
)
LIMIT = 4_000_000
WEIGHT_ERRORS = {ErrorCode.CODE_UNUSED, ErrorCode.STREAM_SHORT, ErrorCode.RUN_PAST_END}


@lru_cache
def program_of(skip: Skip = Skip.BOTH) -> Program:
    """Return a convolution, pooling and a linear layer on two dense inputs."""
    rng = np.random.default_rng(96)
    network = random_network(rng, layers=3, channels=3, size=5)
    inputs = rng.integers(1, 16, (2, *network.input_shape)) * np.sign(sum(network.input_range))
    low, high = network.input_range
    return compile_network(network, CONFIG, np.clip(inputs, low, high), skip, keep_layers=True)


def run(program: Program, image: Image) -> MachineError | None:
    """Run an image; whatever happens, only results and counters may have changed."""
    result = run_machine(CONFIG, image, program.program, timeout_cycles=LIMIT)
    writable = np.zeros(len(image), bool)
    for address in program.counter_addresses:
        writable[address : address + counter_words(CONFIG.port_bits)] = True
    for name, stored in program.maps.items():
        if name != "input":
            for addresses, pitch in zip(stored.addresses, stored.pitches, strict=True):
                writable[addresses[0] : addresses[0] + pitch * program.inputs] = True
    changed = (result.memory != image).any(axis=1)
    assert not np.any(changed & ~writable)
    return result.error


def streams(program: Program) -> list[tuple[int, int, int, int]]:
    """Return (load, address of its lane record, stream address, words) of every weight stream."""
    return [
        (head["layer"], program.program + first + len(LOAD.words) + lane, one["address"], size)
        for first, head, lanes in program_records(program)
        for lane, one in enumerate(lanes)
        if (size := one.get("words"))
    ]


def get(image: Image, address: int) -> int:
    return int.from_bytes(image[address].tobytes(), "big")


def put(image: Image, address: int, word: int) -> None:
    image[address] = np.frombuffer(word.to_bytes(image.shape[1], "big"), np.uint8)


@pytest.mark.cocotb
def test_an_undamaged_program_runs() -> None:
    program = program_of()
    assert run(program, program.image) is None
    assert len(streams(program)) >= 2


@pytest.mark.cocotb
@pytest.mark.parametrize("seed", range(16))
def test_flipped_bits_of_weight_streams_stop_the_machine_or_change_values(seed: int) -> None:
    program, image = program_of(), program_of().image.copy()
    rng = np.random.default_rng(seed)
    every = streams(program)
    load, _, address, words = every[rng.integers(len(every))]
    bits = image[address : address + words].view()
    for _ in range(int(rng.choice([1, 1, 3, 40]))):
        bits[rng.integers(words), rng.integers(bits.shape[1])] ^= 1 << rng.integers(8)
    error = run(program, image)
    if error is not None:
        assert error.code in WEIGHT_ERRORS
        assert error.layer == load
        assert error.lane == 0
        assert error.position <= words * CONFIG.port_bits


@pytest.mark.cocotb
@pytest.mark.parametrize("load", [0, 1])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8])
def test_zeroed_tails_of_weight_streams_stop_the_machine_or_change_values(
    load: int, kept: float
) -> None:
    program, image = program_of(), program_of().image.copy()
    _, _, address, words = streams(program)[load]
    image[address + int(kept * words) : address + words] = 0
    error = run(program, image)
    assert error is None or (error.code in WEIGHT_ERRORS and error.layer == load)


@pytest.mark.cocotb
@pytest.mark.parametrize("load", [0, 1])
@pytest.mark.parametrize("short", [1, 0.5, 0.9])
def test_a_weight_stream_without_its_end_is_named(load: int, short: float) -> None:
    program, image = program_of(), program_of().image.copy()
    number, record, _, words = streams(program)[load]
    left = words - 1 if short == 1 else max(1, int(short * words))
    assert left < words
    put(image, record, get(image, record) & (1 << 44) - 1 | left << 44)
    error = run(program, image)
    assert error is not None
    assert (error.code, error.layer, error.lane) == (ErrorCode.STREAM_SHORT, number, 0)
    assert error.position <= left * CONFIG.port_bits


@pytest.mark.cocotb
@pytest.mark.parametrize("skip", [Skip.BOTH, Skip.NONE])
@pytest.mark.parametrize("damage", ["longest header", "header one up", "past the end", "last bit"])
def test_a_damaged_activation_row_is_named(damage: str, skip: Skip) -> None:
    program, image = program_of(skip), program_of(skip).image.copy()
    header = program.maps["input"].addresses[0][0]
    words = get(image, header)
    assert words > 0
    last = header + words
    match damage:
        case "longest header":
            put(image, header, (1 << 20) - 1)
        case "header one up":
            put(image, header, words + 1)
        case "past the end":  # every pair is a value after the longest run
            pair = 1 << CONFIG.run_bits | (1 << CONFIG.run_bits) - 1
            pairs = range(0, CONFIG.rlc.pairs * CONFIG.rlc.pair_bits, CONFIG.rlc.pair_bits)
            top = 1 << CONFIG.port_bits - 1
            put(image, last, top | sum(pair << at for at in pairs))
        case _:
            put(image, last, get(image, last) ^ 1 << CONFIG.port_bits - 1)
    error = run(program, image)
    assert error is not None
    assert (error.code, error.layer, error.lane) == (ErrorCode.ROW_LENGTH, 0, 0)


@lru_cache
def adding_program() -> tuple[Program, Image, int, int]:
    """Return a program whose addition reads its operand from rows behind what the machine writes.

    And its image; the address of the first of these rows; and the number of the run that adds.
    """
    rng = np.random.default_rng(7)

    def convolution(name: str) -> Convolution:
        return Convolution(
            name=name,
            weights=rng.integers(3, size=(4, 3, 1, 1), dtype=np.uint8),
            codebook=np.array([0, -3, 2]),
            bias=rng.integers(50, 90, 4),
            scale=np.ones(4, np.int64),
            shift=np.full(4, 2),
            clip=(0, 200),
        )

    added = Add(
        name="sum",
        inputs=("one", "other"),
        operand_scale=1 << 29,
        operand_shift=30,
        scale=1 << 11,
        shift=30,
        rounding=Rounding.HALF_UP,
        clip=(-200, 200),
    )
    network = CompressedNetwork(
        name="residual",
        input_shape=(3, 4, 5),
        input_range=(1, 15),
        layers=(convolution("one"), convolution("other"), added),
    )
    program = compile_network(network, CONFIG, random_inputs(rng, network, 1))
    written = run_machine(CONFIG, program.image, program.program, timeout_cycles=LIMIT).memory
    (first, head, lanes) = next(
        item for item in program_records(program) if item[1].get("add") and "maps" in item[1]
    )
    record = program.program + first + len(RUN.words) + 1 + lanes[0]["segments"]
    operand = get(program.image, record)
    address, end = operand & (1 << 28) - 1, len(program.image)
    size = operand >> 44  # of one input's rows
    image = np.concatenate([program.image, written[address : address + size]])
    put(image, record, operand - address + end)
    return program, image, end, head["layer"]


@pytest.mark.cocotb
@pytest.mark.parametrize("damage", ["none", "longest header", "header one up", "one down", "last"])
def test_a_damaged_row_of_an_operand_is_named(damage: str) -> None:
    program, image, header, layer = adding_program()
    image = image.copy()
    words = get(image, header)
    assert words > 1
    last = header + words
    match damage:
        case "longest header":
            put(image, header, (1 << 20) - 1)
        case "header one up":
            put(image, header, words + 1)
        case "one down":
            put(image, header, words - 1)
        case "last":
            put(image, last, get(image, last) ^ 1 << CONFIG.port_bits - 1)
    result = run_machine(CONFIG, image, program.program, timeout_cycles=LIMIT)
    if damage == "none":
        assert result.error is None
        found = program.decode_outputs(result.memory)
        assert compare_values(expected_outputs(program), found).first is None
        return
    assert result.error is not None
    assert (result.error.code, result.error.layer, result.error.lane) == (
        ErrorCode.ROW_LENGTH,
        layer,
        0,
    )


@pytest.mark.cocotb
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_of_an_operand_stop_the_machine_or_change_values(seed: int) -> None:
    program, image, first, layer = adding_program()
    image = image.copy()
    rng = np.random.default_rng(200 + seed)
    for _ in range(int(rng.choice([1, 4]))):
        image[rng.integers(first, len(image)), rng.integers(image.shape[1])] ^= 1 << rng.integers(8)
    error = run(program, image)
    assert error is None or (error.code, error.layer) == (ErrorCode.ROW_LENGTH, layer)


@pytest.mark.cocotb
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_of_activations_stop_the_machine_or_change_values(seed: int) -> None:
    program, image = program_of(), program_of().image.copy()
    stored = program.maps["input"]
    rng = np.random.default_rng(100 + seed)
    first = stored.addresses[0][0]
    for _ in range(int(rng.choice([1, 4]))):
        word = first + rng.integers(stored.pitches[0] * program.inputs)
        image[word, rng.integers(image.shape[1])] ^= 1 << rng.integers(8)
    error = run(program, image)
    assert error is None or error.code == ErrorCode.ROW_LENGTH


@pytest.mark.cocotb
@pytest.mark.parametrize("record", [0, 1, 2])
def test_a_record_of_unknown_kind_is_named(record: int) -> None:
    program, image = program_of(), program_of().image.copy()
    first = program.program + list(program_records(program))[record][0]
    put(image, first, get(image, first) | 3)
    error = run(program, image)
    assert error is not None
    assert error.code == ErrorCode.DESCRIPTOR


@pytest.mark.parametrize(
    ("store", "parameter"),
    [
        ("accumulator", "accumulator_depth"),
        ("start-pointer", "group_depth"),
        ("tap", "tap_depth"),
        ("pooling", "pool_depth"),
    ],
)
def test_a_network_that_does_not_fit_names_the_store(store: str, parameter: str) -> None:
    config = replace(Config(lanes=1), **{parameter: 16})
    pattern = re.compile(
        rf"layer \w+ does not fit: the {store} store needs \d+ words and {parameter} is 16; "
        rf"raise {parameter} or use more lanes"
    )
    for seed in range(200):
        rng = np.random.default_rng(seed)
        kinds = ("convolution", "max") if store == "pooling" else ("convolution", "linear")
        network = random_network(rng, size=24, kinds=kinds)
        try:
            compile_network(network, config, random_inputs(rng, network, 1))
        except FitError as error:
            assert pattern.fullmatch(str(error))  # noqa: PT017  # the other seeds fit
            return
    pytest.fail(f"200 networks fit a machine whose {parameter} is 16")


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 3, 5, 4), (1, 2, 4, 5), (2, 60)])
def test_inputs_of_another_shape_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    network = program_of().network
    assert network.input_shape == (3, 4, 5)
    with pytest.raises(ValueError, match=r"shape") as caught:
        compile_network(network, CONFIG, np.zeros(shape, np.int64))
    assert "\n" not in str(caught.value)
