"""LUTs in front of the carry cells of an ECP5, folded into the LUTs that these have themselves.

A half of a CCU2C is a LUT4, which says whether the carry is passed on, and gives what it generates
otherwise from inputs A and B alone: the LUT4's own table with C and D at 0. Yosys makes sums of A
and B and leaves C and D idle, so a multiplexer or a gate in front of a sum becomes a LUT of its
own, and a level of delay. Where a LUT drives nothing but one carry cell, and table and order of the
inputs can be found with which both functions of the half stay what they were, it is taken in here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from typing import Any, NamedTuple

__all__ = ["fold"]

_PINS = "ABCD"
_CONSTANTS = {"0": 0, "1": 1, "x": 0, "z": 0}

Net = int | str  # a net, or a constant


class Half(NamedTuple):
    """A half of a carry cell, or a LUT4: nets of A to D, and the table."""

    nets: tuple[Net, ...]
    table: int

    def at(self, values: Mapping[Net, int]) -> tuple[int, int]:
        """The LUT's output, and what a carry cell generates."""
        a, b, c, d = (values[net] if net in values else _CONSTANTS[str(net)] for net in self.nets)
        return self.table >> (a + 2 * b + 4 * c + 8 * d) & 1, self.table >> (a + 2 * b) & 1


def fold(design: Mapping[str, Any]) -> int:
    """Fold what can be folded, in all modules of a design that is mapped to the cells of an ECP5.

    Parameters
    ----------
    design
        As Yosys' ``write_json`` has it; changed in place.

    Returns
    -------
    int
        LUTs that are gone.
    """
    return sum(_fold_module(module) for module in design["modules"].values())


def _fold_module(module: Mapping[str, Any]) -> int:
    """Fold in one module."""
    cells = module["cells"]
    drivers: dict[Net, str] = {}  # of nets that a LUT drives
    uses: dict[Net, int] = defaultdict(int)
    for port in module["ports"].values():
        for net in port["bits"]:
            uses[net] += 1
    for name, cell in cells.items():
        for port, nets in cell["connections"].items():
            if cell["type"] == "LUT4" and port == "Z":
                drivers[nets[0]] = name
            else:
                for net in nets:
                    uses[net] += 1
    before = len(cells)

    def foldable(net: Net) -> bool:
        return net in drivers and uses[net] == 1

    for cell in [cell for cell in cells.values() if cell["type"] == "CCU2C"]:
        for which in "01":
            if cell["parameters"][f"INJECT1_{which}"] != "NO":
                continue
            half = _read(cell, which, f"INIT{which}")
            tried: set[Net] = set()
            while True:
                net = next((n for n in half.nets if foldable(n) and n not in tried), None)
                if net is None:
                    break
                tried.add(net)
                lut = _read(cells[drivers[net]], "", "INIT")
                new = _joined(half, net, lut)
                if new is None:
                    continue
                del cells[drivers.pop(net)]
                for old in (*half.nets, *lut.nets):
                    uses[old] -= 1
                for old in new.nets:
                    uses[old] += 1
                half = new
            _write(cell, which, half)
    return before - len(cells)


def _read(cell: Mapping[str, Any], which: str, table: str) -> Half:
    """Nets and table of a LUT, or of a half of a carry cell."""
    nets = tuple(cell["connections"][pin + which][0] for pin in _PINS)
    return Half(nets, int(cell["parameters"][table], 2))


def _write(cell: Mapping[str, Any], which: str, half: Half) -> None:
    """Set nets and table of a half of a carry cell."""
    for pin, net in zip(_PINS, half.nets, strict=True):
        cell["connections"][pin + which] = [net]
    cell["parameters"][f"INIT{which}"] = f"{half.table:016b}"


def _joined(half: Half, net: Net, lut: Half) -> Half | None:
    """The half with the LUT that drives ``net`` in it; None if that does not go."""
    free = [
        n for n in dict.fromkeys((*half.nets, *lut.nets)) if n != net and str(n) not in _CONSTANTS
    ]
    if len(free) > len(_PINS):
        return None
    wanted = []  # for all values of the nets: what is passed on, and what is generated if not
    for values in product((0, 1), repeat=len(free)):
        known: dict[Net, int] = dict(zip(free, values, strict=True))
        known[net] = lut.at(known)[0]
        wanted.append((known, half.at(known)))
    idle: Sequence[Net] = ["1"] * (len(_PINS) - len(free))
    for nets in permutations([*free, *idle]):
        table = _table(nets, wanted)
        if table is not None:
            return Half(nets, table)
    return None


def _table(
    nets: tuple[Net, ...], wanted: Sequence[tuple[Mapping[Net, int], tuple[int, int]]]
) -> int | None:
    """The table of a half with inputs in this order, None if there is none."""
    table: dict[int, int] = {}
    for known, (passes, generates) in wanted:
        a, b, c, d = (known[net] if net in known else _CONSTANTS[str(net)] for net in nets)
        entries = [(a + 2 * b + 4 * c + 8 * d, passes)]
        if not passes:
            entries.append((a + 2 * b, generates))
        for place, value in entries:
            if table.setdefault(place, value) != value:
                return None
    return sum(value << place for place, value in table.items())
