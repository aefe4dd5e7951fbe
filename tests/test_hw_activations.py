"""Row reader, RLC decoder, token maker, RLC encoder, row writer: equal to golden, and on time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from activation_runs import random_run, sparse
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.golden.codes.bits import CodeError
from thresher.golden.codes.rlc import rlc_decode_map, rlc_decode_row, rlc_encode_map, rlc_encode_row
from thresher.golden.config import Config
from thresher.golden.tokens import Item, Token, items, tokens
from thresher.hw.activations.operand_reader import OperandReader
from thresher.hw.activations.rlc_decoder import OperandDecoder, RLCDecoder
from thresher.hw.activations.rlc_encoder import RLCEncoder
from thresher.hw.activations.row_packer import RowPacker
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.activations.row_writer import RowWriter
from thresher.hw.activations.token_maker import TokenMaker
from thresher.sim.runner import run_cocotb
from thresher.sim.streams import check_stream_rules, drive_stream
from thresher.sim.timing_table import parse_timing_table

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

CONFIG = Config(lanes=2, run_bits=2, segments=4)  # runs of more than three zeros continue
WIDE = Config(lanes=8, run_bits=16, activation_bits=16)
WORDS_AHEAD = 16  # that a reader of a single segment may ask for beyond an input's end
SEEDS = range(10)
Memory = dict[int, int]


def run_testbenches(
    dut: wiring.Component, benches: Iterable[Any], *, rules: Sequence[stream.Interface] = ()
) -> None:
    """Simulate until all of ``benches`` have returned, the rules of streams being checked."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    def checker(port: stream.Interface) -> Any:
        async def check(ctx: SimulatorContext) -> None:
            await check_stream_rules(ctx, port)

        return check

    for port in rules:
        simulator.add_testbench(checker(port), background=True)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def source(port: stream.Interface, payloads: Sequence[Any], rng: Any, most: int) -> Any:
    """A testbench that sends ``payloads`` with up to ``most`` idle cycles before each."""

    async def send(ctx: SimulatorContext) -> None:
        await drive_stream(ctx, port, payloads, rng.integers(0, most + 1, len(payloads)).tolist())

    return send


def sink(port: stream.Interface, found: list[Any], rng: Any, most: int, stop: Any) -> Any:
    """A testbench that receives until ``stop()``; it fails when 20000 cycles have passed."""
    limit = 20000

    async def receive(ctx: SimulatorContext) -> None:
        for _ in range(limit):
            ctx.set(port.ready, most == 0 or bool(rng.integers(0, most + 1) == 0))
            _, _, valid, ready, payload = await ctx.tick().sample(
                port.valid, port.ready, port.payload
            )
            if valid and ready:
                found.append(payload)
            if stop():
                ctx.set(port.ready, 0)
                return
        raise TimeoutError(f"only {len(found)} payloads in {limit} cycles")

    return receive


# --- RLC decoder -------------------------------------------------------------------------------


def words_of_visit(words: Sequence[int], channels: int, first_channel: int) -> list[dict[str, int]]:
    """Items of a row reader for the words of one row."""
    fields = {"channels": channels, "first_channel": first_channel}
    if not words:
        return [{"data": 0, "empty": 1, "last": 1, **fields}]
    return [
        {"data": word, "empty": 0, "last": index == len(words) - 1, **fields}
        for index, word in enumerate(words)
    ]


def item_of(payload: Any) -> Item:
    """The item that a payload stands for; fields that mean nothing become 0."""
    hit = bool(payload.hit)
    return Item(
        payload.value if hit else 0,
        payload.channel if hit else 0,
        bool(payload.step),
        hit,
        bool(payload.last),
    )


def decode(
    config: Config,
    visits: list[list[dict[str, int]]],
    width: int,
    *,
    send_zeros: bool = False,
    rng: Any = None,
    pauses: tuple[int, int] = (0, 0),
) -> tuple[list[list[Item]], bool]:
    """Decode visits in hardware; return their items and ``error``."""
    rng = rng or np.random.default_rng(0)
    dut = RLCDecoder(config)
    found: list[Any] = []
    error = False

    async def settings_of_run(ctx: SimulatorContext) -> None:
        ctx.set(dut.width, width)
        ctx.set(dut.send_zeros, send_zeros)

    def done() -> bool:
        return sum(payload.last for payload in found) == len(visits)

    async def finish(ctx: SimulatorContext) -> None:
        nonlocal error
        await sink(dut.o, found, rng, pauses[1], done)(ctx)
        for _ in range(4):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()
        error = bool(ctx.get(dut.error))
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        assert not ctx.get(dut.error)

    flat = [word for visit in visits for word in visit]
    run_testbenches(
        dut, [settings_of_run, source(dut.i, flat, rng, pauses[0]), finish], rules=[dut.o]
    )
    split: list[list[Item]] = [[]]
    for item in map(item_of, found):
        split[-1].append(item)
        if item.last:
            split.append([])
    return split[:-1], error


def row_of(visit: Sequence[Item], shape: tuple[int, int], first_channel: int) -> Any:
    """The row that a visit's items describe."""
    row = np.zeros(shape, dtype=np.int64)
    x = 0
    for item in visit:
        x += item.step
        if item.hit:
            row[x, item.channel - first_channel] = item.value
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "config",
    [CONFIG, WIDE, replace(CONFIG, output_cycles=4, registered_links=1)],
    ids=["short runs", "long runs", "registered links"],
)
def test_decoder_equals_golden_under_any_flow_control(config: Config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 10))
    rows = [sparse(rng, (width, channels), 4) for channels in (1, 2, 3, 7, 1)]
    firsts = [0, 5, 100, 4000, 1]
    visits = [
        words_of_visit(rlc_encode_row(row.ravel(), config.rlc), row.shape[1], first)
        for row, first in zip(rows, firsts, strict=True)
    ]
    send_zeros = bool(seed % 3 == 0)
    found, error = decode(
        config, visits, width, send_zeros=send_zeros, rng=rng, pauses=(seed % 4, seed % 3)
    )
    assert not error
    for visit, row, first in zip(found, rows, firsts, strict=True):
        np.testing.assert_array_equal(row_of(visit, row.shape, first), row)
        expected = items(row, first_channel=first, send_zeros=send_zeros)
        if send_zeros or config is WIDE:  # no run is continued: the shortest form
            assert visit == expected


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    values=st.lists(st.sampled_from([0, 0, 0, -8, 1, 7]), min_size=12, max_size=12),
    channels=st.sampled_from([1, 2, 3, 4, 6, 12]),
    send_zeros=st.booleans(),
)
def test_decoder_equals_golden_for_any_row(
    values: list[int], channels: int, send_zeros: bool
) -> None:
    row = np.array(values).reshape(-1, channels)
    words = words_of_visit(rlc_encode_row(values, CONFIG.rlc), channels, 0)
    found, error = decode(CONFIG, [words], len(row), send_zeros=send_zeros)
    np.testing.assert_array_equal(row_of(found[0], row.shape, 0), row)
    assert not error


@pytest.mark.parametrize("send_zeros", [False, True])
def test_decoder_reports_corrupted_words_and_ends_each_visit(send_zeros: bool) -> None:
    rng = np.random.default_rng(5)
    faulty = 0
    for _ in range(25):
        row = sparse(rng, (4, 3))
        words = rlc_encode_row(row.ravel(), CONFIG.rlc)
        if not words:
            continue
        bit = int(rng.choice([63, 0, 1, CONFIG.rlc.pair_bits, rng.integers(64)]))
        words[rng.integers(len(words))] ^= 1 << bit
        try:
            expected = rlc_decode_row(words, 12, CONFIG.rlc)
        except CodeError:
            expected = None
        good = words_of_visit(rlc_encode_row([1] * 12, CONFIG.rlc), 3, 0)
        found, error = decode(CONFIG, [words_of_visit(words, 3, 0), good], 4, send_zeros=send_zeros)
        assert error == (expected is None)
        faulty += error
        if expected is not None:
            np.testing.assert_array_equal(row_of(found[0], (4, 3), 0).ravel(), expected)
        np.testing.assert_array_equal(row_of(found[1], (4, 3), 0), 1)
    assert faulty > 3


async def cycles_of_transfers(
    ctx: SimulatorContext, port: stream.Interface, count: int, limit: int = 400
) -> list[int]:
    """Cycles in which an always-ready sink receives ``count`` payloads."""
    ctx.set(port.ready, 1)
    cycles: list[int] = []
    for cycle in range(limit):
        if ctx.get(port.valid):
            cycles.append(cycle)
        if len(cycles) == count:
            return cycles
        await ctx.tick()
    raise TimeoutError(f"{len(cycles)} of {count} payloads in {limit} cycles")


@pytest.mark.parametrize("send_zeros", [False, True])
def test_decoder_sends_one_item_a_cycle_across_words_and_visits(send_zeros: bool) -> None:
    row = np.arange(1, 31)
    visits = [words_of_visit(rlc_encode_row(row, CONFIG.rlc), 3, 0)] * 3
    dut = RLCDecoder(CONFIG)
    flat = [word for visit in visits for word in visit]

    async def observe(ctx: SimulatorContext) -> None:
        ctx.set(dut.width, 10)
        ctx.set(dut.send_zeros, send_zeros)
        assert await cycles_of_transfers(ctx, dut.o, 90) == list(range(2, 92))

    run_testbenches(dut, [observe, source(dut.i, flat, np.random.default_rng(0), 0)])


# --- RLC encoder -------------------------------------------------------------------------------


def values_of(rows: Iterable[Any]) -> list[dict[str, int]]:
    """Payloads of the rows' values."""
    return [
        {"value": int(value), "last": index == row.size - 1}
        for row in rows
        for index, value in enumerate(row)
    ]


def expected_words(rows: Iterable[Any], config: Config) -> list[tuple[int, int, int]]:
    """Words (data, empty, last) of the rows."""
    expected = []
    for row in rows:
        words = rlc_encode_row(row, config.rlc)
        expected += [(word, 0, int(k == len(words) - 1)) for k, word in enumerate(words)]
        if not words:
            expected.append((0, 1, 1))
    return expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("config", [CONFIG, WIDE], ids=["short runs", "long runs"])
def test_encoder_equals_golden_under_any_flow_control(config: Config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [sparse(rng, (int(rng.integers(1, 60)),)) for _ in range(6)] + [np.zeros(1, int)] * 2
    rows += [np.array([3]), np.array([0] * 50 + [4]), np.array([5] + [0] * 50)]
    dut = RLCEncoder(config)
    expected = expected_words(rows, config)
    found: list[Any] = []
    run_testbenches(
        dut,
        [
            source(dut.i, values_of(rows), rng, seed % 3),
            sink(dut.o, found, rng, seed % 4, lambda: len(found) == len(expected)),
        ],
        rules=[dut.o],
    )
    assert [(word.data, word.empty, word.last) for word in found] == expected


def test_encoder_takes_one_value_a_cycle() -> None:
    rng = np.random.default_rng(1)
    rows = [np.arange(1, 20), np.zeros(1, int), np.zeros(1, int), np.array([1]), np.zeros(40, int)]
    rows += [np.array([0, 1, 0, 2, 0, 0, 0, 3]), np.arange(1, 10)]
    dut = RLCEncoder(CONFIG)
    values = values_of(rows)

    async def observe(ctx: SimulatorContext) -> None:
        ctx.set(dut.o.ready, 1)
        for _ in values:
            assert ctx.get(dut.i.ready)
            await ctx.tick()

    run_testbenches(dut, [observe, source(dut.i, values, rng, 0)])


# --- Token maker -------------------------------------------------------------------------------


def visits_of(activations: Any, run: dict[str, int], segments: Sequence[int]) -> list[Item]:
    """Items of all visits of a lane in a run."""
    found: list[Item] = []
    for activation_map in activations:
        for y in range(run["height"]):
            first = 0
            for channels in segments:
                row = activation_map[first : first + channels, y].T
                found += items(row, first_channel=first, send_zeros=bool(run["send_zeros"]))
                first += channels
    return found


def token_of(payload: Any) -> Token:
    """The token that a payload stands for."""
    return Token(
        bool(payload.marker), bool(payload.open), payload.lo, payload.hi, payload.base,
        payload.value,
    )  # fmt: skip


def starter(dut: Any, run: dict[str, int], **ports: int) -> Any:
    """A testbench that sets up a run and starts it; for parts with these ports."""

    async def begin(ctx: SimulatorContext) -> None:
        ctx.set(dut.run, run)
        for name, value in ports.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)

    return begin


@pytest.mark.parametrize("seed", range(30))
def test_token_maker_equals_golden_under_any_flow_control(seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, segments, shape = random_run(rng, send_zeros=seed % 5 == 0)
    if seed % 10 == 3:
        segments, shape = [], (shape[0], 0, *shape[2:])
    if seed % 4 == 1:
        run["map_size"] += 300  # wraps around the accumulators
    if seed % 3 == 1:
        run["round_groups"] = int(rng.integers(1, 100))
    activations = sparse(rng, shape)
    sent = [item._asdict() for item in visits_of(activations, run, segments)]
    expected = tokens(
        activations, run, segments,
        group_depth=CONFIG.group_depth, accumulator_depth=CONFIG.accumulator_depth,
    )  # fmt: skip
    dut = TokenMaker(CONFIG)
    found: list[Any] = []
    counts = {"tokens_sent": 0, "blocked": 0}
    begin = starter(dut, run, segments=len(segments))

    async def twice(ctx: SimulatorContext) -> None:
        for length in (len(expected), 2 * len(expected)):
            assert not ctx.get(dut.busy)
            await begin(ctx)
            await sink(dut.o, found, rng, seed % 4, lambda length=length: len(found) == length)(ctx)
            for _ in range(3):
                assert not ctx.get(dut.o.valid)
                await ctx.tick()

    async def count(ctx: SimulatorContext) -> None:
        while True:
            *_, sent_one, blocked, stalled = await ctx.tick().sample(
                dut.tokens_sent, dut.blocked, dut.o.valid & ~dut.o.ready
            )
            counts["tokens_sent"] += sent_one
            counts["blocked"] += blocked
            assert blocked == stalled

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(count, background=True)

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.o)

    simulator.add_testbench(rules, background=True)
    simulator.add_testbench(source(dut.i, sent * 2, rng, (seed + 1) % 3))
    simulator.add_testbench(twice)
    simulator.run()
    assert [token_of(payload) for payload in found] == expected * 2
    assert counts["tokens_sent"] == 2 * sum(not token.marker for token in expected)


def test_token_maker_sends_one_token_a_cycle_in_the_interior() -> None:
    run, _, _ = random_run(np.random.default_rng(0))
    run |= {"maps": 1, "height": 1, "width": 20, "out_height": 1, "out_width": 20}
    run |= {"stride_x": 1, "stride_y": 1, "pad_x": 0, "pad_y": 0, "extent_y": 1}
    run |= {"kernel_height": 1, "kernel_width": 1, "send_zeros": 1}
    sent = visits_of(np.ones((1, 3, 1, 20), int), run, [3])
    dut = TokenMaker(CONFIG)

    async def observe(ctx: SimulatorContext) -> None:
        await starter(dut, run, segments=1)(ctx)
        cycles = await cycles_of_transfers(ctx, dut.o, 62)
        assert np.diff(cycles[1:61]).tolist() == [1] * 59

    run_testbenches(
        dut, [observe, source(dut.i, [item._asdict() for item in sent], np.random.default_rng(), 0)]
    )


# --- Row reader and row writer -----------------------------------------------------------------


def memory_reader(dut: Any, memory: Memory, rng: Any, latency: int, asked: list[int]) -> Any:
    """A background testbench: a memory that answers in order after at least ``latency`` cycles."""

    async def serve(ctx: SimulatorContext) -> None:
        on_the_way: list[tuple[int, int]] = []
        cycle = 0
        while True:
            ctx.set(dut.request.ready, bool(latency < 2 or rng.integers(0, 3)))
            answer = bool(on_the_way) and on_the_way[0][0] <= cycle
            if latency > 2 and rng.integers(0, 2):
                answer = False
            ctx.set(dut.response.valid, answer)
            ctx.set(dut.response.payload, memory.get(on_the_way[0][1], 0) if answer else 0)
            _, _, valid, ready, address, takes = await ctx.tick().sample(
                dut.request.valid, dut.request.ready, dut.request.payload, dut.response.ready
            )
            assert takes
            if answer:
                on_the_way.pop(0)
            if valid and ready:
                on_the_way.append((cycle + latency, address))
                asked.append(address)
            cycle += 1

    return serve


def stored(
    activations: Any, segments: Sequence[int], config: Config, rng: Any
) -> tuple[Memory, list[dict[str, int]]]:
    """Coded segments in memory, and the segment records that find them."""
    memory: Memory = {}
    records = []
    first, address = 0, int(rng.integers(0, 100))
    for channels in segments:
        coded = [
            rlc_encode_map(
                activation_map[first : first + channels]
                .transpose(1, 2, 0)
                .reshape(activations.shape[2], -1),
                config.rlc,
            )
            for activation_map in activations
        ]
        pitch = max(map(len, coded)) + int(rng.integers(0, 3))
        for index, words in enumerate(coded):
            memory.update({address + index * pitch + k: word for k, word in enumerate(words)})
        records.append({"address": address, "channels": channels, "pitch": pitch})
        first += channels
        address += len(coded) * pitch
    return memory, records


def start_reader(dut: Any, run: dict[str, int], records: Sequence[dict[str, int]]) -> Any:
    """A testbench that fills the segment table and starts the run."""

    async def begin(ctx: SimulatorContext) -> None:
        for index, record in enumerate(records):
            ctx.set(dut.segment, {"valid": 1, "index": index, "data": record})
            await ctx.tick()
        ctx.set(dut.segment, {"valid": 0, "index": 0, "data": records[0] if records else {}})
        await starter(dut, run, segments=len(records))(ctx)

    return begin


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, output_cycles=4, registered_links=1)],
    ids=["default", "registered links"],
)
def test_reader_sends_the_rows_of_all_segments(config: Config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, segments, shape = random_run(rng)
    activations = sparse(rng, shape)
    memory, records = stored(activations, segments, config, rng)
    expected = []
    for activation_map in activations:
        for y in range(run["height"]):
            first = 0
            for channels in segments:
                row = activation_map[first : first + channels, y].T
                words = rlc_encode_row(row.ravel(), config.rlc)
                expected += words_of_visit(words, channels, first)
                first += channels
    dut = RowReader(config)
    found: list[Any] = []
    asked: list[int] = []

    async def twice(ctx: SimulatorContext) -> None:
        for length in (len(expected), 2 * len(expected)):
            await start_reader(dut, run, records)(ctx)
            await sink(dut.o, found, rng, seed % 3, lambda length=length: len(found) == length)(ctx)
            for _ in range(200):  # what was asked for beyond the end is dropped
                if not ctx.get(dut.busy):
                    break
                await ctx.tick()
            assert not ctx.get(dut.busy)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    word = dut.o.payload
    fields = Cat(word.empty, word.last, word.channels, word.first_channel)

    async def rules_of_words(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.o, Cat(fields, Mux(word.empty, 0, word.data)))

    async def rules_of_requests(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.request)

    simulator.add_testbench(rules_of_words, background=True)
    simulator.add_testbench(rules_of_requests, background=True)
    simulator.add_testbench(
        memory_reader(dut, memory, rng, int(rng.integers(1, 7)), asked), background=True
    )
    simulator.add_testbench(twice)
    simulator.run()
    names = ("data", "empty", "last", "channels", "first_channel")
    shown = [{name: getattr(word, name) for name in names} for word in found]
    assert [item | {"data": 0} if item["empty"] else item for item in shown] == expected * 2
    if len(segments) > 1:
        assert sorted(asked) == sorted(list(memory) * 2)  # each word once a run, and no other
    else:  # and a few beyond the end of each input
        beyond = Counter(asked) - Counter(list(memory) * 2)
        assert not Counter(list(memory) * 2) - Counter(asked)
        assert beyond.total() <= 2 * run["maps"] * WORDS_AHEAD


def test_lanes_without_work_are_done_at_once() -> None:
    run, _, _ = random_run(np.random.default_rng(0))
    reader, writer = RowReader(CONFIG), RowWriter(CONFIG)

    async def observe_reader(ctx: SimulatorContext) -> None:
        await start_reader(reader, run, [])(ctx)
        for _ in range(5):
            assert not ctx.get(reader.busy | reader.request.valid | reader.o.valid)
            await ctx.tick()

    async def observe_writer(ctx: SimulatorContext) -> None:
        await starter(writer, run, channels=0)(ctx)
        for _ in range(5):
            assert not ctx.get(writer.busy | writer.request.valid)
            await ctx.tick()

    run_testbenches(reader, [observe_reader])
    run_testbenches(writer, [observe_writer])


@pytest.mark.parametrize("words", [1, 5, 40])
def test_reader_asks_for_a_word_a_cycle_within_a_row(words: int) -> None:
    rng = np.random.default_rng(0)
    run, _, _ = random_run(rng)
    activations = np.ones((1, words * CONFIG.rlc.pairs, 3, 1), dtype=int)
    run |= {"maps": 1, "height": 3}
    memory, records = stored(activations, [activations.shape[1]], CONFIG, rng)
    dut = RowReader(CONFIG)
    cycles: list[int] = []

    async def observe(ctx: SimulatorContext) -> None:
        await start_reader(dut, run, records)(ctx)
        cycles.extend(await cycles_of_transfers(ctx, dut.o, 3 * words))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory_reader(dut, memory, rng, 1, []), background=True)
    simulator.add_testbench(observe)
    simulator.run()
    within = np.diff(np.reshape(cycles, (3, words)), axis=1)
    assert (within == 1).all()
    between = [cycles[k * words] - cycles[k * words - 1] for k in (1, 2)]
    assert between == [2, 2]  # the header between


class Column(wiring.Component):
    """Encoder and writer of a column."""

    def __init__(self, config: Config) -> None:
        self.encoder, self.writer = RLCEncoder(config), RowWriter(config)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.encoder = self.encoder
        m.submodules.writer = self.writer
        wiring.connect(m, self.encoder.o, self.writer.i)
        return m


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("serial", [False, True], ids=["encoder and writer", "packer"])
@pytest.mark.parametrize(
    "config",
    [CONFIG, WIDE, replace(CONFIG, output_cycles=4, registered_links=1)],
    ids=["short runs", "long runs", "linked"],
)
def test_encoder_and_writer_write_what_golden_decodes(
    config: Config, serial: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    run, _, _ = random_run(rng)
    maps, height, count = run["maps"], int(rng.integers(1, 6)), int(rng.integers(1, 40))
    rows = sparse(rng, (maps, height, count))
    run |= {"pooled_height": height, "out_pitch": 100 + seed}
    base = int(rng.integers(0, 1000))

    dut = RowPacker(config) if serial else Column(config)
    writer, values = (dut, dut.i) if isinstance(dut, RowPacker) else (dut.writer, dut.encoder.i)
    written: list[Any] = []
    pulses = 0

    async def begin(ctx: SimulatorContext) -> None:
        nonlocal pulses
        ctx.set(writer.request.ready, 0)
        await starter(writer, run, channels=1, out_address=base)(ctx)
        while ctx.get(writer.busy):
            *_, pulse = await ctx.tick().sample(writer.words_written)
            pulses += pulse

    total = sum(len(rlc_encode_map(map_rows, config.rlc)) for map_rows in rows)
    run_testbenches(
        dut,
        [
            begin,
            source(values, values_of(rows.reshape(-1, count)), rng, seed % 3),
            sink(writer.request, written, rng, seed % 4, lambda: len(written) == total),
        ],
        rules=[writer.request],
    )
    memory = {write.address: write.data for write in written}
    assert len(memory) == len(written) == pulses == total
    for index, map_rows in enumerate(rows):
        at = base + index * run["out_pitch"]
        np.testing.assert_array_equal(
            rlc_decode_map(memory, at, height, count, config.rlc), map_rows
        )


class Lane(wiring.Component):
    """Reader, decoder and token maker of a lane."""

    def __init__(self, config: Config) -> None:
        self.reader, self.decoder = RowReader(config), RLCDecoder(config)
        self.maker = TokenMaker(config)
        super().__init__({"go": In(1), "busy": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = self.reader
        m.submodules.decoder = self.decoder
        m.submodules.maker = self.maker
        wiring.connect(m, self.reader.o, self.decoder.i)
        wiring.connect(m, self.decoder.o, self.maker.i)
        return m


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "config",
    [CONFIG, Config(), replace(CONFIG, output_cycles=4, registered_links=1)],
    ids=["short runs", "default", "registered links"],
)
def test_a_lane_sends_the_tokens_of_its_input(config: Config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, segments, shape = random_run(rng, send_zeros=seed % 4 == 0)
    activations = sparse(rng, shape)
    memory, records = stored(activations, segments, config, rng)
    expected = tokens(
        activations, run, segments,
        group_depth=config.group_depth, accumulator_depth=config.accumulator_depth,
    )  # fmt: skip
    dut = Lane(config)
    found: list[Any] = []

    async def begin(ctx: SimulatorContext) -> None:
        ctx.set(dut.decoder.width, run["width"])
        ctx.set(dut.decoder.send_zeros, run["send_zeros"])
        await starter(dut.maker, run, segments=len(segments))(ctx)
        await start_reader(dut.reader, run, records)(ctx)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory_reader(dut.reader, memory, rng, 3, []), background=True)
    simulator.add_testbench(begin)
    simulator.add_testbench(
        sink(dut.maker.o, found, rng, seed % 3, lambda: len(found) == len(expected))
    )
    simulator.run()
    assert [token_of(payload) for payload in found] == expected


class Operand(wiring.Component):
    """Reader and decoder of a column's operand."""

    def __init__(self, config: Config) -> None:
        self.reader, self.decoder = OperandReader(config), OperandDecoder(config)
        super().__init__({"go": In(1), "busy": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = self.reader
        m.submodules.decoder = self.decoder
        wiring.connect(m, self.reader.o, self.decoder.i)
        return m


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "config",
    [CONFIG, Config(), Config(output_cycles=4)],
    ids=["short runs", "default", "a word at a time"],
)
def test_an_operand_is_read_value_by_value(config: Config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, channels, height, width = (int(rng.integers(1, most)) for most in (4, 6, 7, 9))
    rows = height
    if broadcast := seed % 4 == 3:  # one row of one position a map
        height = width = 1
    values = sparse(rng, (maps, channels, height, width))
    memory, records = stored(values, [channels], config, rng)
    # Words behind a map's end may be asked for, and are dropped.
    readable = {address: memory.get(address, 0) for address in range(max(memory) + 100)}
    expected = values.transpose(0, 2, 3, 1).ravel().tolist()
    run = {"add": 1, "maps": maps, "pooled_height": rows, "pooled_width": width, "height": 1}
    run["broadcast"] = broadcast
    dut = Operand(config)
    found: list[Any] = []
    read = 0

    async def count(ctx: SimulatorContext) -> None:
        nonlocal read
        while True:
            _, _, word_read, error = await ctx.tick().sample(
                dut.reader.words_read, dut.decoder.error
            )
            read += word_read
            assert not error

    async def thrice(ctx: SimulatorContext) -> None:
        ctx.set(dut.decoder.width, width)
        ctx.set(dut.reader.operand, records[0])
        total = 0
        for add, there in ((1, channels), (0, channels), (1, 0), (1, channels)):
            await starter(dut.reader, run | {"add": add}, channels=there)(ctx)
            assert ctx.get(dut.reader.busy) == bool(add and there)
            total += len(expected) if add and there else 0
            await sink(
                dut.decoder.o, found, rng, seed % 3, lambda total=total: len(found) == total
            )(ctx)
            for _ in range(200):
                if not ctx.get(dut.reader.busy):
                    break
                await ctx.tick()
            assert not ctx.get(dut.reader.busy)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory_reader(dut.reader, readable, rng, 3, []), background=True)
    simulator.add_testbench(count, background=True)
    for port in (dut.decoder.o, dut.reader.request):

        async def rules(ctx: SimulatorContext, port: stream.Interface = port) -> None:
            await check_stream_rules(ctx, port)

        simulator.add_testbench(rules, background=True)
    simulator.add_testbench(thrice)
    simulator.run()
    assert all(item.hit for item in found)
    assert [item.value for item in found] == expected * 2
    assert read == 2 * len(memory)


# --- Timing tables, cocotb ---------------------------------------------------------------------


def replay(dut: Any, payloads: Sequence[Any], set_up: dict[str, int]) -> None:
    """Replay the timing table of a part with ports ``i`` and ``o``."""
    table = parse_timing_table(type(dut))
    waiting = iter(payloads)

    def signal_of(name: str) -> Signal:
        port, field = name.split(".")
        interface = getattr(dut, port)
        if field in {"valid", "ready"}:
            return getattr(interface, field)
        return getattr(interface.payload, field)

    async def bench(ctx: SimulatorContext) -> None:
        for name, value in set_up.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.i.payload, next(waiting))
        for cycle in range(len(table["i.valid"])):
            for name in ("i.valid", "o.ready"):
                ctx.set(signal_of(name), table[name][cycle])
            for name, levels in table.items():
                if levels[cycle] is not None:
                    assert ctx.get(signal_of(name)) == levels[cycle], f"{name} in cycle {cycle}"
            accepted = ctx.get(dut.i.valid & dut.i.ready)
            await ctx.tick()
            if accepted:
                ctx.set(dut.i.payload, next(waiting, payloads[0]))

    run_testbenches(dut, [bench])


def test_docstring_timing_table_of_the_decoder() -> None:
    config = Config()
    first = (1 << 63) | 7 << 5 | (2 | 5 << 5) << 14
    words = words_of_visit([first], 2, 0) + words_of_visit([], 2, 0)
    replay(RLCDecoder(config), words, {"width": 4})


def test_docstring_timing_table_of_the_encoder() -> None:
    replay(RLCEncoder(Config()), values_of([np.array([0, 5]), np.zeros(1, int)]), {})


@pytest.mark.cocotb
@pytest.mark.parametrize("part", [RLCDecoder, RLCEncoder])
def test_verilog_equals_golden(part: type[RLCDecoder | RLCEncoder], tmp_path: Path) -> None:
    sizes = {"lanes": 2, "run_bits": 3}
    count = run_cocotb(
        part(Config(**sizes)),
        test_module="cocotb_rlc_decoder" if part is RLCDecoder else "cocotb_rlc_encoder",
        build_dir=tmp_path,
        env={"SIZES": json.dumps(sizes)},
    )
    assert count == 4
