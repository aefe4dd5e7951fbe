"""Memory clients: each response to its reader, in order and in turn; read-ahead without loss."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from amaranth.lib import stream
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.golden.config import Config
from thresher.hw.memory.arbiter import OUTSTANDING, Arbiter
from thresher.hw.memory.stream_fetcher import StreamFetcher
from thresher.sim.streams import check_stream_rules, collect_stream, drive_stream

if TYPE_CHECKING:
    from amaranth.sim._async import SimulatorContext

CONFIG = Config(lanes=1, address_bits=12)
CONFIGS = [CONFIG, replace(CONFIG, output_cycles=4, registered_links=1)]


class Memory:
    """A memory behind a port; the word at an address is ``word(address)`` until written."""

    def __init__(self, dut: Arbiter | StreamFetcher, seed: int, latency: int, stall: float) -> None:
        self.dut = dut
        self.rng = np.random.default_rng(seed)
        self.latency = latency
        self.stall = stall
        self.cycle = 0
        self.written: dict[int, int] = {}
        self.accepted: list[tuple[int, int]] = []  # (cycle, address)
        self.outstanding = 0
        self.most_outstanding = 0

    @staticmethod
    def word(address: int) -> int:
        return address * 0x1_0000_0001 + 7

    async def serve(self, ctx: SimulatorContext) -> None:
        request, response = self.dut.request, self.dut.response
        due: deque[tuple[int, int]] = deque()
        ready = True
        ctx.set(request.ready, 1)
        while True:
            _, _, valid, payload = await ctx.tick().sample(request.valid, request.payload)
            self.cycle += 1
            if valid and ready:
                address = payload if isinstance(payload, int) else payload.address
                self.accepted.append((self.cycle, address))
                if not isinstance(payload, int) and payload.write:
                    self.written[address] = payload.data
                else:
                    data = self.written.get(address, self.word(address))
                    due.append((self.cycle + self.latency - 1, data))
            self.outstanding = len(due)
            self.most_outstanding = max(self.most_outstanding, self.outstanding)
            answers = bool(due) and due[0][0] <= self.cycle and self.rng.random() >= self.stall
            ctx.set(response.valid, answers)
            if answers:
                ctx.set(response.payload, due.popleft()[1])
            ready = bool(self.rng.random() >= self.stall)
            ctx.set(request.ready, ready)


async def answers(ctx: SimulatorContext, port: stream.Interface, received: list[int]) -> None:
    """Append all that comes from a response port, which is never asked to wait."""
    while True:
        _, _, valid, word = await ctx.tick().sample(port.valid, port.payload)
        if valid:
            received.append(word)


@settings(max_examples=25, deadline=None)
@given(
    readers=st.integers(1, 4),
    writers=st.integers(1, 3),
    latency=st.integers(1, 9),
    stall=st.sampled_from([0.0, 0.3]),
    busy=st.booleans(),
    config=st.sampled_from(CONFIGS),
    seed=st.integers(0, 1 << 32),
)
def test_every_response_reaches_its_reader_in_order(
    *, readers: int, writers: int, latency: int, stall: float, busy: bool, config: Config, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    dut = Arbiter(config, readers, writers)
    memory = Memory(dut, seed, latency, stall)
    reads = [rng.integers(0, 1024, 30).tolist() for _ in range(readers)]
    writes = [[1024 + 64 * k + n for n in range(30)] for k in range(writers)]
    received: list[list[int]] = [[] for _ in range(readers)]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    finished: list[int] = []

    def add_client(port: stream.Interface, payloads: list[Any]) -> None:
        gaps = [] if busy else rng.integers(0, 6, 30).tolist()

        async def client(ctx: SimulatorContext) -> None:
            await drive_stream(ctx, port, payloads, gaps)
            finished.append(1)

        simulator.add_testbench(client)

    def add_receiver(port: stream.Interface, words: list[int]) -> None:
        async def receiver(ctx: SimulatorContext) -> None:
            await answers(ctx, port, words)

        simulator.add_testbench(receiver, background=True)

    for client, addresses, words in zip(dut.read, reads, received, strict=True):
        add_client(client.request, addresses)
        add_receiver(client.response, words)
    for client, addresses in zip(dut.write, writes, strict=True):
        payloads = [{"address": address, "data": address ^ 0xFFF} for address in addresses]
        add_client(client.request, payloads)

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.request)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.enable, 1)
        for _ in range(3000):
            await ctx.tick()
            done = len(finished) == readers + writers and sum(map(len, received)) == 30 * readers
            assert not ctx.get(dut.idle) or memory.outstanding == 0
            if done and ctx.get(dut.idle):
                break
        else:
            raise TimeoutError("requests left after 3000 cycles")

    simulator.add_testbench(memory.serve, background=True)
    simulator.add_testbench(rules, background=True)
    simulator.add_testbench(testbench)
    simulator.run()
    assert received == [[memory.word(address) for address in addresses] for addresses in reads]
    assert memory.written == {address: address ^ 0xFFF for k in writes for address in k}


@pytest.mark.parametrize("config", CONFIGS)
def test_all_clients_get_their_turn_at_a_request_per_cycle(config: Config) -> None:
    readers, writers, rounds = 3, 2, 20
    dut = Arbiter(config, readers, writers)
    memory = Memory(dut, 0, 4, 0.0)

    async def testbench(ctx: SimulatorContext) -> None:
        # Each client asks all the time; the address tells who it is.
        for index, client in enumerate(dut.read):
            ctx.set(client.request.payload, index)
            ctx.set(client.request.valid, 1)
        for index, client in enumerate(dut.write, readers):
            ctx.set(client.request.payload, {"address": index, "data": 0})
            ctx.set(client.request.valid, 1)
        ctx.set(dut.enable, 1)
        await ctx.tick().repeat(rounds * (readers + writers) + 1 + config.registered_links)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.serve, background=True)
    simulator.add_testbench(testbench)
    simulator.run()
    cycles, clients = zip(*memory.accepted, strict=True)
    assert list(clients) == list(range(readers + writers)) * rounds
    assert list(cycles) == list(range(cycles[0], cycles[0] + len(cycles)))


@pytest.mark.parametrize("config", CONFIGS)
def test_writers_pass_readers_that_wait_for_a_tag(config: Config) -> None:
    dut = Arbiter(config, 1, 1)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.enable, 1)
        ctx.set(dut.request.ready, 1)
        ctx.set(dut.read[0].request.valid, 1)
        reads = 0
        for _ in range(2 * OUTSTANDING + 10):
            _, _, ready = await ctx.tick().sample(dut.read[0].request.ready)
            reads += ready
        assert reads == OUTSTANDING - config.registered_links
        await drive_stream(ctx, dut.write[0].request, [{"address": 1, "data": 2}] * 3)
        # A response makes room for one more.
        ctx.set(dut.response.valid, 1)
        await ctx.tick()
        ctx.set(dut.response.valid, 0)
        await ctx.tick().until(dut.read[0].request.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def test_without_enable_only_the_request_at_the_port_is_finished() -> None:
    dut = Arbiter(CONFIG, 1, 1)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.enable, 1)
        await drive_stream(ctx, dut.read[0].request, [5])
        ctx.set(dut.enable, 0)
        ctx.set(dut.read[0].request.valid, 1)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.request.valid)
        assert ctx.get(dut.request.payload.address) == 5
        ctx.set(dut.request.ready, 1)
        await ctx.tick()
        assert not ctx.get(dut.request.valid)
        assert not ctx.get(dut.read[0].request.ready)
        assert not ctx.get(dut.idle)
        ctx.set(dut.response.valid, 1)
        assert ctx.get(dut.read[0].response.valid)
        await ctx.tick()
        ctx.set(dut.response.valid, 0)
        assert ctx.get(dut.idle)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def fetch(
    dut: StreamFetcher,
    memory: Memory,
    streams: list[tuple[int, int, int]],
    *,
    stalls: list[int] | None = None,
    pause: bool = False,
) -> tuple[list[list[int]], list[int]]:
    """Words taken of each stream ``(address, limit, count)``, and the cycles of all of them."""
    taken: list[list[int]] = []
    cycles: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.active, 1)
        for address, limit, count in streams:
            ctx.set(dut.address, address)
            ctx.set(dut.limit, limit)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert not ctx.get(dut.exhausted)
            taken.append(await collect_stream(ctx, dut.o, count, stalls or []))
            assert ctx.get(dut.exhausted) == (limit == count != 0)
        ctx.set(dut.active, 0)
        await ctx.tick().repeat(60)
        assert ctx.get(dut.idle)

    async def toggle(ctx: SimulatorContext) -> None:
        while True:
            await ctx.tick()
            if pause:
                ctx.set(dut.active, memory.rng.random() < 0.5)

    async def observe(ctx: SimulatorContext) -> None:
        cycle = 0
        ports = (dut.words_read, dut.o.valid, dut.o.ready)
        while True:
            _, _, read, valid, ready = await ctx.tick().sample(*ports)
            assert read == (valid and ready)
            if read:
                cycles.append(cycle)
            cycle += 1

    async def rules(ctx: SimulatorContext) -> None:
        await check_stream_rules(ctx, dut.request)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.serve, background=True)
    simulator.add_testbench(testbench)
    for background in (toggle, observe, rules):
        simulator.add_testbench(background, background=True)
    simulator.run()
    return taken, cycles


@settings(max_examples=30, deadline=None)
@given(
    streams=st.lists(
        st.tuples(st.integers(0, 2000), st.sampled_from([0, 12]), st.integers(0, 12)),
        min_size=1,
        max_size=6,
    ),
    latency=st.integers(1, 20),
    stall=st.sampled_from([0.0, 0.4]),
    stalls=st.lists(st.integers(0, 4), max_size=12),
    pause=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_words_of_the_newest_stream_only(
    *,
    streams: list[tuple[int, int, int]],
    latency: int,
    stall: float,
    stalls: list[int],
    pause: bool,
    seed: int,
) -> None:
    dut = StreamFetcher(CONFIG)
    memory = Memory(dut, seed, latency, stall)
    taken, _ = fetch(dut, memory, streams, stalls=stalls, pause=pause)
    assert taken == [
        [memory.word(address + n) for n in range(count)] for address, _, count in streams
    ]


@pytest.mark.parametrize("latency", [1, 2, 4, 8, 12])
def test_the_rate_is_that_of_the_docstring(latency: int) -> None:
    dut = StreamFetcher(CONFIG)
    memory = Memory(dut, 0, latency, 0.0)
    taken, cycles = fetch(dut, memory, [(100, 80, 80)])
    assert taken == [[memory.word(100 + n) for n in range(80)]]
    assert [address for _, address in memory.accepted] == list(range(100, 180))
    assert memory.most_outstanding <= 8
    # Eight words each `latency + 4` cycles, at most one a cycle.
    assert cycles[-8] - cycles[8] == max(64, 64 * (latency + 4) // 8)


def test_a_pause_keeps_what_was_asked_for() -> None:
    dut = StreamFetcher(CONFIG)
    memory = Memory(dut, 0, 3, 0.0)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.address, 9)
        ctx.set(dut.active, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().repeat(4)
        ctx.set(dut.active, 0)
        await ctx.tick().repeat(10)
        asked = len(memory.accepted)
        assert 0 < asked < 8
        assert ctx.get(dut.idle)
        words = await collect_stream(ctx, dut.o, asked)
        assert words == [memory.word(9 + n) for n in range(asked)]
        ctx.set(dut.active, 1)
        assert await collect_stream(ctx, dut.o, 1) == [memory.word(9 + asked)]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.serve, background=True)
    simulator.add_testbench(testbench)
    simulator.run()


def test_restarts_faster_than_the_memory_lose_no_count() -> None:
    dut = StreamFetcher(CONFIG)
    memory = Memory(dut, 0, 100, 0.0)

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.active, 1)
        for restart in range(8):
            ctx.set(dut.address, 100 * restart)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(12)
        words = await collect_stream(ctx, dut.o, 20, max_idle=300)
        assert words == [memory.word(700 + n) for n in range(20)]
        assert memory.most_outstanding < 16

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.serve, background=True)
    simulator.add_testbench(testbench)
    simulator.run()
