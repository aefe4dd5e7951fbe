"""The compiler: weights survive the way into the image, predictions agree with inference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from program_records import program_records

from thresher.golden.codes.weights import ColumnLoad, ColumnTables, decode_column
from thresher.golden.compiler import FitError, Program, compile_network
from thresher.golden.compiler.plan import Planner
from thresher.golden.config import Config, Skip
from thresher.golden.densities import with_densities
from thresher.golden.descriptors import Kind, Pool
from thresher.golden.network import (
    Add,
    ChannelShuffle,
    CompressedNetwork,
    Concat,
    Convolution,
    Layer,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
)
from thresher.golden.random_network import random_graph, random_inputs, random_network
from thresher.sim.workloads import LayerShape, layer_workload

SEEDS = range(12)


def _network(seed: int) -> tuple[CompressedNetwork, np.ndarray]:
    """Return a random chain or graph, with inputs."""
    rng = np.random.default_rng(seed)
    network = random_graph(rng) if seed % 2 else random_network(rng)
    return network, random_inputs(rng, network, 2)


def _convolution(
    name: str, source: str, shape: tuple[int, ...], *, seed: int = 0, **fields: Any
) -> Convolution:
    """Return a dense convolution with weights of that shape."""
    rng = np.random.default_rng(seed)
    ones = np.ones(shape[0], np.int64)
    return Convolution(
        name=name,
        inputs=(source,),
        weights=rng.integers(4, size=shape, dtype=np.uint8),
        codebook=np.array([-3, -1, 1, 2]),
        bias=0 * ones,
        scale=ones,
        shift=4 * ones,
        **fields,
    )


def linear_network(rng: np.random.Generator, sizes: Sequence[int]) -> CompressedNetwork:
    """Return linear layers from size to size, whose rows of outputs end in values and in zeros."""
    layers = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers.append(
            Linear(
                name=f"ip{number}",
                inputs=(f"ip{number - 1}" if number else "input",),
                weights=rng.integers(4, size=(outputs, inputs), dtype=np.uint8),
                codebook=np.array([-2, 0, 1, 3]),
                bias=rng.integers(-40, 40, outputs),
                scale=rng.integers(1, 1 << 10, outputs),
                shift=np.full(outputs, 14),
                clip=(-128, 127) if number == 1 else (0, 127),
            )
        )
    return CompressedNetwork(
        name="linear", input_shape=(sizes[0], 1, 1), input_range=(-128, 127), layers=tuple(layers)
    )


def _compiled(shape: tuple[int, int, int], *layers: Layer, config: Config | None = None) -> Program:
    network = CompressedNetwork(
        name="made", input_shape=shape, input_range=(0, 255), layers=tuple(layers)
    )
    inputs = random_inputs(np.random.default_rng(1), network, 1)
    return compile_network(network, config or Config(lanes=8), inputs)


def _add(name: str, *inputs: str) -> Add:
    half = {"operand_scale": 1 << 29, "operand_shift": 30}
    return Add(name=name, inputs=inputs, **half, scale=1 << 20, shift=40)


def _balance(program: Program, layer: str) -> float:
    """Return the mean over the greatest number of taps of an element."""
    (counts,) = (part.tap_counts(8) for part in program.passes if part.stage.name == layer)
    return float(counts.mean() / counts.max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("lanes", "tap_depth"), [(1, 0), (4, 0), (2, 512)])
def test_every_weight_is_in_one_tap_store(seed: int, lanes: int, tap_depth: int) -> None:
    network, inputs = _network(seed)
    config = Config(lanes=lanes, tap_depth=tap_depth)
    tables: list[ColumnTables | None] = [None] * lanes  # of a column, from load to load
    program = compile_network(network, config, inputs, Skip.BOTH)
    loads = [record for record in program_records(program) if record[1]["kind"] == Kind.LOAD]
    assert len(loads) == len(program.passes)
    for (_, head, columns), part in zip(loads, program.passes, strict=True):
        weights = part.stage.codebook[part.taps.index]
        for number, column in enumerate(columns):
            words = program.image[column["address"] : column["address"] + column["words"]]
            fields = ColumnLoad.from_fields(head, column)
            loaded = decode_column(words.tobytes(), config, fields, previous=tables[number])
            tables[number] = loaded.tables
            outputs = part.columns[number]
            np.testing.assert_array_equal(loaded.bias, part.stage.bias[outputs])
            for row, element in enumerate(loaded.rows):
                mine = (part.column_of == number) & (part.rows == row)
                np.testing.assert_array_equal(element.positions, part.position[mine])
                codes = weights[mine] & (1 << config.weight_code_bits) - 1
                np.testing.assert_array_equal(element.codes, codes)
                assert element.pointers.size == part.groups[row] + 1


def test_a_vector_is_read_in_rounds() -> None:
    network = linear_network(np.random.default_rng(1), (180, 67, 170, 9))
    inputs = random_inputs(np.random.default_rng(1), network, 1)
    program = compile_network(network, Config(lanes=2, group_depth=512), inputs)
    first, second, _ = program.passes
    assert [part.rounds for part in program.passes] == [2, 4, 1]
    for part in (first, second):
        for column, outputs in enumerate(part.columns):
            shares = [segment[column] for segment in part.segments]
            np.testing.assert_array_equal(np.concatenate(shares), outputs)
            sizes = [share.size for share in shares]
            assert len(set(sizes[:-1])) == 1
            assert 0 < sizes[-1] <= sizes[0]
            assert part.made(column) == part.rounds * sizes[0]
        assert part.ring_rows >= 2
    both = compile_network(network, Config(lanes=2), np.repeat(inputs, 2, axis=0))
    assert [part.rounds for part in both.passes] == [1, 1, 1]  # the next input is the next round


@pytest.mark.parametrize("seed", SEEDS)
def test_loads_never_wait_for_a_run_behind_them(seed: int) -> None:
    network, inputs = _network(seed)
    program = compile_network(network, Config(lanes=2, tap_depth=512), inputs, Skip.NONE)
    loads = runs = 0
    for _, head, _ in program_records(program):
        if head["kind"] == Kind.LOAD:
            assert head["needs"] <= runs
            loads += 1
        else:
            assert head["needs"] <= loads
            runs += 1
    assert loads == runs == len(program.passes)


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_useful_multiplications_are_those_of_inference(seed: int) -> None:
    network, inputs = _network(seed)
    program = compile_network(network, Config(lanes=4), inputs, Skip.BOTH, keep_layers=True)
    predicted: dict[str, int] = {}
    for part, counters in zip(program.passes, program.expected_counters, strict=True):
        name = part.stage.name
        predicted[name] = predicted.get(name, 0) + counters["macs"]
    for name, counts in program.inference.counts.items():
        if counts.macs.dense:
            assert predicted[name] == counts.macs.both


def test_taps_of_few_input_channels_are_shared_out_over_all_elements() -> None:
    squeezenet = _convolution("first", "input", (96, 3, 7, 7), stride=(2, 2))
    config = Config(lanes=8, accumulator_depth=1 << 14)
    assert _balance(_compiled((3, 55, 55), squeezenet, config=config), "first") >= 0.95
    one = _convolution("first", "input", (64, 1, 10, 4), stride=(2, 2), padding=(4, 1, 5, 1))
    assert _balance(_compiled((1, 49, 10), one), "first") >= 0.95


@pytest.mark.parametrize(("channels", "balance"), [(8, 0.2), (16, 0.25), (32, 0.5), (64, 0.85)])
def test_depthwise_taps_are_spread_over_the_columns(channels: int, balance: float) -> None:
    around = {"padding": (1, 1, 1, 1)}
    program = _compiled(
        (channels, 12, 12),
        _convolution("before", "input", (channels, channels, 1, 1)),
        _convolution("depthwise", "before", (channels, 1, 3, 3), groups=channels, **around),
    )
    assert _balance(program, "depthwise") >= balance


def test_convolutions_of_one_source_run_as_one_stage() -> None:
    program = _compiled(
        (8, 12, 12),
        _convolution("squeeze", "input", (16, 8, 1, 1)),
        _convolution("one", "squeeze", (64, 16, 1, 1)),
        _convolution("three", "squeeze", (64, 16, 3, 3), padding=(1, 1, 1, 1)),
        Concat(name="fire", inputs=("one", "three")),
        _convolution("after", "fire", (8, 128, 1, 1)),
    )
    assert [part.stage.name for part in program.passes] == ["squeeze", "one+three", "after"]
    assert program.layers == ["squeeze", "one", "three", "fire", "after"]


def test_pooling_goes_through_a_concatenation() -> None:
    program = _compiled(
        (8, 12, 12),
        _convolution("one", "input", (16, 8, 1, 1)),
        _convolution("three", "input", (16, 8, 3, 3), padding=(1, 1, 1, 1)),
        Concat(name="both", inputs=("one", "three")),
        MaxPool(name="pool", inputs=("both",), kernel=(2, 2), stride=(2, 2)),
    )
    assert {part.stage.pooling.kind for part in program.passes} == {Pool.MAX}
    assert program.layers == ["pool"]


def _adding(depth: int) -> Program:
    return _compiled(
        (8, 16, 16),
        _convolution("first", "input", (24, 8, 1, 1)),
        _convolution("second", "first", (24, 24, 3, 3), padding=(1, 1, 1, 1)),
        _add("sum", "first", "second"),
        config=Config(lanes=8, accumulator_depth=depth),
    )


@pytest.mark.parametrize(("depth", "passes"), [(1024, 1), (128, 2)])
def test_an_addition_lies_as_its_operand(depth: int, passes: int) -> None:
    program = _adding(depth)
    assert [part.stage.result for part in program.passes] == ["first"] * passes + ["sum"] * passes
    adding = program.passes[passes:]
    assert [part.operand for part in adding] == [("first", n) for n in range(passes)]
    for part, columns in zip(adding, program.maps["first"].segments, strict=True):
        for mine, wanted in zip(part.columns, columns, strict=True):
            np.testing.assert_array_equal(mine, wanted)


def test_an_addition_that_does_not_fit_so_goes_behind_an_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Planner, "_most", lambda *_: None)
    stages = [part.stage for part in _adding(128).passes]
    assert [stage.result for stage in stages] == ["first", "second:plain", "second:plain", "sum"]
    assert [stage.kernel for stage in stages] == [(1, 1), (3, 3), (3, 3), (1, 1)]


def readers(
    shape: LayerShape, weights: float, activations: float, config: Config, *, exact: bool = False
) -> int:
    """Return how many lanes read a stream of a layer of random patterns."""
    network, inputs = layer_workload(shape, weights, activations)
    if exact:
        network = with_densities(network, inputs, exact=True)
    reading = compile_network(network, config, inputs, Skip.BOTH).passes[0].reading
    return sum(map(len, reading.lanes)) // len(reading.streams)


def test_a_vector_whose_pattern_is_not_known_is_read_by_more_lanes() -> None:
    shape = LayerShape(name="fc", in_shape=(512, 1, 1), outputs=512, kernel=0)
    config = Config(lanes=4, tap_depth=1 << 15)
    assert readers(shape, 0.2, 0.3, config) > 1
    assert readers(shape, 0.2, 0.3, config, exact=True) == 1
    assert readers(shape, 0.2, 1.0, config) == 1
    network, inputs = layer_workload(shape, 0.2, 0.3)
    loaded = compile_network(network, config, inputs, Skip.BOTH, streamed=True).passes[0].reading
    assert sum(map(len, loaded.lanes)) == len(loaded.streams)


def test_runs_that_are_continued_are_read_by_fewer_lanes() -> None:
    shape = LayerShape(name="pw", in_shape=(256, 16, 8), outputs=256)
    short, long = (Config(lanes=8, port_bits=256, run_bits=bits) for bits in (2, 5))
    assert readers(shape, 0.5, 0.1, short) < readers(shape, 0.5, 0.1, long)


@pytest.mark.parametrize(("group_depth", "lanes"), [(2048, 4), (1024, 2)])
def test_fewer_lanes_read_a_map_if_two_loads_would_not_fit_otherwise(
    group_depth: int, lanes: int
) -> None:
    shape = LayerShape(name="conv", in_shape=(64, 8, 8), outputs=64, kernel=3, padding=1)
    config = Config(lanes=4, group_depth=group_depth)  # four lanes: 64 x 9 start pointers
    assert readers(shape, 0.3, 0.3, config) == lanes


def test_unwanted_streams_are_not_read() -> None:
    program = _compiled(
        (8, 6, 6),
        _convolution("one", "input", (16, 8, 1, 1)),
        _convolution("other", "input", (16, 8, 1, 1), seed=1),
        Concat(name="both", inputs=("one", "other")),
        ChannelShuffle(name="half", inputs=("both",), order=tuple(range(15, -1, -1))),
        _convolution("last", "half", (8, 16, 3, 3)),
    )
    stored = next(iter(program.views["one"].maps))
    wanted = set(program.views["one"].parts[0][1].tolist())
    for stream in program.passes[-1].reading.streams:
        assert stream.map == stored
        assert wanted & set(stream.stored.tolist())


def test_a_lookup_table_is_loaded_once_and_waits_for_the_last_run_that_looks_up() -> None:
    tables = [np.arange(256), np.arange(256)[::-1]]
    layers: list[Layer] = []
    for number, table in enumerate((0, 0, 1, 0)):
        source = layers[-1].name if layers else "input"
        layers.append(_convolution(f"convolution{number}", source, (8, 8, 1, 1)))
        source = layers[-1].name
        layers.append(
            Lookup(name=f"lookup{number}", inputs=(source,), first=0, table=tables[table])
        )
    program = _compiled((8, 4, 4), *layers, config=Config(lanes=4))
    loads = [head for _, head, _ in program_records(program) if head["kind"] == Kind.LOAD]
    runs = [head for _, head, _ in program_records(program) if head["kind"] == Kind.RUN]
    assert [head["lookup"] for head in runs] == [1, 1, 1, 1]
    assert [head["needs"] for head in loads] == [0, 0, 2, 3]
    sizes = [
        lanes[0]["words"] for _, head, lanes in program_records(program) if "words" in lanes[0]
    ]
    assert sizes[1] < min(sizes[0], sizes[2], sizes[3])


def test_lookups_one_behind_the_other_are_one_table() -> None:
    negated = Lookup(name="negated", inputs=("first",), first=0, table=-np.arange(256))
    halved = Lookup(name="halved", inputs=("negated",), first=-255, table=np.arange(-255, 1) // 2)
    first = _convolution("first", "input", (8, 8, 1, 1))
    program = _compiled((8, 4, 4), first, negated, halved, config=Config(lanes=4))
    (stage,) = {part.stage.name: part.stage for part in program.passes}.values()
    assert stage.lookup is not None
    np.testing.assert_array_equal(stage.lookup[:256], -np.arange(256) // 2)


def test_a_product_by_channel_goes_where_its_factors_lie() -> None:
    program = _compiled(
        (8, 6, 6),
        _convolution("map", "input", (32, 8, 3, 3)),
        MaxPool(name="whole", inputs=("map",), kernel=(4, 4), stride=(1, 1)),
        _convolution("gate", "whole", (32, 32, 1, 1)),
        Multiply(name="product", inputs=("map", "gate"), scale=1, shift=8),
        config=Config(lanes=4),
    )
    stages = {part.stage.result: part.stage for part in program.passes}
    assert list(stages) == ["map", "whole", "gate", "product"]
    (product,) = (part for part in program.passes if part.stage.result == "product")
    assert product.operand == ("gate", 0)
    for mine, wanted in zip(product.columns, program.maps["gate"].segments[0], strict=True):
        np.testing.assert_array_equal(mine, wanted)
    runs = [head for _, head, _ in program_records(program) if head["kind"] == Kind.RUN]
    fields = ("add", "multiply", "broadcast", "scale_operand", "operand_scale", "operand_shift")
    assert [runs[-1][name] for name in fields] == [1, 1, 1, 0, 0, 20]
    assert all(run["multiply"] == run["broadcast"] == 0 for run in runs[:-1])


def test_machines_without_a_part_refuse_what_needs_it() -> None:
    convolution = _convolution("first", "input", (8, 8, 1, 1))
    with pytest.raises(ValueError, match="layer sum adds and residual is 0"):
        _compiled((8, 4, 4), convolution, _add("sum", "first", "input"), config=Config(residual=0))
    product = Multiply(name="square", inputs=("first", "first"), scale=1, shift=8)
    text = "layer square multiplies two maps and product is 0; set product, and residual, to 1"
    for lacking in ({"product": 0}, {"residual": 0}):
        with pytest.raises(ValueError, match=text):
            _compiled((8, 4, 4), convolution, product, config=Config(**lacking))
    lookup = Lookup(name="table", inputs=("first",), first=0, table=np.arange(256))
    with pytest.raises(ValueError, match="layer table looks up"):
        _compiled((8, 4, 4), convolution, lookup, config=Config(lookup=0))


def test_a_network_too_big_says_which_store_is_short() -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng)
    inputs = random_inputs(rng, network, 1)
    small = Config(lanes=1, accumulator_depth=16, group_depth=16, tap_depth=16, pool_depth=16)
    with pytest.raises(FitError, match=r"does not fit: the .* store needs \d+ words and .* is 16"):
        compile_network(network, small, inputs)


def test_maps_and_rows_beyond_the_counters_of_a_machine_do_not_fit() -> None:
    shape, layer = (8, 2, 600), _convolution("one", "input", (16, 8, 1, 1))
    with pytest.raises(FitError, match="a side of a map is 600 and map_bits is 9; raise map_bits"):
        _compiled(shape, layer, config=Config(lanes=2, map_bits=9))
    with pytest.raises(ValueError, match=r"may need \d+ words and count_bits is 8; raise count_b"):
        _compiled(shape, layer, config=Config(lanes=2, count_bits=8))
