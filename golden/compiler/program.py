"""From a network and its inputs to the memory image that the machine runs, and back to arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from thresher.golden.compiler.fuse import fused
from thresher.golden.compiler.graph import graph_of, without_addition
from thresher.golden.compiler.layout import Layout, StoredMap, Words, store_input, store_result
from thresher.golden.compiler.passes import FitError, Pass
from thresher.golden.compiler.plan import Plan, Planner
from thresher.golden.compiler.predict import predict_counters
from thresher.golden.compiler.records import ProgramWriter
from thresher.golden.compiler.stages import Stage, Taps
from thresher.golden.compiler.views import Parts, View, gather
from thresher.golden.config import LOOKUP_BITS, Config, Skip
from thresher.golden.densities import densities_of
from thresher.golden.descriptors import COUNTER_BITS, COUNTERS
from thresher.golden.inference import Inference, infer
from thresher.golden.multipliers import represent
from thresher.golden.network import (
    Add,
    AveragePool,
    CompressedNetwork,
    Lookup,
    Multiply,
    WeightedLayer,
    check_accumulators,
)

__all__ = ["Program", "compile_network"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]


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
    maps
        What is stored, by name.
    views
        The values that can be read back: layers' outputs, as channels of maps.
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
    views: dict[str, View]
    counter_addresses: list[int]
    inference: Inference
    weight_bytes: int
    descriptor_words: int
    expected_counters: list[dict[str, int]] = field(default_factory=list)

    @property
    def layers(self) -> list[str]:
        """Layers whose outputs can be read back, in the order of the network."""
        return [layer.name for layer in self.network.layers if layer.name in self.views]

    def stored_once(self) -> list[str]:
        """Layers whose outputs are stored as such: no views of others' outputs."""
        contents = {name for stored in self.maps.values() for name, _ in stored.content}
        return [name for name in self.layers if name in contents]

    def decode_outputs(self, memory: ByteArray) -> dict[str, IntArray]:
        """Read layers' outputs back from memory, each (inputs, channels, height, width)."""
        words = Words(memory)
        shapes = self.network.shapes()
        used = {name for layer in self.layers for name in self.views[layer].maps}
        maps = {
            name: self.maps[name].decode(words, self.inputs, self.config)
            for name in self.maps
            if name in used
        }
        if "input" in maps:
            maps["input"] = maps["input"].reshape(self.inputs, *self.network.input_shape)
        return {
            name: gather(self.views[name].parts, maps).reshape(self.inputs, *shapes[name])
            for name in self.layers
        }

    def counters(self, memory: ByteArray) -> list[dict[str, int]]:
        """Read the counters of every run."""
        words = Words(memory)
        names = [name for name, _ in COUNTERS]
        per_word = self.config.port_bits // COUNTER_BITS
        mask = (1 << COUNTER_BITS) - 1
        return [
            {
                name: words[address + k // per_word] >> k % per_word * COUNTER_BITS & mask
                for k, name in enumerate(names)
            }
            for address in self.counter_addresses
        ]


def compile_network(
    network: CompressedNetwork,
    config: Config,
    inputs: npt.ArrayLike,
    skip: Skip = Skip.BOTH,
    *,
    keep_layers: bool = False,
    streamed: bool = False,
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
        Store every layer's output, also where a layer would be merged into a convolution.
    streamed
        What counts is the time with its loads, not that of weights which are resident.

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
    _check_machine(network, config)
    compiler = _Compiler(
        network,
        config,
        values.astype(np.int64),
        skip,
        keep_layers=keep_layers,
        streamed=streamed,
    )
    compiler.run()
    return compiler.program(inference)


class _Compiler:
    """Stages on their way into memory, one after another."""

    def __init__(
        self,
        network: CompressedNetwork,
        config: Config,
        values: IntArray,
        skip: Skip,
        *,
        keep_layers: bool,
        streamed: bool,
    ) -> None:
        self.network, self.config, self.values, self.skip = network, config, values, skip
        self.keep_layers = keep_layers
        graph = graph_of(network, config.activation_bits, keep_layers=keep_layers)
        stages = [
            replace(
                stage, codebook=represent(stage.codebook, config.multiplier, config.weight_bits)
            )
            for stage in graph.stages
        ]
        self.views = graph.views
        self.flat_input = _takes_flat_input(stages)
        if self.flat_input:
            # Each value of the input is a channel of its own: nothing but layout.
            stages = [_flattened(stage) if _reads_input(stage) else stage for stage in stages]
            self.values = values.reshape(len(values), -1, 1, 1)
        self.waiting = stages
        self.known = densities_of(network)
        self.shapes = network.shapes()
        densities = {stage.result: self.density(stage.content) for stage in stages}
        densities["input"] = self.density((("input", np.arange(self.values.shape[1])),))
        self.planner = Planner(
            stages, config, skip, densities, inputs=len(values), streamed=streamed
        )
        self.layout = Layout(config)
        self.writer = ProgramWriter(config, self.layout, skip, len(values))
        self.maps: dict[str, StoredMap] = {}
        self.passes: list[Pass] = []

    def density(self, content: Parts) -> FloatArray:
        """Return the share of values that are not zero, of each channel; NaN if not known."""
        parts = []
        for name, channels in content:
            total = self.values.shape[1] if name == "input" else self.shapes[name][0]
            names = [name]
            if name == "input":  # as a vector, it may be known by another name
                names += [alias for alias, view in self.views.items() if view.maps == ["input"]]
            known = [self.known[alias] for alias in names if alias in self.known]
            finest = max(
                (density for density in known if density.size and total % density.size == 0),
                key=len,
                default=np.full(1, np.nan),
            )
            parts.append(np.repeat(finest, total // finest.size)[channels])
        return np.concatenate(parts)

    def run(self) -> None:
        """Take up all stages."""
        while self.waiting:
            stage = self.waiting.pop(0)
            if "input" in stage.source.maps and "input" not in self.maps:
                plan, segments = self.planner.plan_with_input(stage)
                self.planner.store("input", segments)
                self.maps["input"] = store_input(self.values, segments, self.layout)
                self.put(stage, plan)
            elif stage.addition is not None:
                self.put_adding(stage)
            elif not self.put_fused(stage):
                self.put(stage, self.planner.plan(stage))

    def put_adding(self, stage: Stage) -> None:
        """Run a stage that adds; if it does not fit as its operand lies, in two steps."""
        try:
            plan = self.planner.plan(stage)
        except FitError:
            bits = self.config.activation_bits
            plain, adding = without_addition(stage, (-(1 << bits - 1), (1 << bits - 1) - 1))
            self.planner.densities[plain.result] = self.density(plain.content)
            self.planner.split(stage, [plain, adding])
            self.put(plain, self.planner.plan(plain))
            stage, plan = adding, self.planner.plan(adding)
        self.put(stage, plan)

    def put_fused(self, stage: Stage) -> bool:
        """Run a stage together with another that reads the same, if that is not slower."""
        if self.keep_layers or stage.result in self.planner.added:
            return False
        for other in self.waiting:
            if other.result in self.planner.added:
                continue
            both = fused(stage, other)
            if both is None:
                continue
            made = {stage.result: 0, other.result: stage.out_shape[0]}
            try:
                plan = self.planner.plan(both, made)
                alone = self.planner.plan(stage).cycles + self.planner.plan(other).cycles
            except FitError:
                continue
            if plan.cycles > alone:
                continue
            self.waiting.remove(other)
            self.put(both, plan)
            self.planner.put_within(made, both.result)
            return True
        return False

    def put(self, stage: Stage, plan: Plan) -> None:
        """Lay out what a stage needs and stores."""
        self.planner.store(
            stage.result, [columns for part in plan.passes for columns in part.segments]
        )
        result = store_result(stage, plan.passes, len(self.values), self.layout)
        self.maps[stage.result] = result
        self.writer.add(plan.passes, self.maps)
        self.passes += plan.passes

    def program(self, inference: Inference) -> Program:
        """Return the finished program."""
        words = self.writer.words()
        per_word = self.config.port_bits // 64
        words += [0] * (-len(words) % per_word)
        address = self.layout.put(
            [
                sum(word << 64 * k for k, word in enumerate(words[at : at + per_word]))
                for at in range(0, len(words), per_word)
            ]
        )
        values = {"input": self.values, **inference.outputs}
        return Program(
            config=self.config,
            network=self.network,
            skip=self.skip,
            image=self.layout.image(),
            program=address,
            inputs=len(self.values),
            passes=self.passes,
            maps=self.maps,
            views=self.final_views(),
            counter_addresses=self.writer.counter_addresses,
            inference=inference,
            weight_bytes=self.writer.weight_bytes,
            descriptor_words=len(words),
            expected_counters=predict_counters(
                self.passes, self.maps, values, self.config, self.skip
            ),
        )

    def final_views(self) -> dict[str, View]:
        """Views of the maps as they were stored after all."""
        views = {}
        for name, view in self.views.items():
            parts = []
            for map_name, channels in view.parts:
                real, first = self.planner.within.get(map_name, (map_name, 0))
                parts.append((real, channels + first))
            final = replace(view, parts=tuple(parts))
            if set(final.maps) <= self.maps.keys():
                views[name] = final
        return views


def _reads_input(stage: Stage) -> bool:
    return "input" in stage.source.maps


def _takes_flat_input(stages: list[Stage]) -> bool:
    """Whether the input is read by one stage alone, and that is fully connected."""
    readers = [stage for stage in stages if _reads_input(stage)]
    if len(readers) != 1:
        return False
    stage = readers[0]
    ((name, channels), *_) = stage.source.parts
    return (
        name == "input"
        and np.array_equal(channels, np.arange(stage.in_shape[0]))
        and stage.kernel == stage.in_shape[1:]
        and stage.out_shape[1:] == (1, 1)
        and stage.padding == (0, 0)
        and int(np.prod(stage.in_shape)) < 1 << 16
    )


def _flattened(stage: Stage) -> Stage:
    _, height, width = stage.in_shape
    taps = stage.taps
    channel = (taps.channel * height + taps.ky) * width + taps.kx
    values = int(np.prod(stage.in_shape))
    return replace(
        stage,
        source=View.whole("input", (values, 1, 1)),
        in_shape=(values, 1, 1),
        taps=Taps(taps.output, channel, 0 * taps.ky, 0 * taps.kx, taps.index),
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
    )


def _check_machine(network: CompressedNetwork, config: Config) -> None:
    low, high = -(1 << config.activation_bits - 1), (1 << config.activation_bits - 1) - 1
    limit = 1 << config.weight_bits - 1
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
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
        if isinstance(layer, Add) and not config.residual:
            raise ValueError(f"layer {layer.name} adds and residual is 0; set residual to 1")
        if isinstance(layer, Multiply) and not config.product:
            raise ValueError(
                f"layer {layer.name} multiplies two maps and product is 0; set product, and"
                " residual, to 1"
            )
        if isinstance(layer, AveragePool):
            least, most = (bound + layer.origin for bound in network.ranges()[layer.inputs[0]])
            if layer.origin and (least < low or most > high):
                raise ValueError(
                    f"layer {layer.name} adds up values in {least}..{most}, origins included, and "
                    f"activation_bits is {config.activation_bits}; raise activation_bits"
                )
        if isinstance(layer, Lookup) and not config.lookup:
            raise ValueError(
                f"layer {layer.name} looks up and the machine does not; set lookup to 1 and "
                f"activation_bits to at most {LOOKUP_BITS}"
            )
    for name, (least, most) in network.ranges().items():
        if least < low or most > high:
            what = "the input" if name == "input" else f"layer {name}"
            raise ValueError(
                f"{what} has values in {least}..{most} and activation_bits is "
                f"{config.activation_bits}; raise activation_bits"
            )
