"""``thresher energy``: bytes moved and energy taken by a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from thresher.scripts.options import JsonFile, check_json, print_table, write_json

__all__ = ["energy"]


def energy(run: Path, /, *, figures: Path | None = None, json: JsonFile = None) -> int:
    """Show the traffic of a run by stream, and its energy, beside those of a dense machine.

    Parameters
    ----------
    run
        A directory that ``thresher simulate -o`` wrote.
    figures
        A JSON file with the energies of operations in picojoules; by default those of Horowitz
        for 45 nm.
    """
    from thresher.golden.energy import DEFAULT_FIGURES, read_figures  # noqa: PLC0415
    from thresher.sim.traffic import traffic_of  # noqa: PLC0415  # heavy

    check_json(json)
    table = read_figures(figures or DEFAULT_FIGURES)
    traffic = traffic_of(run, table)
    write_json(json, {**asdict(traffic), "figures": asdict(table)})
    if str(json) == "-":
        return 0
    streams = [
        (
            name,
            f"{stream.dense:,.0f}",
            f"{stream.moved:,.0f}",
            f"{stream.entropy:,.0f}",
            f"{stream.dense / max(1, stream.moved):.2f}x",
        )
        for name, stream in traffic.streams.items()
    ]
    header = ["bytes an inference", "dense", "moved", "entropy", "smaller"]
    print_table(f"{traffic.network}, {traffic.inputs} inputs", header, streams)
    rows = [
        (name, f"{traffic.dense[name] / 1e6:,.3f}", f"{value / 1e6:,.3f}")
        for name, value in traffic.compressed.items()
    ]
    totals = sum(traffic.dense.values()), sum(traffic.compressed.values())
    rows.append(("total", f"{totals[0] / 1e6:,.3f}", f"{totals[1] / 1e6:,.3f}"))
    print_table("\nenergy of an inference", ["microjoules", "dense", "compressed"], rows)
    print(f"  {totals[0] / max(1e-9, totals[1]):.2f} times less than dense")
    return 0
