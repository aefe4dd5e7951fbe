"""StreamFetcher: reads ahead along a linear stream of memory words."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from thresher.golden.config import Config

__all__ = ["ProgramFetcher", "StreamFetcher"]

LIMIT_BITS = 20


class StreamFetcher(wiring.Component):
    """Ask for word after word and keep up to ``depth`` of them ready.

    Timing contract
    ---------------
    Latency
        With ``start`` in cycle ``t`` the first request is offered in cycle ``t + 2``. A response in
        cycle ``t`` is offered as a word in cycle ``t + 2``.
    Throughput
        One request and one word per cycle, as long as no more than ``depth`` words are asked for,
        under way or waiting; so a memory that answers after ``n`` cycles yields
        ``min(1, depth / (n + 4))`` words per cycle.
    Combinational paths
        ``response`` to nothing but registers; ``start`` to ``o.valid`` and ``words_read``.
    Reset
        Stops; responses to earlier requests are not recognised as such.

    Parameters
    ----------
    config
        Widths of an address and of a word.

    Members
    -------
    start : ``In(1)``
        Begin again at ``address``. Waiting words are dropped, and so are the responses to requests
        made before, one still being offered included. No word is offered in this cycle.
    address : ``In(config.address_bits)``
        First word, taken with ``start``.
    limit : ``In(20)``
        Words of the stream, taken with ``start``; 0: without end.
    active : ``In(1)``
        Low: no further requests are made. Words that were asked for still come.
    request : ``Out(stream.Signature(unsigned(config.address_bits)))``
        To the memory or an arbiter.
    response : ``In(stream.Signature(unsigned(config.port_bits)))``
        One for each request, in order; always ready.
    o : ``Out(stream.Signature(unsigned(config.port_bits)))``
        The words. They are withdrawn by ``start``, by nothing else.
    words_read : ``Out(1)``
        A word is taken from ``o`` in this cycle.
    exhausted : ``Out(1)``
        All words of a limited stream have been taken; until the next ``start``.
    idle : ``Out(1)``
        No request is offered and no response, wanted or not, is outstanding.
    """

    depth = 8

    start: Signal
    address: Signal
    limit: Signal
    active: Signal
    request: stream.Interface
    response: stream.Interface
    o: stream.Interface
    words_read: Signal
    exhausted: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(config.address_bits),
                "limit": In(LIMIT_BITS),
                "active": In(1),
                "request": Out(stream.Signature(unsigned(config.address_bits))),
                "response": In(stream.Signature(unsigned(config.port_bits))),
                "o": Out(stream.Signature(unsigned(config.port_bits))),
                "words_read": Out(1),
                "exhausted": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.depth
        m.submodules.words = words = ResetInserter(self.start)(
            SyncFIFOBuffered(width=self.config.port_bits, depth=depth)
        )

        # Requests in the register or at the memory: wanted ones, and older ones to be dropped.
        # Fewer than `depth` of the latter when the next is made.
        wanted = Signal(range(depth + 1))
        stale = Signal(range(2 * depth))
        free = Signal(range(depth + 1), init=depth)  # places neither filled nor asked for
        next_address = Signal(self.config.address_bits, reset_less=True)
        words_left = Signal(LIMIT_BITS)  # to be asked for, of a limited stream
        limited = Signal()
        all_asked = Signal()  # of a limited stream
        started = Signal()

        # The request register.
        makes = Signal()
        offered = Signal(self.config.address_bits, reset_less=True)
        m.d.comb += [
            makes.eq(
                started
                & self.active
                & ~self.start
                & (~self.request.valid | self.request.ready)
                & (free != 0)
                & (stale < depth)
                & ~all_asked
            ),
            self.request.payload.eq(offered),
        ]
        with m.If(makes):
            m.d.sync += [self.request.valid.eq(1), offered.eq(next_address)]
        with m.Elif(self.request.ready):
            m.d.sync += self.request.valid.eq(0)

        # Where the next one is; both are loaded and counted by one adder each.
        with m.If(makes | self.start):
            m.d.sync += [
                next_address.eq(Mux(self.start, self.address, next_address) + ~self.start),
                words_left.eq(
                    Mux(self.start, self.limit, words_left) + (~self.start).replicate(LIMIT_BITS)
                ),
            ]

        # Responses: the stale ones come first.
        arrives = Signal()
        drops = Signal()
        keeps = Signal()
        m.d.comb += [
            self.response.ready.eq(1),
            arrives.eq(self.response.valid),
            drops.eq(arrives & (stale != 0)),
            keeps.eq(arrives & (stale == 0)),
            words.w_en.eq(keeps),
            words.w_data.eq(self.response.payload),
        ]

        # Words to the consumer.
        m.d.comb += [
            self.o.valid.eq(words.r_rdy & ~self.start),
            self.o.payload.eq(words.r_data),
            self.words_read.eq(self.o.valid & self.o.ready),
            words.r_en.eq(self.words_read),
        ]

        with m.If(self.start):
            m.d.sync += [
                started.eq(1),
                limited.eq(self.limit != 0),
                all_asked.eq(0),
                wanted.eq(0),
                stale.eq(stale + wanted - arrives),
                free.eq(depth),
            ]
        with m.Else():
            m.d.sync += [
                all_asked.eq(all_asked | (makes & limited & (words_left == 1))),
                wanted.eq(wanted + makes - keeps),
                stale.eq(stale - drops),
                free.eq(free + self.words_read - makes),
            ]

        m.d.comb += [
            self.idle.eq((wanted == 0) & (stale == 0)),
            self.exhausted.eq(all_asked & (free == depth)),
        ]
        return m


class ProgramFetcher(StreamFetcher):
    """A :class:`StreamFetcher` of the program: a whole LOAD of eight lanes is ahead."""

    depth = 16
