"""The parts of one lane, and of the column of the same number, and what connects them."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Mux, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import connect

from thresher.hw.activations.operand_reader import OperandReader
from thresher.hw.activations.rlc_decoder import OperandDecoder, RLCDecoder
from thresher.hw.activations.rlc_encoder import RLCEncoder
from thresher.hw.activations.row_packer import RowPacker
from thresher.hw.activations.row_reader import RowReader
from thresher.hw.activations.row_writer import RowWriter
from thresher.hw.activations.token_maker import TokenMaker
from thresher.hw.array.array import Array
from thresher.hw.link import Link, Links, Queue
from thresher.hw.memory.stream_fetcher import StreamFetcher
from thresher.hw.output.adder import Adder
from thresher.hw.output.column_scaler import ColumnScaler
from thresher.hw.output.lookup import Lookup
from thresher.hw.output.pooler import Pooler
from thresher.hw.output.requantiser import Requantiser
from thresher.hw.output.serial_pooler import SerialPooler
from thresher.hw.weights.weight_loader import WeightLoader

__all__ = ["Addition", "Lane"]


class Addition(NamedTuple):
    """What adds an operand to a column's outputs."""

    reader: OperandReader
    decoder: OperandDecoder
    adder: Adder


class Lane:
    """A lane's parts in front of the array, and those behind the column of the same number.

    ::

        reader -> decoder -> maker -> array -> requantiser -> lookup -> adder -> pooler
        fetcher -> loader ------------^      operand's reader -> decoder -^        |
                                                             writer <- encoder <---+

    Parameters
    ----------
    links
        Connect the parts.
    index
        Number of the lane.

    Attributes
    ----------
    lookup, addition, scaler, encoder
        None in a machine without. With ``output_cycles`` 4 there is a scaler, and the writer does
        what an encoder does.
    parts
        All of them, by their names in the machine.
    waiting
        Whether an item waits in a link, for each link that a run's end waits for.
    """

    def __init__(self, links: Links, index: int) -> None:
        self.links, self.index = links, index
        config = links.config
        self.fetcher = StreamFetcher(config)
        self.loader = WeightLoader(config)
        self.reader = RowReader(config)
        self.decoder = RLCDecoder(config)
        self.maker = TokenMaker(config)
        self.requantiser = Requantiser(config)
        self.lookup = Lookup(config) if config.lookup else None
        self.addition = None
        if config.residual:
            self.addition = Addition(OperandReader(config), OperandDecoder(config), Adder(config))
        serial = config.output_cycles > 1
        self.pooler = SerialPooler(config) if serial else Pooler(config)
        self.scaler = ColumnScaler(config) if serial else None
        self.encoder = None if serial else RLCEncoder(config)
        self.writer = RowPacker(config) if serial else RowWriter(config)
        self.parts = self._name_parts()
        self.waiting: list[Value] = []

    def _name_parts(self) -> dict[str, wiring.Component]:
        """Return the parts that there are, by name."""
        reader, decoder, adder = self.addition or (None, None, None)
        serial = self.encoder is None
        parts = {
            "weight_fetcher": self.fetcher,
            "weight_loader": self.loader,
            "row_reader": self.reader,
            "rlc_decoder": self.decoder,
            "token_maker": self.maker,
            "requantiser": self.requantiser,
            "lookup": self.lookup,
            "operand_reader": reader,
            "operand_decoder": decoder,
            "adder": adder,
            "serial_pooler" if serial else "pooler": self.pooler,
            "column_scaler": self.scaler,
            "rlc_encoder": self.encoder,
            "row_packer" if serial else "row_writer": self.writer,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def busy(self) -> Value:
        """Whether a part is at work on a run, or an item waits between parts."""
        at_work: list[Any] = [self.reader, self.maker, self.writer]
        if self.addition is not None:
            at_work.append(self.addition.reader)
        return Cat(*(part.busy for part in at_work), *self.waiting).any()

    @property
    def wrong(self) -> Value:
        """Whether a row, of the lane or of the operand, has a wrong length."""
        decoders = [self.decoder, *([self.addition.decoder] if self.addition else [])]
        return Cat(decoder.error for decoder in decoders).any()

    def connect_loader(self, told: Any, array: Array) -> None:
        """Load the column as ``told`` by the sequencer; its stream is read ahead of the loader."""
        m, loader, fetcher = self.links.m, self.loader, self.fetcher
        connect(m, fetcher.o, loader.words)
        m.d.comb += [
            loader.load.eq(told.load),
            loader.lane.eq(told.lane),
            loader.start.eq(told.start),
            loader.reset_taps.eq(told.begin),
            loader.exhausted.eq(fetcher.exhausted),
            fetcher.start.eq(told.start),
            fetcher.address.eq(told.lane.address),
            fetcher.limit.eq(told.lane.words),
            fetcher.active.eq(loader.busy),
            array.tap[self.index].eq(loader.tap),
            array.pointer[self.index].eq(loader.pointer),
            self.requantiser.constant.eq(loader.constant),
        ]
        if self.lookup is not None:
            m.d.comb += self.lookup.table.eq(loader.lookup)

    def connect_run(self, told: Any, array: Array, setting: data.View | None) -> None:
        """Connect what works on a run, as ``told``; ``setting`` is that of serial poolers."""
        self._connect_tokens(array.tokens[self.index])
        self._connect_outputs(told, array.sums[self.index])
        self._tell_run(told)
        self._tell_channels(told.lane)
        pooler = self.pooler
        if isinstance(pooler, SerialPooler):
            self._connect_scaler(told, pooler)
            self.links.m.d.comb += pooler.setting.eq(setting)
        else:
            self.links.m.d.comb += pooler.scale.eq(told.pool_scale)

    def _connect_tokens(self, tokens: stream.Interface) -> None:
        """Connect the lane's rows to the array's ``tokens``."""
        self._link("word_link", self.reader.o, self.decoder.i)
        self._link("item_queue", self.decoder.o, self.maker.i, kind=Queue)
        # With a shared store an element takes a token in two cycles, as a link does.
        kind = Link if self.links.config.shared_store else Queue
        self.waiting.append(self._link("token_queue", self.maker.o, tokens, kind=kind))

    def _connect_outputs(self, told: Any, sums: stream.Interface) -> None:
        """Connect the column's ``sums`` to the writer.

        Values behind a run's last window are dropped as the next one starts.
        """
        self._link("sum_link", sums, self.requantiser.i, told.start)
        outputs = self.requantiser.o
        if self.lookup is not None:
            self._link("lookup_link", outputs, self.lookup.i, told.start)
            outputs = self.lookup.o
        if self.addition is not None:
            self._connect_addition(told, self.addition, outputs)
            outputs = self.addition.adder.o
        self._link("pooler_link", outputs, self.pooler.i, told.start)
        packs = self.encoder or self.writer
        self._link("encoder_link", self.pooler.o, packs.i)
        if self.encoder is not None:
            connect(self.links.m, self.encoder.o, self.writer.i)

    def _connect_addition(self, told: Any, addition: Addition, outputs: stream.Interface) -> None:
        """Connect the adder to ``outputs``, to the operand's rows and to the pooler's scaler."""
        m, run = self.links.m, told.run
        reader, decoder, adder = addition
        self._link("adder_link", outputs, adder.i, told.start)
        connect(m, reader.o, decoder.i)
        self._link("operand_link", decoder.o, adder.operand)
        self._link("added_link", adder.sums, self.pooler.sums, told.start)
        m.d.comb += [
            reader.operand.eq(told.operand),
            reader.channels.eq(told.lane.channels),
            decoder.width.eq(Mux(run.broadcast, 1, run.pooled_width)),
            decoder.start.eq(told.start),
        ]

    def _connect_scaler(self, told: Any, pooler: SerialPooler) -> None:
        """Connect the scaler that requantiser, adder and pooler share."""
        m, scaler = self.links.m, self.scaler
        assert scaler is not None
        connect(m, self.requantiser.sum, scaler.sum)
        connect(m, scaler.activation, self.requantiser.activation)
        connect(m, pooler.pooled, scaler.pooled)
        connect(m, scaler.result, pooler.result)
        if self.addition is not None:
            connect(m, self.addition.adder.scale, scaler.operand)
            connect(m, scaler.scaled, self.addition.adder.scaled)
        m.d.comb += [
            scaler.run.eq(told.run),
            scaler.start.eq(told.start),
            scaler.scale.eq(told.pool_scale),
        ]

    def _tell_run(self, told: Any) -> None:
        """Tell all parts of the run and its start."""
        m, reader, decoder = self.links.m, self.reader, self.decoder
        m.d.comb += [
            reader.segment.eq(told.segment),
            reader.half.eq(told.half),
            reader.segments.eq(told.lane.segments),
            self.maker.segments.eq(told.lane.segments),
            decoder.width.eq(told.run.width),
            decoder.send_zeros.eq(told.run.send_zeros),
            decoder.start.eq(told.start),
            self.writer.out_address.eq(told.lane.out_address),
        ]
        parts: list[Any] = [reader, self.maker, self.requantiser, self.pooler, self.writer]
        if self.lookup is not None:
            parts.append(self.lookup)
        if self.addition is not None:
            parts += [self.addition.reader, self.addition.adder]
        for part in parts:
            m.d.comb += [part.run.eq(told.run), part.start.eq(told.start)]

    def _tell_channels(self, lane: Any) -> None:
        """Tell the parts that count the column's channels how many these are."""
        parts: list[Any] = [self.requantiser, self.pooler, self.writer]
        if self.addition is not None and self.links.config.product:
            parts.append(self.addition.adder)
        for part in parts:
            self.links.m.d.comb += part.channels.eq(lane.channels)

    def _link(
        self,
        name: str,
        source: stream.Interface,
        sink: stream.Interface,
        clear: Value | None = None,
        *,
        kind: type[Link | Queue] = Link,
    ) -> Value:
        """Connect two parts by a link of this lane."""
        return self.links.link(f"{name}_{self.index}", source, sink, clear, kind=kind)
