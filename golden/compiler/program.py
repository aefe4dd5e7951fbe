"""From a network and its inputs to the memory image that the machine runs, and back to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.codes.rlc import rlc_decode_map, rlc_encode_map
from thresher.golden.codes.weights import ColumnStream, encode_column
from thresher.golden.compiler.mapping import Placement, assign_columns, place_input
from thresher.golden.compiler.passes import Pass, Taps, cut_into_passes
from thresher.golden.compiler.predict import predict_counters
from thresher.golden.compiler.stages import Stage, stages_of
from thresher.golden.config import Config, Skip
from thresher.golden.densities import densities_of
from thresher.golden.descriptors import (
    COUNTERS,
    LOAD,
    LOAD_LANE,
    RUN,
    RUN_LANE,
    RUN_SEGMENT,
    Kind,
    Pool,
)
from thresher.golden.inference import Inference, infer
from thresher.golden.multipliers import encode, represent
from thresher.golden.network import (
    AveragePool,
    CompressedNetwork,
    WeightedLayer,
    check_accumulators,
)

__all__ = ["Program", "StoredMap", "compile_network"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StoredMap:
    """Where a value lies in memory.

    Parameters
    ----------
    shape
        (channels, height, width).
    placement
        Channels of each segment and lane.
    addresses
        ``addresses[s][lane]``: first header of that segment's first input.
    pitches
        ``pitches[s]``: words from one input to the next.
    """

    shape: tuple[int, int, int]
    placement: Placement
    addresses: list[list[int]]
    pitches: list[int]


@dataclass(kw_only=True)
class Program:
    """An image, and how to read what the machine made of it.

    Parameters
    ----------
    image
        Memory at the start: bytes of shape (words, port_bits / 8), big-endian a word.
    program
        Address of the first descriptor.
    passes
        One a RUN, in order.
    inference
        What golden expects: outputs and counts.
    """

    config: Config
    network: CompressedNetwork
    skip: Skip
    image: ByteArray
    program: int
    inputs: int
    passes: list[Pass]
    maps: dict[str, StoredMap]
    aliases: dict[str, str]
    counter_addresses: list[int]
    inference: Inference
    weight_bytes: int
    descriptor_words: int
    expected_counters: list[dict[str, int]] = field(default_factory=list)

    def decode_outputs(self, memory: ByteArray) -> dict[str, IntArray]:
        """Read every stored layer back from memory, each (inputs, channels, height, width)."""
        words = _Words(memory)
        outputs = {
            name: self._decode(words, stored)
            for name, stored in self.maps.items()
            if name != "input"
        }
        for alias, name in self.aliases.items():
            if name in outputs:
                shape = self.network.shapes()[alias]
                outputs[alias] = outputs[name].reshape(-1, *shape)
        return outputs

    def _decode(self, words: _Words, stored: StoredMap) -> IntArray:
        channels, height, width = stored.shape
        values = np.zeros((self.inputs, channels, height, width), np.int64)
        for segment, lanes in enumerate(stored.placement.segments):
            for lane, mine in enumerate(lanes):
                if mine.size == 0:
                    continue
                for number in range(self.inputs):
                    at = stored.addresses[segment][lane] + number * stored.pitches[segment]
                    rows = rlc_decode_map(words, at, height, width * mine.size, self.config.rlc)
                    rows = rows.reshape(height, width, mine.size)
                    values[number, mine] = rows.transpose(2, 0, 1)
        return values

    def counters(self, memory: ByteArray) -> list[dict[str, int]]:
        """Read the counters of every run."""
        words = _Words(memory)
        names = [name for name, _ in COUNTERS]
        return [
            {name: words[address + k] for k, name in enumerate(names)}
            for address in self.counter_addresses
        ]


class _Words:
    """Memory bytes seen as a sequence of word integers."""

    def __init__(self, memory: ByteArray) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, address: int) -> int:
        return int.from_bytes(self._memory[address].tobytes(), "big")


class _Layout:
    """Memory being laid out: an address counter and the words to write."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.next = 0
        self.parts: list[tuple[int, bytes]] = []

    def reserve(self, words: int) -> int:
        address = self.next
        self.next += words
        return address

    def put(self, words: list[int]) -> int:
        size = self.config.port_bits // 8
        return self.put_bytes(b"".join(word.to_bytes(size, "big") for word in words))

    def put_bytes(self, content: bytes) -> int:
        size = self.config.port_bits // 8
        content += bytes(-len(content) % size)
        address = self.reserve(len(content) // size)
        self.parts.append((address, content))
        return address

    def image(self) -> ByteArray:
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


def _map_words(rows: int, values: int, config: Config) -> int:
    """Words of a map at most: a header a row, and every pair holding one value."""
    return rows * (1 + -(-values // config.rlc.pairs))


def _store_input(
    values: IntArray, placement: Placement, layout: _Layout, config: Config
) -> StoredMap:
    inputs, channels, height, width = values.shape
    lanes = placement.segments[0][:1] if placement.shared else placement.segments[0]
    coded = []
    for mine in lanes:
        streams = []
        for number in range(inputs if mine.size else 0):
            rows = values[number, mine].transpose(1, 2, 0).reshape(height, -1)
            streams.append(rlc_encode_map(rows, config.rlc))
        coded.append(streams)
    pitch = max((len(words) for streams in coded for words in streams), default=0)
    addresses = [
        layout.put([word for words in streams for word in words + [0] * (pitch - len(words))])
        for streams in coded
    ]
    if placement.shared:
        addresses *= config.lanes
    return StoredMap(
        shape=(channels, height, width),
        placement=placement,
        addresses=[addresses],
        pitches=[pitch],
    )


def _store_result(
    stage: Stage, passes: list[Pass], inputs: int, layout: _Layout, config: Config
) -> StoredMap:
    _, height, width = stage.result_shape
    addresses, pitches = [], []
    for part in passes:
        sizes = [_map_words(height, width * column.size, config) for column in part.columns]
        pitch = sum(sizes)
        first = layout.reserve(pitch * inputs)
        addresses.append([first + sum(sizes[:lane]) for lane in range(config.lanes)])
        pitches.append(pitch)
    placement = Placement([part.columns for part in passes])
    return StoredMap(
        shape=stage.result_shape, placement=placement, addresses=addresses, pitches=pitches
    )


class _Work:
    """Work of a stage's taps: how often each is walked, as far as is known."""

    def __init__(
        self,
        stages: list[Stage],
        aliases: Mapping[str, str],
        densities: Mapping[str, FloatArray],
        skip: Skip,
    ) -> None:
        self.stages, self.aliases, self.skip = stages, aliases, skip
        self.densities = densities if skip.skips_activations else {}

    def _density(self, stage: Stage) -> FloatArray:
        """Return the share of activations that are not zero, of each input channel."""
        views = [view for view, name in self.aliases.items() if name == stage.source]
        for name in (stage.source, *views):
            known = self.densities.get(name, np.zeros(0))
            if known.size == stage.in_shape[0]:
                return known
        return np.ones(stage.in_shape[0])

    def made(self, stage: Stage, placement: Placement, lanes: int) -> FloatArray:
        """Return the work of each output channel in each row, shape (outputs, lanes)."""
        taps = Taps.of(stage, skip_zeros=self.skip.skips_weights)
        weight = self._density(stage)[taps.channel]
        outputs = stage.out_shape[0]
        if placement.shared:
            total = np.bincount(taps.output, weight, outputs)
            return np.repeat(total[:, None] / lanes, lanes, axis=1)
        lane_of = np.zeros(stage.in_shape[0], np.int64)
        for lane in range(lanes):
            lane_of[placement.lane(lane)] = lane
        cell = taps.output * lanes + lane_of[taps.channel]
        work = np.bincount(cell, weight, outputs * lanes).astype(np.float64)
        return work.reshape(outputs, lanes)

    def read(self, name: str, channels: int) -> FloatArray:
        """Return the work of each channel of a value where it is read, shape (channels,)."""
        work = np.zeros(channels)
        for stage in self.stages:
            if stage.source == name and stage.in_shape[0] == channels:
                taps = Taps.of(stage, skip_zeros=self.skip.skips_weights)
                work += np.bincount(taps.channel, minlength=channels) * self._density(stage)
        return work


def _column_streams(part: Pass, config: Config, network: CompressedNetwork) -> list[bytes]:
    stage = part.stage
    codes = encode(stage.codebook, network.multiplier, config.weight_bits)
    ends = np.cumsum(part.tap_counts(config.lanes).T.ravel())  # taps lie by column, then by row
    elements = [
        slice(end - size, end) for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)
    ]
    streams = []
    for column, outputs in enumerate(part.columns):
        rows = []
        for row in range(config.lanes):
            mine = elements[column * config.lanes + row]
            rows.append((part.groups[row], part.position[mine], part.taps.index[mine]))
        streams.append(
            encode_column(
                ColumnStream(
                    bias=stage.bias[outputs],
                    scale=stage.scale[outputs],
                    shift=stage.shift[outputs],
                    codebook=codes,
                    rows=rows,
                ),
                config,
            )
        )
    return streams


class _Rings:
    """Stores that passes fill one after another; says which runs must be finished for a load."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ends = [np.zeros(config.multipliers + 2, np.int64)]
        self.depths = np.array(
            [config.tap_depth] * config.multipliers + [config.group_depth, config.channel_depth]
        )

    def add(self, part: Pass) -> tuple[int, int, int]:
        """Return (runs needed, group_base, channel_base) of the next pass."""
        start = self.ends[-1]
        sizes = [*part.tap_counts(self.config.lanes).ravel(), max(part.groups) + 1, part.channels]
        end = start + np.array(sizes)
        needs = 0
        while np.any(end - self.ends[needs] > self.depths):
            needs += 1
        self.ends.append(end)
        *_, group, channel = start.tolist()
        return needs, group % self.config.group_depth, channel % self.config.channel_depth


def _run_values(part: Pass, config: Config, skip: Skip) -> dict[str, int]:
    stage, pooling = part.stage, part.stage.pooling
    pooled = pooling.kind is not Pool.NONE
    phase_height, phase_width = stage.phase_shape
    half_range = 1 << config.activation_bits - 1
    return {
        "kind": Kind.RUN,
        "send_zeros": not skip.skips_activations,
        "gate": skip is Skip.GATE,
        "height": stage.in_shape[1],
        "width": stage.in_shape[2],
        "out_height": stage.out_shape[1],
        "out_width": stage.out_shape[2],
        "ring_rows": part.ring_rows,
        "stride_y": stage.stride[0],
        "stride_x": stage.stride[1],
        "pad_y": stage.padding[0],
        "pad_x": stage.padding[1],
        "kernel_height": phase_height,
        "kernel_width": phase_width,
        "channels": part.channels,
        "row_size": part.row_size,
        "map_size": stage.out_shape[1] * part.row_size % config.accumulator_depth,
        "extent_y": stage.extent[0],
        "channel_groups": stage.channel_groups,
        "phase_groups": phase_height * phase_width,
        "clip_low": stage.clip[0],
        "clip_high": stage.clip[1],
        "rounding": stage.rounding,
        "pool": pooling.kind,
        "pool_pad_y": pooling.padding[0],
        "pool_pad_x": pooling.padding[1],
        "pool_height": pooling.kernel[0],
        "pool_width": pooling.kernel[1],
        "pool_stride_y": pooling.stride[0],
        "pool_stride_x": pooling.stride[1],
        "pooled_height": stage.result_shape[1] if pooled else stage.out_shape[1],
        "pooled_width": stage.result_shape[2] if pooled else stage.out_shape[2],
        "pool_scale": pooling.scale,
        "pool_shift": pooling.shift,
        "pool_rounding": pooling.rounding,
        "pool_low": -half_range,
        "pool_high": half_range - 1,
        "pool_origin": pooling.origin,
        "pool_offset": pooling.origin * pooling.kernel[0] * pooling.kernel[1],
        "lookup": 0,
        "add": 0,
        "scale_operand": 0,
        "operand_scale": 0,
        "operand_shift": 0,
    }


class _Writer:
    """Records of the program, in order, with what they refer to laid out in memory."""

    def __init__(self, config: Config, layout: _Layout, skip: Skip, inputs: int) -> None:
        self.config, self.layout, self.skip, self.inputs = config, layout, skip, inputs
        self.rings = _Rings(config)
        self.loads: list[list[int]] = []
        self.needs: list[int] = []
        self.runs: list[list[int]] = []
        self.weight_bytes = 0
        self.counter_addresses: list[int] = []

    def add_load(self, part: Pass, streams: list[bytes]) -> dict[str, int]:
        number = len(self.loads)
        needs, group_base, channel_base = self.rings.add(part)
        bases = {"group_base": group_base, "channel_base": channel_base}
        phase_height, phase_width = part.stage.phase_shape
        words = LOAD.pack(
            {
                "kind": Kind.LOAD,
                "needs": needs,
                "layer": number,
                "channels": part.channels,
                "row_size": part.row_size,
                "kernel_height": phase_height,
                "kernel_width": phase_width,
                **bases,
            }
        )
        size = self.config.port_bits // 8
        for column, stream in enumerate(streams):
            address = self.layout.put_bytes(stream)
            self.weight_bytes += len(stream)
            words += LOAD_LANE.pack(
                {
                    "address": address,
                    "channels": part.columns[column].size,
                    "words": -(-len(stream) // size),
                }
            )
        self.loads.append(words)
        self.needs.append(needs)
        return bases

    def add_run(
        self,
        part: Pass,
        bases: Mapping[str, int],
        source: StoredMap,
        result: StoredMap,
        segment: int,
    ) -> None:
        number = len(self.runs)
        counters = self.layout.reserve(len(COUNTERS))
        self.counter_addresses.append(counters)
        words = RUN.pack(
            {
                **_run_values(part, self.config, self.skip),
                **bases,
                "needs": number + 1,
                "layer": number,
                "maps": self.inputs,
                "counters": counters,
                "out_pitch": result.pitches[segment],
            }
        )
        for lane in range(self.config.lanes):
            segments = [
                (addresses[lane], channels[lane].size, pitch)
                for addresses, channels, pitch in zip(
                    source.addresses, source.placement.segments, source.pitches, strict=True
                )
                if channels[lane].size
            ]
            if len(segments) > self.config.segments:
                raise ValueError(
                    f"layer {part.stage.name} reads {len(segments)} segments a lane and segments "
                    f"is {self.config.segments}; raise segments or tap_depth"
                )
            words += RUN_LANE.pack(
                {
                    "segments": len(segments),
                    "channels": part.columns[lane].size,
                    "out_address": result.addresses[segment][lane],
                }
            )
            for address, channels, pitch in segments:
                words += RUN_SEGMENT.pack(
                    {"address": address, "channels": channels, "pitch": pitch}
                )
        self.runs.append(words)

    def words(self) -> list[int]:
        """All records: each load one run ahead, if its place in the stores is free by then."""
        order: list[int] = []
        placed = 0
        for run, words in enumerate(self.runs):
            for number in range(placed, min(run + 2, len(self.loads))):
                needs = self.needs[number]
                if number > run and needs > run:
                    break
                order += self.loads[number]
                placed = number + 1
            order += words
        return [*order, Kind.END]


def compile_network(
    network: CompressedNetwork,
    config: Config,
    inputs: npt.ArrayLike,
    skip: Skip = Skip.BOTH,
    *,
    keep_layers: bool = False,
) -> Program:
    """Lay a network and its inputs out for a machine.

    Parameters
    ----------
    network
        The network; its multiplier must be the machine's.
    config
        The machine.
    inputs
        Integers of shape (n, C, H, W).
    skip
        Which multiplications by zero take no cycle.
    keep_layers
        Store every layer's output, also where pooling would be merged into its convolution.

    Returns
    -------
    program
        The image, and how to read the results.

    Raises
    ------
    ValueError
        If the network does not suit the machine: multiplier, widths, or stores (``FitError``).
    """
    if network.multiplier != config.multiplier:
        network = replace(network, multiplier=config.multiplier)
    values = np.asarray(inputs)
    inference = infer(network, values)
    check_accumulators(network, config.accumulator_bits)
    _check_widths(network, config)
    count = len(values)
    skip_zeros = skip.skips_weights

    stages, aliases = stages_of(network, config.activation_bits, keep_layers=keep_layers)
    stages = [
        replace(
            stage,
            codebook=represent(stage.codebook, config.multiplier, config.weight_bits),
        )
        for stage in stages
    ]
    layout = _Layout(config)
    writer = _Writer(config, layout, skip, count)
    maps: dict[str, StoredMap] = {}
    values = values.astype(np.int64)
    first = stages[0]
    whole = first.weights.shape[2:] == first.in_shape[1:] and first.out_shape[1:] == (1, 1)
    linear_first = whole and first.padding == (0, 0) and first.weights[0].size < 1 << 16
    readers_of_input = [stage for stage in stages if stage.source == "input"]
    if linear_first and stages[0].pooling.kind is Pool.NONE and len(readers_of_input) == 1:
        # Each value of the input is a channel of its own: nothing but layout.
        stages[0] = _flattened(stages[0])
        values = values.reshape(count, -1, 1, 1)

    work = _Work(stages, aliases, densities_of(network), skip)
    all_passes: list[Pass] = []
    for stage in stages:
        if stage.source not in maps:
            placement = place_input(stage, work.read("input", stage.in_shape[0]), config.lanes)
            maps["input"] = _store_input(values, placement, layout, config)
        source = maps[stage.source]
        made = work.made(stage, source.placement, config.lanes)
        columns = assign_columns(made, work.read(stage.result, stage.out_shape[0]))
        passes = cut_into_passes(stage, source.placement, columns, config, skip_zeros=skip_zeros)
        result = _store_result(stage, passes, count, layout, config)
        maps[stage.result] = result
        for segment, part in enumerate(passes):
            bases = writer.add_load(part, _column_streams(part, config, network))
            writer.add_run(part, bases, source, result, segment)
        all_passes += passes

    words = writer.words()
    per_word = config.port_bits // 64
    words += [0] * (-len(words) % per_word)
    program = layout.put(
        [
            sum(word << 64 * k for k, word in enumerate(words[at : at + per_word]))
            for at in range(0, len(words), per_word)
        ]
    )
    compiled = Program(
        config=config,
        network=network,
        skip=skip,
        image=layout.image(),
        program=program,
        inputs=count,
        passes=all_passes,
        maps=maps,
        aliases=aliases,
        counter_addresses=writer.counter_addresses,
        inference=inference,
        weight_bytes=writer.weight_bytes,
        descriptor_words=len(words),
    )
    stored = {"input": values, **inference.outputs}
    compiled.expected_counters = predict_counters(all_passes, maps, stored, config, skip)
    return compiled


def _flattened(stage: Stage) -> Stage:
    outputs = stage.out_shape[0]
    weights = stage.weights.reshape(outputs, -1, 1, 1)
    return replace(
        stage,
        in_shape=(weights.shape[1], 1, 1),
        weights=weights,
        present=stage.present.reshape(weights.shape),
        stride=(1, 1),
        dilation=(1, 1),
    )


def _check_widths(network: CompressedNetwork, config: Config) -> None:
    low, high = -(1 << config.activation_bits - 1), (1 << config.activation_bits - 1) - 1
    ranges = {"the input": network.input_range}
    limit = 1 << config.weight_bits - 1
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            ranges[f"layer {layer.name}"] = layer.clip
            book = np.asarray(layer.codebook)
            if book.size and (book.min() < -limit or book.max() >= limit):
                raise ValueError(
                    f"layer {layer.name} has weights in {book.min()}..{book.max()} and "
                    f"weight_bits is {config.weight_bits}; raise weight_bits"
                )
            if np.any(np.asarray(layer.scale) >= 1 << config.scale_bits):
                raise ValueError(
                    f"layer {layer.name} has a scale of more than {config.scale_bits} bits; "
                    f"raise scale_bits"
                )
        elif isinstance(layer, AveragePool):
            ranges[f"layer {layer.name}"] = network.ranges()[layer.name]
    for name, (least, most) in ranges.items():
        if least < low or most > high:
            raise ValueError(
                f"{name} has values in {least}..{most} and activation_bits is "
                f"{config.activation_bits}; raise activation_bits"
            )
