"""Energy of an inference, from what was counted and a table of energies an operation.

Reference
---------
M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014 (energies of
operations in 45 nm); S. Han et al., "EIE", ISCA 2016, which counts in this way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from thresher.golden.errors import ThresherError

__all__ = ["DEFAULT_FIGURES", "Accesses", "Figures", "Work", "energy", "read_figures"]

DEFAULT_FIGURES = Path(__file__).with_name("figures") / "horowitz_45nm.json"
_WORD_BITS = 32  # of the accesses that the figures are for


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Energy of an operation in picojoules; an access is of 32 bits.

    Parameters
    ----------
    multiply_int8, add_int32
        Of a multiplication and of an addition to a sum.
    sram_32, dram_32
        Of an access on the chip, and beyond.
    """

    multiply_int8: float
    add_int32: float
    sram_32: float
    dram_32: float


@dataclass(frozen=True, kw_only=True)
class Accesses:
    """Bits that one operation reads and writes on the chip.

    Parameters
    ----------
    tap
        Read a multiplication: offset and weight code.
    accumulator
        Read and written a multiplication.
    pointers
        Read a token and element: two start pointers.
    """

    tap: int
    accumulator: int
    pointers: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done for one inference.

    Parameters
    ----------
    multiplications
        Those that were carried out.
    lookups
        Tokens times the elements that they visit.
    weight_bytes, activation_bytes
        Moved between chip and memory.
    """

    multiplications: float
    lookups: float
    weight_bytes: float
    activation_bytes: float


def read_figures(path: Path) -> Figures:
    """Read a table of energies: JSON with the fields of :class:`Figures`, others are ignored.

    Raises
    ------
    ThresherError
        If the file cannot be read, or a figure is missing or not a positive number.
    """
    try:
        table = json.loads(path.read_text())
    except OSError as error:
        raise ThresherError(f"{path} cannot be read ({error.strerror}): give a JSON file") from None
    except ValueError as error:
        raise ThresherError(f"{path} is not JSON ({error}): see {DEFAULT_FIGURES.name}") from None
    names = [item.name for item in fields(Figures)]
    for name in names:
        value = table.get(name) if isinstance(table, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise ThresherError(
                f"{path}: {name} must be an energy in picojoules, not {value!r};"
                f" see {DEFAULT_FIGURES.name}"
            )
    return Figures(**{name: float(table[name]) for name in names})


def energy(work: Work, accesses: Accesses, figures: Figures) -> Mapping[str, float]:
    """Return picojoules by what takes them.

    Parameters
    ----------
    work
        Of one inference.
    accesses
        Of the machine.
    figures
        Energies an operation.

    Examples
    --------
    >>> figures = Figures(multiply_int8=0.2, add_int32=0.1, sram_32=5, dram_32=640)
    >>> work = Work(multiplications=10, lookups=0, weight_bytes=4, activation_bytes=0)
    >>> energy(work, Accesses(tap=16, accumulator=32, pointers=24), figures)["weights in memory"]
    640.0
    """

    def chip(bits: int) -> float:
        return figures.sram_32 * bits / _WORD_BITS

    return {
        "multiplications": work.multiplications * figures.multiply_int8,
        "additions": work.multiplications * figures.add_int32,
        "tap stores": work.multiplications * chip(accesses.tap),
        "accumulators": work.multiplications * 2 * chip(accesses.accumulator),
        "start pointers": work.lookups * chip(accesses.pointers),
        "weights in memory": work.weight_bytes * 8 / _WORD_BITS * figures.dram_32,
        "activations in memory": work.activation_bytes * 8 / _WORD_BITS * figures.dram_32,
    }
