"""Tables of ``thresher bench``: our cycles, all others, and the cases that we lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thresher.scripts.options import print_table

if TYPE_CHECKING:
    from thresher.sim.bench import Row

__all__ = ["print_losses", "print_others", "print_rows"]


def print_rows(title: str, rows: Sequence[Row], modes: Sequence[str]) -> None:
    """Print a line for each workload: cycles by mode, the model's error, bound, closest other."""
    table = [
        (
            row.name,
            *(f"{row.cycles[mode]:,}" if mode in row.cycles else "-" for mode in modes),
            _model_error(row, modes),
            f"{row.bound:,}",
            f"{row.bound / row.best:.2f}",
            _closest(row),
        )
        for row in rows
    ]
    header = ["workload", *modes, "model", "bound", "/ours", "closest"]
    print_table(f"\n{title}", header, table, fit=True)


def print_others(rows: Sequence[Row]) -> None:
    """Print a line for each other: cycles, multipliers, their product, and the ratio to ours."""
    table = []
    for row in rows:
        if row.published:
            ours = row.best * row.multipliers
            table.append((row.name, "ours", f"{row.best:,}", row.multipliers, f"{ours:,}", ""))
        for name, other in row.published.items():
            figures = (f"{other.cycles:,.0f}", other.multipliers, f"{other.product:,.0f}")
            table.append((row.name, name, *figures, _ratio(row.ratios[name])))
    if table:
        header = ["workload", "who", "cycles", "multipliers", "product", "/ours"]
        print_table("", header, table, left=2)


def print_losses(rows: Sequence[Row]) -> None:
    """Print the cases in which another, or our own mode none, needs less than we do."""
    table = [
        (row.group, row.name, name, f"{ratio:.3f}")
        for row in rows
        for name, ratio in row.losses.items()
    ]
    if table:
        print_table("\nlosing cases", ["group", "workload", "to", "/ours"], table, left=3)


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}{' <' if ratio < 1 else '  '}"


def _closest(row: Row) -> str:
    """Return the other that needs least, marked if that is less than ours."""
    if not row.ratios:
        return "-"
    name, ratio = min(row.ratios.items(), key=lambda item: item[1])
    return f"{name} {_ratio(ratio)}"


def _model_error(row: Row, modes: Sequence[str]) -> str:
    """Return the model's error in the mode ``both``, or the last one."""
    mode = "both" if "both" in modes else modes[-1]
    return f"{row.model_errors[mode]:+.1f} %" if mode in row.model else "-"
