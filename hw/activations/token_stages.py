"""The stages of a token maker, from an activation or a marker to its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data

from thresher.hw.activations.token_places import TokenPlaces
from thresher.hw.layouts import activation_layout

if TYPE_CHECKING:
    from thresher.hw.activations.token_maker import TokenMaker

__all__ = ["TokenStages"]


class TokenStages:
    """First an item or a marker; second its groups, and how often they repeat; third the token.

    Of the groups those before the channel's come late, from a multiplier, and are apart.

    Parameters
    ----------
    m
        Receives the logic.
    ports
        The token maker's.
    places
        Of the item in the first stage.

    Attributes
    ----------
    first, item
        The first stage; ``item`` is what a token is made of.
    opens, completes
        A marker that opens, or completes, an output row enters the first stage.
    first_free, first_empty
        An item, or a marker, may enter it.
    empty
        Nothing is on its way; of the third stage, that it is free.
    """

    first: Any
    item: Any

    def __init__(self, m: Module, ports: TokenMaker, places: TokenPlaces) -> None:
        self.m, self.ports, self.places = m, ports, places
        config = ports.config
        self.first = Signal(data.StructLayout({"valid": 1, "marker": 1, "open": 1}))
        self.item = Signal(activation_layout(config))
        self.opens, self.completes = Signal(), Signal()
        self.first_free, self.first_empty = Signal(), Signal()
        groups_layout = data.StructLayout(
            {
                "valid": unsigned(1),
                "marker": unsigned(1),
                "open": unsigned(1),
                "row": unsigned(config.group_bits),
                "low": unsigned(config.group_bits),
                "high": unsigned(config.group_bits),
                "base": unsigned(config.offset_bits),
                "value": signed(config.activation_bits),
            }
        )
        second: Any = Signal(groups_layout)
        offset = Signal(config.group_bits)  # groups before the channel's
        is_last = Signal()  # of those that repeat
        free = Signal()  # the third stage
        m.d.comb += free.eq(~ports.o.valid | ports.o.ready)
        self._take_marker()
        self._find_groups(second, offset, is_last, free)
        self._offer_token(second, offset, free)
        self.empty = ~self.first.valid & ~second.valid & free

    def _take_marker(self) -> None:
        """First stage, but for items, which are taken in one state of the sequence only."""
        m, first = self.m, self.first
        with m.If(self.first_free):
            m.d.sync += [first.valid.eq(0), first.marker.eq(0), first.open.eq(0)]
        with m.If(self.opens | self.completes):
            m.d.sync += [first.valid.eq(1), first.marker.eq(1), first.open.eq(self.opens)]

    def _find_groups(self, second: Any, offset: Signal, is_last: Signal, free: Signal) -> None:
        """Second stage: the groups of a kernel row, or at once of all, if they are neighbours."""
        m, places, first, run = self.m, self.places, self.first, self.ports.run
        x = places.x
        repeats = Signal(self.ports.config.map_bits)  # that follow
        second_free = Signal()
        whole, met = Signal(), Signal()
        registered = self.ports.config.registered_links
        m.d.comb += [
            second_free.eq(~second.valid | (free & is_last)),
            self.first_free.eq(~first.valid | second_free),
            # For a marker; with registered links known from a register.
            self.first_empty.eq(~first.valid if registered else self.first_free),
            whole.eq((x.low == 0) & (x.high == places.kernel_width)),
            met.eq((x.low != x.high) & (places.row_more >= 0)),
        ]
        with m.If(second_free):
            m.d.sync += [
                second.valid.eq(first.valid & (first.marker | met)),
                second.marker.eq(first.marker),
                second.open.eq(first.open),
                second.value.eq(self.item.value),
                second.base.eq(places.y.base + x.base),
                second.row.eq(places.row_low + x.groups),
                second.low.eq(x.low),
                second.high.eq(Mux(whole, places.row_span, x.high)),
                offset.eq(self.item.channel * run.channel_groups),
                repeats.eq(Mux(first.marker | whole, 0, places.row_more)),
                is_last.eq(first.marker | whole | (places.row_more == 0)),
            ]
        with m.Elif(free):
            m.d.sync += [
                repeats.eq(repeats - 1),
                is_last.eq(repeats == 1),
                second.row.eq(second.row + places.kernel_width),
            ]

    def _offer_token(self, second: Any, offset: Signal, free: Signal) -> None:
        """Third stage: a register, so that payload and valid hold during a stall."""
        m, o = self.m, self.ports.o
        token = o.payload
        first_group = Signal.like(offset)
        m.d.comb += first_group.eq(second.row + offset)
        with m.If(free):
            m.d.sync += [
                o.valid.eq(second.valid),
                token.marker.eq(second.marker),
                token.open.eq(second.open),
                token.value.eq(second.value),
                token.base.eq(second.base),
                token.lo.eq(first_group + second.low),
                token.hi.eq(first_group + second.high),
            ]
        with m.If(free & second.marker):
            m.d.sync += [field.eq(0) for field in (token.value, token.base, token.lo, token.hi)]
