"""Programs of steps: what each step says of the signals that it drives, as logic.

A program is written as a list of steps; :class:`StepProgram` turns it into a register that holds
the step, and into functions of that register.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

__all__ = ["StepProgram", "either"]


def either(first: ValueLike, second: ValueLike) -> ValueLike:
    """Return what is 1 if one of two bits is."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, int):
            return 1 if one else other
    return Value.cast(first) | second


def _bit(value: ValueLike | None, bit: int) -> int | None:
    """Bit of a value, 0 if it is not constant, None if it does not matter."""
    if value is None:
        return None
    return value >> bit & 1 if isinstance(value, int) else 0


def _choose(index: Value, leaves: list[int | None]) -> Value | int | None:
    """Choose a leaf by ``index``, its highest bit first; None if none of them matters."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    low, high = _choose(index, leaves[:half]), _choose(index, leaves[half:])
    if low is None or high is None:
        return high if low is None else low
    if isinstance(low, int) and isinstance(high, int) and low == high:
        return low
    return Mux(index[half.bit_length() - 1], high, low)


class StepProgram:
    """A register with the step in hand, and what the steps say.

    Each step is followed by the next one, unless it waits, or goes to another one.

    Parameters
    ----------
    m
        Receives the logic; the program is in its clock domain ``sync``.
    steps
        The steps, numbered from 0; the first one is taken after reset.

    Attributes
    ----------
    step
        The step in hand: an ``m.Switch`` of it encloses the calls of :meth:`at`.
    waits
        To be said of a step that is not over.
    """

    def __init__(self, m: Module, steps: type[IntEnum]) -> None:
        self.m, self.count = m, len(steps)
        self.step = Signal(range(self.count))
        self.now = 0
        # What is said of each step; of steps of which nothing is said, by default.
        self.said: dict[int, tuple[Signal, int | None, dict[int, ValueLike]]] = {}
        self.waits, self.jumps = Signal(), Signal()  # stays at this step; leaves their order
        self.target, self.following = Signal.like(self.step), Signal.like(self.step)
        m.d.comb += self.following.eq(
            Mux(self.jumps, self.target, Mux(self.waits, self.step, self.step + 1))
        )
        m.d.sync += self.step.eq(self.following)

    @contextmanager
    def at(self, step: IntEnum) -> Iterator[None]:
        """Say what a step does."""
        self.now = step
        with self.m.Case(step):
            yield

    def says(self, signal: Signal, value: ValueLike = 1, default: int | None = 0) -> None:
        """Give a signal a value at this step; ``default`` None: at others it does not matter."""
        _, _, values = self.said.setdefault(id(signal), (signal, default, {}))
        values[self.now] = value

    def go(self, to: IntEnum, when: ValueLike = 1) -> None:
        """Take another step than the next one, unless an earlier call has said so."""
        jumps, target = (
            self.said[id(signal)][2].get(self.now) if id(signal) in self.said else None
            for signal in (self.jumps, self.target)
        )
        if jumps is None or target is None:
            self.says(self.jumps, when)
            self.says(self.target, to, default=None)
        else:
            self.says(self.jumps, Value.cast(jumps) | when)
            self.says(self.target, Mux(jumps, target, to), default=None)

    def emit(self) -> None:
        """Add what was said, each bit as a function of the step.

        The functions are of the following step, and kept: what is said of a step is there as it
        begins, and what it depends on is chosen by a bit for the steps where it does.
        """
        chosen: dict[frozenset[int], Signal] = {}

        def keep(leaves: list[int | None], name: str) -> Signal:
            kept = Signal(init=leaves[0] or 0, name=name)
            found = _choose(self.following, leaves)
            self.m.d.sync += kept.eq(0 if found is None else found)
            return kept

        for signal, default, values in self.said.values():
            depends: dict[int, tuple[Value, set[int]]] = {}
            for step, value in values.items():
                if not isinstance(value, int):
                    depends.setdefault(id(value), (Value.cast(value), set()))[1].add(step)
            bits: list[ValueLike] = []
            for k in range(len(signal)):
                leaves = [
                    _bit(values.get(step, default), k) if step < self.count else None
                    for step in range(1 << len(self.step))
                ]
                bit: Value = Const(0)
                if 1 in leaves:
                    bit = keep(leaves, f"{signal.name}_{k}")
                for value, steps in depends.values():
                    if k < len(value):
                        key = frozenset(steps)
                        if key not in chosen:
                            there = [int(n in steps) for n in range(len(leaves))]
                            chosen[key] = keep([*there], f"chosen_{len(chosen)}")
                        bit |= chosen[key] & value[k]
                bits.append(bit)
            self.m.d.comb += signal.eq(Cat(*bits))
